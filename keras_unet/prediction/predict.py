"""Overlap-tile prediction (figure 2 of the paper): scores for every pixel of an image of any size.

Context that is missing at the border is mirrored. Tiles lie on the pooling lattice, so the result
does not depend on the tile size and has no seams. Averaging over the symmetries of the square, as
the paper does with rotations, costs eight times the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from keras_unet.architecture import Architecture
from keras_unet.console import is_out_of_memory, track
from keras_unet.data.normalization import Mode, Normalization
from keras_unet.tiling import Tile, Tiling, mirrored_window

SYMMETRIES = tuple(product((False, True), range(4)))
"""Symmetry of the square: whether the image is mirrored, and quarter turns after that."""


def average_over_views(
    predict: Callable[[NDArray[Any]], NDArray[np.float32]], image: NDArray[Any]
) -> NDArray[np.float32]:
    """Predicts an image in its eight versions and averages what comes out, turned back.

    The average turns with the image: that of the rotated image is the rotated average.

    Args:
        predict: Maps an image to scores of its height and width, `(height, width, classes)`.
        image: Pixels `(height, width)` or `(height, width, channels)`.

    Returns:
        The mean scores, `(height, width, classes)`.

    Example:
        What sees the first pixel alone sees each corner in two of the eight versions:

        >>> def first_pixel(image):
        ...     return image * [[1, 0], [0, 0]]
        >>> average_over_views(first_pixel, np.array([[8, 0], [0, 4]])).tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    versions = (turned_back(predict(_turned(image, *one)), *one) for one in SYMMETRIES)
    total = sum(versions, start=np.float32(0))
    return np.asarray(total / np.float32(len(SYMMETRIES)))


@dataclass(frozen=True)
class TransformedView:
    """One of the eight versions of an image that is read by windows.

    Attributes:
        image: What is read by a window of rows and columns as an array is.
        mirrored: Whether it is mirrored.
        quarter_turns: By how many quarter turns it is rotated after that.

    Example:
        >>> turned = TransformedView(np.array([[1, 2, 3], [4, 5, 6]]), mirrored=False, quarter_turns=1)
        >>> turned.shape, turned[0:2, 1:2].tolist(), turned.place((slice(0, 2), slice(1, 2)))
        ((3, 2), [[6], [5]], (slice(1, 2, None), slice(1, 3, None)))
    """

    image: Any
    mirrored: bool
    quarter_turns: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        height, width, *channels = self.image.shape
        return (width, height, *channels) if self.quarter_turns % 2 else self.image.shape

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        """Reads a window."""
        return _turned(self.image[self.place(window)], self.mirrored, self.quarter_turns)

    def place(self, window: tuple[slice, slice]) -> tuple[slice, slice]:
        """Returns the window of the image itself that a window of this version shows."""
        rows, columns = window
        height, width = self.image.shape[:2]
        for turn in reversed(range(self.quarter_turns)):
            rows, columns = columns, _from_the_end(rows, height if turn % 2 else width)
        return (_from_the_end(rows, height) if self.mirrored else rows), columns


def _from_the_end(part: slice, size: int) -> slice:
    return slice(size - part.stop, size - part.start)


def _turned(image: NDArray[Any], mirrored: bool, quarter_turns: int) -> NDArray[Any]:
    return np.rot90(image[::-1] if mirrored else image, quarter_turns)


def turned_back(image: NDArray[Any], mirrored: bool, quarter_turns: int) -> NDArray[Any]:
    """Turns one of the eight versions of an array, or of a window of it, back."""
    upright = np.rot90(image, -quarter_turns)
    return upright[::-1] if mirrored else upright


if TYPE_CHECKING:
    import keras


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

    Args:
        model: A network of `build_unet`, or any callable from `(1, height, width, channels)` to
            logits `(1, height - 2 * margin, width - 2 * margin, classes)`.
        image: Normalized grey values, shape `(height, width)` or `(height, width, channels)`, at
            least one pixel; with `normalization`, grey values as measured.
        normalization: How the network's training images were normalized: "image" for zero mean
            and unit variance of each image, or a `Normalization` with the numbers of a data set;
            None if `image` is normalized already.
        tile_size: Height and width of the input tile in pixels; None for as large as the image
            needs, with an upper bound that keeps memory flat. A network built for a fixed input
            size takes that size. On a GPU, where Keras compiles the network for each new tile size,
            many images of different sizes are predicted faster with one.
        architecture: The network's numbers, where `model` is not a Keras model of `build_unet`.
        tta: Test-time augmentation: whether to average over the eight rotated and mirrored versions
            of the image, each predicted on its own. The paper averages 7 rotated versions.

    Returns:
        float32 softmax probabilities of shape `(height, width, classes)`, of the image's own size.

    Raises:
        ValueError: If the image's shape does not suit the network, it holds whole numbers and no
            normalization is given, or a value that is not finite, the tile size does not fit, or
            the model's logits are not finite or of another shape than the architecture says.
    """
    network = architecture or Architecture.of(model)
    pixels = checked_pixels(_normalized(np.asarray(image), normalization), network)
    tile = tile_size_of(model, tile_size)
    predict = partial(_stitched, model, network=network, tile_size=tile)
    return average_over_views(predict, pixels) if tta else predict(pixels)


def _normalized(image: NDArray[Any], normalization: Normalization | Mode | None) -> NDArray[Any]:
    """Normalizes an image, or refuses one that has not been."""
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


def tile_size_of(model: Any, tile_size: int | None) -> tuple[int | None, int | None]:
    """Returns height and width of the tiles that a model is to be given; None chooses.

    Args:
        model: A network, or any callable; one of a fixed size says so by its `input_shape`.
        tile_size: Height and width asked for, or None.

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


