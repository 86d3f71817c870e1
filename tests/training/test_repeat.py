"""A run that is trained again is the run again."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from logs import logged

from keras_unet.cli import main
from keras_unet.runs import Run
from keras_unet.training import folds
from keras_unet.training.options import TrainingOptions
from keras_unet.training.resume import load_template, repeated_options, warn_of_differences
from keras_unet.training.train import train_folder


def edited(folder, edit):
    """Changes what a run has recorded."""
    values = json.loads((folder / "run.json").read_text())
    edit(values["record"])
    (folder / "run.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def pattern(trained, tmp_path):
    """A copy of a finished run, to be changed."""
    return shutil.copytree(trained, tmp_path / "pattern")


def history(folder):
    """The history but for its clock."""
    with (folder / "history.csv").open() as table:
        rows = list(csv.DictReader(table))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def weights(folder):
    arrays = dict(np.load(folder / "checkpoint.npz"))
    del arrays["progress"]  # it holds the clock
    return arrays


def test_a_repeated_run_has_the_same_history_and_weights(trained, cells, tmp_path):
    """The session's run was trained in this process or another, 40 steps ago."""
    with logged() as said:
        run = train_folder(cells, tmp_path / "again", repeat=trained)
    before = Run.load(trained)
    assert history(run.folder) == history(trained)
    again, first = weights(run.folder), weights(trained)
    assert again.keys() == first.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
    assert Run.load(run.folder).record["options"] == before.record["options"]
    assert run.instances == before.instances
    assert run.record["repeat"] == str(trained)
    assert not any(line.startswith("Warning: " + str(trained)) for line in said)


def test_nothing_is_left_to_the_data_the_clock_or_the_machine(pattern):
    edited(
        pattern,
        lambda record: record["options"].update(
            max_minutes=5, steps=None, epochs=None, validation=0.25, precision="auto"
        ),
    )
    with logged() as said:
        options = repeated_options(Run.load(pattern))
    assert (options.steps, options.epochs, options.max_minutes) == (40, None, None)
    assert options.validation == ("c3",)
    assert options.precision == "float32"
    (line,) = said
    assert line.startswith(f"Warning: {pattern} was limited in minutes; its 40 steps are repeated")


def test_a_length_in_epochs_stays_one(pattern):
    edited(pattern, lambda record: record["options"].update(steps=None, epochs=1.5))
    assert repeated_options(Run.load(pattern)).epochs == 1.5


def test_an_interrupted_run_is_not_repeated(pattern):
    edited(pattern, lambda record: record["outcome"].update(complete=False))
    with pytest.raises(ValueError, match=r"expected a run that was trained to its end.*--resume"):
        load_template(pattern)


def test_what_is_no_run_is_not_repeated(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a run"):
        load_template(tmp_path)


def test_other_data_are_refused_before_anything_is_written(trained, cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    image = tifffile.imread(data / "images" / "c1.tif")
    image[0, 0] += 1
    tifffile.imwrite(data / "images" / "c1.tif", image)
    with pytest.raises(ValueError, match=r"expected the images and labels.*\(changed: c1\)"):
        train_folder(data, tmp_path / "again", repeat=trained)
    assert not (tmp_path / "again").exists()


def test_other_versions_are_said_in_one_line(pattern):
    run = Run.load(pattern)
    with logged() as said:
        warn_of_differences(run)
    assert said == []

    def age(record):
        record["versions"]["numpy"] = "1.0"
        record["machine"]["processor"] = "abacus"
        del record["versions"]["keras"]  # as in older runs, of which nothing is said

    with logged() as said:
        warn_of_differences(Run.load(edited(pattern, age)))
    (line,) = said
    assert f"numpy 1.0, now {np.__version__}; processor abacus, now " in line
    assert "keras " not in line
    assert "\n" not in line


@pytest.fixture
def ensemble(pattern, tmp_path):
    """Two folds, trained as far as their records say, which is all that is looked at."""
    options = Run.load(pattern).record["options"] | {"steps": 2}
    folder = tmp_path / "ensemble"
    record = folds.Ensemble(folder, (("c0", "c1"), ("c2", "c3")), options)
    for fold in record.folds:
        shutil.copytree(pattern, fold)
    record.save()
    return folder


def test_an_ensemble_is_repeated_fold_by_fold(ensemble, cells, tmp_path, monkeypatch):
    trained = []

    monkeypatch.setattr(folds, "_train_missing", lambda *given: trained.append(given[1].folder))
    folds.repeat_folds(cells, tmp_path / "again", ensemble)
    assert trained == [tmp_path / "again"]
    again, before = (folds.Ensemble.load(one) for one in (tmp_path / "again", ensemble))
    assert (again.held_out, again.options) == (before.held_out, before.options)


def test_an_ensemble_trained_by_the_clock_is_repeated_by_its_folds(ensemble, cells, tmp_path):
    path = ensemble / "ensemble.json"
    values = json.loads(path.read_text())
    values["options"]["max_minutes"] = 2.0
    path.write_text(json.dumps(values))
    words = ["train", cells, "--run", tmp_path / "again", "--repeat", ensemble]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 2
    assert re.search(r"of minutes; repeat its folds, --repeat \S*fold-1\n$", result.stderr)
    assert not (tmp_path / "again").exists()


def test_options_beside_those_of_the_pattern_are_of_no_account(pattern, cells, tmp_path):
    """`train_folder` takes options or a pattern; the command line refuses both."""
    edited(pattern, lambda record: record["data"]["digests"].update(c0="?"))
    with pytest.raises(ValueError, match="changed: c0"):
        train_folder(cells, tmp_path / "a", TrainingOptions(steps=9), repeat=pattern)
