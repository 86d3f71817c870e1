"""The eight symmetries of the square: what a microscope image may be turned into and stay one.

The paper averages its prediction over 7 rotated versions of the image. Here they are the versions
that need no interpolation: the quarter turns, of the image and of its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

SYMMETRIES = tuple(product((False, True), range(4)))
"""Whether the image is mirrored, and by how many quarter turns it is rotated after that."""


def average_over_symmetries(
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
        >>> average_over_symmetries(first_pixel, np.array([[8, 0], [0, 4]])).tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    versions = (_turned_back(predict(_turned(image, *one)), *one) for one in SYMMETRIES)
    total = sum(versions, start=np.float32(0))
    return np.asarray(total / np.float32(len(SYMMETRIES)))


def _turned(image: NDArray[Any], mirrored: bool, quarter_turns: int) -> NDArray[Any]:
    return np.rot90(image[::-1] if mirrored else image, quarter_turns)


def _turned_back(image: NDArray[Any], mirrored: bool, quarter_turns: int) -> NDArray[Any]:
    upright = np.rot90(image, -quarter_turns)
    return upright[::-1] if mirrored else upright
