"""Training tiles, cut out of a flat pixel buffer of all images.

A tile is interpolated once, at coordinates that combine rotation, flip, scaling and elastic
deformation, in a graph compiled by XLA: image and weights bilinearly, labels by the nearest pixel.
The library elasticdeform computes the same tile slowly, as the reference.
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

_MOST_PIXELS = 2**31 - 1  # indices are int32
_NO_OBJECTS = np.zeros((0, 0), np.int32)
_NEAREST = True, False, True  # whether classes, weights, objects take the nearest pixel's value


class TrainingImage(NamedTuple):
    """Image with its classes and weights.

    Attributes:
        image: Normalized grey values, float32, shape `(height, width, channels)`.
        classes: Class of each pixel, shape `(height, width)`.
        weights: Weight map, float32, shape `(height, width)`; 0 at ignored pixels.
        objects: Number of the object of each pixel, 0 for none, shape `(height, width)`; needed for
            affinities.
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    weights: NDArray[np.float32]
    objects: NDArray[np.int32] = _NO_OBJECTS


class PixelBuffer(NamedTuple):
    """Flat buffer of the pixels of all images.

    Attributes:
        image: Grey values, float32 tensor of shape `(pixels, channels)`.
        targets: Classes, weights and, for affinities, objects, float32 tensor of shape
            `(pixels, 2)` or `(pixels, 3)`.
        sizes: `(first, height, width)` of each image: index of its first pixel, and its size in
            pixels; int32, shape `(images, 3)`.
    """

    image: Any
    targets: Any
    sizes: Any

    @classmethod
    def of(cls, images: Sequence[TrainingImage], *, affinities: bool = False) -> PixelBuffer:
        """Creates the buffer.

        Args:
            images: The training images.
            affinities: Whether to keep their objects.
        """
        size = np.array([image.classes.shape for image in images])
        first = np.cumsum(size.prod(axis=1)) - size.prod(axis=1)
        targets = [
            np.stack(image[1:] if affinities else image[1:3], axis=-1, dtype=np.float32)
            for image in images
        ]
        return cls(
            _flatten([image.image for image in images]),
            _flatten(targets),
            tf.constant(np.column_stack([first, size]), tf.int32),
        )


def _flatten(arrays: Sequence[NDArray[np.float32]]) -> Any:
    flat = [array.reshape(-1, array.shape[-1]) for array in arrays]
    return tf.constant(np.concatenate(flat, dtype=np.float32))


def check_images(images: Sequence[TrainingImage], architecture: Architecture) -> None:
    """Checks that training images fit a network.

    Raises:
        ValueError: If there are none or too many, or one has another shape or other classes.
    """
    if not images:
        raise ValueError("images must hold at least one training image. Received: none")
    for number, image in enumerate(images):
        _check_shapes(image, f"images[{number}]", architecture.channels)
        _check_classes(image.classes, f"images[{number}]", architecture.classes)
        if architecture.affinities and image.objects.shape != image.classes.shape:
            raise ValueError(
                f"images[{number}] must have objects of shape {image.classes.shape} for a network "
                f"with affinities. Received: {image.objects.shape}"
            )
    pixels = sum(image.classes.size for image in images)
    if pixels > _MOST_PIXELS:
        raise ValueError(
            f"images must hold at most {_MOST_PIXELS} pixels together. Received: {pixels}; "
            "train on fewer images, or on parts of them"
        )


def _check_shapes(image: TrainingImage, name: str, channels: int) -> None:
    size = image.classes.shape
    if image.image.shape != (*size, channels) or image.weights.shape != size or len(size) != 2:
        raise ValueError(
            f"{name} must be an image of shape (height, width, {channels}) for a network with "
            f"channels={channels}, with classes and weights of shape (height, width). Received: "
            f"image {image.image.shape}, classes {image.classes.shape}, weights "
            f"{image.weights.shape}"
        )


def _check_classes(classes: NDArray[Any], name: str, number: int) -> None:
    if classes.size == 0:
        raise ValueError(f"{name} must hold at least one pixel. Received: shape {classes.shape}")
    if classes.min() < 0 or classes.max() >= number:
        raise ValueError(
            f"{name} must hold classes from 0 to {number - 1} for a network with classes={number}. "
            f"Received: {classes.min()} to {classes.max()}"
        )


