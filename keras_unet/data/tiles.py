"""Training tiles: all images in one flat pixel buffer, and tiles cut out of it.

Tiles are cut inside the graph, compiled by XLA: a tile is read once, at coordinates that already
hold rotation, flip, zoom and elastic deformation: image (bilinear), labels (nearest) and weights
(bilinear) by the same coordinates. The library elasticdeform does the same by the same numbers:
slow, and the reference that the graph is held to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data.augmentation import TileParameters, displacement_field, warp
from keras_unet.tiling import mirrored_window

_MOST_PIXELS = 2**31 - 1  # they are counted in int32


class TrainingImage(NamedTuple):
    """Image with its classes and weights, as the pipeline takes it.

    Attributes:
        image: Normalized grey values, float32, shape `(height, width, channels)`.
        classes: Class of each pixel, shape `(height, width)`.
        weights: Weight map, float32, shape `(height, width)`; 0 where ignored.
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    weights: NDArray[np.float32]


class PixelBuffer(NamedTuple):
    """All images behind one another.

    Attributes:
        image: Grey values of all pixels, float32 tensor of shape `(pixels, channels)`.
        targets: Their classes and their weights, float32 tensor of shape `(pixels, 2)`.
        sizes: `(first, height, width)` of each image: where it starts in the list and its size in
            pixels; int32, shape `(images, 3)`.
    """

    image: Any
    targets: Any
    sizes: Any

    @classmethod
    def of(cls, images: Sequence[TrainingImage]) -> PixelBuffer:
        """Lays images behind one another."""
        size = np.array([one.classes.shape for one in images])
        first = np.cumsum(size.prod(axis=1)) - size.prod(axis=1)
        targets = [
            np.stack([one.classes, one.weights], axis=-1, dtype=np.float32) for one in images
        ]
        return cls(
            _in_a_row([one.image for one in images]),
            _in_a_row(targets),
            tf.constant(np.column_stack([first, size]), tf.int32),
        )


def _in_a_row(images: Sequence[NDArray[np.float32]]) -> Any:
    rows = np.concatenate([one.reshape(-1, one.shape[-1]) for one in images], dtype=np.float32)
    return tf.constant(rows)


def check_images(images: Sequence[TrainingImage], architecture: Architecture) -> None:
    """Makes sure that images suit a network and each other.

    Raises:
        ValueError: If there are none or too many, or one has another shape or other classes.
    """
    if not images:
        raise ValueError("images must hold at least one training image. Received: none")
    for number, one in enumerate(images):
        _check_shapes(one, f"images[{number}]", architecture.channels)
        _check_classes(one.classes, f"images[{number}]", architecture.classes)
    pixels = sum(one.classes.size for one in images)
    if pixels > _MOST_PIXELS:
        raise ValueError(
            f"images must hold at most {_MOST_PIXELS} pixels together. Received: {pixels}; "
            "train on fewer images, or on parts of them"
        )


def _check_shapes(one: TrainingImage, name: str, channels: int) -> None:
    size = one.classes.shape
    if one.image.shape != (*size, channels) or one.weights.shape != size or len(size) != 2:
        raise ValueError(
            f"{name} must be an image of shape (height, width, {channels}) for a network of "
            f"channels={channels}, with classes and weights of shape (height, width). Received: "
            f"image {one.image.shape}, classes {one.classes.shape}, weights {one.weights.shape}"
        )


def _check_classes(classes: NDArray[Any], name: str, number: int) -> None:
    if classes.size == 0:
        raise ValueError(f"{name} must hold at least one pixel. Received: shape {classes.shape}")
    if classes.min() < 0 or classes.max() >= number:
        raise ValueError(
            f"{name} must hold classes from 0 to {number - 1} for a network of classes={number}. "
            f"Received: {classes.min()} to {classes.max()}"
        )


