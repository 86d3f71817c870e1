"""Labels in part, drawn from complete labels: strokes of classes, or a few objects.

`isbi2012+strokes` and `dsb2018+few` are names of data sets of `benchmarks.recipes`. The training
images are labelled in part, with `UNLABELLED` elsewhere; the held-out images are complete.

    python -m benchmarks.recipes default --sets isbi2012 ...
    python -m benchmarks.recipes in-part="--unlabelled 65535" --sets isbi2012+strokes ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.experiment import OfTask
from keras_unet.data.images import read_planes, write_tiff

UNLABELLED = 65_535
"""Value of the pixels that are not labelled."""

STROKES = 0.1
"""Share of the pixels that strokes of classes label."""

OBJECTS = 5
"""Objects of an image that are labelled."""

_LENGTH = 40  # steps of a pixel in a stroke
_TURNS = np.linspace(-0.6, 0.6, 7)  # radians in a step
_NEAR = 4.0  # pixels between an object and the stroke of background beside it
_BACKGROUND_STROKES = 5  # besides one at each object


def draw_strokes(labels: NDArray[Any], random: np.random.Generator) -> NDArray[np.uint16]:
    """Labels a tenth of the pixels by strokes of three pixels in width.

    Args:
        labels: Label values, `(height, width)`.
        random: Source of the random numbers.
    """
    drawn = np.full(labels.shape, UNLABELLED, np.uint16)
    while np.mean(drawn != UNLABELLED) < STROKES:
        start = np.array([random.integers(side) for side in labels.shape])
        _draw(drawn, labels, start, random)
    return drawn


def draw_few_objects(labels: NDArray[Any], random: np.random.Generator) -> NDArray[np.uint16]:
    """Labels a few whole objects, and strokes of background, some of them beside these objects.

    Args:
        labels: Label image, `(height, width)`; 0 is background.
        random: Source of the random numbers.
    """
    numbers = random.permutation(np.unique(labels[labels > 0]))[:OBJECTS]
    drawn = np.where(np.isin(labels, numbers) & (labels > 0), labels, UNLABELLED).astype(np.uint16)
    for start in _starts_in_background(labels, numbers, random):
        _draw(drawn, labels, start, random)
    return drawn


def _starts_in_background(
    labels: NDArray[Any], numbers: NDArray[Any], random: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Yields a pixel of the background beside each of some objects, and others anywhere."""
    background = labels == 0
    for number in numbers:
        beside = background & (ndimage.distance_transform_edt(labels != number) < _NEAR)
        if beside.any():
            yield random.choice(np.argwhere(beside))
    if background.any():
        yield from random.choice(np.argwhere(background), _BACKGROUND_STROKES)


def _draw(
    drawn: NDArray[np.uint16],
    labels: NDArray[Any],
    start: NDArray[np.intp],
    random: np.random.Generator,
) -> None:
    """Draws a stroke that does not leave the pixels of one value."""
    value, angle = labels[tuple(start)], random.uniform(0, 2 * np.pi)
    place = start.astype(float)
    for _ in range(_LENGTH):
        rows, columns = (slice(max(round(at) - 1, 0), round(at) + 2) for at in place)
        window = drawn[rows, columns]
        window[labels[rows, columns] == value] = value
        for turned in random.permutation(angle + _TURNS):
            moved = place + np.array([np.sin(turned), np.cos(turned)])
            pixel = tuple(moved.round().astype(int))
            is_inside = all(0 <= at < side for at, side in zip(pixel, labels.shape, strict=True))
            if is_inside and labels[pixel] == value:
                place, angle = moved, turned
                break
        else:
            return


DRAWN: Mapping[str, Callable[[NDArray[Any], np.random.Generator], NDArray[np.uint16]]] = {
    "strokes": draw_strokes,
    "few": draw_few_objects,
}


@dataclass(frozen=True)
class InPart(OfTask):
    """A task whose training images are labelled in part.

    Attributes:
        drawing: Name in `DRAWN`.
    """

    drawing: str

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Writes the images and labels, and returns the names of the images."""
        names = self.task.copy(training, held_out)
        random = np.random.default_rng(0)
        for path in sorted((training / "labels").iterdir()):
            labels = read_planes(path)[0, ..., 0]
            path.unlink()
            write_tiff(path.with_suffix(".tif"), DRAWN[self.drawing](labels, random), axes="YX")
        return names
