"""Images that stay on disk: TIFF and Zarr files, read window by window.

What is read is what `read_planes` reads of the same file, but no more of it than is asked for. TIFF
files are read where their pixels lie, or through the tiles or strips that they are stored in;
Zarr arrays, of version 2 or 3, by chunks; of an OME-Zarr image (0.4, 0.5) the largest resolution.
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
from keras_unet.data.colors import place_of_alpha
from keras_unet.data.images import check_some_pixels, invert_white, ordered, readable
from keras_unet.data.ome import spacing_of_tiff
from keras_unet.data.stacks import stack_of
from keras_unet.data.tiffs import TiffImage, notes_of, tiff_image

LARGE = 2**26
"""Numbers in a file, pixels times channels, above which it is not read whole unless asked to."""

LARGEST_CHUNK = 2**30
"""Bytes of the largest tile or strip of a TIFF, or chunk of a Zarr array, that is decoded."""

_ZARR_RECORDS = ("zarr.json", ".zarray", ".zgroup")
_TIFF_SIGNATURES = (b"II", b"MM")
_LAYOUT = "bioformats2raw.layout"  # attribute of a collection of images
_AXES_UNTIL_0_2 = "tczyx"
_NAMES_BY_XARRAY = "_ARRAY_DIMENSIONS"  # attribute of arrays of Zarr 2, which has no names
_ALPHA = "its transparency (alpha channel) is not read"
_FEW = 4


@dataclass(frozen=True, eq=False)
class OpenImage:
    """An image file that is open.

    Attributes:
        path: The file.
        axes: A letter for each dimension of the array, see `ordered`.
        array: What is read by slices as a NumPy array is.
        alpha: Which channel is alpha, which is left out; None where none is.
        spacing: Where the pixels lie, as the file says.
        white: The number that is black where the file calls 0 white, see `seen`.
        notes: What of the file is not read, for a person.
        table: What stands for each number, see `table_of`; None for the number itself.
    """

    path: Path
    axes: str
    array: Any
    alpha: int | None = None
    spacing: Spacing = field(default_factory=Spacing)
    white: int | None = None
    notes: tuple[str, ...] = ()
    table: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Planes, height, width, channels."""
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
        """Letters and sizes of the dimensions that count planes."""
        return stack_of(self.axes, tuple(self.array.shape))

    def __iter__(self) -> Iterator[OpenPlane]:
        """Yields the planes."""
        for number in range(self.shape[0]):
            yield OpenPlane(self, number)

    def read(self, plane: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Reads a window of a plane, `(rows, columns, channels)`, in the file's own dtype.

        Raises:
            ValueError: It cannot be read.
        """
        sizes = tuple(size for _, size in self.stack)
        places = iter(np.unravel_index(plane, sizes) if sizes else ())
        known = {"Y": rows, "X": columns, "C": slice(None), "S": slice(None)}
        window = tuple(known.get(axis) or _one(next(places)) for axis in self.axes)
        with readable(self.path):
            stored: NDArray[Any] = ordered(np.asarray(self.array[window]), self.axes)[0]
        pixels = invert_white(stored, self.white)
        if self.table is not None:
            return np.take(self.table, pixels[..., 0], axis=0)
        return pixels if self.alpha is None else np.delete(pixels, self.alpha, -1)


@dataclass(eq=False)
class OpenPlane:
    """One plane of an image that is open, read by windows of rows and columns.

    The rows that were read last are kept, all columns of them: tiles come row by row, and a strip
    or a chunk is so decoded once for all of a row, not once for each.

    Attributes:
        image: The image.
        number: Which of its planes.
    """

    image: OpenImage
    number: int
    _kept: tuple[slice, NDArray[Any]] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.image.shape[1:]

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        """Reads a window, `(rows, columns, channels)`."""
        rows, columns = window
        if self._kept is None or self._kept[0] != rows:
            whole = slice(0, self.shape[1])
            self._kept = None  # before the next are read
            self._kept = rows, self.image.read(self.number, rows, whole)
        return self._kept[1][:, columns]


def is_zarr(path: Path) -> bool:
    """Tells whether a folder is a Zarr array or group."""
    return path.is_dir() and any((path / record).is_file() for record in _ZARR_RECORDS)


def is_tiff(path: Path) -> bool:
    """Tells whether a file begins as a TIFF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) in _TIFF_SIGNATURES


def is_large(path: Path, axes: str | None = None) -> bool:
    """Tells whether a file is better read window by window: a Zarr, or a TIFF of LARGE pixels.

    Raises:
        ValueError: It is a TIFF that cannot be read.
    """
    if not is_tiff(path):
        return is_zarr(path)
    with readable(path), tifffile.TiffFile(path) as file:
        return math.prod(tiff_image(file, axes).shape) > LARGE


@contextmanager
def open_large(path: Path, axes: str | None = None) -> Iterator[OpenImage]:
    """Opens an image to read it by windows.

    Args:
        path: TIFF file, or folder of a Zarr array or OME-Zarr image.
        axes: Axes of a TIFF that states none, or others.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such image, is damaged, holds no pixel, or is stored in pieces that are
            themselves too large.
    """
    with _opened(path, axes) as image:
        check_some_pixels(path, image.array.shape)
        yield image


@contextmanager
def _opened(path: Path, axes: str | None) -> Iterator[OpenImage]:
    if is_zarr(path):
        with readable(path):
            image = _open_zarr(path)
        yield image
        return
    if path.exists() and not is_tiff(path):
        raise ValueError(
            f"{path}: expected a TIFF or Zarr file, which are read by parts. Received another; "
            "save it as a tiled TIFF, or leave out --stream, --dask and --workers"
        )
    with readable(path):
        file = tifffile.TiffFile(path)
    with file:
        with readable(path):
            image = _open_tiff(path, file, axes)
        yield image


