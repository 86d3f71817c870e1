"""Watershed regions and saddles against their definitions, by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.instances.watershed import WatershedRegions

MERGE_THRESHOLDS = (0.0, 0.3, 0.5, 0.71, 0.9, 1.0)
watersheds = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 9)
)


def of(heights: NDArray[np.int64]) -> WatershedRegions:
    return WatershedRegions.of(heights, heights > 0)


def count_maxima(heights: NDArray[np.int64], merge_threshold: float) -> int:
    """Counts maxima from which no path leads higher without falling below a fraction of them."""
    number = 0
    for top in np.unique(heights[heights > 0]):
        reached, pieces = ndimage.label((heights >= merge_threshold * top) & (heights > 0))
        number += sum(heights[reached == piece].max() == top for piece in range(1, pieces + 1))
    return number


@given(watersheds)
@settings(deadline=None, max_examples=80)
def test_each_region_is_one_piece_around_its_maximum(heights: NDArray[np.int64]) -> None:
    regions = of(heights)
    np.testing.assert_array_equal(regions.labels > 0, heights > 0)
    assert regions.labels.max() == len(regions.sizes) - 1 == len(regions.maxima) - 1
    for region in range(1, regions.labels.max() + 1):
        inside = regions.labels == region
        assert ndimage.label(inside)[1] == 1
        assert regions.sizes[region] == inside.sum()
        assert regions.maxima[region] == heights[inside].max()


@given(watersheds)
@settings(deadline=None, max_examples=80)
def test_saddles_are_the_highest_places_where_two_regions_touch(
    heights: NDArray[np.int64],
) -> None:
    regions = of(heights)
    expected = {}
    for one, other in combinations(range(1, regions.labels.max() + 1), 2):
        for pixel in zip(*np.nonzero(regions.labels == one), strict=True):
            around = np.zeros(heights.shape, bool)
            around[pixel] = True
            beside = ndimage.binary_dilation(around) & (regions.labels == other)
            for neighbor in heights[beside].tolist():
                height = min(heights[pixel], neighbor)
                expected[one, other] = max(height, expected.get((one, other), 0))
    found = {
        tuple(pair): height
        for pair, height in zip(
            regions.pairs.tolist(), regions.saddle_heights.tolist(), strict=True
        )
    }
    assert found == expected
    assert (np.diff(regions.saddle_heights) <= 0).all()


@given(watersheds, st.sampled_from(MERGE_THRESHOLDS))
@settings(deadline=None, max_examples=150)
def test_as_many_cells_as_maxima_that_stand_out(
    heights: NDArray[np.int64], merge_threshold: float
) -> None:
    assert of(heights).cells(merge_threshold, 0).max() == count_maxima(heights, merge_threshold)


@given(watersheds)
@settings(deadline=None, max_examples=60)
def test_a_merge_threshold_of_0_leaves_the_connected_components(
    heights: NDArray[np.int64],
) -> None:
    regions = of(heights)
    cells = regions.cells(0, 0)[regions.labels]
    components, number = ndimage.label(heights > 0)
    assert cells.max() == number
    pairs = np.unique(np.stack([cells.ravel(), components.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(components))


@given(watersheds, st.sampled_from(MERGE_THRESHOLDS), st.integers(0, 20))
@settings(deadline=None, max_examples=100)
def test_what_stays_small_touches_nothing_and_is_removed(
    heights: NDArray[np.int64], merge_threshold: float, minimum_size: int
) -> None:
    regions = of(heights)
    cells = regions.cells(merge_threshold, minimum_size)[regions.labels]
    assert (np.bincount(cells.ravel())[1:] >= minimum_size).all()
    components, number = ndimage.label(heights > 0)
    for component in range(1, number + 1):
        inside = components == component
        assert (cells[inside] > 0).all() == (inside.sum() >= minimum_size)
        assert (cells[inside] > 0).any() == (inside.sum() >= minimum_size)


@given(
    st.integers(0, 99),
    st.sampled_from(MERGE_THRESHOLDS),
    st.sampled_from(MERGE_THRESHOLDS),
    st.integers(0, 20),
)
@settings(deadline=None, max_examples=60)
def test_simplified_regions_give_the_same_cells(
    seed: int, merge_threshold: float, finer: float, minimum_size: int
) -> None:
    heights = np.random.default_rng(seed).permutation(12 * 14).reshape(12, 14)  # all differ
    regions = WatershedRegions.of(heights, heights > 40)
    coarse = regions.simplify(max(merge_threshold, finer))
    expected = regions.cells(merge_threshold, minimum_size)[regions.labels]
    found = coarse.cells(merge_threshold, minimum_size)[coarse.labels]
    np.testing.assert_array_equal(found, expected)
    again = WatershedRegions.of(heights, heights > 40).simplify(2)  # joins nothing
    for name in ("labels", "maxima", "sizes", "pairs", "saddle_heights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(regions, name))


def test_a_small_cell_is_merged_over_its_highest_saddle() -> None:
    regions = of(np.array([[9, 9, 9, 2, 5, 3, 9, 9, 9]]))
    assert regions.cells(0.9, 0)[regions.labels].tolist() == [[1, 1, 1, 1, 2, 3, 3, 3, 3]]
    assert regions.cells(0.9, 3)[regions.labels].tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 6)])
def test_a_flat_image_is_one_region_and_background_none(shape: tuple[int, int]) -> None:
    flat, background = of(np.ones(shape, int)), of(np.zeros(shape, int))
    assert (flat.labels == 1).all()
    assert flat.cells(0.5, 0).tolist() == [0, 1]
    assert not background.labels.any()
    assert background.cells(0.5, 0).tolist() == [0]


def test_a_component_does_not_depend_on_the_rest_of_the_image() -> None:
    rng = np.random.default_rng(0)
    image = np.pad(rng.integers(1, 4, (30, 30)), 1)  # many places are equally high
    alone = WatershedRegions.of(image, image > 0)
    others = np.pad(rng.integers(1, 4, (32, 60)), ((0, 0), (0, 1)))
    together = np.hstack([others, image])
    both = WatershedRegions.of(together, together > 0)
    for merge_threshold in (0.0, 0.5, 0.9, 1.0):
        cells = alone.cells(merge_threshold, 3)[alone.labels]
        beside = both.cells(merge_threshold, 3)[both.labels][:, others.shape[1] :]
        np.testing.assert_array_equal(np.unique(beside, return_inverse=True)[1], cells)


def test_positions_are_those_of_the_first_maxima() -> None:
    row = np.array([[2, 4, 6, 5, 6, 4, 1, 3, 5, 4]])
    regions = WatershedRegions.of(row, row > 0)
    assert regions.positions.tolist() == [10, 2, 4, 8]
    assert regions.positions_of(regions.cells(0.5, 3)).tolist() == [10, 2, 8]
    assert regions.simplify(0.5).positions.tolist() == [10, 2, 8]
