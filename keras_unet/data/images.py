"""Images: reading and writing files, grey values, channels.

A file is read as *planes*, an array `(planes, height, width, channels)` in the file's own dtype.
What a file is, its first bytes tell, not its name. Nothing is scaled, inverted or resized: 16-bit
stays 16-bit, and a TIFF that calls 0 white gives the numbers it stores.
"""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from keras_unet.data.tiffs import check_room, first_series, has_alpha
from keras_unet.data.wording import counted
from keras_unet.files import SOFTWARE, atomic
from keras_unet.quiet import compiled_code_silent

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
)

MOST_PIXELS = 2**28
"""Pixels that the header of a PNG may state: those of 16384 x 16384."""

Palette = Literal["indices", "colours"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PNG")
_PNG_PALETTE = 3
_GREY_WITH_ALPHA = 2
_COLOURS = 3
_COLOURS_WITH_ALPHA = 4


def read_planes(path: Path, *, palette: Palette = "indices") -> NDArray[Any]:
    """Reads an image file.

    TIFF: the first series; samples (S) and channels (C) become channels, every axis besides height
    and width (Z, T, pages, ...) becomes planes. PNG: full depth, 1-bit as bool. Others: the one
    image in them. An alpha channel is dropped.

    Args:
        path: TIFF, PNG, JPEG, BMP or GIF.
        palette: What an image with a palette gives (TIFF aside, which always gives its indices):
            `"indices"`, which is how label images are stored, or `"colours"`, red, green, blue.

    Returns:
        Array `(planes, height, width, channels)` in the file's own dtype.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, is damaged or holds no pixel.
    """
    with readable(path):
        planes = _decode(path, palette)
    check_some_pixels(path, planes.shape)
    return planes


def check_some_pixels(path: Path, shape: tuple[int, ...]) -> None:
    """Refuses an image without a pixel.

    Raises:
        ValueError: A size is 0.
    """
    if not all(shape):
        raise ValueError(
            f"{path}: cannot be read as an image (shape {shape} holds no pixel). "
            "Expected at least 1 x 1 pixels."
        )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Says of a file that cannot be read what is wrong with it, in one line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The body failed.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file. Expected an image ({_known()}).")
    try:
        yield
    except Exception as error:  # decoders raise whatever they like: RuntimeError, SyntaxError, ...
        raise ValueError(
            f"{path}: cannot be read as an image ({_one_line(error)}). "
            f"Expected an intact {_known()} file."
        ) from error


def image_files(folder: Path) -> list[Path]:
    """Lists the image files of a folder by name; hidden files and folders are passed over."""
    return [path for path in sorted(folder.iterdir()) if _is_image_file(path)]


def stem_of(path: Path) -> str:
    """Returns the file's name without its ending; `.ome.tif` is one ending.

    An accent may be written as part of its letter or after it; it is read as part of it.

    Examples:
        >>> stem_of(Path("a.png")), stem_of(Path("a.b.tif")), stem_of(Path("a.ome.tif"))
        ('a', 'a.b', 'a')
    """
    return unicodedata.normalize("NFC", path.stem).removesuffix(".ome")


def pixels_of(planes: NDArray[Any], path: Path | str) -> NDArray[np.float32]:
    """Turns what a file holds into float32 grey values; bool becomes 0 and 1.

    Args:
        planes: Array of any real dtype.
        path: The file, or what of it, for the message.

    Returns:
        Array of the same shape.

    Raises:
        ValueError: A value is complex, NaN, infinite or beyond float32.
    """
    if np.iscomplexobj(planes):
        raise ValueError(
            f"{path}: holds complex numbers ({planes.dtype}). "
            "Expected real grey values; save the magnitude, for example."
        )
    with np.errstate(over="ignore"):
        pixels = planes.astype(np.float32)
    bad = pixels.size - np.count_nonzero(np.isfinite(pixels))
    if bad:
        raise ValueError(
            f"{path}: {bad:,} of {pixels.size:,} pixels are NaN or infinite. "
            "Expected finite grey values; replace these pixels in the file."
        )
    return pixels


def as_channels(image: NDArray[Any], channels: int, path: Path) -> NDArray[Any]:
    """Gives the image the number of channels asked for, if that loses nothing.

    Args:
        image: Array `(..., channels)`.
        channels: Number of channels expected.
        path: The file, for the message.

    Returns:
        The image itself, or its first channel where one is asked for and all three are equal.

    Raises:
        ValueError: The channels do not fit.
    """
    received = image.shape[-1]
    if received == channels:
        return image
    if channels == 1 and is_grey(image):
        return image[..., :1]
    raise ValueError(
        f"{path}: expected {counted(channels, 'channel')}{' or 3 equal ones' * (channels == 1)}, "
        f"received {received}. Convert the image, or use a model for "
        f"{counted(received, 'channel')}."
    )


def is_grey(planes: NDArray[Any]) -> bool:
    """Tells whether an image `(..., channels)` is grey: one channel, or three equal ones.

    Examples:
        >>> is_grey(np.zeros((4, 4, 1))), is_grey(np.zeros((4, 4, 3))), is_grey(np.zeros((4, 4, 2)))
        (True, True, False)
    """
    channels = planes.shape[-1]
    if channels != _COLOURS:
        return bool(channels == 1)
    first = planes[..., 0]
    return np.array_equal(first, planes[..., 1]) and np.array_equal(first, planes[..., 2])


def write_tiff(path: Path, array: NDArray[Any], *, axes: str) -> None:
    """Writes a TIFF, losslessly compressed, whole or not at all.

    Args:
        path: Path of the file; its folder exists.
        array: Array with one dimension for each letter of `axes`.
        axes: `"YX"`, `"ZYX"`, `"CYX"` or `"ZCYX"`; recorded in the file.

    Raises:
        ValueError: `axes` is none of these, or does not have one letter a dimension.
    """
    if axes not in ("YX", "ZYX", "CYX", "ZCYX") or len(axes) != array.ndim:
        raise ValueError(
            "axes must be 'YX', 'ZYX', 'CYX' or 'ZCYX', one letter for each dimension. "
            f"Received {axes!r} for shape {array.shape}."
        )
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary,
            array,
            photometric="minisblack",
            compression="zlib",
            software=SOFTWARE,
            metadata={"axes": axes},
        )


