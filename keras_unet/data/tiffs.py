"""Metadata of a TIFF, checked before its pixels are decoded.

Its numbers may be damaged, or made up: a list of pages that leads back to an earlier one, more
planes than there are, tiles beyond the end of the file. Taken as they stand, they would cost all
memory or be read as 0.
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

from keras_unet.data.colors import check_bits, check_colors, table_of
from keras_unet.data.tiff_planes import (
    check_imagej,
    companion_of,
    has_more_pages,
    missing_files,
    own_series,
)
from keras_unet.system import total_memory

MOST_PLANES = 2**20
"""Planes that the metadata of an OME-TIFF may state."""

SMALL = 2**28
"""Bytes of pixels that any file may state."""

LARGEST_RATIO = 1100
"""Bytes of pixels for each byte of a file, which no zlib and no LZW reaches."""

_SMALL_PIECE = 2**24  # pixels that the header of any JPEG inside may state
_JPEG_HEADER = 2**16  # bytes in which it is looked for
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers in front of a size
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length

WHITE_IS_0 = "0 is white in it: inverted, so that it is read as it is seen"
"""Note on a file that is inverted."""

PALETTE = "its palette is followed: colors or greys for the numbers stored"
"""Note on an image whose numbers stand for colors."""

KNOWN_AXES = "TZCYXSIQRPMAV"
"""Letters of axes: height, width, channels and samples; all others count planes."""

Page = tifffile.TiffPage | tifffile.TiffFrame

_REDUCED, _MASK = 1, 4  # bits of the tag NewSubfileType
_ASIDE = ("label", "macro", "map", "overview", "thumbnail")  # names of series in slides
_ORIENTATION = 274
_FALSE_COLORS = "its palette is not applied: the numbers are read, not the colors shown for them"
_NARROW = 8  # pixels, and times
_PLANES = ("SizeZ", "SizeC", "SizeT", "PlaneCount", "NumPlanes")
_MODULO = ("Start", "End", "Step")


@dataclass(frozen=True, eq=False)
class TiffImage:
    """The image in a TIFF: one series of pages, or several that are one stack.

    Attributes:
        parts: The series or pages that it consists of, in the order of the file.
        axes: A letter for each dimension; I and Q are axes that the file does not name.
        shape: Sizes of the dimensions.
        notes: What of the file is not read, or is read otherwise than stored.
    """

    parts: tuple[Any, ...]
    axes: str
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def page(self) -> tifffile.TiffPage:
        """The page that says what the pixels mean."""
        page: tifffile.TiffPage = self.parts[0].keyframe.aspage()
        return page

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return sum(int(part.nbytes) for part in self.parts)

    @property
    def white(self) -> int | None:
        """The number that is black where 0 is white; None where 0 is black.

        tifffile calls 0 white in every array of bool, which says nothing of what is meant.
        """
        page = self.page
        if page.photometric != PHOTOMETRIC.MINISWHITE or self.parts[0].dtype.kind not in "bu":
            return None
        if page.bitspersample == 1 and str(page.software).startswith("tifffile"):
            return None
        return int(2**page.bitspersample - 1)

    @property
    def colors(self) -> NDArray[np.uint8] | None:
        """Colors of a palette, `(indices, 3)`, where there is one."""
        colormap = self.page.colormap
        if self.page.photometric != PHOTOMETRIC.PALETTE or colormap is None:
            return None
        unused = (
            8 if colormap.max(initial=0) > 255 else 0
        )  # white is 0xFF00 by some, 0xFFFF by most
        return np.asarray(colormap.T >> unused, np.uint8)

    @property
    def table(self) -> NDArray[np.uint8] | None:
        """Color of each number, see `table_of`; None for the number itself."""
        return table_of(self.colors)

    @property
    def has_false_colors(self) -> bool:
        """Tells whether its palette shows intensities in other colors than greys that grow."""
        colors = self.colors
        if colors is None or self.table is not None:
            return False
        grey = colors[:, :1].astype(int)
        return bool((colors != grey).any() or (np.diff(grey, axis=0) < 0).any())

    def members(self) -> list[tuple[int, int | None]]:
        """Lists, for each place on the first axis of several parts, the part and the place in it.

        The place is None where the part is one image without such an axis.
        """
        found: list[tuple[int, int | None]] = []
        for number, part in enumerate(self.parts):
            inside = len(part.shape) == len(self.shape)
            found += (
                [(number, place) for place in range(part.shape[0])] if inside else [(number, None)]
            )
        return found

    def asarray(self) -> NDArray[Any]:
        """Reads all pixels, as stored."""
        if len(self.parts) == 1:
            return np.asarray(self.parts[0].asarray())
        arrays = [np.asarray(part.asarray()) for part in self.parts]
        return np.concatenate([one if one.ndim == len(self.shape) else one[None] for one in arrays])


def tiff_image(file: tifffile.TiffFile, axes: str | None = None) -> TiffImage:
    """Returns the image of a file, all of whose pixels are there.

    Series and pages of equal size and type are one stack, in the order of the file. Reduced copies,
    masks of transparency, and a slide's label and overview are left out and named in the notes.

    Args:
        file: The file.
        axes: Its axes where the file does not state them, or states others, such as "YXC".

    Raises:
        ValueError: There is none, the pages do not end, pixels are missing, more are stated than a
            file of this size holds, its images do not go together, or its axes are unlikely.
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
    notes += elsewhere + _odd_orientation(page) + _odd_white(page)
    image = _one_stack(kept, tuple(notes))
    if axes is not None:
        return _with_axes(image, axes)
    _refuse_unlikely(image)
    image = replace(image, notes=(*image.notes, *_guessed_colors(image)))
    return _without_companion(image, companion_of(file))


