"""Linking of files of label images."""

import csv

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from kinds import write_classes

from keras_unet.cli import main
from keras_unet.data.images import read_image, write_tiff
from keras_unet.data.object_classes import CLASSES, ObjectClass, read_table, write_table
from keras_unet.data.tracks import read_tracks
from keras_unet.evaluation.evaluate import evaluate_folders
from keras_unet.evaluation.link import link_files
from keras_unet.evaluation.tracking import score_tracks
from keras_unet.metrics.tracking import Track

FIRST = np.array([[5, 5, 5, 0, 0, 2, 2, 2]], np.uint8).repeat(3, axis=0)
SECOND = np.where(FIRST == 5, 1, np.where(FIRST == 2, 9, 0)).astype(np.uint8)
LINKED = np.where(FIRST == 5, 1, np.where(FIRST == 2, 2, 0))


def write(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_tiff(folder / f"{name}.tif", array, axes="YX")
    return folder


def rows(folder):
    with (folder / "tracks.csv").open(newline="") as file:
        return [list(row.values()) for row in csv.DictReader(file)]


def test_a_stack_along_z(tmp_path):
    path, out = tmp_path / "cells.tif", tmp_path / "out"
    calibration = {"axes": "ZYX", "unit": "um", "spacing": 2.0}
    stack = np.stack([FIRST, SECOND])
    tifffile.imwrite(path, stack, imagej=True, resolution=(4, 4), metadata=calibration)
    assert link_files(path, out, along="z") == [out / "cells.tif", out / "tracks.csv"]
    found = read_image(out / "cells.tif")
    np.testing.assert_array_equal(found.planes[..., 0], [LINKED, LINKED])
    assert found.stack == (("Z", 2),)
    assert found.spacing.pixel_size == (0.25, 0.25)
    assert rows(out) == [["cells.tif", "1", "1", "2", "0"], ["cells.tif", "2", "1", "2", "0"]]


@pytest.mark.parametrize("form", ["stack", "files"])
def test_classes_follow_the_numbers(tmp_path, form):
    labels, out = tmp_path / "labels", tmp_path / "out"
    if form == "files":
        write(labels, a_t1=FIRST, a_t2=SECOND)
        write_classes(labels, {"a_t1": {5: "x", 2: "y"}, "a_t2": {1: "x", 9: "z"}})
    else:
        labels.mkdir()
        stack = np.stack([FIRST, SECOND])
        tifffile.imwrite(labels / "a.tif", stack, imagej=True, metadata={"axes": "TYX"})
        table = [(1, 5, "x"), (1, 2, "y"), (2, 1, "x"), (2, 9, "z")]
        write_table(labels / CLASSES, [ObjectClass("a.tif", *row) for row in table])
    assert link_files(labels, out, along="t")[-1] == out / CLASSES
    expected = [(1, 1, "x"), (1, 2, "y"), (2, 1, "x"), (2, 2, "z")]
    assert sorted(read_table(out / CLASSES)) == [ObjectClass("a.tif", *row) for row in expected]
    (labels / CLASSES).unlink()
    link_files(labels, out, along="t")
    assert not (out / CLASSES).exists()  # those of earlier numbers


def test_a_film_of_files_in_any_order(tmp_path):
    labels = write(tmp_path / "labels", a_t10=SECOND, a_t9=FIRST, b_t0=FIRST, b_t1=FIRST, c=FIRST)
    out = tmp_path / "out"
    names = [path.name for path in link_files(labels, out, along="t")]
    assert names == ["a.tif", "a_RES", "b.tif", "b_RES", "tracks.csv"]
    np.testing.assert_array_equal(tifffile.imread(out / "a.tif"), [LINKED, LINKED])
    masks = sorted(path.name for path in (out / "a_RES").iterdir())
    assert masks == ["mask009.tif", "mask010.tif", "res_track.txt"]
    assert tifffile.imread(out / "a_RES" / "mask009.tif").dtype == np.uint16
    assert read_tracks(out / "a_RES" / "res_track.txt") == [Track(1, 9, 10), Track(2, 9, 10)]
    link_files(labels, out, along="t")  # replaced, as this program wrote them


def test_scores_of_tracks(tmp_path):
    frames = {f"man_track{index:03d}": image for index, image in enumerate([LINKED] * 3)}
    frames = {name: image.astype(np.uint16) for name, image in frames.items()}
    reference = write(tmp_path / "01_GT" / "TRA", **frames)
    (reference / "man_track.txt").write_text("1 0 2 0\n2 0 2 0\n")
    write(tmp_path / "01_GT" / "SEG", man_seg001=LINKED.astype(np.uint16))
    labels = write(tmp_path / "labels", t000=FIRST, t001=SECOND, t002=np.where(FIRST == 5, 1, 0))
    link_files(labels, tmp_path / "out", along="t")
    found = evaluate_folders(
        tmp_path / "out" / "labels_RES",
        tmp_path / "01_GT",
        metrics=["ctc"],
        json=tmp_path / "s.json",
    )
    assert found.overall.values["seg"] == 1
    assert found.overall.values["det"] == pytest.approx(1 - 10 / 60)
    assert found.overall.values["tra"] == pytest.approx(1 - 11.5 / 66)
    assert [table.title for table in found.tables] == ["By image", "Tracks"]
    (tmp_path / "out" / "labels_RES" / "mask002.tif").unlink()
    with pytest.raises(ValueError, match=r"expected the 3 frames .*none for mask002\.tif"):
        evaluate_folders(tmp_path / "out" / "labels_RES", tmp_path / "01_GT", metrics=["ctc"])


def test_volumes_are_scored_in_all_planes(tmp_path):
    volume = np.stack([LINKED, 0 * LINKED]).astype(np.uint16)
    below = volume[::-1].copy()
    for folder, name, image in (("01_GT/TRA", "man_track000", volume), ("RES", "mask000", below)):
        (tmp_path / folder).mkdir(parents=True)
        write_tiff(tmp_path / folder / f"{name}.tif", image, axes="ZYX")
    (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 0 0\n2 0 0 0\n")
    (tmp_path / "RES" / "res_track.txt").write_text("1 0 0 0\n2 0 0 0\n")
    errors = score_tracks(tmp_path / "01_GT", tmp_path / "RES")
    assert (errors.missing, errors.false, errors.det) == (2, 2, 0)


def test_two_films_of_one_name_are_refused(tmp_path):
    labels = write(tmp_path / "labels", a_t0=FIRST, a_t1=FIRST, a_0=FIRST, a_1=FIRST)
    with pytest.raises(ValueError, match=r"Received two of the name a, a_\S+ and a_\S+; rename"):
        link_files(labels, tmp_path / "out", along="t")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    labels = write(tmp_path / "labels", t0=FIRST, t1=SECOND)
    words = ["link", str(labels), "--along", "t", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "labels: 2 tracks, 0 divisions" in result.stdout
    assert len(rows(tmp_path / "out")) == 2
    wrong = CliRunner().invoke(main, [*words[:-1], str(labels)])
    assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (2, 1)


def test_only_a_film_of_frames_can_be_linked(tmp_path):
    write(tmp_path / "labels", a=FIRST, b=FIRST)
    with pytest.raises(ValueError, match=r"expected a stack of label images.*single images"):
        link_files(tmp_path / "labels", tmp_path / "out", along="t")
    stack = np.zeros((2, 3, 4, 5), np.uint8)
    write_tiff(tmp_path / "zt.tif", stack, axes="TZYX")
    with pytest.raises(ValueError, match=r"expected planes along Z alone\. Received T = 2 x Z = 3"):
        link_files(tmp_path / "zt.tif", tmp_path / "out", along="z")
    write_tiff(tmp_path / "t.tif", stack[0], axes="TYX")
    with pytest.raises(ValueError, match=r"expected planes along Z alone\. Received T = 3"):
        link_files(tmp_path / "t.tif", tmp_path / "out", along="z")
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_kept(tmp_path):
    labels = write(tmp_path / "labels", t0=FIRST, t1=SECOND)
    write(tmp_path / "out" / "labels_RES", mine=FIRST)
    own = tmp_path / "out" / "labels_RES" / "mine.tif"
    tifffile.imwrite(own, FIRST)
    with pytest.raises(ValueError, match=r"expected no folder, or tracks.*mine\.tif"):
        link_files(labels, tmp_path / "out", along="t")
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["mine.tif"]
    with pytest.raises(ValueError, match="expected a folder for predictions only"):
        link_files(labels, labels, along="t")
