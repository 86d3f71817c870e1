"""A network as a Keras model that takes images of any size and gives probabilities of that size.

For programs that lay blocks over an image and expect each answer to be as large as its question.
Borders are mirrored however small the image is. What lies further than the context from them does
not depend on them, so a program that cuts off a halo of that width, rounded up so that blocks lie
on the pooling lattice, gets the pixels of the whole image.

The model is of stock Keras operations: saved, it loads where this package is not installed; as a
graph of TensorFlow or ONNX it runs on releases that are years old. Keras does not know a size
before the model runs, so sizes come from the pixels themselves: one for each, and their sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_unet.architecture import Architecture
from keras_unet.backend import keras
from keras_unet.data.standardisation import Standardisation
from keras_unet.tiling import mirror

layers, ops = keras.layers, keras.ops

IMAGE, PROBABILITIES = "image", "probabilities"

_AXES = (1, 2)
"""Height and width of `(batch, height, width, channels)`."""


def any_size_model(network: Any, architecture: Architecture, rule: Standardisation) -> Any:
    """Wraps a network.

    Args:
        network: The Keras network, in float32.
        architecture: Its numbers.
        rule: How grey values are standardised. Numbers of the data set are part of the model; an
            image that is measured by itself must come standardised, since a block of it would be
            measured otherwise.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)`, each size at least 1, to
        probabilities `(batch, height, width, classes)`, float32.
    """
    image = keras.Input((None, None, architecture.channels), name=IMAGE)
    pixels = _standardised(image, rule)
    for axis in _AXES:
        pixels = ops.take(pixels, _places(image, axis, architecture), axis=axis)
    logits = network(pixels)
    for axis in _AXES:
        logits = ops.take(logits, _kept(image, axis, architecture), axis=axis)
    return keras.Model(image, layers.Softmax(name=PROBABILITIES)(logits), name="any_size")


def halo(network: Architecture) -> int:
    """Returns the pixels that are cut off each side of a block.

    >>> halo(Architecture()), halo(Architecture(padding="same"))
    (96, 96)
    """
    return -(-network.context // network.step) * network.step


def least_size(network: Architecture) -> int:
    """Returns the smallest size of a block, of which one step of the lattice is left.

    >>> least_size(Architecture())
    208
    """
    return 2 * halo(network) + network.step


def _standardised(image: Any, rule: Standardisation) -> Any:
    """Standardises by the numbers of the data set, in double precision."""
    if rule.mode == "image":
        return image
    scale = 1 / np.where(np.array(rule.std) > 0, rule.std, 1.0)
    offset = -np.array(rule.mean) * scale
    rescaled = layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float64")(image)
    return ops.cast(rescaled, "float32")


def _places(image: Any, axis: int, network: Architecture) -> Any:
    """Positions to read along an axis: all, up to a size that fits, and the context around them.

    They are moved by whole periods of the mirror so that none is negative: ONNX divides whole
    numbers towards zero, and others round down.
    """
    step, context = network.step, network.context
    beyond = network.fitting_size(2 * context + step) - context - step
    rounded_up = ops.repeat(_ones(image, axis, step), step)
    longer = ops.pad(rounded_up, [[context, beyond]], constant_values=1)
    size = ops.sum(_ones(image, axis))
    return mirror(ops.cumsum(longer) - 1 - context + 2 * context * (size - 1), size)


def _kept(image: Any, axis: int, network: Architecture) -> Any:
    """Positions of the image's pixels among the logits."""
    return ops.cumsum(_ones(image, axis)) - 1 + network.context - network.margin


def _ones(image: Any, axis: int, step: int = 1) -> Any:
    """As many ones as an axis has pixels, or as it has at every `step` of them."""
    line = tuple(slice(None, None, step) if place == axis else 0 for place in range(4))
    return ops.ones_like(image[line], dtype="int32")
