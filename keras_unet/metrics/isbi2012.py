"""Scores of the ISBI 2012 challenge for membranes in electron microscopy.

V_Rand and V_Info compare partitions of the pixels into segments, one for each cell. Rand scores
count the pairs of pixels that share a segment in both partitions; information scores are based on
the mutual information of the partitions. Definitions: Arganda-Carreras et al. 2015, "Crowdsourcing
the creation of image segmentation algorithms for connectomics".
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy import sparse
from skimage.segmentation import watershed

from keras_unet.console import track
from keras_unet.metrics.pixels import (
    THRESHOLDS,
    Best,
    above,
    check_probabilities,
    highest,
    lowest,
    pixel_error,
)
from keras_unet.metrics.warping import splits_and_merges, warp_labels


@dataclass(frozen=True, eq=False)
class SegmentSizes:
    """Numbers of pixels of the segments of two partitions, and of their intersections.

    Attributes:
        reference: Pixels of each segment of the reference, `(n,)`.
        result: Pixels of each segment of the result, `(n,)`.
        common: Pixels of each intersection that is not empty, `(n,)`.
    """

    reference: NDArray[np.float64]
    result: NDArray[np.float64]
    common: NDArray[np.float64]


def sizes_over_all(reference: NDArray[np.integer], result: NDArray[np.integer]) -> SegmentSizes:
    """Counts segment sizes over all pixels, with the background 0 as a segment.

    Args:
        reference: Reference label image of any shape, numbered as by `scipy.ndimage.label`.
        result: Label image to score, of the same shape, numbered likewise.

    Returns:
        The sizes of the segments.

    Example:
        >>> sizes_over_all(np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])).common
        array([1., 1., 2.])
    """
    return SegmentSizes(_sizes(reference), _sizes(result), _common_sizes(reference, result))


def sizes_over_cells(reference: NDArray[np.integer], result: NDArray[np.integer]) -> SegmentSizes:
    """Counts segment sizes over the cells of the reference only.

    Each pixel in these cells that is background in the result is a separate segment.

    Args:
        reference: Reference label image of any shape, numbered as by `scipy.ndimage.label`; 0 is
            background.
        result: Label image to score, of the same shape, numbered likewise.

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
    """Counts ordered pairs of pixels in one segment, including pairs of a pixel with itself.

    Args:
        sizes: Sizes of the segments.

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
        sizes: Sizes of the segments.

    Returns:
        Pairs in the reference, in the result and in both, `(3,)`: sums of n (n - 1) / 2.

    Example:
        >>> pairs(sizes_over_cells(np.array([1, 1, 1, 0]), np.array([1, 1, 0, 1])))
        array([3., 1., 1.])
    """
    pixels = (sizes.reference, sizes.result, sizes.common)
    return np.array([(n * (n - 1) / 2).sum() for n in pixels])


