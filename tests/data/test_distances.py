"""Distances to the two nearest instances, and the gap, against one full-image pass a cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.data.distances import nearest_two, separate_touching, two_distances

LABELS = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=14),
    elements=st.sampled_from([0, 0, 0, 0, 1, 2, 5, 70_000, 2**31 - 1]),
)
LIMITS = st.sampled_from([0, 1.5, 3, 7.3, np.inf]) | st.integers(1, 150).map(np.sqrt)


def full_image_distances(
    instances: NDArray[np.integer], limit: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """One distance transform over the whole image for each instance, ids in rising order."""
    d1 = np.full(instances.shape, np.inf)
    d2 = d1.copy()
    nearest = np.zeros(instances.shape, np.int32)
    for identity in np.unique(instances[instances > 0]):
        distance = ndimage.distance_transform_edt(instances != identity)
        nearer = distance < d1
        d2 = np.where(nearer, d1, np.minimum(d2, distance))
        d1 = np.where(nearer, distance, d1)
        nearest[nearer] = identity
    inside = d1 <= limit
    return (
        np.where(inside, d1, np.inf).astype(np.float32),
        np.where(d2 <= limit, d2, np.inf).astype(np.float32),
        np.where(inside, nearest, 0),
    )


def voronoi(cells: int, size: int, radius: float = np.inf) -> NDArray[np.int32]:
    """Cells that fill the image, or discs of one radius cut where they meet."""
    generator = np.random.default_rng(cells)
    flat = generator.choice(size * size, cells, replace=False)
    seeds = np.zeros(size * size, np.int32)
    seeds[flat] = np.arange(1, cells + 1)
    seeds = seeds.reshape(size, size)
    distance, (rows, columns) = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.where(distance <= radius, seeds[rows, columns], 0)


@given(LABELS, LIMITS)
@settings(deadline=None, max_examples=150)
def test_equals_the_full_image_way(instances: NDArray[np.int32], limit: float) -> None:
    expected = full_image_distances(instances, limit)
    for got, one in zip(nearest_two(instances, limit), expected, strict=True):
        np.testing.assert_array_equal(got, one)
    for got, one in zip(two_distances(instances, limit), expected[:2], strict=True):
        np.testing.assert_array_equal(got, one)


@pytest.mark.parametrize("cells", [0, 1, 2, 500])
def test_equals_the_full_image_way_for_any_number_of_cells(cells: int) -> None:
    instances = voronoi(cells, 96) if cells else np.zeros((96, 96), np.int32)
    for got, expected in zip(
        nearest_two(instances, 9.5), full_image_distances(instances, 9.5), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("length", [2**15, 2**15 + 1, 50_000])
def test_squares_of_the_longest_distances_are_held(length: int) -> None:
    instances = np.zeros((2, length), np.int32)
    instances[0, 0] = 3
    d1, d2, nearest = nearest_two(instances, np.inf)
    assert d1[0, -1] == length - 1
    assert np.isinf(d2).all()
    assert (nearest == 3).all()


def test_result_types() -> None:
    d1, d2, nearest = nearest_two(np.ones((2, 3), np.uint8), 4)
    assert (d1.dtype, d2.dtype, nearest.dtype) == (np.float32, np.float32, np.int32)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_every_integer_type_gives_the_same(dtype: type[np.integer]) -> None:
    instances = voronoi(20, 40, 4)
    for got, expected in zip(
        nearest_two(instances.astype(dtype), 6), nearest_two(instances, 6), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_input_is_left_alone() -> None:
    instances = voronoi(20, 40, 4)
    before = instances.copy()
    nearest_two(instances, 6)
    separate_touching(instances)
    np.testing.assert_array_equal(instances, before)


def test_a_cell_is_transformed_once_in_its_grown_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is that of the transforms, which follow the cells' size, not the image's."""
    transform, transformed = ndimage.distance_transform_edt, []

    def counted(mask: NDArray[np.bool_], **options: Any) -> Any:
        transformed.append(mask.shape)
        return transform(mask, **options)

    monkeypatch.setattr(ndimage, "distance_transform_edt", counted)
    instances = np.zeros((512, 512), np.int32)
    for identity, (row, column) in enumerate(np.ndindex(10, 20), 1):
        instances[50 * row + 20 :, 25 * column + 10 :][:15, :12] = identity
    two_distances(instances, 28.4)
    assert len(transformed) == 200
    assert max(transformed) == (15 + 2 * 28, 12 + 2 * 28)
    assert sum(height * width for height, width in transformed) < 4 * instances.size


