"""Errors of topology that warping leaves: where a proposal splits a cell or merges cells."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage as ndi

from keras_unet.metrics.warping import NEIGHBOURS

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
    return np.stack([padded[rows + 1 + r, columns + 1 + c] for r, c in NEIGHBOURS], axis=1)


def _come_apart(
    cells: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp], radius: int
) -> NDArray[np.bool_]:
    """Returns, for some pixels, whether the cell around them is in pieces without them."""
    windows = sliding_window_view(np.pad(cells, radius), (2 * radius + 1, 2 * radius + 1))
    apart = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _WINDOWS_AT_ONCE):
        some = slice(start, start + _WINDOWS_AT_ONCE)
        apart[some] = _centre_parts(windows[rows[some], columns[some]], radius)
    return apart


def _centre_parts(windows: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Returns whether the centre of each window, `(windows, height, width)`, parts its cell."""
    windows[:, radius, radius] = False
    numbered, _ = ndi.label(windows, _WITHIN_WINDOWS)
    around = numbered[:, radius - 1 : radius + 2, radius - 1 : radius + 2]
    return _count_different(around.reshape(-1, 9)) > 2


def _count_different(ids: NDArray[np.integer]) -> NDArray[np.intp]:
    """Counts the different ids in each row, what is outside of the image left out."""
    increases = np.diff(np.sort(ids, axis=1), axis=1, prepend=_OUTSIDE) > 0
    return np.asarray(increases.sum(axis=1))
