"""Matching by hand, by brute force, and beside StarDist's."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from stardist.matching import matching_dataset

from keras_unet.metrics import matching, mean_ap
from keras_unet.metrics.objects import THRESHOLDS, Matching, Overlaps, matching_of_overlaps

LABELS = hnp.arrays(np.int64, (4, 5), elements=st.sampled_from([0, 1, 2, 5, 9]))
IN_CONFLICT = (0.05, 0.1, 0.2, 0.25, 1 / 3, 0.4, 0.5)


def two_squares() -> NDArray[np.int32]:
    image = np.zeros((6, 11), np.int32)
    image[1:5, 1:5], image[1:5, 6:10] = 1, 2
    return image


def test_twelve_and_exactly_eight_of_sixteen_pixels() -> None:
    result = np.zeros((6, 11), np.int32)
    result[1:4, 1:5], result[1:3, 6:10] = 5, 3
    half, more = matching([two_squares()], [result], (0.5, 0.7))
    assert (half.tp, half.fp, half.fn, half.ap, half.f1) == (2, 0, 0, 1, 1)
    assert half.pq == 0.625
    assert (more.tp, more.fp, more.fn, more.ap, more.f1) == (1, 1, 1, 1 / 3, 0.5)
    assert more.pq == 0.375


def test_one_result_over_both() -> None:
    result = np.zeros((6, 11), np.int32)
    result[1:5, 1:10] = 4
    (found,) = matching([two_squares()], [result], [0.5])
    assert (found.tp, found.fp, found.fn) == (0, 1, 2)
    assert (found.ap, found.f1, found.pq) == (0, 0, 0)


def test_one_reference_split() -> None:
    result = two_squares()
    result[1:3, 1:5], result[3:5, 1:5] = 3, 4
    result[3, 1] = 3
    (found,) = matching([two_squares()], [result], [0.5])
    assert (found.tp, found.fp, found.fn) == (2, 1, 0)
    assert (found.ap, found.f1, found.pq) == (2 / 3, 0.8, 0.625)


@pytest.mark.parametrize("threshold", [*THRESHOLDS, 0.1, 0.3, 1 / 3, 0.55, 1])
def test_the_threshold_itself_is_enough(threshold: float) -> None:
    """IoU 3/10 is at least 0.3, though 0.3 is no binary fraction."""
    share = round(threshold * 60)
    reference, result = np.ones((1, 60), int), np.ones((1, 60), int)
    result[:, share:] = 0
    (found,) = matching([reference], [result], [threshold])
    assert found.tp == 1
    result[:, share - 1 :] = 0
    (found,) = matching([reference], [result], [threshold])
    assert found.tp == 0


def test_more_pairs_go_before_better_pairs() -> None:
    """The better partner of the first is the only one of the second."""
    reference = np.array([1] * 4 + [1] * 5 + [2] * 3)
    result = np.array([6] * 4 + [7] * 5 + [7] * 3)
    (found,) = matching([reference], [result], [0.3])
    assert (found.tp, found.fp, found.fn) == (2, 0, 0)
    assert found.matched_iou == pytest.approx(4 / 9 + 3 / 8)


def test_pairs_below_the_threshold_have_no_say_in_the_choice() -> None:
    """StarDist's lets them: there the first takes its worse partner, of 0.4, as 0.25 is left."""
    reference = np.repeat([1, 1, 2], [60, 40, 20])
    result = np.repeat([6, 7, 6], [60, 40, 20])
    (found,) = matching([reference], [result], [0.3])
    assert (found.tp, found.matched_iou) == (1, 0.5)


