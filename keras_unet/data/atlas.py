"""All training images behind one another: one flat list of pixels, whatever the images' sizes.

Tiles are read from it by the graph or by the reference engine, and one compiled function serves
every image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import tf

_MOST_PIXELS = 2**31 - 1  # they are counted in int32


class TrainingImage(NamedTuple):
    """What the pipeline needs of one image.

    Attributes:
        image: Standardised grey values, float32, shape `(height, width, channels)`.
        classes: Class of each pixel, shape `(height, width)`.
        weights: Weight map, float32, shape `(height, width)`; 0 where ignored.
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    weights: NDArray[np.float32]


class Atlas(NamedTuple):
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
    def of(cls, images: Sequence[TrainingImage]) -> Atlas:
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
