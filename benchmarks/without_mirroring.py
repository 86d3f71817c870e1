"""`python -m benchmarks.without_mirroring ARGUMENTS`: keras-unet with zero padding.

Beyond the border, images are 0, the mean of the normalized grey values, instead of mirrored, in
training and prediction; training pixels beyond the border have a weight of 0. For the ablation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import tf
from keras_unet.cli import main
from keras_unet.data import tiles
from keras_unet.data.augmentation import warp
from keras_unet.prediction import predict as prediction
from keras_unet.tiling import mirrored_window


def warp_in_zeros(pixels: Any, size: Any, rows: Any, columns: Any, **options: Any) -> Any:
    """Reads an image as `warp` does, with 0 beyond its border."""
    read = warp(pixels, size, rows, columns, **options)
    height, width = (tf.cast(length - 1, tf.float32) for length in size[1:])
    inside = (rows >= 0) & (rows <= height) & (columns >= 0) & (columns <= width)
    return read * tf.cast(inside[..., None], read.dtype)


def window_in_zeros(image: NDArray[Any], rows: slice, columns: slice) -> NDArray[Any]:
    """Reads a window of an array `(height, width, ...)`, with 0 beyond its borders."""
    inside = [
        (np.arange(part.start, part.stop) >= 0) & (np.arange(part.start, part.stop) < size)
        for part, size in zip((rows, columns), image.shape[:2], strict=True)
    ]
    window = mirrored_window(image, rows, columns)
    return np.where(np.logical_and.outer(*inside)[..., None], window, 0).astype(window.dtype)


if __name__ == "__main__":
    tiles.warp = warp_in_zeros
    prediction.mirrored_window = window_in_zeros
    main()