def brute_force_gap(instances: NDArray[np.integer]) -> NDArray[np.integer]:
    result = instances.copy()
    for row, column in np.argwhere(instances):
        around = instances[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if set(around.ravel().tolist()) - {0, int(instances[row, column])}:
            result[row, column] = 0
    return result


@given(LABELS)
@settings(deadline=None, max_examples=100)
def test_gap_equals_brute_force(instances: NDArray[np.int32]) -> None:
    np.testing.assert_array_equal(separate_touching(instances), brute_force_gap(instances))


@given(LABELS, st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=50)
def test_gap_turns_with_the_image(instances: NDArray[np.int32], turns: int, flip: bool) -> None:
    def turn(image: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.rot90(np.flipud(image) if flip else image, turns)

    np.testing.assert_array_equal(
        separate_touching(turn(instances)), turn(brute_force_gap(instances))
    )


@given(hnp.arrays(np.int32, (9, 9), elements=st.integers(0, 5)), st.permutations(range(1, 6)))
@settings(deadline=None, max_examples=50)
def test_gap_does_not_depend_on_the_numbering(
    instances: NDArray[np.int32], order: list[int]
) -> None:
    numbers = np.array([0, *order])
    np.testing.assert_array_equal(
        separate_touching(numbers[instances]), numbers[separate_touching(instances)]
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_gap_keeps_the_type_and_its_largest_id(dtype: type[np.integer]) -> None:
    largest = min(np.iinfo(dtype).max, 2**31 - 1)
    instances = np.array([[0, largest, largest, largest - 1, largest - 1, 0]], dtype)
    parted = separate_touching(instances)
    assert parted.dtype == dtype
    assert parted.tolist() == [[0, largest, 0, 0, largest - 1, 0]]


def test_cells_that_do_not_touch_are_unchanged() -> None:
    instances = np.zeros((7, 9), np.int32)
    instances[1:4, 1:4], instances[1:4, 5:8] = 3, 9
    np.testing.assert_array_equal(separate_touching(instances), instances)


def test_cell_no_wider_than_the_gap_vanishes() -> None:
    assert separate_touching(np.array([[1, 1, 2, 2, 3, 3]])).tolist() == [[1, 0, 0, 0, 0, 3]]


@pytest.mark.parametrize("function", [separate_touching, lambda x: nearest_two(x, 3)])
@pytest.mark.parametrize(
    ("instances", "message"),
    [
        (np.zeros((2, 3, 1), int), r"instances must be one image .* Received shape \(2, 3, 1\);"),
        (np.zeros((0, 3), int), r"instances must be one image .* Received shape \(0, 3\);"),
        (np.zeros((2, 3)), r"instances must be integers, .* Received float64;"),
        (np.ones((2, 3), bool), r"instances must be integers, .* Received bool;"),
        (np.array([[-1, 2]]), r"instances must lie in 0 \.\.\. 2147483647\. Received -1 \.\.\. 2;"),
        (np.array([[2**31]]), r"instances must lie in .* Received 2147483648 \.\.\. 2147483648;"),
    ],
)
def test_refuses_what_is_no_label_image(function, instances, message) -> None:
    with pytest.raises(ValueError, match=message):
        function(instances)


@pytest.mark.parametrize("limit", [-1, float("nan")])
def test_refuses_a_limit_that_is_no_distance(limit: float) -> None:
    with pytest.raises(ValueError, match=f"limit must be a distance .* Received: limit={limit}"):
        nearest_two(np.ones((2, 2), int), limit)
