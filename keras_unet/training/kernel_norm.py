"""Normalized kernels: each feature of a 3 x 3 convolution has weights of mean 0 and norm sqrt(2).

After each update, the weights of a feature are projected to this mean and norm, which are those
that the Gaussian initialization gives it on average. Features then keep their scale from layer to
layer, as with batch normalization, and training is faster and more reliable. Unlike batch
normalization, it uses no statistics of the tile: the network stays that of figure 1, and predicts
as fast. The first convolution is left out, because the mean of its weights reads the brightness of
the image. L. Huang et al., "Projection based weight normalization for deep neural networks"
(arXiv:1710.02338, 2017); mean 0 as in S. Qiao et al., "Micro-batch training with batch-channel
normalization and weight standardization" (arXiv:1903.10520, 2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_unet.backend import keras, tf

_FIRST = "level0_down_conv1"
_AXES = (0, 1, 2)  # height, width and incoming features of a kernel
_SQUARES = 2.0  # sum of the squared weights of a feature
_SMALLEST = 1e-12  # sum of squares that is not divided by
_TOLERANCE = 0.02


def normalize_kernel(kernel: Any) -> Any:
    """Projects a kernel to mean 0 and norm sqrt(2) of the weights of each feature.

    Args:
        kernel: Tensor `(height, width, incoming, features)`.

    Returns:
        The tensor. A feature whose weights are all equal gets weights of 0.
    """
    centered = kernel - tf.reduce_mean(kernel, _AXES, keepdims=True)
    squares = tf.reduce_sum(centered**2, _AXES, keepdims=True)
    return centered * tf.sqrt(_SQUARES / tf.maximum(squares, _SMALLEST))


def normalized_variables(model: Any) -> list[Any]:
    """Returns the kernels of a network of `build_unet` that are normalized, as Keras variables."""
    return [
        layer.kernel
        for layer in model.layers
        if type(layer) is keras.layers.Conv2D
        and layer.kernel_size == (3, 3)
        and layer.name != _FIRST
    ]


def has_normalized_kernels(model: Any) -> bool:
    """Returns whether the kernels of a network have been normalized in its training."""
    kernels = [np.asarray(variable) for variable in normalized_variables(model)]
    return all(
        np.allclose(kernel.sum(_AXES), 0, atol=_TOLERANCE)
        and np.allclose((kernel**2).sum(_AXES), _SQUARES, rtol=_TOLERANCE)
        for kernel in kernels
    )
