"""Scores of ISBI 2012 against pairs counted one by one, definitions, and scikit-image."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.io import imread
from skimage.metrics import adapted_rand_error, variation_of_information

from keras_unet.metrics import isbi2012, pixel_error
from keras_unet.metrics.isbi2012 import (
    SegmentSizes,
    f_score,
    information_score,
    pairs,
    sizes_over_all,
    sizes_over_cells,
    squares,
    thin_borders,
)

Labels = NDArray[np.int32]
Segments = Sequence[Hashable]
LABELS = hnp.arrays(np.int32, (4, 5), elements=st.integers(0, 4))
QUICK = settings(deadline=None, max_examples=60)


def all_segments(reference: Labels, result: Labels) -> tuple[Segments, Segments]:
    return reference.ravel().tolist(), result.ravel().tolist()


def cell_segments(reference: Labels, result: Labels) -> tuple[Segments, Segments]:
    """The segment of each cell pixel; one of its own where the result has background."""
    inside = np.flatnonzero(reference)
    ids = [result.flat[i] or f"alone at {i}" for i in inside]
    return reference.ravel()[inside].tolist(), ids


def together(left: Segments, right: Segments) -> Segments:
    return list(zip(left, right, strict=True))


SCOPES = pytest.mark.parametrize(
    ("count", "segments"), [(sizes_over_all, all_segments), (sizes_over_cells, cell_segments)]
)


@SCOPES
@given(LABELS, LABELS)
@QUICK
def test_pairs_are_those_counted_one_by_one(count, segments, reference, result) -> None:
    left, right = segments(reference, result)
    partitions = (left, right, together(left, right))
    sizes = count(reference, result)
    for of_pairs, every_two in ((pairs, combinations), (squares, lambda p, _: product(p, p))):
        expected = [sum(a == b for a, b in every_two(part, 2)) for part in partitions]
        assert of_pairs(sizes).tolist() == expected


def entropy(segments: Segments) -> float:
    shares = [n / len(segments) for n in Counter(segments).values()]
    return -math.fsum(p * math.log(p) for p in shares)


@SCOPES
@given(LABELS, LABELS)
@QUICK
def test_information_follows_from_entropies(count, segments, reference, result) -> None:
    left, right = segments(reference, result)
    assume(left)
    own = entropy(left), entropy(right)
    mutual = sum(own) - entropy(together(left, right))
    expected = 2 * mutual / sum(own) if min(own) > 0 else 0
    found = information_score(count(reference, result))
    assert type(found) is float
    assert found == pytest.approx(expected, abs=1e-12)


@given(LABELS, LABELS)
@QUICK
def test_scikit_image_agrees_where_the_result_leaves_no_pixel_out(reference, result) -> None:
    result = result + 1
    cells, everything = sizes_over_cells(reference, result), sizes_over_all(reference, result)
    if pairs(cells)[:2].all():
        error, _, _ = adapted_rand_error(reference, result)
        assert 1 - f_score(pairs(cells)) == pytest.approx(error)
    entropies = entropy(reference.ravel().tolist()) + entropy(result.ravel().tolist())
    if information_score(everything) > 0:
        variation = sum(variation_of_information(reference, result)) * math.log(2)
        assert 1 - information_score(everything) == pytest.approx(variation / entropies)


@given(LABELS)
@QUICK
def test_a_partition_agrees_with_itself(labels) -> None:
    assume(np.any(labels))
    sizes = sizes_over_cells(labels, labels)
    assert f_score(squares(sizes)) == 1
    assert information_score(sizes) == pytest.approx(float(len(sizes.reference) > 1))


def test_background_is_one_segment_or_many() -> None:
    reference, result = np.array([1, 1, 2, 2, 0]), np.array([1, 0, 0, 2, 2])
    assert sizes_over_cells(reference, result).result.tolist() == [1, 1, 1, 1]
    assert sizes_over_all(reference, result).result.tolist() == [2, 1, 2]


def test_without_pixels_there_is_no_score() -> None:
    empty = np.zeros((2, 2), np.int32)
    sizes = sizes_over_cells(empty, empty + 1)
    assert math.isnan(f_score(squares(sizes)))
    assert math.isnan(information_score(sizes))


def test_large_segments_are_counted_exactly() -> None:
    huge = np.array([3e9])
    expected = 3e9 * (3e9 - 1) / 2
    assert pairs(SegmentSizes(huge, huge, huge)).tolist() == [expected] * 3


CELLS = hnp.arrays(np.bool_, (7, 8))


def test_a_wide_border_becomes_a_line() -> None:
    cells = np.ones((4, 9), bool)
    cells[:, 2:7] = False
    thinned = thin_borders(cells)
    assert np.array_equal(thinned, [[1, 1, 1, 1, 0, 2, 2, 2, 2]] * 4)


def test_lines_run_half_way_between_real_cells(shared_data: Path) -> None:
    cells = imread(shared_data / "isbi2012" / "labels" / "07.png") > 0
    thinned = thin_borders(cells)
    depth = ndi.distance_transform_cdt(thinned == 0, "taxicab")
    assert 0.02 < np.mean(thinned == 0) < 0.5 * np.mean(~cells)
    assert np.mean(depth[thinned == 0] == 1) > 0.98


def test_a_border_that_parts_nothing_goes() -> None:
    cells = np.ones((5, 5), bool)
    cells[2, 1:] = False
    assert (thin_borders(cells) == 1).all()


@pytest.mark.parametrize("flat", [np.zeros((3, 4), bool), np.ones((3, 4), bool)])
def test_a_flat_image_is_one_segment(flat) -> None:
    assert (thin_borders(flat) == 1).all()
    assert thin_borders(flat).dtype == np.int32


@given(CELLS)
@settings(deadline=None, max_examples=60)
def test_cells_keep_their_pixels_and_stay_apart(cells: NDArray[np.bool_]) -> None:
    thinned = thin_borders(cells)
    numbered, count = ndi.label(cells)
    if count:
        assert np.array_equal(thinned[cells], numbered[cells])
    assert set(np.unique(thinned)) - {0} == set(range(1, max(count, 1) + 1))
    for here, next_to_it in ((thinned[1:], thinned[:-1]), (thinned[:, 1:], thinned[:, :-1])):
        assert ((here == next_to_it) | (here == 0) | (next_to_it == 0)).all()


ERRORS = (
    "pixel_error",
    "rand_error",
    "rand_error_classic",
    "warping_error",
    "warping_error_classic",
)
NAMES = (*ERRORS[:3], "v_rand", "v_info", *ERRORS[3:])
PERFECT = {name: float(name not in ERRORS) for name in NAMES}


def challenge_case(name: str) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Labels and proposal of the cases on which the challenge's own program was run."""
    labels = np.ones((7, 9), bool)
    labels[:, 4] = False
    if name == "t2":
        labels = np.ones((6, 11), bool)
        labels[:, 7] = False
    scores = labels.astype(np.float32)
    if name == "t1":
        scores[3, 4] = 1
    elif name == "t2":
        scores[:, 3] = 0
    elif name == "t3":
        scores[:, 4], scores[:, 5] = 1, 0
    elif name == "t4":
        scores[:, 3:6] = 0
    elif name == "t5":
        scores[3, 1] = 0
    else:
        scores = np.where(labels, np.float32(0.95), np.float32(0.05))
        scores[3, 4], scores[:, 7] = 0.45, 0.25
    return labels, scores


