"""Standardisation as operations of a graph, equal to `keras_unet.data.standardisation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_unet.backend import tf
from keras_unet.data.standardisation import Standardisation

_ROWS = 256
"""Rows that are summed in double precision at a time, so that no such copy of an image is made."""


def standardiser(rule: Standardisation, image: Any) -> Callable[[Any], Any]:
    """Returns the function that standardises an image, or any part of it, in double precision.

    Args:
        rule: What training has recorded.
        image: float32 tensor `(height, width, channels)` of at least one pixel, which is measured
            where every image is measured by itself.

    Returns:
        A map from grey values `(..., channels)` to float32 of the same shape.
    """
    if rule.mode == "image":
        mean, std = _moments(image)
    else:
        mean, std = (tf.constant(numbers, tf.float64) for numbers in (rule.mean, rule.std))
    divisor = tf.where(std > 0, std, tf.ones_like(std))

    def standardise(pixels: Any) -> Any:
        return tf.cast((tf.cast(pixels, tf.float64) - mean) / divisor, tf.float32)

    return standardise


def _moments(image: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of each channel; exactly 0 where constant."""
    count = tf.cast(tf.reduce_prod(tf.shape(image, tf.int64)[:2]), tf.float64)
    mean = _summed(image, lambda pixels: pixels) / count
    variance = _summed(image, lambda pixels: tf.square(pixels - mean)) / count
    lowest, highest = (reduce(image, (0, 1)) for reduce in (tf.reduce_min, tf.reduce_max))
    constant = lowest == highest
    return (
        tf.where(constant, tf.cast(lowest, tf.float64), mean),
        tf.where(constant, tf.zeros_like(variance), tf.sqrt(variance)),
    )


def _summed(image: Any, term: Callable[[Any], Any]) -> Any:
    """Sums a term of every pixel in double precision, a few rows at a time."""

    def add(row: Any, total: Any) -> tuple[Any, Any]:
        pixels = tf.cast(image[row : row + _ROWS], tf.float64)
        return row + _ROWS, total + tf.reduce_sum(term(pixels), (0, 1))

    nothing = tf.zeros(image.shape[-1], tf.float64)
    height = tf.shape(image)[0]
    return tf.while_loop(lambda row, _: row < height, add, (0, nothing))[1]
