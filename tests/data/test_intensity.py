"""Gamma, illumination, blur, noise: as NumPy and SciPy compute them; labels are untouched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, stats

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data.augmentation import NO_AUGMENTATION, Augmentation
from keras_unet.data.intensity import (
    IntensityParameters,
    apply_gamma,
    blur,
    draw_intensity,
    intensity_in_graph,
)
from keras_unet.data.pipeline import build_dataset
from keras_unet.data.tiles import TrainingImage

ALL = Augmentation(gamma=0.3, noise=0.2, blur=1.5, illumination=0.4)
TILE = np.random.default_rng(0).normal(size=(24, 20, 2)).astype(np.float32)


def draws(count: int, augmentation: Augmentation, seed: int = 0) -> IntensityParameters:
    drawn = tf.data.Dataset.range(count).map(lambda n: draw_intensity(n, augmentation, seed))
    return IntensityParameters(*(np.asarray(part) for part in next(iter(drawn.batch(count)))))


def changed(augmentation: Augmentation, tile: NDArray[Any] = TILE, **numbers: Any) -> NDArray[Any]:
    parameters = draw_intensity(tf.constant(3, tf.int64), augmentation, 0)._replace(**numbers)
    return np.asarray(intensity_in_graph(augmentation)(tf.constant(tile), parameters))


class TestDraws:
    def test_have_the_spread_asked_for(self) -> None:
        drawn = draws(1000, ALL)
        exponents = np.log(drawn.gamma) / 0.3
        assert stats.kstest(exponents, stats.truncnorm(-2, 2).cdf).pvalue > 1e-3
        assert stats.kstest(drawn.illumination.ravel() / 0.4, "norm").pvalue > 1e-3
        assert stats.kstest(drawn.noise / 0.2, "uniform").pvalue > 1e-3
        blurred = drawn.sigma[drawn.sigma > 0]
        assert stats.kstest(blurred / 1.5, "uniform").pvalue > 1e-3
        assert 0.45 < len(blurred) / 1000 < 0.55
        assert len({tuple(seed) for seed in drawn.noise_seed.tolist()}) == 1000

    def test_are_independent_of_each_other_and_of_the_tile(self) -> None:
        drawn = draws(2000, ALL)
        numbers = np.column_stack(
            [np.log(drawn.gamma), drawn.sigma, drawn.noise, drawn.illumination.reshape(2000, 9)]
        )
        assert np.abs(np.corrcoef(numbers, rowvar=False) - np.eye(12)).max() < 0.1

    def test_depend_on_the_seed(self) -> None:
        assert (draws(5, ALL, seed=1).gamma == draws(5, ALL, seed=1).gamma).all()
        assert (draws(5, ALL, seed=1).gamma != draws(5, ALL, seed=2).gamma).all()


class TestGamma:
    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.2])
    def test_equals_numpy(self, gamma: float) -> None:
        tile = TILE.astype(float)
        power = (tile - tile.min(axis=(0, 1))) ** gamma
        whitened = (power - power.mean(axis=(0, 1))) / power.std(axis=(0, 1))
        expected = whitened * tile.std(axis=(0, 1)) + tile.mean(axis=(0, 1))
        found = np.asarray(apply_gamma(tf.constant(TILE), tf.constant(gamma)))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        if gamma == 1:
            np.testing.assert_allclose(found, TILE, atol=1e-5)

    @given(st.integers(0, 100), st.floats(-2, 2), st.floats(-50, 50))
    @settings(deadline=None, max_examples=25)
    def test_keeps_order_mean_and_deviation(self, seed: int, power: float, offset: float) -> None:
        rng = np.random.default_rng(seed)
        tile = (rng.gamma(1, size=(9, 7, 1)) + offset).astype(np.float32)
        found = np.asarray(apply_gamma(tf.constant(tile), tf.exp(tf.constant(power, tf.float32))))
        assert (np.diff(found.ravel()[np.argsort(tile.ravel())]) >= 0).all()
        assert found.mean() == pytest.approx(tile.mean(), abs=1e-3)
        assert found.std() == pytest.approx(tile.std(), abs=1e-3)

    def test_a_channel_without_contrast_is_unchanged(self) -> None:
        tile = TILE.copy()
        tile[..., 1] = -0.7
        found = np.asarray(apply_gamma(tf.constant(tile), tf.constant(2.0)))
        np.testing.assert_array_equal(found[..., 1], tile[..., 1])
        assert np.isfinite(found).all()

    @pytest.mark.parametrize("gamma", [1e-30, 1e30, np.inf])
    def test_stays_finite(self, gamma: float) -> None:
        found = apply_gamma(tf.constant(TILE), tf.constant(gamma, tf.float32))
        assert np.isfinite(np.asarray(found)).all()


class TestBlur:
    @pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
    @pytest.mark.parametrize("radius", [1, 4, 8])
    def test_equals_scipy(self, sigma: float, radius: int) -> None:
        expected = ndimage.gaussian_filter(
            TILE.astype(float), sigma, mode="mirror", radius=radius, axes=(0, 1)
        )
        found = np.asarray(blur(tf.constant(TILE), tf.constant(sigma, tf.float32), radius))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_by_nothing_leaves_every_bit(self) -> None:
        np.testing.assert_array_equal(blur(tf.constant(TILE), tf.constant(0.0), 5), TILE)
        np.testing.assert_array_equal(changed(replace(NO_AUGMENTATION, blur=2.0), sigma=0.0), TILE)

    def test_of_a_tile_that_is_smaller_than_the_kernel(self) -> None:
        small = TILE[:6, :4]
        found = changed(replace(NO_AUGMENTATION, blur=10.0), small, sigma=10.0)
        assert found.shape == small.shape
        assert found.std() < small.std() / 3


def test_illumination_is_a_cubic_spline_through_the_nodes_added_to_all_channels() -> None:
    grid = np.random.default_rng(1).normal(size=(1, 3, 3)).astype(np.float32)
    found = changed(replace(NO_AUGMENTATION, illumination=1.0), illumination=grid) - TILE
    places = np.meshgrid(np.linspace(0, 2, 24), np.linspace(0, 2, 20), indexing="ij")
    field = ndimage.map_coordinates(grid[0].astype(float), places, order=3, mode="mirror")
    np.testing.assert_allclose(found, np.repeat(field[..., None], 2, axis=-1), atol=1e-5)


def test_noise_is_gaussian_and_its_own_in_every_pixel_and_channel() -> None:
    flat = np.zeros((90, 80, 2), np.float32)
    noisy = replace(NO_AUGMENTATION, noise=1.0)
    found = changed(noisy, flat, noise=0.25)
    assert stats.kstest(found.ravel() / 0.25, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.05
    other = changed(noisy, flat, noise=0.25, noise_seed=np.array([5, 6]))
    assert abs(np.corrcoef(found.ravel(), other.ravel())[0, 1]) < 0.05


def test_changes_are_made_in_the_order_of_a_microscope() -> None:
    found = changed(ALL, sigma=1.2)
    step = TILE
    for name in ("gamma", "illumination", "blur", "noise"):
        step = changed(
            replace(NO_AUGMENTATION, **{name: getattr(ALL, name)}), step, **drawn_by(ALL)
        )
    np.testing.assert_allclose(found, step, atol=1e-4)


def drawn_by(augmentation: Augmentation) -> dict[str, Any]:
    drawn = draw_intensity(tf.constant(3, tf.int64), augmentation, 0)
    return drawn._asdict() | {"sigma": 1.2}


class TestTiles:
    IMAGE = TrainingImage(
        np.random.default_rng(2).normal(size=(60, 70, 2)).astype(np.float32),
        np.random.default_rng(3).integers(0, 2, (60, 70)).astype(np.uint8),
        np.random.default_rng(4).random((60, 70)).astype(np.float32),
    )

    def take(self, count: int, augmentation: Augmentation, **options: Any) -> list[Any]:
        network = Architecture(channels=2, depth=1)
        batches = build_dataset(
            [self.IMAGE], network, tile_size=40, seed=5, augmentation=augmentation, **options
        )
        return [[np.asarray(part) for part in batch] for batch in batches.take(count)]

    @pytest.mark.parametrize("engine", ["graph", "elasticdeform"])
    def test_labels_and_weights_are_untouched(self, engine: Any) -> None:
        plain = self.take(2, Augmentation(), engine=engine)
        varied = self.take(2, ALL, engine=engine)
        for (image, y_true), (other, other_true) in zip(plain, varied, strict=True):
            np.testing.assert_array_equal(y_true, other_true)
            assert image.shape == other.shape
            assert (image != other).mean() > 0.9

    def test_of_a_shard_and_of_a_resumed_run_are_the_same(self) -> None:
        whole = self.take(3, ALL, batch_size=2)
        part = self.take(2, ALL, batch_size=2, first=1, shard=(1, 2))
        for number in range(2):
            np.testing.assert_array_equal(part[number][0], whole[1 + number][0][1:])
