"""Equation 2 against one full-image distance transform a cell, and the class weights by hand."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.data.distances import separate_touching, two_distances
from keras_unet.data.weight_maps import (
    border_weight_map,
    class_balance,
    class_weight_map,
    close_borders,
    weight_map,
)

SHAPE = (17, 23)
LABELS = hnp.arrays(np.int32, SHAPE, elements=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 4, 9]))
CLASSES = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))
MASKS = hnp.arrays(np.bool_, SHAPE)


def brute_force_border(
    instances: NDArray[np.integer], w0: float, sigma: float
) -> NDArray[np.float64]:
    parted = separate_touching(instances)
    ids = np.unique(parted[parted > 0])
    if len(ids) < 2:
        return np.zeros(instances.shape)
    distances = np.sort([ndimage.distance_transform_edt(parted != i) for i in ids], axis=0)
    term = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return np.where(parted == 0, term, 0)


@given(LABELS, st.sampled_from([0, 1, 10, 50]), st.sampled_from([0.5, 2, 5]))
@settings(deadline=None, max_examples=60)
def test_border_term_equals_brute_force(
    instances: NDArray[np.int32], w0: float, sigma: float
) -> None:
    got = border_weight_map(instances, w0=w0, sigma=sigma)
    np.testing.assert_allclose(got, brute_force_border(instances, w0, sigma), rtol=0, atol=1e-5)
    assert got.dtype == np.float32


def test_border_term_of_cells_far_apart_equals_brute_force() -> None:
    instances = np.zeros((40, 90), np.int32)
    instances[5:9, 3:8], instances[20:30, 35:40], instances[20:30, 40:44] = 1, 2, 3
    instances[0:3, 80:90] = 3
    np.testing.assert_allclose(
        border_weight_map(instances), brute_force_border(instances, 10, 5), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("cores", [1, 2, 5, 64])
def test_border_term_does_not_depend_on_the_cores(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    instances = generator.integers(1, 40, (90, 31)) * (generator.random((90, 31)) < 0.1)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    expected = brute_force_border(instances, 10, 0.5)
    got = border_weight_map(instances, sigma=0.5)  # looks 3 rows away: bands of 24 or more
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    np.testing.assert_array_equal(got, border_weight_map(instances, sigma=0.5))


@pytest.mark.parametrize(("height", "bands"), [(90, 1), (470, 2), (2000, 3)])
def test_a_core_has_a_band_where_little_is_looked_at_twice(
    height: int, bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = []

    def count(rows: NDArray[np.integer], limit: float) -> tuple[NDArray[Any], ...]:
        looked_at.append(len(rows))
        return two_distances(rows, limit)

    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr("keras_unet.data.weight_maps.two_distances", count)
    border_weight_map(np.eye(height, 8, dtype=int))
    assert len(looked_at) == bands
    assert sum(looked_at) <= 1.25 * height


def test_border_term_is_zero_without_a_second_cell_and_on_cells() -> None:
    instances = np.zeros((9, 9), np.int32)
    instances[2:5, 2:5] = 7
    assert not border_weight_map(instances).any()
    instances[6:9, 6:9] = 8
    assert not border_weight_map(instances)[instances > 0].any()


def test_gap_between_touching_cells_weighs_most() -> None:
    weights = border_weight_map(np.array([[1, 1, 1, 2, 2, 2]]))
    np.testing.assert_allclose(
        weights, 10 * np.exp([[-np.inf, -np.inf, -9 / 50, -9 / 50, -np.inf, -np.inf]])
    )


@given(LABELS, st.sampled_from([2, 3.2, 5]))
@settings(deadline=None, max_examples=20)
def test_close_borders_have_a_quarter_of_the_largest_weight(
    instances: NDArray[np.int32], sigma: float
) -> None:
    expected = brute_force_border(instances, 1.0, sigma)
    assume(np.all(abs(expected - 0.25) > 1e-6))
    np.testing.assert_array_equal(close_borders(instances, sigma=sigma), expected >= 0.25)


@pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf")])
def test_refuses_sigma(sigma: float) -> None:
    with pytest.raises(ValueError, match=f"sigma must be a positive .* Received: sigma={sigma};"):
        border_weight_map(np.ones((2, 2), int), sigma=sigma)


@pytest.mark.parametrize("w0", [-0.5, float("nan"), float("inf")])
def test_refuses_w0(w0: float) -> None:
    with pytest.raises(ValueError, match=f"w0 must be a weight, 0 or more. Received: w0={w0};"):
        border_weight_map(np.ones((2, 2), int), w0=w0)


@pytest.mark.parametrize("instances", [np.ones((2, 2)), np.ones((2, 2, 1), int), np.array([[-1]])])
def test_border_term_refuses_what_is_no_label_image(instances) -> None:
    with pytest.raises(ValueError, match="instances must"):
        border_weight_map(instances)


def test_what_is_refused_is_the_whole_image_whatever_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(ValueError, match=r"Received shape \(90, 4, 1\);"):
        border_weight_map(np.zeros((90, 4, 1), int), sigma=0.5)


@given(st.lists(st.tuples(CLASSES, MASKS), min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_balance_gives_each_class_one_sum_and_pixels_mean_one(pairs) -> None:
    maps, ignored = zip(*pairs, strict=True)
    assume(not np.all(ignored))
    counted = np.concatenate([m[~i] for m, i in pairs])
    balance = class_balance(maps, 5, ignored)
    sums = [balance[k] * np.count_nonzero(counted == k) for k in np.unique(counted)]
    np.testing.assert_allclose(sums, sums[0])
    np.testing.assert_allclose(balance[counted].mean(), 1)
    assert not np.delete(balance, np.unique(counted)).any()


def test_balance_by_hand() -> None:
    maps = [np.array([[0, 0, 0]]), np.array([[0, 0, 1], [2, 0, 255]])]
    ignored = [np.array([[0, 0, 0]]), np.array([[0, 0, 0], [0, 0, 1]])]
    balance = class_balance(maps, 4, ignored)
    np.testing.assert_allclose(balance, [8 / (3 * 6), 8 / 3, 8 / 3, 0])
    assert balance.dtype == np.float64


@given(CLASSES, MASKS, st.booleans())
@settings(deadline=None, max_examples=40)
def test_class_weights_are_looked_up_and_zero_where_ignored(classes, ignored, single) -> None:
    assume(not ignored.all())
    balance = None if single else np.array([0.5, 1, 2, 8])
    expected = class_balance([classes], 4, [ignored]) if single else balance
    weights = class_weight_map(classes, balance, ignored=ignored)
    np.testing.assert_allclose(weights, np.where(ignored, 0, expected[classes]), rtol=1e-6)
    assert weights.dtype == np.float32


def test_boolean_classes_and_numbers_to_ignore_are_understood() -> None:
    classes = np.array([[True, False, False, False]])
    np.testing.assert_allclose(class_weight_map(classes), [[2, 2 / 3, 2 / 3, 2 / 3]])
    ignored = np.array([[0, 0, 0, 255]], np.uint8)
    np.testing.assert_allclose(class_weight_map(classes, ignored=ignored), [[1.5, 0.75, 0.75, 0]])


@given(LABELS, MASKS)
@settings(deadline=None, max_examples=30)
def test_weight_map_is_the_sum_and_zero_where_ignored(instances, ignored) -> None:
    classes = (separate_touching(instances) > 0).astype(np.uint8)
    balance = np.array([0.7, 3])
    weights = weight_map(classes, instances, balance=balance, ignored=ignored, w0=4, sigma=3)
    expected = balance[classes] + brute_force_border(instances, 4, 3)
    np.testing.assert_allclose(weights, np.where(ignored, 0, expected), rtol=1e-6, atol=1e-5)
    assert weights.dtype == np.float32


def test_weight_map_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"one shape. Received: \(2, 2, 1\) and \(2, 2\);"):
        weight_map(np.zeros((2, 2, 1), int), np.zeros((2, 2), int))


def test_refuses_masks_that_are_not_one_an_image() -> None:
    with pytest.raises(ValueError, match=r"one mask for each image\. Received 1 for 2 images"):
        class_balance([np.zeros((2, 2), int)] * 2, 2, [np.zeros((2, 2), bool)])


def test_refuses_a_mask_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"classes, \(2, 2\). Received: \(2, 3\);"):
        class_weight_map(np.zeros((2, 2), int), ignored=np.zeros((2, 3), bool))


def test_refuses_a_data_set_without_a_pixel_that_counts() -> None:
    with pytest.raises(ValueError, match="class_maps must hold at least one pixel"):
        class_balance([np.zeros((2, 2), int)], 2, [np.ones((2, 2), bool)])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (np.array([[0, 255]]), r"classes must lie in 0 \.\.\. 1\. Received: 0 \.\.\. 255;"),
        (np.array([[-1, 1]]), r"classes must lie in 0 \.\.\. 1\. Received: -1 \.\.\. 1;"),
        (np.array([[0.0, 1.0]]), r"classes must be whole numbers .* Received: float64;"),
    ],
)
def test_refuses_what_are_no_classes(classes, message) -> None:
    with pytest.raises(ValueError, match=message):
        class_balance([classes], 2)
    with pytest.raises(ValueError, match=message):
        class_weight_map(classes, np.ones(2))
