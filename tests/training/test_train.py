import csv
import json
import shutil

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from keras.callbacks import Callback, LambdaCallback
from logs import logged
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    SESSION_START_INFO_TAG,
    parse_session_start_info_plugin_data,
)

from keras_unet.architecture import OFFSETS
from keras_unet.cli import main
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.data.samples import read_samples
from keras_unet.instances.affinities import separate_objects
from keras_unet.prediction.load import load
from keras_unet.prediction.predict import predict_outputs
from keras_unet.runs import Run
from keras_unet.training import targets
from keras_unet.training.autoconfig import AutoConfiguration
from keras_unet.training.options import AUTOCONFIGURED, TrainingOptions
from keras_unet.training.train import train_folder
from keras_unet.training.validation import single_class_warning

TINY = {"depth": 1, "base_filters": 2, "tile": 60, "validation": ("c3",), "precision": "float32"}


def train(data, folder, resume=False, **options):
    """Trains a tiny network, or goes on; returns the run and the messages logged."""
    chosen = None if resume else TrainingOptions(**TINY | {"steps": 4} | options)
    with logged() as messages:
        run = train_folder(data, folder, chosen, resume=resume)
    return run, messages


def interrupted(data, folder, step, **options):
    """Trains until Ctrl-C after a step."""

    def stop(batch, **_):
        if batch + 1 == step:
            raise KeyboardInterrupt

    chosen = TrainingOptions(**TINY | {"steps": 8} | options)
    stopping = LambdaCallback(on_train_batch_end=stop)
    return train_folder(data, folder, chosen, callbacks=[stopping])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(cells, tmp_path):
    """A copy of the pictures, to be changed."""
    return shutil.copytree(cells, tmp_path / "data")


@pytest.fixture(scope="session")
def halfway(cells, tmp_path_factory):
    """A run that Ctrl-C has ended after 4 of 8 steps; not to be written to."""
    folder = tmp_path_factory.mktemp("halfway") / "run"
    interrupted(cells, folder, 4)
    return folder


@pytest.fixture
def half(halfway, tmp_path):
    return shutil.copytree(halfway, tmp_path / "half")


def test_a_run_holds_all_that_it_promises(trained):
    names = {path.relative_to(trained).parts[0] for path in trained.rglob("*") if path.is_file()}
    assert names == {
        *("run.json", "best.keras", "last.keras", "history.csv", "checkpoint.npz", "report.html"),
        *("pictures", "tensorboard", "weight_maps", ".lock"),
    }
    assert len(list((trained / "weight_maps").iterdir())) == 4


def test_the_record_tells_options_data_and_outcome(trained, cells):
    record = Run.load(trained).record
    assert record["options"]["validation"] == ["c3"]
    assert record["data"]["folder"] == str(cells)
    assert record["data"]["training"] == ["c0", "c1", "c2"]
    assert record["data"]["validation"] == ["c3"]
    assert {"python", "tensorflow", "keras", "numpy"} < set(record["versions"])
    assert record["outcome"]["complete"]
    assert record["outcome"]["steps"] == 40
    assert record["outcome"]["score_name"] == "mean of SEG and AP"


def test_what_is_found_is_said_before_training(data, tmp_path):
    tifffile.imwrite(data / "images" / "lonely.tif", np.zeros((9, 9), np.uint8))
    with logged() as order:
        train_folder(
            data,
            tmp_path / "run",
            TrainingOptions(**TINY, steps=1),
            callbacks=[
                LambdaCallback(
                    on_train_begin=lambda *_: order.append("begun"),
                    on_train_batch_end=lambda step, **_: order.append(step),
                )
            ],
        )
    assert order[4:6] == ["begun", 0]
    assert "4 images of 96 x 96 pixels" in order[0]
    assert "images/lonely.tif" in order[0]
    assert order[1].startswith("seen in 3 training images")
    assert "  --sigma " in order[1]
    assert "--depth" not in order[1]
    assert order[2].startswith("Warning: 1 file not used (images/lonely.tif: no partner)")
    assert (
        "training on 3, held out for validation: c3; their score is mean of SEG and AP" in order[3]
    )
    assert "depth 1, 2 base features" in order[3]
    assert "tiles of 60 x 60 pixels, 44 out" in order[3]


class EnoughError(Exception):
    """Ends the job when the schedule is known."""


class StopAtStart(Callback):
    def on_train_begin(self, *_):
        raise EnoughError


def planned(data, folder, **options):
    """Trains up to the first callback; returns the schedule, the run and the messages logged."""
    callback = StopAtStart()
    with logged() as messages, pytest.raises(EnoughError):
        train_folder(data, folder, TrainingOptions(**options), callbacks=[callback])
    return callback.params["schedule"], Run.load(folder), messages


