"""Reading and writing of image files; grey values and channels.

A file is read as *planes*, an array `(planes, height, width, channels)` in the dtype of the file,
without scaling or resizing. The format is detected by the first bytes, not by the name. Images are
read as displayed: a TIFF that stores white as 0 is inverted, a photograph with an EXIF orientation
is turned upright.
"""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from keras_unet.console import counted, quiet_stderr
from keras_unet.data import microscopes, pngs
from keras_unet.data.calibration import Spacing, tiff_options
from keras_unet.data.channels import Selection, select
from keras_unet.data.colors import alpha_index
from keras_unet.data.microscopes import AS_TIFF
from keras_unet.data.ome import spacing_of_tiff
from keras_unet.data.scenes import file_of
from keras_unet.data.stacks import stack_of
from keras_unet.data.tiffs import check_room, conversion_notes, tiff_image
from keras_unet.files import SOFTWARE, atomic

_SINGLE_SUFFIXES = frozenset(
    {
        *(".bmp", ".gif", ".jpeg", ".jpg", ".png"),
        *(".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".stk"),
    }
)
IMAGE_SUFFIXES = _SINGLE_SUFFIXES.union(microscopes.FORMATS)

Palette = Literal["indices", "colors"]

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ALPHA = "its transparency (alpha channel), which varies, is not read"
_OTHER_PICTURES = "its further images, such as previews and depth, are not read (MPO)"
_LARGEST_TIFF = 2**31  # bytes of pixels for which no BigTIFF is needed
_ORIENTATION = 274  # tag of EXIF and TIFF
_OTHER_SIGNATURES = (pngs.SIGNATURE, b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_UNREAD_FORMATS = {
    **dict.fromkeys((".nrrd", ".nhdr"), "NRRD"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
    **dict.fromkeys((".oib", ".oif"), "OIB or OIF of Olympus"),
    ".ims": "IMS of Imaris",
    ".mrc": "MRC",
    ".nii": "NIfTI",
    ".vsi": "VSI of Olympus",
}
_JPEG_2000 = b"\0\0\0\x0cjP  "
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of the header after the first 14
_HIDDEN_BY_WINDOWS = frozenset({"desktop.ini", "thumbs.db"})
PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PNG")
_WITH_ALPHA = (2, 4)  # channels
_COLORS = 3


@dataclass(frozen=True, eq=False)
class ImageFile:
    """Content of an image file.

    Attributes:
        planes: Array `(planes, height, width, channels)` in the dtype of the file.
        stack: Letter and size of each plane axis, in the order of `planes`; empty for a single
            image.
        spacing: Distances between pixels, planes and frames, as far as the file states them.
        notes: Notes on content that was not read or was converted.
        colors: Colors of the palette, `(indices, 3)`, if `planes` holds indices.
        alpha: The removed alpha channel, `(planes, height, width)`, or None.
        white: Number that is black if the file stores white as 0, so that `planes` is inverted.
    """

    planes: NDArray[Any]
    stack: tuple[tuple[str, int], ...] = ()
    spacing: Spacing = field(default_factory=Spacing)
    notes: tuple[str, ...] = ()
    colors: NDArray[np.uint8] | None = None
    alpha: NDArray[Any] | None = None
    white: int | None = None


def read_planes(path: Path, *, palette: Palette = "indices") -> NDArray[Any]:
    """Reads an image file, see `read_image`.

    Returns:
        Array `(planes, height, width, channels)` in the dtype of the file.
    """
    return read_image(path, palette=palette).planes


def read_image(
    path: Path,
    *,
    palette: Palette = "indices",
    axes: str | None = None,
    channels: Selection | None = None,
) -> ImageFile:
    """Reads an image file.

    TIFF: all series and pages of equal size and type; samples (S) and channels (C) become channels,
    all axes besides height and width (Z, T, pages, ...) become planes. CZI, LIF and ND2: as TIFF,
    one of the images of the file, see `keras_unet.data.scenes`. PNG: full depth; 1 bit as bool; 2
    and 4 bits as stored in label images, and as grey values from 0 to 255 otherwise. Other formats:
    the single image. A TIFF that stores white as 0 is inverted; the EXIF orientation of JPEG and
    PNG is applied; an alpha channel is removed.

    Args:
        path: TIFF, PNG, JPEG, BMP, GIF, CZI, LIF or ND2 file, or the path of a scene.
        palette: Content to read from an image with a palette: `"indices"`, for label images, or
            `"colors"`, red, green, blue. The numbers of a TIFF with a smooth palette are
            intensities, which are kept, see `color_table`.
        axes: Axes of a TIFF that states none or wrong ones, such as "YXC".
        channels: Channels to read; None for all.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the library that reads the file is not installed.
        ValueError: If the file is not an image, is damaged, holds no pixel or lacks a channel.
    """
    if microscopes.holds_scenes(path):
        image = _read_scene(path)
    else:
        with readable(path):
            image = _decode(path, palette, axes)
    check_some_pixels(path, image.planes.shape)
    planes, spacing = select(channels, image.planes, image.spacing, path)
    return replace(image, planes=planes, spacing=spacing)


def check_some_pixels(path: Path, shape: tuple[int, ...]) -> None:
    """Checks that an image has pixels.

    Raises:
        ValueError: If a size is 0.
    """
    if not all(shape):
        raise ValueError(
            f"{path}: cannot be read as an image (shape {shape} holds no pixel). "
            "Expected at least 1 x 1 pixels."
        )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Converts errors of decoders to a ValueError with one line.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If reading fails.
    """
    if not file_of(path).exists():
        raise FileNotFoundError(f"{path}: no such file. Expected an image ({_list_suffixes()}).")
    try:
        yield
    except Exception as error:  # decoders raise any type: RuntimeError, SyntaxError, ...
        if unread_format(path):
            raise ValueError(describe_unread_format(path)) from error
        raise ValueError(
            f"{path}: cannot be read as an image ({_one_line(error)}). "
            f"Expected an intact {_list_suffixes()} file."
        ) from error


def image_files(folder: Path) -> list[Path]:
    """Lists the image files of a folder by name, without hidden files and folders.

    Image files have the first bytes of an image, or, since they may be damaged, its ending. A file
    with several images is listed by the paths of its scenes, see `keras_unet.data.scenes`.

    Raises:
        ModuleNotFoundError: If the library that reads a file of a microscope is not installed.
        ValueError: If a file of a microscope cannot be read.
    """
    files = [path for path in sorted(folder.iterdir()) if _is_image_file(path)]
    return [path for file in files for path in _images_of(file)]


def _images_of(file: Path) -> list[Path]:
    is_single = file.suffix.lower() in _SINGLE_SUFFIXES  # without opening it
    return [file] if is_single else microscopes.scene_paths(file)


def is_hidden(path: Path) -> bool:
    """Returns whether a file browser hides a file: `.a.tif`, `._a.tif`, `Thumbs.db`.

    Examples:
        >>> is_hidden(Path("._a.tif")), is_hidden(Path("Thumbs.db")), is_hidden(Path("a.tif"))
        (True, True, False)
    """
    return path.name.startswith(".") or path.name.lower() in _HIDDEN_BY_WINDOWS


def stem_of(path: Path) -> str:
    """Returns the name of a file without its ending, in Unicode's composed form (NFC).

    `.ome.tif` is one ending, in upper and lower case.

    Examples:
        >>> stem_of(Path("a.png")), stem_of(Path("a.b.tif")), stem_of(Path("a.OME.TIF"))
        ('a', 'a.b', 'a')
    """
    stem = unicodedata.normalize("NFC", path.stem)
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


def pixels_of(planes: NDArray[Any], path: Path | str) -> NDArray[np.float32]:
    """Converts pixels to float32 grey values; bool becomes 0 and 1.

    Args:
        planes: Array of any real dtype.
        path: The file, or a part of it, for the message.

    Returns:
        Array of the same shape.

    Raises:
        ValueError: If a value is complex, NaN, infinite or beyond float32.
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
    """Converts an image to a number of channels, if that is lossless.

    Args:
        image: Array `(..., channels)`.
        channels: Expected number of channels.
        path: The file, for the message.

    Returns:
        The image itself, or its first channel if one is expected and all three are equal.

    Raises:
        ValueError: If the number of channels differs.
    """
    received = image.shape[-1]
    if received == channels:
        return image
    if channels == 1 and is_grey(image):
        return image[..., :1]
    raise ValueError(
        f"{path}: expected {counted(channels, 'channel')}{' or 3 equal ones' * (channels == 1)}, "
        f"received {received}. Convert the image, choose channels by --channels (channels=), or "
        f"use a model for {counted(received, 'channel')}."
    )


def is_grey(planes: NDArray[Any]) -> bool:
    """Returns whether an image `(..., channels)` is grey: one channel, or three equal ones.

    Examples:
        >>> is_grey(np.zeros((4, 4, 1))), is_grey(np.zeros((4, 4, 3))), is_grey(np.zeros((4, 4, 2)))
        (True, True, False)
    """
    channels = planes.shape[-1]
    if channels != _COLORS:
        return bool(channels == 1)
    first = planes[..., 0]
    return np.array_equal(first, planes[..., 1]) and np.array_equal(first, planes[..., 2])


def write_tiff(
    path: Path,
    array: NDArray[Any],
    *,
    axes: str,
    spacing: Spacing | None = None,
    is_data: bool = False,
) -> None:
    """Writes a losslessly compressed TIFF atomically.

    Args:
        path: Path of the file in an existing folder.
        array: Array with one dimension for each letter of `axes`.
        axes: Letter of each dimension, recorded in the file: `"YX"` at the end, after any of T, Z,
            C and Q.
        spacing: Calibration to record; None for the axes alone.
        is_data: Whether the file is training data, which later runs must not overwrite, see
            `is_own`.

    Raises:
        ValueError: If `axes` has other letters, or their number is not that of the dimensions.
    """
    if not axes.endswith("YX") or set(axes[:-2]) - set("TZCQ") or len(axes) != array.ndim:
        raise ValueError(
            "axes must be letters of T, Z, C and Q before 'YX', one letter for each dimension. "
            f"Received {axes!r} for shape {array.shape}."
        )
    dtype = array.dtype if array.nbytes < _LARGEST_TIFF else None
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary,
            array,
            photometric="minisblack",
            compression="zlib",
            software=not is_data and SOFTWARE,
            **tiff_options(spacing or Spacing(), axes, array.shape, dtype),
        )


def smallest_unsigned(labels: NDArray[Any]) -> NDArray[Any]:
    """Converts labels to the smallest of uint8, uint16 and uint32 that holds them.

    Args:
        labels: Integers from 0 to 4,294,967,295.

    Raises:
        ValueError: If a value is out of range.

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
    if is_hidden(path) or not path.is_file():
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES or _begins_as_image(path)


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(18)
    except OSError:  # not readable, and without the ending of an image
        return False
    is_bmp = start.startswith(b"BM") and int.from_bytes(start[14:], "little") in _BMP_HEADERS
    is_picture = is_bmp or start.startswith((*_TIFF_SIGNATURES, *_OTHER_SIGNATURES))
    return is_picture or microscopes.format_of(start) is not None


def _read_scene(path: Path) -> ImageFile:
    scene = microscopes.find_scene(path)
    with readable(path):
        planes = ordered(microscopes.read_scene(path, scene), scene.axes)
    return ImageFile(planes, stack_of(scene.axes, scene.shape), scene.spacing, scene.notes)


def _decode(path: Path, palette: Palette, axes: str | None) -> ImageFile:
    start = first_bytes(path)
    if start.startswith(_JPEG_2000):
        raise ValueError(f"it is JPEG 2000, as are ND2 files of before 2010; {AS_TIFF}")
    if start.startswith(_TIFF_SIGNATURES):
        return _decode_tiff(path, axes, palette)
    if start.startswith(pngs.SIGNATURE) and pngs.has_whole_samples(start):
        return _decode_png(path, start)
    return _decode_with_pillow(path, start, palette)


def unread_format(path: Path) -> str:
    """Returns the format of a file, by its suffix, if it is one of images that is not read.

    Example:
        >>> unread_format(Path("a.nii.gz")), unread_format(Path("a.VSI")), unread_format(Path("a"))
        ('NIfTI', 'VSI of Olympus', '')
    """
    name = path.name.lower().removesuffix(".gz")
    return _UNREAD_FORMATS.get(Path(name).suffix, "")


def describe_unread_format(path: Path) -> str:
    """Returns what to do with a file of a format that is not read."""
    return f"{path} is {unread_format(path)}, which is not read; {AS_TIFF}"


def first_bytes(path: Path) -> bytes:
    """Reads the bytes that identify the format of an image file.

    Raises:
        ValueError: If it is a folder, or empty.
    """
    if path.is_dir():
        raise ValueError("it is a folder; only predict reads Zarr, save the image as TIFF")
    with path.open("rb") as file:
        start = file.read(pngs.HEADER)
    if not start:
        raise ValueError("the file is empty")
    return start


def _decode_png(path: Path, start: bytes) -> ImageFile:
    pngs.check_size(start)
    stored = path.read_bytes()
    _refuse_animation(pngs.frames(stored))
    with quiet_stderr(shown_on_error=False):
        pixels = imagecodecs.png_decode(stored)
    if b"eXIf" in stored:
        return _turned(pixels, orientation_of(path))
    return _single(pixels)


def _refuse_animation(frames: int) -> None:
    if frames > 1:
        raise ValueError(
            f"it is an animation of {frames} frames; save them as the pages of a TIFF, or as "
            "separate files"
        )


def _decode_with_pillow(path: Path, start: bytes, palette: Palette) -> ImageFile:
    with large_images_allowed(), Image.open(path, formats=PILLOW_FORMATS) as image:
        frames = getattr(image, "n_frames", 1)
        _refuse_animation(1 if image.format == "MPO" else frames)
        is_colored = image.mode == "CMYK" or (image.mode == "P" and palette == "colors")
        pixels = np.array(image.convert("RGB") if is_colored else image)
        orientation = image.getexif().get(_ORIENTATION, 1)
        is_number = image.mode == "L" and palette == "indices"
        levels = pngs.levels_of_grey(start) if is_number else 256
        colors = _colors(image) if image.mode == "P" and not is_colored else None
    if levels < 256:
        pixels = pixels // np.uint8(255 // (levels - 1))
    turned = _turned(pixels, orientation)
    others = (_OTHER_PICTURES,) if frames > 1 else ()
    return replace(turned, colors=colors, notes=(*turned.notes, *others))


def _colors(image: Image.Image) -> NDArray[np.uint8]:
    return np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)


def _turned(pixels: NDArray[Any], orientation: int) -> ImageFile:
    """Applies an EXIF orientation, 1 to 8."""
    if orientation not in range(2, 9):
        return _single(pixels)
    upright = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    upright = upright[::-1] if orientation in (3, 4, 7, 8) else upright
    upright = upright[:, ::-1] if orientation in (2, 3, 6, 7) else upright
    note = f"turned upright by its EXIF orientation {orientation}"
    image = _single(np.ascontiguousarray(upright))
    return replace(image, notes=(*image.notes, note))


def _single(pixels: NDArray[Any]) -> ImageFile:
    image = ImageFile((pixels[..., np.newaxis] if pixels.ndim == 2 else pixels)[np.newaxis])
    return _without_alpha(image, -1) if image.planes.shape[-1] in _WITH_ALPHA else image


def orientation_of(path: Path) -> int:
    """Returns the EXIF orientation of a JPEG or PNG; 1 if it has none."""
    with large_images_allowed(), Image.open(path, formats=("JPEG", "PNG")) as image:
        return int(image.getexif().get(_ORIENTATION, 1))


@contextmanager
def large_images_allowed() -> Iterator[None]:
    """Suppresses Pillow's warning of large images; it still refuses twice that size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decode_tiff(path: Path, axes: str | None, palette: Palette) -> ImageFile:
    with tifffile.TiffFile(path) as file:
        image = tiff_image(file, axes)
        check_room(image.nbytes)
        planes = invert_white(ordered(image.asarray(), image.axes), image.white)
        stack, spacing = stack_of(image.axes, image.shape), spacing_of_tiff(file, image)
        notes = conversion_notes(image, with_palette=palette == "colors")
        content = ImageFile(planes, stack, spacing, notes, image.colors, white=image.white)
        alpha = alpha_index(image.page, image.axes)
        content = content if alpha is None else _without_alpha(content, alpha)
        table = image.table if palette == "colors" else None
        if table is None:
            return content
        return replace(content, planes=table[content.planes[..., 0]])


def invert_white(pixels: NDArray[Any], white: int | None) -> NDArray[Any]:
    """Inverts pixels that store white as 0.

    Args:
        pixels: Numbers as stored.
        white: Number that is black, or None if black is 0.
    """
    if white is None:
        return pixels
    return ~pixels if pixels.dtype == bool else (pixels.dtype.type(white) - pixels)


def ordered(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """Transposes an array to planes, height, width, channels, in native byte order.

    Args:
        array: Array of the file.
        axes: Letter of each dimension: Y for the height, X for the width, C and S for channels; all
            others are plane axes.

    Raises:
        ValueError: If there is no height or no width.
    """
    if axes.count("Y") != 1 or axes.count("X") != 1:
        raise ValueError(f"its axes {axes!r} have no height and width")
    height, width = axes.index("Y"), axes.index("X")
    others = [i for i, axis in enumerate(axes) if axis not in "YXCS"]
    channels = [i for letter in "CS" for i, axis in enumerate(axes) if axis == letter]
    moved = array.transpose([*others, height, width, *channels])
    count = math.prod(array.shape[i] for i in channels)
    planes = moved.reshape(-1, array.shape[height], array.shape[width], count)
    return planes.astype(array.dtype.newbyteorder("="), copy=False)


def _without_alpha(image: ImageFile, index: int) -> ImageFile:
    alpha = image.planes[..., index]
    varies = bool(alpha.size and (alpha != alpha.flat[0]).any())
    notes = (*image.notes, *([_ALPHA] if varies else []))
    return replace(image, planes=np.delete(image.planes, index, -1), alpha=alpha, notes=notes)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _list_suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
