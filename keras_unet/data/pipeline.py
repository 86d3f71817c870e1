"""From training images to batches of tiles: a `tf.data` pipeline whose every tile has a number.

A tile's number and the seed decide all that is random about it (`data.augmentation`); an engine
cuts it out of the images (`data.tiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data.augmentation import NO_AUGMENTATION, Augmentation, draw_tile
from keras_unet.data.tiles import (
    PixelBuffer,
    TrainingImage,
    check_images,
    cut_by_elasticdeform,
    cut_in_graph,
)
from keras_unet.tiling import mirrored_window

Engine = Literal["graph", "elasticdeform"]

AugmentationFunction = Callable[
    [NDArray[np.float32], NDArray[np.int32]], tuple[NDArray[Any], NDArray[Any]]
]
"""A function from a tile and its labels to a tile and labels of the same shapes.

The tile is normalized grey values `(tile, tile, channels)`, the labels are those of the training
image `(tile, tile)`.
"""

TargetFunction = Callable[[NDArray[np.int32]], tuple[NDArray[np.uint8], NDArray[np.float32]]]
"""A function from labels to classes and weights, all `(height, width)`."""

Weights = Literal["channel", "sample_weight"]
"""Place of the weights in a batch: the last channel of `y_true`, or the third of the batch."""

_HOST = "/CPU:0"
_AHEAD = 2  # batches that wait


def build_dataset(  # noqa: PLR0913 - all but two by name
    images: Sequence[TrainingImage],
    architecture: Architecture,
    *,
    tile_size: int,
    seed: int = 0,
    batch_size: int = 1,
    part: tuple[int, int] = (0, 1),
    augmentation: Augmentation | None = Augmentation(),
    first: int = 0,
    engine: Engine = "graph",
    device: str | None = None,
    weights: Weights = "channel",
) -> tf.data.Dataset:
    """Builds the endless data set of training batches.

    Args:
        images: The training images with their classes and weight maps.
        architecture: The network that the tiles are for.
        tile_size: Height and width of the input tile in pixels.
        seed: Makes the tiles reproducible.
        batch_size: Tiles a batch. The paper takes 1, and large tiles.
        part: Which part of each batch to build, and of how many: (1, 2) is the second half. Other
            workers build the rest.
        augmentation: How tiles are varied; None for plain tiles.
        first: Number of the first batch, for a run that goes on.
        engine: "graph" deforms inside the compiled graph; "elasticdeform" by the library of that
            name, as a reference (extra `elasticdeform`).
        device: Where tiles are deformed and batches wait; None for the first GPU, or the CPU where
            there is none.
        weights: Place of the weights in a batch.

    Returns:
        A `tf.data.Dataset` of `(image, y_true)`: float32 `(batch, tile, tile, channels)` and
        `(batch, output, output, 2)` with the label and the weight of each pixel, as
        `WeightedCrossEntropy` reads them; or of `(image, y_true, sample_weight)`, the latter two
        `(batch, output, output)`.

    Raises:
        ValueError: If the images do not suit the architecture or each other, the tile size does
            not fit, or a number is out of its range.
        ImportError: If `engine` is "elasticdeform" and the library is missing.
    """
    architecture.check_size(tile_size, "tile_size")
    _check_numbers(batch_size, first, engine)
    _check_part(part, batch_size)
    check_images(images, architecture)
    cut = cut_in_graph if engine == "graph" else cut_by_elasticdeform
    atlas = PixelBuffer.of(images)
    render = cut(atlas, tile_size, architecture.output_size(tile_size))
    place = device or _fastest_device()
    variation = NO_AUGMENTATION if augmentation is None else augmentation

    def tile(number: Any) -> Any:
        draw = draw_tile(number, atlas.sizes, variation, seed)
        with tf.device(place):
            return _placed(*render(draw), weights)

    order = _Order(batch_size, part, first)
    if engine == "elasticdeform":
        return _in_python(tile, order)
    tiles = order.places.map(order.numbered(tile), num_parallel_calls=2, deterministic=True)
    batches = tiles.batch(order.count, drop_remainder=True)
    if place == _HOST:
        return batches.prefetch(_AHEAD)
    return batches.apply(tf.data.experimental.prefetch_to_device(place, _AHEAD))


def build_dataset_by_function(
    images: Sequence[tuple[NDArray[np.float32], NDArray[np.int32]]],
    architecture: Architecture,
    *,
    augmentation: AugmentationFunction,
    target: TargetFunction,
    tile_size: int,
    seed: int = 0,
    batch_size: int = 1,
    part: tuple[int, int] = (0, 1),
    first: int = 0,
    weights: Weights = "channel",
) -> tf.data.Dataset:
    """Builds what `build_dataset` does, with tiles that are varied by a Python function.

    The function runs in Python, one tile at a time. Which tile comes next depends on the seed and
    its number; what the function draws itself does not.

    Args:
        images: Normalized grey values `(height, width, channels)` and labels `(height, width)`.
        architecture: The network that the tiles are for.
        augmentation: The function, called with a tile and its labels.
        target: Makes classes and weights of the labels that the function returns.
        tile_size: As `build_dataset`.
        seed: Seed of the tiles' positions.
        batch_size: As `build_dataset`.
        part: As `build_dataset`.
        first: As `build_dataset`.
        weights: As `build_dataset`.

    Raises:
        ValueError: If a number is out of its range, or the function returns other shapes than it
            was given, or labels that are no whole numbers.
    """
    architecture.check_size(tile_size, "tile_size")
    _check_numbers(batch_size, first, "graph")
    _check_part(part, batch_size)
    output = architecture.output_size(tile_size)
    lost = (tile_size - output) // 2
    inner = slice(lost, lost + output)

    def cut(image: int, row: int, column: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        starts = row - tile_size // 2, column - tile_size // 2
        window = [slice(start, start + tile_size) for start in starts]
        given = [mirrored_window(array, *window) for array in images[image]]
        pixels, labels = _augmented(augmentation, *given)
        targets = np.stack(target(labels), axis=-1, dtype=np.float32)
        return pixels, targets[inner, inner]

    sizes = np.array([labels.shape for _, labels in images])
    first_pixel = np.cumsum(sizes.prod(axis=1)) - sizes.prod(axis=1)
    table = tf.constant(np.column_stack([first_pixel, sizes]), tf.int32)

    def tile(number: Any) -> Any:
        draw = draw_tile(number, table, NO_AUGMENTATION, seed)
        image = tf.searchsorted(table[:, 0], draw.size[:1], side="right")[0] - 1
        pixels, targets = tf.numpy_function(
            cut, [image, *tf.unstack(draw.center)], [tf.float32] * 2
        )
        return _placed(
            tf.ensure_shape(pixels, (tile_size, tile_size, architecture.channels)),
            tf.ensure_shape(targets, (output, output, 2)),
            weights,
        )

    cut(0, 0, 0)  # what the function does wrong is said here, not by TensorFlow later
    return _in_python(tile, _Order(batch_size, part, first))


def _placed(image: Any, targets: Any, weights: Weights) -> tuple[Any, ...]:
    """Puts the weights where they are asked for."""
    if weights == "channel":
        return image, targets
    return image, targets[..., 0], targets[..., 1]


def _augmented(
    function: AugmentationFunction, image: NDArray[np.float32], labels: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Calls a user's function and checks what it returns."""
    returned = function(image.copy(), labels.copy())
    shapes = [np.shape(one) for one in returned] if isinstance(returned, tuple | list) else None
    if shapes != [image.shape, labels.shape]:
        raise ValueError(
            "augmentation must return a tile and its labels, of the shapes it was given, "
            f"{image.shape} and {labels.shape}. Received: {shapes or type(returned).__name__}"
        )
    pixels, truth = np.asarray(returned[0], np.float32), np.asarray(returned[1])
    if truth.dtype.kind not in "iu" or not np.isfinite(pixels).all():
        raise ValueError(
            "augmentation must return finite grey values and labels of whole numbers; turn labels "
            f"without interpolation. Received: labels of {truth.dtype}, "
            f"{np.count_nonzero(~np.isfinite(pixels))} grey values that are NaN or infinite"
        )
    return pixels, truth.astype(np.int32)