def test_what_a_person_does_not_choose_is_set_by_the_data_said_and_recorded(cells, tmp_path):
    schedule, run, messages = planned(cells, tmp_path / "run", base_filters=2)
    options = run.record["options"]
    training = read_samples(cells).samples
    seen = Fingerprint.of([one for one in training if one.name in run.record["data"]["training"]])
    configuration = AutoConfiguration.of(seen)
    assert {name: options[name] for name in AUTOCONFIGURED} == {
        name: getattr(configuration, name) for name in AUTOCONFIGURED
    }
    assert run.architecture.depth == configuration.depth == 3
    assert schedule.steps == configuration.steps == 2500
    assert run.record["data"]["fingerprint"]["cells"] == seen.cells
    assert (run.diameters, run.pixel_size) == (seen.diameters, None)
    assert messages[1].startswith(seen.describe())
    assert messages[1].endswith(configuration.describe())
    assert len(list((run.folder / "weight_maps").iterdir())) == len(run.record["data"]["training"])


def test_what_a_person_chooses_is_taken(cells, tmp_path):
    chosen = {"depth": 1, "tile": 60, "amplitude": 0.0, "sigma": 4.5, "learning_rate": 0.1}
    chosen |= {"affinities": False, "class_balance": True}
    schedule, run, messages = planned(cells, tmp_path / "run", max_minutes=1.0, **chosen)
    assert {name: run.record["options"][name] for name in chosen} == chosen
    assert (schedule.steps, schedule.max_minutes) == (None, 1.0)
    assert len(messages) == 2  # nothing is configured from the data


def test_the_held_out_images_are_not_used_to_configure(data, tmp_path):
    before = planned(data, tmp_path / "a", validation=("c3",), base_filters=2)[1]
    tifffile.imwrite(data / "labels" / "c3.tif", np.eye(96, dtype=np.uint16))
    after = planned(data, tmp_path / "b", validation=("c3",), base_filters=2)[1]
    assert after.record["data"]["fingerprint"] == before.record["data"]["fingerprint"]


def test_classes_are_balanced_only_where_asked_for(cells, tmp_path):
    means = []
    for balance in (True, False):
        folder = tmp_path / str(balance)
        planned(cells, folder, **TINY, steps=1, class_balance=balance, border_weight=0.0)
        maps = [tifffile.imread(path) for path in (folder / "weight_maps").iterdir()]
        means.append((np.mean(maps), len(np.unique(maps))))
    assert means[0] == (pytest.approx(1.0, rel=1e-5), 2)
    assert means[1] == (1.0, 1)


def test_a_run_goes_on_with_the_numbers_it_was_started_with(half, cells, monkeypatch):
    monkeypatch.setattr("keras_unet.training.train.Fingerprint", None)  # nothing is looked at anew
    run, messages = train(cells, half, resume=True)
    assert run.record["outcome"]["complete"]
    assert not any("--sigma" in line for line in messages)


def history(run):
    """The history but for its clock."""
    with (run.folder / "history.csv").open() as table:
        rows = list(csv.DictReader(table))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_one_seed_gives_one_training(cells, tmp_path):
    runs = [train(cells, tmp_path / name, steps=6, seed=5)[0] for name in "ab"]
    weights = [dict(np.load(run.folder / "checkpoint.npz")) for run in runs]
    assert history(runs[0]) == history(runs[1])
    for name in weights[0].keys() - {"progress"}:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


def test_ctrl_c_leaves_a_usable_run_that_can_be_gone_on_with(half, cells, monkeypatch):
    before = Run.load(half)
    assert not before.record["outcome"]["complete"]
    assert before.record["outcome"]["steps"] == 4
    assert (half / "best.keras").is_file()
    calls = []
    monkeypatch.setattr(targets, "weight_map", lambda *arguments, **_: calls.append(arguments))
    run, _ = train(cells, half, resume=True)
    assert calls == []  # the weight maps lie in the run
    assert run.record["outcome"]["complete"]
    assert run.record["outcome"]["steps"] == 8
    assert run.record["options"] == before.record["options"]


def test_a_complete_run_is_not_trained_again(trained, cells):
    before = contents(trained)
    run, messages = train(cells, trained, resume=True)
    assert messages == [f"{trained}: this run is complete; there is nothing to resume"]
    assert run == Run.load(trained)
    assert contents(trained) == before


