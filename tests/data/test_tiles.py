"""Tiles cut in the graph: where their pixels are read, and one compiled function for all images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keras_unet.backend import tf
from keras_unet.data import tiles
from keras_unet.data.augmentation import TileParameters
from keras_unet.data.tiles import PixelBuffer, TrainingImage, cut_in_graph, tile_coordinates

PLAIN = np.eye(2, dtype=np.float32)
TURN = np.array([[0, -1], [1, 0]], np.float32)


def a_draw(size: tuple[int, int, int], matrix: NDArray[np.float32] = PLAIN) -> TileParameters:
    """The tile about the middle of an image, without deformation."""
    center = np.array(size[1:], np.int32) // 2
    numbers = [size, center, np.zeros((2, 3, 3), np.float32), matrix, np.float32(1), np.float32(0)]
    return TileParameters(*(tf.constant(one) for one in numbers))


def test_without_variation_a_tile_is_a_window_about_its_center() -> None:
    rows, columns = np.array(tile_coordinates(a_draw((0, 40, 60)), 8))
    np.testing.assert_allclose(rows, np.repeat(np.arange(16, 24)[:, None], 8, axis=1), atol=1e-5)
    np.testing.assert_allclose(columns, np.repeat(np.arange(26, 34)[None], 8, axis=0), atol=1e-5)


def test_a_turn_is_about_the_middle_of_the_tile() -> None:
    """A quarter turn: as one moves down the tile, columns of the image grow, and rows stay."""
    plain = np.array(tile_coordinates(a_draw((0, 40, 60)), 8))
    turned = np.array(tile_coordinates(a_draw((0, 40, 60), TURN), 8))
    np.testing.assert_allclose(turned[0], plain[0].T[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(turned[1], plain[1].T, atol=1e-5)


def test_is_traced_once_for_images_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []

    def counted(draw: TileParameters, tile_size: int) -> Any:
        traces.append(tile_size)
        return tile_coordinates(draw, tile_size)

    monkeypatch.setattr(tiles, "tile_coordinates", counted)
    sizes = [(40, 70), (90, 64), (1, 33)]
    planes = [np.full(size, number, np.float32) for number, size in enumerate(sizes)]
    pixels = PixelBuffer.of(
        [TrainingImage(one[..., None], one.astype(np.uint8), one) for one in planes]
    )
    cut = cut_in_graph(pixels, 20, 4)
    for number, size in enumerate(np.array(pixels.sizes)):
        image, y_true = cut(a_draw(tuple(size)))
        np.testing.assert_array_equal(image, np.full((20, 20, 1), number))
        np.testing.assert_array_equal(y_true, np.full((4, 4, 2), number))
    assert traces == [20]
