"""Centers of training tiles: uniform over all pixels, or balanced over the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import tf

Sampling = Literal["uniform", "classes"]
"""Centers of tiles: uniform over all pixels, or half of them by class."""

MOST_PIXELS = 2**16
"""Pixels to remember of each class; those of a more frequent class are a random sample."""

_BY_CLASS = 0.5  # share of tiles
_CHUNK = 2**24  # pixels


class ClassPixels(NamedTuple):
    """Pixels of each class, from which the centers of tiles are drawn.

    Half of the tiles are centered at a pixel of a class that is drawn uniformly from the classes
    present, so that a rare class is seen often; the others are uniform over all pixels. (nnU-Net
    does so for a third of its tiles.) Of images labelled in part, all tiles are centered at
    labelled pixels.

    Attributes:
        pixels: Indices of pixels in the flat buffer of all images, int32, class by class.
        first: Position in `pixels` of the first pixel of each class present, int32.
        count: Number of pixels of each of these classes, int32.
        share: Share of the tiles that are centered at these pixels.
    """

    pixels: Any
    first: Any
    count: Any
    share: float = _BY_CLASS

    @classmethod
    def of(
        cls,
        classes: Sequence[NDArray[np.uint8]],
        counted: Sequence[NDArray[np.bool_]],
        *,
        foreground_only: bool,
        seed: int,
        share: float = _BY_CLASS,
    ) -> ClassPixels | None:
        """Finds the pixels of each class, or a random sample of them.

        Args:
            classes: Classes of the pixels of each image, `(height, width)`.
            counted: Masks of the pixels that are not ignored, of the same shapes.
            foreground_only: Whether class 0, the background, is left out.
            seed: Seed of the random samples.
            share: Share of the tiles that are centered at these pixels, from 0 to 1.

        Returns:
            The pixels; None if there are none.
        """
        numbers = sum(
            (np.bincount(part[mask], minlength=256) for _, part, mask in _chunks(classes, counted)),
            np.zeros(256, np.int64),
        )
        lowest = int(foreground_only)
        present = [value for value in np.flatnonzero(numbers).tolist() if value >= lowest]
        if not present:
            return None
        random = np.random.default_rng(seed)
        chosen = [_sample(random, int(numbers[value])) for value in present]
        found = _find(classes, counted, present, chosen)
        count = np.array([len(pixels) for pixels in found])
        return cls(
            tf.constant(np.concatenate(found), tf.int32),
            tf.constant(np.cumsum(count) - count, tf.int32),
            tf.constant(count, tf.int32),
            share,
        )

    def draw(self, uniform: Any, keys: Sequence[Any]) -> Any:
        """Draws a pixel.

        Args:
            uniform: Pixel that is drawn uniformly from all, an int32 scalar.
            keys: Three seeds, each of shape `(2,)`.

        Returns:
            Index of the pixel in the flat buffer, an int32 scalar.
        """
        by_class = tf.random.stateless_uniform([], keys[0]) < self.share
        classes = self.count.shape[0]
        index = tf.random.stateless_uniform([], keys[1], 0, classes, tf.int32)
        within = tf.random.stateless_uniform([], keys[2], 0, self.count[index], tf.int32)
        return tf.where(by_class, self.pixels[self.first[index] + within], uniform)


def _sample(random: np.random.Generator, number: int) -> NDArray[np.int64]:
    """Returns positions among the pixels of a class, ascending."""
    if number <= MOST_PIXELS:
        return np.arange(number)
    return np.sort(random.choice(number, MOST_PIXELS, replace=False))


def _find(
    classes: Sequence[NDArray[np.uint8]],
    counted: Sequence[NDArray[np.bool_]],
    values: Sequence[int],
    chosen: Sequence[NDArray[np.int64]],
) -> list[NDArray[np.int64]]:
    """Returns the flat indices of the chosen pixels of each class."""
    passed = np.zeros(len(values), np.int64)
    found: list[list[NDArray[np.int64]]] = [[] for _ in values]
    for start, part, mask in _chunks(classes, counted):
        for number, value in enumerate(values):
            pixels = np.flatnonzero((part == value) & mask)
            here = passed[number] + np.array([0, len(pixels)])
            first, last = np.searchsorted(chosen[number], here)
            found[number].append(start + pixels[chosen[number][first:last] - passed[number]])
            passed[number] = here[1]
    return [np.concatenate(parts) for parts in found]


def _chunks(
    classes: Sequence[NDArray[np.uint8]], counted: Sequence[NDArray[np.bool_]]
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yields index of the first pixel, classes and mask of parts of the images, flat."""
    start = 0
    for image, mask in zip(classes, counted, strict=True):
        flat, flat_mask = image.reshape(-1), mask.reshape(-1)
        for offset in range(0, flat.size, _CHUNK):
            part = slice(offset, offset + _CHUNK)
            yield start + offset, flat[part], flat_mask[part]
        start += flat.size
