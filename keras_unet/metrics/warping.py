"""Warping error: warping of labels towards a proposal without change of topology.

Jain et al. 2010, "Boundary learning by optimization with topological constraints". The labels are
first warped to the proposal, so that slightly displaced borders do not count. Only simple points
are flipped: pixels whose flip neither splits, merges, creates nor removes a cell or a hole. The
remaining differences are topological errors, such as split or merged cells. Cells are 4-connected,
membranes 8-connected.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage as ndi

from keras_unet.metrics.pixels import above

NEIGHBORS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Offsets (row, column) of the 8 neighbors in raster order; the opposite of index k is 7 - k."""


def warp_labels(
    cells: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.bool_]:
    """Warps labels towards a proposal by flipping simple points.

    The proposal is cell where a score exceeds the threshold. Pixels at which labels and proposal
    differ are visited by the distance of the score from the threshold, largest first, and column by
    column among equals. Each is flipped if it is simple at that moment. The visits are repeated
    until no pixel is flipped. The outside of the image is membrane.

    Args:
        cells: Labels, True in cells, `(height, width)`.
        scores: Probability of cell in [0, 1], `(height, width)`.
        threshold: Score above which the proposal is cell.

    Returns:
        The warped labels, `(height, width)`: equal to the proposal except at pixels that were not
        simple.

    Example:
        The border moves with the proposal, but cells that the proposal merges stay separate:

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

    It is simple if exactly one 4-component of the 8 neighbors in cells touches it by an edge, and
    the neighbors in membranes form exactly one 8-component (Bertrand and Malandain 1994). Its own
    value does not matter.

    Args:
        cells: True in cells, `(3, 3)`.

    Returns:
        Whether a flip keeps the topology of any image around the pixel.

    Example:
        The first center is an end, the second a bridge:

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
    """Returns rows and columns of differing pixels in the order of the visits."""
    columns, rows = np.nonzero(differing.T)
    distances = np.abs(scores[rows, columns].astype(np.float64) - threshold).astype(np.float32)
    order = np.argsort(-distances, kind="stable")
    return rows[order], columns[order]


def _neighborhood_codes(padded: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns a byte for each pixel whose bit k is set if neighbor k is cell."""
    codes = np.zeros(padded.shape, np.uint8)
    for bit, offset in enumerate(NEIGHBORS):
        codes |= np.roll(padded, (-offset[0], -offset[1]), (0, 1)).astype(np.uint8) << bit
    return codes


def _flip_simple_points(codes: bytearray, waiting: list[int], stride: int) -> list[int]:
    """Flips simple points in repeated rounds, and returns the positions that were never flipped.

    Args:
        codes: Neighborhood of each pixel of the padded image, in raster order, updated in place.
        waiting: Positions in the padded image, in the order of the visits.
        stride: Length of the rows of the padded image.
    """
    while True:
        left = _flip_once(codes, waiting, stride)
        if len(left) == len(waiting):
            return left
        waiting = left


def _flip_once(codes: bytearray, waiting: list[int], stride: int) -> list[int]:
    """Visits each position once, and returns those that were not flipped."""
    # A flip changes one bit in the code of each of the 8 neighbors. The pixel's own value is not
    # stored, since being simple depends on the neighbors alone.
    simple = _simple_codes()
    left = []
    for position in waiting:
        if simple[codes[position]]:
            upper, lower = position - stride, position + stride
            codes[upper - 1] ^= 128
            codes[upper] ^= 64
            codes[upper + 1] ^= 32
            codes[position - 1] ^= 16
            codes[position + 1] ^= 8
            codes[lower - 1] ^= 4
            codes[lower] ^= 2
            codes[lower + 1] ^= 1
        else:
            left.append(position)
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


_RADII = (4, 20)  # 20 by definition; cells connected within 4 are sorted out first
_WINDOWS_AT_ONCE = 1000
_WITHIN_WINDOWS = np.pad([ndi.generate_binary_structure(2, 1)], ((1, 1), (0, 0), (0, 0)))
_OUTSIDE = -1


def splits_and_merges(warped: NDArray[np.bool_], proposal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Marks the pixels at which a proposal splits a cell of the warped labels or merges cells.

    A differing pixel is classified by the number of different objects (membrane or 4-connected
    cells) among its up to 8 neighbors. With three or more, the proposal merges cells at a membrane
    pixel, or splits them at a cell pixel. With two, a cell pixel is a split if its cell falls into
    pieces within 20 pixels once it becomes membrane. All other differences add or remove a hole or
    a cell.

    Args:
        warped: Labels warped towards the proposal, True in cells, `(height, width)`.
        proposal: True in proposed cells, `(height, width)`.

    Returns:
        True where the proposal splits or merges, `(height, width)`.

    Example:
        The proposal merges two cells through their border, and adds a hole to the right one:

        >>> warped = np.ones((3, 6), dtype=bool)
        >>> warped[:, 1] = False
        >>> proposal = warped.copy()
        >>> proposal[1, 1], proposal[1, 4] = True, False
        >>> np.argwhere(splits_and_merges(warped, proposal)).tolist()
        [[1, 1]]
    """
    rows, columns = np.nonzero(warped != proposal)
    objects = _count_different(_ids_around(warped, rows, columns))
    is_error = objects > 2
    candidates = np.flatnonzero((objects == 2) & warped[rows, columns])
    for radius in _RADII:
        splits = _split_cell(warped, rows[candidates], columns[candidates], radius)
        candidates = candidates[splits]
    is_error[candidates] = True
    errors = np.zeros_like(warped)
    errors[rows, columns] = is_error
    return errors


def _ids_around(
    cells: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.integer]:
    """Returns the numbers of the cells around some pixels, 0 for membrane, `(pixels, 8)`."""
    numbered, _ = ndi.label(cells)
    padded = np.pad(numbered, 1, constant_values=_OUTSIDE)
    return np.stack([padded[rows + 1 + r, columns + 1 + c] for r, c in NEIGHBORS], axis=1)


def _split_cell(
    cells: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp], radius: int
) -> NDArray[np.bool_]:
    """Returns whether the removal of each pixel splits its cell within a radius."""
    windows = sliding_window_view(np.pad(cells, radius), (2 * radius + 1, 2 * radius + 1))
    splits = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _WINDOWS_AT_ONCE):
        batch = slice(start, start + _WINDOWS_AT_ONCE)
        splits[batch] = _center_splits(windows[rows[batch], columns[batch]], radius)
    return splits


def _center_splits(windows: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Returns whether removal of the centers of `(windows, height, width)` splits their cells."""
    windows[:, radius, radius] = False
    numbered, _ = ndi.label(windows, _WITHIN_WINDOWS)
    around = numbered[:, radius - 1 : radius + 2, radius - 1 : radius + 2]
    return _count_different(around.reshape(-1, 9)) > 2


def _count_different(ids: NDArray[np.integer]) -> NDArray[np.intp]:
    """Counts the different ids in each row, without the outside of the image."""
    increases = np.diff(np.sort(ids, axis=1), axis=1, prepend=_OUTSIDE) > 0
    return np.asarray(increases.sum(axis=1))
