"""Figures of a report: image layers for a slider, and the cells found worst and best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops

from keras_unet.console import shortened, track
from keras_unet.data.pairs import plane_name
from keras_unet.evaluation.comparison import LabelPair, Metric, Scores, score
from keras_unet.evaluation.tables import caption
from keras_unet.metrics.objects import Overlaps
from keras_unet.report.page import ShownImage, drawing, photograph
from keras_unet.report.pictures import (
    Picture,
    difference_picture,
    grey_picture,
    heat_picture,
    label_picture,
    outline_picture,
)

MOST_IMAGES, MOST_CELLS = 12, 6
_LONGEST = 1024  # pixels of a picture's longer side; of larger ones pixels are left out
_AROUND = 12  # pixels of a cell's length, at least; twice that is drawn
_LONGEST_NAME = 20  # characters
_SMALLEST = 280  # pixels of a drawn cell's height and width, at least
_LINES = 70  # widths of an outline that a drawn cell's width has


@dataclass(frozen=True, eq=False)
class ImagePair:
    """An image beside its truth and its prediction.

    Attributes:
        comparison: Truth and prediction, of one plane.
        image: `(height, width, channels)`, or None where it is not at hand.
        weights: Returns its weight map, `(height, width)`; None for no weight map.
    """

    comparison: LabelPair
    image: NDArray[np.float32] | None = None
    weights: Callable[[], NDArray[np.float32]] | None = None


class _Cell(NamedTuple):
    """A reference cell and how well it was found."""

    iou: float
    shown: ImagePair
    region: Any  # of skimage.measure.regionprops


def slider(images: Sequence[ImagePair], scores: Mapping[str, Scores]) -> list[ShownImage]:
    """Draws images for the slider, from the one found worst to the one found best.

    Args:
        images: The images; of many, some evenly spread over the scores are drawn.
        scores: Scores of each by name.
    """
    ordered = sorted(images, key=lambda one: _rank(scores[one.comparison.name]))
    places = np.linspace(0, len(ordered) - 1, min(MOST_IMAGES, len(ordered)))
    chosen = [ordered[round(place)] for place in places]
    return [
        ShownImage(one.comparison.name, caption(scores[one.comparison.name]), _layers(one))
        for one in track(chosen, "drawing images")
    ]


def cells(images: Sequence[ImagePair]) -> tuple[list[ShownImage], list[ShownImage]]:
    """Draws the cells found worst, then those found best, with what is predicted; none twice."""
    found = sorted((cell for one in images for cell in _cells(one)), key=_worst_first)
    most = min(MOST_CELLS, len(found) // 2) or len(found)
    worst, best = found[:most], found[most:][-most:][::-1]
    return [_drawn(cell) for cell in worst], [_drawn(cell) for cell in best]


def planes_of(comparisons: Sequence[LabelPair]) -> list[ImagePair]:
    """Takes stacks apart, so that every plane is shown."""
    return [ImagePair(plane) for one in comparisons for plane in _planes(one)]


def scored(
    images: Sequence[ImagePair], metrics: Sequence[Metric]
) -> tuple[dict[str, Scores], Scores]:
    """Scores images, each alone and all together."""
    comparisons = [one.comparison for one in images]
    rows = {one.name: score([one], metrics) for one in track(comparisons, "scoring images")}
    return rows, score(comparisons, metrics)


def matched(truth: NDArray[np.integer], found: NDArray[np.integer]) -> NDArray[np.int32]:
    """Renumbers predicted cells like the true ones that they match, for colors to be the same.

    Cells match from an IoU above 0.5 on; the others get numbers that the truth does not have.

    Args:
        truth: True cells, `(height, width)`; 0 is background.
        found: Predicted cells, of the same shape.

    Example:
        >>> matched(np.array([[4, 4, 0, 6]]), np.array([[1, 1, 0, 0]]))
        array([[4, 4, 0, 0]], dtype=int32)
    """
    overlaps, numbers = Overlaps.of(truth, found), np.unique(found[found > 0])
    alike = overlaps.iou > 0.5
    new = int(truth.max(initial=0)) + 1 + np.arange(len(numbers), dtype=np.int32)
    new[overlaps.result[alike]] = np.unique(truth[truth > 0])[overlaps.reference[alike]]
    table = np.zeros(int(found.max(initial=0)) + 1, np.int32)
    table[numbers] = new
    return np.asarray(table[found])


def _rank(scores: Scores) -> float:
    """Returns what images are ordered by; those without a score come last."""
    value = scores.values.get("seg", scores.values.get("iou", 0.0))
    return 2.0 if isnan(value) else value


def _layers(one: ImagePair) -> dict[str, str]:
    """Draws the layers of an image; the first lies beneath the others."""
    truth, found = one.comparison.reference[0], one.comparison.result[0]
    layers: dict[str, str] = {}
    if one.image is not None:
        layers["image"] = photograph(_reduced(grey_picture(one.image)))
    layers["truth"] = drawing(_reduced(label_picture(truth)))
    layers["prediction"] = drawing(_reduced(label_picture(matched(truth, found))))
    if one.weights is not None:
        layers["weight map"] = drawing(_reduced(heat_picture(one.weights())))
    layers["differences"] = drawing(_reduced(difference_picture(truth, found)))
    return layers


def _reduced(picture: Picture) -> Picture:
    step = -(-max(picture.shape[:2]) // _LONGEST)
    return picture[::step, ::step]


def _cells(one: ImagePair) -> list[_Cell]:
    overlaps = one.comparison.overlaps[0]
    best = np.zeros(len(overlaps.reference_sizes))
    np.maximum.at(best, overlaps.reference, overlaps.iou)
    regions = regionprops(one.comparison.reference[0])
    return [_Cell(iou, one, region) for iou, region in zip(best.tolist(), regions, strict=True)]


def _worst_first(cell: _Cell) -> tuple[float, int]:
    """Orders cells by how well they were found; of those missed, large ones come first."""
    return round(cell.iou, 2), -int(cell.region.area)


def _drawn(cell: _Cell) -> ShownImage:
    """Draws a cell in a square of twice its length, with the predicted cells that overlap it."""
    comparison, image = cell.shown.comparison, cell.shown.image
    row, column = (int(middle) for middle in cell.region.centroid)
    size = comparison.reference[0].shape
    side = min(2 * max(*cell.region.image.shape, _AROUND), *size)
    top, left = (
        min(max(0, middle - side // 2), whole - side)
        for middle, whole in zip((row, column), size, strict=True)
    )
    window = slice(top, top + side), slice(left, left + side)
    labels, found = comparison.reference[0][window], comparison.result[0][window]
    truth = labels == cell.region.label
    picture = outline_picture(
        difference_picture(labels, labels) if image is None else grey_picture(image[window]),
        truth,
        found * np.isin(found, found[truth]),
        factor=max(1, -(-_SMALLEST // side)),
        width=max(2, max(_SMALLEST, side) // _LINES),
    )
    name = shortened(comparison.name, _LONGEST_NAME)
    caption_of_cell = f"IoU {cell.iou:.2f}, row {row}, column {column}"
    return ShownImage(name, caption_of_cell, {"outlines": drawing(_reduced(picture))})


def _planes(one: LabelPair) -> list[LabelPair]:
    if len(one.reference) == 1:
        return [one]
    arrays = "reference", "result", "scores", "counted"
    return [
        LabelPair(
            plane_name(one.name, plane), *(getattr(one, name)[plane, None] for name in arrays)
        )
        for plane in range(len(one.reference))
    ]
