"""Validation of TIFF metadata before decoding, and the image in a TIFF.

Metadata may be damaged or malicious: circular lists of pages, more planes than the file holds,
tiles beyond the end of the file. Without checks, reading would exhaust the memory or return zeros.
"""

from __future__ import annotations

import math
import struct
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG

from keras_unet.data.colors import check_bits, check_colors, color_table
from keras_unet.data.tiff_planes import (
    check_imagej,
    companion_of,
    has_more_pages,
    missing_files,
    own_series,
)
from keras_unet.system import total_memory

MOST_PLANES = 2**20
"""Largest number of planes in the metadata of an OME-TIFF."""

SMALL = 2**28
"""Bytes of pixels that are accepted from a file of any size."""

LARGEST_RATIO = 1100
"""Largest ratio of pixel bytes to file bytes, which neither zlib nor LZW reaches."""

_SMALL_JPEG = 2**24  # pixels of an embedded JPEG that are accepted in a tile of any size
_JPEG_HEADER = 2**16  # bytes that are searched for the size
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers in front of a size
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length

WHITE_IS_0 = "white is stored as 0: inverted, so that it is read as displayed"
"""Note on a file that is inverted."""

PALETTE = "its palette is applied: colors or greys replace the stored numbers"
"""Note on an image whose numbers stand for colors."""

KNOWN_AXES = "TZCYXSIQRPMAV"
"""Letters of axes: height (Y), width (X), channels (C) and samples (S); others are plane axes."""

Page = tifffile.TiffPage | tifffile.TiffFrame

_REDUCED, _MASK = 1, 4  # bits of the tag NewSubfileType
_SECONDARY = ("label", "macro", "map", "overview", "thumbnail")  # names of series in slides
_ORIENTATION = 274
_FALSE_COLORS = "its palette is not applied: the stored numbers are read, not their colors"
_NARROW = 8  # pixels, and times
_PLANES = ("SizeZ", "SizeC", "SizeT", "PlaneCount", "NumPlanes")
_MODULO = ("Start", "End", "Step")


@dataclass(frozen=True, eq=False)
class TiffImage:
    """Image in a TIFF: one series of pages, or several that form a stack.

    Attributes:
        parts: Series or pages of the image, in the order of the file.
        axes: Letter of each dimension; I and Q are axes that the file does not name.
        shape: Sizes of the dimensions.
        notes: Notes on content that is not read or is converted.
    """

    parts: tuple[Any, ...]
    axes: str
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def page(self) -> tifffile.TiffPage:
        """Page with the metadata of the pixels."""
        page: tifffile.TiffPage = self.parts[0].keyframe.aspage()
        return page

    @property
    def nbytes(self) -> int:
        """Number of bytes of all pixels."""
        return sum(int(part.nbytes) for part in self.parts)

    @property
    def white(self) -> int | None:
        """Number that is black if white is stored as 0; None if black is 0."""
        page = self.page
        if page.photometric != PHOTOMETRIC.MINISWHITE or self.parts[0].dtype.kind not in "bu":
            return None
        # tifffile writes every boolean array with this tag, whatever its meaning.
        if page.bitspersample == 1 and str(page.software).startswith("tifffile"):
            return None
        return int(2**page.bitspersample - 1)

    @property
    def colors(self) -> NDArray[np.uint8] | None:
        """Colors of the palette, `(indices, 3)`, or None."""
        colormap = self.page.colormap
        if self.page.photometric != PHOTOMETRIC.PALETTE or colormap is None:
            return None
        # Most programs write 16 bits, of which some leave the lower 8 empty; some write 8 bits.
        unused_bits = 8 if colormap.max(initial=0) > 255 else 0
        return np.asarray(colormap.T >> unused_bits, np.uint8)

    @property
    def table(self) -> NDArray[np.uint8] | None:
        """Grey value or color of each number, see `color_table`; None for the number itself."""
        return color_table(self.colors)

    @property
    def has_false_colors(self) -> bool:
        """True if the palette shows intensities in other colors than increasing greys."""
        colors = self.colors
        if colors is None or self.table is not None:
            return False
        grey = colors[:, :1].astype(int)
        return bool((colors != grey).any() or (np.diff(grey, axis=0) < 0).any())

    def members(self) -> list[tuple[int, int | None]]:
        """Returns the part, and the index in it, of each index along the first axis.

        The index in the part is None if the part lacks the first axis.
        """
        members: list[tuple[int, int | None]] = []
        for number, part in enumerate(self.parts):
            if len(part.shape) == len(self.shape):
                members += [(number, index) for index in range(part.shape[0])]
            else:
                members.append((number, None))
        return members

    def asarray(self) -> NDArray[Any]:
        """Reads all pixels, as stored."""
        if len(self.parts) == 1:
            return np.asarray(self.parts[0].asarray())
        arrays = [np.asarray(part.asarray()) for part in self.parts]
        dimensions = len(self.shape)
        return np.concatenate([a if a.ndim == dimensions else a[None] for a in arrays])


