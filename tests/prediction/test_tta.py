"""Averages over the symmetries of the square against a loop over flips and transpositions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import rel_entr, softmax

from keras_unet.architecture import OFFSETS
from keras_unet.instances.affinities import MergedAffinities
from keras_unet.prediction.predict import (
    SYMMETRIES,
    TransformedView,
    average_over_views,
    disagreement_of_views,
    undo_view,
)

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def lopsided(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of two classes that depend on where left and up are."""
    return np.stack([image.cumsum(0), 2 * image.cumsum(1) * image], axis=-1)


def brute_force(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same mean from the other generators: both flips and the transposition."""
    total = np.zeros((*image.shape, 2))
    for transposed, rows, columns in product((False, True), (1, -1), (1, -1)):
        version = image[::rows, ::columns]
        scores = lopsided(version.T if transposed else version)
        upright = scores.swapaxes(0, 1) if transposed else scores
        total += upright[::rows, ::columns]
    return total / 8


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_equals_the_loop_over_flips_and_transpositions(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(average_over_views(lopsided, image), brute_force(image), atol=1e-12)


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_turns_with_the_image(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).normal(size=size)
    average = average_over_views(lopsided, image)
    for mirrored, quarter_turns in SYMMETRIES:
        turned = np.rot90(image[::-1] if mirrored else image, quarter_turns)
        expected = np.rot90(average[::-1] if mirrored else average, quarter_turns)
        np.testing.assert_allclose(average_over_views(lopsided, turned), expected, atol=1e-12)


def softmax_of_lopsided(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return softmax(lopsided(image), axis=-1)


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_disagreement_is_the_mean_divergence_from_the_average(size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).normal(size=size)
    views = []
    for mirrored, quarter_turns in SYMMETRIES:
        predicted = softmax_of_lopsided(np.rot90(image[::-1] if mirrored else image, quarter_turns))
        views.append(undo_view(predicted, mirrored, quarter_turns))
    divergences = rel_entr(views, np.mean(views, axis=0)).sum(-1) / np.log(2)
    expected = divergences.mean()
    assert disagreement_of_views(softmax_of_lopsided, image) == pytest.approx(expected, abs=1e-6)


def test_views_that_agree_have_no_disagreement() -> None:
    def by_grey_value(image: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.stack([image, 1 - image], axis=-1).astype(np.float32)

    image = np.random.default_rng(3).uniform(size=(5, 7))
    assert disagreement_of_views(by_grey_value, image) < 1e-6


def test_the_eight_versions_differ() -> None:
    seen = []

    def predict(image: NDArray[np.float64]) -> NDArray[np.float64]:
        seen.append(image.tobytes() + bytes(image.shape))
        return image

    image = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(average_over_views(predict, image), image)
    assert len(set(seen)) == len(seen) == 8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_keep_their_type_and_the_image_its_values(dtype: type) -> None:
    image = np.ones((3, 4, 2), dtype)
    before = image.copy()
    assert average_over_views(lambda version: version, image).dtype == dtype
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("version", SYMMETRIES)
def test_windows_of_a_version_are_those_of_the_turned_image(version: tuple[bool, int]) -> None:
    image = np.arange(5 * 7 * 2).reshape(5, 7, 2)
    mirrored, quarter_turns = version
    whole = np.rot90(image[::-1] if mirrored else image, quarter_turns)
    turned = TransformedView(image, *version)
    assert turned.shape == whole.shape
    window = slice(1, 3), slice(2, 5)
    np.testing.assert_array_equal(turned[window], whole[window])
    back = undo_view(turned[window], *version)
    np.testing.assert_array_equal(image[turned.source_window(window)], back)


def pair_scores(
    image: NDArray[np.float32], factors: Sequence[float] = (1.0,) * len(OFFSETS)
) -> NDArray[np.float32]:
    """Two classes, and for each pair the product of both pixels and a factor of its offset."""
    around = np.pad(image, 27)
    outputs = [image, 1 - image]
    for offset, factor in zip(OFFSETS, factors, strict=True):
        rows, columns = (
            slice(27 + along, 27 + along + size)
            for along, size in zip(offset, image.shape, strict=True)
        )
        outputs.append(factor * image * around[rows, columns])
    return np.stack(outputs, axis=-1).astype(np.float32)


def inside_pairs(size: tuple[int, int]) -> NDArray[np.bool_]:
    """Marks classes, and the affinities of pairs of which both pixels lie inside."""
    is_pair = pair_scores(np.ones(size, np.float32)) > 0
    return is_pair | (np.arange(is_pair.shape[-1]) < 2)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(deadline=None, max_examples=30)
def test_affinities_that_turn_with_the_image_are_their_own_mean(size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).uniform(0.1, 1, size).astype(np.float32)
    mean = MergedAffinities(average_over_views(pair_scores, image, classes=2))
    assert mean.shape == (*size, 2 + len(OFFSETS))
    found, expected = mean[: size[0], : size[1]], pair_scores(image)
    is_inside = inside_pairs(size)
    np.testing.assert_allclose(found[is_inside], expected[is_inside], rtol=1e-5)


def test_affinities_are_averaged_over_the_offsets_that_turn_into_each_other() -> None:
    image, factors = np.ones((60, 60), np.float32), range(1, 13)
    mean = average_over_views(lambda view: pair_scores(view, factors), image, classes=2)
    found = MergedAffinities(mean)[30:31, 30:31].ravel()[2:]
    expected = [1.5, 1.5, 3.5, 3.5, 5.5, 5.5, 8.5, 8.5, 8.5, 8.5, 11.5, 11.5]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(st.tuples(st.integers(0, 59), st.integers(1, 60)), st.integers(1, 70))
@settings(deadline=None, max_examples=30)
def test_merged_affinities_are_read_by_windows(part: tuple[int, int], width: int) -> None:
    outputs = np.random.default_rng(3).random((60, width, 2 + 2 * len(OFFSETS)), np.float32)
    mean = MergedAffinities(outputs)
    rows, columns = slice(min(part), max(part)), slice(width // 3, width)
    np.testing.assert_array_equal(mean[rows, columns], mean[:60, :width][rows, columns])
