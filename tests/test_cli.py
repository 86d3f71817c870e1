"""The command line: what it prints, and that whatever goes wrong ends in one line."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from keras_unet.cli import main
from keras_unet.runs import Run

TINY = ("--depth", "1", "--base-filters", "2", "--tile", "60", "--precision", "float32")


def run(*arguments):
    """Runs a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(*folders):
    """All that lies in folders, to the byte; what is empty included."""
    paths = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def one_line(result):
    """The line on standard error, if all is as promised."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture
def data(cells, tmp_path):
    """A copy of the pictures, to be spoiled."""
    return shutil.copytree(cells, tmp_path / "data")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_pixels(path):
    image = tifffile.imread(path).astype(np.float32)
    image[5, 5] = np.nan
    tifffile.imwrite(path, image)


def as_mask(labels, background=0):
    return np.where(labels > 0, 255, background).astype(np.uint8)


def smear(path):
    """Replaces a mask by what is left of it after a way through JPEG."""
    jpeg = path.with_suffix(".jpg")
    Image.fromarray(as_mask(tifffile.imread(path))).save(jpeg, quality=60)
    tifffile.imwrite(path, np.asarray(Image.open(jpeg)))
    jpeg.unlink()


def replace_all(folder, values):
    for path in folder.iterdir():
        tifffile.imwrite(path, values(tifffile.imread(path)))


SPOILED_DATA = {
    "empty folder": (lambda d: [shutil.rmtree(d), d.mkdir()], "data: expected images/ and labels/"),
    "no folder": (shutil.rmtree, "data: no such folder"),
    "a file": (lambda d: [shutil.rmtree(d), d.touch()], "data: expected a folder.*received a file"),
    "no labels": (lambda d: shutil.rmtree(d / "labels"), "data: expected images/ and labels/"),
    "no pair": (
        lambda d: [
            path.rename(path.with_stem(f"x{path.stem}")) for path in (d / "labels").iterdir()
        ],
        "data: no image matches a label file.*images/a.tif and labels/a.png",
    ),
    "truncated": (lambda d: cut(d / "images" / "c1.tif"), "images/c1.tif: cannot be read as an im"),
    "truncated labels": (lambda d: cut(d / "labels" / "c1.tif"), "labels/c1.tif: cannot be read"),
    "text": (
        lambda d: (d / "images" / "c1.tif").write_text("?"),
        "c1.tif: cannot be read as an im",
    ),
    "nothing": (
        lambda d: (d / "images" / "c1.tif").write_text(""),
        "c1.tif: cannot.*file is empty",
    ),
    "NaN": (
        lambda d: spoil_pixels(d / "images" / "c1.tif"),
        "images/c1.tif: 1 of 9,216 pixels are",
    ),
    "channels": (
        lambda d: tifffile.imwrite(
            d / "images" / "c1.tif",
            np.random.default_rng(0).integers(0, 9, (96, 96, 3)).astype(np.uint8),
            photometric="rgb",
        ),
        "images/c1.tif: expected 1 channel as in c0.tif, received 3",
    ),
    "another size": (
        lambda d: tifffile.imwrite(d / "labels" / "c1.tif", np.ones((96, 95), np.uint8)),
        r"labels/c1.tif: expected 96 x 96 pixels.*received 96 x 95\. Save the labels in the size",
    ),
    "like JPEG": (lambda d: smear(d / "labels" / "c1.tif"), r"labels/c1.tif: expected.*JPEG.*\d %"),
    "empty mask": (
        lambda d: tifffile.imwrite(d / "labels" / "c1.tif", np.zeros((96, 96), np.uint8)),
        "labels/c1.tif: expected labels of at least one cell.*0: 100.0 %",
    ),
    "one value": (
        lambda d: replace_all(d / "labels", np.ones_like),
        "labels/c0.tif: expected at least two values.*the value 1 alone",
    ),
    "fractions": (
        lambda d: tifffile.imwrite(d / "labels" / "c1.tif", np.full((96, 96), 0.5, np.float32)),
        "labels/c1.tif: expected whole numbers",
    ),
    "colours": (
        lambda d: tifffile.imwrite(
            d / "labels" / "c1.tif", np.arange(96 * 96 * 3, dtype=np.uint8).reshape(96, 96, 3)
        ),
        "labels/c1.tif: expected one number for each pixel",
    ),
    "a name twice": (
        lambda d: Image.new("L", (96, 96)).save(d / "images" / "c1.png"),
        "images: expected names that differ without ending, received c1.png and c1.tif",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED_DATA.values(), ids=SPOILED_DATA)
def test_data_that_cannot_be_learned_from(data, tmp_path, spoil, message):
    spoil(data)
    before = contents(tmp_path)
    result = run("train", data, "--run", tmp_path / "run", *TINY)
    assert re.search(message, one_line(result)), result.stderr
    assert contents(tmp_path) == before


OPTIONS = {
    "--steps 0": "steps must be greater than 0",
    "--steps many": "Invalid value for '--steps'.*many.*See: .*train --help",
    "--epochs -1": "epochs must be greater than 0",
    "--steps 3 --epochs 1": "steps and epochs both give the length",
    "--max-minutes 0": "max_minutes must be greater than 0",
    "--patience 0": "patience must be at least 1",
    "--patience 2 --validation 0": "patience counts validations",
    "--base-filters 0": "base_filters must be a whole number",
    "--depth 0": "depth must be a whole number",
    "--padding some": "'--padding': 'some' is not one of 'valid', 'same'",
    "--norm-layer layer": "'--norm-layer': 'layer' is not one of",
    "--dropout 1": "dropout must be a rate",
    "--tile 570": "tile must be 16k.*Received: 570.*556 and 572",
    "--batch-size 0": "batch_size must be a whole number",
    "--validation 1.5": "validation must be a fraction.*Received: validation=1.5",
    "--validation 1": "validation must be a fraction.*Received: validation=1.0",
    "--validation -.1": "validation must be a fraction.*Received: validation=-0.1",
    "--groups (": "groups must be .*a regular expression",
    "--seed -1": "seed must be a whole number",
    "--precision float8": "precision must be.*'float8'",
    "--precision float16": 'precision="float16" needs a GPU',
    "--labels cells": "'--labels': 'cells' is not one of",
    "--ignore -1": "ignore must be a whole number",
    "--normalization no": "'--normalization': 'no' is not one of",
    "--border-weight -1": "border_weight must be at least 0",
    "--sigma -5": "sigma must be more than 0 pixels",
    "--amplitude -1": "amplitude must be",
    "--zoom -1": "zoom must be",
    "--sampling cells": "'--sampling': 'cells' is not one of",
    "--noise -1": "noise must be at least 0 and finite",
    "--blur 20": "blur must be at most 10.0 pixels",
    "--engine hand": "'--engine': 'hand' is not one of",
    "--learning-rate 0": "learning_rate must be greater than 0",
    "--distribute all": "'--distribute': 'all' is not one of",
    "--distribute mirrored": "--distribute mirrored needs at least two GPUs",
    "--resume --steps 5 --base-filters 4": "the run was started with.*also --steps, --base-filters",
    "--repeat there --steps 5": "--repeat uses the options of the other run. Received also --steps",
    "--repeat there --resume": "--resume continues a run, --repeat starts a new one. Received both",
    "--colour red": "No such option",
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.items(), ids=OPTIONS)
def test_options_are_refused_before_any_file_is_read(tmp_path, options, message):
    if options == "--precision float16" and _has_gpu():
        pytest.skip("there is a GPU")
    result = run("train", tmp_path / "unread", "--run", tmp_path / "run", *options.split())
    assert re.search(message, one_line(result)), result.stderr
    assert contents(tmp_path) == {tmp_path: None}


def _has_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@pytest.mark.parametrize("names", ["nobody", "c1,nobody", "12,"])
def test_names_to_hold_out_must_exist(cells, tmp_path, names):
    result = run("train", cells, "--run", tmp_path / "run", "--validation", names)
    assert "the samples are c0, c1, c2, c3" in one_line(result)
    assert contents(tmp_path) == {tmp_path: None}


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("{tmp}/file", "file: expected a writable folder"),
        ("{tmp}/file/run", "file: expected a writable folder"),
        ("/proc/run", "/proc: expected a writable folder"),
        ("{cells}", "empty folder for the run. Received one with images, labels"),
        ("{trained}", "holds a run; choose another, or resume it with --resume"),
    ],
    ids=["file", "below a file", "proc", "other files", "run"],
)
def test_folders_that_cannot_become_a_run(cells, trained, tmp_path, folder, message):
    (tmp_path / "file").touch()
    before = contents(tmp_path, cells, trained)
    path = folder.format(tmp=tmp_path, cells=cells, trained=trained)
    assert message in one_line(run("train", cells, "--run", path, *TINY))
    assert contents(tmp_path, cells, trained) == before


def _edit(name, edit):
    def edit_file(folder):
        (folder / name).write_bytes(edit((folder / name).read_bytes()))

    return edit_file


RUNS_TO_RESUME = {
    "no run": (shutil.rmtree, "run: expected a run"),
    "no checkpoint": (lambda r: (r / "checkpoint.npz").unlink(), "a run with checkpoint.npz"),
    "record cut": (_edit("run.json", lambda b: b[:99]), "run.json: expected the record of a run"),
    "options cut": (_edit("run.json", lambda b: b.replace(b'"sigma"', b'"s"')), "lacks.*'sigma'"),
    "not complete": (
        _edit("run.json", lambda b: re.sub(b'("c3": )"[0-9a-f]+"', rb'\1"?"', b)),
        r"expected the images and labels.*\(changed: c3\)",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), RUNS_TO_RESUME.values(), ids=RUNS_TO_RESUME)
def test_runs_that_cannot_be_gone_on_with(cells, trained, tmp_path, spoil, message):
    folder = shutil.copytree(trained, tmp_path / "run")
    _edit("run.json", lambda b: b.replace(b'"complete": true', b'"complete": false'))(folder)
    spoil(folder)
    before = contents(tmp_path)
    result = run("train", cells, "--run", folder, "--resume")
    assert re.search(message, one_line(result)), result.stderr
    assert contents(tmp_path) == before


def test_a_complete_run_says_so(cells, trained):
    result = run("train", cells, "--run", trained, "--resume")
    assert result.exit_code == 0
    assert "this run is complete; there is nothing to resume" in result.stdout
    assert result.stdout.endswith("IMAGES... --out FOLDER\n")


@pytest.fixture
def images(cells, tmp_path):
    """Good images and bad ones."""
    folder = shutil.copytree(cells / "images", tmp_path / "images")
    (folder / "text.tif").write_text("no image")
    for name, spoil in (("cut", cut), ("nan", spoil_pixels)):
        shutil.copy(folder / "c0.tif", folder / f"{name}.tif")
        spoil(folder / f"{name}.tif")
    pixels = np.random.default_rng(0).integers(0, 9, (96, 96, 3)).astype(np.uint8)
    tifffile.imwrite(folder / "rgb.tif", pixels, photometric="rgb")
    return folder


PREDICTIONS = {
    "cut": ("{run} {i}/c0.tif {i}/cut.tif {i}/c1.tif", "cut.tif: cannot be read as an image"),
    "text": ("{run} {i}/c0.tif {i}/text.tif", "text.tif: cannot be read as an image"),
    "NaN": ("{run} {i}/nan.tif", "nan.tif: 1 of 9,216 pixels are NaN"),
    "channels": ("{run} {i}/c0.tif {i}/rgb.tif", "rgb.tif: expected 1 channel.*received 3"),
    "missing": ("{run} {i}/c0.tif {i}/nowhere.tif", "nowhere.tif: no such file"),
    "empty folder": ("{run} {tmp}/empty", "empty: expected a folder of images"),
    "no run": ("{i} {i}/c0.tif", "images: expected a run.*without run.json"),
    "nowhere": ("{tmp}/nowhere {i}/c0.tif", "nowhere: expected a run"),
    "file in the way": ("{run} {i}/c0.tif --out {i}/c1.tif", "c1.tif: expected a writable folder"),
    "unwritable": ("{run} {i}/c0.tif --out /proc/x", "/proc: expected a writable folder"),
    "onto itself": (
        "{run} {i}/c0.tif --out {i}",
        "c0.tif: expected an output that does not replace an image",
    ),
    "labels": ("{run} {i}/c0.tif --out {c}/labels", "labels/c0.tif: expected no file, or one"),
    "beside": ("{run} {c}/images/c3.tif --save classes --out {i}", "images: .*with c0.tif, which"),
    "same stem": ("{run} {i}/c0.tif {c}/images/c0.tif", "Received c0 more than once"),
    "outputs": ("{run} {i}/c0.tif --save classes,masks", "save must be of.*Received: masks"),
    "tile": ("{run} {i}/c0.tif --tile 47", "tile_size must be"),
    "precision": ("{run} {i}/c0.tif --precision half", "precision must be"),
    "threshold": ("{run} {i}/c0.tif --threshold 1.5", "threshold must be a probability.*1.5"),
    "markers": ("{run} {i}/c0.tif --markers maxima", "'maxima' is not one of 'components'"),
    "merge_threshold": (
        "{run} {i}/c0.tif --merge-threshold 2",
        "merge_threshold must be between 0 and 1.*merge_threshold=2",
    ),
    "minimum size": ("{run} {i}/c0.tif --minimum-size -1", "minimum_size must be a whole.*-1"),
    "gap": ("{run} {i}/c0.tif --gap -1", "gap must be 0 pixels or more.*-1"),
    "affinities": ("{run} {i}/c0.tif --affinities", "affinities=True needs a network that"),
    "no effect": (
        "{run} {i}/c0.tif --save classes --keep-holes --gap 1",
        "fill_holes, gap: options for instances.*Received: classes; save instances",
    ),
    "nothing": ("{run}", "Missing argument 'FILES...'.*See: .*predict --help"),
}


@pytest.mark.parametrize(("arguments", "message"), PREDICTIONS.values(), ids=PREDICTIONS)
def test_predictions_that_cannot_be_made(trained, cells, images, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path, trained)
    words = arguments.format(run=trained, i=images, c=cells, tmp=tmp_path).split()
    out = [] if "--out" in words else ["--out", tmp_path / "out"]
    result = run("predict", *words, *out)
    assert re.search(message, one_line(result)), result.stderr
    assert contents(tmp_path, trained) == before


@pytest.mark.parametrize("name", ["run.json", "best.keras"])
def test_a_damaged_run_is_named(trained, cells, tmp_path, name):
    folder = shutil.copytree(trained, tmp_path / "run")
    cut(folder / name)
    image = cells / "images" / "c0.tif"
    assert f"{name}: expected" in one_line(run("predict", folder, image, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


EVALUATIONS = {
    "no predictions": ("{tmp}/nowhere {c}/labels", "nowhere: expected a folder of predictions"),
    "no labels": ("{c}/labels {tmp}/nowhere", "nowhere: expected a folder of label images"),
    "no label file": ("{c}/labels {tmp}/empty", "empty: expected a folder of label images"),
    "no pair": ("{tmp}/empty {c}/labels", "empty: expected predictions named like the labels"),
    "size": ("{tmp}/small {c}/labels", "small/c0.tif: expected the size of .*labels/c0.tif"),
    "no image": ("{tmp}/text {c}/labels", "text/c0.tif: cannot be read as an image"),
    "JSON": ("{c}/labels {c} --json {tmp}/text/c0.tif/x.json", "c0.tif: expected a writable"),
    "kind": ("{c}/labels {c} --labels-hold cells", "'cells' is not one of"),
    "metrics": ("{c}/labels {c} --metrics pixels,seg", "metrics must be of pixels, .*: seg"),
    "hard": ("{c}/labels {c} --metrics isbi2012", "Received none for c0.tif and 3 more; predict"),
}


@pytest.mark.parametrize(("arguments", "message"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_evaluations_that_cannot_be_made(cells, tmp_path, arguments, message):
    for name in ("empty", "small", "text"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "small" / "c0.tif", np.ones((9, 9), np.uint8))
    (tmp_path / "text" / "c0.tif").write_text("no image")
    before = contents(tmp_path)
    words = arguments.format(c=cells, tmp=tmp_path).split()
    assert re.search(message, one_line(run("evaluate", *words)))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--out", "{cells}"], "empty folder for the demo. Received one with images"),
        (["demo", "--out", "/proc/demo"], "/proc: expected a writable folder"),
        (["demo", "--steps", "0"], "steps must be greater than 0"),
        (["demo", "--border-weight", "-1"], "border_weight must be at least 0"),
        (["demo", "--seed", "-1"], "seed must be a whole number"),
        (["demo", "nuclei", "--steps", "9"], "--steps: for the demo that trains; leave out"),
        (["dream"], "No such command 'dream'.* See: .* --help"),
        (["--colour"], "No such option"),
        (["train"], "Missing argument 'DATA'"),
        (["train", "x"], "Missing option '--run'"),
        (["evaluate", "x"], "Missing argument 'LABELS'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands_that_make_no_sense(cells, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(*[word.format(cells=cells) for word in arguments])
    assert re.search(message, one_line(result)), result.stderr
    assert contents(tmp_path) == {tmp_path: None}


def exhausted(*_):
    """Fails as TensorFlow does on a device whose memory is full."""
    import tensorflow as tf

    text = "OOM when allocating tensor with shape[1,9] and type float on /job:localhost by gpu"
    raise tf.errors.ResourceExhaustedError(None, None, text)


@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_tile_too_large_for_the_memory(command, trained, cells, tmp_path, monkeypatch):
    import keras

    monkeypatch.setattr("keras_unet.training.loop._update_function", lambda *_: exhausted)
    monkeypatch.setattr(keras.Model, "predict_on_batch", exhausted)
    arguments = {
        "train": (cells, "--run", tmp_path / "run", "--steps", 2, *TINY),
        "predict": (trained, cells / "images" / "c0.tif", "--out", tmp_path / "out"),
    }
    line = one_line(run(command, *arguments[command]))
    if command == "predict":  # it has taken ever smaller tiles
        assert re.search("memory must hold a tile of .*--base-filters", line)
        return
    assert "not enough memory (OOM when allocating tensor with shape[1,9] and type float)" in line
    assert all(way in line for way in ("--tile", "--base-filters", "--batch-size"))


def test_without_a_command_the_help_is_shown():
    assert run().stdout == run("--help").stdout
    assert "keras-unet demo" in run("-h").stdout


def test_version():
    assert re.search(r"version \d+\.\d+", run("--version").stdout)


def test_share_names_and_numbers_as_names(cells, tmp_path):
    """Digits are a name, as slices are often numbered."""
    data = shutil.copytree(cells, tmp_path / "data")
    for folder in ("images", "labels"):
        (data / folder / "c3.tif").rename(data / folder / "07.tif")
    result = run(
        "train", data, "--run", tmp_path / "run", "--validation", "07", "--steps", "1", *TINY
    )
    assert result.exit_code == 0, result.output
    assert "held out for validation: 07;" in result.stdout


@pytest.mark.parametrize("command", ["inspect", "train"])
def test_a_name_that_the_pattern_of_the_groups_does_not_match_is_named(command, cells, tmp_path):
    out = ("--out" if command == "inspect" else "--run", tmp_path / "new")
    result = run(command, cells, *out, "--groups", "c([0-2])")
    assert result.exit_code == 2
    assert one_line(result).endswith("Received: 'c([0-2])', which does not match c3")


def test_what_the_data_decide_is_printed_with_its_option(cells, tmp_path):
    result = run("train", cells, "--run", tmp_path / "run", "--steps", "1", *TINY)
    assert result.exit_code == 0, result.output
    assert re.search(
        r"^seen in 3 training images.*\n.*\n.*\noptions chosen from these",
        result.stdout,
        re.MULTILINE,
    )
    assert re.search(r"^  --sigma \d", result.stdout, re.MULTILINE)
    assert not re.search(r"^  --(tile|depth|steps)", result.stdout, re.MULTILINE)  # they were given


def test_class_balance_can_be_turned_off(cells, tmp_path):
    result = run(
        "train", cells, "--run", tmp_path / "run", "--steps", "1", *TINY, "--no-class-balance"
    )
    assert result.exit_code == 0, result.output
    options = json.loads((tmp_path / "run" / "run.json").read_text())["record"]["options"]
    assert options["class_balance"] is False
    assert "class-balance" not in result.stdout


def test_help_tells_what_is_left_to_the_data():
    words = " ".join(run("train", "--help").stdout.split())
    for option in ("steps", "depth", "tile", "sigma", "amplitude"):
        assert re.search(rf"--{option} [^\[]*\[default: from the data\]", words), option


def test_predicting_prints_what_is_done_and_can_be_told_not_to(trained, cells, tmp_path):
    image = cells / "images" / "c0.tif"
    for quiet in ([], ["--quiet"]):
        result = run("predict", trained, image, "--out", tmp_path / "out", *quiet)
        assert (result.exit_code, result.stderr) == (0, "")
        assert bool(result.stdout) != bool(quiet)
    assert (tmp_path / "out" / "c0.tif").is_file()


def test_predicting_by_parts(trained, cells, tmp_path):
    image = cells / "images" / "c0.tif"
    result = run("predict", trained, image, "--out", tmp_path, "--stream", "--as", "ome-zarr")
    assert result.exit_code == 0, result.output
    assert "c0.tif: read, predicted and written in parts\n" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["c0.ome.zarr"]
    arguments = (tmp_path / "c0.ome.zarr", "--out", tmp_path / "out", "--in-memory")
    assert "stream must not be off for Zarr" in one_line(run("predict", trained, *arguments))


NO_WORKERS = {
    "both": (["--dask", "tcp://a:1", "--workers", "2"], "dask and workers: expected one of them"),
    "none": (["--workers", "0"], "workers must be at least 1"),
    "in memory": (
        ["--workers", "1", "--in-memory"],
        "--in-memory: Dask processes images window by window; leave",
    ),
    "server": (["--server", "grpc://a:1/b", "--workers", "1"], "--workers: of no effect with"),
}


@pytest.mark.parametrize(("options", "message"), NO_WORKERS.values(), ids=NO_WORKERS)
def test_options_of_dask_that_contradict(options, message, trained, cells, tmp_path):
    arguments = (trained, cells / "images" / "c0.tif", "--out", tmp_path / "out", *options)
    assert message in one_line(run("predict", *arguments))
    assert not (tmp_path / "out").exists()


def test_predicting_says_by_what_rule_and_takes_another(trained, cells, tmp_path):
    image = cells / "images" / "c0.tif"
    rule = Run.load(trained).instances
    result = run("predict", trained, image, "--out", tmp_path / "out")
    assert rule.describe() in result.stdout
    options = (
        "--threshold .3 --markers probability --merge-threshold .7 --minimum-size 7 --gap 1 "
        "--keep-holes"
    )
    result = run("predict", trained, image, "--out", tmp_path / "out", *options.split(), "--tta")
    assert result.exit_code == 0, result.output
    assert (
        "cells: probability above 0.3, split where it falls below 0.7 of its maximum, "
        "of at least 7 pixels, gaps of 1 pixels closed, holes kept" in result.stdout
    )
    assert Run.load(trained).instances == rule


def test_scores_are_printed_and_written(trained, cells, tmp_path):
    run(
        "predict", trained, cells / "images", "--out", tmp_path, "--save", "instances,probabilities"
    )
    (tmp_path / "c2.tif").unlink()
    result = run("evaluate", tmp_path, cells, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (result.exit_code, result.stderr) == (0, "Warning: no prediction for c2.tif\n")
    for row in (*scores["images"].values(), scores["overall"]):
        shown = [row["matching"][0]["pq"], *(row[name] for name in ("iou", "dice", "seg"))]
        assert all(f"{value:.4f}" in result.stdout for value in shown)
    threshold = scores["overall"]["pixel_error_threshold"]
    assert f"pixel error from probabilities above {threshold}\n" in result.stdout


def test_metrics_by_name(trained, cells, tmp_path):
    run(
        "predict", trained, cells / "images", "--out", tmp_path, "--save", "instances,probabilities"
    )
    path = tmp_path / "scores.json"
    result = run("evaluate", tmp_path, cells, "--metrics", "isbi2012,ctc", "--json", path)
    assert (result.exit_code, result.stderr) == (0, "")
    scores = json.loads(path.read_text())
    assert scores["metrics"] == ["isbi2012", "ctc"]
    assert scores["images"]["c0"].keys() == {"seg"}
    assert {"seg", "v_rand", "v_rand_threshold"} < scores["overall"].keys()
    assert "warping error" in result.stdout
    assert f"{scores['overall']['v_info']:.4f}" in result.stdout


def test_warnings_survive_quiet(cells, tmp_path):
    arguments = ("--run", tmp_path / "run", "--steps", "1", "--learning-rate", "1e-12", "--quiet")
    result = run("train", cells, *arguments, *TINY, "--validation", "c3")
    assert result.exit_code == 0, result.output
    assert all(line.startswith("Warning: ") for line in result.stderr.splitlines())
    assert result.stdout.startswith("1 steps in ")


# A process inherits from whatever started the tests that Ctrl-C is ignored or blocked.
START = """
import runpy, signal
signal.pthread_sigmask(signal.SIG_SETMASK, ())
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("keras_unet", run_name="__main__", alter_sys=True)
"""


def keras_unet(*arguments, **options):
    """Starts the command in a process of its own that handles Ctrl-C."""
    command = [sys.executable, "-c", START, *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        | options,
    )


def test_a_process_ends_in_one_line_and_code_2(tmp_path):
    process = keras_unet("train", tmp_path, "--run", tmp_path / "run")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == (
        f"Error: {tmp_path}: expected images/ and labels/ (or masks/), or sequences of the Cell "
        "Tracking Challenge such as 01/ and 01_GT/SEG/, or a.tif beside a_mask.png. Received an "
        "empty folder.\n"
    )


def test_another_backend_ends_in_one_line(tmp_path):
    process = keras_unet("train", tmp_path, "--run", tmp_path / "run", KERAS_BACKEND="torch")
    _, err = process.communicate()
    assert process.returncode == 2
    assert re.fullmatch(r"Error: keras_unet needs Keras 3 on the TensorFlow backend.*\n", err)


def test_ctrl_c_ends_tidily_and_resume_goes_on(cells, tmp_path):
    folder = tmp_path / "run"
    arguments = ["train", cells, "--run", folder, "--steps", "120", *TINY, "--validation", "c3"]
    process = keras_unet(*arguments)
    for line in process.stdout:
        if line.startswith("step "):
            process.send_signal(signal.SIGINT)
            break
    rest, err = process.communicate()
    assert process.returncode == 0
    assert all(line.startswith("Warning: ") for line in err.splitlines())  # no chatter
    assert "Interrupted" in rest
    assert f"resume with: keras-unet train {cells} --run {folder} --resume" in rest
    outcome = json.loads((folder / "run.json").read_text())["record"]["outcome"]
    assert not outcome["complete"]
    assert 6 <= outcome["steps"] < 120

    resumed = run("train", cells, "--run", folder, "--resume")
    assert resumed.exit_code == 0, resumed.output
    outcome = json.loads((folder / "run.json").read_text())["record"]["outcome"]
    assert outcome["complete"]
    assert outcome["steps"] == 120
    steps = [int(line.split(",")[0]) for line in (folder / "history.csv").read_text().split()[1:]]
    assert steps == list(range(6, 121, 6))


def test_folds_train_and_predict_together(cells, tmp_path):
    folder, out = tmp_path / "ensemble", tmp_path / "out"
    trained = run("train", cells, "--run", folder, "--folds", "2", "--steps", "2", *TINY)
    assert trained.exit_code == 0, trained.output
    assert "fold 2 of 2" in trained.output
    score = r"validation score: mean of SEG and AP .* on 2 images held out"
    assert len(re.findall(score, trained.output)) == 2
    assert f"next: keras-unet predict {folder} IMAGES... --out FOLDER" in trained.output
    predicted = run("predict", folder, cells / "images" / "c1.tif", "--out", out)
    assert predicted.exit_code == 0, predicted.output
    assert tifffile.imread(out / "c1.tif").shape == (96, 96)
    again = run("train", cells, "--run", folder, "--resume")
    assert again.exit_code == 0, again.output
    assert again.output.count("this run is complete") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "2", "--validation", "0.5"), "Received both"),
        (("--folds", "2", "--distribute", "auto"), "on several devices, not an ensemble"),
        (("--folds", "5"), "folds=5 for 4"),
        (("--folds", "1"), "folds=1 for 4"),
        (("--folds", "2", "--final-share", "0.2"), "final_share must be 0 for cross-valid"),
    ],
)
def test_folds_that_cannot_be_are_refused(cells, tmp_path, options, message):
    folder = tmp_path / "ensemble"
    result = run("train", cells, "--run", folder, *options, *TINY)
    assert result.exit_code == 2
    assert message in result.output
    assert not folder.exists()


def test_exporting_prints_the_difference_and_refuses_a_version_that_is_there(trained, tmp_path):
    words = "export", trained, tmp_path / "out", "--format", "saved_model", "--tile", "60"
    result = run(*words, "--version", "2")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert re.search(r"largest difference .* c0\.tif, 66 x 66 pixels: \S+ \(allowed", result.stdout)
    assert result.stdout.endswith(f"written: {tmp_path / 'out' / '2'}\n")
    assert "2: expected a version that does not exist" in one_line(run(*words, "--version", "2"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["2"]


def test_a_tflite_file_takes_the_place_of_the_run(trained, cells, tmp_path):
    file = tmp_path / "cells.tflite"
    result = run("export", trained, file, "--format", "tflite", "--tile", "60")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert result.stdout.startswith("largest difference from the run on c0.tif, 66 x 66 pixels: ")
    assert result.stdout.endswith(f"written: {file}\n")
    result = run("predict", file, cells / "images" / "c3.tif", "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert tifffile.imread(tmp_path / "out" / "c3.tif").shape == (96, 96)
    assert "cells.tflite: expected a file that does not exist yet" in one_line(
        run("export", trained, file, "--format", "tflite", "--tile", "60")
    )


EXPORTS = {
    "format": ("{run} {tmp}/out --format keras", "'--format': 'keras' is not"),
    "no format": ("{run} {tmp}/out", "Missing option '--format'.*See: .*export --help"),
    "no run": ("{tmp} {tmp}/out {f}", "expected a run.*without run.json"),
    "tile": ("{run} {tmp}/out {f} --tile 47", "tile_size must be 2k.*Received: 47"),
    "version": ("{run} {tmp}/out {f} --version 0", "version must be .* at least 1. Received: 0"),
    "precision": ("{run} {tmp}/out {f} --precision half", "precision must be.*'half'"),
    "unwritable": ("{run} /proc/x {f}", "/proc: expected a writable folder"),
    "a file": ("{run} {tmp}/file {f}", "file: expected a writable folder"),
    "an option of others": (
        "{run} {tmp}/out {f} --quantize int8 --int8-io",
        "--format saved_model takes --tile, .*--version. Received --quantize, --int8-io; leave out",
    ),
    "ending": ("{run} {tmp}/a.lite --format tflite", r"a\.lite: expected .* ends in \.tflite"),
    "quantization": (
        "{run} {tmp}/a.tflite --format tflite --quantize int4",
        "one of none, float16, ",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), EXPORTS.values(), ids=EXPORTS)
def test_exports_that_cannot_be_made(trained, tmp_path, arguments, message):
    (tmp_path / "file").touch()
    before = contents(tmp_path, trained)
    words = arguments.format(run=trained, tmp=tmp_path, f="--format saved_model").split()
    result = run("export", *words)
    assert re.search(message, one_line(result)), result.stderr
    assert contents(tmp_path, trained) == before


def test_every_command_can_be_quiet_but_those_that_only_report():
    quiet = {
        name
        for name, command in (main.commands | main.commands["data"].commands).items()
        if any("--quiet" in option.opts for option in command.params)
    }
    assert set(main.commands) - quiet == {"data", "doctor", "models"}
    assert set(main.commands["data"].commands) <= quiet


def test_quiet_leaves_warnings_and_the_result(cells, trained, tmp_path, monkeypatch):
    def export(*_, **__):
        logging.getLogger("keras_unet.export.parity").info("the largest difference")
        return tmp_path

    monkeypatch.setattr("keras_unet.export.export.export_model", export)
    exported = ("export", trained, tmp_path / "out", "--format", "saved_model")
    assert run(*exported).stdout == f"the largest difference\nwritten: {tmp_path}\n"
    assert run(*exported, "--quiet").output == ""
    assert run("report", trained, "--out", tmp_path / "r.html", "--quiet").output == ""
    assert run("inspect", cells, "--out", tmp_path / "seen", *TINY, "--quiet").stdout == ""
    assert (tmp_path / "seen" / "tiles.png").is_file()
