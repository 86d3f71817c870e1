"""Scores of objects: overlaps of two label images, matching (AP, F1, PQ), and SEG.

AP is the average precision of the Data Science Bowl 2018, which StarDist calls accuracy; PQ is the
panoptic quality, equation 1 of Kirillov et al. (2019); SEG is the segmentation accuracy of the Cell
Tracking Challenge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

LabelImage = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Objects of a reference and a result, and the pairs of objects that overlap.

    Objects are numbered from 0 in the order of their ids, without the background.

    Attributes:
        reference_sizes: Pixels of each reference object, `(reference objects,)`.
        result_sizes: Pixels of each result object, `(result objects,)`.
        reference: Index of the reference object of each pair, `(pairs,)`.
        result: Index of the result object of each pair, `(pairs,)`.
        common: Common pixels of each pair, `(pairs,)`, at least 1.
        result_labelled: Pixels of each result object that the reference labels,
            `(result objects,)`.
    """

    reference_sizes: NDArray[np.intp]
    result_sizes: NDArray[np.intp]
    reference: NDArray[np.intp]
    result: NDArray[np.intp]
    common: NDArray[np.intp]
    result_labelled: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        reference: LabelImage,
        result: LabelImage,
        labelled: NDArray[np.bool_] | None = None,
    ) -> Overlaps:
        """Computes the overlaps of two label images.

        Args:
            reference: Reference label image of integers, of any shape; 0 is background.
            result: Integer label image to score, of the same shape.
            labelled: Pixels that the reference labels, of the same shape, for an image labelled in
                part; None if it labels all. An object without a match that lies mostly outside
                them may be right, and is no false positive.

        Raises:
            ValueError: If the shapes differ, or ids are not integers from 0.

        Example:
            >>> overlaps = Overlaps.of(np.array([[3, 3, 8, 0]]), np.array([[1, 1, 1, 1]]))
            >>> overlaps.reference_sizes, overlaps.result_sizes
            (array([2, 1]), array([4]))
            >>> overlaps.reference, overlaps.result, overlaps.common
            (array([0, 1]), array([0, 0]), array([2, 1]))
        """
        _check_images(reference, result)
        reference_numbers, reference_sizes = _objects(reference)
        result_numbers, result_sizes = _objects(result)
        shared = (reference_numbers >= 0) & (result_numbers >= 0)
        pairs = reference_numbers[shared] * len(result_sizes) + result_numbers[shared]
        pairs, common = np.unique(pairs, return_counts=True)
        left, right = np.divmod(pairs, max(len(result_sizes), 1))
        counted = result_sizes
        if labelled is not None:
            inside = result_numbers[(result_numbers >= 0) & labelled.ravel()]
            counted = np.bincount(inside, minlength=len(result_sizes))
        return cls(reference_sizes, result_sizes, left, right, common, counted)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union (Jaccard index) of each pair, `(pairs,)`."""
        sizes = self.reference_sizes[self.reference] + self.result_sizes[self.result]
        return np.asarray(self.common / (sizes - self.common), np.float64)


def overlaps_of_images(
    references: Sequence[LabelImage], results: Sequence[LabelImage]
) -> list[Overlaps]:
    """Computes the overlaps of each image.

    Args:
        references: Reference label images of integers; 0 is background.
        results: Integer label images to score, of the same shapes.

    Raises:
        ValueError: If the numbers of images or the shapes differ, or ids are not integers from 0.
    """
    if len(references) != len(results):
        raise ValueError(
            "references and results must have equal numbers of images. "
            f"Received {len(references)} and {len(results)}; pair them by name first."
        )
    return [Overlaps.of(*pair) for pair in zip(references, results, strict=True)]


def _objects(labels: LabelImage) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the object index of each pixel, -1 for background, and the object sizes."""
    ids, numbers, sizes = np.unique(labels.ravel(), return_inverse=True, return_counts=True)
    background = int(ids.size > 0 and ids[0] == 0)
    return numbers - background, sizes[background:]


