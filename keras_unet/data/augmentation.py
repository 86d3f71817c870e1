"""What varies a training tile: how far, and the random numbers of each tile (section 3.1).

Tile number n is drawn from (seed, n) alone: two runs with one seed see the same tiles, and a
resumed run goes on with the tile it would have seen. Its centre is a pixel drawn uniformly from all
training images, so large images are seen more often than small ones and, since the plane is tiled
by mirrored copies, every pixel of an image is as often covered as any other (but for the outermost,
which mirroring does not repeat).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np

from keras_unet.backend import tf


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training tiles are varied (section 3.1 of the paper).

    Attributes:
        nodes: Nodes of the displacement grid along each side of a tile. The paper takes 3.
        amplitude: Standard deviation of the displacements in pixels. The paper takes 10.
        rotation: Whether tiles are turned by any angle.
        flip: Whether half of the tiles are mirrored.
        zoom: Standard deviation of the logarithm of a factor on lengths, which is drawn within two
            of them. The paper has none; a network meets cells smaller and larger than its training.
        contrast: Standard deviation of the logarithm of a factor on the standardised grey values.
        brightness: Standard deviation of an offset, in units of the image's standard deviation.
    """

    nodes: int = 3
    amplitude: float = 10.0
    rotation: bool = True
    flip: bool = True
    zoom: float = 0.25
    contrast: float = 0.15
    brightness: float = 0.15

    def __post_init__(self) -> None:
        """Refuses a grid without a spline and negative deviations.

        Raises:
            ValueError: If a number is out of its range.
        """
        if self.nodes < 2:
            raise ValueError(f"nodes must be at least 2. Received: nodes={self.nodes}")
        for name in ("amplitude", "zoom", "contrast", "brightness"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(
                    f"{name} must be at least 0 and finite. Received: {name}={getattr(self, name)}"
                )


NO_AUGMENTATION = Augmentation(
    amplitude=0.0, rotation=False, flip=False, zoom=0.0, contrast=0.0, brightness=0.0
)


class Draw(NamedTuple):
    """The random numbers of one tile.

    Attributes:
        size: `(first pixel in the list, height, width)` of its image.
        centre: Row and column of the tile's centre in its image.
        grid: Displacements in pixels, shape `(2, nodes, nodes)`.
        matrix: Rotation, flip and zoom, shape `(2, 2)`, of positions relative to the centre.
        contrast: Factor on the grey values.
        brightness: Offset of the grey values.
    """

    size: Any
    centre: Any
    grid: Any
    matrix: Any
    contrast: Any
    brightness: Any


def draw_tile(number: Any, sizes: Any, augmentation: Augmentation, seed: int) -> Draw:
    """Draws tile number `number`: which image, where, and how it is varied.

    Args:
        number: The tile's number, an integer tensor.
        sizes: `(first, height, width)` of every image, int32 tensor of shape `(images, 3)`.
        augmentation: How far tiles are varied.
        seed: The run's seed.
    """
    keys = tf.unstack(tf.random.split(tf.stack([tf.cast(seed, tf.int64), number]), 7))
    total = tf.reduce_sum(sizes[-1, :1]) + sizes[-1, 1] * sizes[-1, 2]
    pixel = tf.random.stateless_uniform([], keys[0], 0, total, tf.int32)
    size = sizes[tf.searchsorted(sizes[:, 0], pixel[None], side="right")[0] - 1]
    within = pixel - size[0]
    nodes = augmentation.nodes
    grid = augmentation.amplitude * tf.random.stateless_normal([2, nodes, nodes], keys[1])
    contrast = tf.exp(augmentation.contrast * tf.random.stateless_normal([], keys[4]))
    brightness = augmentation.brightness * tf.random.stateless_normal([], keys[5])
    zoom = tf.exp(augmentation.zoom * tf.random.stateless_truncated_normal([], keys[6]))
    matrix = zoom * _rotation(keys[2], augmentation) @ _flip(keys[3], augmentation)
    centre = tf.stack([within // size[2], within % size[2]])
    return Draw(size, centre, grid, matrix, contrast, brightness)


def _rotation(key: Any, augmentation: Augmentation) -> Any:
    angle = tf.random.stateless_uniform([], key, 0, 2 * np.pi) * float(augmentation.rotation)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return tf.stack([tf.stack([cosine, -sine]), tf.stack([sine, cosine])])


def _flip(key: Any, augmentation: Augmentation) -> Any:
    heads = tf.random.stateless_uniform([], key) < 0.5 * float(augmentation.flip)
    return tf.linalg.diag(tf.stack([1.0, tf.where(heads, -1.0, 1.0)]))