def notes_of(image: TiffImage, *, is_picture: bool = True) -> tuple[str, ...]:
    """Lists what of an image is read otherwise than stored, or is not read.

    Args:
        image: The image.
        is_picture: Whether it is looked at; of labels, the numbers are what counts.
    """
    inverted = (WHITE_IS_0,) if image.white is not None else ()
    of_picture = ((_FALSE_COLORS, image.has_false_colors), (PALETTE, image.table is not None))
    colored = [note for note, is_so in of_picture if is_picture and is_so]
    return (*image.notes, *inverted, *colored)


def _main_series(
    every: Sequence[tifffile.TiffPageSeries],
) -> tuple[list[tifffile.TiffPageSeries], list[str]]:
    aside = [_is_aside(series) for series in every]
    if all(aside):
        return list(every), []
    kept = [series for series, is_aside in zip(every, aside, strict=True) if not is_aside]
    notes = [
        f"{series.name or 'a page'} of {' x '.join(map(str, series.shape))} is not read: a reduced "
        "copy, a mask of transparency, or a slide's label or overview"
        for series, is_aside in zip(every, aside, strict=True)
        if is_aside
    ]
    return kept, notes


def _is_aside(series: tifffile.TiffPageSeries) -> bool:
    is_named = str(series.name).strip().lower() in _ASIDE
    return is_named or bool(int(series.keyframe.subfiletype) & (_REDUCED | _MASK))


def _one_stack(kept: Sequence[tifffile.TiffPageSeries], notes: tuple[str, ...]) -> TiffImage:
    first = kept[0]
    if len(kept) == 1 and has_more_pages(first):
        return _by_pages(first, notes)
    if len(kept) == 1:
        return TiffImage((first,), first.axes, tuple(first.shape), notes)
    if len({_kind(series) for series in kept}) > 1:
        sizes = ", ".join(" x ".join(map(str, series.shape)) for series in kept)
        raise ValueError(
            f"it holds {len(kept)} images that are no stack, of different size or type: {sizes}; "
            "save each in a file of its own"
        )
    page = first.keyframe
    if all(series.kind == "generic" for series in kept):
        pages = sorted((one for series in kept for one in series if one is not None), key=_place)
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
        f"it holds {len(kept)} stacks of different size: {sizes}; save each in a file of its own"
    )


def _by_pages(series: tifffile.TiffPageSeries, notes: tuple[str, ...]) -> TiffImage:
    """Takes pages as they are where the axes that are stated do not account for them."""
    pages, page = tuple(series), series.keyframe
    sizes = ", ".join(
        f"{axis} = {size}" for axis, size in zip(series.axes, series.shape, strict=True)
    )
    note = f"its axes ({sizes}) do not account for its {len(pages)} pages: read page by page"
    return TiffImage(pages, f"I{page.axes}", (len(pages), *page.shape), (*notes, note))


def _kind(series: tifffile.TiffPageSeries) -> tuple[Any, ...]:
    page = series.keyframe.aspage()
    return tuple(page.shape), str(page.dtype), page.photometric, page.planarconfig


def _place(page: Page) -> int:
    return int(page.index)


