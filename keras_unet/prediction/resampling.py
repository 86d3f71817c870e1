"""Resampling of images, probabilities and labels to another size, read by windows.

Pixels are areas, whose borders stay aligned: of n pixels resampled to m, pixel i lies at
(i + 1/2) n/m - 1/2 among the old ones. Images and probabilities are interpolated linearly; where
they shrink, the triangular kernel widens to two new pixels, which prevents aliasing. This is the
`BILINEAR` filter of Pillow, and `tf.image.resize` with `antialias`. A window has the bits of the
whole, so an image may be larger than memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Window = tuple[slice, slice]


def scaled_size(size: tuple[int, ...], factor: float) -> tuple[int, int]:
    """Returns height and width times a factor, in whole pixels, at least one.

    >>> scaled_size((101, 50), 0.5), scaled_size((1, 3), 0.125)
    ((50, 25), (1, 1))
    """
    height, width = (max(1, round(side * factor)) for side in size[:2])
    return height, width


def resample(image: Any, size: tuple[int, int]) -> Any:
    """Returns an image at another size, as an array if it is one; itself if the size is its own.

    Args:
        image: float32 `(height, width, channels)`: an array, or an object that is indexed by a
            window of rows and columns like one.
        size: Height and width of the result.

    Example:
        >>> resample(np.array([[[0.0], [8.0]]], np.float32), (1, 4)).ravel().tolist()
        [0.0, 2.0, 6.0, 8.0]
        >>> resample(np.array([[[0.0], [8.0]]], np.float32), (1, 1)).ravel().tolist()
        [4.0]
    """
    if tuple(image.shape[:2]) == size:
        return image
    resampled = Resampled(image, size)
    return resampled[:, :] if isinstance(image, np.ndarray) else resampled


@dataclass(frozen=True, eq=False)
class Resampled:
    """Image at another size, interpolated as its windows are read.

    Attributes:
        image: float32 `(height, width, channels)`: an array, or an object that is indexed by a
            window of rows and columns like one.
        size: Height and width of the result.
    """

    image: Any
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return (*self.size, *self.image.shape[2:])

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        """Reads a window, `(rows, columns, channels)`."""
        (rows, down), (columns, across) = (
            _weights_of(part, *sizes)
            for part, *sizes in zip(window, self.image.shape, self.size, strict=False)
        )
        pixels = np.asarray(self.image[rows, columns], np.float32)
        return _along_rows(across, _along_rows(down, pixels).swapaxes(0, 1)).swapaxes(0, 1)


@dataclass(frozen=True, eq=False)
class ResampledLabels:
    """Label image at another size: each pixel has the label at its center.

    Attributes:
        labels: Integers `(height, width)`: an array, or an object that is indexed by a window of
            rows and columns like one.
        size: Height and width of the result.

    Example:
        >>> ResampledLabels(np.array([[1, 2, 3]]), (1, 6))[:, :].tolist()
        [[1, 1, 2, 2, 3, 3]]
    """

    labels: Any
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.size

    def __getitem__(self, window: Window) -> NDArray[Any]:
        """Reads a window."""
        rows, columns = (
            (2 * np.arange(target)[part] + 1) * source // (2 * target)
            for part, source, target in zip(window, self.labels.shape, self.size, strict=True)
        )
        if not (len(rows) and len(columns)):
            return np.asarray(self.labels[0:0, 0:0])
        top, left = int(rows[0]), int(columns[0])
        read = np.asarray(self.labels[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1])
        found: NDArray[Any] = read[rows[:, np.newaxis] - top, columns - left]
        return found


def _along_rows(weights: sparse.csr_array, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiplies the first axis by a matrix, in the order of its columns."""
    flat = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    product: NDArray[np.float32] = np.asarray(weights @ flat, np.float32)
    return product.reshape((weights.shape[0], *pixels.shape[1:]))


def _weights_of(part: slice, source: int, target: int) -> tuple[slice, sparse.csr_array]:
    """Returns the source pixels that a part of an axis is made of, and their weights."""
    weights = _weights(source, target)[slice(*part.indices(target))]
    first, last = (int(end) for end in (weights.indices.min(), weights.indices.max()))
    return slice(first, last + 1), weights[:, first : last + 1]


@lru_cache(maxsize=8)
def _weights(source: int, target: int) -> sparse.csr_array:
    """Returns the weight of each source pixel in each target pixel, `(target, source)`."""
    step = source / target
    reach = max(1.0, step)
    centers = (np.arange(target) + 0.5) * step - 0.5
    offsets = np.arange(int(2 * reach) + 2)
    places = np.ceil(centers - reach).astype(np.int64)[:, np.newaxis] + offsets
    weights = np.maximum(0, 1 - np.abs(places - centers[:, np.newaxis]) / reach)
    weights[(places < 0) | (places >= source)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    kept = weights > 0
    rows = np.broadcast_to(np.arange(target)[:, np.newaxis], places.shape)
    entries = weights[kept].astype(np.float32), (rows[kept], places[kept])
    return sparse.csr_array(entries, shape=(target, source))
