"""From samples to batches of tiles: a `tf.data` pipeline whose every tile has a number.

All training images lie behind one another in one flat list of pixels. Tile number n is drawn from
(seed, n) alone: two runs with one seed see the same tiles, and a resumed run goes on with the tile
it would have seen. Its centre is a pixel drawn uniformly from the list, so large images are seen
more often than small ones and, since the plane is tiled by mirrored copies, every pixel of an image
is as often covered as any other (but for the outermost, which mirroring does not repeat).

A tile is read once, at coordinates that already hold rotation, flip and elastic deformation: image
(bilinear), labels (nearest) and weights (bilinear) by the same coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data.deformation import displacement_field, warp
from keras_unet.tiling import mirrored_window

Engine = Literal["graph", "elasticdeform"]
_MOST_PIXELS = 2**31 - 1  # they are counted in int32


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training tiles are varied (section 3.1 of the paper).

    Attributes:
        nodes: Nodes of the displacement grid along each side of a tile. The paper takes 3.
        amplitude: Standard deviation of the displacements in pixels. The paper takes 10.
        rotation: Whether tiles are turned by any angle.
        flip: Whether half of the tiles are mirrored.
        contrast: Standard deviation of the logarithm of a factor on the standardised grey values.
        brightness: Standard deviation of an offset, in units of the image's standard deviation.
    """

    nodes: int = 3
    amplitude: float = 10.0
    rotation: bool = True
    flip: bool = True
    contrast: float = 0.15
    brightness: float = 0.15

    def __post_init__(self) -> None:
        """Refuses a grid without a spline and negative deviations.

        Raises:
            ValueError: If a number is out of its range.
        """
        if self.nodes < 2:
            raise ValueError(f"nodes must be at least 2. Received: nodes={self.nodes}")
        for name in ("amplitude", "contrast", "brightness"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(
                    f"{name} must be at least 0 and finite. Received: {name}={getattr(self, name)}"
                )


NO_AUGMENTATION = Augmentation(
    amplitude=0.0, rotation=False, flip=False, contrast=0.0, brightness=0.0
)


class TrainingImage(NamedTuple):
    """What the pipeline needs of one image.

    Attributes:
        image: Standardised grey values, float32, shape `(height, width, channels)`.
        classes: Class of each pixel, shape `(height, width)`.
        weights: Weight map, float32, shape `(height, width)`; 0 where ignored.
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    weights: NDArray[np.float32]


class Draw(NamedTuple):
    """The random numbers of one tile.

    Attributes:
        size: `(first pixel in the list, height, width)` of its image.
        centre: Row and column of the tile's centre in its image.
        grid: Displacements in pixels, shape `(2, nodes, nodes)`.
        matrix: Rotation and flip, shape `(2, 2)`, applied to positions relative to the centre.
        contrast: Factor on the grey values.
        brightness: Offset of the grey values.
    """

    size: Any
    centre: Any
    grid: Any
    matrix: Any
    contrast: Any
    brightness: Any


def build_dataset(
    images: Sequence[TrainingImage],
    architecture: Architecture,
    *,
    tile_size: int,
    seed: int = 0,
    batch_size: int = 1,
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
        augmentation: How tiles are varied; NO_AUGMENTATION for plain tiles.
        first: Number of the first batch, for a run that goes on.
        engine: "graph" deforms inside the compiled graph; "elasticdeform" by the library of that
            name, as a reference (extra `elasticdeform`).
        device: Where tiles are deformed; None for the first GPU, or the CPU where there is none.

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
    _check_images(images, architecture)
    cut = _cut_in_graph if engine == "graph" else _cut_by_elasticdeform
    atlas = _Atlas.of(images)
    render = cut(atlas, tile_size, architecture.output_size(tile_size))
    place = device or _fastest_device()

    def tile(number: Any) -> Any:
        draw = draw_tile(number, atlas.sizes, augmentation, seed)
        with tf.device(place):
            return render(draw)

    numbers = tf.data.Dataset.range(first * batch_size, np.iinfo(np.int64).max)
    if engine == "elasticdeform":
        return _never_ahead(numbers.map(tile).batch(batch_size, drop_remainder=True))
    tiles = numbers.map(tile, num_parallel_calls=2, deterministic=True)
    return tiles.batch(batch_size, drop_remainder=True).prefetch(2)


def draw_tile(number: Any, sizes: Any, augmentation: Augmentation, seed: int) -> Draw:
    """Draws tile number `number`: which image, where, and how it is varied.

    Args:
        number: The tile's number, an integer tensor.
        sizes: `(first, height, width)` of every image, int32 tensor of shape `(images, 3)`.
        augmentation: How far tiles are varied.
        seed: The run's seed.
    """
    keys = tf.unstack(tf.random.split(tf.stack([tf.cast(seed, tf.int64), number]), 6))
    total = tf.reduce_sum(sizes[-1, :1]) + sizes[-1, 1] * sizes[-1, 2]
    pixel = tf.random.stateless_uniform([], keys[0], 0, total, tf.int32)
    size = sizes[tf.searchsorted(sizes[:, 0], pixel[None], side="right")[0] - 1]
    within = pixel - size[0]
    nodes = augmentation.nodes
    grid = augmentation.amplitude * tf.random.stateless_normal([2, nodes, nodes], keys[1])
    contrast = tf.exp(augmentation.contrast * tf.random.stateless_normal([], keys[4]))
    brightness = augmentation.brightness * tf.random.stateless_normal([], keys[5])
    matrix = _rotation(keys[2], augmentation) @ _flip(keys[3], augmentation)
    centre = tf.stack([within // size[2], within % size[2]])
    return Draw(size, centre, grid, matrix, contrast, brightness)


def _rotation(key: Any, augmentation: Augmentation) -> Any:
    angle = tf.random.stateless_uniform([], key, 0, 2 * np.pi) * float(augmentation.rotation)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return tf.stack([tf.stack([cosine, -sine]), tf.stack([sine, cosine])])


def _flip(key: Any, augmentation: Augmentation) -> Any:
    heads = tf.random.stateless_uniform([], key) < 0.5 * float(augmentation.flip)
    return tf.linalg.diag(tf.stack([1.0, tf.where(heads, -1.0, 1.0)]))


def _fastest_device() -> str:
    return "/GPU:0" if tf.config.list_logical_devices("GPU") else "/CPU:0"


def _never_ahead(data: Any) -> Any:
    """Keeps TensorFlow from fusing `map` with `batch`, or adding a prefetch, by itself.

    Either runs Python code in a thread, ahead. An iterator that is dropped meanwhile waits for that
    code, and the code for the interpreter, which the dropping thread holds: for ever.
    """
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return data.with_options(options)


def _check_numbers(batch_size: int, first: int, engine: str) -> None:
    for name, value, lowest in (("batch_size", batch_size, 1), ("first", first, 0)):
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}. Received: {name}={value}")
    if engine not in get_args(Engine):
        raise ValueError(f'engine must be "graph" or "elasticdeform". Received: engine={engine!r}')


def _check_images(images: Sequence[TrainingImage], architecture: Architecture) -> None:
    if not images:
        raise ValueError("images must hold at least one training image. Received: none")
    for number, one in enumerate(images):
        _check_shapes(one, f"images[{number}]", architecture.channels)
        _check_classes(one.classes, f"images[{number}]", architecture.classes)
    pixels = sum(one.classes.size for one in images)
    if pixels > _MOST_PIXELS:
        raise ValueError(
            f"images must hold at most {_MOST_PIXELS} pixels together. Received: {pixels}; "
            "train on fewer images, or on parts of them"
        )


def _check_shapes(one: TrainingImage, name: str, channels: int) -> None:
    size = one.classes.shape
    if one.image.shape != (*size, channels) or one.weights.shape != size or len(size) != 2:
        raise ValueError(
            f"{name} must be an image of shape (height, width, {channels}) for a network of "
            f"channels={channels}, with classes and weights of shape (height, width). Received: "
            f"image {one.image.shape}, classes {one.classes.shape}, weights {one.weights.shape}"
        )


def _check_classes(classes: NDArray[Any], name: str, number: int) -> None:
    if classes.size == 0:
        raise ValueError(f"{name} must hold at least one pixel. Received: shape {classes.shape}")
    if classes.min() < 0 or classes.max() >= number:
        raise ValueError(
            f"{name} must hold classes from 0 to {number - 1} for a network of classes={number}. "
            f"Received: {classes.min()} to {classes.max()}"
        )


class _Atlas(NamedTuple):
    """All images behind one another: one flat list of pixels each, and where each image starts."""

    image: Any
    classes: Any
    weights: Any
    sizes: Any

    @classmethod
    def of(cls, images: Sequence[TrainingImage]) -> _Atlas:
        size = np.array([one.classes.shape for one in images])
        first = np.cumsum(size.prod(axis=1)) - size.prod(axis=1)
        return cls(
            tf.cast(np.concatenate([_flat(one.image) for one in images]), tf.float32),
            tf.constant(np.concatenate([one.classes.ravel() for one in images])),
            tf.cast(np.concatenate([one.weights.ravel() for one in images]), tf.float32),
            tf.constant(np.column_stack([first, size]), tf.int32),
        )


def _flat(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image.reshape(-1, image.shape[-1])


Render = Callable[[Draw], tuple[Any, Any]]


def _cut_in_graph(atlas: _Atlas, tile_size: int, output_size: int) -> Render:
    lost = (tile_size - output_size) // 2
    inner = slice(lost, lost + output_size)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def compiled(image: Any, classes: Any, weights: Any, draw: Draw) -> tuple[Any, Any]:
        size = tf.unstack(draw.size)
        rows, columns = tf.unstack(tile_coordinates(draw, tile_size))
        tile = draw.contrast * warp(image, size, rows, columns) + draw.brightness
        rows, columns = rows[inner, inner], columns[inner, inner]
        labels = tf.cast(warp(classes, size, rows, columns, nearest=True), tf.float32)
        return tile, tf.stack([labels, warp(weights, size, rows, columns)], axis=-1)

    return lambda draw: compiled(atlas.image, atlas.classes, atlas.weights, draw)


def tile_coordinates(draw: Draw, tile_size: int) -> Any:
    """Computes where each pixel of a tile is read: centre + M (p - middle) + displacement(p).

    M (p - middle) is written out: in a matrix product some GPUs round to a quarter of a pixel.

    Returns:
        float32 tensor of shape `(2, tile, tile)`: row and column in pixels of the image.
    """
    offset = tf.range(tile_size, dtype=tf.float32) - (tile_size - 1) / 2
    down, across = draw.matrix[:, 0, None, None], draw.matrix[:, 1, None, None]
    turned = down * offset[:, None] + across * offset
    middle = tf.cast(draw.centre, tf.float32)[:, None, None] - 0.5  # sizes that fit are even
    return middle + turned + displacement_field(draw.grid, (tile_size, tile_size))


def _cut_by_elasticdeform(atlas: _Atlas, tile_size: int, output_size: int) -> Render:
    """The reference engine: the same numbers, given to elasticdeform.

    It spans its grid over the array it deforms, so it gets a window of three tiles with the grid
    continued by reflection, and computes the middle tile alone. A pixel that a small tile would
    read from beyond that window is mirrored at the window instead of the image.
    """
    deform_grid = _import_deform_grid()
    lost, last = (tile_size - output_size) // 2, tile_size - 1
    inner, middle = slice(lost, lost + output_size), np.full(2, last / 2)
    image, classes, weights = (part.numpy() for part in atlas[:3])

    def window(flat: NDArray[Any], size: Any, centre: Any) -> NDArray[Any]:
        first, height, width = (int(number) for number in size)
        plane = flat[first : first + height * width].reshape(height, width, *flat.shape[1:])
        starts = [int(one) - tile_size // 2 - last for one in centre]
        return mirrored_window(plane, *(slice(start, start + 3 * last + 1) for start in starts))

    def cut(
        size: Any, centre: Any, grid: Any, matrix: Any, contrast: Any, brightness: Any
    ) -> tuple[Any, Any]:
        forward = np.linalg.inv(matrix.astype(float))
        beyond = grid.shape[1] - 1
        tile, labels, weight = deform_grid(
            [window(flat, size, centre) for flat in (image, classes, weights)],
            np.pad(grid.astype(float), [(0, 0), (beyond, beyond), (beyond, beyond)], "reflect"),
            order=[1, 0, 1],
            mode="mirror",
            crop=[slice(last, last + tile_size)] * 2,
            axis=[(0, 1)] * 3,
            affine=np.column_stack([forward, middle - forward @ middle]),
        )
        y_true = np.stack([labels, weight], axis=-1)[inner, inner]
        return (contrast * tile + brightness).astype(np.float32), y_true.astype(np.float32)

    def render(draw: Draw) -> tuple[Any, Any]:
        tile, y_true = tf.numpy_function(cut, list(draw), [tf.float32, tf.float32])
        return (
            tf.ensure_shape(tile, (tile_size, tile_size, image.shape[1])),
            tf.ensure_shape(y_true, (output_size, output_size, 2)),
        )

    return render


def _import_deform_grid() -> Any:
    try:
        from elasticdeform import deform_grid
    except ImportError as error:
        raise ImportError(
            'engine="elasticdeform" needs the library of that name: '
            "pip install --no-binary elasticdeform elasticdeform"
        ) from error
    return deform_grid
