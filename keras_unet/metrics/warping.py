"""Warping error: warping of labels towards a proposal without change of topology.

Jain et al. 2010, "Boundary learning by optimization with topological constraints": borders drawn a
little off cost nothing, for the labels are first bent to the proposal. Only simple points are
flipped, pixels whose flip neither splits nor merges, makes nor removes a cell or a hole. What still
differs afterwards are errors of topology: where a proposal splits a cell or merges cells. Cells are
4-connected, membranes 8-connected.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage as ndi

from keras_unet.metrics.pixels import above

NEIGHBORS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Offsets (row, column) of the 8 neighbors, in raster order: the opposite of number k is 7 - k."""


def warp_labels(
    cells: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.bool_]:
    """Bends labels towards a proposal by flipping simple points.

    The proposal is cell where a score exceeds the threshold. Pixels at which labels and proposal
    differ are visited in the order of their scores' distance to the threshold, largest first, and
    column by column among equals. Each is flipped if it is simple at that moment. Rounds of visits
    follow until one flips nothing. Outside of the image is membrane.

    Args:
        cells: The labels, True in cells, `(height, width)`.
        scores: Probability of cell in [0, 1], `(height, width)`.
        threshold: Score above which the proposal is cell.

    Returns:
        The labels after warping, `(height, width)`: equal to the proposal but for pixels that were
        not simple.

    Example:
        The border moves with the proposal, but what the proposal merges stays apart:

        >>> cells = np.array([[1, 1, 0, 1, 1, 0, 1]], dtype=bool)
        >>> scores = np.array([[1, 0, 1, 1, 1, 1, 1]], dtype=np.float32)
        >>> warp_labels(cells, scores, 0.5).astype(int).tolist()
        [[1, 0, 1, 1, 1, 0, 1]]
    """
    proposal = above(scores, threshold)
    rows, columns = _by_certainty(cells != proposal, scores, threshold)
    stride = cells.shape[1] + 2
    codes = bytearray(_neighborhood_codes(np.pad(cells, 1)).tobytes())
    left = _flip_simple_points(codes, ((rows + 1) * stride + columns + 1).tolist(), stride)
    warped = np.pad(proposal, 1)
    warped.ravel()[left] ^= True
    return warped[1:-1, 1:-1]


def is_simple(cells: NDArray[np.bool_]) -> bool:
    """Returns whether the center of a neighborhood is a simple point.

    It is if, its own value left aside, exactly one 4-component of cell pixels touches it by an edge
    and there is exactly one 8-component of membrane pixels (Bertrand and Malandain 1994).

    Args:
        cells: True in cells, `(3, 3)`.

    Returns:
        Whether its flip leaves the topology of any image around it as it is.

    Example:
        The first is an end, the second a bridge:

        >>> is_simple(np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool))
        True
        >>> is_simple(np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=bool))
        False
    """
    around = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    edges = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    parts, _ = ndi.label(cells & around)
    _, membranes = ndi.label(~cells & around, structure=np.ones((3, 3)))
    touching = np.unique(parts[edges & cells])
    return len(touching) == 1 and membranes == 1


