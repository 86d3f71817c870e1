"""Input pipeline (`tf.data`) from training images to batches of tiles.

Tiles are numbered. The number and the seed determine the random numbers of a tile
(`data.augmentation`); an engine cuts it out of the images (`data.tiles`); at last its grey
values are changed (`data.intensity`).
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
from keras_unet.data.intensity import draw_intensity, intensity_in_graph
from keras_unet.data.sampling import ClassPixels
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

The tile has normalized grey values, `(tile, tile, channels)`, the labels are those of the training
image, `(tile, tile)`.
"""

TargetFunction = Callable[
    [NDArray[np.int32]], tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]
]
"""A function from labels to classes, weights and objects, each `(height, width)`."""

Weights = Literal["channel", "sample_weight"]
"""Position of the weights in a batch: last channel of `y_true`, or third element of the batch."""

_HOST = "/CPU:0"
_PREFETCHED = 2  # batches


def build_dataset(  # noqa: PLR0913 - all but two by name
    images: Sequence[TrainingImage],
    architecture: Architecture,
    *,
    tile_size: int,
    seed: int = 0,
    batch_size: int = 1,
    shard: tuple[int, int] = (0, 1),
    augmentation: Augmentation | None = Augmentation(),
    first: int = 0,
    engine: Engine = "graph",
    device: str | None = None,
    weights: Weights = "channel",
    centers: ClassPixels | None = None,
) -> tf.data.Dataset:
    """Builds an endless data set of training batches.

    Args:
        images: Training images with classes and weight maps.
        architecture: Architecture of the network.
        tile_size: Height and width of the input tile in pixels.
        seed: Random seed of the tiles.
        batch_size: Tiles per batch. The paper uses 1, with large tiles.
        shard: Index of the shard of each batch to build, and number of shards: (1, 2) is the second
            half. Other workers build the rest.
        augmentation: Augmentation of the tiles; None for plain tiles.
        first: Number of the first batch, to continue a run.
        engine: Implementation of the deformation: "graph" in the compiled graph, or "elasticdeform"
            by the library of that name, as a reference (extra `elasticdeform`).
        device: Device for the deformation and prefetched batches; None for the first GPU, or the
            CPU if there is none.
        weights: Position of the weights in a batch.
        centers: Pixels of each class, to balance the centers of tiles; None for uniform centers.

    Returns:
        A `tf.data.Dataset` of `(image, y_true)`: float32 `(batch, tile, tile, channels)` and
        `(batch, output, output, 2)` with label and weight of each pixel, for
        `WeightedCrossEntropy`, or with affinities its object as third, for `AffinityCrossEntropy`;
        or of `(image, y_true, sample_weight)`, the latter two `(batch, output, output)`.

    Raises:
        ValueError: If the images do not fit the architecture or each other, the tile size does not
            fit, or a number is out of range.
        ImportError: If `engine` is "elasticdeform" and the library is missing.
    """
    architecture.check_size(tile_size, "tile_size")
    _check_numbers(batch_size, first, engine)
    _check_shard(shard, batch_size)
    check_images(images, architecture)
    make_cutter = cut_in_graph if engine == "graph" else cut_by_elasticdeform
    _check_weights(weights, architecture)
    pixels = PixelBuffer.of(images, affinities=architecture.affinities)
    cut = make_cutter(pixels, tile_size, architecture.output_size(tile_size))
    tile_device = device or _fastest_device()
    ranges = NO_AUGMENTATION if augmentation is None else augmentation

    change_intensity = intensity_in_graph(ranges) if ranges.changes_intensity else None

    def tile(number: Any) -> Any:
        parameters = draw_tile(number, pixels.sizes, ranges, seed, centers)
        if change_intensity is None:
            with tf.device(tile_device):
                return _arrange(*cut(parameters), weights)
        intensity = draw_intensity(number, ranges, seed)
        with tf.device(tile_device):
            image, targets = cut(parameters)
            return _arrange(change_intensity(image, intensity), targets, weights)

    numbers = _TileNumbers(batch_size, shard, first)
    if engine == "elasticdeform":
        return _build_sequentially(tile, numbers)
    tiles = numbers.indices.map(numbers.by_index(tile), num_parallel_calls=2, deterministic=True)
    batches = tiles.batch(numbers.tiles_per_batch, drop_remainder=True)
    if tile_device == _HOST:
        return batches.prefetch(_PREFETCHED)
    return batches.apply(tf.data.experimental.prefetch_to_device(tile_device, _PREFETCHED))