def tiff_image(file: tifffile.TiffFile, axes: str | None = None) -> TiffImage:
    """Returns the image of a file after validation of its metadata.

    Series and pages of equal size and type form a stack, in the order of the file. Reduced copies,
    transparency masks, and the label and overview of a slide are skipped and named in the notes.

    Args:
        file: The open file.
        axes: Axes, if the file states none or wrong ones, such as "YXC".

    Raises:
        ValueError: If there is no page, the list of pages is circular, pixels are missing or more
            than a file of this size can hold, the images do not form a stack, or the axes are
            unlikely.
    """
    _check_chain(file)
    _check_planes(file)
    if not file.series:
        raise ValueError("it has no page")
    own, elsewhere = own_series(file, file.series)
    kept, notes = _main_series(own)
    if axes is None:
        check_imagej(file, kept)
    for series in kept:
        _check_complete(series, file)
        _check_stated(series)
    page = kept[0].keyframe.aspage()
    check_colors(page)
    check_bits(page)
    notes += elsewhere + _orientation_notes(page) + _white_notes(page)
    image = _create_stack(kept, tuple(notes))
    if axes is not None:
        return _with_axes(image, axes)
    _refuse_unlikely(image)
    image = replace(image, notes=(*image.notes, *_planar_color_notes(image)))
    return _check_companion(image, companion_of(file))


def conversion_notes(image: TiffImage, *, with_palette: bool = True) -> tuple[str, ...]:
    """Lists notes on content of an image that is converted or not read.

    Args:
        image: The image.
        with_palette: Whether to include notes on the palette, which labels do not need.
    """
    inverted = (WHITE_IS_0,) if image.white is not None else ()
    palette_notes = ((_FALSE_COLORS, image.has_false_colors), (PALETTE, image.table is not None))
    applicable = [note for note, applies in palette_notes if with_palette and applies]
    return (*image.notes, *inverted, *applicable)


def _main_series(
    every: Sequence[tifffile.TiffPageSeries],
) -> tuple[list[tifffile.TiffPageSeries], list[str]]:
    skipped = [series for series in every if _is_secondary(series)]
    if len(skipped) == len(every):
        return list(every), []
    kept = [series for series in every if not _is_secondary(series)]
    notes = [
        f"{series.name or 'a page'} of {' x '.join(map(str, series.shape))} is not read: a reduced "
        "copy, a transparency mask, or the label or overview of a slide"
        for series in skipped
    ]
    return kept, notes


def _is_secondary(series: tifffile.TiffPageSeries) -> bool:
    has_name = str(series.name).strip().lower() in _SECONDARY
    return has_name or bool(int(series.keyframe.subfiletype) & (_REDUCED | _MASK))


