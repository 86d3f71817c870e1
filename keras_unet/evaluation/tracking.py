"""Scores of tracks in folders of the Cell Tracking Challenge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from keras_unet.console import some
from keras_unet.data.labels import read_labels
from keras_unet.data.tracks import REFERENCE_TRACKS, RESULT_TRACKS, frames_of_tracks, read_tracks
from keras_unet.metrics.objects import LabelImage
from keras_unet.metrics.tracking import TrackingErrors, tracking_errors


def score_tracks(labels: Path, predictions: Path) -> TrackingErrors | None:
    """Compares tracks with those of a reference, if both folders have some.

    Args:
        labels: `01_GT`, its `SEG` or `TRA`, or the folder of a data set of one sequence.
        predictions: Folder with `res_track.txt` and `mask000.tif`, ...

    Returns:
        The errors; None if there are no tracks on one side.

    Raises:
        ValueError: If the frames differ, or a file holds no tracks or no labels.
    """
    reference = _reference_folder(labels)
    if reference is None or not (predictions / RESULT_TRACKS).is_file():
        return None
    frames, results = frames_of_tracks(reference), frames_of_tracks(predictions)
    missing = [f"mask{number:03d}.tif" for number in frames if number not in results]
    if missing or len(results) != len(frames):
        received = f"none for {some(missing)}" if missing else f"{len(results)}"
        raise ValueError(
            f"{predictions}: expected the {len(frames)} frames of {reference}, as mask000.tif, ... "
            f"Received {received}; link all frames"
        )
    tracks = read_tracks(reference / REFERENCE_TRACKS), read_tracks(predictions / RESULT_TRACKS)
    return tracking_errors(_read(frames), _read({at: results[at] for at in frames}), *tracks)


def _reference_folder(labels: Path) -> Path | None:
    """Finds the only folder with reference tracks."""
    candidates = [labels, labels / "TRA", labels.parent / "TRA", *sorted(labels.glob("*_GT/TRA"))]
    found = [path for path in candidates if (path / REFERENCE_TRACKS).is_file()]
    return found[0] if len(found) == 1 else None


def _read(frames: Mapping[int, Path]) -> Iterator[LabelImage]:
    for path in frames.values():
        yield read_labels(path).labels
