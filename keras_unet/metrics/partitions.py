"""Scores of one partition of an image's pixels against another: pairs and information.

A partition is a label image, one id a segment. Two pixels form a pair if they share a segment; the
Rand scores count the pairs that both partitions have. The information scores ask how much one
partition tells about the other. Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image
segmentation algorithms for connectomics", give both in the form used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True, eq=False)
class SegmentSizes:
    """Pixels of the segments of two partitions, and of their intersections.

    Attributes:
        reference: Of each segment of the reference, `(n,)`.
        result: Of each segment of the result, `(n,)`.
        common: Of each intersection of one with the other that is not empty, `(n,)`.
    """

    reference: NDArray[np.float64]
    result: NDArray[np.float64]
    common: NDArray[np.float64]


def sizes_over_all(reference: NDArray[np.integer], result: NDArray[np.integer]) -> SegmentSizes:
    """Counts over all pixels; the background 0 is a segment like the others.

    Args:
        reference: Label image held to be true, of any shape, numbered as by `scipy.ndimage.label`.
        result: Label image to score, likewise, of the same shape.

    Returns:
        The sizes of the segments.

    Example:
        >>> sizes_over_all(np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])).common
        array([1., 1., 2.])
    """
    return SegmentSizes(_sizes(reference), _sizes(result), _common_sizes(reference, result))


def sizes_over_cells(reference: NDArray[np.integer], result: NDArray[np.integer]) -> SegmentSizes:
    """Counts over the cells of the reference only.

    Where the result holds background inside of them, each pixel is a segment of its own.

    Args:
        reference: Label image held to be true, of any shape, numbered as by `scipy.ndimage.label`;
            0 is background.
        result: Label image to score, likewise, of the same shape.

    Returns:
        The sizes of the segments.

    Example:
        >>> sizes_over_cells(np.array([1, 1, 1, 1, 0]), np.array([1, 1, 0, 0, 1])).result
        array([2., 1., 1.])
    """
    inside = reference > 0
    covered = inside & (result > 0)
    singles = np.ones(np.count_nonzero(inside) - np.count_nonzero(covered))
    return SegmentSizes(
        reference=_sizes(reference[inside]),
        result=np.append(_sizes(result[covered]), singles),
        common=np.append(_common_sizes(reference[covered], result[covered]), singles),
    )


def squares(sizes: SegmentSizes) -> NDArray[np.float64]:
    """Counts ordered pairs of pixels in one segment, each pixel with itself included.

    Args:
        sizes: Those of the segments.

    Returns:
        Pairs in the reference, in the result and in both, `(3,)`: sums of squared sizes.

    Example:
        >>> squares(sizes_over_cells(np.array([1, 1, 1, 0]), np.array([1, 1, 0, 1])))
        array([9., 5., 5.])
    """
    return np.array([(n**2).sum() for n in (sizes.reference, sizes.result, sizes.common)])


def pairs(sizes: SegmentSizes) -> NDArray[np.float64]:
    """Counts unordered pairs of different pixels in one segment.

    Args:
        sizes: Those of the segments.

    Returns:
        Pairs in the reference, in the result and in both, `(3,)`: sums of n (n - 1) / 2.

    Example:
        >>> pairs(sizes_over_cells(np.array([1, 1, 1, 0]), np.array([1, 1, 0, 1])))
        array([3., 1., 1.])
    """
    counted = (sizes.reference, sizes.result, sizes.common)
    return np.array([(n * (n - 1) / 2).sum() for n in counted])


def f_score(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes F of pairs: the harmonic mean of their precision and recall.

    Args:
        counts: Pairs in the reference, in the result and in both, `(..., 3)`.

    Returns:
        The score, 0 to 1 (best), `(...)`; nan, undefined, where there is no pair.

    Example:
        >>> float(f_score(np.array([10.0, 5.0, 3.0])))
        0.4
    """
    in_partitions = counts[..., 0] + counts[..., 1]
    scores = np.full(in_partitions.shape, math.nan)
    np.divide(2 * counts[..., 2], in_partitions, out=scores, where=in_partitions > 0)
    return scores


def information_score(sizes: SegmentSizes) -> float:
    """Computes the mutual information of two partitions, divided by the mean of their entropies.

    Args:
        sizes: Those of the segments.

    Returns:
        The score, 0 to 1 (best): 0 if a partition is one segment, which tells nothing; nan,
        undefined, if there is no pixel.

    Example:
        >>> information_score(sizes_over_all(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])))
        1.0
    """
    if sizes.reference.size == 0:
        return math.nan
    reference, result = _entropy(sizes.reference), _entropy(sizes.result)
    if reference == 0 or result == 0:
        return 0.0
    return 2 * (reference + result - _entropy(sizes.common)) / (reference + result)


def _entropy(sizes: NDArray[np.float64]) -> float:
    shares = sizes / sizes.sum()
    return float(-(shares * np.log(shares)).sum())


def _sizes(ids: NDArray[np.integer]) -> NDArray[np.float64]:
    counts = np.bincount(ids.ravel())
    return counts[counts > 0].astype(np.float64)


def _common_sizes(left: NDArray[np.integer], right: NDArray[np.integer]) -> NDArray[np.float64]:
    shape = (int(left.max(initial=0)) + 1, int(right.max(initial=0)) + 1)
    table = sparse.coo_array((np.ones(left.size), (left.ravel(), right.ravel())), shape=shape)
    return np.asarray(table.tocsr().data, np.float64)