def _create_stack(kept: Sequence[tifffile.TiffPageSeries], notes: tuple[str, ...]) -> TiffImage:
    first = kept[0]
    if len(kept) == 1 and has_more_pages(first):
        return _by_pages(first, notes)
    if len(kept) == 1:
        return TiffImage((first,), first.axes, tuple(first.shape), notes)
    if len({_kind(series) for series in kept}) > 1:
        sizes = ", ".join(" x ".join(map(str, series.shape)) for series in kept)
        raise ValueError(
            f"it holds {len(kept)} images of different size or type, which form no stack: {sizes}; "
            "save each in a separate file"
        )
    page = first.keyframe
    if all(series.kind == "generic" for series in kept):
        pages = [page for series in kept for page in series if page is not None]
        pages.sort(key=_page_index)
        return TiffImage(tuple(pages), f"I{page.axes}", (len(pages), *page.shape), notes)
    if len({tuple(series.shape) for series in kept}) == 1:
        return TiffImage(tuple(kept), f"Q{first.axes}", (len(kept), *first.shape), notes)
    longest = max(kept, key=lambda series: len(series.shape))
    most = len(longest.shape)
    if {len(series.shape) for series in kept} <= {most, most - 1} and most == page.ndim + 1:
        planes = sum(series.shape[0] if len(series.shape) == most else 1 for series in kept)
        return TiffImage(tuple(kept), longest.axes, (planes, *page.shape), notes)
    sizes = ", ".join(" x ".join(map(str, series.shape)) for series in kept)
    raise ValueError(
        f"it holds {len(kept)} stacks of different size: {sizes}; save each in a separate file"
    )


def _by_pages(series: tifffile.TiffPageSeries, notes: tuple[str, ...]) -> TiffImage:
    """Returns a stack of all pages, if the stated axes do not account for them."""
    pages, page = tuple(series), series.keyframe
    sizes = ", ".join(
        f"{axis} = {size}" for axis, size in zip(series.axes, series.shape, strict=True)
    )
    note = f"its axes ({sizes}) do not account for its {len(pages)} pages: read page by page"
    return TiffImage(pages, f"I{page.axes}", (len(pages), *page.shape), (*notes, note))


def _kind(series: tifffile.TiffPageSeries) -> tuple[Any, ...]:
    page = series.keyframe.aspage()
    return tuple(page.shape), str(page.dtype), page.photometric, page.planarconfig


def _page_index(page: Page) -> int:
    return int(page.index)


def _with_axes(image: TiffImage, axes: str) -> TiffImage:
    stated = axes if len(axes) == len(image.shape) else f"{axes}S"
    if len(stated) != len(image.shape) or (stated != axes and image.axes[-1] != "S"):
        raise ValueError(
            f"--axes {axes} names {len(axes)} axes, but its shape is {image.shape} (axes "
            f"{image.axes}); set one letter for each of these sizes"
        )
    return replace(image, axes=stated)


def _refuse_unlikely(image: TiffImage) -> None:
    """Refuses axes that would split one image into many of a few pixels' width."""
    unknown = sorted(set(image.axes) - set(KNOWN_AXES))
    if unknown:
        raise ValueError(
            f"its axes {image.axes} of shape {image.shape} have unknown letters, "
            f"{', '.join(unknown)}; set the axes, for example --axes "
            f"{''.join('C' if axis in unknown else axis for axis in image.axes)}"
        )
    sizes = dict(zip(image.axes, image.shape, strict=True))
    if image.parts[0].keyframe.parent.is_imagej and min(sizes.get("C", 1), sizes.get("S", 1)) > 1:
        raise ValueError(
            f"its axes {image.axes} of shape {image.shape} are {sizes['C']} channels of colors, "
            f"which ImageJ does not support; set the axes, for example --axes "
            f"{image.axes.replace('C', 'Z')}"
        )
    refuse_unlikely_sizes(image.axes, image.shape)


