"""Cells counted as found, missed or false by matching them one to one, and scores of the counts.

AP is the average precision of the Data Science Bowl 2018, which StarDist calls accuracy; PQ is the
panoptic quality, equation 1 of Kirillov et al. (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from keras_unet.metrics.overlaps import LabelImage, Overlaps, overlaps_of_images

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Matching:
    """How many objects match at a threshold, over all images together.

    Attributes:
        threshold: Least intersection over union (IoU) of a match.
        tp: True positives: matched pairs of objects.
        fp: False positives: objects of the result without a match.
        fn: False negatives: reference objects without a match.
        matched_iou: Sum of the IoU of all matched pairs.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    matched_iou: float

    @property
    def ap(self) -> float:
        """Average precision, TP / (TP + FP + FN); nan, undefined, without objects."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float:
        """F1, 2 TP / (2 TP + FP + FN); nan, undefined, without objects."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def pq(self) -> float:
        """Panoptic quality, matched IoU / (TP + FP/2 + FN/2); nan, undefined, without objects."""
        return _ratio(2 * self.matched_iou, 2 * self.tp + self.fp + self.fn)

    def to_dict(self) -> dict[str, float]:
        """Returns threshold, counts and scores as plain values."""
        names = ("threshold", "tp", "fp", "fn", "ap", "f1", "pq")
        return {name: getattr(self, name) for name in names}


def matching(
    references: Sequence[LabelImage],
    results: Sequence[LabelImage],
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[Matching]:
    """Matches the objects of results and references one to one, at each threshold on their IoU.

    Of all ways to match pairs with an IoU of at least the threshold, one with the most pairs counts
    and, among these, one with the largest sum of IoU. Above 0.5 there is only one way. (Below 0.5
    StarDist lets pairs under the threshold weigh in on the choice: same counts, PQ at times lower.)

    Args:
        references: Integer label images held to be true, one an image; 0 is background.
        results: Integer label images to score, of the same shapes.
        thresholds: Least IoU of a match, above 0 and at most 1; each gives a result of its own.

    Returns:
        Counts and scores at each threshold, in the order given; counts are sums over the images.

    Raises:
        ValueError: If the numbers of images or the shapes differ, ids are not integers from 0, or a
            threshold is out of range.

    Example:
        Of two objects, one is found to two thirds, the other not, and a third is made up:

        >>> reference, result = np.array([1, 1, 1, 0, 2, 0]), np.array([4, 4, 0, 0, 0, 5])
        >>> matching([reference], [result], [0.6])
        [Matching(threshold=0.6, tp=1, fp=1, fn=1, matched_iou=0.6666666666666666)]
        >>> _[0].ap == 1 / 3, _[0].f1 == 1 / 2, _[0].pq == 1 / 3
        (True, True, True)
    """
    _check_thresholds(thresholds)
    images = overlaps_of_images(references, results)
    return [matching_of_overlaps(images, threshold) for threshold in thresholds]


def matching_of_overlaps(images: Sequence[Overlaps], threshold: float) -> Matching:
    """Matches objects by what they share, one an image, at one threshold; see `matching`."""
    matched = [iou for image in images for iou in _matched_iou(image, threshold).tolist()]
    return Matching(
        float(threshold),
        tp=len(matched),
        fp=sum(len(image.result_sizes) for image in images) - len(matched),
        fn=sum(len(image.reference_sizes) for image in images) - len(matched),
        matched_iou=math.fsum(matched),
    )


def _matched_iou(overlaps: Overlaps, threshold: float) -> NDArray[np.float64]:
    """Returns the IoU of the pairs in the best matching of one image."""
    iou = overlaps.iou
    fits = iou >= threshold
    chosen = _best_matching(overlaps.reference[fits], overlaps.result[fits], iou[fits])
    return iou[fits][chosen]


def _best_matching(
    left: NDArray[np.intp], right: NDArray[np.intp], iou: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Finds the pairs of the matching that has the most of them and, then, the largest sum of IoU.

    A pair is worth 1 and a bonus for its IoU, so small that all bonuses together are worth less
    than one more pair. The solver wants every object on the left matched; so each may stay alone
    with a partner of its own, which is worth nothing.

    Returns:
        Positions of the chosen pairs among those given.
    """
    lefts, row = np.unique(left, return_inverse=True)
    rights, column = np.unique(right, return_inverse=True)
    if len(lefts) == len(rights) == len(iou):
        return np.arange(len(iou))
    alone = np.arange(len(lefts))
    worth = np.concatenate([1 + iou / (len(lefts) + 1), np.zeros(len(lefts))])
    rows, columns = np.concatenate([row, alone]), np.concatenate([column, len(rights) + alone])
    table = coo_array((3 - worth, (rows, columns)))  # above 0: zeros would pass for missing
    partner = min_weight_full_bipartite_matching(table.tocsr())[1]
    return np.flatnonzero(partner[row] == column)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _check_thresholds(thresholds: Sequence[float]) -> None:
    wrong = [threshold for threshold in thresholds if not 0 < threshold <= 1]
    if wrong:
        raise ValueError(
            "thresholds must be intersections over union, above 0 and at most 1. "
            f"Received {', '.join(map(str, wrong))}; half an overlap is 0.5."
        )
