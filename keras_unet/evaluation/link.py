"""Linking of the objects in stacks and films of label images."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, track
from keras_unet.data.calibration import Spacing
from keras_unet.data.headers import Header, read_header
from keras_unet.data.images import smallest_unsigned, stem_of, write_tiff
from keras_unet.data.labels import read_labels
from keras_unet.data.stacks import axes_of_stack, describe_axes
from keras_unet.data.tracks import RESULT_TRACKS, write_tracks
from keras_unet.evaluation.pairing import find_label_images
from keras_unet.files import (
    PathLike,
    atomic_folder,
    check_writable,
    created_folder,
    is_own,
    make_folder,
    printable,
)
from keras_unet.instances.link import Along, Links, link_objects
from keras_unet.measurement.properties import Columns
from keras_unet.measurement.table import write_table
from keras_unet.metrics.tracking import Track
from keras_unet.prediction.outputs import check_only_own, check_outputs

_log = logging.getLogger(__name__)

TRACKS = "tracks.csv"
"""Name of the table of tracks."""

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)")
_FRAME_WORDS = re.compile(r"[_\-. ]*(t|time|frame|mask|man_seg|man_track)?[_\-. ]*", re.IGNORECASE)
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Film:
    """Label images of a volume or film.

    Attributes:
        name: Name of the outputs.
        files: The file of each plane, in order; one file for all planes of a stack.
        first: Number of the first frame in its name; 0 for a stack.
        spacing: Distances between pixels and planes, as far as the first file states them.
    """

    name: str
    files: tuple[Path, ...]
    first: int = 0
    spacing: Spacing = field(default_factory=Spacing)

    def __iter__(self) -> Iterator[Labels]:
        """Yields the label images of the planes."""
        for path in self.files:
            yield from read_labels(path).labels


def link_files(
    labels: PathLike, out: PathLike, *, along: Along, overwrite: bool = False
) -> list[Path]:
    """Links the objects of label images through planes or frames, so that each keeps its number.

    A stack is linked along its planes. In a folder, single images whose names differ only in the
    number at the end are a stack or film in the order of these numbers. `<name>.tif` is the stack
    of label images with the numbers of the tracks; `tracks.csv` has a row for each track, with
    first and last plane, from 1 as in `measure_files`, and the parent after a division. For a film,
    `<name>_RES` holds the same in the form of the Cell Tracking Challenge, `mask000.tif`, ... and
    `res_track.txt`, in which an object that is missing in a frame continues as a new track.

    Args:
        labels: A stack of label images, or a folder of stacks, or of single images.
        out: Folder to write to.
        along: "z" for planes of a volume, "t" for frames of a film, see `link_objects`.
        overwrite: Whether outputs may replace files that keras-unet has not written.

    Returns:
        The files and folders written.

    Raises:
        ValueError: If there is no stack, one has other axes than `along` or images of different
            sizes, or an output would replace a file that keras-unet has not written.
        OSError: If a file is missing or cannot be written.
    """
    out = Path(out)
    films = _films(Path(labels), along)
    check_writable(out)
    if not overwrite:
        sources = [path for film in films for path in film.files]
        check_outputs(out, [out / f"{film.name}.tif" for film in films], sources)
        check_only_own([out / TRACKS])
        _check_results([out / f"{film.name}_RES" for film in films] if along == "t" else [])
    written: list[Path] = []
    tables = []
    with created_folder(out):
        for film in track(films, "linking objects"):
            links = link_objects(film, along)
            written += _write(film, links, out, along)
            tables.append(_table(film, links.tracks))
            divisions = len({one.parent for one in links.tracks} - {0})
            divided = f", {counted(divisions, 'division')}" if along == "t" else ""
            found = counted(len(links.tracks), "track")
            _log.info(f"{printable(film.name)}: {found}{divided}")
        write_table(out / TRACKS, tables)
    return [*written, out / TRACKS]


def _films(path: Path, along: Along) -> list[Film]:
    """Finds the stacks and films of a file or folder, sorted by name."""
    files = [path] if path.is_file() else [file.labels for file in find_label_images(path).files]
    headers = {file: read_header(file) for file in files}
    stacks = [file for file in files if headers[file].shape[0] > 1]
    for file in stacks:
        letters, _ = axes_of_stack(headers[file].stack)
        other = {"z": "T", "t": "Z"}[along]
        if len(letters) > 1 or (letters == other and dict(headers[file].stack).get(other)):
            raise ValueError(
                f"{file}: expected planes along {along.upper()} alone. Received "
                f"{describe_axes(headers[file].stack)}; save a stack of its own for each series"
            )
    films = [Film(stem_of(file), (file,), spacing=headers[file].spacing) for file in stacks]
    series: dict[str, dict[int, Path]] = {}
    for file in files:
        match = _NUMBERED.fullmatch(stem_of(file))
        if file not in stacks and match:
            series.setdefault(match["prefix"], {})[int(match["number"])] = file
    for prefix, frames in series.items():
        if len(frames) > 1:
            films.append(_series(path, prefix, dict(sorted(frames.items())), headers))
    if not films:
        raise ValueError(
            f"{path}: expected a stack of label images, or a folder of images that are numbered at "
            "the end of their names. Received single images"
        )
    return sorted(films, key=lambda film: film.name)


def _series(
    folder: Path, prefix: str, frames: Mapping[int, Path], headers: Mapping[Path, Header]
) -> Film:
    end = next(match for match in _FRAME_WORDS.finditer(prefix) if match.end() == len(prefix))
    name = prefix[: end.start()] or _name_of(folder.resolve())
    numbers, files = list(frames), tuple(frames.values())
    is_complete = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return Film(name, files, numbers[0] if is_complete else 0, headers[files[0]].spacing)


def _name_of(folder: Path) -> str:
    """Returns the name of a folder; for `01_GT/SEG` and the like, that of the sequence.

    Example:
        >>> _name_of(Path("x/01_ST/SEG")), _name_of(Path("x/day 2"))
        ('01', 'day 2')
    """
    if folder.name in ("SEG", "TRA"):
        return folder.parent.name.removesuffix("_GT").removesuffix("_ST")
    return folder.name


def _write(film: Film, links: Links, out: Path, along: Along) -> list[Path]:
    planes = [links.relabel(index, labels) for index, labels in enumerate(film)]
    path = out / f"{film.name}.tif"
    stack = smallest_unsigned(np.stack(planes))
    write_tiff(path, stack, axes=f"{along.upper()}YX", spacing=film.spacing)
    if along == "z":
        return [path]
    folder, whole = out / f"{film.name}_RES", links.without_gaps()
    with atomic_folder(folder) as temporary:
        make_folder(temporary)
        for index, labels in enumerate(film):
            frame = smallest_unsigned(whole.relabel(index, labels))
            frame = frame.astype(np.promote_types(frame.dtype, np.uint16))
            write_tiff(temporary / f"mask{film.first + index:03d}.tif", frame, axes="YX")
        write_tracks(temporary / RESULT_TRACKS, [_shifted(one, film.first) for one in whole.tracks])
    return [path, folder]


def _check_results(folders: Sequence[Path]) -> None:
    """Checks that folders of tracks hold nothing but tracks that this program has written."""
    for folder in folders:
        files = folder.iterdir() if folder.is_dir() else ()
        others = (path for path in files if path.name != RESULT_TRACKS and not is_own(path))
        foreign = next(others, None)
        if foreign is not None:
            raise ValueError(
                f"{folder}: expected no folder, or tracks that keras-unet has written. Received "
                f"one with {foreign.name}; choose another --out, or replace it by --overwrite"
            )


def _shifted(one: Track, first: int) -> Track:
    return replace(one, begin=one.begin + first, end=one.end + first)


def _table(film: Film, tracks: Sequence[Track]) -> Columns:
    return {
        "file": np.full(len(tracks), printable(f"{film.name}.tif")),
        "number": np.array([one.number for one in tracks], int),
        "begin": np.array([one.begin + 1 for one in tracks], int),
        "end": np.array([one.end + 1 for one in tracks], int),
        "parent": np.array([one.parent for one in tracks], int),
    }
