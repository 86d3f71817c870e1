"""Augmentation of training tiles, and the random numbers of each tile (section 3.1).

Tile number n depends on (seed, n) alone: two runs with one seed use the same tiles, and a resumed
run continues with the next tile. The center is a pixel drawn uniformly from all training images, so
large images are used more often than small ones, unless centers are balanced over the classes
(`keras_unet.data.sampling`). Since tiles continue beyond the border by
mirroring, all pixels of an image are covered equally often, except the outermost, which mirroring
does not repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.backend import tf
from keras_unet.data.sampling import ClassPixels
from keras_unet.tiling import mirror

MOST_BLUR = 10.0
"""Highest sigma of the random blur in pixels."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentation of training tiles (section 3.1 of the paper).

    Attributes:
        nodes: Nodes of the displacement grid along each side of a tile. The paper uses 3.
        amplitude: Standard deviation of the displacements in pixels. The paper uses 10.
        rotation: Whether tiles are rotated by random angles.
        flip: Whether half of the tiles are mirrored.
        zoom: Standard deviation of the logarithm of the scale factor, which is truncated at two
            standard deviations. The paper has no scaling; here it makes the network robust to cells
            that are smaller or larger than those of the training.
        contrast: Standard deviation of the logarithm of the factor on the normalized grey values.
        brightness: Standard deviation of the offset, in units of the image's standard deviation.
        gamma: Standard deviation of the logarithm of the exponent of the grey values, which is
            truncated at two standard deviations. It changes the histogram, and neither mean nor
            standard deviation.
        noise: Highest standard deviation of Gaussian noise, in units of the image's. That of a tile
            is uniform between 0 and this.
        blur: Highest sigma of a Gaussian blur in pixels, at most 10. Half of the tiles are blurred,
            with a sigma that is uniform between 0 and this.
        illumination: Standard deviation of a smooth field that is added to the grey values, in
            units of the image's. It is drawn at 3 x 3 nodes, as the deformation.
    """

    nodes: int = 3
    amplitude: float = 10.0
    rotation: bool = True
    flip: bool = True
    zoom: float = 0.25
    contrast: float = 0.15
    brightness: float = 0.15
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    illumination: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: If a number is out of range.
        """
        if self.nodes < 2:
            raise ValueError(f"nodes must be at least 2. Received: nodes={self.nodes}")
        numbers = [field.name for field in fields(self) if isinstance(field.default, float)]
        for name in numbers:
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(
                    f"{name} must be at least 0 and finite. Received: {name}={getattr(self, name)}"
                )
        if self.blur > MOST_BLUR:
            raise ValueError(f"blur must be at most {MOST_BLUR} pixels. Received: blur={self.blur}")

    @property
    def changes_intensity(self) -> bool:
        """Returns whether grey values change by more than contrast and brightness."""
        return any((self.gamma, self.noise, self.blur, self.illumination))


NO_AUGMENTATION = Augmentation(
    amplitude=0.0, rotation=False, flip=False, zoom=0.0, contrast=0.0, brightness=0.0
)


class TileParameters(NamedTuple):
    """Random numbers of one tile.

    Attributes:
        size: `(first, height, width)` of the tile's image, see `PixelBuffer`.
        center: Row and column of the tile's center in the image.
        grid: Displacements in pixels, shape `(2, nodes, nodes)`.
        matrix: Rotation, flip and scaling of positions relative to the center, shape `(2, 2)`.
        contrast: Factor on the grey values.
        brightness: Offset of the grey values.
    """

    size: Any
    center: Any
    grid: Any
    matrix: Any
    contrast: Any
    brightness: Any


def tile_keys(number: Any, seed: int, stream: int, count: int) -> list[Any]:
    """Returns seeds of random numbers of a tile, besides those that `draw_tile` has always used.

    Args:
        number: Number of the tile, an integer tensor.
        seed: Seed of the run.
        stream: Number of the purpose: 1 for intensity, 2 for the center by class.
        count: Number of seeds, each of shape `(2,)`.
    """
    tile = tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])
    key = tf.random.fold_in(tile, tf.constant(stream, tf.int64))
    return tf.unstack(tf.random.split(key, count))  # type: ignore[no-any-return]


