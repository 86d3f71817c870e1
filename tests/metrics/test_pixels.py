"""Scores that count pixels against their definitions, and the challenge's thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from keras_unet.metrics import dice, iou, mean_iou, pixel_error
from keras_unet.metrics.pixels import (
    THRESHOLDS,
    Best,
    above,
    class_scores,
    confusion_matrix,
    highest,
    lowest,
)


def test_there_are_eleven_a_tenth_apart() -> None:
    assert pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]) == THRESHOLDS


def test_a_certain_cell_exceeds_the_last_one() -> None:
    assert above(np.array([1, 1 - 2**-24], np.float32), THRESHOLDS[-1]).tolist() == [True, False]


def test_a_score_exceeds_what_is_truly_below_it() -> None:
    scores = np.array(
        [0.5, 0.3, 0.7], np.float32
    )  # as float32, 0.3 is above and 0.7 below 0.3, 0.7
    assert not above(scores, THRESHOLDS[5])[0]
    assert above(scores, THRESHOLDS[3])[1]
    assert not above(scores, THRESHOLDS[7])[2]


def test_the_best_comes_with_the_smallest_threshold_that_gives_it() -> None:
    assert lowest(np.array([3.0, 1.0, 2.0, 1.0])) == Best(1.0, 0.1)
    assert highest(np.array([1.0, 1.0, 2.0, 2.0])) == Best(2.0, 0.2)


def test_thresholds_are_reported_in_tenths() -> None:
    reported = [lowest(-np.eye(11)[step]).threshold for step in range(11)]
    assert reported == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]


@pytest.mark.parametrize("best", [lowest, highest])
def test_what_is_undefined_has_no_threshold(best) -> None:
    found = best(np.full(11, math.nan))
    assert math.isnan(found.value)
    assert math.isnan(found.threshold)


SHAPE = (2, 5, 4)
MASKS = hnp.arrays(np.bool_, SHAPE)
TENTHS = st.integers(0, 10).map(lambda n: n / 10)
SCORES = hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32) | TENTHS.map(np.float32))


def brute_force_errors(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> list[float]:
    """1 - F at each threshold, from precision and recall as they are defined."""
    errors: list[float] = []
    threshold = 0.0
    while len(errors) < 11:
        positive = scores.astype(float) > threshold
        tp = np.count_nonzero(positive & labels)
        fp = np.count_nonzero(positive & ~labels)
        fn = np.count_nonzero(~positive & labels)
        precision = tp / (tp + fp) if fp else 1
        recall = tp / (tp + fn) if fn else 1
        total = precision + recall
        errors.append(1 - (2 * precision * recall / total if total else 0))
        threshold += 0.1
    return errors


@given(MASKS, SCORES)
@settings(deadline=None, max_examples=100)
def test_pixel_error_equals_brute_force(
    labels: NDArray[np.bool_], scores: NDArray[np.float32]
) -> None:
    errors = brute_force_errors(labels, scores)
    found = pixel_error(labels, scores)
    assert found.value == pytest.approx(min(errors), abs=1e-12)
    assert errors[round(found.threshold * 10)] == pytest.approx(min(errors), abs=1e-12)
    assert all(e > found.value + 1e-12 for e in errors[: round(found.threshold * 10)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_score_equal_to_the_threshold_does_not_exceed_it(dtype: type[np.floating]) -> None:
    labels = np.array([[1, 0]])
    found = pixel_error(labels, np.array([[1, 0.5]], dtype))
    assert (found.value, found.threshold) == (0, 0.5)


def test_counts_are_summed_over_slices() -> None:
    labels = np.array([[[1, 1, 1, 1]], [[1, 0, 0, 0]]])
    scores = np.array([[[1, 1, 1, 1]], [[0, 1, 0, 0]]], np.float32)
    assert pixel_error(labels, scores).value == pytest.approx(1 - 8 / 10)


@given(MASKS, MASKS)
@settings(deadline=None, max_examples=50)
def test_iou_and_dice_equal_set_arithmetic(
    reference: NDArray[np.bool_], result: NDArray[np.bool_]
) -> None:
    left, right = set(np.flatnonzero(reference)), set(np.flatnonzero(result))
    if not left | right:
        return
    assert iou(reference, result) == pytest.approx(len(left & right) / len(left | right))
    assert dice(reference, result) == pytest.approx(
        2 * len(left & right) / (len(left) + len(right))
    )


CLASSES = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))


@given(CLASSES, CLASSES)
@settings(deadline=None, max_examples=50)
def test_scores_of_classes_are_those_of_their_masks(
    reference: NDArray[np.uint8], result: NDArray[np.uint8]
) -> None:
    found = class_scores(confusion_matrix(reference, result, 4), (2, 5, 7, 9))
    masks = [(reference == number, result == number) for number in range(4)]
    assert [score.label for score in found] == [2, 5, 7, 9]
    np.testing.assert_allclose([score.iou for score in found], [iou(*pair) for pair in masks])
    np.testing.assert_allclose([score.dice for score in found], [dice(*pair) for pair in masks])
    assert mean_iou(reference, result, 4) == pytest.approx(np.nanmean([iou(*p) for p in masks]))


def test_a_confusion_matrix_has_the_truth_in_its_rows() -> None:
    found = confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 0]), 3)
    assert found.tolist() == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]


def test_classes_out_of_range_are_refused() -> None:
    right = np.array([0, 1])
    assert math.isnan(mean_iou(right[:0], right[:0], 2))
    with pytest.raises(ValueError, match=r"result must hold classes from 0 to 1\. Received 0 to 2"):
        mean_iou(right, np.array([0, 2]), 2)
    with pytest.raises(ValueError, match=r"reference must hold classes .* Received -1 to 1"):
        mean_iou(np.array([-1, 1]), right, 2)
    with pytest.raises(ValueError, match=r"one shape. Received \(2,\) and \(1,\);"):
        mean_iou(right, right[:1], 2)


@pytest.mark.parametrize("score", [iou, dice])
def test_two_empty_masks_have_no_score(score) -> None:
    empty = np.zeros((2, 2), bool)
    assert math.isnan(score(empty, empty))
    assert score(empty, ~empty) == 0
    assert type(score(empty, ~empty)) is float


@pytest.mark.parametrize("score", [iou, dice])
def test_masks_must_be_boolean_and_of_one_shape(score) -> None:
    mask = np.zeros((2, 2), bool)
    with pytest.raises(ValueError, match=r"reference must be boolean\. Received uint8; compare"):
        score(mask.astype(np.uint8), mask)
    with pytest.raises(ValueError, match=r"result must be boolean\. Received float64; compare"):
        score(mask, mask.astype(float))
    with pytest.raises(ValueError, match=r"one shape. Received \(2, 2\) and \(1, 2\);"):
        score(mask, mask[:1])


def test_pixel_error_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"labels and scores .* \(1, 2\) and \(1, 2, 1\);"):
        pixel_error(np.ones((1, 2)), np.ones((1, 2, 1)))


def test_pixel_error_refuses_no_pixels() -> None:
    with pytest.raises(ValueError, match=r"at least one pixel. Received shape \(0, 4\);"):
        pixel_error(np.ones((0, 4)), np.ones((0, 4)))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan, math.inf])
def test_pixel_error_refuses_scores_that_are_no_probabilities(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"scores must be finite .* Received .*; apply"):
        pixel_error(np.ones((1, 2)), np.array([[0.5, wrong]]))
