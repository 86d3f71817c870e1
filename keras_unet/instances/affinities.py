"""Separation of touching objects by affinities.

An affinity is the probability that a pixel and another one, at one of `OFFSETS` from it, belong to
the same object. The mutex watershed goes through all pairs of pixels, the most certain ones first.
Adjacent pixels are joined, with the certainty of their affinity a; distant ones are kept apart,
with the certainty 1 - a; unless an earlier pair has decided otherwise. Where two segments touch,
the pixels between them become background, so that each object is a connected component. S. Wolf et
al., "The mutex watershed and its objective", IEEE TPAMI 43, 3724-3738 (2021).

The mutex watershed looks at all pixels at once. Images are therefore divided into blocks of a fixed
grid, with a margin, so that an image that is read by windows gets the same separation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import mwatershed
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from keras_unet.architecture import NEIGHBORS, OFFSETS, Architecture

BLOCK = 1024
"""Height and width in pixels of the blocks that are separated at once."""

MARGIN = 128
"""Pixels around a block that are looked at with it."""

_FOREGROUND = 0.3  # probability above which a pixel may belong to an object
_FRAGMENT = 25  # pixels below which a segment is part of the segments around it
_STRIDE = 3  # pixels between those whose distant affinities are used; all would cut too much

_REACH = max(abs(along) for offset in OFFSETS for along in offset)  # in pixels

Window = tuple[slice, slice]


def separate_objects(outputs: Any) -> NDArray[np.float32]:
    """Separates touching objects in the class probabilities of an image.

    Args:
        outputs: Probabilities of classes, the first of them background, and affinities,
            `(height, width, classes + affinities)`: an array, or an object that is read by windows
            of rows and columns like one.

    Returns:
        Class probabilities, `(height, width, classes)`, with background of probability 1 on lines
        between objects that touch.
    """
    return SeparatedProbabilities(outputs)[: outputs.shape[0], : outputs.shape[1]]


def class_probabilities(
    outputs: NDArray[np.float32], network: Architecture, *, separated: bool
) -> NDArray[np.float32]:
    """Returns the class probabilities of an image, `(height, width, classes)`.

    Args:
        outputs: Outputs of the network, `(height, width, outputs)`, or their mean over views.
        network: Architecture of the network.
        separated: Whether touching objects are separated, if the network predicts affinities.
    """
    if network.affinities and separated:
        is_mean = outputs.shape[-1] > network.outputs
        return separate_objects(MergedAffinities(outputs) if is_mean else outputs)
    return outputs[..., : network.classes]


@dataclass(frozen=True, eq=False)
class MergedAffinities:
    """Mean outputs of the views of an image with one affinity for each pair, read by windows.

    The affinity of a pair of pixels was added at the one pixel by some views, and at the other by
    the others, see `keras_unet.prediction.predict.of_view`. Pairs that reach beyond the image have
    no meaning.

    Attributes:
        outputs: Probabilities, affinities to the pixels at `OFFSETS`, and affinities to those on
            the opposite side, `(height, width, classes + 2 * affinities)`: an array, or an object
            that is read by windows of rows and columns like one.
    """

    outputs: Any

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, outputs."""
        height, width, outputs = self.outputs.shape
        return height, width, outputs - len(OFFSETS)

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        """Reads a window."""
        parts = [
            slice(*part.indices(size)[:2])
            for part, size in zip(window, self.shape[:2], strict=True)
        ]
        around = [
            slice(max(part.start - _REACH, 0), min(part.stop + _REACH, size))
            for part, size in zip(parts, self.shape[:2], strict=True)
        ]
        read = np.asarray(self.outputs[around[0], around[1]])
        outputs, opposite = np.split(read, [-len(OFFSETS)], axis=-1)
        merged = outputs.copy()
        for number, offset in enumerate(OFFSETS):
            here, there = _overlap(offset, read.shape[:2])
            merged[(*here, number - len(OFFSETS))] += opposite[(*there, number)]
        rows, columns = (
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(parts, around, strict=True)
        )
        return merged[rows, columns]


