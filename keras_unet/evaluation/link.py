"""Linking of the objects in stacks and films of label images."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, track
from keras_unet.data.calibration import Spacing
from keras_unet.data.headers import Header, read_header
from keras_unet.data.images import smallest_unsigned, stem_of, write_tiff
from keras_unet.data.labels import read_labels
from keras_unet.data.object_classes import CLASSES, ObjectClass, classes_beside, update_table
from keras_unet.data.stacks import check_planes_along
from keras_unet.evaluation.pairing import find_label_images
from keras_unet.files import (
    PathLike,
    check_writable,
    created_folder,
    own_kind,
    printable,
)
from keras_unet.instances.link import Along, Links, link_objects
from keras_unet.measurement.table import write_table
from keras_unet.prediction.replacing import check_only_own, check_outputs
from keras_unet.prediction.tracks import (
    TRACKS,
    check_film_folders,
    film_folder,
    table_of_tracks,
    write_film,
)

_log = logging.getLogger(__name__)

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

    def classes(self, links: Links) -> Iterator[ObjectClass]:
        """Yields the classes that tables beside the files state, with the numbers of the tracks.

        Args:
            links: Tracks of the film.
        """
        planes = len(links.numbers) // len(self.files)
        stated = [classes_beside(path, planes) or ({},) * planes for path in self.files]
        for index, classes in enumerate(chain(*stated)):
            for number, track_number in links.numbers[index].items():
                for name in classes.get(number, ()):
                    yield ObjectClass(f"{self.name}.tif", index + 1, track_number, name)


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
    `classes.csv` has the classes of the objects in each plane, if such a table lies beside the
    label images.

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
        has_classes = any((path.parent / CLASSES).is_file() for path in sources)
        check_only_own([out / TRACKS, *([out / CLASSES] if has_classes else [])])
        check_film_folders(film_folder(out, film.name) for film in films if along == "t")
    written: list[Path] = []
    tables = []
    classes: list[ObjectClass] = []
    with created_folder(out):
        for film in track(films, "linking objects"):
            links = link_objects(film, along)
            classes += film.classes(links)
            written += _write(film, links, out, along)
            tables.append(table_of_tracks(f"{film.name}.tif", links.tracks))
            divisions = len({one.parent for one in links.tracks} - {0})
            divided = f", {counted(divisions, 'division')}" if along == "t" else ""
            found = counted(len(links.tracks), "track")
            _log.info(f"{printable(film.name)}: {found}{divided}")
        write_table(out / TRACKS, tables)
        if classes or own_kind(out / CLASSES) == "csv":
            update_table(out / CLASSES, [f"{film.name}.tif" for film in films], classes)
    return [*written, out / TRACKS, *([out / CLASSES] if classes else [])]


def _films(path: Path, along: Along) -> list[Film]:
    """Finds the stacks and films of a file or folder, sorted by name."""
    files = [path] if path.is_file() else [file.labels for file in find_label_images(path).files]
    headers = {file: read_header(file) for file in files}
    stacks = [file for file in files if headers[file].shape[0] > 1]
    for file in stacks:
        check_planes_along(along.upper(), headers[file].stack, file)
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
    films.sort(key=lambda film: film.name)
    for first, second in pairwise(films):
        if first.name == second.name:
            raise ValueError(
                f"{path}: expected stacks and films of different names. Received two of the name "
                f"{first.name}, {first.files[0].name} and {second.files[0].name}; rename one, or "
                "put it into another folder"
            )
    return films


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
    folder = film_folder(out, film.name)
    write_film(folder, links, film, film.first)
    return [path, folder]
