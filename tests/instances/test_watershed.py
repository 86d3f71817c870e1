"""Basins and passes against what they are by definition, found by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.instances.watershed import Landscape

NECKS = (0.0, 0.3, 0.5, 0.71, 0.9, 1.0)
landscapes = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 9)
)


def of(heights: NDArray[np.int64]) -> Landscape:
    return Landscape.of(heights, heights > 0)


def summits(heights: NDArray[np.int64], neck: float) -> int:
    """Counts the summits from which no path leads higher without going below `neck` of them."""
    number = 0
    for top in np.unique(heights[heights > 0]):
        reached, pieces = ndimage.label((heights >= neck * top) & (heights > 0))
        number += sum(heights[reached == piece].max() == top for piece in range(1, pieces + 1))
    return number


@given(landscapes)
@settings(deadline=None, max_examples=80)
def test_each_basin_is_one_piece_around_its_summit(heights: NDArray[np.int64]) -> None:
    landscape = of(heights)
    np.testing.assert_array_equal(landscape.basins > 0, heights > 0)
    assert landscape.basins.max() == len(landscape.sizes) - 1 == len(landscape.summits) - 1
    for basin in range(1, landscape.basins.max() + 1):
        inside = landscape.basins == basin
        assert ndimage.label(inside)[1] == 1
        assert landscape.sizes[basin] == inside.sum()
        assert landscape.summits[basin] == heights[inside].max()


@given(landscapes)
@settings(deadline=None, max_examples=80)
def test_passes_are_the_highest_places_where_two_basins_touch(heights: NDArray[np.int64]) -> None:
    landscape = of(heights)
    expected = {}
    for one, other in combinations(range(1, landscape.basins.max() + 1), 2):
        for pixel in zip(*np.nonzero(landscape.basins == one), strict=True):
            around = np.zeros(heights.shape, bool)
            around[pixel] = True
            beside = ndimage.binary_dilation(around) & (landscape.basins == other)
            for neighbour in heights[beside].tolist():
                height = min(heights[pixel], neighbour)
                expected[one, other] = max(height, expected.get((one, other), 0))
    found = {
        tuple(pair): height
        for pair, height in zip(landscape.passes.tolist(), landscape.heights.tolist(), strict=True)
    }
    assert found == expected
    assert (np.diff(landscape.heights) <= 0).all()


@given(landscapes, st.sampled_from(NECKS))
@settings(deadline=None, max_examples=150)
def test_as_many_cells_as_summits_that_stand_out(heights: NDArray[np.int64], neck: float) -> None:
    assert of(heights).cells(neck, 0).max() == summits(heights, neck)


@given(landscapes)
@settings(deadline=None, max_examples=60)
def test_a_neck_of_0_leaves_the_connected_components(heights: NDArray[np.int64]) -> None:
    landscape = of(heights)
    cells = landscape.cells(0, 0)[landscape.basins]
    components, number = ndimage.label(heights > 0)
    assert cells.max() == number
    pairs = np.unique(np.stack([cells.ravel(), components.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(components))


@given(landscapes, st.sampled_from(NECKS), st.integers(0, 20))
@settings(deadline=None, max_examples=100)
def test_what_stays_small_touches_nothing_and_is_removed(
    heights: NDArray[np.int64], neck: float, minimum_size: int
) -> None:
    landscape = of(heights)
    cells = landscape.cells(neck, minimum_size)[landscape.basins]
    assert (np.bincount(cells.ravel())[1:] >= minimum_size).all()
    components, number = ndimage.label(heights > 0)
    for component in range(1, number + 1):
        inside = components == component
        assert (cells[inside] > 0).all() == (inside.sum() >= minimum_size)
        assert (cells[inside] > 0).any() == (inside.sum() >= minimum_size)


@given(st.integers(0, 99), st.sampled_from(NECKS), st.sampled_from(NECKS), st.integers(0, 20))
@settings(deadline=None, max_examples=60)
def test_a_coarser_landscape_gives_the_same_cells(
    seed: int, neck: float, finer: float, minimum_size: int
) -> None:
    heights = np.random.default_rng(seed).permutation(12 * 14).reshape(12, 14)  # all differ
    landscape = Landscape.of(heights, heights > 40)
    coarse = landscape.coarser(max(neck, finer))
    expected = landscape.cells(neck, minimum_size)[landscape.basins]
    found = coarse.cells(neck, minimum_size)[coarse.basins]
    np.testing.assert_array_equal(found, expected)
    again = Landscape.of(heights, heights > 40).coarser(2)  # joins nothing
    for name in ("basins", "summits", "sizes", "passes", "heights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(landscape, name))


def test_a_small_cell_goes_over_its_highest_pass() -> None:
    landscape = of(np.array([[9, 9, 9, 2, 5, 3, 9, 9, 9]]))
    assert landscape.cells(0.9, 0)[landscape.basins].tolist() == [[1, 1, 1, 1, 2, 3, 3, 3, 3]]
    assert landscape.cells(0.9, 3)[landscape.basins].tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 6)])
def test_a_plain_is_one_basin_and_the_sea_none(shape: tuple[int, int]) -> None:
    plain, sea = of(np.ones(shape, int)), of(np.zeros(shape, int))
    assert (plain.basins == 1).all()
    assert plain.cells(0.5, 0).tolist() == [0, 1]
    assert not sea.basins.any()
    assert sea.cells(0.5, 0).tolist() == [0]


def test_a_piece_does_not_know_what_else_is_in_the_image() -> None:
    rng = np.random.default_rng(0)
    image = np.pad(rng.integers(1, 4, (30, 30)), 1)  # many places are equally high
    alone = Landscape.of(image, image > 0)
    others = np.pad(rng.integers(1, 4, (32, 60)), ((0, 0), (0, 1)))
    together = np.hstack([others, image])
    both = Landscape.of(together, together > 0)
    for neck in (0.0, 0.5, 0.9, 1.0):
        cells = alone.cells(neck, 3)[alone.basins]
        beside = both.cells(neck, 3)[both.basins][:, others.shape[1] :]
        np.testing.assert_array_equal(np.unique(beside, return_inverse=True)[1], cells)


def test_places_are_those_of_the_first_summits() -> None:
    row = np.array([[2, 4, 6, 5, 6, 4, 1, 3, 5, 4]])
    landscape = Landscape.of(row, row > 0)
    assert landscape.places.tolist() == [10, 2, 4, 8]
    assert landscape.places_of(landscape.cells(0.5, 3)).tolist() == [10, 2, 8]
    assert landscape.coarser(0.5).places.tolist() == [10, 2, 8]
