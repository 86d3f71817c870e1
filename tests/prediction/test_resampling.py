from fractions import Fraction
from math import floor

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_unet.prediction.resampling import Resampled, ResampledLabels, resample, scaled_size

sides = st.integers(1, 40)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


@given(size=st.tuples(sides, sides), target=st.tuples(sides, sides), seed=st.integers(0, 99))
def test_pixels_are_those_of_pillow(size, target, seed):
    image = drawn(*size, 2, seed=seed)
    found = resample(image, target)
    assert found.shape == (*target, 2)
    assert found.dtype == np.float32
    for channel in range(2):
        picture = Image.fromarray(image[..., channel])
        expected = np.asarray(picture.resize(target[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found[..., channel], expected, atol=2e-6)


@pytest.mark.parametrize("target", [(50, 90), (13, 11), (29, 70)])
def test_pixels_are_those_of_tensorflow(target):
    image = drawn(29, 37, 3)
    expected = tf.image.resize(image, target, antialias=True)
    np.testing.assert_allclose(resample(image, target), expected, atol=2e-6)


@given(
    size=st.tuples(sides, sides),
    target=st.tuples(sides, sides),
    corner=st.tuples(st.integers(0, 39), st.integers(0, 39)),
    extent=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_a_window_has_the_bits_of_the_whole(size, target, corner, extent):
    rows, columns = (
        slice(min(first, side - 1), min(first + length, side))
        for first, length, side in zip(corner, extent, target, strict=True)
    )
    image = drawn(*size, 2)
    part = Resampled(image, target)[rows, columns]
    np.testing.assert_array_equal(part, Resampled(image, target)[:, :][rows, columns])
    labels = np.arange(size[0] * size[1]).reshape(size)
    part = ResampledLabels(labels, target)[rows, columns]
    np.testing.assert_array_equal(part, ResampledLabels(labels, target)[:, :][rows, columns])


def test_the_own_size_changes_no_bit():
    image = drawn(7, 9, 1)
    assert resample(image, (7, 9)) is image
    np.testing.assert_array_equal(Resampled(image, (7, 9))[:, :], image)


@given(size=st.tuples(sides, sides), target=st.tuples(sides, sides))
def test_probabilities_stay_probabilities(size, target):
    first = drawn(*size, 1)
    found = resample(np.concatenate([first, 1 - first], -1), target)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


@given(size=st.tuples(sides, sides), target=st.tuples(sides, sides))
def test_a_label_is_that_of_the_pixel_that_holds_the_center(size, target):
    labels = np.arange(size[0] * size[1]).reshape(size)
    found = ResampledLabels(labels, target)[:, :]
    for place in np.ndindex(target):
        row, column = (
            floor((at + Fraction(1, 2)) * source / goal)
            for at, source, goal in zip(place, size, target, strict=True)
        )
        assert found[place] == labels[row, column]


def test_sizes_are_whole_and_at_least_one():
    assert scaled_size((1022, 1024), 1.63) == (1666, 1669)
    assert scaled_size((1, 2), 0.125) == (1, 1)
    assert scaled_size((5, 7), 1.0) == (5, 7)
