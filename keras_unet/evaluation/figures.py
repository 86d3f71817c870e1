"""Figures of a report: layers of images, and the cells with the lowest and highest IoU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from keras_unet.report.page import ShownImage, lossless_uri, lossy_uri
from keras_unet.report.pictures import (
    Picture,
    difference_picture,
    grey_picture,
    heat_picture,
    label_picture,
    outline_picture,
)

MAX_IMAGES, MAX_CELLS = 12, 6
_MAX_SIDE = 1024  # pixels of a picture's longer side; larger pictures are subsampled
_MIN_CELL = 12  # pixels; a window of twice the cell's length, or of this, is drawn
_MAX_NAME_LENGTH = 20  # characters
_MIN_CELL_PICTURE = 280  # pixels of the height and width of a drawn cell
_OUTLINES_PER_SIDE = 70  # width of a drawn cell in widths of an outline


@dataclass(frozen=True, eq=False)
class ImagePair:
    """An image with its labels and its prediction.

    Attributes:
        labels: Labels and prediction, of one plane.
        image: Image, `(height, width, channels)`, or None.
        weights: Function that returns the weight map, `(height, width)`, or None.
        pixel_size: Height and width of a pixel in micrometers, or None.
    """

    labels: LabelPair
    image: NDArray[np.float32] | None = None
    weights: Callable[[], NDArray[np.float32]] | None = None
    pixel_size: tuple[float, float] | None = None


class _Cell(NamedTuple):
    """A labeled cell and its best IoU with a predicted one."""

    iou: float
    image: ImagePair
    region: Any  # skimage.measure.RegionProperties


def draw_images(images: Sequence[ImagePair], scores: Mapping[str, Scores]) -> list[ShownImage]:
    """Draws the layers of images, from the lowest to the highest score.

    Args:
        images: The images; at most `MAX_IMAGES` are drawn, evenly spaced over the scores.
        scores: Scores of each image by name.
    """
    ordered = sorted(images, key=lambda image: _rank(scores[image.labels.name]))
    indices = np.linspace(0, len(ordered) - 1, min(MAX_IMAGES, len(ordered)))
    selected = [ordered[round(index)] for index in indices]
    return [
        ShownImage(image.labels.name, caption(scores[image.labels.name]), _layers(image))
        for image in track(selected, "drawing images")
    ]


def draw_extreme_cells(images: Sequence[ImagePair]) -> tuple[list[ShownImage], list[ShownImage]]:
    """Draws the cells with the lowest IoU and those with the highest, with their predictions."""
    ordered = sorted((cell for image in images for cell in _cells(image)), key=_worst_first)
    count = min(MAX_CELLS, len(ordered) // 2) or len(ordered)
    worst, best = ordered[:count], ordered[count:][-count:][::-1]
    return [_draw_cell(cell) for cell in worst], [_draw_cell(cell) for cell in best]


def split_planes(stacks: Sequence[LabelPair]) -> list[ImagePair]:
    """Splits stacks into planes."""
    return [ImagePair(plane) for stack in stacks for plane in _planes(stack)]


def score_images(
    images: Sequence[ImagePair], metrics: Sequence[Metric]
) -> tuple[dict[str, Scores], Scores]:
    """Returns the scores of each image by name, and those of all images together."""
    pairs = [image.labels for image in images]
    rows = {pair.name: score([pair], metrics) for pair in track(pairs, "scoring images")}
    return rows, score(pairs, metrics)


def renumber_matches(
    truth: NDArray[np.integer], predicted: NDArray[np.integer]
) -> NDArray[np.int32]:
    """Gives predicted cells the numbers of the true cells they match, so that colors agree.

    Cells match if their IoU is above 0.5; the others get numbers that the truth does not have.

    Args:
        truth: True cells, `(height, width)`; 0 is background.
        predicted: Predicted cells, of the same shape.

    Example:
        >>> renumber_matches(np.array([[4, 4, 0, 6]]), np.array([[1, 1, 0, 0]]))
        array([[4, 4, 0, 0]], dtype=int32)
    """
    overlaps, numbers = Overlaps.of(truth, predicted), np.unique(predicted[predicted > 0])
    is_match = overlaps.iou > 0.5
    new = int(truth.max(initial=0)) + 1 + np.arange(len(numbers), dtype=np.int32)
    new[overlaps.result[is_match]] = np.unique(truth[truth > 0])[overlaps.reference[is_match]]
    table = np.zeros(int(predicted.max(initial=0)) + 1, np.int32)
    table[numbers] = new
    return np.asarray(table[predicted])


def _rank(scores: Scores) -> float:
    """Returns the score that images are sorted by; images without a score come last."""
    value = scores.values.get("seg", scores.values.get("iou", 0.0))
    return 2.0 if isnan(value) else value


def _layers(image: ImagePair) -> dict[str, str]:
    """Draws the layers of an image by title, the lowest first."""
    truth, predicted = image.labels.reference[0], image.labels.result[0]
    layers: dict[str, str] = {}
    if image.image is not None:
        layers["image"] = lossy_uri(_subsample(grey_picture(image.image)))
    layers["truth"] = lossless_uri(_subsample(label_picture(truth)))
    matches = renumber_matches(truth, predicted)
    layers["prediction"] = lossless_uri(_subsample(label_picture(matches)))
    if image.weights is not None:
        layers["weight map"] = lossless_uri(_subsample(heat_picture(image.weights())))
    layers["differences"] = lossless_uri(_subsample(difference_picture(truth, predicted)))
    return layers


def _subsample(picture: Picture) -> Picture:
    step = -(-max(picture.shape[:2]) // _MAX_SIDE)
    return picture[::step, ::step]


def _cells(image: ImagePair) -> list[_Cell]:
    overlaps = image.labels.overlaps[0]
    best = np.zeros(len(overlaps.reference_sizes))
    np.maximum.at(best, overlaps.reference, overlaps.iou)
    regions = regionprops(image.labels.reference[0])
    return [_Cell(iou, image, region) for iou, region in zip(best.tolist(), regions, strict=True)]


def _worst_first(cell: _Cell) -> tuple[float, int]:
    """Returns the key to sort cells by IoU and, where it is equal, by decreasing area."""
    return round(cell.iou, 2), -int(cell.region.area)


def _draw_cell(cell: _Cell) -> ShownImage:
    """Draws the outlines of a cell and of the predicted cells that overlap it, in a square."""
    pair, image = cell.image.labels, cell.image.image
    row, column = (int(center) for center in cell.region.centroid)
    size = pair.reference[0].shape
    side = min(2 * max(*cell.region.image.shape, _MIN_CELL), *size)
    top, left = (
        min(max(0, center - side // 2), length - side)
        for center, length in zip((row, column), size, strict=True)
    )
    window = slice(top, top + side), slice(left, left + side)
    labels, predicted = pair.reference[0][window], pair.result[0][window]
    truth = labels == cell.region.label
    picture = outline_picture(
        difference_picture(labels, labels) if image is None else grey_picture(image[window]),
        truth,
        predicted * np.isin(predicted, predicted[truth]),
        factor=max(1, -(-_MIN_CELL_PICTURE // side)),
        width=max(2, max(_MIN_CELL_PICTURE, side) // _OUTLINES_PER_SIDE),
    )
    name = shortened(pair.name, _MAX_NAME_LENGTH)
    cell_caption = f"IoU {cell.iou:.2f}, row {row}, column {column}"
    return ShownImage(name, cell_caption, {"outlines": lossless_uri(_subsample(picture))})


def _planes(stack: LabelPair) -> list[LabelPair]:
    if len(stack.reference) == 1:
        return [stack]
    names = ["reference", "result", "scores", "counted"]
    names += [] if stack.confusion is None else ["confusion"]
    of_objects = ("reference_classes", "result_classes")
    return [
        replace(
            stack,
            name=plane_name(stack.name, plane),
            **{name: getattr(stack, name)[plane, None] for name in names},
            **{name: getattr(stack, name)[plane : plane + 1] for name in of_objects},
        )
        for plane in range(len(stack.reference))
    ]
