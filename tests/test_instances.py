"""The way back from a foreground with gaps to touching cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.distances import separate_touching
from keras_unet.instances import label_instances

SIZE = 48


@st.composite
def rectangles(draw: st.DrawFn) -> NDArray[np.int32]:
    """Rectangles that may touch but do not overlap, numbered in the order drawn."""
    image = np.zeros((SIZE, SIZE), np.int32)
    for _ in range(draw(st.integers(1, 12))):
        top, left = draw(st.integers(0, SIZE - 6)), draw(st.integers(0, SIZE - 6))
        height, width = draw(st.integers(6, 18)), draw(st.integers(6, 18))
        window = image[top : top + height, left : left + width]
        if not window.any():
            window[:] = image.max() + 1
    return image


@st.composite
def brick_walls(draw: st.DrawFn) -> NDArray[np.int32]:
    """Rectangles without space between them, some way from the image's border or at it."""
    sides = st.lists(st.integers(3, 9), min_size=1, max_size=4)
    heights, widths = draw(sides), draw(sides)
    numbers = np.arange(1, len(heights) * len(widths) + 1).reshape(len(heights), len(widths))
    wall = np.repeat(np.repeat(numbers, heights, axis=0), widths, axis=1)
    return np.pad(wall, draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))


def discs(cells: int, size: int, radius: float) -> NDArray[np.int32]:
    """Discs of one radius, cut along straight lines of all slopes where they meet."""
    rows, columns = np.random.default_rng(1).integers(0, size, (2, cells))
    seeds = np.zeros((size, size), np.int32)
    seeds[rows, columns] = np.arange(1, cells + 1)
    distance, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.where(distance <= radius, seeds[tuple(nearest)], 0)


def mean_iou(reference: NDArray[np.integer], result: NDArray[np.integer]) -> float:
    """The mean over the reference's cells of the best intersection over union."""
    scores = []
    for cell in np.unique(reference[reference > 0]):
        inside = reference == cell
        others = [result == other for other in np.unique(result[inside]) if other]
        scores.append(max((np.sum(inside & o) / np.sum(inside | o) for o in others), default=0))
    return float(np.mean(scores))


@pytest.mark.parametrize("turns", range(4))
def test_touching_squares_come_back(turns: int) -> None:
    cells = np.zeros((20, 30), np.int32)
    cells[3:13, 2:12], cells[3:13, 12:22], cells[13:20, 2:22] = 1, 2, 3
    cells = np.rot90(cells, turns)
    labels = label_instances(separate_touching(cells) > 0)
    assert labels.dtype == np.int32
    assert mean_iou(cells, labels) == 1
    np.testing.assert_array_equal(labels > 0, cells > 0)


@pytest.mark.parametrize("slope", [-1, 1])
def test_cells_that_touch_along_a_diagonal_come_back(slope: int) -> None:
    row, column = np.mgrid[:24, :24]
    cells = np.where(row + column < 24, 1, 2)[:, ::slope]
    labels = label_instances(separate_touching(cells) > 0)
    inside = np.s_[3:-3, 3:-3]  # the image's border cuts off a few pixels of the gap
    assert mean_iou(cells[inside], labels[inside]) == 1
    assert mean_iou(cells, labels) > 0.97


@given(brick_walls())
@settings(deadline=None, max_examples=60)
def test_brick_walls_come_back(wall: NDArray[np.int32]) -> None:
    np.testing.assert_array_equal(label_instances(separate_touching(wall) > 0), wall)


@given(rectangles())
@settings(deadline=None, max_examples=60)
def test_no_rectangle_is_merged_lost_or_split(cells: NDArray[np.int32]) -> None:
    parted = separate_touching(cells)
    labels = label_instances(parted > 0, minimum_size=2)
    pairs = np.unique([cells[parted > 0], labels[parted > 0]], axis=1)
    cells_found, labels_found = pairs[:, pairs[1] > 0]
    assert cells_found.tolist() == list(range(1, cells.max() + 1))
    assert sorted(labels_found) == list(range(1, labels.max() + 1))
    assert mean_iou(cells, labels) > 0.85  # a gap of 1 or 2 pixels that was drawn is closed too