def cut_in_graph(
    atlas: PixelBuffer, tile_size: int, output_size: int
) -> Callable[[TileParameters], tuple[Any, Any]]:
    """Makes the function that cuts the tile a TileParameters describes.

    Args:
        atlas: The images.
        tile_size: Height and width of the input tile in pixels.
        output_size: Height and width of the network's output for it.

    Returns:
        A function from a TileParameters to `(image, y_true)`: float32 tensors of shape
        `(tile, tile, channels)` and `(output, output, 2)`, label and weight of each pixel.
    """
    lost = (tile_size - output_size) // 2
    inner = slice(lost, lost + output_size)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def place(draw: TileParameters) -> Any:
        return tile_coordinates(draw, tile_size)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def read(image: Any, targets: Any, draw: TileParameters, places: Any) -> tuple[Any, Any]:
        size = tf.unstack(draw.size)
        tile = draw.contrast * warp(image, size, *tf.unstack(places)) + draw.brightness
        within = tf.unstack(places[:, inner, inner])
        return tile, warp(targets, size, *within, nearest=(True, False))

    return lambda draw: read(atlas.image, atlas.targets, draw, place(draw))


def tile_coordinates(draw: TileParameters, tile_size: int) -> Any:
    """Computes where each pixel of a tile is read: center + M (p - middle) + displacement(p).

    M (p - middle) is written out: in a matrix product some GPUs round to a quarter of a pixel.

    Returns:
        float32 tensor of shape `(2, tile, tile)`: row and column in pixels of the image.
    """
    offset = tf.range(tile_size, dtype=tf.float32) - (tile_size - 1) / 2
    down, across = draw.matrix[:, 0, None, None], draw.matrix[:, 1, None, None]
    turned = down * offset[:, None] + across * offset
    middle = tf.cast(draw.center, tf.float32)[:, None, None] - 0.5  # sizes that fit are even
    return middle + turned + displacement_field(draw.grid, (tile_size, tile_size))


def cut_by_elasticdeform(
    atlas: PixelBuffer, tile_size: int, output_size: int
) -> Callable[[TileParameters], tuple[Any, Any]]:
    """Makes the function that does what `cut_in_graph`'s does, by the same numbers.

    The library spans its grid over the array it deforms, so it gets a window of three tiles with
    the grid continued by reflection, and computes the middle tile alone. A pixel that a small tile
    would read from beyond that window is mirrored at the window instead of the image.

    Raises:
        ImportError: If the library is missing.
    """
    deform_grid = _import_deform_grid()
    lost, last = (tile_size - output_size) // 2, tile_size - 1
    inner, middle = slice(lost, lost + output_size), np.full(2, last / 2)
    image, targets = atlas.image.numpy(), atlas.targets.numpy()
    flats = image, targets[:, 0], targets[:, 1]

    def cut(
        size: Any, center: Any, grid: Any, matrix: Any, contrast: Any, brightness: Any
    ) -> tuple[Any, Any]:
        forward = np.linalg.inv(matrix.astype(float))
        beyond = grid.shape[1] - 1
        tile, labels, weight = deform_grid(
            [_window(flat, size, center, tile_size) for flat in flats],
            np.pad(grid.astype(float), [(0, 0), (beyond, beyond), (beyond, beyond)], "reflect"),
            order=[1, 0, 1],
            mode="mirror",
            crop=[slice(last, last + tile_size)] * 2,
            axis=[(0, 1)] * 3,
            affine=np.column_stack([forward, middle - forward @ middle]),
        )
        y_true = np.stack([labels, weight], axis=-1)[inner, inner]
        return (contrast * tile + brightness).astype(np.float32), y_true.astype(np.float32)

    def render(draw: TileParameters) -> tuple[Any, Any]:
        tile, y_true = tf.numpy_function(cut, list(draw), [tf.float32, tf.float32])
        return (
            tf.ensure_shape(tile, (tile_size, tile_size, image.shape[1])),
            tf.ensure_shape(y_true, (output_size, output_size, 2)),
        )

    return render


def _window(flat: NDArray[Any], size: Any, center: Any, tile_size: int) -> NDArray[Any]:
    """Cuts three tiles by three out of an image, the middle one of them about the center.

    Neighboring tiles share a row or a column of pixels, as the nodes of their grids do.
    """
    first, height, width = (int(number) for number in size)
    plane = flat[first : first + height * width].reshape(height, width, *flat.shape[1:])
    last = tile_size - 1
    starts = [int(one) - tile_size // 2 - last for one in center]
    return mirrored_window(plane, *(slice(start, start + 3 * last + 1) for start in starts))


def _import_deform_grid() -> Any:
    try:
        from elasticdeform import deform_grid
    except ImportError as error:
        raise ImportError(
            'engine="elasticdeform" needs the library of that name: '
            "pip install --no-binary elasticdeform elasticdeform"
        ) from error
    return deform_grid