CHALLENGE = {
    "t1": (0.0088495575, 0.3333333333, 0.3542713568, 0.6666666667, 0, 1 / 63, 1 / 63),
    "t2": (0.0526315789, 0.3620352250, 0.3706563707, 0.6379647750, 0.5807041868, 1 / 66, 1 / 66),
    "t3": (0.125, 0.12, 0.2139737991, 0.88, 0.7255423938, 0, 0),
    "t4": (0.1428571429, 0.2727272727, 0.3134328358, 1, 1, 0, 0),
    "t5": (0.0090090090, 0.0175210902, 0.0221642764, 1, 1, 0, 1 / 63),
    "t6": (0.0088495575, 0.2043010753, 0.2164948454, 0.7956989247, 0.6449700119, 1 / 63, 1 / 63),
}
"""Its values, in the order of `NAMES`."""


@pytest.mark.parametrize("name", CHALLENGE)
def test_scores_are_those_of_the_challenge(name: str) -> None:
    found = isbi2012(*challenge_case(name))
    expected = dict(zip(NAMES, CHALLENGE[name], strict=True))
    assert {score: found[score] for score in NAMES} == pytest.approx(expected, abs=1e-9)


def test_thresholds_are_the_smallest_that_serve_best() -> None:
    found = isbi2012(*challenge_case("t6"))
    assert [found[f"{name}_threshold"] for name in NAMES] == [0.1, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1]


