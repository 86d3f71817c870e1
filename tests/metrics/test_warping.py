"""Warping against topology counted on whole images, and against its definition taken literally."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage as ndi

from keras_unet.metrics.pixels import THRESHOLDS
from keras_unet.metrics.warping import is_simple, warp_labels

SHAPE = (8, 9)
CELLS = hnp.arrays(np.bool_, SHAPE)
FEW_VALUES = st.sampled_from([0, 0.1, 0.25, 0.4, 0.5, 0.55, 0.6, 0.75, 0.9, 1])
SCORES = hnp.arrays(np.float32, SHAPE, elements=FEW_VALUES.map(np.float32))
STEPS = st.integers(0, 9)


def topology(cells: NDArray[np.bool_]) -> tuple[int, int]:
    """Numbers of 4-connected cells and of 8-connected membranes, the outside being membrane."""
    padded = np.pad(cells, 1)
    return ndi.label(padded)[1], ndi.label(~padded, np.ones((3, 3)))[1]


def flipped(cells: NDArray[np.bool_], row: int, column: int) -> NDArray[np.bool_]:
    other = cells.copy()
    other[row, column] ^= True
    return other


def test_a_point_is_simple_if_its_flip_keeps_the_topology() -> None:
    for values in product((False, True), repeat=9):
        cells = np.array(values).reshape(3, 3)
        kept = topology(cells) == topology(flipped(cells, 1, 1))
        assert is_simple(cells) == kept, cells.astype(int)


def literal(
    cells: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.bool_]:
    """The definition word by word: list, sort and visit until the number stops falling."""
    warped = np.pad(cells, 1)
    scores = np.pad(scores, 1)
    proposal = scores.astype(float) > threshold
    number = warped.size + 1
    while np.count_nonzero(warped != proposal) < number:
        mismatches = [(row, column) for column, row in np.argwhere((warped != proposal).T)]
        number = len(mismatches)
        for row, column in sorted(
            mismatches, key=lambda p: -np.float32(abs(float(scores[p]) - threshold))
        ):
            if is_simple(warped[row - 1 : row + 2, column - 1 : column + 2]):
                warped = flipped(warped, row, column)
    return warped[1:-1, 1:-1]


@given(CELLS, SCORES, STEPS)
@settings(deadline=None, max_examples=60)
def test_equals_the_definition(cells, scores, step) -> None:
    warped = warp_labels(cells, scores, THRESHOLDS[step])
    assert np.array_equal(warped, literal(cells, scores, THRESHOLDS[step]))


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition_on_smooth_shapes(seed: int) -> None:
    random = np.random.default_rng(seed)
    smooth = ndi.gaussian_filter(random.normal(size=(2, 40, 30)), (0, 2, 2))
    scores = (0.5 + 2 * smooth[1]).clip(0, 1).astype(np.float32)
    cells = smooth[0] + 0.5 * smooth[1] > 0
    for threshold in THRESHOLDS[:-1:3]:
        warped = warp_labels(cells, scores, threshold)
        assert np.array_equal(warped, literal(cells, scores, threshold))


@given(CELLS, SCORES, STEPS)
@settings(deadline=None, max_examples=60)
def test_cells_and_holes_keep_their_number(cells, scores, step) -> None:
    warped = warp_labels(cells, scores, THRESHOLDS[step])
    assert topology(warped) == topology(cells)


@given(CELLS, SCORES, STEPS)
@settings(deadline=None, max_examples=40)
def test_what_still_differs_is_not_simple(cells, scores, step) -> None:
    warped = warp_labels(cells, scores, THRESHOLDS[step])
    for row, column in np.argwhere(warped != (scores > np.float64(THRESHOLDS[step]))):
        assert not is_simple(np.pad(warped, 1)[row : row + 3, column : column + 3])


def test_a_shifted_border_costs_nothing() -> None:
    cells = np.ones((6, 12), bool)
    cells[:, 5] = False
    shifted = np.roll(cells, 1, axis=1).astype(np.float32)
    assert np.array_equal(warp_labels(cells, shifted, 0.5), shifted > 0.5)


@pytest.mark.parametrize(
    ("left", "right", "flipped_columns"), [(0.9, 0.6, [2]), (0.6, 0.9, [3]), (0.9, 0.9, [2])]
)
def test_the_clearest_pixel_is_flipped_first(left, right, flipped_columns) -> None:
    """Two pixels of a border become cell, but after one of them the other would merge cells."""
    cells = np.ones((3, 6), bool)
    cells[:, 2:4] = False
    scores = cells.astype(np.float32)
    scores[1, 2:4] = left, right
    warped = warp_labels(cells, scores, 0.5)
    assert np.argwhere(warped != cells).tolist() == [[1, column] for column in flipped_columns]


def test_arguments_are_left_alone() -> None:
    cells, scores = np.eye(4, dtype=bool), np.eye(4, dtype=np.float32)[::-1].copy()
    before = cells.copy(), scores.copy()
    warp_labels(cells, scores, 0.5)
    assert np.array_equal(cells, before[0])
    assert np.array_equal(scores, before[1])