def brute_force(reference, result, threshold: float) -> tuple[int, int, int, float]:
    """Tries all sets of pairs."""
    left = sorted(set(reference.ravel().tolist()) - {0})
    right = sorted(set(result.ravel().tolist()) - {0})
    iou = {
        (a, b): np.sum((reference == a) & (result == b)) / np.sum((reference == a) | (result == b))
        for a in left
        for b in right
    }
    pairs = [pair for pair, value in iou.items() if value >= threshold]
    best = max(
        (len(chosen), sum(iou[pair] for pair in chosen))
        for number in range(min(len(left), len(right)) + 1)
        for chosen in combinations(pairs, number)
        if len({a for a, _ in chosen}) == len({b for _, b in chosen}) == number
    )
    return best[0], len(right) - best[0], len(left) - best[0], best[1]


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=3), st.sampled_from(IN_CONFLICT))
@settings(deadline=None, max_examples=80)
def test_equals_brute_force(pairs, threshold: float) -> None:
    tp, fp, fn, iou = map(sum, zip(*(brute_force(*pair, threshold) for pair in pairs), strict=True))
    (found,) = matching(*zip(*pairs, strict=True), [threshold])
    assert (found.threshold, found.tp, found.fp, found.fn) == (threshold, tp, fp, fn)
    assert found.matched_iou == pytest.approx(iou)
    if tp + fp + fn:
        scores = tp / (tp + fp + fn), tp / (tp + (fp + fn) / 2), iou / (tp + (fp + fn) / 2)
        assert (found.ap, found.f1, found.pq) == pytest.approx(scores)


def blobs(seed: int, shift: int) -> NDArray[np.int32]:
    """Draws some 60 objects; `shift` moves the level that parts them, and thus splits and joins."""
    rng = np.random.default_rng(seed)
    height = ndimage.gaussian_filter(rng.normal(size=(96, 128)), 2.5)
    moved = height + ndimage.gaussian_filter(rng.normal(size=height.shape), 2) * shift / 4
    return np.asarray(ndimage.label(moved > 0.02)[0], np.int32)


@pytest.fixture(scope="module")
def images() -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
    return [blobs(seed, 0) for seed in range(4)], [blobs(seed, 1 + seed % 3) for seed in range(4)]


def test_equals_stardist(images) -> None:
    thresholds = tuple(tenths / 10 for tenths in range(1, 10))
    stardist = matching_dataset(*images, thresh=thresholds, show_progress=False)
    for ours, theirs in zip(matching(*images, thresholds), stardist, strict=True):
        assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
        assert (ours.ap, ours.f1) == pytest.approx((theirs.accuracy, theirs.f1))
        if ours.threshold >= 0.5:
            assert ours.pq == pytest.approx(theirs.panoptic_quality, rel=1e-5)
        else:  # see above: here the choice can differ
            assert ours.pq >= theirs.panoptic_quality - 1e-6
        assert 0 < ours.tp < min(ours.tp + ours.fp, ours.tp + ours.fn)


def test_the_mean_ap_equals_that_of_stardist_at_the_thresholds_of_the_bowl(images) -> None:
    thresholds = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    stardist = matching_dataset(*images, thresh=tuple(thresholds), show_progress=False)
    expected = sum(row.accuracy for row in stardist) / 10
    assert mean_ap(*images) == pytest.approx(expected)
    assert 0.05 < expected < 0.95


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=3))
@settings(deadline=None, max_examples=20)
def test_the_mean_ap_equals_brute_force(pairs) -> None:
    scores = []
    for hundredths in range(50, 100, 5):
        counts = (brute_force(*pair, hundredths / 100)[:3] for pair in pairs)
        tp, fp, fn = map(sum, zip(*counts, strict=True))
        scores.append(tp / (tp + fp + fn) if tp + fp + fn else math.nan)
    assert mean_ap(*zip(*pairs, strict=True)) == pytest.approx(np.mean(scores), nan_ok=True)


def test_counts_are_summed_over_images(images) -> None:
    alone = [matching([one], [other]) for one, other in zip(*images, strict=True)]
    for number, found in enumerate(matching(*images)):
        assert found.tp == sum(rows[number].tp for rows in alone)
        assert found.fp == sum(rows[number].fp for rows in alone)
        assert found.fn == sum(rows[number].fn for rows in alone)
        assert found.matched_iou == pytest.approx(sum(rows[number].matched_iou for rows in alone))
        assert found.threshold == THRESHOLDS[number]