def _stitched(
    model: Any,
    pixels: NDArray[np.float32],
    *,
    network: Architecture,
    tile_size: tuple[int | None, int | None],
) -> NDArray[np.float32]:
    tiling = Tiling.covering(pixels.shape[:2], network, tile_size)
    probabilities = np.empty((*pixels.shape[:2], network.classes), np.float32)
    tiles = predict_tiles(model, pixels, tiling)
    for window, scores in track(tiles, "predicting tiles", len(tiling)):
        probabilities[window] = scores
    return probabilities


def predict_tiles(
    model: Any, pixels: Any, tiling: Tiling, *, tiles: Iterable[Tile] | None = None
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32]]]:
    """Predicts tile by tile, each pixel once.

    Args:
        model: See `predict_image`.
        pixels: Normalized grey values, float32 `(height, width, channels)`: an array, or what is
            read by a window of rows and columns as one is.
        tiling: The tiles.
        tiles: Those of its tiles to predict, in any order; None for all, row by row.

    Yields:
        Rows and columns of the image, and their probabilities, `(rows, columns, classes)`.

    Raises:
        ValueError: If the model's logits are not finite or of another shape than expected.
    """
    score = getattr(model, "predict_on_batch", model)
    for tile in tiling if tiles is None else tiles:
        logits = np.asarray(score(mirrored_window(pixels, *tile.read)[None]))
        _check_logits(logits, tiling)
        yield tile.write, _probabilities(logits[0][tile.keep])


def checked_pixels(image: NDArray[Any], network: Architecture) -> NDArray[np.float32]:
    """Returns normalized pixels as a network takes them, see `predict_image`.

    Raises:
        ValueError: If they do not suit the network, or one is not finite.
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


def _probabilities(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Takes the softmax, class by class: NumPy is slow along a last axis as short as theirs."""
    by_class = np.ascontiguousarray(np.moveaxis(logits, -1, 0), np.float32)
    probabilities: NDArray[np.float32] = np.moveaxis(softmax(by_class, axis=0), 0, -1)
    return probabilities


def _check_logits(logits: NDArray[Any], tiling: Tiling) -> None:
    network = tiling.architecture
    height, width = (network.output_size(size) for size in tiling.tile_size)
    expected = (1, height, width, network.classes)
    if logits.shape != expected:
        raise ValueError(
            f"model must give logits of shape {expected} for a tile of {tiling.tile_size} pixels. "
            f"Received: {logits.shape}; is architecture={network} the model's?"
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            "model must give finite logits. Received: "
            f"{np.count_nonzero(~np.isfinite(logits))} that are NaN or infinite, from a finite "
            "image; its weights are damaged, or its precision does not hold its numbers"
        )


_log = logging.getLogger(__name__)


class TileFallback:
    """Halves tiles that memory does not hold; what it holds is kept for the tiles after them.

    Attributes:
        largest: Longest side in pixels of what is given to a network at a time; None for any.
    """

    def __init__(self) -> None:
        """Starts without a limit."""
        self.largest: int | None = None

    def around(self, model: Any, network: Architecture) -> Any:
        """Wraps what scores tiles, for `predict_image` to take.

        Args:
            model: A network, or any callable; one that takes a single size is returned as it is.
            network: Its numbers.

        Returns:
            A callable from `(1, height, width, channels)` to logits, which are those of the model
            wherever a tiling keeps them. It raises OSError where memory does not hold the smallest
            tile either.
        """
        if tile_size_of(model, None) != (None, None):
            return model
        return partial(self._score, getattr(model, "predict_on_batch", model), network)

    def _score(
        self, score: Callable[[Any], Any], network: Architecture, tile: NDArray[np.float32]
    ) -> NDArray[Any]:
        while True:
            height, width = (
                side if self.largest is None else min(side, self.largest)
                for side in tile.shape[1:3]
            )
            try:
                return _by_parts(score, network, tile, (height, width))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(network, height, width)  # out there, where no traceback holds arrays

    def _halve(self, network: Architecture, height: int, width: int) -> None:
        least = network.fitting_size(2 * network.context + network.step)
        longest = max(height, width)
        if longest <= least:
            raise OSError(
                f"memory must hold a tile of {height} x {width} pixels, than which none is "
                "smaller. Received too little of it; close other programs, or train with fewer "
                "--base-filters"
            )
        self.largest = max(least, network.fitting_size(longest // 2))
        _log.info(
            f"memory does not hold a tile of {height} x {width} pixels: going on with "
            f"{self.largest} x {self.largest}"
        )


def _by_parts(
    score: Callable[[Any], Any],
    network: Architecture,
    tile: NDArray[np.float32],
    size: tuple[int, int],
) -> NDArray[Any]:
    """Scores a tile by parts of a size; logits closer to its border than its context are 0."""
    sides = tile.shape[1:3]
    if size == sides:
        return np.asarray(score(tile))
    context, skipped = network.context, network.context - network.margin
    height, width = (network.output_size(side) for side in sides)
    logits = np.zeros((1, height, width, network.classes), np.float32)
    for part in Tiling((sides[0] - 2 * context, sides[1] - 2 * context), size, network):
        read = (_moved(window, context) for window in part.read)
        scores = np.asarray(score(mirrored_window(tile[0], *read)[None]))
        rows, columns = (_moved(window, skipped) for window in part.write)
        logits[0, rows, columns] = scores[0][part.keep]
    return logits


def _moved(window: slice, pixels: int) -> slice:
    return slice(window.start + pixels, window.stop + pixels)
