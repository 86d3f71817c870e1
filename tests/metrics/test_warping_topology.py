"""Splits and merges by hand, and by their definition taken literally."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage as ndi

from keras_unet.metrics.warping import splits_and_merges

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.bool_, shape)] * 2))


def ids_around(numbered: NDArray[np.integer], row: int, column: int) -> set[int]:
    """What the pixels around one belong to, as far as the image goes."""
    rows = [r for r in range(row - 1, row + 2) if 0 <= r < numbered.shape[0]]
    columns = [c for c in range(column - 1, column + 2) if 0 <= c < numbered.shape[1]]
    return {int(numbered[r, c]) for r in rows for c in columns if (r, c) != (row, column)}


def literal(warped: NDArray[np.bool_], proposal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The table of the definition, pixel by pixel; images are smaller than the 20 pixels."""
    marks = np.zeros_like(warped)
    for row, column in np.argwhere(warped != proposal):
        around = ids_around(ndi.label(warped)[0], row, column)
        if len(around) > 2:
            marks[row, column] = True
        elif len(around) == 2 and warped[row, column]:
            without = warped.copy()
            without[row, column] = False
            marks[row, column] = len(ids_around(ndi.label(without)[0], row, column)) > 2
    return marks


@given(PAIRS)
@settings(deadline=None, max_examples=200)
def test_equals_the_definition(pair) -> None:
    warped, proposal = pair
    assert np.array_equal(splits_and_merges(warped, proposal), literal(warped, proposal))


def one_flip(warped: NDArray[np.bool_], row: int, column: int) -> bool:
    """Whether a proposal that differs at one pixel only splits or merges there."""
    proposal = warped.copy()
    proposal[row, column] ^= True
    marks = splits_and_merges(warped, proposal)
    assert marks.sum() == marks[row, column]
    return bool(marks[row, column])


def test_the_kinds_of_error_by_hand() -> None:
    two_cells = np.ones((5, 9), bool)
    two_cells[:, 4] = False
    bridge = two_cells.copy()
    bridge[2, 4] = True
    assert one_flip(two_cells, 2, 4)  # merges
    assert one_flip(bridge, 2, 4)  # splits
    assert not one_flip(two_cells, 2, 2)  # a hole added
    holed = two_cells.copy()
    holed[2, 2] = False
    assert not one_flip(holed, 2, 2)  # a hole deleted
    nothing = np.zeros((5, 5), bool)
    assert not one_flip(nothing, 2, 2)  # a cell added
    nothing[2, 2] = True
    assert not one_flip(nothing, 2, 2)  # a cell deleted


def test_cells_that_touch_by_a_corner_are_merged_by_an_edge() -> None:
    assert one_flip(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool), 0, 1)


@pytest.mark.parametrize(("side", "splits"), [(9, False), (12, False), (21, False), (22, True)])
@pytest.mark.parametrize("margin", [0, 30])
def test_a_ring_is_split_if_it_does_not_close_within_20_pixels(side, splits, margin) -> None:
    ring = np.ones((side, side), bool)
    ring[1:-1, 1:-1] = False
    assert one_flip(np.pad(ring, margin), margin, margin + side // 2) == splits


def test_a_ring_may_close_however_long_it_is() -> None:
    ring = np.ones((30, 30), bool)
    ring[1:-1, 1:-1] = False
    ring[0, 15] = False
    assert not one_flip(ring, 0, 15)  # a hole added


def test_many_splits_are_all_found() -> None:
    ladder = np.ones((81, 5), bool)
    ladder[1::2] = np.arange(5) == 2
    warped = np.tile(np.pad(ladder, 1), (1, 30))
    bridges = np.tile(np.pad(np.indices(ladder.shape)[0] % 2 * ladder, 1), (1, 30)) > 0
    assert bridges.sum() == 1200
    assert np.array_equal(splits_and_merges(warped, warped & ~bridges), bridges)
