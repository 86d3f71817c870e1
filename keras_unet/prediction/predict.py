"""Overlap-tile prediction (figure 2 of the paper) of images of any size.

Missing context at the image border is mirrored. Tiles lie on the pooling lattice, so the result
does not depend on the tile size and has no seams. Test-time augmentation averages over the eight
symmetries of the square, where the paper averages over 7 rotations. Tiles that are too large for
memory are halved.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit, softmax

from keras_unet.architecture import OFFSETS, Architecture
from keras_unet.console import is_out_of_memory, track
from keras_unet.data.normalization import Mode, Normalization
from keras_unet.instances.affinities import class_probabilities
from keras_unet.tiling import Tile, Tiling, mirrored_window

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

SYMMETRIES = tuple(product((False, True), range(4)))
"""Symmetries of the square: whether the image is mirrored, and quarter turns after that."""


def predict_image(
    model: keras.Model | Callable[[Any], Any],
    image: NDArray[Any],
    *,
    normalization: Normalization | Mode | None = None,
    tile_size: int | None = None,
    architecture: Architecture | None = None,
    tta: bool = False,
) -> NDArray[np.float32]:
    """Predicts the class probabilities of every pixel by the overlap-tile strategy.

    Touching objects are separated if the network predicts affinities.

    Args:
        model: A network of `build_unet`, or any callable from `(1, height, width, channels)` to
            logits `(1, height - 2 * margin, width - 2 * margin, classes)`.
        image: Normalized grey values, shape `(height, width)` or `(height, width, channels)`, at
            least one pixel; with `normalization`, raw grey values.
        normalization: Normalization of the network's training images: "image" for zero mean and
            unit variance of each image, or a `Normalization` with the statistics of a data set;
            None if `image` is normalized already.
        tile_size: Height and width of the input tile in pixels; None for as large as the image
            needs, with an upper bound that keeps memory flat. A network built for a fixed input
            size takes that size. On a GPU, where Keras compiles the network for each new tile size,
            many images of different sizes are predicted faster with one.
        architecture: Architecture of the network, if `build_unet` did not build it.
        tta: Whether to use test-time augmentation, the average over the eight rotations and
            reflections of the image, each predicted on its own. The paper averages 7 rotations.

    Returns:
        float32 softmax probabilities `(height, width, classes)`, of the image's own size.

    Raises:
        ValueError: If the image has another shape than the network takes, integer values without a
            normalization, or a value that is not finite; if the tile size does not fit; or if the
            model's logits are not finite or not of the architecture's shape.
    """
    network = architecture or Architecture.of(model)
    pixels = _normalize(np.asarray(image), normalization)
    outputs = predict_outputs(model, pixels, network, tile_size=tile_size, tta=tta)
    return class_probabilities(outputs, network, separated=True)


def predict_outputs(
    model: Any,
    image: NDArray[Any],
    network: Architecture,
    *,
    tile_size: int | None = None,
    tta: bool = False,
) -> NDArray[np.float32]:
    """Predicts class probabilities and, of a network that has them, affinities.

    Args:
        model: See `predict_image`.
        image: Normalized grey values, `(height, width)` or `(height, width, channels)`.
        network: Architecture of the network.
        tile_size: See `predict_image`.
        tta: See `predict_image`.

    Returns:
        float32 `(height, width, outputs)`; with `tta`, affinities in the order of `of_view`.
    """
    pixels = as_network_input(image, network)
    tile = tile_size_of(model, tile_size)
    predict = partial(_predict_tiled, model, network=network, tile_size=tile)
    return average_over_views(predict, pixels, network.classes) if tta else predict(pixels)


def _normalize(image: NDArray[Any], normalization: Normalization | Mode | None) -> NDArray[Any]:
    if normalization is None:
        if image.dtype.kind != "f":
            raise ValueError(
                "image must hold normalized grey values, of zero mean and unit variance, or "
                'normalization must be given: normalization="image", if that is how the network '
                f"was trained. Received: image of {image.dtype}, normalization=None"
            )
        return image
    if isinstance(normalization, str):
        normalization = Normalization(normalization)
    return normalization.apply(image[..., np.newaxis] if image.ndim == 2 else image)


def _predict_tiled(
    model: Any,
    pixels: NDArray[np.float32],
    *,
    network: Architecture,
    tile_size: tuple[int | None, int | None],
) -> NDArray[np.float32]:
    tiling = Tiling.covering(pixels.shape[:2], network, tile_size)
    result = np.empty((*pixels.shape[:2], network.outputs), np.float32)
    tiles = predict_tiles(model, pixels, tiling)
    for window, probabilities in track(tiles, "predicting tiles", len(tiling)):
        result[window] = probabilities
    return result


def predict_tiles(
    model: Any, pixels: Any, tiling: Tiling, *, tiles: Iterable[Tile] | None = None
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32]]]:
    """Predicts an image tile by tile, each pixel once.

    Args:
        model: See `predict_image`.
        pixels: Normalized grey values, float32 `(height, width, channels)`: an array, or an object
            that is indexed by a window of rows and columns like one.
        tiling: The tiling of the image.
        tiles: Tiles of the tiling to predict, in any order; None for all, row by row.

    Yields:
        Rows and columns of the image, and their probabilities, `(rows, columns, outputs)`: of the
        classes and, of a network that has them, of the affinities.

    Raises:
        ValueError: If the model's logits are not finite or of another shape than expected.
    """
    predict = getattr(model, "predict_on_batch", model)
    for tile in tiling if tiles is None else tiles:
        logits = np.asarray(predict(mirrored_window(pixels, *tile.read)[None]))
        _check_logits(logits, tiling)
        yield tile.write, _probabilities(logits[0][tile.keep], tiling.architecture.classes)


def as_network_input(image: NDArray[Any], network: Architecture) -> NDArray[np.float32]:
    """Returns normalized pixels as float32 `(height, width, channels)`, after checking them.

    Args:
        image: Normalized grey values, `(height, width)` or `(height, width, channels)`.
        network: Architecture of the network.

    Raises:
        ValueError: If the network takes another number of channels, or a pixel is not finite.
    """
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[-1] != network.channels or not pixels.size:
        raise ValueError(
            f"image must be (height, width, channels) with channels={network.channels} and at "
            f"least one pixel. Received: shape={image.shape}"
        )
    with np.errstate(over="ignore"):
        pixels = pixels.astype(np.float32, copy=False)
    finite = np.isfinite(pixels)
    if not finite.all():
        raise ValueError(
            "image must hold finite float32 numbers. Received: "
            f"{np.count_nonzero(~finite)} values that are NaN or infinite"
        )
    return pixels


def tile_size_of(model: Any, tile_size: int | None) -> tuple[int | None, int | None]:
    """Returns height and width of a model's input tiles in pixels; None if they are free.

    Args:
        model: A network, or any callable; a fixed input size is read from its `input_shape`.
        tile_size: Height and width to use, or None.

    Raises:
        ValueError: If the model is built for another size.
    """
    height, width = getattr(model, "input_shape", (None, None, None, None))[1:3]
    if tile_size is None:
        return height, width
    if any(fixed not in (None, tile_size) for fixed in (height, width)):
        raise ValueError(
            f"tile_size must be left out or be {height} x {width}, for which the network was "
            f"built. Received: {tile_size}; a network of input_shape=(None, None, channels) takes "
            "any that fits"
        )
    return tile_size, tile_size


def _probabilities(logits: NDArray[Any], classes: int) -> NDArray[np.float32]:
    """Applies the softmax to the logits of the classes, and the logistic function to the others."""
    # NumPy is slow along a last axis as short as that of the classes.
    by_output = np.ascontiguousarray(np.moveaxis(logits, -1, 0), np.float32)
    probabilities = softmax(by_output[:classes], axis=0)
    if len(by_output) > classes:
        probabilities = np.concatenate([probabilities, expit(by_output[classes:])])
    moved: NDArray[np.float32] = np.moveaxis(probabilities, 0, -1)
    return moved


def _check_logits(logits: NDArray[Any], tiling: Tiling) -> None:
    network = tiling.architecture
    height, width = (network.output_size(size) for size in tiling.tile_size)
    expected = (1, height, width, network.outputs)
    if logits.shape != expected:
        raise ValueError(
            f"model must give logits of shape {expected} for a tile of {tiling.tile_size} pixels. "
            f"Received: {logits.shape}; is architecture={network} the model's?"
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            "model must give finite logits. Received: "
            f"{np.count_nonzero(~np.isfinite(logits))} that are NaN or infinite, from a finite "
            "image; its weights are damaged, or its numbers exceed the range of its precision"
        )


def average_over_views(
    predict: Callable[[NDArray[Any]], NDArray[np.float32]],
    image: NDArray[Any],
    classes: int | None = None,
) -> NDArray[np.float32]:
    """Averages the predictions of the eight rotations and reflections of an image.

    Args:
        predict: Maps an image to probabilities of its height and width,
            `(height, width, outputs)`.
        image: Pixels `(height, width)` or `(height, width, channels)`.
        classes: Number of the first outputs, which are followed by affinities; None if all are
            classes.

    Returns:
        The mean probabilities, in the image's own orientation, `(height, width, outputs)`, see
        `of_view`.

    Example:
        A prediction that is 0 but for the first pixel reaches each corner in two of eight views:

        >>> def first_pixel(image):
        ...     return image * [[1, 0], [0, 0]]
        >>> average_over_views(first_pixel, np.array([[8, 0], [0, 4]])).tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    total: Any = np.float32(0)
    for view, symmetry in enumerate(SYMMETRIES):
        predicted = of_view(predict(_view(image, *symmetry)), view, classes)
        total = total + undo_view(predicted, *symmetry)
    return np.asarray(total / np.float32(len(SYMMETRIES)))