def _check_images(reference: LabelImage, result: LabelImage) -> None:
    if reference.shape != result.shape:
        raise ValueError(
            f"reference and result must have one shape. Received {reference.shape} and "
            f"{result.shape}; check the pairing, and score at the size of the reference."
        )
    for name, labels in (("reference", reference), ("result", result)):
        if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
            raise ValueError(
                f"{name} must be integers from 0, 0 for background. Received {labels.dtype}"
                f" from {labels.min(initial=0)}; number the cells of a mask by scipy.ndimage.label."
            )


THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
MEAN_AP_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""Thresholds of the mean AP: 0.5, 0.55, ... 0.95, those of the Data Science Bowl 2018."""


@dataclass(frozen=True)
class Matching:
    """Counts of matching objects at a threshold, over all images together.

    Attributes:
        threshold: Smallest intersection over union (IoU) of a match.
        tp: True positives: matched pairs of objects.
        fp: False positives: objects of the result without a match. Of images labelled in part,
            those with at least half of their pixels labelled.
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
    """Matches the objects of results and references one to one, at several thresholds of IoU.

    The matching has the largest number of pairs with an IoU of at least the threshold and, among
    these matchings, the largest sum of IoU. Above 0.5 it is unique. (Below 0.5 StarDist's matching
    also depends on pairs under the threshold: same counts, sometimes a lower PQ.)

    Args:
        references: Reference label images of integers; 0 is background.
        results: Integer label images to score, of the same shapes.
        thresholds: Smallest IoU of a match, above 0 and at most 1.

    Returns:
        Counts and scores at each threshold; counts are sums over the images.

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
    """Matches objects by the overlaps of each image at one threshold, see `matching`."""
    pairs = [_matched_pairs(image, threshold) for image in images]
    matched = [
        iou
        for image, chosen in zip(images, pairs, strict=True)
        for iou in image.iou[chosen].tolist()
    ]
    return Matching(
        float(threshold),
        tp=len(matched),
        fp=sum(
            _count_false(image, image.result[chosen])
            for image, chosen in zip(images, pairs, strict=True)
        ),
        fn=sum(len(image.reference_sizes) for image in images) - len(matched),
        matched_iou=math.fsum(matched),
    )


def mean_ap(references: Sequence[LabelImage], results: Sequence[LabelImage]) -> float:
    """Computes the mean AP over the IoU thresholds 0.5, 0.55, ... 0.95.

    The thresholds are those of the Data Science Bowl 2018. As in StarDist, counts are summed over
    the images before AP is computed; the Bowl averages the score of each image.

    Args:
        references: Reference label images of integers; 0 is background.
        results: Integer label images to score, of the same shapes.

    Returns:
        The score, 0 to 1 (best); nan, undefined, without objects.

    Raises:
        ValueError: As `matching`.

    Example:
        An object with an IoU of 2/3 is matched at 0.5, 0.55, 0.6 and 0.65:

        >>> mean_ap([np.array([1, 1, 1, 0])], [np.array([1, 1, 0, 0])])
        0.4
    """
    return mean_ap_of_overlaps(overlaps_of_images(references, results))


def mean_ap_of_overlaps(images: Sequence[Overlaps]) -> float:
    """Computes the mean AP by the overlaps of each image, see `mean_ap`."""
    scores = [matching_of_overlaps(images, threshold).ap for threshold in MEAN_AP_THRESHOLDS]
    return math.fsum(scores) / len(scores)


def _count_false(overlaps: Overlaps, matched: NDArray[np.intp]) -> int:
    """Counts the result objects that are not matched, and that the reference mostly labels."""
    is_false = 2 * overlaps.result_labelled >= overlaps.result_sizes
    is_false[matched] = False
    return int(np.count_nonzero(is_false))


def _matched_pairs(overlaps: Overlaps, threshold: float) -> NDArray[np.intp]:
    """Returns the indices of the pairs in the best matching of one image."""
    iou = overlaps.iou
    fits = np.flatnonzero(iou >= threshold)
    chosen = _best_matching(overlaps.reference[fits], overlaps.result[fits], iou[fits])
    return fits[chosen]


def _best_matching(
    left: NDArray[np.intp], right: NDArray[np.intp], iou: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Returns the indices of the pairs in the largest matching with the largest sum of IoU."""
    # The value of a pair is 1 plus a bonus for its IoU, so small that the sum of all bonuses is
    # less than 1. The solver matches every object on the left; each therefore has a dummy partner
    # of value 0.
    lefts, row = np.unique(left, return_inverse=True)
    rights, column = np.unique(right, return_inverse=True)
    if len(lefts) == len(rights) == len(iou):
        return np.arange(len(iou))
    alone = np.arange(len(lefts))
    values = np.concatenate([1 + iou / (len(lefts) + 1), np.zeros(len(lefts))])
    rows, columns = np.concatenate([row, alone]), np.concatenate([column, len(rights) + alone])
    table = coo_array((3 - values, (rows, columns)))  # above 0, since zeros would be missing
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