def described_tiff(path: Path, file: tifffile.TiffFile, axes: str | None) -> OpenImage:
    """Describes the image of a TIFF without its pixels.

    Args:
        path: The file.
        file: The same, open.
        axes: Its axes where it states none, or others.

    Returns:
        The image, whose `array` has a shape alone.

    Raises:
        ValueError: If there is none, or pixels are missing, see `tiff_image`.
    """
    image = tiff_image(file, axes)
    _check_axes(image.axes, len(image.shape))
    alpha = place_of_alpha(image.page, image.axes)
    return OpenImage(
        path,
        image.axes,
        image,
        alpha,
        spacing_of_tiff(file, image),
        image.white,
        (*notes_of(image), *([] if alpha is None else [_ALPHA])),
        image.table,
    )


def _open_tiff(path: Path, file: tifffile.TiffFile, axes: str | None) -> OpenImage:
    described = described_tiff(path, file, axes)
    image: TiffImage = described.array
    if len(image.parts) == 1:
        array = _pixels_of_tiff(path, file, image.parts[0])
    else:
        array = _Joined(image, [_pieces(part) for part in image.parts])
    return replace(described, array=array)


def _pixels_of_tiff(path: Path, file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Any:
    offset = series.dataoffset
    if offset is not None:  # pixels lie in the file as in an array
        dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
        return _Mapped(path, series.shape, dtype, offset)
    return _pieces(series)


def _pieces(part: Any) -> Any:
    """Opens a series or page to read it through the tiles or strips that it is stored in."""
    import zarr

    array = zarr.open_array(part.aszarr(level=0), mode="r")
    _check_chunk(array, "tiles or strips")
    return array


@dataclass(frozen=True)
class _Joined:
    """Series or pages that are one stack, read by windows; the first axis goes by members."""

    image: TiffImage
    arrays: Sequence[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[Any]:
        first, *others = window
        pixels = []
        for number, place in self.image.members()[first]:
            inside = others if place is None else [slice(place, place + 1), *others]
            read = np.asarray(self.arrays[number][tuple(inside)])
            pixels.append(read[None] if place is None else read)
        return np.concatenate(pixels)


@dataclass(frozen=True)
class _Mapped:
    """Pixels that lie in a file as in an array; it is mapped only while it is read."""

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
        raise ValueError(f"it holds {array.dtype}, no grey values")
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
            "it is a Zarr group without multiscales, no OME-Zarr image; give the array or image "
            "that is in it"
        )
    image, largest = multiscales[0], multiscales[0]["datasets"][0]
    image = {**image, "axes": _described(image.get("axes", _AXES_UNTIL_0_2))}
    axes = "".join(map(_letter_of_axis, image["axes"]))
    return group[largest["path"]], axes, _spacing(image, largest, axes)


def _described(axes: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Describes axes that are names alone, as until version 0.3, as later ones are."""
    return [{"name": axis} if isinstance(axis, str) else axis for axis in axes]


def _letter_of_axis(axis: Mapping[str, Any]) -> str:
    """Takes the kind of an axis where it is time or channel, and its name where it is space."""
    kind = axis.get("type", "space")
    if kind == "space":
        return _letter(axis["name"])
    return _letter(kind) if kind in ("time", "channel") else "Z"


def _only_image(group: Any) -> tuple[Any, str, Spacing]:
    """Opens the image of a collection, as bioformats2raw writes it; there must be one alone."""
    names = sorted(name for name, _ in group.groups() if name.isdecimal())
    if len(names) != 1:
        raise ValueError(
            f"it holds {len(names)} images ({', '.join(names)}); give one of them, such as "
            f"{group.store_path.store.root}/{(names or ['0'])[0]}"
        )
    return _largest_resolution(group[names[0]])


def _spacing(image: Mapping[str, Any], dataset: Mapping[str, Any], axes: str) -> Spacing:
    """Takes the axes of space from what is said of a resolution, and then of all of them."""
    steps, starts = np.ones(len(axes)), np.zeros(len(axes))
    for described in (dataset, image):
        for one in described.get("coordinateTransformations", ()):
            if "scale" in one:
                steps, starts = steps * one["scale"], starts * one["scale"]
            starts = starts + one.get("translation", 0.0)
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
    )


def _axes_of_array(array: Any) -> str:
    """Takes the names of the dimensions; without any, the last two are height and width."""
    stated = getattr(array.metadata, "dimension_names", None) or array.attrs.get(_NAMES_BY_XARRAY)
    names: Sequence[str] = stated or ()
    if names and all(names):
        return "".join(map(_letter, names))
    if array.ndim > 2 and array.shape[-1] <= _FEW:
        raise ValueError(
            f"its dimensions of {array.shape} have no names, and the last looks like channels; "
            "give them names, such as y, x, c"
        )
    return "YX".rjust(array.ndim, "Z")


def _letter(name: str) -> str:
    """Turns the name of an axis into its letter; what is neither size nor channel counts planes."""
    letter = name[:1].upper()
    return letter if letter in "YXCT" else "Z"


def _check_axes(axes: str, dimensions: int) -> None:
    if len(axes) != dimensions or axes.count("Y") != 1 or axes.count("X") != 1:
        raise ValueError(f"its axes {axes!r} have no height and width")


def _check_chunk(array: Any, stored_in: str) -> None:
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > LARGEST_CHUNK:
        raise ValueError(
            f"it is stored in {stored_in} of {size / 1e9:.1f} GB, which cannot be read by parts; "
            "save it in tiles of 512 x 512 pixels, for example"
        )


def _one(place: Any) -> slice:
    return slice(int(place), int(place) + 1)
