import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keras_unet.data import fingerprint
from keras_unet.data.distances import nearest_two
from keras_unet.data.fingerprint import Fingerprint, Percentiles
from keras_unet.data.samples import Sample


def sample(instances, classes=None, image=None, ignored=None):
    labels = np.array(instances, np.int32)
    return Sample(
        name="a",
        image=np.zeros((*labels.shape, 1), np.float32) if image is None else image,
        classes=np.array(labels > 0 if classes is None else classes, np.uint8),
        instances=labels,
        ignored=np.zeros(labels.shape, bool) if ignored is None else np.array(ignored),
    )


def discs(shape, *circles):
    """Label image of discs, each (row, column, radius); later ones lie above earlier ones."""
    rows, columns = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number, (row, column, radius) in enumerate(circles, 1):
        labels[np.hypot(rows - row, columns - column) <= radius] = number
    return labels


def squares(side, gap, number=4):
    """Label image of a square of squares with straight gaps between them."""
    at = np.arange(number * (side + gap))
    inside, which = at % (side + gap) < side, at // (side + gap)
    return np.where(np.outer(inside, inside), 1 + which[:, None] * number + which, 0)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(4, 20), min_size=1, max_size=6))
def test_diameters_of_drawn_discs(radii):
    step = 50
    labels = discs(
        (step, step * len(radii)), *((25, 25 + step * i, r) for i, r in enumerate(radii))
    )
    seen = Fingerprint.of([sample(labels)])
    assert seen.cells == len(radii)
    assert seen.touching == 0
    expected = np.percentile(2 * np.array(radii), [10, 50, 90])
    np.testing.assert_allclose(seen.diameters, expected, atol=0.7)


def test_cells_cut_by_the_border_do_not_count_unless_all_are():
    cut = (0, 20, 15), (40, 63, 15)
    whole = discs((64, 64), *cut, (30, 30, 6))
    seen = Fingerprint.of([sample(whole), sample(discs((64, 64), *cut))])
    assert seen.cells == 5
    assert seen.diameters.low == seen.diameters.high == pytest.approx(12, abs=0.5)
    alone = Fingerprint.of([sample(discs((64, 80), (0, 20, 15), (0, 60, 15)))])
    assert alone.diameters.low == pytest.approx(30 / np.sqrt(2), abs=1)  # halves of discs


@settings(deadline=None, max_examples=20)
@given(gap=st.integers(1, 12), side=st.integers(14, 30))
def test_gaps_between_straight_edges_are_their_width(gap, side):
    assert Fingerprint.of([sample(squares(side, gap))]).gap == gap


@pytest.mark.parametrize("lines", [2, 3, 4, 9])
def test_diagonal_gaps_are_measured_across(lines):
    """Each diagonal line of pixels is 1 / sqrt(2) wide; distances go from pixel to pixel."""
    across = np.subtract.outer(np.arange(90), np.arange(90))
    labels = np.where(across < 0, 1, np.where(across >= lines, 2, 0))
    assert Fingerprint.of([sample(labels)]).gap == pytest.approx(lines / np.sqrt(2), abs=0.6)


def test_background_wider_than_a_cell_is_no_gap():
    assert Fingerprint.of([sample(squares(6, 20))]).gap is None
    assert Fingerprint.of([sample(discs((40, 40), (20, 20, 9)))]).gap is None


def test_gaps_are_measured_in_the_middle_of_some_images_where_there_are_many(monkeypatch):
    monkeypatch.setattr(fingerprint, "_GAP_WINDOW", 60)
    monkeypatch.setattr(fingerprint, "_GAP_PIXELS", 2 * 60 * 60)
    measured = []
    measure = fingerprint._gap_widths
    monkeypatch.setattr(
        fingerprint, "_gap_widths", lambda one: measured.append(one) or measure(one)
    )
    many = [sample(squares(14, 3, number=8)) for _ in range(5)]
    assert Fingerprint.of(many).gap == 3
    assert measured == [many[0], many[3]]


def widths_by_hand(labels, ignored):
    """The widths at each pair of neighboring pixels whose nearest cells differ, one by one."""
    d1, _, _ = nearest_two(labels, np.inf)
    ids = np.unique(labels[labels > 0])
    places = {one: np.argwhere(labels == one) for one in ids}
    distance = {
        one: np.min(
            np.hypot(*(np.indices(labels.shape)[..., None] - place.T[:, None, None])), axis=-1
        )
        for one, place in places.items()
    }
    nearest = [
        [{one for one in ids if distance[one][p] == d1[p]} for p in row] for row in _pixels(labels)
    ]
    found = []
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            for other in ((row + 1, column), (row, column + 1)):
                if other[0] < labels.shape[0] and other[1] < labels.shape[1]:
                    a, b = nearest[row][column], nearest[other[0]][other[1]]
                    if (
                        len(a) == len(b) == 1
                        and a != b
                        and not ignored[row, column] | ignored[other]
                    ):
                        found.append(d1[row, column] + d1[other])
    return [width for width in found if width > 0]


def _pixels(labels):
    return [[(row, column) for column in range(labels.shape[1])] for row in range(labels.shape[0])]


