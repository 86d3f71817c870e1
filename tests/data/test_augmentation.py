"""The random numbers of a tile: their spread, and that each is drawn by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from keras_unet.backend import tf
from keras_unet.data.augmentation import NO_AUGMENTATION, Augmentation, TileParameters, draw_tile

SHAPE_ALONE = Augmentation(contrast=0.0, brightness=0.0)


def draws(count: int, augmentation: Augmentation, sizes: Any, seed: int = 0) -> TileParameters:
    numbers = tf.data.Dataset.range(count)
    drawn = numbers.map(lambda number: draw_tile(number, tf.constant(sizes), augmentation, seed))
    return TileParameters(*(np.asarray(part) for part in next(iter(drawn.batch(count)))))


class TestDraw:
    SIZES = np.array([[0, 12, 9], [108, 5, 7]], np.int32)

    def test_centers_are_uniform_over_the_pixels_of_all_images(self) -> None:
        drawn = draws(6000, SHAPE_ALONE, self.SIZES)
        pixels = drawn.size[:, 0] + drawn.center[:, 0] * drawn.size[:, 2] + drawn.center[:, 1]
        assert (drawn.center < drawn.size[:, 1:]).all()
        assert stats.chisquare(np.bincount(pixels, minlength=143)).pvalue > 1e-3

    def test_angles_are_uniform_and_half_of_the_tiles_are_flipped(self) -> None:
        rigid = replace(SHAPE_ALONE, zoom=0.0)
        matrices = draws(1000, rigid, self.SIZES).matrix.astype(float)
        flips = np.linalg.det(matrices)
        np.testing.assert_allclose(np.abs(flips), 1, atol=1e-5)
        np.testing.assert_allclose(
            matrices @ matrices.swapaxes(1, 2), [np.eye(2)] * 1000, atol=1e-5
        )
        assert abs((flips < 0).mean() - 0.5) < 0.05
        angles = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]) / (2 * np.pi) % 1
        assert stats.kstest(angles, "uniform").pvalue > 1e-3

    def test_lengths_vary_by_a_factor_within_two_deviations(self) -> None:
        matrices = draws(1000, replace(SHAPE_ALONE, zoom=0.2), self.SIZES).matrix.astype(float)
        factors = np.sqrt(np.abs(np.linalg.det(matrices)))
        expected = factors[:, None, None] ** 2 * np.eye(2)  # as much along every direction
        np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), expected, atol=1e-5)
        drawn = np.log(factors) / 0.2
        assert stats.kstest(drawn, stats.truncnorm(-2, 2).cdf).pvalue > 1e-3

    def test_grid_and_grey_values_have_the_spread_asked_for(self) -> None:
        drawn = draws(
            1000, Augmentation(nodes=4, amplitude=7.0, contrast=0.3, brightness=0.2), self.SIZES
        )
        assert drawn.grid.shape == (1000, 2, 4, 4)
        assert stats.kstest(drawn.grid.ravel() / 7, "norm").pvalue > 1e-3
        assert stats.kstest(np.log(drawn.contrast) / 0.3, "norm").pvalue > 1e-3
        assert stats.kstest(drawn.brightness / 0.2, "norm").pvalue > 1e-3
        numbers = np.column_stack([drawn.grid.reshape(1000, -1), drawn.contrast, drawn.brightness])
        correlation = np.corrcoef(numbers, rowvar=False) - np.eye(34)
        assert np.abs(correlation).max() < 0.15  # each number is drawn by itself

    def test_no_augmentation_leaves_the_tile_alone(self) -> None:
        drawn = draws(5, NO_AUGMENTATION, self.SIZES)
        assert not drawn.grid.any()
        np.testing.assert_array_equal(drawn.matrix, [np.eye(2)] * 5)
        np.testing.assert_array_equal(drawn.contrast, 1)
        np.testing.assert_array_equal(drawn.brightness, 0)


def test_tile_7_is_as_it_has_always_been() -> None:
    """A run that is resumed or repeated by another version uses the same tiles."""
    sizes = tf.constant([[0, 12, 9], [108, 5, 7]])
    drawn = draw_tile(tf.constant(7, tf.int64), sizes, Augmentation(), 5)
    assert (np.array(drawn.size).tolist(), np.array(drawn.center).tolist()) == ([0, 12, 9], [9, 6])
    expected = {
        "grid": [
            [[7.964973, -8.984364, 3.335080], [-17.816711, -1.207790, 4.371689],
             [-8.112445, -7.146406, 6.277297]],
            [[-2.833419, 12.796806, 2.646875], [17.472248, -14.145048, 3.757704],
             [10.286283, 2.709872, -12.407599]],
        ],
        "matrix": [[-0.7275480, -1.0806763], [1.0806763, -0.7275480]],
        "contrast": 1.1507645,
        "brightness": 0.0326287,
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(drawn, name), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"nodes": 1}, "nodes must be at least 2. Received: nodes=1"),
        (
            {"amplitude": -1.0},
            "amplitude must be at least 0 and finite. Received: amplitude=-1",
        ),
        ({"zoom": -0.1}, "zoom must be at least 0 and finite. Received: zoom=-0.1"),
        ({"contrast": -0.1}, "contrast must be at least 0 and finite. Received: contrast=-0.1"),
        ({"brightness": float("nan")}, "brightness must be .*brightness=nan"),
        ({"gamma": -0.1}, "gamma must be at least 0 and finite. Received: gamma=-0.1"),
        ({"noise": float("inf")}, "noise must be .*noise=inf"),
        ({"illumination": -1.0}, "illumination must be .*illumination=-1.0"),
        ({"blur": -1.0}, "blur must be at least 0 and finite. Received: blur=-1.0"),
        ({"blur": 10.5}, "blur must be at most 10.0 pixels. Received: blur=10.5"),
    ],
)
def test_refuses(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**numbers)