def test_the_result_is_flat() -> None:
    found = isbi2012(*challenge_case("t6"))
    assert list(found) == [*NAMES, *(f"{name}_threshold" for name in NAMES)]
    assert {type(value) for value in found.values()} == {float}


def test_a_slice_is_a_stack_of_one() -> None:
    labels, scores = challenge_case("t6")
    assert isbi2012(labels[np.newaxis], scores[np.newaxis]) == isbi2012(labels, scores)


def test_labels_may_be_ids_and_probabilities_of_any_precision() -> None:
    labels, scores = challenge_case("t6")
    assert isbi2012(labels * np.uint16(7), scores.astype(np.float64)) == isbi2012(labels, scores)


def test_slices_are_summed_or_averaged() -> None:
    (labels, first), (_, second) = challenge_case("t1"), challenge_case("t3")
    found = isbi2012(np.stack([labels, labels]), np.stack([first, second]))
    alone = [dict(zip(NAMES, CHALLENGE[name], strict=True)) for name in ("t1", "t3")]
    assert (
        found["pixel_error"] == pixel_error(np.stack([labels] * 2), np.stack([first, second])).value
    )
    assert found["warping_error"] == pytest.approx(1 / 126)
    for name in ("v_rand", "v_info"):
        assert found[name] == pytest.approx((alone[0][name] + alone[1][name]) / 2)
    in_both = 2 * 28**2 + (28**2 + 21**2 + 7)
    in_labels, in_proposals = 4 * 28**2, 56**2 + (28**2 + 21**2 + 7)
    assert found["rand_error"] == pytest.approx(1 - 2 * in_both / (in_labels + in_proposals))


def test_the_threshold_is_one_for_all_slices() -> None:
    labels, _ = challenge_case("t1")
    low, high = np.where(labels, 0.3, 0.15), np.where(labels, 0.95, 0.85)
    assert isbi2012(labels, low)["rand_error"] == isbi2012(labels, high)["rand_error"] == 0
    assert isbi2012(np.stack([labels] * 2), np.stack([low, high]))["rand_error"] > 0.1


def test_without_cells_pairs_and_information_are_undefined() -> None:
    labels, scores = challenge_case("t6")
    found = isbi2012(np.zeros_like(labels), scores)
    for name in ("rand_error", "v_rand", "v_info"):
        assert math.isnan(found[name])
        assert math.isnan(found[f"{name}_threshold"])
    stack = isbi2012(np.stack([labels, labels & False]), np.stack([scores, scores]))
    alone = isbi2012(labels, scores)
    assert [stack[name] for name in ("v_rand", "v_info")] == [alone["v_rand"], alone["v_info"]]


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_a_proposal_of_one_value_is_scored(certain: float) -> None:
    labels, _ = challenge_case("t1")
    found = isbi2012(labels, np.full(labels.shape, certain))
    assert found["v_rand"] == pytest.approx(2 / 3)  # one segment, as is a flat image when flooded
    assert found["v_info"] == 0