def draw_tile(
    number: Any,
    sizes: Any,
    augmentation: Augmentation,
    seed: int,
    centers: ClassPixels | None = None,
) -> TileParameters:
    """Draws the image, the position and the augmentation of a tile.

    Args:
        number: Number of the tile, an integer tensor.
        sizes: `(first, height, width)` of each image, int32 tensor of shape `(images, 3)`.
        augmentation: Ranges of the random numbers.
        seed: Seed of the run.
        centers: Pixels of each class, to balance the centers; None for uniform centers.
    """
    keys = tf.unstack(tf.random.split(tf.stack([tf.cast(seed, tf.int64), number]), 7))
    total = tf.reduce_sum(sizes[-1, :1]) + sizes[-1, 1] * sizes[-1, 2]
    pixel = tf.random.stateless_uniform([], keys[0], 0, total, tf.int32)
    if centers is not None:
        pixel = centers.draw(pixel, tile_keys(number, seed, 2, 3))
    size = sizes[tf.searchsorted(sizes[:, 0], pixel[None], side="right")[0] - 1]
    within = pixel - size[0]
    nodes = augmentation.nodes
    grid = augmentation.amplitude * tf.random.stateless_normal([2, nodes, nodes], keys[1])
    contrast = tf.exp(augmentation.contrast * tf.random.stateless_normal([], keys[4]))
    brightness = augmentation.brightness * tf.random.stateless_normal([], keys[5])
    zoom = tf.exp(augmentation.zoom * tf.random.stateless_truncated_normal([], keys[6]))
    matrix = zoom * _rotation(keys[2], augmentation) @ _flip(keys[3], augmentation)
    center = tf.stack([within // size[2], within % size[2]])
    return TileParameters(size, center, grid, matrix, contrast, brightness)


def _rotation(key: Any, augmentation: Augmentation) -> Any:
    angle = tf.random.stateless_uniform([], key, 0, 2 * np.pi) * float(augmentation.rotation)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return tf.stack([tf.stack([cosine, -sine]), tf.stack([sine, cosine])])


def _flip(key: Any, augmentation: Augmentation) -> Any:
    is_flipped = tf.random.stateless_uniform([], key) < 0.5 * float(augmentation.flip)
    return tf.linalg.diag(tf.stack([1.0, tf.where(is_flipped, -1.0, 1.0)]))


@cache
def spline_matrix(size: int, nodes: int) -> NDArray[np.float32]:
    """Computes the matrix of a cubic B-spline interpolation from `nodes` values to `size` pixels.

    The first and the last node lie on the first and the last pixel; beyond them the spline is
    mirrored, as in SciPy and elasticdeform.

    Returns:
        Array of shape `(size, nodes)`; each row sums to 1.
    """
    positions = np.linspace(0, nodes - 1, size)[None]
    columns = [
        ndimage.map_coordinates(unit, positions, order=3, mode="mirror") for unit in np.eye(nodes)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def displacement_field(grid: Any, size: tuple[int, int]) -> Any:
    """Interpolates a coarse grid of displacement vectors to every pixel (bicubic, section 3.1).

    Args:
        grid: Displacements in pixels along rows and columns, shape `(2, nodes, nodes)`; or another
            number of components.
        size: Height and width of the field in pixels.

    Returns:
        float32 tensor of shape `(2, height, width)`, or of as many components.
    """
    nodes_down, nodes_across = grid.shape[1:]
    down = tf.constant(spline_matrix(size[0], nodes_down))
    across = tf.constant(spline_matrix(size[1], nodes_across))
    strips = tf.einsum("cij,wj->icw", tf.cast(grid, tf.float32), across)
    return sum(down[:, i, None] * strips[i][:, None] for i in range(nodes_down))


def warp(
    pixels: Any, size: Any, rows: Any, columns: Any, *, nearest: Sequence[bool] | None = None
) -> Any:
    """Samples an image at fractional coordinates, mirrored beyond its border.

    The flat pixel buffer lets images of different sizes share one compiled function. Compute the
    coordinates in another compiled function: XLA would compute them again for each pixel that is
    read.

    Args:
        pixels: float32 tensor of shape `(pixels, channels)` that contains the image.
        size: `(first, height, width)`: index of the image's first pixel, and its size in pixels.
        rows: float32 row coordinates in pixels of the image, any shape.
        columns: float32 column coordinates, same shape.
        nearest: For each channel, whether interpolation is nearest-neighbor, as for labels, or
            bilinear. None for bilinear in all channels.

    Returns:
        float32 tensor of the coordinates' shape, plus the channels.
    """
    first, height, width = size
    rows, columns = _mirrored(rows, height), _mirrored(columns, width)
    top, left = tf.floor(rows), tf.floor(columns)
    down, across = _fractions(rows - top, nearest), _fractions(columns - left, nearest)
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
    bottom, right = tf.minimum(top + 1, height - 1), tf.minimum(left + 1, width - 1)

    def read(row: Any, column: Any) -> Any:
        return tf.gather(pixels, first + row * width + column)

    upper = (1 - across) * read(top, left) + across * read(top, right)
    lower = (1 - across) * read(bottom, left) + across * read(bottom, right)
    return (1 - down) * upper + down * lower


def _fractions(distance: Any, nearest: Sequence[bool] | None) -> Any:
    """Returns the fraction of the farther pixel in each channel, 0 or 1 for nearest-neighbor."""
    linear = distance[..., None]
    return linear if nearest is None else tf.where(nearest, tf.floor(linear + 0.5), linear)


def _mirrored(coordinates: Any, size: Any) -> Any:
    last = tf.cast(size - 1, tf.float32)
    return tf.clip_by_value(mirror(coordinates, tf.cast(size, tf.float32)), 0.0, last)