@dataclass(frozen=True, eq=False)
class SeparatedProbabilities:
    """Class probabilities with separated objects, see `separate_objects`, read by windows.

    Attributes:
        outputs: Probabilities and affinities, `(height, width, classes + affinities)`: an array, or
            an object that is read by windows of rows and columns like one.
    """

    outputs: Any
    _latest: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, classes."""
        height, width, outputs = self.outputs.shape
        return height, width, outputs - len(OFFSETS)

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        """Reads a window."""
        sizes = self.shape[:2]
        rows, columns = (
            slice(*part.indices(size)[:2]) for part, size in zip(window, sizes, strict=True)
        )
        shape = rows.stop - rows.start, columns.stop - columns.start, self.shape[2]
        found = np.empty(shape, np.float32)
        for down, right in product(_blocks(rows), _blocks(columns)):
            block = self._block(down, right)
            parts = [
                slice(max(part.start, number * BLOCK), min(part.stop, (number + 1) * BLOCK))
                for part, number in ((rows, down), (columns, right))
            ]
            source, target = (
                tuple(
                    slice(part.start - start, part.stop - start)
                    for part, start in zip(parts, starts, strict=True)
                )
                for starts in ((down * BLOCK, right * BLOCK), (rows.start, columns.start))
            )
            found[target] = block[source]
        return found

    def _block(self, down: int, right: int) -> NDArray[np.float32]:
        """Computes a block; those of the latest row of blocks are kept."""
        if (down, right) not in self._latest:
            for earlier in [number for number in self._latest if number[0] != down]:
                del self._latest[earlier]
            starts = down * BLOCK, right * BLOCK
            around = [
                slice(max(start - MARGIN, 0), min(start + BLOCK + MARGIN, size))
                for start, size in zip(starts, self.shape[:2], strict=True)
            ]
            separated = _separate(np.asarray(self.outputs[around[0], around[1]]))
            inner = tuple(
                slice(start - part.start, start - part.start + BLOCK)
                for start, part in zip(starts, around, strict=True)
            )
            self._latest[down, right] = separated[inner]
        return self._latest[down, right]


def _blocks(part: slice) -> range:
    return range(part.start // BLOCK, -(-part.stop // BLOCK))


def _separate(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    affinities = outputs[..., -len(OFFSETS) :]
    probabilities = outputs[..., : -len(OFFSETS)].copy()
    foreground = 1 - probabilities[..., 0]
    segments = _segments(foreground, affinities)
    line = np.zeros(segments.shape, np.bool_)
    for axis in range(2):
        one, other = _neighbors(segments, axis)
        before, _ = _neighbors(line, axis)
        before |= (one != other) & (one > 0) & (other > 0)
    probabilities[line] = np.eye(probabilities.shape[-1], dtype=np.float32)[0]
    return probabilities


def _neighbors(image: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the pixels that have a next one along an axis, and those next ones, as views."""
    moved = np.moveaxis(image, axis, 0)
    return moved[:-1], moved[1:]


def _segments(
    foreground: NDArray[np.float32], affinities: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Returns the segments of the mutex watershed, `(height, width)`; 0 is background."""
    inside = foreground > _FOREGROUND
    used = [number for number, offset in enumerate(OFFSETS) if _fits(offset, inside.shape)]
    if not used or not inside.any():
        return inside.astype(np.int32)
    edges = np.empty((len(used), *inside.shape))
    for edge, number in zip(edges, used, strict=True):
        repels = number >= NEIGHBORS
        pairs = _joins(inside, OFFSETS[number])
        edge[:] = np.where(pairs, affinities[..., number] - repels, 0)  # 0: last, without effect
    strides = [[1 if number < NEIGHBORS else _STRIDE] * 2 for number in used]
    found = mwatershed.agglom(edges, [list(OFFSETS[number]) for number in used], strides=strides)
    _, numbers, sizes = np.unique(found, return_inverse=True, return_counts=True)
    numbers = numbers.reshape(found.shape)
    is_large = (sizes >= _FRAGMENT)[numbers] & inside
    markers = np.where(is_large, numbers + 1, 0).astype(np.int32)
    grown: NDArray[np.int32] = watershed(-foreground, markers, mask=inside)
    return grown


def _joins(inside: NDArray[np.bool_], offset: tuple[int, int]) -> NDArray[np.bool_]:
    """Marks the pixels that lie inside together with the pixel at an offset from them."""
    both = np.zeros_like(inside)
    here, there = _overlap(offset, inside.shape)
    both[here] = inside[here] & inside[there]
    return both


def _overlap(offset: tuple[int, int], shape: tuple[int, ...]) -> tuple[Window, Window]:
    """Returns the windows of the pixels with another one at an offset, and of those others."""
    here, there = (
        tuple(
            slice(max(0, -sign * along), max(0, size - max(0, sign * along)))
            for along, size in zip(offset, shape, strict=True)
        )
        for sign in (1, -1)
    )
    return (here[0], here[1]), (there[0], there[1])


def _fits(offset: tuple[int, int], shape: tuple[int, ...]) -> bool:
    return all(abs(along) < size for along, size in zip(offset, shape, strict=True))
