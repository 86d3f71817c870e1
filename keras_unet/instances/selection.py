"""Selection of the instance options by a grid search on validation images.

The score is the mean of SEG and of AP at an IoU of 0.5, see `seg_ap_of_overlaps`.

The options that are best on a few images are seldom the best on others. On DSB 2018, the best of
588 on 2 images was worse on the other 14 than fixed options, and on 8 images it was no better. The
search therefore starts from options that are good in general, and each step to the next value of an
option costs 1 / (5 sqrt(n)) for n cells. The standard error of a mean of n numbers between 0 and 1
is at most 1 / (2 sqrt(n)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, track
from keras_unet.data.encoding import Kind
from keras_unet.instances.label import InstanceOptions, Markers, label_instances, watershed_regions
from keras_unet.metrics.objects import Overlaps, seg_ap_of_overlaps

MOST_PIXELS = 2**22
"""Pixels that `subsample` selects at most."""

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
_MARKERS_STEPS = 2  # steps that a change of the markers counts for
_AFFINITIES_STEPS = 2  # steps that leaving out the affinities counts for
_SIZES = (0, 1, 2)  # times the initial minimum size; 4 would remove a tenth of the cells
_GAPS = (0.0, 2.0, 4.0)
_SMALL_CELL = 10  # percentile of the cells' sizes
_STEP_COST = 0.2

_Image = TypeVar("_Image")
Masks = Sequence[NDArray[np.bool_]] | None
"""Labelled pixels of each image; None if all are labelled."""

Cells = tuple[Sequence[NDArray[np.floating]], Sequence[NDArray[np.integer]], Masks]
"""Cell probability of each image, 0 at ignored pixels, its instances, and its labelled pixels."""


@dataclass(frozen=True)
class Selection:
    """Selected instance options with their score.

    Attributes:
        options: The selected options.
        cells: Number of reference cells.
        score: Mean of SEG and AP at 0.5 with these options.
        score_before: Score of the initial options.
    """

    options: InstanceOptions
    cells: int
    score: float
    score_before: float

    def describe(self) -> str:
        """Returns a summary in one line."""
        return (
            f"{self.options.describe()}; chosen by {counted(self.cells, 'cell')} held out: mean of "
            f"SEG and AP {self.score:.4f}, before {self.score_before:.4f}"
        )


def default_options(
    kind: Kind, references: Iterable[NDArray[np.integer]], *, affinities: bool = False
) -> InstanceOptions:
    """Returns default options for a data set.

    Instances are split where they narrow; objects of classes are not, since they may have any
    shape. The minimum size is a quarter of a small cell, the 10th percentile of the sizes, because
    other images may contain smaller cells.

    Args:
        kind: Kind of the labels.
        references: Instances of the training images, `(height, width)` each; 0 is background.
        affinities: Whether the network predicts affinities, to be used.

    Example:
        >>> default_options("instances", [np.repeat([[0, 1, 2]], 40, axis=0)])
        InstanceOptions(threshold=0.5, markers='distance', merge_threshold=0.6, minimum_size=10,
                        gap=2.0, fill_holes=True, affinities=False)
    """
    sizes = np.concatenate([np.empty(0, np.intp), *map(_sizes, references)])
    small = round(float(np.percentile(sizes, _SMALL_CELL)) / 4) if sizes.size else 0
    if kind == "classes":
        return InstanceOptions(minimum_size=small, affinities=affinities)
    return InstanceOptions(markers="distance", minimum_size=small, affinities=affinities)


def select_predicted(
    start: InstanceOptions, predict: Callable[[InstanceOptions], Cells], kind: Kind
) -> Selection | None:
    """Selects the instance options, and whether affinities are used, see `select_options`.

    For labels that hold classes, affinities are used always: SEG and AP give a small object as much
    weight as a large one, whose separation matters most in the scores of ISBI 2012.

    Args:
        start: Initial options; with affinities, for a network that predicts them.
        predict: Function from options, of which `affinities` is used, to the predictions.
        kind: Kind of the labels.
    """
    selection = select_options(start, *predict(start))
    if selection is None or not start.affinities or kind == "classes":
        return selection
    without = replace(start, affinities=False)
    other = select_options(without, *predict(without))
    if other is None or _worth(start, other) <= _worth(start, selection):
        return selection
    return replace(other, score_before=selection.score_before)


def _worth(start: InstanceOptions, selection: Selection) -> float:
    return selection.score - _cost(selection.cells) * _steps(start, selection.options)


def select_options(
    start: InstanceOptions,
    probabilities: Sequence[NDArray[np.floating]],
    references: Sequence[NDArray[np.integer]],
    labelled: Masks = None,
) -> Selection | None:
    """Selects the instance options that fit some images best.

    First all combinations of thresholds, markers, merge thresholds and sizes are scored, then gaps
    and holes.

    Args:
        start: Initial options.
        probabilities: Cell probability of each image, `(height, width)`; 0 at ignored pixels.
        references: Instances of each image, `(height, width)`; 0 is background.
        labelled: Labelled pixels of each image, `(height, width)`, see `Overlaps.of`; None if all
            are.

    Returns:
        The options with their score; None if the references contain no cell.
    """
    cells = sum(len(_sizes(reference)) for reference in references)
    if not cells:
        return None
    masks: Sequence[NDArray[np.bool_] | None] = labelled or [None] * len(references)

    def score(options: InstanceOptions) -> float:
        results = [label_instances(probability, options) for probability in probabilities]
        return seg_ap_of_overlaps(list(map(_overlaps, references, results, masks)))

    def best(scored: Iterable[tuple[InstanceOptions, float]]) -> InstanceOptions:
        cost = _cost(cells)
        return max(scored, key=lambda entry: entry[1] - cost * _steps(start, entry[0]))[0]

    split = best(_grid(start, probabilities, references, masks))
    variants = track(list(_gap_variants(split)), "selecting gaps and holes")
    selected = best((options, score(options)) for options in variants)
    return Selection(selected, cells, score(selected), score(start))


def subsample(images: Sequence[_Image], pixels: Sequence[int]) -> list[_Image]:
    """Selects evenly spaced images with about `MOST_PIXELS` pixels in total, at least one image.

    Args:
        images: The images, at least one.
        pixels: Number of pixels of each.

    Example:
        >>> subsample("abcdef", [2**20] * 6)
        ['a', 'c', 'd', 'f']
    """
    number = int(np.clip(MOST_PIXELS / np.mean(pixels), 1, len(images)))
    return [images[round(position)] for position in np.linspace(0, len(images) - 1, number)]


def _grid(
    start: InstanceOptions,
    probabilities: Sequence[NDArray[np.floating]],
    references: Sequence[NDArray[np.integer]],
    masks: Sequence[NDArray[np.bool_] | None],
) -> Iterator[tuple[InstanceOptions, float]]:
    """Yields options and their scores, before gaps are closed and holes filled."""
    # Each watershed and its overlaps with the reference are computed once; to merge regions is then
    # to add numbers.
    sizes = sorted({round(factor * start.minimum_size) for factor in _SIZES})
    combinations = list(product(_THRESHOLDS, _MERGE_THRESHOLDS))
    for threshold, markers in track(combinations, "selecting thresholds and markers"):
        largest = max(_MERGE_THRESHOLDS[markers])
        watersheds = [
            watershed_regions(probability, threshold, markers).simplify(largest)
            for probability in probabilities
        ]
        overlaps_of_regions = [
            _overlaps(reference, regions.labels, mask)
            for reference, regions, mask in zip(references, watersheds, masks, strict=True)
        ]
        for merge_threshold, size in product(_MERGE_THRESHOLDS[markers], sizes):
            values: dict[str, Any] = {"merge_threshold": merge_threshold, "minimum_size": size}
            options = replace(start, threshold=threshold, markers=markers, **values)
            merged = [
                _merge_overlaps(overlaps, regions.cells(merge_threshold, size))
                for overlaps, regions in zip(overlaps_of_regions, watersheds, strict=True)
            ]
            yield options, seg_ap_of_overlaps(merged)


def _gap_variants(options: InstanceOptions) -> Iterator[InstanceOptions]:
    for gap, fill_holes in product(_GAPS, (True, False)):
        yield replace(options, gap=gap, fill_holes=fill_holes)


def _cost(cells: int) -> float:
    """Returns the score that a step must gain."""
    return float(_STEP_COST / cells**0.5)


def _steps(start: InstanceOptions, options: InstanceOptions) -> int:
    """Counts the steps between two sets of options."""
    is_same = options.markers == start.markers
    usual = start.merge_threshold if is_same else _USUAL_MERGE_THRESHOLD[options.markers]
    sizes = [factor * start.minimum_size for factor in _SIZES]
    return (
        _count_between(_THRESHOLDS, start.threshold, options.threshold)
        + _count_between(_MERGE_THRESHOLDS[options.markers], usual, options.merge_threshold)
        + (0 if is_same else _MARKERS_STEPS)
        + _count_between(sizes, start.minimum_size, options.minimum_size)
        + _count_between(_GAPS, start.gap, options.gap)
        + (start.fill_holes != options.fill_holes)
        + _AFFINITIES_STEPS * (start.affinities != options.affinities)
    )


def _count_between(values: Sequence[float], start: float, end: float) -> int:
    low, high = sorted((start, end))
    return sum(low < value <= high for value in values)


def _overlaps(
    reference: NDArray[np.integer],
    result: NDArray[np.integer],
    labelled: NDArray[np.bool_] | None,
) -> Overlaps:
    """Counts the overlaps, leaving out pixels that are background in both."""
    foreground = (reference > 0) | (result > 0)
    mask = None if labelled is None else labelled[foreground]
    return Overlaps.of(reference[foreground], result[foreground], mask)


def _merge_overlaps(overlaps: Overlaps, cells: NDArray[np.int32]) -> Overlaps:
    """Adds up the overlaps of regions that are merged into cells."""
    cell_of_region = cells[1:]
    number = int(cell_of_region.max(initial=0))
    kept = cell_of_region[overlaps.result] > 0
    key = overlaps.reference[kept] * number + cell_of_region[overlaps.result[kept]] - 1
    pairs, inverse = np.unique(key, return_inverse=True)
    reference, result = np.divmod(pairs, max(number, 1))
    sizes, labelled = np.zeros((2, number + 1), np.intp)
    common = np.zeros(len(pairs), np.intp)
    np.add.at(sizes, cell_of_region, overlaps.result_sizes)
    np.add.at(labelled, cell_of_region, overlaps.result_labelled)
    np.add.at(common, inverse, overlaps.common[kept])
    return Overlaps(overlaps.reference_sizes, sizes[1:], reference, result, common, labelled[1:])


def _sizes(reference: NDArray[np.integer]) -> NDArray[np.intp]:
    _, sizes = np.unique(reference[reference > 0], return_counts=True)
    return np.asarray(sizes, np.intp)
