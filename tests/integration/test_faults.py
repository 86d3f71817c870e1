"""Trainings that are killed, or lose the disk or the data under way: nothing that was is lost."""

import csv
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from click.testing import CliRunner

from keras_unet.backend import keras
from keras_unet.cli import main
from keras_unet.files import leftovers
from keras_unet.runs import Ensemble, Run
from keras_unet.training.folds import train_folds
from keras_unet.training.options import TrainingOptions

TINY = ["--depth", "1", "--base-filters", "2", "--tile", "60", "--precision", "float32"]
PACE = ["--steps", "12", "--learning-rate", "0.3", "--momentum", "0.9"]
OPTIONS = [*TINY, *PACE, "--validation", "c3"]


def train(data, folder, *options):
    """Runs the command in this process."""
    return CliRunner().invoke(main, ["train", str(data), "--run", str(folder), *options])


def one_line(result):
    """The line on standard error, if that is all there is to say."""
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    assert len(errors) == 1
    return errors[0]


def history(folder):
    """The history but for its clock."""
    with (folder / "history.csv").open() as table:
        rows = list(csv.DictReader(table))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_equal(run, whole):
    """Compares a run with one that nothing has happened to."""
    assert history(run) == history(whole)
    outcomes = [Run.load(folder).record["outcome"] for folder in (run, whole)]
    for name in ("complete", "steps", "best_score", "score"):
        assert outcomes[0][name] == outcomes[1][name]
    assert Run.load(run).instances == Run.load(whole).instances
    for name in ("best.keras", "last.keras"):
        models = [keras.saving.load_model(folder / name) for folder in (run, whole)]
        for one, other in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(one, other)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
    assert not list(leftovers(run))


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    """A run that nothing has happened to; not to be written to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = train(cells, folder, *OPTIONS)
    assert result.exit_code == 0, result.output
    return folder


def test_a_killed_training_is_gone_on_with_when_its_images_are_back(cells, whole, tmp_path):
    """It holds them in memory: one that vanishes is missed by the training that goes on."""
    data, folder = shutil.copytree(cells, tmp_path / "data"), tmp_path / "run"
    image, elsewhere = data / "images" / "c1.tif", tmp_path / "c1.tif"
    command = [sys.executable, "-m", "keras_unet", "train", str(data), "--run", str(folder)]
    with subprocess.Popen(
        [*command, *OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("step 1:"):
                image.rename(elsewhere)
            if line.startswith("step 3:"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert "outcome" not in Run.load(folder).record
    for path in (folder / "checkpoint.npz", folder / "weight_maps" / "c0.tif"):
        path.with_name(f".0123abcd-{path.name}").write_bytes(b"half")

    line = one_line(train(data, folder, "--resume"))
    assert line.startswith(f"Error: {data}: expected the images and labels that {folder} was")
    assert "(missing: c1)" in line
    elsewhere.rename(image)
    result = train(data, folder, "--resume")
    assert result.exit_code == 0, result.output
    assert_equal(folder, whole)


@pytest.mark.parametrize(
    "name",
    [
        "history.csv",  # after the first model, which would be in no checkpoint
        "report.html",  # after the last step
    ],
)
def test_a_disk_that_becomes_full(cells, whole, tmp_path, full_disk, name):
    folder = tmp_path / "run"
    with full_disk(folder, name=name):
        line = one_line(train(cells, folder, *OPTIONS))
    assert line.startswith(f"Error: {folder / name}: expected a place that can be written to")
    assert "The system said: No space left on device." in line
    keras.saving.load_model(folder / "best.keras")
    result = train(cells, folder, "--resume")
    assert result.exit_code == 0, result.output
    assert_equal(folder, whole)


def test_a_disk_that_is_full_before_the_first_step(cells, tmp_path, full_disk):
    folder = tmp_path / "run"
    with full_disk(folder, name=".tif"):
        line = one_line(train(cells, folder, *OPTIONS))
    assert re.search(r"weight_maps/c\d-\w+\.tif: expected a place .*: No space left on", line)
    assert "checkpoint.npz" in one_line(train(cells, folder, "--resume"))  # start it anew
    with full_disk(folder, name=".tif"):
        assert "No space left on" in one_line(train(cells, folder, *OPTIONS))


def test_a_folder_that_is_read_only_by_now(cells, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "run.json").write_text(
        (folder / "run.json").read_text().replace('"complete": true', '"complete": false')
    )
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    line = one_line(train(cells, folder, "--resume"))
    assert line.startswith(f"Error: {folder}: expected a writable folder")
    assert "The system said: Read-only file system." in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_image_that_vanishes_before_folds_are_resumed(cells, tmp_path):
    data, folder = shutil.copytree(cells, tmp_path / "data"), tmp_path / "ensemble"
    image, elsewhere = data / "images" / "c1.tif", tmp_path / "c1.tif"
    steps = []

    def stop_in_the_second_fold(step, **_):
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=stop_in_the_second_fold)
    options = TrainingOptions(steps=1, depth=1, base_filters=4)
    train_folds(data, folder, options, 2, callbacks=[callback])
    image.rename(elsewhere)
    line = one_line(train(data, folder, "--resume"))
    assert f"expected the images and labels that {folder / 'fold-1'} was started with" in line
    assert "(missing: c1)" in line
    assert Run.load(folder / "fold-1").record["outcome"]["complete"]
    assert Ensemble.load(folder).instances is None
    elsewhere.rename(image)
    result = train(data, folder, "--resume")
    assert result.exit_code == 0, result.output
    assert Ensemble.load(folder).instances is not None
    assert Run.load(folder / "fold-2").record["outcome"]["complete"]