def _with_axes(image: TiffImage, axes: str) -> TiffImage:
    stated = axes if len(axes) == len(image.shape) else f"{axes}S"
    if len(stated) != len(image.shape) or (stated != axes and image.axes[-1] != "S"):
        raise ValueError(
            f"--axes {axes} names {len(axes)} axes, but its shape is {image.shape} (axes "
            f"{image.axes}); name one letter for each of these sizes"
        )
    return replace(image, axes=stated)


def _refuse_unlikely(image: TiffImage) -> None:
    """Refuses axes that would make hundreds of images of a few pixels' width of one image."""
    unknown = sorted(set(image.axes) - set(KNOWN_AXES))
    if unknown:
        raise ValueError(
            f"its axes {image.axes} of shape {image.shape} have letters that are not known, "
            f"{', '.join(unknown)}; say what they are, for example --axes "
            f"{''.join('C' if one in unknown else one for one in image.axes)}"
        )
    sizes = dict(zip(image.axes, image.shape, strict=True))
    if image.parts[0].keyframe.parent.is_imagej and min(sizes.get("C", 1), sizes.get("S", 1)) > 1:
        raise ValueError(
            f"its axes {image.axes} of shape {image.shape} are {sizes['C']} channels of colors, "
            f"which ImageJ does not have; say what they are, for example --axes "
            f"{image.axes.replace('C', 'Z')}"
        )
    refuse_unlikely_sizes(image.axes, image.shape)


def refuse_unlikely_sizes(axes: str, shape: tuple[int, ...]) -> None:
    """Refuses images a few pixels wide where the file does not name the axis that counts them.

    Args:
        axes: A letter for each dimension; I and Q are not named by the file, and S are samples.
        shape: Sizes of the dimensions.

    Raises:
        ValueError: The last axis is likely to hold channels.
    """
    sizes = dict(zip(axes, shape, strict=True))
    short, long = sorted((sizes.get("Y", 1), sizes.get("X", 1)))
    images = math.prod(size for axis, size in zip(axes, shape, strict=True) if axis in "IQS")
    if short <= _NARROW and long >= _NARROW * short and images > _NARROW:
        raise ValueError(
            f"its shape {shape} without stated axes would be {images} planes or channels of "
            f"{sizes['Y']} x {sizes['X']} pixels. If its last axis holds channels, say --axes "
            f"{_with_channels_last(axes)}, or save it with its axes"
        )


def _with_channels_last(axes: str) -> str:
    """Proposes axes for planes of channels: the last three are height, width, channels.

    >>> _with_channels_last("QYX"), _with_channels_last("QQYX"), _with_channels_last("IQQYX")
    ('YXC', 'ZYXC', 'TZYXC')
    """
    further = len(axes.removesuffix("S")) - 3
    return f"{'TZ'[2 - further :] if further <= 2 else 'Q' * further}YXC"


def _guessed_colors(image: TiffImage) -> list[str]:
    """Tells of three or four planes that tifffile takes for colors unless told otherwise."""
    page = image.page
    is_planar = image.axes == "SYX" and page.planarconfig == PLANARCONFIG.SEPARATE
    if not (is_planar and str(page.software).startswith("tifffile")):
        return []
    count = image.shape[0]
    return [f"its {count} planes are read as colors, as it states; if they are none, --axes ZYX"]


def _odd_orientation(page: tifffile.TiffPage) -> list[str]:
    tag = page.tags.get(_ORIENTATION)
    if tag is None or tag.value in (0, 1):
        return []
    stated = int(tag.value)
    return [f"it states orientation {stated}, not followed in TIFF: pixels are read as stored"]


def _odd_white(page: tifffile.TiffPage) -> list[str]:
    is_odd = page.photometric == PHOTOMETRIC.MINISWHITE and np.dtype(page.dtype).kind not in "bu"
    return [f"it calls 0 white, not followed in {page.dtype}: read as stored"] if is_odd else []


def _without_companion(image: TiffImage, companion: str | None) -> TiffImage:
    """Reads a page without the file that holds its metadata, and refuses several."""
    if companion is None:
        return image
    planes = math.prod(
        size for axis, size in zip(image.axes, image.shape, strict=True) if axis not in "YXCS"
    )
    if planes > 1:
        raise ValueError(
            f"what its {planes} pages are is stated in {companion} alone, which is not read; say "
            "it, for example --axes ZYX or CYX, or save it as one OME-TIFF"
        )
    note = f"its metadata are in {companion}, which is not read"
    return replace(image, notes=(*image.notes, note))


