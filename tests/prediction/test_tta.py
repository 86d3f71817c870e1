"""Averages over the symmetries of the square against a loop over flips and transpositions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from keras_unet.prediction.predict import (
    SYMMETRIES,
    TransformedView,
    average_over_views,
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
