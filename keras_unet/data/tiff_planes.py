"""Planes that a TIFF claims and does not hold: missing, or in other files.

An ImageJ file may state more planes than it holds, or fewer; an OME-TIFF may be one of several
files of an image, whose planes its metadata name.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tifffile

_LISTED = 3


def check_imagej(file: tifffile.TiffFile, series: Sequence[Any]) -> None:
    """Refuses an ImageJ file that ends before the last plane that it states.

    Raises:
        ValueError: The message has both numbers.
    """
    stated = file.imagej_metadata if file.is_imagej else None
    if not stated:
        return
    sizes = [int(stated.get(name, 1)) for name in ("channels", "slices", "frames")]
    planes = math.prod(sizes)
    held = sum(_planes_in(one) for one in series)
    if planes > held:
        raise ValueError(
            f"it states {planes:,} planes (ImageJ) and holds {held:,}: it was cut, or its "
            "description is that of another file. Copy or save it again, or, if it is whole, name "
            "the axes of what is there, for example --axes YX"
        )


def has_more_pages(series: Any) -> bool:
    """Tells whether a series has other pages than its axes account for."""
    return series.dataoffset is None and math.prod(series.shape) != len(series) * math.prod(
        series.keyframe.shape
    )


def own_series(file: tifffile.TiffFile, series: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Leaves out, of several images, those that lie in other files of a set alone.

    So does Micro-Manager write positions, each file with the metadata of all.

    Returns:
        The series to read, and what to say of the others.
    """
    own = [one for one in series if any(_is_in(page, file) for page in one)]
    others = len(series) - len(own)
    if not own or not others:
        return list(series), []
    return own, [f"of {len(series)} images that it names, those in other files are read of these"]


def files_of_set(path: Path) -> tuple[Path, ...]:
    """Lists the files that the planes of an OME-TIFF are in; itself alone where it names no others.

    Where it holds one of several images side by side, they are those of its own image.
    """
    try:
        with tifffile.TiffFile(path) as file:
            if not file.is_ome or not file.series:
                return (path,)
            first = own_series(file, file.series)[0][0]
            names = {page.parent.filehandle.path for page in first if page is not None}
    except Exception:  # noqa: BLE001 - what is wrong with the file is said where it is read
        return (path,)
    return tuple(sorted(Path(name) for name in names))


def repeated_in(paths: Iterable[Path]) -> dict[Path, Path]:
    """Finds files that are parts of an image of which another file is given before.

    Returns:
        For each such file the first that is given of the same image.
    """
    first: dict[tuple[Path, ...], Path] = {}
    found = {}
    for path in paths:
        files = files_of_set(path)
        if len(files) > 1 and (other := first.setdefault(files, path)) is not path:
            found[path] = other
    return found


def missing_files(file: tifffile.TiffFile) -> str:
    """Names the files that an OME-TIFF says its planes are in, and that are not there."""
    folder = Path(file.filehandle.dirname)
    named = {
        str(element.get("FileName"))
        for element in _elements(file.ome_metadata)
        if element.tag.endswith("UUID") and element.get("FileName")
    }
    missing = sorted(name for name in named if not (folder / Path(name).name).is_file())
    more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
    return f"{', '.join(missing[:_LISTED])}{more}"


def companion_of(file: tifffile.TiffFile) -> str | None:
    """Returns the file that holds the metadata of an OME-TIFF in its place, or None."""
    for element in _elements(file.ome_metadata):
        if element.tag.endswith("BinaryOnly"):
            return str(element.get("MetadataFile"))
    return None


def _elements(text: str | None) -> list[ET.Element]:
    try:
        return list(ET.fromstring(text).iter()) if text else []  # noqa: S314 - as tifffile
    except ET.ParseError:
        return []


def _planes_in(series: Any) -> int:
    """Counts planes and channels, however many of them are in one page."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    stated = math.prod(int(size) for axis, size in sizes.items() if axis not in "YX")
    if series.dataoffset is not None:
        return stated
    page = series.keyframe
    in_page = math.prod(
        n for axis, n in zip(page.axes, page.shape, strict=True) if axis not in "YX"
    )
    return max(len(series) * int(in_page), 1)


def _is_in(page: Any, file: tifffile.TiffFile) -> bool:
    return page is not None and page.parent.filehandle.path == file.filehandle.path