def test_discs_that_touch_at_all_angles_come_back_nearly() -> None:
    cells = discs(60, 256, 14)
    parted = separate_touching(cells)
    assert mean_iou(cells, parted) < 0.94
    assert mean_iou(cells, label_instances(parted > 0)) > 0.985


def test_tissue_without_background_comes_back_nearly() -> None:
    cells = discs(60, 256, np.inf)
    parted = separate_touching(cells)
    assert mean_iou(cells, parted) < 0.88
    assert mean_iou(cells, label_instances(parted > 0, minimum_size=5)) > 0.99


@given(hnp.arrays(np.bool_, (12, 15)), st.integers(0, 4), st.sampled_from([0, 1, 2, 3.5]))
@settings(deadline=None, max_examples=60)
def test_components_keep_their_pixels_and_order(
    foreground: NDArray[np.bool_], minimum_size: int, gap: float
) -> None:
    labels = label_instances(foreground, gap=gap, minimum_size=minimum_size)
    components, number = ndimage.label(foreground)
    sizes = [np.sum(components == i) for i in range(1, number + 1)]
    large = [i + 1 for i, size in enumerate(sizes) if size >= minimum_size]
    for expected, component in enumerate(large, start=1):
        assert set(labels[components == component].tolist()) == {expected}
    assert labels.max() == len(large)
    first_pixels = [np.argmax(components.ravel() == component) for component in large]
    assert first_pixels == sorted(first_pixels)


@given(hnp.arrays(np.bool_, (12, 15)))
@settings(deadline=None, max_examples=30)
def test_gap_of_zero_closes_nothing(foreground: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(label_instances(foreground, gap=0), ndimage.label(foreground)[0])


@pytest.mark.parametrize(("width", "closed"), [(1, True), (2, True), (3, False), (4, False)])
def test_only_gaps_up_to_the_width_are_closed(width: int, closed: bool) -> None:
    foreground = np.pad(np.zeros((6, width), bool), [(0, 0), (5, 5)], constant_values=True)
    assert label_instances(foreground, gap=2).all() == closed


def test_the_gap_belongs_to_its_nearest_cell() -> None:
    foreground = np.array([[1, 1, 0, 0, 1, 1]], bool)
    assert label_instances(foreground).tolist() == [[1, 1, 1, 2, 2, 2]]


def test_hollows_and_the_outside_of_single_cells_stay_background() -> None:
    foreground = np.ones((9, 9), bool)
    foreground[4, 4] = foreground[0, 3:5] = False
    np.testing.assert_array_equal(label_instances(foreground) > 0, foreground)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (30, 1)])
@pytest.mark.parametrize("value", [False, True])
def test_images_of_one_kind(shape: tuple[int, int], value: bool) -> None:
    np.testing.assert_array_equal(
        label_instances(np.full(shape, value)), np.full(shape, int(value))
    )


@pytest.mark.parametrize(
    "foreground", [np.zeros((3, 3)), np.zeros((3, 3, 1), bool), np.zeros((0, 3), bool)]
)
def test_refuses_what_is_no_mask(foreground) -> None:
    with pytest.raises(ValueError, match=r"foreground must be one boolean image .* Received"):
        label_instances(foreground)


@pytest.mark.parametrize("gap", [-1, float("nan"), float("inf")])
def test_refuses_gap(gap: float) -> None:
    with pytest.raises(ValueError, match=f"gap must be 0 pixels or more. Received {gap};"):
        label_instances(np.ones((3, 3), bool), gap=gap)


def test_refuses_minimum_size() -> None:
    with pytest.raises(ValueError, match=r"minimum_size must be 0 pixels or more\. Received -1;"):
        label_instances(np.ones((3, 3), bool), minimum_size=-1)