def _by_certainty(
    differing: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Lists the rows and columns of pixels in the order of their visit."""
    columns, rows = np.nonzero(differing.T)
    distances = np.abs(scores[rows, columns].astype(np.float64) - threshold).astype(np.float32)
    order = np.argsort(-distances, kind="stable")
    return rows[order], columns[order]


def _neighborhood_codes(padded: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns a byte for each pixel, bit k of which tells whether neighbor k is cell."""
    codes = np.zeros(padded.shape, np.uint8)
    for bit, offset in enumerate(NEIGHBORS):
        codes |= np.roll(padded, (-offset[0], -offset[1]), (0, 1)).astype(np.uint8) << bit
    return codes


def _flip_simple_points(codes: bytearray, waiting: list[int], stride: int) -> list[int]:
    """Flips simple points in the order of the list, round by round, until none is left.

    Args:
        codes: The neighborhood of each pixel of the padded image, in raster order; brought up to
            date at each flip.
        waiting: Positions in it, in the order of their visit.
        stride: Length of its rows.

    Returns:
        The positions that were never flipped.
    """
    while True:
        left = _flip_once(codes, waiting, stride)
        if len(left) == len(waiting):
            return left
        waiting = left


def _flip_once(codes: bytearray, waiting: list[int], stride: int) -> list[int]:
    """Visits each position once; a flip is a change of one bit in each of the 8 neighbors.

    Whether a pixel is simple depends on its neighbors alone, so that its own value is not stored.
    """
    simple = _simple_codes()
    left = []
    for here in waiting:
        if simple[codes[here]]:
            above_it, below_it = here - stride, here + stride
            codes[above_it - 1] ^= 128
            codes[above_it] ^= 64
            codes[above_it + 1] ^= 32
            codes[here - 1] ^= 16
            codes[here + 1] ^= 8
            codes[below_it - 1] ^= 4
            codes[below_it] ^= 2
            codes[below_it + 1] ^= 1
        else:
            left.append(here)
    return left


@cache
def _simple_codes() -> bytes:
    """Tabulates `is_simple` for the 256 neighborhoods."""
    return bytes(is_simple(_decoded(code)) for code in range(256))


def _decoded(code: int) -> NDArray[np.bool_]:
    cells = np.zeros((3, 3), bool)
    for bit, (row, column) in enumerate(NEIGHBORS):
        cells[1 + row, 1 + column] = code >> bit & 1
    return cells


_RADII = (4, 20)  # 20 is the definition's; what holds together within 4 need not be looked at
_WINDOWS_AT_ONCE = 1000
_WITHIN_WINDOWS = np.pad([ndi.generate_binary_structure(2, 1)], ((1, 1), (0, 0), (0, 0)))
_OUTSIDE = -1


def splits_and_merges(warped: NDArray[np.bool_], proposal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Marks the pixels at which a proposal splits a cell of the warped labels or merges cells.

    They are among the pixels that still differ, and are told by what the up to 8 pixels around them
    belong to: the membrane or one of the 4-connected cells. Three or more of these mean that the
    proposal joins cells, at a membrane pixel, or parts them, at a cell pixel. A cell pixel between
    two is a split if, once it is membrane, the cell around it is in pieces within 20 pixels. All
    other differences add or remove a hole or a cell.

    Args:
        warped: Labels warped towards the proposal, True in cells, `(height, width)`.
        proposal: True in proposed cells, `(height, width)`.

    Returns:
        True where the proposal splits or merges, `(height, width)`.

    Example:
        It merges two cells through their border, and puts a hole into the right one:

        >>> warped = np.ones((3, 6), dtype=bool)
        >>> warped[:, 1] = False
        >>> proposal = warped.copy()
        >>> proposal[1, 1], proposal[1, 4] = True, False
        >>> np.argwhere(splits_and_merges(warped, proposal)).tolist()
        [[1, 1]]
    """
    rows, columns = np.nonzero(warped != proposal)
    belongings = _count_different(_ids_around(warped, rows, columns))
    wrong = belongings > 2
    suspects = np.flatnonzero((belongings == 2) & warped[rows, columns])
    for radius in _RADII:
        suspects = suspects[_come_apart(warped, rows[suspects], columns[suspects], radius)]
    wrong[suspects] = True
    marks = np.zeros_like(warped)
    marks[rows, columns] = wrong
    return marks


def _ids_around(
    cells: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.integer]:
    """Returns the numbers of the cells around some pixels, 0 for membrane, `(pixels, 8)`."""
    numbered, _ = ndi.label(cells)
    padded = np.pad(numbered, 1, constant_values=_OUTSIDE)
    return np.stack([padded[rows + 1 + r, columns + 1 + c] for r, c in NEIGHBORS], axis=1)


def _come_apart(
    cells: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp], radius: int
) -> NDArray[np.bool_]:
    """Returns, for some pixels, whether the cell around them is in pieces without them."""
    windows = sliding_window_view(np.pad(cells, radius), (2 * radius + 1, 2 * radius + 1))
    apart = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _WINDOWS_AT_ONCE):
        some = slice(start, start + _WINDOWS_AT_ONCE)
        apart[some] = _center_parts(windows[rows[some], columns[some]], radius)
    return apart


def _center_parts(windows: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Returns whether the center of each window, `(windows, height, width)`, parts its cell."""
    windows[:, radius, radius] = False
    numbered, _ = ndi.label(windows, _WITHIN_WINDOWS)
    around = numbered[:, radius - 1 : radius + 2, radius - 1 : radius + 2]
    return _count_different(around.reshape(-1, 9)) > 2


def _count_different(ids: NDArray[np.integer]) -> NDArray[np.intp]:
    """Counts the different ids in each row, what is outside of the image left out."""
    increases = np.diff(np.sort(ids, axis=1), axis=1, prepend=_OUTSIDE) > 0
    return np.asarray(increases.sum(axis=1))