def check_room(image: TiffImage) -> None:
    """Refuses to read whole what the memory cannot hold.

    Raises:
        ValueError: The message names the bytes.
    """
    if image.nbytes > total_memory():
        raise ValueError(f"it takes {image.nbytes:,} bytes, more than there is memory")


def _check_chain(file: tifffile.TiffFile) -> None:
    """Follows the list of pages to its end; tifffile would follow a circle for ever."""
    form, handle = file.tiff, file.filehandle
    seen: set[int] = set()
    handle.seek(8 if file.is_bigtiff else 4)
    while place := _number(handle.read(form.offsetsize), form.offsetformat):
        if place in seen:
            raise ValueError("its list of pages goes round in a circle")
        seen.add(place)
        handle.seek(place)
        tags = _number(handle.read(form.tagnosize), form.tagnoformat)
        handle.seek(place + form.tagnosize + tags * form.tagsize)


def _number(stored: bytes, form: str) -> int:
    if len(stored) < struct.calcsize(form):
        raise ValueError("its list of pages leads beyond its end")
    return int(struct.unpack(form, stored)[0])


def _check_planes(file: tifffile.TiffFile) -> None:
    """Refuses metadata for whose planes there would not even be room for a list."""
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
        return []  # tifffile reads the pages without


def _check_complete(series: tifffile.TiffPageSeries, file: tifffile.TiffFile) -> None:
    """Refuses what would be read as 0: planes, tiles and strips that are not in the file.

    A tile whose place and length are both 0 is one that its writer has left out as empty.
    """
    if series.dataoffset is not None:  # pixels lie in the file as in an array
        if series.dataoffset == 0:
            raise ValueError("its pixels are said to begin at byte 0, where its header is")
        if series.dataoffset + series.nbytes > _size_of_file(series[0]):
            raise ValueError("it ends before its last pixel")
        return
    for page in series:
        if page is None:
            missing = sum(one is None for one in series)
            raise ValueError(
                f"{missing} of its {len(series)} planes are in no file; it names "
                f"{missing_files(file) or 'none'}, not found beside it. Keep the files of a set "
                "together under their own names, or save it as one file"
            )
        _check_pieces(page)


def _check_stated(series: tifffile.TiffPageSeries) -> None:
    """Refuses more pixels, in all or in one tile, than can come of the bytes of the files."""
    stated = max(series.nbytes, math.prod(series.keyframe.chunks) * series.dtype.itemsize)
    if stated <= SMALL:
        return
    files = {
        page.parent.filehandle.path: _size_of_file(page) for page in series if page is not None
    }
    if stated > LARGEST_RATIO * sum(files.values()):
        raise ValueError(
            f"it states {stated:,} bytes of pixels, more than {LARGEST_RATIO:,} times its own size"
        )


def _check_pieces(page: Page) -> None:
    expected = math.prod(page.chunked)
    stored = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(stored) < expected:
        raise ValueError(f"it has {len(stored)} of {expected} tiles or strips")
    if any(offset and not count for offset, count in stored):
        raise ValueError("a tile or strip of it is empty")
    if max((offset + count for offset, count in stored), default=0) > _size_of_file(page):
        raise ValueError("it ends before its last pixel")
    if page.compression == COMPRESSION.JPEG:
        _check_jpegs(page)


def _check_jpegs(page: Page) -> None:
    """Refuses a JPEG inside that is larger than its tile: all of it would be decoded."""
    most = max(_SMALL_PIECE, 4 * math.prod(page.chunks))
    handle = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        height, width = _jpeg_size(handle.read(min(count, _JPEG_HEADER)))
        if height * width > most:
            raise ValueError(f"a tile or strip of it states {width} x {height} pixels")


def _jpeg_size(stored: bytes) -> tuple[int, int]:
    """Finds height and width in the header of a JPEG; 0 where it states none."""
    place = stored.find(b"\xff", 2)
    while 0 < place < len(stored) - 9:
        marker = stored[place + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", stored[place + 5 : place + 9])
            return height, width
        if marker == 0xFF:  # what fills a gap
            place += 1
        else:
            length = 0 if marker in _JPEG_ALONE else int.from_bytes(stored[place + 2 : place + 4])
            place = stored.find(b"\xff", place + 2 + length)
    return 0, 0


def _size_of_file(page: Page | None) -> int:
    """Returns the bytes of the file that a page is in; those of an OME-TIFF may be in several."""
    return page.parent.filehandle.size if page is not None else 0
