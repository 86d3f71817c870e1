"""Cuts tiles by the library elasticdeform: slow, and the reference that the graph is held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import tf
from keras_unet.data.atlas import Atlas
from keras_unet.data.augmentation import Draw
from keras_unet.tiling import mirrored_window


def cut_by_elasticdeform(
    atlas: Atlas, tile_size: int, output_size: int
) -> Callable[[Draw], tuple[Any, Any]]:
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
        size: Any, centre: Any, grid: Any, matrix: Any, contrast: Any, brightness: Any
    ) -> tuple[Any, Any]:
        forward = np.linalg.inv(matrix.astype(float))
        beyond = grid.shape[1] - 1
        tile, labels, weight = deform_grid(
            [_window(flat, size, centre, tile_size) for flat in flats],
            np.pad(grid.astype(float), [(0, 0), (beyond, beyond), (beyond, beyond)], "reflect"),
            order=[1, 0, 1],
            mode="mirror",
            crop=[slice(last, last + tile_size)] * 2,
            axis=[(0, 1)] * 3,
            affine=np.column_stack([forward, middle - forward @ middle]),
        )
        y_true = np.stack([labels, weight], axis=-1)[inner, inner]
        return (contrast * tile + brightness).astype(np.float32), y_true.astype(np.float32)

    def render(draw: Draw) -> tuple[Any, Any]:
        tile, y_true = tf.numpy_function(cut, list(draw), [tf.float32, tf.float32])
        return (
            tf.ensure_shape(tile, (tile_size, tile_size, image.shape[1])),
            tf.ensure_shape(y_true, (output_size, output_size, 2)),
        )

    return render


def _window(flat: NDArray[Any], size: Any, centre: Any, tile_size: int) -> NDArray[Any]:
    """Cuts three tiles by three out of an image, the middle one of them about the centre.

    Neighbouring tiles share a row or a column of pixels, as the nodes of their grids do.
    """
    first, height, width = (int(number) for number in size)
    plane = flat[first : first + height * width].reshape(height, width, *flat.shape[1:])
    last = tile_size - 1
    starts = [int(one) - tile_size // 2 - last for one in centre]
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