def refuse_unlikely_sizes(axes: str, shape: tuple[int, ...]) -> None:
    """Refuses many images of a few pixels' width along an unnamed axis.

    Args:
        axes: Letter of each dimension; I and Q are not named by the file, S are samples.
        shape: Sizes of the dimensions.

    Raises:
        ValueError: If the last axis most likely holds channels.
    """
    sizes = dict(zip(axes, shape, strict=True))
    short, long = sorted((sizes.get("Y", 1), sizes.get("X", 1)))
    images = math.prod(size for axis, size in zip(axes, shape, strict=True) if axis in "IQS")
    if short <= _NARROW and long >= _NARROW * short and images > _NARROW:
        raise ValueError(
            f"its shape {shape} without stated axes would be {images} planes or channels of "
            f"{sizes['Y']} x {sizes['X']} pixels. If the last axis holds channels, set --axes "
            f"{_with_channels_last(axes)}, or save it with its axes"
        )


def _with_channels_last(axes: str) -> str:
    """Returns axes that end with height, width and channels.

    >>> _with_channels_last("QYX"), _with_channels_last("QQYX"), _with_channels_last("IQQYX")
    ('YXC', 'ZYXC', 'TZYXC')
    """
    planes = len(axes.removesuffix("S")) - 3
    return f"{'TZ'[2 - planes :] if planes <= 2 else 'Q' * planes}YXC"


def _planar_color_notes(image: TiffImage) -> list[str]:
    """Returns a note on three or four planes, which tifffile writes as colors by default."""
    page = image.page
    is_planar = image.axes == "SYX" and page.planarconfig == PLANARCONFIG.SEPARATE
    if not (is_planar and str(page.software).startswith("tifffile")):
        return []
    count = image.shape[0]
    return [f"its {count} planes are read as colors, as it states; otherwise set --axes ZYX"]


def _orientation_notes(page: tifffile.TiffPage) -> list[str]:
    tag = page.tags.get(_ORIENTATION)
    if tag is None or tag.value in (0, 1):
        return []
    return [f"its orientation {int(tag.value)} is not applied in TIFF: pixels are read as stored"]


def _white_notes(page: tifffile.TiffPage) -> list[str]:
    is_odd = page.photometric == PHOTOMETRIC.MINISWHITE and np.dtype(page.dtype).kind not in "bu"
    return [f"white is stored as 0, not applied in {page.dtype}: read as stored"] if is_odd else []


def _check_companion(image: TiffImage, companion: str | None) -> TiffImage:
    """Refuses several planes whose metadata are in another file; adds a note on a single one."""
    if companion is None:
        return image
    planes = math.prod(
        size for axis, size in zip(image.axes, image.shape, strict=True) if axis not in "YXCS"
    )
    if planes > 1:
        raise ValueError(
            f"the axes of its {planes} pages are stated only in {companion}, which is not read; "
            "set them, for example --axes ZYX or CYX, or save it as one OME-TIFF"
        )
    note = f"its metadata are in {companion}, which is not read"
    return replace(image, notes=(*image.notes, note))


def check_room(size: int) -> None:
    """Checks that an image fits in memory.

    Args:
        size: Size of its pixels in bytes.

    Raises:
        ValueError: If it does not; the message states its bytes.
    """
    if size > total_memory():
        raise ValueError(f"it takes {size:,} bytes, more than the memory of this machine")


def _check_chain(file: tifffile.TiffFile) -> None:
    """Follows the list of pages to its end; tifffile would follow a circular list forever."""
    layout, handle = file.tiff, file.filehandle
    visited: set[int] = set()
    handle.seek(8 if file.is_bigtiff else 4)
    while offset := _unpack_number(handle.read(layout.offsetsize), layout.offsetformat):
        if offset in visited:
            raise ValueError("its list of pages is circular")
        visited.add(offset)
        handle.seek(offset)
        tags = _unpack_number(handle.read(layout.tagnosize), layout.tagnoformat)
        handle.seek(offset + layout.tagnosize + tags * layout.tagsize)


def _unpack_number(stored: bytes, layout: str) -> int:
    if len(stored) < struct.calcsize(layout):
        raise ValueError("its list of pages leads beyond the end of the file")
    return int(struct.unpack(layout, stored)[0])