def disagreement_of_views(
    predict: Callable[[NDArray[Any]], NDArray[np.float32]], image: NDArray[Any]
) -> float:
    """Computes how much the predictions of the eight rotations and reflections of an image differ.

    The mean over the pixels of the Jensen-Shannon divergence (Lin 1991) of the eight class
    probabilities: the entropy of their mean minus the mean of their entropies. An image on which a
    network is unsure of what it has not learned has a large one.

    Args:
        predict: Maps an image to class probabilities of its height and width,
            `(height, width, classes)`.
        image: Pixels `(height, width)` or `(height, width, channels)`.

    Returns:
        The disagreement in bits per pixel, from 0, if all eight agree, to log2(classes).

    Example:
        >>> def first_row(image):  # is class 1, whichever way the image is turned
        ...     rows = np.arange(len(image))[:, None] + np.zeros(image.shape)
        ...     return np.stack([rows > 0, rows == 0], axis=-1).astype(np.float32)
        >>> disagreement_of_views(first_row, np.zeros((2, 2)))
        1.0
    """

    def with_entropy(view: NDArray[Any]) -> NDArray[np.float32]:
        probabilities = predict(view)
        return np.concatenate([probabilities, _entropy(probabilities)], axis=-1)

    mean = average_over_views(with_entropy, image)
    divergence = _entropy(mean[..., :-1]) - mean[..., -1:]
    return max(0.0, float(divergence.mean(dtype=np.float64)))


