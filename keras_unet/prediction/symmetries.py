"""The eight symmetries of the square: what a microscope image may be turned into and stay one.

The paper averages its prediction over 7 rotated versions of the image. Here they are the versions
that need no interpolation: the quarter turns, of the image and of its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    versions = (turned_back(predict(_turned(image, *one)), *one) for one in SYMMETRIES)
    total = sum(versions, start=np.float32(0))
    return np.asarray(total / np.float32(len(SYMMETRIES)))


@dataclass(frozen=True)
class Turned:
    """One of the eight versions of an image that is read by windows.

    Attributes:
        image: What is read by a window of rows and columns as an array is.
        mirrored: Whether it is mirrored.
        quarter_turns: By how many quarter turns it is rotated after that.

    Example:
        >>> turned = Turned(np.array([[1, 2, 3], [4, 5, 6]]), mirrored=False, quarter_turns=1)
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