def f_score(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes the F-score of pairs, the harmonic mean of precision and recall.

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
        sizes: Sizes of the segments.

    Returns:
        The score, 0 to 1 (best): 0 if a partition is one segment, without information; nan,
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


def thin_borders(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Labels the cells and extends them until lines one pixel wide remain between them.

    The borders are flooded by the watershed transform with 4-neighbors. Scores then depend neither
    on the widths of borders nor on the position of a border within its width. The program of the
    ISBI 2012 challenge may place the lines elsewhere in wide borders.

    Args:
        cells: True in cells, `(height, width)`.

    Returns:
        Label image, `(height, width)`, int32: 0 on the lines, 1 ... n the cells. An image without
        cells is one segment.

    Example:
        >>> thin_borders(np.array([[1, 0, 0, 0, 1, 1, 0]], dtype=bool)).tolist()
        [[1, 1, 0, 2, 2, 2, 2]]
    """
    if not cells.any():
        return np.ones(cells.shape, np.int32)
    numbered, _ = ndi.label(cells)
    heights = np.where(cells, 0, 255).astype(np.uint8)
    flooded: NDArray[np.int32] = watershed(heights, numbered, connectivity=1, watershed_line=True)
    return flooded.astype(np.int32, copy=False)


def isbi2012(labels: NDArray[Any], probabilities: NDArray[np.floating]) -> dict[str, float]:
    """Computes the scores of the ISBI 2012 challenge for membrane segmentation.

    A proposal is cell where the probability exceeds a threshold, 0, 0.1, ... 1 (slightly less than
    1, for probabilities of 1); each score is that of its best threshold. Cells are the 4-connected
    components of a slice. The definitions are those of the challenge's program,
    `Trainable_Segmentation` in Fiji, and of Arganda-Carreras et al. 2015, "Crowdsourcing the
    creation of image segmentation algorithms for connectomics".

    - `pixel_error`: 1 - F of cell pixels, all slices together.
    - `rand_error`: 1 - F of the pairs of pixels that share a cell, over the cell pixels of the
      labels. Each such pixel that is background in the proposal is a separate cell. Pairs are
      summed over slices and include those of a pixel with itself.
    - `rand_error_classic`: The same over all pixels, with the background as one object, and over
      pairs of different pixels (Rand 1971).
    - `v_rand`: F as in `rand_error`, after border thinning of the proposal; the mean over slices.
    - `v_info`: Mutual information of labels and proposal divided by the mean of their entropies,
      after border thinning, over the same pixels; the mean over slices.
    - `warping_error`: Fraction of the pixels at which the proposal splits or merges cells, after
      warping of the labels without change of topology (Jain et al. 2010). The challenge's score.
    - `warping_error_classic`: Fraction of all pixels that differ after warping, including holes and
      cells that are added or removed. The score of Jain et al.

    Args:
        labels: Reference, cell where positive, `(slices, height, width)` or one slice,
            `(height, width)`.
        probabilities: Probability of cell in [0, 1], of the same shape; taken in single precision.

    Returns:
        The scores by name, each 0 to 1: errors are best at 0, `v_rand` and `v_info` at 1. Under
        `<score>_threshold`, the smallest best threshold, which is less than 1 for warping. Rand and
        information scores are nan, undefined, if no slice has a cell; their means omit slices
        without cells.

    Raises:
        ValueError: If the shapes differ or are not those of slices, there is no pixel, or a
            probability is outside [0, 1].

    Example:
        Two cells of 3 x 2 pixels, merged through one pixel of their border:

        >>> labels = np.array([[1, 1, 0, 1, 1]] * 3)
        >>> merged = labels.astype(float)
        >>> merged[1, 2] = 0.45
        >>> scores = isbi2012(labels, merged)
        >>> scores["rand_error"], scores["rand_error_threshold"]
        (0.0, 0.5)
        >>> merged[1, 2] = 1
        >>> scores = isbi2012(labels, merged)
        >>> scores["warping_error"] == 1 / 15, scores["rand_error"] == 1 - 2 * 72 / (72 + 144)
        (True, True)
    """
    check_probabilities(labels, probabilities, "probabilities")
    if labels.ndim not in {2, 3}:
        raise ValueError(
            "labels must be slices, (slices, height, width) or (height, width). "
            f"Received shape {labels.shape}; drop the channel axis, or score stacks one by one."
        )
    cells = labels.reshape(-1, *labels.shape[-2:]) > 0
    scores = probabilities.reshape(cells.shape).astype(np.float32)
    table = _compare(cells, scores)
    best_scores = {
        "pixel_error": pixel_error(cells, scores),
        **_partition_scores(table),
        **_warping_errors(table, cells.size),
    }
    values = {name: best.value for name, best in best_scores.items()}
    return values | {f"{name}_threshold": best.threshold for name, best in best_scores.items()}


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Agreement of the labels of a slice with a proposal.

    Attributes:
        cells: Pairs over the labels' cells, `(3,)`: in the labels, in the proposal and in both.
        pixels: Pairs of different pixels over all pixels, `(3,)`.
        thinned: Pairs over the labels' cells, after border thinning of the proposal, `(3,)`.
        information: Information score over the labels' cells, after border thinning.
        differing: Number of pixels that split or merge cells after warping, and of all that differ,
            `(2,)`; None at the last threshold, which warping omits.
    """

    cells: NDArray[np.float64]
    pixels: NDArray[np.float64]
    thinned: NDArray[np.float64]
    information: float
    differing: NDArray[np.intp] | None

    @classmethod
    def of(
        cls,
        cells: NDArray[np.bool_],
        numbered: NDArray[np.integer],
        scores: NDArray[np.float32],
        threshold: float,
    ) -> _Comparison:
        proposal = above(scores, threshold)
        proposed, _ = ndi.label(proposal)
        thinned = sizes_over_cells(numbered, thin_borders(proposal))
        is_last = threshold == THRESHOLDS[-1]
        return cls(
            cells=squares(sizes_over_cells(numbered, proposed)),
            pixels=pairs(sizes_over_all(numbered, proposed)),
            thinned=squares(thinned),
            information=information_score(thinned),
            differing=None if is_last else _count_differing(cells, scores, threshold),
        )


_Table = list[list[_Comparison]]  # slices, thresholds


def _compare(cells: NDArray[np.bool_], scores: NDArray[np.float32]) -> _Table:
    """Compares each slice with its proposal at each threshold, on all cores."""
    numbered = [ndi.label(cells_of_slice)[0] for cells_of_slice in cells]
    slices = list(zip(cells, numbered, scores, strict=True))
    tasks = [(*arrays, threshold) for arrays in slices for threshold in THRESHOLDS]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # border thinning releases the lock
        results = threads.map(_Comparison.of, *zip(*tasks, strict=True))
        entries = list(track(results, "comparing slices at thresholds", len(tasks)))
    step = len(THRESHOLDS)
    return [entries[start : start + step] for start in range(0, len(entries), step)]


def _partition_scores(table: _Table) -> dict[str, Best]:
    """Computes the Rand and information scores."""
    over_cells = np.array([[entry.cells for entry in row] for row in table])
    over_all = np.array([[entry.pixels for entry in row] for row in table])
    thinned = np.array([[entry.thinned for entry in row] for row in table])
    information = np.array([[entry.information for entry in row] for row in table])
    return {
        "rand_error": lowest(1 - f_score(over_cells.sum(axis=0))),
        "rand_error_classic": lowest(1 - f_score(over_all.sum(axis=0))),
        "v_rand": highest(_mean_where_defined(f_score(thinned))),
        "v_info": highest(_mean_where_defined(information)),
    }


def _mean_where_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages `(slices, thresholds)` over the slices that have a score."""
    defined = values[~np.isnan(values).any(axis=1)]
    return np.asarray(defined.mean(axis=0)) if len(defined) else values[0]


def _warping_errors(table: _Table, pixels: int) -> dict[str, Best]:
    """Computes the fractions of the pixels that split or merge cells, and of all that differ."""
    counts = np.array([[entry.differing for entry in row[:-1]] for row in table])
    topological, total = (counts.sum(axis=0) / pixels).T
    return {"warping_error": lowest(topological), "warping_error_classic": lowest(total)}


def _count_differing(
    cells: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.intp]:
    """Counts, after warping, the pixels that split or merge cells and all that differ."""
    proposal = above(scores, threshold)
    warped = warp_labels(cells, scores, threshold)
    wrong = np.count_nonzero(splits_and_merges(warped, proposal))
    return np.array([wrong, np.count_nonzero(warped != proposal)])
