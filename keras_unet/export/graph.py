"""Parts of an exported graph: tiling, normalization, average of an ensemble, inputs of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, precision_policy, tf
from keras_unet.data.normalization import Normalization
from keras_unet.tiling import Tiling, mirror

layers, ops = keras.layers, keras.ops

Graph = Callable[[Any], Any]
"""Function from a tensor to tensors, in a graph."""

IMAGE, SCALE, PROBABILITIES = "image", "scale", "probabilities"
"""Names of inputs and output."""

USEFUL_PIXELS = 512
"""Smallest output side, in pixels, of a tile of the default size."""

PARALLEL_TILES = 2
"""Tiles of a row computed in parallel: one is read and stitched while the other is predicted."""

SMALLEST = 2.0**-24
"""Smallest probability whose logarithm is taken, so that it is finite.

Beside a probability of 1 it is nothing in float32. In int8, whose steps are even, smaller
logarithms would leave few steps for the probabilities that matter.
"""

_ROWS = 256
"""Rows that are summed in double precision at a time, to avoid such a copy of the whole image."""

_AXES = (1, 2)
"""Height and width of `(batch, height, width, channels)`."""


@dataclass(frozen=True)
class GraphTiling:
    """Overlap-tile prediction of images of any size, inside a graph.

    Attributes:
        tile_size: Height and width of the input tile in pixels.
        architecture: Architecture of the network.
    """

    tile_size: int
    architecture: Architecture

    def __post_init__(self) -> None:
        """Checks that the network accepts the tile size.

        Raises:
            ValueError: If it does not; lists the sizes that fit.
        """
        step = self.architecture.step
        Tiling((step, step), (self.tile_size, self.tile_size), self.architecture)

    @classmethod
    def of(cls, architecture: Architecture, tile_size: int | None = None) -> GraphTiling:
        """Returns a tiling of a tile size, or of the smallest one with `USEFUL_PIXELS`.

        >>> GraphTiling.of(Architecture()).tile_size
        700
        """
        default = architecture.fitting_size(2 * architecture.context + USEFUL_PIXELS)
        return cls(default if tile_size is None else tile_size, architecture)

    @property
    def useful(self) -> int:
        """Largest output side of a tile in pixels."""
        return self.tile_size - 2 * self.architecture.context

    def probabilities(self, network: Graph, image: Any) -> Any:
        """Predicts the class probabilities of every pixel.

        Args:
            network: Maps a tile `(1, tile_size, tile_size, channels)` to logits.
            image: Tensor `(height, width, channels)` of at least one pixel.

        Returns:
            float32 tensor `(height, width, classes)`.
        """
        height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
        rows, columns = self._stride(height), self._stride(width)

        def predict_row(row: Any) -> Any:
            def predict_tile(column: Any) -> Any:
                window = self.window(image, row, column)
                return tf.nn.softmax(self._crop(network(window[None])[0], rows, columns))

            tiles = self._stack(width, columns, predict_tile, PARALLEL_TILES)
            tiles = tf.transpose(tiles, (1, 0, 2, 3))
            return tf.reshape(tiles, (rows, -1, self._classes))[:, :width]

        stack = tf.reshape(self._stack(height, rows, predict_row, 1), (-1, width, self._classes))
        return tf.ensure_shape(stack[:height], (*image.shape[:2], self._classes))

    def window(self, image: Any, row: Any, column: Any) -> Any:
        """Reads a tile, with mirrored pixels beyond the image's borders.

        Args:
            image: Tensor `(height, width, channels)` of at least one pixel.
            row: int64 scalar, row of the first output pixel of the tile.
            column: int64 scalar, its column.
        """
        height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
        rows, columns = self._mirrored(row, height), self._mirrored(column, width)
        return tf.gather(tf.reshape(image, (-1, image.shape[-1])), rows[:, None] * width + columns)

    def _mirrored(self, start: Any, size: Any) -> Any:
        """Returns mirrored positions along an axis."""
        # Whole periods of the mirror are added, so that no position is negative: ONNX rounds the
        # quotient of integers towards zero, TensorFlow and NumPy round it down.
        context = self.architecture.context
        offsets = tf.range(self.tile_size, dtype=tf.int64) - context + 2 * context * (size - 1)
        return mirror(start + offsets, size)

    @property
    def _classes(self) -> int:
        return self.architecture.classes

    def _stack(self, size: Any, stride: Any, predict: Graph, parallel: int) -> Any:
        """Stacks the predictions at all strides of an axis; the last may exceed its size."""
        count = tf.cast((size + stride - 1) // stride, tf.int32)
        array = tf.TensorArray(
            tf.float32, count, infer_shape=False, element_shape=(None, None, self._classes)
        )

        def write(number: Any, array: Any) -> tuple[Any, Any]:
            return number + 1, array.write(number, predict(tf.cast(number, tf.int64) * stride))

        loop = tf.while_loop(
            lambda number, _: number < count, write, (0, array), parallel_iterations=parallel
        )
        return loop[1].stack()

    def _stride(self, size: Any) -> Any:
        step = self.architecture.step
        useful = tf.constant(self.useful, tf.int64)
        return tf.where(useful >= size, useful, useful // step * step)

    def _crop(self, logits: Any, rows: Any, columns: Any) -> Any:
        skip = self.architecture.context - self.architecture.margin
        return tf.cast(logits[skip : skip + rows, skip : skip + columns], tf.float32)


def normalizer(normalization: Normalization, image: Any) -> Graph:
    """Returns a function that normalizes an image, or any part of it, in double precision.

    Args:
        normalization: Normalization of the training.
        image: float32 tensor `(height, width, channels)` of at least one pixel; its mean and
            deviation are used in the mode "image".

    Returns:
        A function from grey values `(..., channels)` to float32 of the same shape.
    """
    if normalization.mode == "image":
        mean, std = _moments(image)
    else:
        mean, std = (
            tf.constant(numbers, tf.float64) for numbers in (normalization.mean, normalization.std)
        )
    divisor = tf.where(std > 0, std, tf.ones_like(std))

    def normalize(pixels: Any) -> Any:
        return tf.cast((tf.cast(pixels, tf.float64) - mean) / divisor, tf.float32)

    return normalize


def scaled_prediction(predict: Graph, normalization: Normalization) -> Callable[[Any, Any], Any]:
    """Returns a function that predicts an image at another scale, as `Segmenter.predict` does.

    Args:
        predict: Maps a normalized image `(height, width, channels)` to probabilities of its size.
        normalization: Normalization of the training.

    Returns:
        A function from an image of at least one pixel, and a float32 scalar by which it is
        resampled, to float32 probabilities of the image's size.
    """

    def predict_scaled(image: Any, factor: Any) -> Any:
        size = tf.shape(image, tf.int64)[:2]
        scaled = tf.round(tf.cast(size, tf.float64) * tf.cast(factor, tf.float64))
        normalized = normalizer(normalization, image)(image)
        pixels = resample(normalized, tf.maximum(tf.cast(scaled, tf.int64), 1))
        return resample(predict(pixels), size)

    return predict_scaled


def resample(image: Any, size: Any) -> Any:
    """Resamples as `keras_unet.prediction.resampling`, in stock operations.

    Args:
        image: float32 tensor `(height, width, channels)`.
        size: int64 tensor, height and width of the result.
    """
    for side in tf.unstack(size, num=2):
        image = tf.transpose(_resample_rows(image, side), (1, 0, 2))
    return image


def _resample_rows(image: Any, target: Any) -> Any:
    source = tf.shape(image, tf.int64)[0]
    step = tf.cast(source, tf.float64) / tf.cast(target, tf.float64)
    reach = tf.maximum(tf.constant(1.0, tf.float64), step)
    centers = (tf.cast(tf.range(target), tf.float64) + 0.5) * step - 0.5
    taps = tf.cast(2 * reach, tf.int64) + 2
    first = tf.cast(tf.math.ceil(centers - reach), tf.int64)
    places = first[:, None] + tf.range(taps)
    weights = tf.maximum(
        tf.constant(0.0, tf.float64),
        1 - tf.abs(tf.cast(places, tf.float64) - centers[:, None]) / reach,
    )
    weights *= tf.cast((places >= 0) & (places < source), tf.float64)
    weights = tf.cast(weights / tf.reduce_sum(weights, 1, keepdims=True), tf.float32)
    inside = tf.clip_by_value(places, 0, source - 1)

    def add(tap: Any, total: Any) -> tuple[Any, Any]:
        pixels = tf.gather(image, inside[:, tap])
        return tap + 1, total + weights[:, tap, None, None] * pixels

    zero = tf.zeros_like(tf.gather(image, inside[:, 0]))
    start = tf.constant(0, tf.int64)
    return tf.while_loop(lambda tap, _: tap < taps, add, (start, zero))[1]


def _moments(image: Any) -> tuple[Any, Any]:
    """Returns mean and standard deviation of each channel; exactly 0 if it is constant."""
    count = tf.cast(tf.reduce_prod(tf.shape(image, tf.int64)[:2]), tf.float64)
    mean = _sum(image, lambda pixels: pixels) / count
    variance = _sum(image, lambda pixels: tf.square(pixels - mean)) / count
    lowest, highest = (reduce(image, (0, 1)) for reduce in (tf.reduce_min, tf.reduce_max))
    constant = lowest == highest
    return (
        tf.where(constant, tf.cast(lowest, tf.float64), mean),
        tf.where(constant, tf.zeros_like(variance), tf.sqrt(variance)),
    )


def _sum(image: Any, term: Graph) -> Any:
    """Sums a term of every pixel in double precision, a few rows at a time."""

    def add(row: Any, total: Any) -> tuple[Any, Any]:
        pixels = tf.cast(image[row : row + _ROWS], tf.float64)
        return row + _ROWS, total + tf.reduce_sum(term(pixels), (0, 1))

    zero = tf.zeros(image.shape[-1], tf.float64)
    height = tf.shape(image)[0]
    return tf.while_loop(lambda row, _: row < height, add, (0, zero))[1]


def average_ensemble(networks: Sequence[Any], normalizations: Sequence[Normalization]) -> Any:
    """Builds one network that averages the probabilities of several, of stock Keras operations.

    Conversion between normalizations, mean and logarithm are float32 in every precision.

    Args:
        networks: Keras networks of one architecture, at least one.
        normalizations: Normalization of each network's training, all in one mode.

    Returns:
        A `keras.Model` from tiles of the first normalization to float32 logits; for a single
        network, that network.
    """
    if len(networks) == 1:
        return networks[0]
    with precision_policy("float32"):
        tile = keras.Input(networks[0].input_shape[1:], name="image")
        probabilities = [
            _probabilities(network, _renormalized(tile, normalizations[0], normalization), number)
            for number, (network, normalization) in enumerate(
                zip(networks, normalizations, strict=True), 1
            )
        ]
        mean = layers.Average(name="mean")(probabilities)
        return keras.Model(tile, ops.log(ops.maximum(mean, SMALLEST)), name="ensemble")


def _probabilities(network: Any, tile: Any, number: int) -> Any:
    named = keras.Model(network.input, network.output, name=f"network{number}")
    return layers.Softmax(name=f"probabilities{number}")(named(tile))


def _renormalized(tile: Any, source: Normalization, target: Normalization) -> Any:
    """Converts grey values from one normalization to another."""
    if source == target:
        return tile
    scale = _divisor(source) / _divisor(target)
    offset = (np.array(source.mean) - np.array(target.mean)) / _divisor(target)
    return layers.Rescaling(scale.tolist(), offset.tolist())(tile)


def _divisor(normalization: Normalization) -> NDArray[np.float64]:
    std = np.array(normalization.std)
    return np.where(std > 0, std, 1.0)


def any_size_model(network: Any, architecture: Architecture, normalization: Normalization) -> Any:
    """Wraps a network, to predict whole images or blocks of any size.

    Args:
        network: The Keras network, in float32.
        architecture: Architecture of the network.
        normalization: Normalization of the training. The statistics of a data set become part of
            the model; in the mode "image", images must be normalized before, since the statistics
            of a block differ from those of its image.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)`, height and width at least 1, to
        float32 probabilities `(batch, height, width, classes)`.
    """
    image = keras.Input((None, None, architecture.channels), name=IMAGE)
    pixels = _normalized(image, normalization)
    for axis in _AXES:
        pixels = ops.take(pixels, _read_positions(image, axis, architecture), axis=axis)
    logits = network(pixels)
    for axis in _AXES:
        logits = ops.take(logits, _kept_positions(image, axis, architecture), axis=axis)
    return keras.Model(image, layers.Softmax(name=PROBABILITIES)(logits), name="any_size")


def halo(network: Architecture) -> int:
    """Returns the pixels that a program cuts off each side of a predicted block.

    >>> halo(Architecture()), halo(Architecture(padding="same"))
    (96, 96)
    """
    return -(-network.context // network.step) * network.step


def smallest_block(network: Architecture) -> int:
    """Returns the smallest side of a block in pixels: two halos and one step of the lattice.

    >>> smallest_block(Architecture())
    208
    """
    return 2 * halo(network) + network.step


def _normalized(image: Any, normalization: Normalization) -> Any:
    """Normalizes by the statistics of a data set, in double precision."""
    if normalization.mode == "image":
        return image
    scale = 1 / np.where(np.array(normalization.std) > 0, normalization.std, 1.0)
    offset = -np.array(normalization.mean) * scale
    rescaled = layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float64")(image)
    return ops.cast(rescaled, "float32")


def _read_positions(image: Any, axis: int, network: Architecture) -> Any:
    """Returns mirrored positions along an axis, with context, for a size that the network takes."""
    # Whole periods of the mirror are added as in `GraphTiling`, so that no position is negative.
    step, context = network.step, network.context
    beyond = network.fitting_size(2 * context + step) - context - step
    rounded_up = ops.repeat(_ones(image, axis, step), step)
    padded = ops.pad(rounded_up, [[context, beyond]], constant_values=1)
    size = ops.sum(_ones(image, axis))
    return mirror(ops.cumsum(padded) - 1 - context + 2 * context * (size - 1), size)


def _kept_positions(image: Any, axis: int, network: Architecture) -> Any:
    """Returns positions of the image's pixels among the logits."""
    return ops.cumsum(_ones(image, axis)) - 1 + network.context - network.margin


def _ones(image: Any, axis: int, step: int = 1) -> Any:
    """Returns a one for every pixel along an axis, or for every `step` of them."""
    line = tuple(slice(None, None, step) if number == axis else 0 for number in range(4))
    return ops.ones_like(image[line], dtype="int32")