def test_thousands_of_objects_in_one_tangle_are_matched() -> None:
    """Each overlaps two neighbors. The best leaves out one of the middle and keeps both ends."""
    pixels = np.arange(40_000)
    reference, result = 1 + pixels // 4, 1 + (pixels + 2) // 4
    (found,) = matching([reference], [result], [0.3])
    assert (found.tp, found.fp, found.fn) == (10_000, 1, 0)
    assert found.matched_iou == pytest.approx(1 / 2 + 9_998 / 3 + 1 / 2)


def test_without_objects_there_is_no_score() -> None:
    empty = np.zeros((2, 2), int)
    for found in (*matching([], []), *matching([empty], [empty])):
        assert (found.tp, found.fp, found.fn) == (0, 0, 0)
        assert all(math.isnan(score) for score in (found.ap, found.f1, found.pq))


def test_objects_on_one_side_alone_score_nothing() -> None:
    empty, one = np.zeros((2, 2), int), np.ones((2, 2), int)
    assert [row.to_dict() for row in matching([empty, one], [one, empty], [0.5])] == [
        {"threshold": 0.5, "tp": 0, "fp": 1, "fn": 1, "ap": 0, "f1": 0, "pq": 0}
    ]


def test_is_a_value() -> None:
    assert matching([two_squares()], [two_squares()], [0.9]) == [Matching(0.9, 2, 0, 0, 2.0)]


@pytest.mark.parametrize("wrong", [0, -0.5, 1.5, math.nan, 50])
def test_refuses_thresholds_that_are_no_overlap(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"thresholds must be .* Received {wrong};"):
        matching([two_squares()], [two_squares()], (0.5, wrong))


def test_refuses_numbers_of_images_that_differ() -> None:
    with pytest.raises(ValueError, match=r"equal numbers of images\. Received 1 and 0;"):
        matching([two_squares()], [])


@settings(deadline=None, max_examples=80)
@given(LABELS, LABELS, hnp.arrays(np.bool_, (4, 5)), st.sampled_from([0.3, 0.5, 0.7]))
def test_unmatched_objects_outside_the_labels_are_not_false(
    reference: NDArray[np.int64],
    result: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    threshold: float,
) -> None:
    complete = matching_of_overlaps([Overlaps.of(reference, result)], threshold)
    found = matching_of_overlaps([Overlaps.of(reference, result, labelled)], threshold)
    assert (found.tp, found.fn) == (complete.tp, complete.fn)
    assert found.matched_iou == complete.matched_iou
    outside = {
        number
        for number in np.unique(result[result > 0]).tolist()
        if 2 * np.count_nonzero(labelled & (result == number)) < np.count_nonzero(result == number)
    }
    # an object outside is false in complete labels unless it is matched
    kept = np.where(np.isin(result, list(outside)), 0, result)
    without = matching_of_overlaps([Overlaps.of(reference, kept)], threshold)
    assert without.fp <= found.fp + found.tp
    assert complete.fp - len(outside) <= found.fp <= complete.fp
    if not outside:
        assert found == complete


def test_a_wrong_object_counts_where_the_labels_are() -> None:
    reference, result = np.zeros((2, 4, 12), np.int32)
    reference[:, :2] = 1
    result[:, :2], result[:, 4:6], result[:, 8:10], result[:, 11] = 1, 2, 3, 4
    labelled = np.ones((4, 12), bool)
    labelled[:, 7:] = False
    labelled[:2, 11] = True  # half of the fourth
    (found,) = [matching_of_overlaps([Overlaps.of(reference, result, labelled)], 0.5)]
    assert (found.tp, found.fp, found.fn) == (1, 2, 0)
