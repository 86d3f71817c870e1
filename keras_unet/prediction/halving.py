"""Tiles that memory does not hold are scored by parts, half as large, and so are all after them.

Parts lie on the pooling lattice of their tile, which lies on that of the image, so the scores are
those of the whole tile. TensorFlow tells of a lack of memory on a GPU. On a CPU it seldom does, for
the system hands out more memory than there is, and ends the process that takes it up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.console import is_out_of_memory
from keras_unet.prediction.predict import tile_size_of
from keras_unet.tiling import Tiling, mirrored_window

_log = logging.getLogger(__name__)


class Halving:
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
