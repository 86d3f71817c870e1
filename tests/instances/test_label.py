"""Label images of a foreground with gaps, and of cells split by markers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.data.distances import separate_touching
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances

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
    labels = label_instances(parted > 0, InstanceOptions(minimum_size=2))
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
    assert mean_iou(cells, label_instances(parted > 0, InstanceOptions(minimum_size=5))) > 0.99


@given(hnp.arrays(np.bool_, (12, 15)), st.integers(0, 4), st.sampled_from([0, 1, 2, 3.5]))
@settings(deadline=None, max_examples=60)
def test_components_keep_their_pixels_and_order(
    foreground: NDArray[np.bool_], minimum_size: int, gap: float
) -> None:
    options = InstanceOptions(gap=gap, minimum_size=minimum_size, fill_holes=False)
    labels = label_instances(foreground, options)
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
def test_nothing_closed_and_nothing_filled_is_connected_components(
    foreground: NDArray[np.bool_],
) -> None:
    labels = label_instances(foreground, InstanceOptions(gap=0, fill_holes=False))
    np.testing.assert_array_equal(labels, ndimage.label(foreground)[0])


@pytest.mark.parametrize(("width", "closed"), [(1, True), (2, True), (3, False), (4, False)])
def test_only_gaps_up_to_the_width_are_closed(width: int, closed: bool) -> None:
    foreground = np.pad(np.zeros((6, width), bool), [(0, 0), (5, 5)], constant_values=True)
    assert label_instances(foreground, InstanceOptions(gap=2)).all() == closed


def test_the_gap_belongs_to_its_nearest_cell() -> None:
    foreground = np.array([[1, 1, 0, 0, 1, 1]], bool)
    assert label_instances(foreground).tolist() == [[1, 1, 1, 2, 2, 2]]


def test_hollows_and_the_outside_of_single_cells_stay_background() -> None:
    foreground = np.ones((9, 9), bool)
    foreground[4, 4] = foreground[0, 3:5] = False
    kept = label_instances(foreground, InstanceOptions(fill_holes=False))
    np.testing.assert_array_equal(kept > 0, foreground)


HOLES = {
    "hole": ("###,#.#,###", "###,###,###"),
    "open at a corner": (".###,#.##,####", ".###,#.##,####"),
    "two, corner to corner": ("####,#.##,##.#,####", "####,####,####,####"),
    "at the border": ("#.#,#.#,###", "#.#,#.#,###"),
    "ring around a cell": ("#####,#...#,#.#.#,#...#,#####", "11111,1...1,1.2.1,1...1,11111"),
}


def drawn(text: str) -> NDArray[np.int32]:
    digits = text.replace("#", "1").replace(".", "0")
    return np.array([[int(pixel) for pixel in row] for row in digits.split(",")], np.int32)


@pytest.mark.parametrize(("before", "after"), HOLES.values(), ids=HOLES)
def test_holes(before: str, after: str) -> None:
    labels = label_instances(drawn(before) > 0, InstanceOptions(gap=0))
    np.testing.assert_array_equal(labels, drawn(after))


@given(hnp.arrays(np.bool_, (12, 15)))
@settings(deadline=None, max_examples=60)
def test_holes_are_what_scipy_fills_of_each_cell_but_for_holes_of_several(
    foreground: NDArray[np.bool_],
) -> None:
    labels = label_instances(foreground, InstanceOptions(gap=0))
    components, number = ndimage.label(foreground)
    np.testing.assert_array_equal(labels[foreground], components[foreground])
    background, _ = ndimage.label(np.pad(~foreground, 1, constant_values=True), np.ones((3, 3)))
    for number_of_hole in range(2, background.max() + 1):
        inside = (background == number_of_hole)[1:-1, 1:-1]
        around = ndimage.binary_dilation(inside) & ~inside
        touching = set(components[around].tolist())
        assert set(labels[inside].tolist()) == (touching if len(touching) == 1 else {0})
    outside = (background == 1)[1:-1, 1:-1]
    assert not labels[outside].any()
    assert labels.max() == number


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (30, 1)])
@pytest.mark.parametrize("value", [False, True])
def test_images_of_one_kind(shape: tuple[int, int], value: bool) -> None:
    np.testing.assert_array_equal(
        label_instances(np.full(shape, value)), np.full(shape, int(value))
    )


def dumbbell() -> NDArray[np.bool_]:
    """Two squares of 9 pixels, joined by a bridge of 3."""
    foreground = np.zeros((13, 26), bool)
    foreground[2:11, 2:11] = foreground[2:11, 15:24] = foreground[5:8, 11:15] = True
    return foreground


@pytest.mark.parametrize("turns", range(4))
def test_cells_are_split_where_they_narrow(turns: int) -> None:
    foreground = np.rot90(dumbbell(), turns)
    # distances: 2 in the bridge, 5 beside
    options = InstanceOptions(markers="distance", merge_threshold=0.5, gap=0)
    labels = label_instances(foreground, options)
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, foreground)
    assert abs(np.bincount(labels.ravel())[1:] - foreground.sum() / 2).max() <= 6
    assert label_instances(foreground, replace(options, merge_threshold=0.3)).max() == 1
    assert label_instances(foreground, replace(options, markers="components")).max() == 1


def test_cells_are_split_where_the_probability_falls() -> None:
    probability = np.array([[0.9, 0.8, 0.7, 0.95, 0.9, 0.2, 0.6]], np.float32)
    options = InstanceOptions(markers="probability", merge_threshold=0.8, gap=0)
    assert label_instances(probability, options).tolist() == [[1, 1, 2, 2, 2, 0, 3]]
    assert label_instances(probability, replace(options, merge_threshold=0.7)).max() == 2
    assert label_instances(probability, replace(options, threshold=0.7)).max() == 2
    assert (
        label_instances(probability, replace(options, threshold=0.1, merge_threshold=0.1)).max()
        == 1
    )


def test_small_cells_are_joined_to_their_neighbor_or_removed() -> None:
    probability = np.array([[0.9, 0.9, 0.6, 0.8, 0, 0, 0, 0, 0, 0.9]], np.float32)
    options = InstanceOptions(markers="probability", merge_threshold=0.9, gap=0)
    assert label_instances(probability, options).max() == 3
    small = label_instances(probability, replace(options, minimum_size=2))
    assert small.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]]


@given(
    hnp.arrays(np.float32, (12, 15), elements=st.floats(0, 1, width=32)),
    st.sampled_from(["components", "probability", "distance"]),
    st.floats(0, 1),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=80)
def test_what_holds_with_any_options(
    probability: NDArray[np.float32], markers, merge_threshold: float, minimum_size: int
) -> None:
    options = InstanceOptions(
        markers=markers,
        merge_threshold=merge_threshold,
        minimum_size=minimum_size,
        gap=0,
        fill_holes=False,
    )
    labels = label_instances(probability, options)
    components, number = ndimage.label(probability > options.threshold)
    sizes = np.bincount(components.ravel())
    kept = [one for one in range(1, number + 1) if sizes[one] >= minimum_size]
    np.testing.assert_array_equal(labels > 0, np.isin(components, kept))
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, labels.max() + 1))
    assert (np.bincount(labels.ravel())[1:] >= minimum_size).all()
    for cell in range(1, labels.max() + 1):
        assert len(np.unique(components[labels == cell])) == 1  # never of two components
        assert ndimage.label(labels == cell)[1] == 1  # in one piece


def test_cells_at_the_border_of_the_image_are_cells() -> None:
    foreground = np.zeros((9, 9), bool)
    foreground[0, :3] = foreground[6:, 8] = True
    assert label_instances(foreground, InstanceOptions(markers="distance")).max() == 2


def test_all_classes_but_the_background_are_cell() -> None:
    probabilities = np.array([[[0.4, 0.35, 0.25], [0.6, 0.4, 0.0], [1 + 1e-7, 0, 0]]], np.float32)
    probability = cell_probability(probabilities)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, [[0.6, 0.4, 0]], atol=1e-6)
    assert label_instances(probability, InstanceOptions(gap=0)).tolist() == [[1, 0, 0]]


def test_more_cells_than_65535() -> None:
    foreground = np.zeros((520, 520), bool)
    foreground[::2, ::2] = True
    assert label_instances(foreground, InstanceOptions(gap=0)).max() == 260 * 260


def test_options_survive_json() -> None:
    options = InstanceOptions(
        threshold=0.4, markers="distance", merge_threshold=0.7, minimum_size=9, gap=0
    )
    assert InstanceOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_the_summary_holds_every_option() -> None:
    options = InstanceOptions()
    changed = {
        "threshold": 0.7,
        "markers": "distance",
        "minimum_size": 9,
        "gap": 0,
        "fill_holes": False,
        "affinities": True,
    }
    summaries = {replace(options, **{name: value}).describe() for name, value in changed.items()}
    assert len(summaries | {options.describe()}) == 7
    for markers in ("distance", "probability"):
        assert "0.123 of" in InstanceOptions(markers=markers, merge_threshold=0.123).describe()


@pytest.mark.parametrize("shape", [(3, 3, 1), (3,), (0, 3)], ids=["channels", "row", "nothing"])
def test_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"probability must be one image .* Received shape \("):
        label_instances(np.zeros(shape))


@pytest.mark.parametrize("pixel", [np.uint8(255), np.int64(1), 1.5, -0.1, np.nan, np.inf], ids=str)
def test_refuses_what_is_no_probability(pixel) -> None:
    with pytest.raises(ValueError, match=r"probability must hold numbers from 0 to 1, .* Received"):
        label_instances(np.full((3, 3), pixel))


REFUSED = {
    "threshold": [(-0.1, "at least 0 and less than 1"), (1, "at least 0"), (np.nan, "at least 0")],
    "markers": [("maxima", "one of components, probability, distance")],
    "merge_threshold": [
        (-0.1, "between 0 and 1"),
        (1.1, "between 0 and 1"),
        (np.nan, "between 0 and 1"),
    ],
    "minimum_size": [(-1, "a whole number of pixels, 0 or more"), (2.5, "a whole number")],
    "gap": [(-1, "0 pixels or more"), (np.nan, "0 pixels or more"), (np.inf, "0 pixels")],
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [(name, *case) for name, cases in REFUSED.items() for case in cases],
)
def test_refuses_numbers_out_of_range(name: str, value, message: str) -> None:
    pattern = f"{name} must be .*{message}.*Received: {name}={value}"
    with pytest.raises(ValueError, match=pattern) as caught:
        InstanceOptions(**{name: value})
    assert "\n" not in str(caught.value)
