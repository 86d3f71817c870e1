"""Window-by-window writing of images larger than memory: tiled BigTIFF, OME-Zarr with a pyramid.

Files are written atomically.
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
"""Height and width of the chunks of an OME-Zarr image; the smallest resolution is one chunk."""

_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}


@dataclass(frozen=True)
class LazyImage:
    """Image that is computed while it is written.

    Attributes:
        shape: Shape `(..., height, width)`.
        dtype: Type of the pixels.
        axes: Letter of each dimension, of T, Z, C, Y and X.
        read: Function from the indices of the leading dimensions, and a window of rows and columns,
            to pixels.
        spacing: Calibration.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    read: Callable[[tuple[int, ...], tuple[slice, slice]], NDArray[Any]]
    spacing: Spacing = field(default_factory=Spacing)

    def windows(self, side: int) -> Iterator[tuple[tuple[int, ...], tuple[slice, slice]]]:
        """Yields plane indices and square windows of up to `side` pixels, row by row."""
        rows, columns = (_spans(size, side) for size in self.shape[-2:])
        for plane in np.ndindex(self.shape[:-2]):
            for window in product(rows, columns):
                yield plane, window


def write_tiled_tiff(path: Path, image: LazyImage) -> None:
    """Writes a losslessly compressed BigTIFF in tiles of TILE pixels.

    Args:
        path: Path of the file in an existing folder.
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
            (_pad(image.read(*window)) for window in track(windows, f"writing {path.name}")),
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

    Each resolution has every second pixel of the previous one, which keeps labels intact.

    Args:
        path: Path of the output folder; its parent exists.
        image: The image, with axes in the order T, C, Z, Y, X.
    """
    import zarr

    with atomic_folder(path) as temporary:
        group: Any = zarr.create_group(temporary, zarr_format=3)
        group.attrs["ome"] = _multiscales(path, image)
        for level in range(_levels(image)):
            source = image if level == 0 else _downsample(image, group[str(level - 1)])
            array = group.create_array(
                str(level),
                shape=source.shape,
                dtype=source.dtype,
                chunks=(*(1 for _ in source.shape[:-2]), CHUNK, CHUNK),
                dimension_names=list(source.axes.lower()),
            )
            windows = list(source.windows(CHUNK))
            for plane, window in track(windows, f"writing {path.name}"):
                rows, columns = window
                array[(*plane, rows, columns)] = source.read(plane, window)


def _downsample(image: LazyImage, finer: Any) -> LazyImage:
    size = tuple(math.ceil(side / 2) for side in finer.shape[-2:])

    def read(plane: tuple[int, ...], window: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (slice(2 * axis.start, 2 * axis.stop) for axis in window)
        pixels: NDArray[Any] = np.asarray(finer[(*plane, rows, columns)])
        return pixels[::2, ::2]

    return LazyImage((*image.shape[:-2], *size), image.dtype, image.axes, read)


def _levels(image: LazyImage) -> int:
    return 1 + max(0, math.ceil(math.log2(max(image.shape[-2:]) / CHUNK)))


def _multiscales(path: Path, image: LazyImage) -> dict[str, Any]:
    """Returns the metadata of the pyramid, see ngff.openmicroscopy.org/0.5."""
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
    metadata = {"version": "0.5", "_creator": {"name": SOFTWARE}, "multiscales": [pyramid]}
    return metadata | ({"omero": _channels(image)} if "C" in image.axes else {})


def _channels(image: LazyImage) -> dict[str, Any]:
    """Returns names and display ranges of the channels, which are probabilities."""
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    return {
        "channels": [
            {"label": name, "color": "FFFFFF", "window": window} for name in image.spacing.channels
        ]
    }


def _transformations(image: LazyImage, level: int) -> list[dict[str, Any]]:
    """Returns scale and translation of a resolution, whose first pixel is that of the image."""
    spacing, coarser = image.spacing, {"Y": 2.0**level, "X": 2.0**level}
    scale = [coarser.get(axis, 1.0) * spacing.steps.get(axis, 1.0) for axis in image.axes]
    translation = [spacing.starts.get(axis, 0.0) for axis in image.axes]
    moved = [{"type": "translation", "translation": translation}] if any(translation) else []
    return [{"type": "scale", "scale": scale}, *moved]


def _pad(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pads a tile at the border with 0."""
    height, width = pixels.shape
    return np.pad(pixels, ((0, TILE - height), (0, TILE - width)))


def _spans(size: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, size)) for start in range(0, size, side)]
