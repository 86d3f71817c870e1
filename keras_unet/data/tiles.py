"""Cuts tiles inside the graph, compiled by XLA.

A tile is read once, at coordinates that already hold rotation, flip, zoom and elastic deformation:
image (bilinear), labels (nearest) and weights (bilinear) by the same coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_unet.backend import tf
from keras_unet.data.atlas import Atlas
from keras_unet.data.augmentation import Draw
from keras_unet.data.deformation import displacement_field, warp


def cut_in_graph(
    atlas: Atlas, tile_size: int, output_size: int
) -> Callable[[Draw], tuple[Any, Any]]:
    """Makes the function that cuts the tile a Draw describes.

    Args:
        atlas: The images.
        tile_size: Height and width of the input tile in pixels.
        output_size: Height and width of the network's output for it.

    Returns:
        A function from a Draw to `(image, y_true)`: float32 tensors of shape
        `(tile, tile, channels)` and `(output, output, 2)`, label and weight of each pixel.
    """
    lost = (tile_size - output_size) // 2
    inner = slice(lost, lost + output_size)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def place(draw: Draw) -> Any:
        return tile_coordinates(draw, tile_size)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def read(image: Any, targets: Any, draw: Draw, places: Any) -> tuple[Any, Any]:
        size = tf.unstack(draw.size)
        tile = draw.contrast * warp(image, size, *tf.unstack(places)) + draw.brightness
        within = tf.unstack(places[:, inner, inner])
        return tile, warp(targets, size, *within, nearest=(True, False))

    return lambda draw: read(atlas.image, atlas.targets, draw, place(draw))


def tile_coordinates(draw: Draw, tile_size: int) -> Any:
    """Computes where each pixel of a tile is read: centre + M (p - middle) + displacement(p).

    M (p - middle) is written out: in a matrix product some GPUs round to a quarter of a pixel.

    Returns:
        float32 tensor of shape `(2, tile, tile)`: row and column in pixels of the image.
    """
    offset = tf.range(tile_size, dtype=tf.float32) - (tile_size - 1) / 2
    down, across = draw.matrix[:, 0, None, None], draw.matrix[:, 1, None, None]
    turned = down * offset[:, None] + across * offset
    middle = tf.cast(draw.centre, tf.float32)[:, None, None] - 0.5  # sizes that fit are even
    return middle + turned + displacement_field(draw.grid, (tile_size, tile_size))
