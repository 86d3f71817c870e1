"""What a TIFF states of itself, looked at before its pixels are.

Its numbers may be damaged, or made up: a list of pages that leads back to an earlier one, more
planes than there are, tiles beyond the end of the file. Taken as they stand, they would cost all
memory or be read as 0.
"""

from __future__ import annotations

import math
import struct
import xml.etree.ElementTree as ET

import tifffile
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from keras_unet.machine import total_memory

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

Page = tifffile.TiffPage | tifffile.TiffFrame

_COLOURS: frozenset[int] = frozenset({PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR})
_GREYS: frozenset[int] = frozenset({PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE})
_COLOURS_WITH_ALPHA = 4
_GREY_WITH_ALPHA = 2
_PLANES = ("SizeZ", "SizeC", "SizeT", "PlaneCount", "NumPlanes")
_MODULO = ("Start", "End", "Step")


def first_series(file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """Returns the first series of a file, all of whose pixels are there.

    Raises:
        ValueError: There is none, the pages do not end, pixels are missing, or more are stated than
            a file of this size holds.
    """
    _check_chain(file)
    _check_planes(file)
    if not file.series:
        raise ValueError("it has no page")
    series = file.series[0]
    _check_complete(series)
    _check_stated(series)
    return series


def check_room(series: tifffile.TiffPageSeries) -> None:
    """Refuses to read whole what the memory cannot hold.

    Raises:
        ValueError: The message names the bytes.
    """
    if series.nbytes > total_memory():
        raise ValueError(f"it takes {series.nbytes:,} bytes, more than there is memory")


def has_alpha(series: tifffile.TiffPageSeries) -> bool:
    """Tells whether the last sample of a TIFF's pixels is alpha.

    The fourth sample beside colours is. The second beside grey is, unless the file says that it
    is of unspecified meaning, as writers do for the second channel of a microscope.
    """
    page = series.keyframe.aspage()
    if "S" not in series.axes or "C" in series.axes:
        return False
    if page.photometric in _COLOURS:
        return page.samplesperpixel == _COLOURS_WITH_ALPHA
    is_grey_pair = page.photometric in _GREYS and page.samplesperpixel == _GREY_WITH_ALPHA
    return is_grey_pair and EXTRASAMPLE.UNSPECIFIED not in page.extrasamples


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


def _check_complete(series: tifffile.TiffPageSeries) -> None:
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
            raise ValueError(f"{missing} of its {len(series)} planes are in no file")
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
