"""Augmentation of grey values for images from another day: gamma, illumination, blur and noise.

The changes are applied to a tile in the order in which a microscope makes them: the response to the
stain (gamma), uneven illumination, the blur of the optics, and the noise of the camera. Labels and
weights are not touched. The paper has none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple

from keras_unet.backend import tf
from keras_unet.data.augmentation import Augmentation, displacement_field, tile_keys

_NODES = 3  # of the illumination along each side of a tile, as the paper's deformation
_BLURRED = 0.5  # share of tiles
_SHARPEST = 1e-3  # pixels; a Gaussian this narrow is a single pixel


class IntensityParameters(NamedTuple):
    """Random numbers of the grey values of one tile, the same for all channels.

    Attributes:
        gamma: Exponent.
        illumination: Offsets at the nodes of a grid, shape `(1, nodes, nodes)`.
        sigma: sigma of the Gaussian blur in pixels; 0 for no blur.
        noise: Standard deviation of the noise.
        noise_seed: Seed of the noise, shape `(2,)`; each pixel of each channel has its own noise.
    """

    gamma: Any
    illumination: Any
    sigma: Any
    noise: Any
    noise_seed: Any


def draw_intensity(number: Any, augmentation: Augmentation, seed: int) -> IntensityParameters:
    """Draws the changes of the grey values of a tile.

    Args:
        number: Number of the tile, an integer tensor.
        augmentation: Ranges of the random numbers.
        seed: Seed of the run.
    """
    keys = tile_keys(number, seed, 1, 6)
    gamma = tf.exp(augmentation.gamma * tf.random.stateless_truncated_normal([], keys[0]))
    grid = augmentation.illumination * tf.random.stateless_normal([1, _NODES, _NODES], keys[1])
    is_blurred = tf.random.stateless_uniform([], keys[2]) < _BLURRED
    sigma = augmentation.blur * tf.random.stateless_uniform([], keys[3])
    noise = augmentation.noise * tf.random.stateless_uniform([], keys[4])
    return IntensityParameters(gamma, grid, tf.where(is_blurred, sigma, 0.0), noise, keys[5])


def intensity_in_graph(augmentation: Augmentation) -> Callable[[Any, IntensityParameters], Any]:
    """Returns a function that changes the grey values of a tile in a compiled graph.

    Args:
        augmentation: Ranges of the random numbers. Changes of range 0 are left out of the graph.

    Returns:
        A function of a tile, float32 `(height, width, channels)`, and its `IntensityParameters`, to
        a tile of the same shape.
    """
    largest = ceil(3 * augmentation.blur)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def apply(tile: Any, parameters: IntensityParameters) -> Any:
        if augmentation.gamma:
            tile = apply_gamma(tile, parameters.gamma)
        if augmentation.illumination:
            height, width, _ = tile.shape
            tile += displacement_field(parameters.illumination, (height, width))[0, ..., None]
        if augmentation.blur:
            tile = blur(tile, parameters.sigma, largest)
        if augmentation.noise:
            # "philox" gives the same numbers on every device; the default does not.
            noise = tf.random.stateless_normal(tile.shape, parameters.noise_seed, alg="philox")
            tile += parameters.noise * noise
        return tile

    return apply  # type: ignore[no-any-return]


def apply_gamma(tile: Any, gamma: Any) -> Any:
    """Raises grey values to a power, and restores the mean and standard deviation.

    In each channel, the grey values above the lowest are raised to the power, which is defined for
    normalized grey values too and keeps their order. Gamma then changes the shape of the histogram
    alone, as it does in an image that is normalized afterwards; contrast and brightness are changed
    by their own options. (nnU-Net calls this `retain_stats`.)

    Args:
        tile: Grey values, float32, shape `(height, width, channels)`.
        gamma: Exponent, above 0. Below 1, dark grey values are spread; above 1, bright ones.

    Returns:
        float32 tensor of the same shape. A channel of one grey value is unchanged.
    """
    lowest = tf.reduce_min(tile, axis=(0, 1))
    span = tf.reduce_max(tile, axis=(0, 1)) - lowest
    power = tf.math.divide_no_nan(tile - lowest, span) ** gamma
    mean, variance = tf.nn.moments(tile, axes=(0, 1))
    power_mean, power_variance = tf.nn.moments(power, axes=(0, 1))
    factor = tf.math.divide_no_nan(tf.sqrt(variance), tf.sqrt(power_variance))
    return tf.where(span > 0, factor * (power - power_mean) + mean, tile)


def blur(tile: Any, sigma: Any, radius: int) -> Any:
    """Blurs a tile by a Gaussian, mirrored beyond its border.

    Args:
        tile: Grey values, float32, shape `(height, width, channels)`.
        sigma: sigma of the Gaussian in pixels; 0 leaves the tile unchanged.
        radius: Pixels on each side of its center after which the Gaussian is cut off.
    """
    for axis in (0, 1):
        reach = min(radius, tile.shape[axis] - 1)
        offsets = tf.range(-reach, reach + 1, dtype=tf.float32)
        kernel = tf.exp(-0.5 * (offsets / tf.maximum(sigma, _SHARPEST)) ** 2)
        kernel /= tf.reduce_sum(kernel)
        width = [(reach, reach) if other == axis else (0, 0) for other in range(3)]
        padded = tf.pad(tile, width, mode="REFLECT")
        size = tile.shape[axis]
        shifted = [
            padded[start : start + size] if axis == 0 else padded[:, start : start + size]
            for start in range(2 * reach + 1)
        ]
        tile = sum(kernel[start] * part for start, part in enumerate(shifted))
    return tile
