"""The overlap-tile strategy (figure 2 of the paper) as operations of a graph.

The same tiles as those of `keras_unet.tiling.Tiling` with one fixed tile size, for an image whose
size is known only when the graph runs. Each tile is read through mirrored positions, scored, and
written once; besides the image and its result, memory is that of the tiles computed at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
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
            ValueError: With the rule and the sizes that fit.
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