@dataclass(frozen=True)
class _Order:
    """Numbers of the tiles of a worker's part of each batch."""

    batch_size: int
    part: tuple[int, int]
    first: int

    @property
    def count(self) -> int:
        return self.batch_size // self.part[1]

    @property
    def places(self) -> Any:
        return tf.data.Dataset.range(self.first * self.count, np.iinfo(np.int64).max)

    def numbered(self, tile: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Makes the function from a place in the part to the tile."""

        def placed(place: Any) -> Any:
            batch, within = place // self.count, place % self.count
            return tile(batch * self.batch_size + self.part[0] * self.count + within)

        # A second less: there is nothing to translate.
        converted: Callable[[Any], Any] = tf.autograph.experimental.do_not_convert(placed)
        return converted


def _in_python(tile: Callable[[Any], Any], order: _Order) -> Any:
    """Builds batches of tiles that Python code makes, one after the other."""
    tiles = order.places.map(order.numbered(tile))
    return _never_ahead(tiles.batch(order.count, drop_remainder=True))


def _fastest_device() -> str:
    return "/GPU:0" if tf.config.list_logical_devices("GPU") else _HOST


def _never_ahead(data: Any) -> Any:
    """Keeps TensorFlow from fusing `map` with `batch`, or adding a prefetch, by itself.

    Either runs Python code in a thread, ahead. An iterator that is dropped meanwhile waits for that
    code, and the code for the interpreter, which the dropping thread holds: for ever.
    """
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return data.with_options(options)


def _check_part(part: tuple[int, int], batch_size: int) -> None:
    number, parts = part
    if not 0 <= number < parts or batch_size % parts:
        raise ValueError(
            "part must be (number, parts) with a number from 0 to less than parts, which divide "
            f"batch_size={batch_size}. Received: part={part}"
        )


def _check_numbers(batch_size: int, first: int, engine: str) -> None:
    for name, value, lowest in (("batch_size", batch_size, 1), ("first", first, 0)):
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}. Received: {name}={value}")
    if engine not in get_args(Engine):
        raise ValueError(f'engine must be "graph" or "elasticdeform". Received: engine={engine!r}')
