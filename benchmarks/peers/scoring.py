"""Scores of ISBI 2012: this package, and a straightforward implementation of the definitions.

The latter loops over thresholds and slices, counts pairs with `numpy.unique`, and warps pixel by
pixel. Both use the watershed of scikit-image and the labeling of SciPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from benchmarks.contenders import Work
from benchmarks.peers.inputs import membranes
from keras_unet.metrics.isbi2012 import isbi2012
from keras_unet.metrics.pixels import THRESHOLDS
from keras_unet.metrics.warping import is_simple

Sizes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

_SCORES = ("pixel_error", "rand_error", "v_rand", "v_info", "warping_error")
_RADIUS = 20  # pixels around a split in which its cell is examined
_BITS = np.array([[1, 2, 4], [8, 0, 16], [32, 64, 128]])


def here(slices: int, side: int) -> Work:
    """This package, which computes two more scores."""
    labels, probabilities = membranes(slices, side)

    def score() -> list[Any]:
        found = isbi2012(labels, probabilities)
        return [np.array([found[name] for name in _SCORES])]

    return score


def straightforward(slices: int, side: int) -> Work:
    """Each score by its definition."""
    labels, probabilities = membranes(slices, side)
    cells, pairs = labels > 0, list(zip(labels > 0, probabilities, strict=True))
    simple = [is_simple((_BITS & code) > 0) for code in range(256)]

    def proposals(threshold: float) -> list[Any]:
        return [(one, scores > np.float64(threshold)) for one, scores in pairs]

    def score() -> list[Any]:
        pixel = [1 - _f_of_pixels(cells, probabilities > np.float64(t)) for t in THRESHOLDS]
        rand = [1 - _f_of_pairs([_sizes(*one) for one in proposals(t)]) for t in THRESHOLDS]
        thinned = [[_sizes(a, _thin(b)) for a, b in proposals(t)] for t in THRESHOLDS]
        v_rand = [np.mean([_f_of_pairs([one]) for one in row]) for row in thinned]
        v_info = [np.mean([_information(one) for one in row]) for row in thinned]
        warping = [
            sum(_count_wrong(*pair, threshold, simple) for pair in pairs) / cells.size
            for threshold in THRESHOLDS[:-1]
        ]
        return [np.array([min(pixel), min(rand), max(v_rand), max(v_info), min(warping)])]

    return score


def _f_of_pixels(cells: NDArray[np.bool_], proposal: NDArray[np.bool_]) -> float:
    return float(2 * (cells & proposal).sum() / (cells.sum() + proposal.sum()))


def _sizes(cells: NDArray[np.bool_], proposal: NDArray[Any]) -> Sizes:
    """Counts the pixels of the segments of both and of their intersections, within the cells.

    Each pixel that the proposal leaves out is a segment of its own.
    """
    numbered, _ = ndimage.label(cells)
    proposed = proposal if proposal.dtype != bool else ndimage.label(proposal)[0]
    one, other = numbered[cells], proposed[cells].astype(np.int64)
    missing = other == 0
    other[missing] = proposed.max() + 1 + np.arange(missing.sum())
    first, second, common = (
        np.unique(part, return_counts=True)[1].astype(float)
        for part in (one, other, one * (other.max(initial=0) + 1) + other)
    )
    return first, second, common


def _f_of_pairs(slices: list[Sizes]) -> float:
    one, other, common = ((np.concatenate(parts) ** 2).sum() for parts in zip(*slices, strict=True))
    return float(2 * common / (one + other))


def _information(sizes: Sizes) -> float:
    shares = [part / part.sum() for part in sizes]
    one, other, common = (float(-(part * np.log(part)).sum()) for part in shares)
    return 2 * (one + other - common) / (one + other) if one and other else 0.0


def _thin(proposal: NDArray[np.bool_]) -> NDArray[Any]:
    if not proposal.any():
        return np.ones(proposal.shape, np.int32)
    heights = np.where(proposal, 0, 255).astype(np.uint8)
    seeds, _ = ndimage.label(proposal)
    lines: NDArray[Any] = watershed(heights, seeds, connectivity=1, watershed_line=True)
    return lines


def _count_wrong(
    cells: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float, simple: list[bool]
) -> int:
    """Warps the labels, and counts the pixels at which the proposal splits or merges cells."""
    proposal = scores > np.float64(threshold)
    warped = np.pad(cells, 1)
    waiting = _by_certainty(cells != proposal, scores, threshold)
    while left := [place for place in waiting if not _flip(warped, place, simple)]:
        if len(left) == len(waiting):
            break
        waiting = left
    numbered = np.pad(ndimage.label(warped[1:-1, 1:-1])[0], 1, constant_values=-1)
    wide = np.pad(warped, _RADIUS - 1)
    return sum(_is_wrong(numbered, wide, place) for place in left)


def _by_certainty(
    differing: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float
) -> list[tuple[int, int]]:
    """Lists pixels by distance of their score to the threshold; ties column by column."""
    columns, rows = np.nonzero(differing.T)
    distance = np.abs(scores[rows, columns].astype(np.float64) - threshold).astype(np.float32)
    order = np.argsort(-distance, kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _flip(warped: NDArray[np.bool_], place: tuple[int, int], simple: list[bool]) -> bool:
    """Flips a pixel of the padded labels if it is a simple point."""
    row, column = place
    flips = simple[int((warped[row : row + 3, column : column + 3] * _BITS).sum())]
    warped[row + 1, column + 1] ^= flips
    return flips


def _is_wrong(numbered: NDArray[Any], wide: NDArray[np.bool_], place: tuple[int, int]) -> bool:
    """Returns whether a pixel that still differs splits a cell or merges cells."""
    row, column = place
    around = numbered[row : row + 3, column : column + 3].ravel()
    belongings = len(set(np.delete(around, 4).tolist()) - {-1})
    if belongings != 2 or around[4] == 0:
        return belongings > 2
    window = wide[row : row + 2 * _RADIUS + 1, column : column + 2 * _RADIUS + 1].copy()
    window[_RADIUS, _RADIUS] = False
    parts = ndimage.label(window)[0][_RADIUS - 1 : _RADIUS + 2, _RADIUS - 1 : _RADIUS + 2]
    return len(np.unique(parts)) > 2
