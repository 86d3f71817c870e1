"""Overlap-tile prediction (figure 2 of the paper): scores for every pixel of an image of any size.

Context that is missing at the border is mirrored. Tiles lie on the pooling lattice, so the result
does not depend on the tile size and has no seams.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from keras_unet.architecture import Architecture
from keras_unet.tiling import Tiling, mirrored_window

_GREY = 2  # dimensions of an image without a channel axis


def predict_image(
    model: Any,
    image: NDArray[Any],
    *,
    tile_size: int | None = None,
    architecture: Architecture | None = None,
) -> NDArray[np.float32]:
    """Predicts the class probabilities of every pixel by the overlap-tile strategy.

    Args:
        model: A network of `build_unet`, or any callable from `(1, height, width, channels)` to
            logits `(1, height - 2 * margin, width - 2 * margin, classes)`.
        image: Standardised grey values, shape `(height, width)` or `(height, width, channels)`, at
            least one pixel.
        tile_size: Height and width of the input tile in pixels; None for as large as the image
            needs, with an upper bound that keeps memory flat. A network built for a fixed input
            size takes that size.
        architecture: The network's numbers, where `model` is not a Keras model of `build_unet`.

    Returns:
        float32 softmax probabilities of shape `(height, width, classes)`, of the image's own size.

    Raises:
        ValueError: If the image's shape does not suit the network, it holds a value that is not
            finite, or the tile size does not fit.
    """
    network = architecture or Architecture.of(model)
    pixels = _checked(np.asarray(image), network)
    tiling = Tiling.covering(pixels.shape[:2], network, tile_size or _fixed_size(model))
    score = getattr(model, "predict_on_batch", model)
    probabilities = np.empty((*pixels.shape[:2], network.classes), np.float32)
    for tile in tiling:
        logits = np.asarray(score(mirrored_window(pixels, *tile.read)[None]))[0]
        probabilities[tile.write] = softmax(logits[tile.keep].astype(np.float32), axis=-1)
    return probabilities


def _checked(image: NDArray[Any], network: Architecture) -> NDArray[np.float32]:
    pixels = image[..., None] if image.ndim == _GREY else image
    if pixels.ndim != _GREY + 1 or pixels.shape[-1] != network.channels or not pixels.size:
        raise ValueError(
            f"image must be (height, width, channels) with channels={network.channels} and at "
            f"least one pixel. Received: shape={image.shape}"
        )
    if not np.isfinite(pixels).all():
        raise ValueError(
            "image must hold finite numbers. Received: "
            f"{np.count_nonzero(~np.isfinite(pixels))} values that are NaN or infinite"
        )
    return pixels.astype(np.float32, copy=False)


def _fixed_size(model: Any) -> tuple[int, int] | None:
    shape = getattr(model, "input_shape", (None, None, None, None))
    return None if None in shape[1:3] else (shape[1], shape[2])
