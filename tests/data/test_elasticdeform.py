"""The reference engine: the graph cuts the tiles that elasticdeform cuts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from keras_unet.backend import tf
from keras_unet.data.augmentation import Augmentation, draw_tile
from keras_unet.data.tiles import PixelBuffer, TrainingImage, cut_by_elasticdeform, cut_in_graph


def smooth_image(seed: int, height: int, width: int) -> TrainingImage:
    """Two channels and weights without edges, which bilinear readers might round differently."""
    random = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(random.standard_normal((height, width, 2)), (3, 3, 0))
    weights = ndimage.gaussian_filter(random.random((height, width)), 4)
    classes = random.integers(0, 9, (height, width)).astype(np.uint8)
    objects = classes.astype(np.int32) * 1000
    return TrainingImage(image.astype(np.float32), classes, weights.astype(np.float32), objects)


@pytest.mark.parametrize("tile_size", [96, 98])
def test_engines_agree(tile_size: int) -> None:
    """Grey values to 1e-4, weights to 1e-5, labels but for 1 pixel in 10,000."""
    sizes = [(40, 70), (90, 64), (33, 33), (200, 150)]
    images = [smooth_image(seed, *size) for seed, size in enumerate(sizes)]
    pixels = PixelBuffer.of(images, affinities=True)
    graph = cut_in_graph(pixels, tile_size, tile_size - 16)
    library = cut_by_elasticdeform(pixels, tile_size, tile_size - 16)
    differences = []
    for number in range(12):
        draw = draw_tile(tf.constant(number, tf.int64), pixels.sizes, Augmentation(), seed=0)
        (image, y_true), (other, other_true) = graph(draw), library(draw)
        np.testing.assert_allclose(image, other, atol=1e-4)
        np.testing.assert_allclose(y_true[..., 1], other_true[..., 1], atol=1e-5)
        for targets in (np.array(y_true), np.array(other_true)):  # objects move with their pixels
            np.testing.assert_array_equal(targets[..., 2], targets[..., 0] * 1000)
        differences.append(np.array(y_true[..., 0]) != np.array(other_true[..., 0]))
    assert np.mean(differences) < 1e-4


def test_a_missing_library_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    monkeypatch.setitem(sys.modules, "elasticdeform", nothing)
    with pytest.raises(ImportError, match="pip install --no-binary elasticdeform"):
        cut_by_elasticdeform(PixelBuffer.of([smooth_image(0, 20, 20)]), 20, 4)
