"""Window-by-window reading of TIFF and Zarr images larger than memory.

The pixels are those of `read_planes`. TIFF files are read by memory mapping or by their tiles or
strips, Zarr arrays (version 2 or 3) by chunks, OME-Zarr images (0.4, 0.5) at the largest
resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from keras_unet.data.calibration import Spacing
from keras_unet.data.channels import Selection, with_channels
from keras_unet.data.colors import alpha_index
from keras_unet.data.images import check_some_pixels, invert_white, ordered, readable
from keras_unet.data.ome import spacing_of_tiff
from keras_unet.data.scenes import file_of
from keras_unet.data.stacks import stack_of
from keras_unet.data.tiffs import TiffImage, conversion_notes, tiff_image

LARGE = 2**26
"""Pixels times channels above which a file is by default not read as a whole."""

LARGEST_CHUNK = 2**30
"""Bytes of the largest tile or strip of a TIFF, or chunk of a Zarr array, that can be read."""

_ZARR_RECORDS = ("zarr.json", ".zarray", ".zgroup")
_TIFF_SIGNATURES = (b"II", b"MM")
_LAYOUT = "bioformats2raw.layout"  # attribute of a collection of images
_AXES_UNTIL_0_2 = "tczyx"
_XARRAY_NAMES = "_ARRAY_DIMENSIONS"  # attribute of Zarr 2 arrays, which have no dimension names
_ALPHA = "its transparency (alpha channel) is not read"
_FEW = 4


@dataclass(frozen=True, eq=False)
class OpenImage:
    """Open image file.

    Attributes:
        path: Path of the file.
        axes: Letter of each dimension of the array, see `ordered`.
        array: Array-like object, read by slices.
        alpha: Index of the alpha channel, which is removed, or None.
        spacing: Calibration of the file.
        white: Number that is black if the file stores white as 0, see `invert_white`.
        notes: Notes on content that is not read.
        table: Grey value or color of each number, see `color_table`; None for the number itself.
        selected: Indices of the channels to read, in their order; None for all.
    """

    path: Path
    axes: str
    array: Any
    alpha: int | None = None
    spacing: Spacing = field(default_factory=Spacing)
    white: int | None = None
    notes: tuple[str, ...] = ()
    table: NDArray[np.uint8] | None = None
    selected: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Planes, height, width, channels."""
        sizes = self._stored_shape
        return sizes if self.selected is None else (*sizes[:3], len(self.selected))

    @property
    def _stored_shape(self) -> tuple[int, int, int, int]:
        size = dict.fromkeys("YX", 0) | dict(zip(self.axes, self.array.shape, strict=True))
        count = math.prod(n for a, n in zip(self.axes, self.array.shape, strict=True) if a in "CS")
        return (
            math.prod(size for _, size in self.stack),
            size["Y"],
            size["X"],
            count - (self.alpha is not None) if self.table is None else self.table.shape[-1],
        )

    @property
    def stack(self) -> tuple[tuple[str, int], ...]:
        """Letter and size of each plane axis."""
        return stack_of(self.axes, tuple(self.array.shape))

    def __iter__(self) -> Iterator[OpenPlane]:
        """Yields the planes."""
        for number in range(self.shape[0]):
            yield OpenPlane(self, number)

    def read(self, plane: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Reads a window of a plane, `(rows, columns, channels)`, in the dtype of the file.

        Raises:
            ValueError: If it cannot be read.
        """
        sizes = tuple(size for _, size in self.stack)
        indices = iter(np.unravel_index(plane, sizes) if sizes else ())
        slices = {"Y": rows, "X": columns, "C": slice(None), "S": slice(None)}
        window = tuple(slices.get(axis) or _single(next(indices)) for axis in self.axes)
        with readable(self.path):
            stored: NDArray[Any] = ordered(np.asarray(self.array[window]), self.axes)[0]
        pixels = invert_white(stored, self.white)
        if self.table is not None:
            pixels = np.take(self.table, pixels[..., 0], axis=0)
        elif self.alpha is not None:
            pixels = np.delete(pixels, self.alpha, -1)
        return pixels if self.selected is None else np.take(pixels, self.selected, axis=-1)


@dataclass(eq=False)
class OpenPlane:
    """Plane of an open image, read by windows of rows and columns.

    The last rows are cached in full width, so that a strip or chunk is decoded once for all tiles
    of a row.

    Attributes:
        image: The image.
        number: Number of the plane, from 0.
    """

    image: OpenImage
    number: int
    _cache: tuple[slice, NDArray[Any]] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.image.shape[1:]

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        """Reads a window, `(rows, columns, channels)`."""
        rows, columns = window
        if self._cache is None or self._cache[0] != rows:
            all_columns = slice(0, self.shape[1])
            self._cache = None  # frees the memory before the next rows are read
            self._cache = rows, self.image.read(self.number, rows, all_columns)
        return self._cache[1][:, columns]


def is_zarr(path: Path) -> bool:
    """Returns whether a folder is a Zarr array or group."""
    return path.is_dir() and any((path / record).is_file() for record in _ZARR_RECORDS)


def is_tiff(path: Path) -> bool:
    """Returns whether a file has the first bytes of a TIFF."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) in _TIFF_SIGNATURES


def is_large(path: Path, axes: str | None = None) -> bool:
    """Returns whether a file should be read window by window: a Zarr, or a TIFF above `LARGE`.

    Raises:
        ValueError: If it is a TIFF that cannot be read.
    """
    if not is_tiff(path):
        return is_zarr(path)
    with readable(path), tifffile.TiffFile(path) as file:
        return math.prod(tiff_image(file, axes).shape) > LARGE


@contextmanager
def open_large(
    path: Path, axes: str | None = None, channels: Selection | None = None
) -> Iterator[OpenImage]:
    """Opens an image for reading by windows.

    Args:
        path: TIFF file, or folder of a Zarr array or OME-Zarr image.
        axes: Axes of a TIFF that states none or wrong ones.
        channels: Channels to read; None for all.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such an image, is damaged, has no pixel, lacks a channel, or has
            tiles, strips or chunks that are too large.
    """
    with _opened(path, axes) as image:
        check_some_pixels(path, image.array.shape)
        yield _with_selected(image, channels)


def _with_selected(image: OpenImage, channels: Selection | None) -> OpenImage:
    indices = channels and channels.indices(image.spacing.channels, image.shape[-1], image.path)
    if not indices:
        return image
    return replace(image, selected=indices, spacing=with_channels(image.spacing, indices))


@contextmanager
def _opened(path: Path, axes: str | None) -> Iterator[OpenImage]:
    if is_zarr(path):
        with readable(path):
            image = _open_zarr(path)
        yield image
        return
    if file_of(path).exists() and not is_tiff(path):
        raise ValueError(
            f"{path}: expected a TIFF or Zarr file, which can be read in parts. Received another "
            "format; save it as a tiled TIFF, or omit --stream, --dask and --workers"
        )
    with readable(path):
        file = tifffile.TiffFile(path)
    with file:
        with readable(path):
            image = _open_tiff(path, file, axes)
        yield image


def describe_tiff(path: Path, file: tifffile.TiffFile, axes: str | None) -> OpenImage:
    """Reads the metadata of a TIFF image.

    Args:
        path: Path of the file.
        file: The open file.
        axes: Axes, if the file states none or wrong ones.

    Returns:
        The image; its `array` has only a shape.

    Raises:
        ValueError: If there is none, or pixels are missing, see `tiff_image`.
    """
    image = tiff_image(file, axes)
    _check_axes(image.axes, len(image.shape))
    alpha = alpha_index(image.page, image.axes)
    return OpenImage(
        path,
        image.axes,
        image,
        alpha,
        spacing_of_tiff(file, image),
        image.white,
        (*conversion_notes(image), *([] if alpha is None else [_ALPHA])),
        image.table,
    )


def _open_tiff(path: Path, file: tifffile.TiffFile, axes: str | None) -> OpenImage:
    description = describe_tiff(path, file, axes)
    image: TiffImage = description.array
    if len(image.parts) == 1:
        array = _open_series(path, file, image.parts[0])
    else:
        array = _ConcatenatedParts(image, [_open_tiles(part) for part in image.parts])
    return replace(description, array=array)


def _open_series(path: Path, file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Any:
    offset = series.dataoffset
    if offset is not None:  # pixels are contiguous in the file
        dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
        return _MappedArray(path, series.shape, dtype, offset)
    return _open_tiles(series)


def _open_tiles(part: Any) -> Any:
    """Opens a series or page for reading by tiles or strips."""
    import zarr

    array = zarr.open_array(part.aszarr(level=0), mode="r")
    _check_chunk(array, "tiles or strips")
    return array


@dataclass(frozen=True)
class _ConcatenatedParts:
    """Series or pages that form one stack, concatenated along the first axis."""

    image: TiffImage
    arrays: Sequence[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[Any]:
        first, *others = window
        pixels = []
        for number, index in self.image.members()[first]:
            inside = others if index is None else [slice(index, index + 1), *others]
            read = np.asarray(self.arrays[number][tuple(inside)])
            pixels.append(read[None] if index is None else read)
        return np.concatenate(pixels)


@dataclass(frozen=True)
class _MappedArray:
    """Contiguous pixels of a file, memory-mapped only while they are read."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[Any]:
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return np.array(mapped[window])


def _open_zarr(path: Path) -> OpenImage:
    import zarr

    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        array, axes, spacing = node, _axes_of_array(node), Spacing()
    else:
        array, axes, spacing = _largest_resolution(node)
    _check_axes(axes, array.ndim)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"it holds {array.dtype}, which are no grey values")
    _check_chunk(array, "chunks")
    return OpenImage(path, axes, array, spacing=spacing)


def _largest_resolution(group: Any) -> tuple[Any, str, Spacing]:
    attributes = dict(group.attrs)
    stated = attributes.get("ome", attributes)
    if _LAYOUT in stated:
        return _only_image(group)
    multiscales = stated.get("multiscales")
    if not multiscales:
        raise ValueError(
            "it is a Zarr group without multiscales, which is no OME-Zarr image; pass the array or "
            "image within it"
        )
    image, largest = multiscales[0], multiscales[0]["datasets"][0]
    image = {**image, "axes": _axis_objects(image.get("axes", _AXES_UNTIL_0_2))}
    axes = "".join(map(_letter_of_axis, image["axes"]))
    return group[largest["path"]], axes, _spacing(image, largest, axes, stated)


def _axis_objects(axes: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Converts axes of version 0.3 and earlier, which are names alone."""
    return [{"name": axis} if isinstance(axis, str) else axis for axis in axes]


def _letter_of_axis(axis: Mapping[str, Any]) -> str:
    """Returns the letter by the type of a time or channel axis, by the name of a space axis."""
    kind = axis.get("type", "space")
    if kind == "space":
        return _letter(axis["name"])
    return _letter(kind) if kind in ("time", "channel") else "Z"


def _only_image(group: Any) -> tuple[Any, str, Spacing]:
    """Opens the only image of a collection by bioformats2raw."""
    names = sorted(name for name, _ in group.groups() if name.isdecimal())
    if len(names) != 1:
        raise ValueError(
            f"it holds {len(names)} images ({', '.join(names)}); pass one of them, such as "
            f"{group.store_path.store.root}/{(names or ['0'])[0]}"
        )
    return _largest_resolution(group[names[0]])


def _spacing(
    image: Mapping[str, Any], dataset: Mapping[str, Any], axes: str, stated: Mapping[str, Any]
) -> Spacing:
    """Combines the transformations of a resolution with those of the image."""
    steps, starts = np.ones(len(axes)), np.zeros(len(axes))
    for metadata in (dataset, image):
        for transformation in metadata.get("coordinateTransformations", ()):
            if "scale" in transformation:
                scale = transformation["scale"]
                steps, starts = steps * scale, starts * scale
            starts = starts + transformation.get("translation", 0.0)
    known = {
        letter: number
        for number, letter in enumerate(axes)
        if axes.count(letter) == 1 and image["axes"][number]["name"] == letter.lower()
    }
    spatial = {letter: number for letter, number in known.items() if letter in "TZYX"}
    units = {letter: image["axes"][number].get("unit") for letter, number in spatial.items()}
    return Spacing(
        {letter: float(steps[number]) for letter, number in spatial.items()},
        {letter: float(starts[number]) for letter, number in spatial.items()},
        {letter: unit for letter, unit in units.items() if unit},
        name=str(image.get("name") or ""),
        channels=_names_of_channels(stated),
    )


def _names_of_channels(stated: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the labels of the channels, which OME-Zarr states for a viewer (omero)."""
    channels = (stated.get("omero") or {}).get("channels") or ()
    names = tuple(str(channel.get("label", "")) for channel in channels)
    return names if all(names) else ()


def _axes_of_array(array: Any) -> str:
    """Returns the axes by the names of the dimensions; without names they end with "YX"."""
    stated = getattr(array.metadata, "dimension_names", None) or array.attrs.get(_XARRAY_NAMES)
    names: Sequence[str] = stated or ()
    if names and all(names):
        return "".join(map(_letter, names))
    if array.ndim > 2 and array.shape[-1] <= _FEW:
        raise ValueError(
            f"its shape {array.shape} has no dimension names, and the last dimension looks like "
            "channels; add names, such as y, x, c"
        )
    return "YX".rjust(array.ndim, "Z")


def _letter(name: str) -> str:
    """Returns the letter of an axis: Y, X, C or T, and Z for all others."""
    letter = name[:1].upper()
    return letter if letter in "YXCT" else "Z"


def _check_axes(axes: str, dimensions: int) -> None:
    if len(axes) != dimensions or axes.count("Y") != 1 or axes.count("X") != 1:
        raise ValueError(f"its axes {axes!r} have no height and width")


def _check_chunk(array: Any, stored_in: str) -> None:
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > LARGEST_CHUNK:
        raise ValueError(
            f"it is stored in {stored_in} of {size / 1e9:.1f} GB, too large to read in parts; save "
            "it in tiles of 512 x 512 pixels, for example"
        )


def _single(index: Any) -> slice:
    return slice(int(index), int(index) + 1)