def slices_of(shared_data: Path) -> NDArray[np.bool_]:
    names = ("03.png", "11.png")
    return np.stack([imread(shared_data / "isbi2012" / "labels" / name) for name in names]) > 0


def noisy(labels: NDArray[np.bool_], strength: float) -> NDArray[np.float32]:
    """Probabilities such as a network gives: blurred labels with smooth noise."""
    random = np.random.default_rng(5)
    noise = ndi.gaussian_filter(random.normal(size=labels.shape), (0, 2, 2))
    smooth = ndi.gaussian_filter(labels.astype(float), (0, 1.5, 1.5))
    logits = 9 * (smooth - 0.55) + strength * noise / noise.std()
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def test_real_labels_agree_with_themselves(shared_data: Path) -> None:
    labels = slices_of(shared_data)[:1]
    found = isbi2012(labels, labels.astype(np.float32))
    assert {name: found[name] for name in NAMES} == pytest.approx(PERFECT, abs=1e-12)


def test_more_noise_makes_every_score_of_real_slices_worse(shared_data: Path) -> None:
    labels = slices_of(shared_data)
    little, much = (isbi2012(labels, noisy(labels, strength)) for strength in (0.8, 2.0))
    for name in NAMES:
        worse, better = (little, much) if PERFECT[name] else (much, little)
        assert 0 < better[name] < worse[name] if name in ERRORS else 1 > little[name] > much[name]
        assert 0 < little[f"{name}_threshold"] < 1
    assert little["v_rand"] > 0.98
    assert little["rand_error"] < 0.06
    assert little["warping_error"] < 0.002


def test_borders_removed_from_real_cells_are_told_from_borders_moved(shared_data: Path) -> None:
    labels = slices_of(shared_data)[:1]
    moved = np.roll(labels, 1, axis=2).astype(np.float32)
    opened = labels.astype(np.float32)
    opened[0, 100:104, :] = 1
    moved_scores, opened_scores = isbi2012(labels, moved), isbi2012(labels, opened)
    assert moved_scores["pixel_error"] > opened_scores["pixel_error"]
    for name in ("rand_error", "warping_error"):
        assert moved_scores[name] < opened_scores[name]
    for name in ("v_rand", "v_info"):
        assert moved_scores[name] > opened_scores[name]


def test_each_proposal_is_flooded_and_warped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either takes most of the time; no slice is gone over more often than there are thresholds."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        function = getattr(module, name)

        def call(*given: Any) -> Any:
            calls[name] += 1
            return function(*given)

        return call

    module = importlib.import_module("keras_unet.metrics.isbi2012")
    for name in ("thin_borders", "warp_labels", "splits_and_merges"):
        monkeypatch.setattr(module, name, counted(name))
    labels, scores = challenge_case("t6")
    isbi2012(np.stack([labels] * 3), np.stack([scores] * 3))
    assert calls == {"thin_borders": 3 * 11, "warp_labels": 3 * 10, "splits_and_merges": 3 * 10}


def test_refuses_shapes_that_differ() -> None:
    with pytest.raises(
        ValueError, match=r"labels and probabilities .* \(2, 3\) and \(3, 2\); crop"
    ):
        isbi2012(np.ones((2, 3)), np.ones((3, 2)))


@pytest.mark.parametrize("shape", [(5,), (1, 4, 4, 1)])
def test_refuses_what_are_no_slices(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"labels must be slices, .* Received shape .*; drop"):
        isbi2012(np.ones(shape), np.ones(shape))


def test_refuses_no_pixels() -> None:
    with pytest.raises(ValueError, match=r"probabilities must hold at least one pixel\. Received"):
        isbi2012(np.ones((0, 4, 4)), np.ones((0, 4, 4)))


@pytest.mark.parametrize("wrong", [-0.1, 255.0, math.nan, math.inf])
def test_refuses_what_are_no_probabilities(wrong: float) -> None:
    labels, scores = challenge_case("t6")
    scores[0, 0] = wrong
    with pytest.raises(ValueError, match=r"probabilities must be finite .* Received .*; apply"):
        isbi2012(labels, scores)