def repaint(path):
    image = tifffile.imread(path)
    image[0, 0] += 1
    tifffile.imwrite(path, image)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: repaint(data / "images" / "c1.tif"), "changed: c1"),
        (lambda data: repaint(data / "labels" / "c3.tif"), "changed: c3"),
        (lambda data: (data / "images" / "c3.tif").unlink(), "missing: c3"),
        (
            lambda data: [
                (data / name / "c0.tif").rename(data / name / "new.tif")
                for name in ("images", "labels")
            ],
            "missing: c0; new: new",
        ),
    ],
    ids=["image", "labels", "missing", "renamed"],
)
def test_other_data_than_the_run_was_started_with_is_refused(half, data, edit, message):
    edit(data)
    before = contents(half)
    with pytest.raises(ValueError, match=rf"expected the images and labels.*\({message}\)"):
        train(data, half, resume=True)
    assert contents(half) == before


def test_data_that_has_moved_is_the_same(half, data):
    run, _ = train(data, half, resume=True)
    assert run.record["outcome"]["complete"]


def test_a_run_without_a_checkpoint_cannot_be_gone_on_with(half, cells):
    (half / "checkpoint.npz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"expected a run with checkpoint.npz.*without resum"
    ):
        train(cells, half, resume=True)


def test_what_is_no_run_cannot_be_gone_on_with(cells, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a run"):
        train(cells, tmp_path / "nowhere", resume=True)


def test_a_record_without_options_is_refused(half, cells):
    values = json.loads((half / "run.json").read_text())
    del values["record"]["options"]["sigma"]
    (half / "run.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"run\.json: expected the options.*'sigma'"):
        train(cells, half, resume=True)


@pytest.mark.parametrize("name", ["tile", "steps"])
def test_a_record_with_a_number_left_open_is_refused(half, cells, name):
    values = json.loads((half / "run.json").read_text())
    values["record"]["options"][name] = None
    (half / "run.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"lacks some of them \({name} must be given; it is None"):
        train(cells, half, resume=True)


def test_a_folder_with_a_run_is_refused(trained, cells):
    before = contents(trained)
    with pytest.raises(FileExistsError, match=r"Received one that holds a run;.*--resume"):
        train(cells, trained)
    assert contents(trained) == before


def test_a_folder_with_other_files_is_refused(cells):
    with pytest.raises(
        FileExistsError, match=r"empty folder for the run. Received one with images"
    ):
        train(cells, cells)


def test_a_run_that_failed_before_its_first_step_can_be_tried_again(cells, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no memory")

    with monkeypatch.context() as broken:
        broken.setattr("keras_unet.training.train.new_network", fail)
        with pytest.raises(ValueError, match="no memory"):
            train(cells, tmp_path / "run")
    run, _ = train(cells, tmp_path / "run")
    assert run.record["outcome"]["complete"]


def test_patience_needs_held_out_images(data, tmp_path):
    for name in ("c1", "c2", "c3"):
        for folder in ("images", "labels"):
            (data / folder / f"{name}.tif").unlink()
    with pytest.raises(ValueError, match=r"patience counts.*1 image in all, none of them held out"):
        train(data, tmp_path / "run", patience=2, validation=0.2)
    assert not (tmp_path / "run").exists()


def test_without_held_out_images_there_is_no_score_but_a_model(cells, tmp_path):
    run, messages = train(cells, tmp_path / "run", validation=0)
    assert run.record["outcome"]["best_score"] is None
    assert (run.folder / "best.keras").is_file()
    assert "held out for validation: none" in messages[2]


@pytest.mark.parametrize("validation", [("c3",), 0])
def test_the_instance_options_are_recorded_and_logged(cells, tmp_path, validation):
    run, messages = train(cells, tmp_path / "run", validation=validation)
    (line,) = [line for line in messages if line.startswith("cells: ")]
    assert line.startswith(run.instances.describe())
    assert ("chosen by 8 cells held out" in line) == bool(validation)
    assert run.instances.minimum_size > 0
    assert Run.load(run.folder).instances == run.instances


def test_training_that_is_out_of_patience_is_complete(cells, tmp_path):
    run, _ = train(cells, tmp_path / "run", steps=400, patience=1, learning_rate=1e-12)
    assert run.record["outcome"]["steps"] < 400
    assert run.record["outcome"]["complete"]


def test_a_collapse_is_said_at_the_first_validation(cells, tmp_path, monkeypatch):
    """A network whose bias drowns everything else predicts one class."""
    from keras_unet.training import train as job

    build = job.new_network

    def biased(run, seed):
        model = build(run, seed)
        model.get_layer("logits").bias.assign([1e3, 0.0])
        return model

    monkeypatch.setattr(job, "new_network", biased)
    with logged() as events:
        train_folder(
            cells,
            tmp_path / "run",
            TrainingOptions(**TINY, steps=20, learning_rate=1e-12),
            callbacks=[LambdaCallback(on_train_batch_end=lambda step, **_: events.append(step))],
        )
    warning = single_class_warning(np.array([0, 1], np.uint8), np.array([0, 0], np.uint8))
    assert warning is not None
    assert events.index(f"Warning: {warning}") < events.index(1)


def test_epochs_count_passes_over_the_training_pixels(cells, tmp_path):
    schedule, _, _ = planned(cells, tmp_path / "run", **TINY, epochs=2.5)
    assert schedule.steps == np.ceil(2.5 * 3 * 96 * 96 / 44**2)


@pytest.mark.parametrize("held_out", [("nobody",), ("c0", "c1", "c2", "c3")])
def test_held_out_images_must_exist_and_leave_some(cells, tmp_path, held_out):
    with pytest.raises(ValueError, match=r"validation must (name existing samples|leave samples)"):
        train(cells, tmp_path / "run", validation=held_out)
    assert not (tmp_path / "run").exists()


def test_tensorboard_shows_what_the_run_was_trained_with(trained):
    events = EventAccumulator(str(trained / "tensorboard"), {"tensors": 0})
    events.Reload()
    content = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    parsed = parse_session_start_info_plugin_data(content)
    assert parsed.group_name.endswith("/run")
    assert parsed.hparams["base_filters"].number_value == 4
    assert parsed.hparams["validation"].string_value == "c3"
    assert parsed.hparams["precision"].string_value == "float32"
    tags = events.Tags()["tensors"]
    assert {"loss", "score", "best_score", "validation"} <= set(tags)
    assert not any(tag.startswith("weights/") for tag in tags)


def test_histograms_are_logged_where_they_are_wanted(cells, tmp_path):
    options = ("--steps", "1", "--depth", "1", "--base-filters", "2", "--tile", "60")
    arguments = ["train", cells, "--run", tmp_path / "run", *options, "--histograms"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"tensors": 0})
    events.Reload()
    assert any(tag.startswith("weights/level0") for tag in events.Tags()["tensors"])
    assert Run.load(tmp_path / "run").record["options"]["histograms"]


def test_affinities_are_trained_saved_and_used(cells, tmp_path):
    run, _ = train(cells, tmp_path / "run", affinities=True, steps=20, base_filters=4)
    assert run.architecture.affinities
    segmenter = load(run.folder)
    image = tifffile.imread(cells / "images" / "c3.tif")
    pixels = run.normalization.apply(np.float32(image)[..., None])
    outputs = predict_outputs(segmenter.networks[0], pixels, run.architecture)
    assert outputs.shape == (96, 96, 2 + len(OFFSETS))
    segmenter = segmenter.with_instances(affinities=True)
    np.testing.assert_array_equal(segmenter.predict(image), separate_objects(outputs))
    again, _ = train(cells, tmp_path / "run", resume=True)
    assert again.record["outcome"] == run.record["outcome"]
    options = TrainingOptions(steps=1, validation=("c3",), depth=1, tile=60)
    further = train_folder(cells, tmp_path / "further", options, initial=run.folder)
    assert further.architecture == run.architecture


def test_labels_of_three_classes_have_no_affinities(data, tmp_path):
    for path in (data / "labels").iterdir():
        labels = tifffile.imread(path)
        tifffile.imwrite(path, np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8))
    run, _ = train(data, tmp_path / "run", affinities=True, kind="classes")
    assert run.architecture.classes == 3
    assert not run.architecture.affinities


@pytest.mark.parametrize("name", ["instances", "classes"])
def test_images_labelled_in_part_are_learned(data, tmp_path, name):
    for path in sorted((data / "labels").iterdir()):
        labels = read_planes(path)[0, ..., 0].astype(int)
        cells = np.where(np.isin(labels, np.unique(labels)[1:4]) & (labels > 0), labels + 1, 0)
        in_part = np.where(labels == 0, (np.indices(labels.shape)[0] % 8 < 2) * 1, cells)
        if name == "classes":
            in_part = np.minimum(in_part, 2)
        path.unlink()
        write_tiff(path.with_suffix(".tif"), in_part.astype(np.uint16), axes="YX")
    options = {"unlabelled": 0, "kind": name, "base_filters": 8, "learning_rate": 0.003}
    run, _ = train(data, tmp_path / "run", steps=120, **options)
    assert run.encoding == LabelEncoding(name, run.encoding.values, unlabelled=0)
    sample = read_samples(data, labels=name, unlabelled=0).samples[3]
    foreground = 1 - load(tmp_path / "run").predict(sample.image)[..., 0]
    cell, background = sample.classes > 0, (sample.classes == 0) & ~sample.ignored
    assert foreground[cell].mean() > foreground[background].mean() + 0.2
