"""Cover an image of any size by tiles on the pooling lattice: pure arithmetic.

A U-Net with max pooling commutes only with shifts by multiples of `2 ** depth`. Tiles whose origins
lie on one lattice of that step therefore reproduce the whole-image scores to rounding; tiles laid
at any other distance do not. The output of figure 1 is 388 pixels wide, but its tiles are laid 384
apart.

    image        0123456789ABC                     height 13
    tiles        [----write---]                    writes on the lattice 0, 384, 768, ...
    reads    ~~~~[----write---]~~~~                context on both sides, mirrored at the border
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture

DEFAULT_TILE = 1084
"""Input tile, in pixels, above which images are predicted in several tiles at depth 4."""


def mirror(position: Any, size: Any) -> Any:
    """Reflects positions at the first and last pixel, without repeating the edge pixel.

    Holds however far a position lies outside (period `2 * (size - 1)`), for NumPy arrays and
    TensorFlow tensors alike, whole and fractional; a fractional position in an image of a single
    pixel comes out in (-1, 0] and is left to the caller to clip.

    >>> mirror(np.arange(-4, 8), 4).tolist()
    [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    >>> mirror(np.arange(-2, 3), 1).tolist()
    [0, 0, 0, 0, 0]

    Args:
        position: Numbers, an array or tensor.
        size: Pixels along the axis, at least 1, in the positions' type.

    Returns:
        Numbers in [0, size - 1], of position's shape.
    """
    period = abs(4 * size - 5) // 2 + 1  # 2 (size - 1), but 1 for a single pixel
    return size - 1 - abs(position - period * (position // period) - (size - 1))


def mirrored_window(image: NDArray[Any], rows: slice, columns: slice) -> NDArray[Any]:
    """Reads a window of an array (height, width, ...) that may reach beyond its borders."""
    row_index, column_index = (
        mirror(np.arange(part.start, part.stop), size)
        for part, size in zip((rows, columns), image.shape[:2], strict=True)
    )
    return image[row_index[:, None], column_index]


@dataclass(frozen=True)
class Tile:
    """One tile: the window to read, the pixels to keep of its scores, and where they belong.

    Attributes:
        read: Rows and columns of the input window, in pixels of the image; may lie outside of it.
        keep: Rows and columns of the network's output that belong to the image.
        write: Rows and columns of the image that they fill.
    """

    read: tuple[slice, slice]
    keep: tuple[slice, slice]
    write: tuple[slice, slice]


@dataclass(frozen=True)
class Tiling:
    """The tiles that cover one image, each pixel written exactly once.

    Attributes:
        image_size: Height and width of the image in pixels.
        tile_size: Height and width of the network's input in pixels.
        architecture: The network; it tells the lattice and the context.

    >>> tiling = Tiling((512, 512), (572, 572), Architecture())
    >>> [(tile.write[0].start, tile.write[0].stop) for tile in tiling][::2]
    [(0, 384), (384, 512)]
    """

    image_size: tuple[int, int]
    tile_size: tuple[int, int]
    architecture: Architecture

    def __post_init__(self) -> None:
        """Refuses tiles that do not fit the network or cannot cover the lattice.

        Raises:
            ValueError: If a tile size does not fit, or leaves less than one step of the lattice.
        """
        network = self.architecture
        for image, tile in zip(self.image_size, self.tile_size, strict=True):
            if image < 1:
                raise ValueError(
                    f"image must be at least 1 x 1 pixels. Received: size={self.image_size}"
                )
            network.check_size(tile, "tile_size")
            useful = tile - 2 * network.context
            if useful < min(image, network.step):
                least = network.fitting_size(2 * network.context + network.step)
                raise ValueError(
                    f"tile_size must be at least {least} to cover an image of "
                    f"{self.image_size[0]} x {self.image_size[1]} pixels. Received: {tile}"
                )

    @classmethod
    def covering(
        cls,
        image_size: tuple[int, int],
        architecture: Architecture,
        tile_size: int | tuple[int, int] | None = None,
    ) -> Tiling:
        """Lays tiles of `tile_size`, or such that small images need one tile of their size.

        Args:
            image_size: Height and width of the image in pixels.
            architecture: The network.
            tile_size: Height and width of the input tile, one number for a square; None for the
                image's own size with its context, but at most about DEFAULT_TILE pixels.
        """
        if isinstance(tile_size, int):
            tile_size = (tile_size, tile_size)
        if tile_size is not None:
            return cls(image_size, tile_size, architecture)
        largest = max(DEFAULT_TILE, 2 * architecture.context + 16 * architecture.step)
        height, width = (
            architecture.fitting_size(min(size + 2 * architecture.context, largest))
            for size in image_size
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
        useful = tile - 2 * self.architecture.context
        stride = max(useful // self.architecture.step, 1) * self.architecture.step
        return range(0, image if useful < image else 1, stride)

    def _spans(self, image: int, tile: int) -> Iterator[tuple[slice, slice, slice]]:
        context, lost = self.architecture.context, self.architecture.margin
        starts = self._starts(image, tile)
        for start in starts:
            stop = min(start + starts.step, image) if len(starts) > 1 else image
            skip = context - lost
            yield (
                slice(start - context, start - context + tile),
                slice(skip, skip + stop - start),
                slice(start, stop),
            )