def _check_planes(file: tifffile.TiffFile) -> None:
    """Refuses numbers of planes of which even a list would exhaust the memory."""
    for element in _ome_elements(file):
        stated = [int(element.get(name, 1)) for name in _PLANES]
        start, end, step = (float(element.get(name, 1)) for name in _MODULO)
        planes = max(math.prod(stated), abs(end - start) / max(abs(step), 1e-300))
        if not planes <= MOST_PLANES:
            raise ValueError(f"it states {planes:,.0f} planes, more than {MOST_PLANES:,}")


def _ome_elements(file: tifffile.TiffFile) -> list[ET.Element]:
    text = file.ome_metadata
    try:
        return list(ET.fromstring(text).iter()) if text else []  # noqa: S314 - as tifffile
    except ET.ParseError:
        return []  # tifffile reads the pages without the metadata


def _check_complete(series: tifffile.TiffPageSeries, file: tifffile.TiffFile) -> None:
    """Refuses missing planes, tiles and strips, which would be read as 0."""
    if series.dataoffset is not None:  # pixels are contiguous in the file
        if series.dataoffset == 0:
            raise ValueError("its pixels would begin at byte 0, where the header is")
        if series.dataoffset + series.nbytes > _file_size(series[0]):
            raise ValueError("it ends before its last pixel")
        return
    for page in series:
        if page is None:
            missing = sum(page is None for page in series)
            raise ValueError(
                f"{missing} of its {len(series)} planes are missing; it names "
                f"{missing_files(file) or 'no other file'}, not found beside it. Keep the files of "
                "a set together under their original names, or save it as one file"
            )
        _check_tiles(page)


def _check_stated(series: tifffile.TiffPageSeries) -> None:
    """Refuses more pixels, in total or in one tile, than the bytes of the files can encode."""
    stated = max(series.nbytes, math.prod(series.keyframe.chunks) * series.dtype.itemsize)
    if stated <= SMALL:
        return
    files = {page.parent.filehandle.path: _file_size(page) for page in series if page is not None}
    if stated > LARGEST_RATIO * sum(files.values()):
        raise ValueError(
            f"it states {stated:,} bytes of pixels, more than {LARGEST_RATIO:,} times its file size"
        )


def _check_tiles(page: Page) -> None:
    # A tile with offset and length 0 was omitted as empty by its writer.
    expected = math.prod(page.chunked)
    stored = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(stored) < expected:
        raise ValueError(f"it has {len(stored)} of {expected} tiles or strips")
    if any(offset and not count for offset, count in stored):
        raise ValueError("a tile or strip of it is empty")
    if max((offset + count for offset, count in stored), default=0) > _file_size(page):
        raise ValueError("it ends before its last pixel")
    if page.compression == COMPRESSION.JPEG:
        _check_jpegs(page)


def _check_jpegs(page: Page) -> None:
    """Refuses embedded JPEGs much larger than their tile, which would be decoded as a whole."""
    most = max(_SMALL_JPEG, 4 * math.prod(page.chunks))
    handle = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        height, width = _jpeg_size(handle.read(min(count, _JPEG_HEADER)))
        if height * width > most:
            raise ValueError(f"a tile or strip of it states {width} x {height} pixels")


def _jpeg_size(stored: bytes) -> tuple[int, int]:
    """Returns height and width in the header of a JPEG, or 0."""
    start = stored.find(b"\xff", 2)
    while 0 < start < len(stored) - 9:
        marker = stored[start + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", stored[start + 5 : start + 9])
            return height, width
        if marker == 0xFF:  # fill byte
            start += 1
        else:
            length = 0 if marker in _JPEG_ALONE else int.from_bytes(stored[start + 2 : start + 4])
            start = stored.find(b"\xff", start + 2 + length)
    return 0, 0


def _file_size(page: Page | None) -> int:
    """Returns the size of the file with a page; an OME-TIFF may have several files."""
    return page.parent.filehandle.size if page is not None else 0