def seg(references: Sequence[LabelImage], results: Sequence[LabelImage]) -> float:
    """Computes SEG: the mean Jaccard index over all reference objects of all images.

    An object of the result matches a reference object if it covers more than half of its pixels.
    Objects of the result without a match do not change the score.

    Args:
        references: Reference label images of integers; 0 is background.
        results: Integer label images to score, of the same shapes.

    Returns:
        The score, 0 to 1 (best); nan, undefined, if there is no reference object.

    Raises:
        ValueError: If the numbers of images or the shapes differ, or ids are not integers from 0.

    Example:
        Of the two objects, one is found to two thirds and one not at all:

        >>> seg([np.array([[1, 1, 1, 0, 2]])], [np.array([[5, 5, 0, 0, 0]])]) == (2 / 3 + 0) / 2
        True
    """
    return seg_of_overlaps(overlaps_of_images(references, results))


def seg_of_overlaps(images: Sequence[Overlaps]) -> float:
    """Computes SEG from the overlaps of each image, see `seg`."""
    scores = [score for image in images for score in jaccard_of_references(image).tolist()]
    return math.fsum(scores) / len(scores) if scores else math.nan


def seg_ap_of_overlaps(images: Sequence[Overlaps]) -> float:
    """Computes the mean of SEG and of AP at an IoU of 0.5 from the overlaps of each image.

    SEG measures how well each object is covered and ignores false objects; AP counts those, but is
    insensitive to outlines.

    Returns:
        The score, 0 to 1 (best); nan, undefined, without a reference object.

    Example:
        One object is found to two thirds, and another is false:

        >>> overlaps = Overlaps.of(np.array([[3, 3, 3, 0]]), np.array([[1, 1, 0, 2]]))
        >>> seg_ap_of_overlaps([overlaps]) == (2 / 3 + 1 / 2) / 2
        True
    """
    return (seg_of_overlaps(images) + matching_of_overlaps(images, 0.5).ap) / 2


def jaccard_of_references(overlaps: Overlaps) -> NDArray[np.float64]:
    """Computes the Jaccard index of each reference object with the result object that covers it.

    An object covers another if it holds more than half of its pixels; at most one object does.

    Args:
        overlaps: Overlaps of an image.

    Returns:
        Index of each reference object in the order of their ids, `(objects,)`, float64; 0 for an
        object without match.

    Example:
        >>> overlaps = Overlaps.of(np.array([[3, 3, 8, 8]]), np.array([[1, 1, 1, 0]]))
        >>> jaccard_of_references(overlaps).round(3)
        array([0.667, 0.   ])
    """
    covered = 2 * overlaps.common > overlaps.reference_sizes[overlaps.reference]
    jaccard = np.zeros(len(overlaps.reference_sizes))
    jaccard[overlaps.reference[covered]] = overlaps.iou[covered]
    return jaccard
