"""The tiles by which an image larger than memory is predicted, wherever that is done.

A sweep is one of the eight versions of a plane, as one network is to see it. Its tiles and their
order follow from the numbers below alone, so whoever knows these can predict some of them, or put
what was predicted in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.console import Task
from keras_unet.data.images import as_channels, pixels_of
from keras_unet.data.large import LargePlane, open_large
from keras_unet.data.standardisation import Moments, Standardisation
from keras_unet.prediction.predict import (
    SYMMETRIES,
    Turned,
    checked_pixels,
    predict_tiles,
    tile_size_of,
    turned_back,
)
from keras_unet.runs import ModelInfo
from keras_unet.tiling import Tile, Tiling, mirror

Window = tuple[slice, slice]

Predicted = Iterator[tuple[Window, NDArray[np.float32]]]
"""Windows of a plane, and the probabilities of their pixels, `(rows, columns, classes)`."""

Predict = Callable[[int, int, int], Predicted]
"""Predicts a plane with a member in a version, all by their numbers, from 0 on; each pixel once."""


class Source(Protocol):
    """Predictor of images by windows: networks in this process, or workers."""

    @property
    def members(self) -> int:
        """Number of networks that predict together."""
        ...

    @property
    def versions(self) -> int:
        """Number of versions of an image that each of them is given."""
        ...

    @property
    def axes(self) -> str | None:
        """Axes of images that state none, or others."""
        ...

    def opened(self, path: Path, moments: Sequence[Moments]) -> AbstractContextManager[Predict]:
        """Takes up an image, until the body is through with it.

        Args:
            path: The image.
            moments: What was measured of its planes.
        """
        ...


@dataclass(frozen=True)
class Sweep:
    """The tiles over one version of a plane, in the order of the rows in which the plane is read.

    Attributes:
        size: Height and width of the plane in pixels.
        architecture: The network.
        tile_size: Height and width of the tiles, each None to choose, see `Tiling.covering`.
        version: Number of the version, see `SYMMETRIES`.

    Example:
        >>> sweep = Sweep((50, 30), Architecture(depth=1), (60, 60))
        >>> [sweep.place(tile) for tile in sweep.tiles]
        [(slice(0, 44, None), slice(0, 30, None)), (slice(44, 50, None), slice(0, 30, None))]
    """

    size: tuple[int, int]
    architecture: Architecture
    tile_size: tuple[int | None, int | None]
    version: int = 0

    @cached_property
    def tiling(self) -> Tiling:
        """The tiling of the version."""
        height, width = self._turned(np.broadcast_to(np.uint8(0), self.size)).shape
        return Tiling.covering((height, width), self.architecture, self.tile_size)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles, in order."""

        def rows_first(tile: Tile) -> tuple[int, int]:
            rows, columns = self.place(tile)
            return rows.start, columns.start

        return tuple(sorted(self.tiling, key=rows_first))

    def parts(self, most: int) -> Iterator[range]:
        """Yields which of the tiles are to be predicted together: neighbours in the same rows.

        Args:
            most: How many at most.
        """
        starts = enumerate(self.place(tile)[0].start for tile in self.tiles)
        for _, same in groupby(starts, key=lambda one: one[1]):
            numbers = [number for number, _ in same]
            for first in range(numbers[0], numbers[-1] + 1, most):
                yield range(first, min(first + most, numbers[-1] + 1))

    def place(self, tile: Tile) -> Window:
        """Returns the window of the plane that a tile fills."""
        return self._place(tile.write)

    def reads(self, tiles: Sequence[Tile]) -> Window:
        """Returns the window of the plane that holds all that tiles read."""
        windows = [self._place(self._within(tile.read)) for tile in tiles]
        rows, columns = (
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*windows, strict=True)
        )
        return rows, columns

    def predict(self, model: Any, pixels: Any, tiles: Sequence[Tile]) -> Predicted:
        """Predicts tiles.

        Args:
            model: See `predict_image`.
            pixels: The plane, standardised, read by windows as an array is.
            tiles: Some of this sweep's.
        """
        version = SYMMETRIES[self.version]
        for window, predicted in predict_tiles(
            model, self._turned(pixels), self.tiling, tiles=tiles
        ):
            yield self._place(window), turned_back(predicted, *version)

    def _turned(self, plane: Any) -> Turned:
        return Turned(plane, *SYMMETRIES[self.version])

    def _place(self, window: Window) -> Window:
        return self._turned(np.broadcast_to(np.uint8(0), self.size)).place(window)

    def _within(self, window: Window) -> Window:
        """Returns the pixels of the version that a window takes, which may reach beyond it."""
        rows, columns = (
            slice(int(places.min()), int(places.max()) + 1)
            for places in (
                mirror(np.arange(part.start, part.stop), size)
                for part, size in zip(window, self.tiling.image_size, strict=True)
            )
        )
        return rows, columns


@dataclass(frozen=True, eq=False)
class Standardised:
    """A plane as a network takes it, read by windows.

    Attributes:
        architecture: The network.
        standardisation: With the numbers that hold for this plane, see `Standardisation.settled`.
        plane: The plane.
    """

    architecture: Architecture
    standardisation: Standardisation
    plane: LargePlane

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return (*self.plane.shape[:2], self.architecture.channels)

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        """Reads a window."""
        raw = grey_values(self.plane, window, self.architecture.channels)
        return checked_pixels(self.standardisation.apply(raw), self.architecture)


def grey_values(plane: LargePlane, window: Window, channels: int) -> NDArray[np.float32]:
    """Reads a window, with as many channels as a network takes.

    Raises:
        ValueError: If it cannot be read, does not suit, or a pixel is not finite.
    """
    rows = window[0]
    where = f"{plane.image.path} (rows {rows.start} to {rows.stop - 1})"
    return pixels_of(as_channels(plane[window], channels, plane.image.path), where)


@dataclass(frozen=True, eq=False)
class Here:
    """Networks in this process.

    Attributes:
        networks: The runs, and their networks.
        tile_size: Height and width of the tiles, or None, see `tile_size_of`.
        symmetries: Whether to average over the eight symmetries of the square.
        axes: Axes of images that state none, or others.
    """

    networks: Sequence[tuple[ModelInfo, Any]]
    tile_size: int | None = None
    symmetries: bool = False
    axes: str | None = None

    @property
    def members(self) -> int:
        """Number of networks that predict together."""
        return len(self.networks)

    @property
    def versions(self) -> int:
        """Number of versions of an image that each of them is given."""
        return len(SYMMETRIES) if self.symmetries else 1

    @contextmanager
    def opened(self, path: Path, moments: Sequence[Moments]) -> Iterator[Predict]:
        """Takes up an image, see `Source`."""
        with open_large(path, self.axes) as image:
            size = image.shape[1:3]
            every = product(range(self.members), range(self.versions))
            total = len(moments) * sum(len(self._sweep(size, *one).tiling) for one in every)
            task = Task(path.name, total, counts="tile {:,} of {:,}")

            def predict(plane: int, member: int, version: int) -> Predicted:
                run, model = self.networks[member]
                settled = run.standardisation.settled(moments[plane])
                pixels = Standardised(run.architecture, settled, LargePlane(image, plane))
                sweep = self._sweep(size, member, version)
                for one in sweep.predict(model, pixels, sweep.tiles):
                    yield one
                    task.advance()

            with task:
                yield predict

    def _sweep(self, size: tuple[int, int], member: int, version: int) -> Sweep:
        run, model = self.networks[member]
        return Sweep(size, run.architecture, tile_size_of(model, self.tile_size), version)
