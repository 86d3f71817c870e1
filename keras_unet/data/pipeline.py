"""From training images to batches of tiles: a `tf.data` pipeline whose every tile has a number.

A tile's number and the seed decide all that is random about it (`data.augmentation`); an engine
cuts it out of the images (`data.tiles`, or `data.elastic` as a reference).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data.atlas import Atlas, TrainingImage, check_images
from keras_unet.data.augmentation import Augmentation, draw_tile
from keras_unet.data.elastic import cut_by_elasticdeform
from keras_unet.data.tiles import cut_in_graph

Engine = Literal["graph", "elasticdeform"]

_HOST = "/CPU:0"
_AHEAD = 2  # batches that wait


def build_dataset(
    images: Sequence[TrainingImage],
    architecture: Architecture,
    *,
    tile_size: int,
    seed: int = 0,
    batch_size: int = 1,
    part: tuple[int, int] = (0, 1),
    augmentation: Augmentation = Augmentation(),
    first: int = 0,
    engine: Engine = "graph",
    device: str | None = None,
) -> Any:
    """Builds the endless data set of training batches.

    Args:
        images: The training images with their classes and weight maps.
        architecture: The network that the tiles are for.
        tile_size: Height and width of the input tile in pixels.
        seed: Makes the tiles reproducible.
        batch_size: Tiles a batch. The paper takes 1, and large tiles.
        part: Which part of each batch to build, and of how many: (1, 2) is the second half. Other
            workers build the rest.
        augmentation: How tiles are varied; NO_AUGMENTATION for plain tiles.
        first: Number of the first batch, for a run that goes on.
        engine: "graph" deforms inside the compiled graph; "elasticdeform" by the library of that
            name, as a reference (extra `elasticdeform`).
        device: Where tiles are deformed and batches wait; None for the first GPU, or the CPU where
            there is none.

    Returns:
        A `tf.data.Dataset` of `(image, y_true)`: float32 `(batch, tile, tile, channels)` and
        `(batch, output, output, 2)` with the label and the weight of each pixel, as
        `WeightedCrossEntropy` reads them.

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
    atlas = Atlas.of(images)
    render = cut(atlas, tile_size, architecture.output_size(tile_size))
    place = device or _fastest_device()

    count = batch_size // part[1]

    def tile(place_in_part: Any) -> Any:
        batch, within = place_in_part // count, place_in_part % count
        number = batch * batch_size + part[0] * count + within
        draw = draw_tile(number, atlas.sizes, augmentation, seed)
        with tf.device(place):
            return render(draw)

    made = tf.autograph.experimental.do_not_convert(tile)  # a second less: nothing to translate
    places = tf.data.Dataset.range(first * count, np.iinfo(np.int64).max)
    if engine == "elasticdeform":
        return _never_ahead(places.map(made).batch(count, drop_remainder=True))
    tiles = places.map(made, num_parallel_calls=2, deterministic=True)
    batches = tiles.batch(count, drop_remainder=True)
    if place == _HOST:
        return batches.prefetch(_AHEAD)
    return batches.apply(tf.data.experimental.prefetch_to_device(place, _AHEAD))


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