def cut_in_graph(
    pixels: PixelBuffer, tile_size: int, output_size: int
) -> Callable[[TileParameters], tuple[Any, Any]]:
    """Returns a function that cuts a tile in a compiled graph.

    Args:
        pixels: The training images.
        tile_size: Height and width of the input tile in pixels.
        output_size: Height and width of the network's output for the tile.

    Returns:
        A function from TileParameters to `(image, y_true)`: float32 tensors of shape
        `(tile, tile, channels)` and `(output, output, 2)`, label and weight of each pixel, or
        `(output, output, 3)` with its object.
    """
    margin = (tile_size - output_size) // 2
    inner = slice(margin, margin + output_size)
    nearest = _NEAREST[: pixels.targets.shape[-1]]

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def locate(parameters: TileParameters) -> Any:
        return tile_coordinates(parameters, tile_size)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def read(
        image: Any, targets: Any, parameters: TileParameters, coordinates: Any
    ) -> tuple[Any, Any]:
        size = tf.unstack(parameters.size)
        tile = warp(image, size, *tf.unstack(coordinates))
        tile = parameters.contrast * tile + parameters.brightness
        within = tf.unstack(coordinates[:, inner, inner])
        return tile, warp(targets, size, *within, nearest=nearest)

    return lambda parameters: read(pixels.image, pixels.targets, parameters, locate(parameters))


def tile_coordinates(parameters: TileParameters, tile_size: int) -> Any:
    """Computes the image coordinates of a tile: center + M (p - middle) + displacement(p).

    Returns:
        float32 tensor of shape `(2, tile, tile)`: row and column in pixels of the image.
    """
    # M (p - middle) is written out: in a matrix product some GPUs round to a quarter of a pixel.
    offset = tf.range(tile_size, dtype=tf.float32) - (tile_size - 1) / 2
    down, across = parameters.matrix[:, 0, None, None], parameters.matrix[:, 1, None, None]
    turned = down * offset[:, None] + across * offset
    center = tf.cast(parameters.center, tf.float32)[:, None, None] - 0.5  # tile sizes are even
    return center + turned + displacement_field(parameters.grid, (tile_size, tile_size))


def cut_by_elasticdeform(
    pixels: PixelBuffer, tile_size: int, output_size: int
) -> Callable[[TileParameters], tuple[Any, Any]]:
    """Returns a function like that of `cut_in_graph`, based on the library elasticdeform.

    Pixels that a small tile reads from more than a tile away are mirrored at that distance, and not
    at the border of the image.

    Raises:
        ImportError: If the library is missing.
    """
    # The library stretches its grid over the array that it deforms. It therefore gets a window of
    # three tiles with the grid continued by reflection, and computes the middle tile alone.
    deform_grid = _import_deform_grid()
    margin, last = (tile_size - output_size) // 2, tile_size - 1
    inner, middle = slice(margin, margin + output_size), np.full(2, last / 2)
    image, targets = pixels.image.numpy(), pixels.targets.numpy()
    flats = image, *targets.T
    orders = [1, *(0 if nearest else 1 for nearest in _NEAREST[: targets.shape[1]])]

    def cut(
        size: Any, center: Any, grid: Any, matrix: Any, contrast: Any, brightness: Any
    ) -> tuple[Any, Any]:
        forward = np.linalg.inv(matrix.astype(float))
        beyond = grid.shape[1] - 1
        tile, *cut_targets = deform_grid(
            [_window(flat, size, center, tile_size) for flat in flats],
            np.pad(grid.astype(float), [(0, 0), (beyond, beyond), (beyond, beyond)], "reflect"),
            order=orders,
            mode="mirror",
            crop=[slice(last, last + tile_size)] * 2,
            axis=[(0, 1)] * len(flats),
            affine=np.column_stack([forward, middle - forward @ middle]),
        )
        y_true = np.stack(cut_targets, axis=-1)[inner, inner]
        return (contrast * tile + brightness).astype(np.float32), y_true.astype(np.float32)

    def cut_tensors(parameters: TileParameters) -> tuple[Any, Any]:
        tile, y_true = tf.numpy_function(cut, list(parameters), [tf.float32, tf.float32])
        return (
            tf.ensure_shape(tile, (tile_size, tile_size, image.shape[1])),
            tf.ensure_shape(y_true, (output_size, output_size, targets.shape[1])),
        )

    return cut_tensors


def _window(flat: NDArray[Any], size: Any, center: Any, tile_size: int) -> NDArray[Any]:
    """Cuts 3 x 3 tiles out of an image; neighbors share a row or column, like their grids."""
    first, height, width = (int(number) for number in size)
    plane = flat[first : first + height * width].reshape(height, width, *flat.shape[1:])
    last = tile_size - 1
    starts = [int(position) - tile_size // 2 - last for position in center]
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
