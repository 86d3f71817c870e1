"""Output files of tracks: a table, and label images as in the Cell Tracking Challenge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import smallest_unsigned, write_tiff
from keras_unet.data.tracks import RESULT_TRACKS, write_tracks
from keras_unet.files import atomic_folder, is_own, make_folder, printable
from keras_unet.instances.link import Links
from keras_unet.measurement.properties import Columns
from keras_unet.metrics.tracking import Track

TRACKS = "tracks.csv"
"""Name of the table of the tracks of all images."""


def film_folder(out: Path, name: str) -> Path:
    """Returns the folder of the tracks of a film, named as in the Cell Tracking Challenge."""
    return out / f"{name}_RES"


def write_film(
    folder: Path, links: Links, planes: Iterable[NDArray[np.integer]], first: int = 0
) -> None:
    """Writes a film as `mask000.tif`, ... and `res_track.txt`, in place of what is there.

    An object that is missing in a frame continues as a new track, see `Links.without_gaps`.

    Args:
        folder: The folder; its parent exists.
        links: Tracks of the film.
        planes: The label images that were linked.
        first: Number of the first frame.
    """
    whole = links.without_gaps()
    with atomic_folder(folder) as temporary:
        make_folder(temporary)
        for index, labels in enumerate(planes):
            frame = smallest_unsigned(whole.relabel(index, labels))
            frame = frame.astype(np.promote_types(frame.dtype, np.uint16))
            write_tiff(temporary / f"mask{first + index:03d}.tif", frame, axes="YX")
        shifted = [
            replace(one, begin=one.begin + first, end=one.end + first) for one in whole.tracks
        ]
        write_tracks(temporary / RESULT_TRACKS, shifted)


def check_film_folders(folders: Iterable[Path]) -> None:
    """Checks that folders of tracks hold nothing but files that this program has written.

    Args:
        folders: The folders; they may be missing.

    Raises:
        ValueError: If one holds another file.
    """
    for folder in folders:
        files = folder.iterdir() if folder.is_dir() else ()
        others = (path for path in files if path.name != RESULT_TRACKS and not is_own(path))
        foreign = next(others, None)
        if foreign is not None:
            raise ValueError(
                f"{folder}: expected no folder, or tracks that keras-unet has written. Received "
                f"one with {foreign.name}; choose another --out, or replace it by --overwrite"
            )


def table_of_tracks(name: str, tracks: Sequence[Track]) -> Columns:
    """Returns the tracks of an image as columns, with planes from 1, as in tables of objects.

    Args:
        name: Name of the image.
        tracks: The tracks.
    """
    return {
        "file": np.full(len(tracks), printable(name)),
        "number": np.array([one.number for one in tracks], int),
        "begin": np.array([one.begin + 1 for one in tracks], int),
        "end": np.array([one.end + 1 for one in tracks], int),
        "parent": np.array([one.parent for one in tracks], int),
    }
