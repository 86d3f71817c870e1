"""Pieces of an exported graph: tiling, normalization, any size, and the mean of an ensemble."""

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

USEFUL_PIXELS = 512
"""Pixels a side that a tile of the default size fills at least: a usual picture in a few tiles."""

AT_A_TIME = 2
"""Tiles of a strip computed side by side: one is read and stitched while the other is scored."""

Score = Callable[[Any], Any]


@dataclass(frozen=True)
class GraphTiling:
    """Lays tiles of one size over images of any size, inside a graph.

    Attributes:
        tile_size: Height and width of the network's input in pixels.
        architecture: The network; it tells the lattice and the context.
    """

    tile_size: int
    architecture: Architecture

    def __post_init__(self) -> None:
        """Refuses a tile that does not fit the network or does not reach along the lattice.

        Raises:
            ValueError: With the normalization and the sizes that fit.
        """
        step = self.architecture.step
        Tiling((step, step), (self.tile_size, self.tile_size), self.architecture)

    @classmethod
    def of(cls, architecture: Architecture, tile_size: int | None = None) -> GraphTiling:
        """Takes the given tile size or, for None, one that fills USEFUL_PIXELS.

        >>> GraphTiling.of(Architecture()).tile_size
        700
        """
        default = architecture.fitting_size(2 * architecture.context + USEFUL_PIXELS)
        return cls(default if tile_size is None else tile_size, architecture)

    @property
    def useful(self) -> int:
        """Pixels a side that one tile fills at most."""
        return self.tile_size - 2 * self.architecture.context

    def probabilities(self, score: Score, image: Any) -> Any:
        """Predicts the class probabilities of every pixel.

        Args:
            score: Maps a tile `(1, tile_size, tile_size, channels)` to the network's logits.
            image: Tensor `(height, width, channels)` of at least one pixel.

        Returns:
            float32 tensor `(height, width, classes)`.
        """
        height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
        rows, columns = self._stride(height), self._stride(width)

        def strip(row: Any) -> Any:
            def tile(column: Any) -> Any:
                window = self.window(image, row, column)
                return tf.nn.softmax(self._kept(score(window[None])[0], rows, columns))

            tiles = tf.transpose(self._stacked(width, columns, tile, AT_A_TIME), (1, 0, 2, 3))
            return tf.reshape(tiles, (rows, -1, self._classes))[:, :width]

        strips = tf.reshape(self._stacked(height, rows, strip, 1), (-1, width, self._classes))
        return tf.ensure_shape(strips[:height], (*image.shape[:2], self._classes))

    def window(self, image: Any, row: Any, column: Any) -> Any:
        """Reads a tile that may reach beyond the image's borders.

        Args:
            image: Tensor `(height, width, channels)` of at least one pixel.
            row: int64 scalar, row of the image that the tile's first useful pixel has.
            column: The same for its column.
        """
        height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
        rows, columns = self._places(row, height), self._places(column, width)
        return tf.gather(tf.reshape(image, (-1, image.shape[-1])), rows[:, None] * width + columns)

    def _places(self, start: Any, size: Any) -> Any:
        """Mirrored positions along an axis.

        They are moved by whole periods of the mirror so that none is negative: ONNX, to which a
        graph may be converted, divides whole numbers towards zero, and others round down.
        """
        context = self.architecture.context
        offsets = tf.range(self.tile_size, dtype=tf.int64) - context + 2 * context * (size - 1)
        return mirror(start + offsets, size)

    @property
    def _classes(self) -> int:
        return self.architecture.classes

    def _stacked(self, size: Any, stride: Any, part: Callable[[Any], Any], at_a_time: int) -> Any:
        """Stacks the parts of one axis, each made from its first pixel; the last may reach over."""
        count = tf.cast((size + stride - 1) // stride, tf.int32)
        written = tf.TensorArray(
            tf.float32, count, infer_shape=False, element_shape=(None, None, self._classes)
        )

        def write(number: Any, written: Any) -> tuple[Any, Any]:
            return number + 1, written.write(number, part(tf.cast(number, tf.int64) * stride))

        loop = tf.while_loop(
            lambda number, _: number < count, write, (0, written), parallel_iterations=at_a_time
        )
        return loop[1].stack()

    def _stride(self, size: Any) -> Any:
        step = self.architecture.step
        useful = tf.constant(self.useful, tf.int64)
        return tf.where(useful >= size, useful, useful // step * step)

    def _kept(self, logits: Any, rows: Any, columns: Any) -> Any:
        skip = self.architecture.context - self.architecture.margin
        return tf.cast(logits[skip : skip + rows, skip : skip + columns], tf.float32)


_ROWS = 256
"""Rows that are summed in double precision at a time, so that no such copy of an image is made."""


def normalizer(normalization: Normalization, image: Any) -> Callable[[Any], Any]:
    """Returns the function that normalizes an image, or any part of it, in double precision.

    Args:
        normalization: What training has recorded.
        image: float32 tensor `(height, width, channels)` of at least one pixel, which is measured
            where every image is measured by itself.

    Returns:
        A map from grey values `(..., channels)` to float32 of the same shape.
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


layers, ops = keras.layers, keras.ops

SMALLEST = 2.0**-24
"""Least probability, so that every logarithm is finite.

Beside a probability of 1 they are nothing in float32. In int8, whose steps are even, logarithms
that went further down would leave few steps for the probabilities that matter.
"""


def average_ensemble(networks: Sequence[Any], normalizations: Sequence[Normalization]) -> Any:
    """Joins networks that predict together.

    Mean, logarithm and what makes up for different normalizations are float32 in every precision.
    All is of stock Keras operations.

    Args:
        networks: Keras networks of one architecture, at least one.
        normalizations: How grey values are normalized for each, in one mode.

    Returns:
        A `keras.Model` from what the first normalization makes of grey values to logits, float32; of one
        network, that network.
    """
    if len(networks) == 1:
        return networks[0]
    with precision_policy("float32"):
        tile = keras.Input(networks[0].input_shape[1:], name="image")
        each = [
            _probabilities(network, _renormalized(tile, normalizations[0], normalization), number)
            for number, (network, normalization) in enumerate(
                zip(networks, normalizations, strict=True), 1
            )
        ]
        mean = layers.Average(name="mean")(each)
        return keras.Model(tile, ops.log(ops.maximum(mean, SMALLEST)), name="ensemble")


def _probabilities(network: Any, tile: Any, number: int) -> Any:
    named = keras.Model(network.input, network.output, name=f"network{number}")
    return layers.Softmax(name=f"probabilities{number}")(named(tile))


def _renormalized(tile: Any, given: Normalization, wanted: Normalization) -> Any:
    """Turns grey values normalized by one normalization into what another makes of them."""
    if given == wanted:
        return tile
    scale = _divisor(given) / _divisor(wanted)
    offset = (np.array(given.mean) - np.array(wanted.mean)) / _divisor(wanted)
    return layers.Rescaling(scale.tolist(), offset.tolist())(tile)


def _divisor(normalization: Normalization) -> NDArray[np.float64]:
    std = np.array(normalization.std)
    return np.where(std > 0, std, 1.0)


IMAGE, PROBABILITIES = "image", "probabilities"

_AXES = (1, 2)
"""Height and width of `(batch, height, width, channels)`."""


def any_size_model(network: Any, architecture: Architecture, normalization: Normalization) -> Any:
    """Wraps a network.

    Args:
        network: The Keras network, in float32.
        architecture: Its numbers.
        normalization: How grey values are normalized. Numbers of the data set are part of the model; an
            image that is measured by itself must come normalized, since a block of it would be
            measured otherwise.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)`, each size at least 1, to
        probabilities `(batch, height, width, classes)`, float32.
    """
    image = keras.Input((None, None, architecture.channels), name=IMAGE)
    pixels = _normalized(image, normalization)
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


def _normalized(image: Any, normalization: Normalization) -> Any:
    """Normalizes by the numbers of the data set, in double precision."""
    if normalization.mode == "image":
        return image
    scale = 1 / np.where(np.array(normalization.std) > 0, normalization.std, 1.0)
    offset = -np.array(normalization.mean) * scale
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
