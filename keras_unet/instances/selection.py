"""The options by which cells are made of probabilities, chosen on images that training has not seen.

What is sought is the highest mean of SEG and AP at an IoU of 0.5. SEG asks how well each cell is
covered and lets cells that are none pass; AP counts those too, but cares little for outlines.

The best options of a few images is not the best of others. Measured on DSB 2018, the winner of 588 on
2 images fell behind a options fixed beforehand on the other 14, and on 8 images it was no better. So
the selection starts from a options that is good in general, and every step away from it, to the next
value of a number, has its price: 1 / (5 sqrt(n)) for n cells. The standard error of a mean of n
numbers between 0 and 1 is at most 1 / (2 sqrt(n)).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, track
from keras_unet.data.encoding import Kind
from keras_unet.instances.label import InstanceOptions, Markers, label_instances, watershed_regions
from keras_unet.metrics.objects import Overlaps, matching_of_overlaps, seg_of_overlaps

MOST_PIXELS = 2**22
"""Pixels to choose by; of more, images spread evenly over all are taken."""

_THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8)
_MERGE_THRESHOLDS: Mapping[Markers, Sequence[float]] = {
    "components": (0.6,),  # of no effect
    "probability": (0.8, 0.85, 0.9, 0.95),
    "distance": (0.4, 0.5, 0.6, 0.7, 0.8),
}
_USUAL_MERGE_THRESHOLD: Mapping[Markers, float] = {
    "components": 0.6,
    "probability": 0.9,
    "distance": 0.6,
}
_OTHER_SEEDS = 2  # steps that another way to part cells counts for
_SIZES = (0, 1, 2)  # times the minimum size to start from; 4 would remove a tenth of the cells
_GAPS = (0.0, 2.0, 4.0)
_SMALL_CELL = 10  # percentile of the cells' sizes
_PRICE = 0.2
_AP_IOU = 0.5

_Image = TypeVar("_Image")


@dataclass(frozen=True)
class Selection:
    """A options and what it is worth.

    Attributes:
        options: The options.
        cells: Reference cells that it was chosen by.
        score: Mean of SEG and AP at 0.5 with it.
        score_before: The same with the options that the selection started from.
    """

    options: InstanceOptions
    cells: int
    score: float
    score_before: float

    def describe(self) -> str:
        """Describes the selection to a person, in one line."""
        return (
            f"{self.options.describe()}; chosen by {counted(self.cells, 'cell')} held out: mean of "
            f"SEG and AP {self.score:.4f}, before {self.score_before:.4f}"
        )


def default_options(kind: Kind, references: Iterable[NDArray[np.integer]]) -> InstanceOptions:
    """Returns the options to start from, the best for networks whose cells were looked at before.

    Where labels hold instances, cells are parted at their merge thresholds. Classes are not: their pieces may
    be of any shape. A quarter of a small cell, the 10th percentile, is the minimum size: other
    images may hold smaller cells.

    Args:
        kind: What the labels hold.
        references: The training images' instances, `(height, width)` each; 0 is background.

    Example:
        >>> default_options("instances", [np.repeat([[0, 1, 2]], 40, axis=0)])
        InstanceOptions(threshold=0.5, markers='distance', merge_threshold=0.6, minimum_size=10, gap=2.0,
                     fill_holes=True)
    """
    sizes = np.concatenate([_sizes(reference) for reference in references])
    small = round(float(np.percentile(sizes, _SMALL_CELL)) / 4) if sizes.size else 0
    if kind == "classes":
        return InstanceOptions(minimum_size=small)
    return InstanceOptions(markers="distance", merge_threshold=0.6, minimum_size=small)


def select_options(
    start: InstanceOptions,
    probabilities: Sequence[NDArray[np.floating]],
    references: Sequence[NDArray[np.integer]],
) -> Selection | None:
    """Chooses the options that finds the cells of some images best.

    First all thresholds, markers, merge thresholds and sizes are tried together, then gaps and holes. The
    watersheds of an image are computed once for each threshold and markers, and what their basins
    share with the reference cells is counted once: to join basins is then to add numbers.

    Args:
        start: The options to go from.
        probabilities: Probability of being cell of each image, `(height, width)`; 0 where pixels
            are not to count.
        references: Instances of each image, `(height, width)`; 0 is background.

    Returns:
        The options with its score; None if there is no cell to choose by.
    """
    cells = sum(len(_sizes(reference)) for reference in references)
    if not cells:
        return None

    def score(options: InstanceOptions) -> float:
        results = [label_instances(one, options) for one in probabilities]
        return _score([_overlaps(*pair) for pair in zip(references, results, strict=True)])

    def best(scored: Iterable[tuple[InstanceOptions, float]]) -> InstanceOptions:
        price = _PRICE / cells**0.5
        return max(scored, key=lambda one: one[1] - price * _steps(start, one[0]))[0]

    parted = best(_grid(start, probabilities, references))
    finishes = track(list(_finishes(parted)), "choosing which gaps are closed")
    finished = best((options, score(options)) for options in finishes)
    return Selection(finished, cells, score(finished), score(start))


def spread(images: Sequence[_Image], pixels: Sequence[int]) -> list[_Image]:
    """Picks images evenly, so that they hold at most about `MOST_PIXELS`, at least one.

    Args:
        images: The images, at least one.
        pixels: Number of pixels of each.

    Example:
        >>> spread("abcdef", [2**20] * 6)
        ['a', 'c', 'd', 'f']
    """
    number = int(np.clip(MOST_PIXELS / np.mean(pixels), 1, len(images)))
    return [images[round(place)] for place in np.linspace(0, len(images) - 1, number)]


def _grid(
    start: InstanceOptions,
    probabilities: Sequence[NDArray[np.floating]],
    references: Sequence[NDArray[np.integer]],
) -> Iterator[tuple[InstanceOptions, float]]:
    """Yields options and their scores, before gaps are closed and holes filled."""
    sizes = sorted({round(share * start.minimum_size) for share in _SIZES})
    ways = list(product(_THRESHOLDS, _MERGE_THRESHOLDS))
    for threshold, markers in track(ways, "choosing how cells are made"):
        finest = max(_MERGE_THRESHOLDS[markers])
        watersheds = [
            watershed_regions(one, threshold, markers).simplify(finest) for one in probabilities
        ]
        shared = [
            _overlaps(reference, regions.labels)
            for reference, regions in zip(references, watersheds, strict=True)
        ]
        for merge_threshold, size in product(_MERGE_THRESHOLDS[markers], sizes):
            numbers: dict[str, Any] = {"merge_threshold": merge_threshold, "minimum_size": size}
            options = replace(start, threshold=threshold, markers=markers, **numbers)
            joined = [
                _joined(overlaps, regions.cells(merge_threshold, size))
                for overlaps, regions in zip(shared, watersheds, strict=True)
            ]
            yield options, _score(joined)


def _finishes(options: InstanceOptions) -> Iterator[InstanceOptions]:
    for gap, fill_holes in product(_GAPS, (True, False)):
        yield replace(options, gap=gap, fill_holes=fill_holes)


def _steps(start: InstanceOptions, options: InstanceOptions) -> int:
    """Counts the steps from one options to another."""
    is_same = options.markers == start.markers
    usual = start.merge_threshold if is_same else _USUAL_MERGE_THRESHOLD[options.markers]
    sizes = [share * start.minimum_size for share in _SIZES]
    return (
        _values_between(_THRESHOLDS, start.threshold, options.threshold)
        + _values_between(_MERGE_THRESHOLDS[options.markers], usual, options.merge_threshold)
        + (0 if is_same else _OTHER_SEEDS)
        + _values_between(sizes, start.minimum_size, options.minimum_size)
        + _values_between(_GAPS, start.gap, options.gap)
        + (start.fill_holes != options.fill_holes)
    )


def _values_between(values: Sequence[float], one: float, other: float) -> int:
    low, high = sorted((one, other))
    return sum(low < value <= high for value in values)


def _score(images: Sequence[Overlaps]) -> float:
    return (seg_of_overlaps(images) + matching_of_overlaps(images, _AP_IOU).ap) / 2


def _overlaps(reference: NDArray[np.integer], result: NDArray[np.integer]) -> Overlaps:
    """Counts shared pixels without looking at those that are background in both."""
    seen = (reference > 0) | (result > 0)
    return Overlaps.of(reference[seen], result[seen])


def _joined(overlaps: Overlaps, cells: NDArray[np.int32]) -> Overlaps:
    """Adds up what basins share with the references when they become cells."""
    owner = cells[1:]
    number = int(owner.max(initial=0))
    kept = owner[overlaps.result] > 0
    place = overlaps.reference[kept] * number + owner[overlaps.result[kept]] - 1
    pairs, inverse = np.unique(place, return_inverse=True)
    reference, result = np.divmod(pairs, max(number, 1))
    sizes, common = np.zeros(number + 1, np.intp), np.zeros(len(pairs), np.intp)
    np.add.at(sizes, owner, overlaps.result_sizes)
    np.add.at(common, inverse, overlaps.common[kept])
    return Overlaps(overlaps.reference_sizes, sizes[1:], reference, result, common)


def _sizes(reference: NDArray[np.integer]) -> NDArray[np.intp]:
    _, sizes = np.unique(reference[reference > 0], return_counts=True)
    return np.asarray(sizes, np.intp)