def smallest_unsigned(labels: NDArray[Any]) -> NDArray[Any]:
    """Returns the labels as uint8, uint16 or uint32, whichever is the first to hold them.

    Args:
        labels: Integers from 0 to 4,294,967,295.

    Raises:
        ValueError: A value lies outside.

    Examples:
        >>> [smallest_unsigned(np.array([0, n])).dtype.name for n in (255, 256, 65_535, 65_536)]
        ['uint8', 'uint16', 'uint16', 'uint32']
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    for dtype in (np.uint8, np.uint16, np.uint32):
        if low >= 0 and high <= np.iinfo(dtype).max:
            return labels.astype(dtype)
    raise ValueError(
        f"labels must lie between 0 and 4294967295. Received values from {low} to {high}."
    )


def _is_image_file(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file()


def _decode(path: Path, palette: Palette) -> NDArray[Any]:
    with path.open("rb") as file:
        start = file.read(26)
    if not start:
        raise ValueError("the file is empty")
    if start.startswith(_TIFF_SIGNATURES):
        return _decode_tiff(path)
    if start.startswith(_PNG_SIGNATURE) and _has_whole_samples(start):
        return _decode_png(path, start)[np.newaxis]
    return _decode_with_pillow(path, palette)[np.newaxis]


def _has_whole_samples(start: bytes) -> bool:
    """Tells whether a PNG holds grey values or colours of at least 8 bits, by its header."""
    bits, colour_type = start[24:26].ljust(2, b"\0")
    return bits >= 8 and colour_type != _PNG_PALETTE


def _decode_png(path: Path, start: bytes) -> NDArray[Any]:
    width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
    if width * height > MOST_PIXELS:
        raise ValueError(f"it states {width} x {height} pixels; at most {MOST_PIXELS:,} are read")
    with compiled_code_silent():
        pixels = imagecodecs.png_decode(path.read_bytes())
    return _without_alpha(_with_channels(pixels))


def _decode_with_pillow(path: Path, palette: Palette) -> NDArray[Any]:
    with _large_images_allowed(), Image.open(path, formats=_PILLOW_FORMATS) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise ValueError(f"it is an animation of {frames} frames")
        is_coloured = image.mode == "CMYK" or (image.mode == "P" and palette == "colours")
        pixels = np.array(image.convert("RGB") if is_coloured else image)
    return _without_alpha(_with_channels(pixels))


@contextmanager
def _large_images_allowed() -> Iterator[None]:
    """Keeps Pillow from warning of more than 2^26 pixels; twice as many are still refused by it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decode_tiff(path: Path) -> NDArray[Any]:
    with tifffile.TiffFile(path) as file:
        series = first_series(file)
        check_room(series)
        planes = ordered(series.asarray(), series.axes)
        return _without_alpha(planes) if has_alpha(series) else planes


def ordered(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """Brings a file's axes into the order planes, height, width, channels, in native byte order.

    Args:
        array: What the file holds.
        axes: A letter for each dimension: Y is the height, X the width, C and S are channels, all
            others count planes.

    Raises:
        ValueError: There is no height or no width.
    """
    if "Y" not in axes or "X" not in axes:
        raise ValueError(f"its axes {axes!r} have no height and width")
    height, width = axes.index("Y"), axes.index("X")
    others = [i for i, axis in enumerate(axes) if axis not in "YXCS"]
    channels = [i for wanted in "CS" for i, axis in enumerate(axes) if axis == wanted]
    moved = array.transpose([*others, height, width, *channels])
    count = math.prod(array.shape[i] for i in channels)
    planes = moved.reshape(-1, array.shape[height], array.shape[width], count)
    return planes.astype(array.dtype.newbyteorder("="), copy=False)


def _with_channels(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    has_alpha = pixels.shape[-1] in (_GREY_WITH_ALPHA, _COLOURS_WITH_ALPHA)
    return pixels[..., :-1] if has_alpha else pixels


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _known() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
