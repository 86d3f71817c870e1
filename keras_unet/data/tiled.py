"""Images written part by part: tiled BigTIFF, and OME-Zarr with a pyramid.

Either is written whole or not at all, and read by windows from wherever its pixels come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from keras_unet.console import track
from keras_unet.data.calibration import Spacing, tiff_options
from keras_unet.files import SOFTWARE, atomic, atomic_folder

TILE = 512
"""Height and width of the tiles of a TIFF."""

CHUNK = 1024
"""Height and width of the chunks of an OME-Zarr image; its smallest resolution is no larger."""

_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}


@dataclass(frozen=True)
class LazyImage:
    """An image that is made as it is written.

    Attributes:
        shape: `(..., height, width)`.
        dtype: Of its numbers.
        axes: A letter for each dimension, of T, Z, C, Y and X.
        read: Gives the window of rows and columns at a place, the numbers of the other dimensions.
        spacing: Where the pixels lie.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    read: Callable[[tuple[int, ...], tuple[slice, slice]], NDArray[Any]]
    spacing: Spacing = field(default_factory=Spacing)

    def windows(self, side: int) -> Iterator[tuple[tuple[int, ...], tuple[slice, slice]]]:
        """Yields places and squares of `side` pixels, those at the end smaller, row by row."""
        rows, columns = (_spans(size, side) for size in self.shape[-2:])
        for place in np.ndindex(self.shape[:-2]):
            for window in product(rows, columns):
                yield place, window


def write_tiled_tiff(path: Path, image: LazyImage) -> None:
    """Writes a BigTIFF in tiles of TILE pixels, losslessly compressed.

    Args:
        path: Path of the file; its folder exists.
        image: The image.
    """
    windows = list(image.windows(TILE))
    options = tiff_options(image.spacing, image.axes, image.shape)
    is_ome = options.pop("ome", False)
    with (
        atomic(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=True, ome=is_ome) as file,
    ):
        file.write(
            (_filled(image.read(*one)) for one in track(windows, f"writing {path.name}")),
            shape=image.shape,
            dtype=image.dtype,
            tile=(TILE, TILE),
            photometric="minisblack",
            compression="zlib",
            software=SOFTWARE,
            **options,
        )


def write_ome_zarr(path: Path, image: LazyImage) -> None:
    """Writes an OME-Zarr image of version 0.5 (Zarr 3) with a pyramid.

    Each resolution takes every second pixel of the one before, so that labels stay labels.

    Args:
        path: Path of the folder; the one above exists.
        image: The image; its axes in the order T, C, Z, Y, X, as OME-Zarr asks.
    """
    import zarr

    with atomic_folder(path) as temporary:
        group: Any = zarr.create_group(temporary, zarr_format=3)
        group.attrs["ome"] = _multiscales(path, image)
        for level in range(_levels(image)):
            source = image if level == 0 else _halved(image, group[str(level - 1)])
            array = group.create_array(
                str(level),
                shape=source.shape,
                dtype=source.dtype,
                chunks=(*(1 for _ in source.shape[:-2]), CHUNK, CHUNK),
                dimension_names=list(source.axes.lower()),
            )
            windows = list(source.windows(CHUNK))
            for place, window in track(windows, f"writing {path.name}"):
                rows, columns = window
                array[(*place, rows, columns)] = source.read(place, window)


def _halved(image: LazyImage, above: Any) -> LazyImage:
    size = tuple(math.ceil(one / 2) for one in above.shape[-2:])

    def read(place: tuple[int, ...], window: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (slice(2 * part.start, 2 * part.stop) for part in window)
        pixels: NDArray[Any] = np.asarray(above[(*place, rows, columns)])
        return pixels[::2, ::2]

    return LazyImage((*image.shape[:-2], *size), image.dtype, image.axes, read)


def _levels(image: LazyImage) -> int:
    return 1 + max(0, math.ceil(math.log2(max(image.shape[-2:]) / CHUNK)))


def _multiscales(path: Path, image: LazyImage) -> dict[str, Any]:
    """Describes the pyramid, see ngff.openmicroscopy.org/0.5."""
    datasets = [
        {"path": str(level), "coordinateTransformations": _transformations(image, level)}
        for level in range(_levels(image))
    ]
    units = image.spacing.units
    axes = [
        {"name": axis.lower(), "type": _TYPES[axis]}
        | ({"unit": units[axis]} if axis in units else {})
        for axis in image.axes
    ]
    name = image.spacing.name or path.name.removesuffix(".ome.zarr")
    pyramid = {"name": name, "axes": axes, "datasets": datasets, "type": "nearest"}
    described = {"version": "0.5", "_creator": {"name": SOFTWARE}, "multiscales": [pyramid]}
    return described | ({"omero": _channels(image)} if "C" in image.axes else {})


def _channels(image: LazyImage) -> dict[str, Any]:
    """Names the channels, which are probabilities."""
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    return {
        "channels": [
            {"label": name, "color": "FFFFFF", "window": window} for name in image.spacing.channels
        ]
    }


def _transformations(image: LazyImage, level: int) -> list[dict[str, Any]]:
    """Says where the pixels of a resolution lie; its first is the first of all."""
    spacing, coarser = image.spacing, {"Y": 2.0**level, "X": 2.0**level}
    scale = [coarser.get(axis, 1.0) * spacing.steps.get(axis, 1.0) for axis in image.axes]
    translation = [spacing.starts.get(axis, 0.0) for axis in image.axes]
    moved = [{"type": "translation", "translation": translation}] if any(translation) else []
    return [{"type": "scale", "scale": scale}, *moved]


def _filled(pixels: NDArray[Any]) -> NDArray[Any]:
    """Fills a tile at the end with 0."""
    height, width = pixels.shape
    return np.pad(pixels, ((0, TILE - height), (0, TILE - width)))


def _spans(size: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, size)) for start in range(0, size, side)]
