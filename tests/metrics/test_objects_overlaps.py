"""Overlaps by brute force, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_unet.metrics.objects import Overlaps, overlaps_of_images

LABELS = hnp.arrays(np.uint64, (3, 4), elements=st.sampled_from([0, 1, 2, 9, 2**63]))
IMAGE = np.array([[0, 1, 1], [2, 2, 2]])


@given(LABELS, LABELS)
@settings(deadline=None, max_examples=80)
def test_equals_brute_force(reference, result) -> None:
    found = Overlaps.of(reference, result)
    left, right = (sorted(set(labels.ravel().tolist()) - {0}) for labels in (reference, result))
    assert found.reference_sizes.tolist() == [np.sum(reference == one) for one in left]
    assert found.result_sizes.tolist() == [np.sum(result == other) for other in right]
    rows = zip(found.reference, found.result, found.common, found.iou, strict=True)
    pairs = {(left[one], right[other]): (common, iou) for one, other, common, iou in rows}
    assert pairs == {
        (one, other): (both.sum(), both.sum() / either.sum())
        for one in left
        for other in right
        for both in [(reference == one) & (result == other)]
        for either in [(reference == one) | (result == other)]
        if both.any()
    }


def test_images_without_pixels_have_no_objects() -> None:
    found = Overlaps.of(np.zeros((0, 4), int), np.zeros((0, 4), int))
    assert (len(found.reference_sizes), len(found.result_sizes), len(found.iou)) == (0, 0, 0)


def test_refuses_numbers_of_images_that_differ() -> None:
    with pytest.raises(
        ValueError, match=r"equal numbers of images\. Received 2 and 1; pair them by name"
    ):
        overlaps_of_images([IMAGE, IMAGE], [IMAGE])


def test_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"one shape\. Received \(2, 3\) and \(2, 2\);"):
        Overlaps.of(IMAGE, IMAGE[:, 1:])


@pytest.mark.parametrize("wrong", [IMAGE / 2, IMAGE > 0, IMAGE - 1])
def test_refuses_what_is_no_label_image(wrong) -> None:
    with pytest.raises(ValueError, match=r"reference must be integers from 0, .* Received"):
        Overlaps.of(wrong, IMAGE)
    with pytest.raises(ValueError, match=r"result must be integers from 0, .* Received"):
        Overlaps.of(IMAGE, wrong)
