"""Tracks in the form of the Cell Tracking Challenge: label images of frames, and a text file.

Each line of the text file holds a label, its first and last frame, and the label of its parent, or
0. It is `res_track.txt` beside `mask000.tif`, ... for results, and `man_track.txt` beside
`man_track000.tif`, ... for references.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from keras_unet.data.images import image_files
from keras_unet.files import atomic
from keras_unet.metrics.tracking import Track

RESULT_TRACKS = "res_track.txt"
REFERENCE_TRACKS = "man_track.txt"

_FRAME = re.compile(r"(?:man_track|mask)(\d+)")
_FIELDS = 4


def read_tracks(path: Path) -> list[Track]:
    """Reads a file of tracks.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line has not four numbers, a label is repeated, or a parent is unknown.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected tracks, a line for each label")
    tracks = [
        _track(path, row, line)
        for row, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if line.strip()
    ]
    numbers = [track.number for track in tracks]
    repeated = next((number for number in numbers if numbers.count(number) > 1), None)
    if repeated is not None:
        raise ValueError(f"{path}: expected a line for each label. Received two of {repeated}")
    unknown = next((track for track in tracks if track.parent not in (0, *numbers)), None)
    if unknown is not None:
        raise ValueError(
            f"{path}: expected parents that have a line. Received the parent {unknown.parent} of "
            f"{unknown.number}"
        )
    return tracks


def _track(path: Path, row: int, line: str) -> Track:
    words = line.split()
    if len(words) != _FIELDS or not all(word.isdecimal() for word in words):
        raise ValueError(
            f"{path}, line {row}: expected four numbers, label, first frame, last frame and "
            f"parent. Received {line.strip()[:80]!r}"
        )
    return Track(*map(int, words))


def write_tracks(path: Path, tracks: Sequence[Track]) -> None:
    """Writes a file of tracks.

    Args:
        path: Path of the file; its folder exists.
        tracks: The tracks.
    """
    lines = [f"{one.number} {one.begin} {one.end} {one.parent}\n" for one in tracks]
    with atomic(path) as temporary:
        temporary.write_text("".join(lines), encoding="ascii")


def frames_of_tracks(folder: Path) -> dict[int, Path]:
    """Returns the label images of a folder of tracks, by the numbers of their frames."""
    matches = {path: _FRAME.fullmatch(path.stem) for path in image_files(folder)}
    found = {int(match[1]): path for path, match in matches.items() if match}
    return dict(sorted(found.items()))
