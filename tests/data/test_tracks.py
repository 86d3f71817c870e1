"""Files of tracks of the Cell Tracking Challenge."""

import pytest

from keras_unet.data.tracks import frames_of_tracks, read_tracks, write_tracks
from keras_unet.metrics.tracking import Track


def test_what_is_written_is_read(tmp_path):
    tracks = [Track(1, 0, 4), Track(3, 5, 9, 1), Track(4, 5, 9, 1)]
    write_tracks(tmp_path / "res_track.txt", tracks)
    assert (tmp_path / "res_track.txt").read_text() == "1 0 4 0\n3 5 9 1\n4 5 9 1\n"
    assert read_tracks(tmp_path / "res_track.txt") == tracks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 4\n", r"line 1: expected four numbers.*Received '1 0 4'"),
        ("1 0 4 0\n\n2 0 -1 0", "line 3: expected four numbers"),
        ("1 0 4 0\n1 5 6 0\n", "expected a line for each label. Received two of 1"),
        ("1 0 4 7\n", "Received the parent 7 of 1"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "man_track.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_tracks(tmp_path / "man_track.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"res_track\.txt: no such file"):
        read_tracks(tmp_path / "res_track.txt")


def test_frames_are_sorted_by_number(tmp_path):
    for name in ("mask010.tif", "mask9.tif", "other.tif", "mask.tif", "res_track.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in frames_of_tracks(tmp_path).values()] == [
        "mask9.tif",
        "mask010.tif",
    ]