def _entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the entropy in bits, `(height, width, 1)`."""
    entropy: NDArray[np.float32] = entr(probabilities).sum(axis=-1, keepdims=True) / math.log(2)
    return entropy


def of_view(predicted: NDArray[np.float32], view: int, classes: int | None) -> NDArray[np.float32]:
    """Returns what a view adds to the sum of all.

    An affinity to a pixel on the right is one to a pixel above in the view that is turned by 90
    degrees. Affinities are therefore ordered by the offset in the image: first those to the pixels
    at `OFFSETS`, then those to the pixels on the opposite side. Those that the view lacks are 0.
    `MergedAffinities` adds both.

    Args:
        predicted: Probabilities of the view, `(height, width, outputs)`; not changed.
        view: Number of the view in `SYMMETRIES`.
        classes: Number of the first outputs, which are followed by affinities; None if all are
            classes.

    Returns:
        `(height, width, classes + 2 * affinities)` in the orientation of the view, or `predicted`
        if there are no affinities.
    """
    if classes is None or predicted.shape[-1] == classes:
        return predicted
    found = np.zeros((*predicted.shape[:2], classes + 2 * len(OFFSETS)), np.float32)
    found[..., :classes] = predicted[..., :classes]
    found[..., classes + _order_of_affinities(view)] = predicted[..., classes:]
    return found


@cache
def _order_of_affinities(view: int) -> NDArray[np.intp]:
    """Returns the place of each offset of a view among `OFFSETS` and their opposites."""
    both = [*OFFSETS, *((-down, -right) for down, right in OFFSETS)]
    reach = max(abs(along) for offset in OFFSETS for along in offset)
    positions = np.moveaxis(np.indices((2 * reach + 1,) * 2) - reach, 0, -1)
    seen = _view(positions, *SYMMETRIES[view])  # the position in the image of each pixel
    places = [seen[reach + down, reach + right] for down, right in OFFSETS]
    return np.array([both.index((int(down), int(right))) for down, right in places])


@dataclass(frozen=True)
class TransformedView:
    """Rotated or mirrored view of an image that is read by windows.

    Attributes:
        image: Array, or an object that is indexed by a window of rows and columns like one.
        mirrored: Whether the image is mirrored.
        quarter_turns: Number of quarter turns after that.

    Example:
        >>> image = np.array([[1, 2, 3], [4, 5, 6]])
        >>> view = TransformedView(image, mirrored=False, quarter_turns=1)
        >>> view.shape, view[0:2, 1:2].tolist()
        ((3, 2), [[6], [5]])
        >>> view.source_window((slice(0, 2), slice(1, 2)))
        (slice(1, 2, None), slice(1, 3, None))
    """

    image: Any
    mirrored: bool
    quarter_turns: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the view."""
        height, width, *channels = self.image.shape
        return (width, height, *channels) if self.quarter_turns % 2 else self.image.shape

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        """Reads a window of the view."""
        return _view(self.image[self.source_window(window)], self.mirrored, self.quarter_turns)

    def source_window(self, window: tuple[slice, slice]) -> tuple[slice, slice]:
        """Returns the window of the image that a window of the view shows."""
        rows, columns = window
        height, width = self.image.shape[:2]
        for turn in reversed(range(self.quarter_turns)):
            rows, columns = columns, _reversed_slice(rows, height if turn % 2 else width)
        return (_reversed_slice(rows, height) if self.mirrored else rows), columns


