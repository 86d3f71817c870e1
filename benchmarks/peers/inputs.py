"""Inputs of all contenders, drawn with NumPy from seed 0, without a framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.architecture import Architecture
from keras_unet.data.distances import separate_touching
from keras_unet.data.synthetic import draw_cells
from keras_unet.tiling import Tiling, mirrored_window


class Layer(NamedTuple):
    """A layer with weights.

    Attributes:
        name: Name in `build_unet`.
        kernel: Shape of the kernel, as in Keras; the last two axes are swapped in an
            up-convolution.
        scale: Size of the input relative to the output of the layer before: 1/2 after a pooling.
    """

    name: str
    kernel: tuple[int, int, int, int]
    scale: float = 1

    @property
    def is_up(self) -> bool:
        """Whether the layer is an up-convolution."""
        return self.kernel[0] == 2

    @property
    def outgoing(self) -> int:
        """Number of output features."""
        return self.kernel[2] if self.is_up else self.kernel[3]

    @property
    def incoming(self) -> int:
        """Number of inputs of one output value."""
        return self.kernel[3] if self.is_up else int(np.prod(self.kernel[:3]))


def layers(network: Architecture) -> Iterator[Layer]:
    """Yields the layers of figure 1 that have weights, in order of computation."""
    before, scale = network.channels, 1.0
    for level in range(network.depth + 1):
        name = f"level{level}_down" if level < network.depth else "bottom"
        features = network.filters(level)
        yield Layer(f"{name}_conv1", (3, 3, before, features), scale)
        yield Layer(f"{name}_conv2", (3, 3, features, features))
        before, scale = features, 0.5
    for level in reversed(range(network.depth)):
        features = network.filters(level)
        yield Layer(f"level{level}_up", (2, 2, features, before), 2.0)
        yield Layer(f"level{level}_up_conv1", (3, 3, 2 * features, features))
        yield Layer(f"level{level}_up_conv2", (3, 3, features, features))
        before = features
    yield Layer("logits", (1, 1, before, network.classes))


def weights(network: Architecture) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Draws kernel and bias of each layer; kernels as in the paper."""
    random = np.random.default_rng(0)

    def draw(layer: Layer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        kernel = sqrt(2 / layer.incoming) * random.standard_normal(layer.kernel, np.float32)
        bias = 0.1 * random.standard_normal(layer.outgoing, np.float32)
        return kernel.astype(np.float32), bias.astype(np.float32)

    return {layer.name: draw(layer) for layer in layers(network)}


def operations(network: Architecture, image: tuple[int, int], tile: int | None) -> float:
    """Counts the multiplications and additions of a prediction, including those in margins."""
    tiling = Tiling.covering(image, network, (tile, tile))
    size = np.array(tiling.tile_size)
    count = 0
    for layer in layers(network):
        size = (size * layer.scale).astype(int) - (layer.kernel[0] // 3 * 2)
        count += 2 * layer.incoming * layer.outgoing * int(size.prod())
    return float(count * len(tiling))


def training_batch(
    network: Architecture, tile: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draws an image `(1, tile, tile, channels)` and labels with weights `(1, out, out, 2)`."""
    random, out = np.random.default_rng(0), network.output_size(tile)
    image = random.standard_normal((1, tile, tile, network.channels), np.float32)
    labels = random.integers(0, network.classes, (1, out, out))
    weighed = random.uniform(0.5, 10, (1, out, out))
    return image, np.stack([labels, weighed], axis=-1).astype(np.float32)


def normalized_image(side: int) -> NDArray[np.float32]:
    """Draws an image of cells, `(side, side, 1)`: at most 1,024 pixels a side, repeated."""
    part = min(max(side, 64), 1024)
    picture, _ = draw_cells(0, size=(part, part), cells=max(1, part**2 // 2500))
    normalized = (picture - picture.mean()) / picture.std()
    copies = -(-side // part)
    return np.tile(normalized.astype(np.float32), (copies, copies))[:side, :side, None]


def stitched(
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    image: NDArray[np.float32],
    network: Architecture,
    tile: int | None,
) -> NDArray[np.float32]:
    """Predicts an image with the tiles of this package and the network of a contender."""
    tiling = Tiling.covering(image.shape[:2], network, (tile, tile))
    probabilities = np.empty((*image.shape[:2], network.classes), np.float32)
    for one in tiling:
        window = mirrored_window(image, *one.read)
        probabilities[one.write] = score(window[None])[0][one.keep]
    return probabilities


def deformable(
    side: int, amplitude: float, times: int
) -> tuple[list[NDArray[Any]], NDArray[np.float32]]:
    """Draws image, labels and weights, `(side, side)`, and grids of displacements in pixels."""
    random = np.random.default_rng(0)
    image, weighed = random.random((2, side, side), np.float32)
    labels = random.integers(0, 2, (side, side)).astype(np.uint8)
    grids = amplitude * random.standard_normal((times, 2, 3, 3), np.float32)
    return [image, labels, weighed], grids.astype(np.float32)


def lattice_cells(
    side: int, across: int, down: int, radius: float | None = None
) -> NDArray[np.int32]:
    """Draws discs on a jittered lattice, some of which touch.

    Args:
        side: Height and width of the image in pixels.
        across: Cells in a row.
        down: Rows of cells.
        radius: Radius of a disc in pixels; None for nearly half the distance of neighbors.
    """
    rows, columns = np.indices((down, across))
    spacing = np.array([side / down, side / across])
    centres = (np.stack([rows.ravel(), columns.ravel()], axis=-1) + 0.5) * spacing
    centres += np.random.default_rng(0).uniform(-0.16, 0.16, centres.shape) * spacing.min()
    seeds = np.zeros((side, side), np.int32)
    seeds[tuple(centres.astype(int).T)] = np.arange(1, len(centres) + 1)
    distance, place = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.where(distance < (radius or 0.47 * spacing.min()), seeds[tuple(place)], 0)


def membranes(slices: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draws label slices of cells with membranes, and noisy cell probabilities."""
    random = np.random.default_rng(0)
    shape = slices, side, side
    drawn = [draw_cells(seed, size=shape[1:], cells=side**2 // 1000)[1] for seed in range(slices)]
    labels = np.stack([separate_touching(one) > 0 for one in drawn])
    noise = ndimage.gaussian_filter(random.standard_normal(shape), (0, 2, 2))
    blurred = ndimage.gaussian_filter(labels.astype(float), (0, 1, 1))
    probabilities = np.clip(blurred + noise, 0, 1)
    return labels.astype(np.uint8), probabilities.astype(np.float32)
