"""Overlap-tile geometry: tiles on the pooling lattice that cover an image of any size.

A U-Net with max pooling commutes only with shifts by multiples of `2 ** depth`. Tiles whose origins
lie on a lattice of that step therefore reproduce the scores of the whole image up to rounding;
tiles at other distances do not. The output of figure 1 is 388 pixels wide, but its tiles are 384
pixels apart.

    image        0123456789ABC                     height 13
    tiles        [----write---]                    writes on the lattice 0, 384, 768, ...
    reads    ~~~~[----write---]~~~~                context on both sides, mirrored at the border
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture

LARGEST_TILE = 1212
"""Largest height and width in pixels of an input tile by default.

With figure 1 it has 1,024 x 1,024 output pixels and needs 2 GB in float32 or 1 GB in bfloat16.
"""


def mirror(position: Any, size: Any) -> Any:
    """Reflects positions at the first and last pixel, without repeating the edge pixel.

    Positions may lie any distance outside (the period is `2 * (size - 1)`), be integers or
    fractions, and a NumPy array or a TensorFlow tensor. A fractional position in an image of a
    single pixel is returned in (-1, 0], for the caller to clip.

    Args:
        position: Positions, an array or tensor.
        size: Pixels along the axis, at least 1, of the positions' type.

    Returns:
        Positions in [0, size - 1], of the same shape.

    Example:
        >>> mirror(np.arange(-4, 8), 4).tolist()
        [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
        >>> mirror(np.arange(-2, 3), 1).tolist()
        [0, 0, 0, 0, 0]
    """
    period = abs(4 * size - 5) // 2 + 1  # 2 (size - 1), but 1 for a single pixel
    return size - 1 - abs(position - period * (position // period) - (size - 1))


def mirrored_window(image: Any, rows: slice, columns: slice) -> NDArray[Any]:
    """Reads a window of an image, mirrored where it reaches beyond the image border.

    Args:
        image: Array `(height, width, ...)`, or an object that is sliced by rows and columns.
        rows: Rows of the window, in pixels of the image.
        columns: Columns of the window, in pixels of the image.
    """
    row_index, column_index = (
        mirror(np.arange(span.start, span.stop), size)
        for span, size in zip((rows, columns), image.shape[:2], strict=True)
    )
    top, left = row_index.min(), column_index.min()
    within = image[top : row_index.max() + 1, left : column_index.max() + 1]
    window: NDArray[Any] = within[row_index[:, None] - top, column_index - left]
    return window


@dataclass(frozen=True)
class Tile:
    """A tile: the input window, the output pixels to keep, and their place in the image.

    Attributes:
        read: Rows and columns of the input window in the image; may reach beyond its border.
        keep: Rows and columns of the network's output to keep.
        write: Rows and columns of the image that the kept output fills.
    """

    read: tuple[slice, slice]
    keep: tuple[slice, slice]
    write: tuple[slice, slice]


@dataclass(frozen=True)
class Tiling:
    """Tiles that cover an image and write each pixel exactly once.

    Attributes:
        image_size: Height and width of the image in pixels.
        tile_size: Height and width of the network's input in pixels.
        architecture: Architecture of the network, which determines lattice and context.

    Example:
        >>> tiling = Tiling((512, 512), (572, 572), Architecture())
        >>> [(tile.write[0].start, tile.write[0].stop) for tile in tiling][::2]
        [(0, 384), (384, 512)]
    """

    image_size: tuple[int, int]
    tile_size: tuple[int, int]
    architecture: Architecture

    def __post_init__(self) -> None:
        """Validates the sizes.

        Raises:
            ValueError: If a tile size does not fit the network, or its output is smaller than one
                step of the lattice.
        """
        network = self.architecture
        for image, tile in zip(self.image_size, self.tile_size, strict=True):
            if image < 1:
                raise ValueError(
                    f"image must be at least 1 x 1 pixels. Received: size={self.image_size}"
                )
            network.check_size(tile, "tile_size")
            if tile - 2 * network.context < min(image, network.step):
                least = network.fitting_size(2 * network.context + network.step)
                raise ValueError(
                    f"tile_size must be at least {least} for depth={network.depth}, to reach "
                    f"from one point of the pooling lattice to the next. Received: {tile}; use "
                    f"{least}, with a network of input_shape=(None, None, channels)"
                )

    @classmethod
    def covering(
        cls,
        image_size: tuple[int, int],
        architecture: Architecture,
        tile_size: tuple[int | None, int | None] = (None, None),
    ) -> Tiling:
        """Returns the tiles of a given size or, where it is None, of a default size.

        Args:
            image_size: Height and width of the image in pixels.
            architecture: Architecture of the network.
            tile_size: Height and width of the input tile in pixels. None for a single tile that
                covers the image with its context; if that exceeds `LARGEST_TILE`, for the smallest
                tile of which no more are needed.

        Raises:
            ValueError: If the tile size does not fit.

        Example:
            >>> Tiling.covering((512, 2000), Architecture()).tile_size
            (700, 1196)
        """
        height, width = (
            _default_tile_size(image, architecture) if tile is None else tile
            for image, tile in zip(image_size, tile_size, strict=True)
        )
        return cls(image_size, (height, width), architecture)

    def __iter__(self) -> Iterator[Tile]:
        """Yields the tiles row by row."""
        axes = zip(self.image_size, self.tile_size, strict=True)
        for row, column in product(*(list(self._spans(*axis)) for axis in axes)):
            read, keep, write = zip(row, column, strict=True)
            yield Tile(read, keep, write)

    def __len__(self) -> int:
        """Returns the number of tiles."""
        rows, columns = (
            len(self._starts(*axis)) for axis in zip(self.image_size, self.tile_size, strict=True)
        )
        return rows * columns

    def _starts(self, image: int, tile: int) -> range:
        useful, step = tile - 2 * self.architecture.context, self.architecture.step
        return range(0, image, useful if useful >= image else useful // step * step)

    def _spans(self, image: int, tile: int) -> Iterator[tuple[slice, slice, slice]]:
        context, lost = self.architecture.context, self.architecture.margin
        skip = context - lost
        starts = self._starts(image, tile)
        for start in starts:
            stop = min(start + starts.step, image)
            yield (
                slice(start - context, start - context + tile),
                slice(skip, skip + stop - start),
                slice(start, stop),
            )


def _default_tile_size(image: int, network: Architecture) -> int:
    largest = max(LARGEST_TILE - 2 * network.context, 16 * network.step)
    if image <= largest:
        return network.fitting_size(image + 2 * network.context)
    tiles = ceil(image / (largest // network.step * network.step))
    stride = ceil(image / (tiles * network.step)) * network.step
    return network.fitting_size(stride + 2 * network.context)
