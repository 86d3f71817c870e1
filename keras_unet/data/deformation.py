"""Smooth elastic deformation inside the graph: one displacement field for image, labels, weights.

Section 3.1 of the paper: random displacement vectors on a coarse 3 x 3 grid, Gaussian with a
standard deviation of 10 pixels, per-pixel displacements by bicubic interpolation. A dense field
from a k x k grid is separable: A d B^T with two small constant matrices, so no image-sized resize
is needed; the last product is written out as a sum of k terms, which XLA computes where a pixel is
needed. Both functions compile with XLA (`tf.function(jit_compile=True)`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.backend import tf
from keras_unet.tiling import mirror


@cache
def spline_matrix(size: int, nodes: int) -> NDArray[np.float32]:
    """Computes the matrix that interpolates `nodes` values to `size` pixels by a cubic B-spline.

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
        grid: Displacements in pixels, shape `(2, nodes, nodes)`: of the rows, then of the columns.
        size: Height and width of the field in pixels.

    Returns:
        float32 tensor of shape `(2, height, width)`.
    """
    nodes_down, nodes_across = grid.shape[1:]
    down = tf.constant(spline_matrix(size[0], nodes_down))
    across = tf.constant(spline_matrix(size[1], nodes_across))
    strips = tf.einsum("cij,wj->icw", tf.cast(grid, tf.float32), across)
    return sum(down[:, i, None] * strips[i][:, None] for i in range(nodes_down))


def warp(
    pixels: Any, size: Any, rows: Any, columns: Any, *, nearest: Sequence[bool] | None = None
) -> Any:
    """Reads an image at fractional coordinates, mirrored beyond its border.

    The pixels come as a flat list, so that images of different sizes in one list share one compiled
    function; a row of the list is a pixel. Give coordinates that another compiled function has
    computed: of those from its own, XLA computes each again for every pixel that it reads there.

    Args:
        pixels: float32 tensor of shape `(height * width, channels)`, or a longer list together with
            its first pixel in `size`.
        size: `(first, height, width)`: where the image starts in the list and its size in pixels.
        rows: float32 row coordinates in pixels of the image, any shape.
        columns: float32 column coordinates, same shape.
        nearest: The channels that take the nearest pixel, such as labels; the others, image and
            weights, take the bilinear mean. None if all of them do.

    Returns:
        float32 tensor of the coordinates' shape, plus the channels.
    """
    first, height, width = size
    rows, columns = _inside(rows, height), _inside(columns, width)
    top, left = tf.floor(rows), tf.floor(columns)
    down, right = _shares(rows - top, nearest), _shares(columns - left, nearest)
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
    bottom, beside = tf.minimum(top + 1, height - 1), tf.minimum(left + 1, width - 1)

    def read(row: Any, column: Any) -> Any:
        return tf.gather(pixels, first + row * width + column)

    upper = (1 - right) * read(top, left) + right * read(top, beside)
    lower = (1 - right) * read(bottom, left) + right * read(bottom, beside)
    return (1 - down) * upper + down * lower


def _shares(distance: Any, nearest: Sequence[bool] | None) -> Any:
    """Returns the share that each channel takes of the farther pixel: all or nothing of labels."""
    linear = distance[..., None]
    return linear if nearest is None else tf.where(nearest, tf.floor(linear + 0.5), linear)


def _inside(coordinates: Any, size: Any) -> Any:
    last = tf.cast(size - 1, tf.float32)
    return tf.clip_by_value(mirror(coordinates, tf.cast(size, tf.float32)), 0.0, last)
