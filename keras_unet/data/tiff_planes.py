"""Planes of a TIFF that are missing or in other files.

An ImageJ file may state more or fewer planes than it holds; an OME-TIFF may be one of several files
of an image.
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
    """Refuses an ImageJ file that holds fewer planes than it states.

    Raises:
        ValueError: If planes are missing; the message has both numbers.
    """
    stated = file.imagej_metadata if file.is_imagej else None
    if not stated:
        return
    sizes = [int(stated.get(name, 1)) for name in ("channels", "slices", "frames")]
    planes = math.prod(sizes)
    present = sum(map(_count_planes, series))
    if planes > present:
        raise ValueError(
            f"it states {planes:,} planes (ImageJ) and holds {present:,}: it was truncated, or its "
            "description is from another file. Copy or save it again, or, if it is complete, set "
            "its axes, for example --axes YX"
        )


def has_more_pages(series: Any) -> bool:
    """Returns whether the number of pages of a series differs from that of its axes."""
    return series.dataoffset is None and math.prod(series.shape) != len(series) * math.prod(
        series.keyframe.shape
    )


def own_series(file: tifffile.TiffFile, series: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Selects the images of a file, without those that are only in other files of a set.

    Micro-Manager writes the metadata of all positions in the file of each position.

    Returns:
        The series to read, and notes on the others.
    """
    own = [image for image in series if any(_is_in(page, file) for page in image)]
    others = len(series) - len(own)
    if not own or not others:
        return list(series), []
    return own, [
        f"of the {len(series)} images that it names, those in other files are read from these files"
    ]


def files_of_set(path: Path) -> tuple[Path, ...]:
    """Lists the files with the planes of an OME-TIFF's image, or the file alone."""
    try:
        with tifffile.TiffFile(path) as file:
            if not file.is_ome or not file.series:
                return (path,)
            first = own_series(file, file.series)[0][0]
            names = {page.parent.filehandle.path for page in first if page is not None}
    except Exception:  # noqa: BLE001 - errors are raised when the file is read
        return (path,)
    return tuple(sorted(Path(name) for name in names))


def repeated_in(paths: Iterable[Path]) -> dict[Path, Path]:
    """Finds files that belong to the image of an earlier file.

    Returns:
        The earlier file of each such file.
    """
    first: dict[tuple[Path, ...], Path] = {}
    repeated = {}
    for path in paths:
        files = files_of_set(path)
        if len(files) > 1 and (other := first.setdefault(files, path)) is not path:
            repeated[path] = other
    return repeated


def missing_files(file: tifffile.TiffFile) -> str:
    """Names the files in the metadata of an OME-TIFF that do not exist."""
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
    """Returns the name of the companion file with the metadata of an OME-TIFF, or None."""
    for element in _elements(file.ome_metadata):
        if element.tag.endswith("BinaryOnly"):
            return str(element.get("MetadataFile"))
    return None


def _elements(text: str | None) -> list[ET.Element]:
    try:
        return list(ET.fromstring(text).iter()) if text else []  # noqa: S314 - as tifffile
    except ET.ParseError:
        return []


def _count_planes(series: Any) -> int:
    """Counts planes and channels, also if a page holds several."""
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