def undo_view(view: NDArray[Any], mirrored: bool, quarter_turns: int) -> NDArray[Any]:
    """Returns a view, or a window of one, in the orientation of its image."""
    upright = np.rot90(view, -quarter_turns)
    return upright[::-1] if mirrored else upright


def _view(image: NDArray[Any], mirrored: bool, quarter_turns: int) -> NDArray[Any]:
    return np.rot90(image[::-1] if mirrored else image, quarter_turns)


def _reversed_slice(window: slice, size: int) -> slice:
    return slice(size - window.stop, size - window.start)


class TileFallback:
    """Halves tiles that are too large for memory, for all networks that it wraps.

    Attributes:
        largest: Longest side in pixels that a network is given; None for no limit.
    """

    def __init__(self) -> None:
        """Starts without a limit."""
        self.largest: int | None = None

    def wrap(self, model: Any, network: Architecture) -> Any:
        """Wraps a network, for use with `predict_image`.

        Args:
            model: A network, or any callable; one of a fixed input size is returned unchanged.
            network: Architecture of the network.

        Returns:
            A callable from `(1, height, width, channels)` to the model's logits, which are 0 where
            a tiling does not keep them. It raises OSError if memory is too small for the smallest
            tile.
        """
        if tile_size_of(model, None) != (None, None):
            return model
        return partial(self._predict, getattr(model, "predict_on_batch", model), network)

    def _predict(
        self, predict: Callable[[Any], Any], network: Architecture, tile: NDArray[np.float32]
    ) -> NDArray[Any]:
        while True:
            height, width = (
                side if self.largest is None else min(side, self.largest)
                for side in tile.shape[1:3]
            )
            try:
                return _predict_in_parts(predict, network, tile, (height, width))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # After the handler, when the traceback no longer keeps arrays in memory.
            self._halve(network, height, width)

    def _halve(self, network: Architecture, height: int, width: int) -> None:
        smallest = network.fitting_size(2 * network.context + network.step)
        longest = max(height, width)
        if longest <= smallest:
            raise OSError(
                f"memory must hold a tile of {height} x {width} pixels, the smallest possible. "
                "Received too little memory; close other programs, or train with fewer "
                "--base-filters"
            )
        self.largest = max(smallest, network.fitting_size(longest // 2))
        _log.info(
            f"memory does not hold a tile of {height} x {width} pixels: continuing with "
            f"{self.largest} x {self.largest}"
        )


def _predict_in_parts(
    predict: Callable[[Any], Any],
    network: Architecture,
    tile: NDArray[np.float32],
    size: tuple[int, int],
) -> NDArray[Any]:
    """Predicts a tile in parts; logits closer to its border than the context are 0."""
    sides = tile.shape[1:3]
    if size == sides:
        return np.asarray(predict(tile))
    context, skipped = network.context, network.context - network.margin
    height, width = (network.output_size(side) for side in sides)
    logits = np.zeros((1, height, width, network.outputs), np.float32)
    for part in Tiling((sides[0] - 2 * context, sides[1] - 2 * context), size, network):
        read = (_shifted(window, context) for window in part.read)
        part_logits = np.asarray(predict(mirrored_window(tile[0], *read)[None]))
        rows, columns = (_shifted(window, skipped) for window in part.write)
        logits[0, rows, columns] = part_logits[0][part.keep]
    return logits


def _shifted(window: slice, pixels: int) -> slice:
    return slice(window.start + pixels, window.stop + pixels)
