"""Pairs counted one by one, information by its definition, and scikit-image as oracle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.metrics import adapted_rand_error, variation_of_information

from keras_unet.metrics.partitions import (
    SegmentSizes,
    f_score,
    information_score,
    pairs,
    sizes_over_all,
    sizes_over_cells,
    squares,
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