def build_dataset_by_function(  # noqa: PLR0913 - all but two by name
    images: Sequence[tuple[NDArray[np.float32], NDArray[np.int32]]],
    architecture: Architecture,
    *,
    augmentation: AugmentationFunction,
    target: TargetFunction,
    tile_size: int,
    seed: int = 0,
    batch_size: int = 1,
    shard: tuple[int, int] = (0, 1),
    first: int = 0,
    weights: Weights = "channel",
    centers: ClassPixels | None = None,
) -> tf.data.Dataset:
    """Builds a data set like `build_dataset`, augmented by a Python function.

    The function is called for one tile after the other. The positions of the tiles depend on the
    seed alone; random numbers of the function do not.

    Args:
        images: Normalized grey values `(height, width, channels)` and labels `(height, width)`, or
            `(height, width, 2)`, see `LabelEncoding`.
        architecture: Architecture of the network.
        augmentation: Function of a tile and its labels.
        target: Function from the augmented labels to classes, weights and objects.
        tile_size: As `build_dataset`.
        seed: Random seed of the positions.
        batch_size: As `build_dataset`.
        shard: As `build_dataset`.
        first: As `build_dataset`.
        weights: As `build_dataset`.
        centers: As `build_dataset`.

    Raises:
        ValueError: If a number is out of range, or the function returns other shapes than it
            received, or labels that are no whole numbers.
    """
    architecture.check_size(tile_size, "tile_size")
    _check_numbers(batch_size, first, "graph")
    _check_shard(shard, batch_size)
    _check_weights(weights, architecture)
    output = architecture.output_size(tile_size)
    targets_number = 3 if architecture.affinities else 2
    margin = (tile_size - output) // 2
    inner = slice(margin, margin + output)

    def cut(image: int, row: int, column: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        starts = row - tile_size // 2, column - tile_size // 2
        window = [slice(start, start + tile_size) for start in starts]
        tile_and_labels = [mirrored_window(array, *window) for array in images[image]]
        pixels, labels = _augment(augmentation, *tile_and_labels)
        targets = np.stack(target(labels)[:targets_number], axis=-1, dtype=np.float32)
        return pixels, targets[inner, inner]

    sizes = np.array([labels.shape[:2] for _, labels in images])
    first_pixel = np.cumsum(sizes.prod(axis=1)) - sizes.prod(axis=1)
    table = tf.constant(np.column_stack([first_pixel, sizes]), tf.int32)

    def tile(number: Any) -> Any:
        parameters = draw_tile(number, table, NO_AUGMENTATION, seed, centers)
        image = tf.searchsorted(table[:, 0], parameters.size[:1], side="right")[0] - 1
        pixels, targets = tf.numpy_function(
            cut, [image, *tf.unstack(parameters.center)], [tf.float32] * 2
        )
        return _arrange(
            tf.ensure_shape(pixels, (tile_size, tile_size, architecture.channels)),
            tf.ensure_shape(targets, (output, output, targets_number)),
            weights,
        )

    cut(0, 0, 0)  # errors of the function are raised here, and not by TensorFlow later
    return _build_sequentially(tile, _TileNumbers(batch_size, shard, first))


def _arrange(image: Any, targets: Any, weights: Weights) -> tuple[Any, ...]:
    if weights == "channel":
        return image, targets
    return image, targets[..., 0], targets[..., 1]


def _augment(
    function: AugmentationFunction, image: NDArray[np.float32], labels: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Calls a user's function and checks its result."""
    result = function(image.copy(), labels.copy())
    shapes = [np.shape(array) for array in result] if isinstance(result, tuple | list) else None
    if shapes != [image.shape, labels.shape]:
        raise ValueError(
            "augmentation must return a tile and its labels of unchanged shapes, "
            f"{image.shape} and {labels.shape}. Received: {shapes or type(result).__name__}"
        )
    pixels, new_labels = np.asarray(result[0], np.float32), np.asarray(result[1])
    if new_labels.dtype.kind not in "iu" or not np.isfinite(pixels).all():
        raise ValueError(
            "augmentation must return finite grey values and labels of whole numbers; transform "
            f"labels without interpolation. Received: labels of {new_labels.dtype}, "
            f"{np.count_nonzero(~np.isfinite(pixels))} grey values that are NaN or infinite"
        )
    return pixels, new_labels.astype(np.int32)


@dataclass(frozen=True)
class _TileNumbers:
    """Numbers of the tiles in a worker's shard of each batch."""

    batch_size: int
    shard: tuple[int, int]
    first: int

    @property
    def tiles_per_batch(self) -> int:
        return self.batch_size // self.shard[1]

    @property
    def indices(self) -> Any:
        return tf.data.Dataset.range(self.first * self.tiles_per_batch, np.iinfo(np.int64).max)

    def by_index(self, tile: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Converts a function of the tile number to one of the index in the shard."""

        def tile_of_index(index: Any) -> Any:
            batch, within = index // self.tiles_per_batch, index % self.tiles_per_batch
            return tile(batch * self.batch_size + self.shard[0] * self.tiles_per_batch + within)

        # Saves a second of AutoGraph, which has nothing to convert.
        converted: Callable[[Any], Any] = tf.autograph.experimental.do_not_convert(tile_of_index)
        return converted


def _build_sequentially(tile: Callable[[Any], Any], numbers: _TileNumbers) -> Any:
    """Builds batches of tiles that are made by Python code, one after the other."""
    tiles = numbers.indices.map(numbers.by_index(tile))
    batches = tiles.batch(numbers.tiles_per_batch, drop_remainder=True)
    return _without_optimizations(batches)


def _fastest_device() -> str:
    return "/GPU:0" if tf.config.list_logical_devices("GPU") else _HOST


def _without_optimizations(data: Any) -> Any:
    # By default TensorFlow fuses `map` with `batch`, or adds a prefetch; either runs Python code
    # ahead in a thread. Deleting the iterator then waits for that code, and the code for the
    # interpreter lock, which the deleting thread holds: a deadlock.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return data.with_options(options)


def _check_weights(weights: Weights, architecture: Architecture) -> None:
    if weights != "channel" and architecture.affinities:
        raise ValueError(
            'weights must be "channel" for a network with affinities, whose loss is '
            f"AffinityCrossEntropy. Received: {weights!r}"
        )


def _check_shard(shard: tuple[int, int], batch_size: int) -> None:
    index, shards = shard
    if not 0 <= index < shards or batch_size % shards:
        raise ValueError(
            "shard must be (index, shards) with an index from 0 to shards - 1, and shards must "
            f"divide batch_size={batch_size}. Received: shard={shard}"
        )


def _check_numbers(batch_size: int, first: int, engine: str) -> None:
    for name, value, lowest in (("batch_size", batch_size, 1), ("first", first, 0)):
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}. Received: {name}={value}")
    if engine not in get_args(Engine):
        raise ValueError(f'engine must be "graph" or "elasticdeform". Received: engine={engine!r}')