@settings(deadline=None, max_examples=20)
@given(
    arrays(np.int32, (9, 11), elements=st.sampled_from([0] * 9 + [1, 2, 3])),
    arrays(bool, (9, 11), elements=st.sampled_from([False] * 4 + [True])),
)
def test_gap_widths_by_brute_force(labels, ignored):
    """All pairs whose nearest cells are beyond doubt are among those found, and no ignored one."""
    labels = np.where(ignored, 0, labels)
    found = fingerprint._gap_widths(sample(labels, ignored=ignored)).tolist()
    for width in widths_by_hand(labels, ignored):
        close = [one for one in found if one == pytest.approx(width)]
        assert close
        found.remove(close[0])
    assert all(width > 0 for width in found)
    assert fingerprint._gap_widths(sample(labels, ignored=ignored | True)).size == 0


@settings(deadline=None, max_examples=30)
@given(arrays(np.int32, (8, 9), elements=st.integers(0, 5)))
def test_cells_and_contacts_by_brute_force(labels):
    in_contact = set()
    for (row, column), one in np.ndenumerate(labels):
        around = labels[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        if one and ((around > 0) & (around != one)).any():
            in_contact.add(one)
    ids = set(np.unique(labels)) - {0}
    seen = Fingerprint.of([sample(labels)])
    assert seen.cells == len(ids)
    assert seen.touching == pytest.approx(len(in_contact) / max(len(ids), 1))
    assert (seen.diameters is None) == (not ids)


def test_shares_of_three_classes_leave_out_what_is_ignored():
    classes = [[0, 0, 0, 1, 2, 2, 0, 0]]
    ignored = [[False] * 6 + [True] * 2]
    seen = Fingerprint.of([sample([[0, 0, 0, 1, 1, 1, 0, 0]], classes, ignored=ignored)])
    assert seen.shares == pytest.approx((3 / 6, 1 / 6, 2 / 6))
    assert seen.foreground == pytest.approx(0.5)
    assert seen.pixels == 8


def test_shares_where_all_is_ignored_or_background():
    nothing = sample([[0, 0]], ignored=[[True, True]])
    assert Fingerprint.of([nothing]).shares == (0.0,)
    assert Fingerprint.of([sample([[0, 0]])]).shares == (1.0,)


def test_sizes():
    shapes = (30, 50), (70, 20), (40, 40)
    seen = Fingerprint.of([sample(np.zeros(shape)) for shape in shapes])
    assert (seen.images, seen.median_side, seen.longest_side) == (3, 50, 70)
    assert seen.pixels == 30 * 50 + 70 * 20 + 40 * 40
    assert (seen.cells, seen.diameters, seen.touching, seen.gap) == (0, None, 0, None)


def test_grey_values_between_and_within_images():
    random = np.random.default_rng(0)
    levels = 100.0, 200.0, 300.0
    images = [(level + random.normal(0, 7, (200, 300, 2))).astype(np.float32) for level in levels]
    seen = Fingerprint.of([sample(np.zeros((200, 300)), image=image) for image in images])
    assert seen.grey_between == pytest.approx(np.std(levels), rel=0.01)
    assert seen.grey_within == pytest.approx(7, rel=0.02)
    assert seen.greys == pytest.approx(np.percentile(np.stack(images), [1, 50, 99]), rel=0.01)


def test_what_a_person_reads():
    labels = discs((64, 640), (30, 30, 10), (30, 55, 10), (30, 90, 5))
    seen = Fingerprint.of([sample(labels, image=np.full((64, 640, 1), 1234, np.float32))] * 2)
    first, cells, greys = seen.describe().splitlines()
    assert "2 training images with sides of 640 pixels in the median, 640 at most: 2 %" in first
    assert "cells: 6, 20 pixels wide in the median, 80 % of them 10 to 20" in cells
    assert "0 % touch another; gaps between neighbors: " in cells
    assert greys.startswith(
        "grey values: 1,234 to 1,234, median 1,234; standard deviation 0 between"
    )
    assert "cells: none" in Fingerprint.of([sample(np.zeros((9, 9)))]).describe()


def test_it_can_be_recorded():
    seen = Fingerprint.of([sample(discs((64, 64), (30, 15, 9), (30, 40, 9)))])
    recorded = json.loads(json.dumps(asdict(seen)))
    recorded = {
        name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()
    }
    assert Fingerprint(**recorded) == seen
    assert isinstance(seen.diameters, Percentiles)


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match=r"samples must hold at least one image. Received none"):
        Fingerprint.of([])


@pytest.mark.parametrize("instances", [squares(5, 3), np.zeros((9, 9), np.int32)])
def test_a_fingerprint_comes_back_from_json(instances):
    seen = Fingerprint.of([sample(instances)])
    assert Fingerprint.from_dict(json.loads(json.dumps(asdict(seen)))) == seen


def test_strokes_are_no_cells():
    labels = discs((64, 64), (30, 15, 9), (30, 40, 9))
    seen = Fingerprint.of([sample(labels, ignored=labels == 0)], holds_strokes=True)
    assert (seen.cells, seen.diameters, seen.gap) == (0, None, None)
    assert seen.shares == (0.0, 1.0)
    assert "cells: none" in seen.describe()
