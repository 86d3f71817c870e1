"""Number of pixels that a request asks a model to predict, before any is decoded."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_unet.data.pngs import SIGNATURE

SCALE = "scale"
"""Name of the input by which images are resampled."""


def count_pixels(inputs: Mapping[str, NDArray[Any]]) -> float:
    """Counts the pixels of all images of a request, those to be resampled as they will be.

    The sizes of files are read from their headers.

    Args:
        inputs: Arrays by name: images `(batch, height, width, channels)`, files in arrays of type
            object, and the scales of the images.

    Example:
        >>> image, scale = np.zeros((1, 6, 5, 1)), np.array([2.0])
        >>> count_pixels({"image": image}), count_pixels({"image": image, "scale": scale})
        (30, 120.0)
    """
    scales = inputs.get(SCALE, np.ones(1))
    largest = max(1, float(scales.max(initial=1))) if scales.dtype.kind == "f" else 1
    return sum(_pixels(array) for array in inputs.values()) * largest**2


def _pixels(array: NDArray[Any]) -> float:
    if array.dtype == object:
        return sum(map(_pixels_of_file, array.flat))
    return math.prod(array.shape[:3]) if array.ndim == 4 else 0


def _pixels_of_file(content: bytes) -> float:
    """Returns the number of pixels of a PNG or JPEG file; 0 for others, which models refuse."""
    if content.startswith(SIGNATURE):
        return int.from_bytes(content[16:20]) * int.from_bytes(content[20:24])
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return math.inf
    except (OSError, ValueError, SyntaxError):
        return 0
