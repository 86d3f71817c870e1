"""Training that starts from a model: a run, a fold, a .keras file, a segmenter."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from logs import logged

from keras_unet.architecture import Architecture
from keras_unet.backend import keras
from keras_unet.cli import main
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import write_tiff
from keras_unet.data.normalization import Normalization
from keras_unet.data.samples import read_samples
from keras_unet.data.synthetic import draw_cells
from keras_unet.instances.label import InstanceOptions
from keras_unet.instances.selection import default_options
from keras_unet.model import build_unet
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_keras_file
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import Ensemble, Run, describe_score
from keras_unet.training.dataset import TrainingData, tile_dataset
from keras_unet.training.folds import cross_validate, train_folds
from keras_unet.training.initial import Initial, default_instances, starts_trained
from keras_unet.training.options import TrainingOptions
from keras_unet.training.resume import options_of
from keras_unet.training.train import train, train_folder
from keras_unet.training.validation import Validator

TINY = {"steps": 1, "learning_rate": 1e-9, "validation": 0.25}


def weights(model):
    return {one.path: one.numpy() for one in model.weights}


def check_same(model, other, *, but=()):
    found, expected = weights(model), weights(other)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        if any(layer in name for layer in but):
            assert values.shape != expected[name].shape
        else:
            np.testing.assert_allclose(values, expected[name], atol=1e-6)


@pytest.fixture(scope="module")
def keras_file(trained, tmp_path_factory):
    return shutil.copy(trained / "best.keras", tmp_path_factory.mktemp("file") / "cells.keras")


@pytest.mark.parametrize("source", ["run", "text", "file", "segmenter", "fold"])
def test_the_weights_are_those_of_the_model(trained, keras_file, cells, tmp_path, source):
    ensemble = Ensemble(tmp_path / "ensemble", (("c0",), ("c1",)), {}, None)
    shutil.copytree(trained, ensemble.folds[0])
    ensemble.save()
    sources = {"run": trained, "text": str(trained), "file": keras_file, "segmenter": load(trained)}
    initial = sources.get(source, ensemble.folds[0])
    with logged() as said:
        run = train_folder(cells, tmp_path / "run", TrainingOptions(**TINY), initial=initial)
    check_same(load(tmp_path / "run").model, load(trained).model)
    name = initial if source != "segmenter" else trained.name
    assert f"starting from the weights of {name}" in said
    assert run.architecture == Run.load(trained).architecture
    recorded = Run.load(tmp_path / "run").record["initial"]
    assert recorded["sha256"] == Initial.of(trained).to_dict()["sha256"]
    assert recorded["path"] == (None if source == "segmenter" else str(initial))


def test_a_training_goes_on_from_where_the_other_ended(trained, cells, tmp_path):
    options = TrainingOptions(steps=3)
    train_folder(cells, tmp_path / "run", options, initial=trained)
    before, after = (
        weights(load(trained).model),
        weights(load_keras_file(tmp_path / "run" / "last.keras")),
    )
    assert any(np.abs(before[one] - after[one]).max() > 0 for one in before)


def with_three_classes(cells, folder):
    """Images whose labels are classes of three values."""
    shutil.copytree(cells / "images", folder / "images")
    (folder / "labels").mkdir()
    for sample in read_samples(cells).samples:
        values = np.where(sample.instances % 2, 2, 1) * (sample.instances > 0)
        path = folder / "labels" / f"{sample.name}.tif"
        write_tiff(path, values.astype(np.uint8), axes="YX", is_data=True)
    return folder


def test_the_last_layer_is_drawn_anew_for_other_classes(trained, cells, tmp_path):
    data = with_three_classes(cells, tmp_path / "data")
    with logged() as said:
        run = train_folder(
            data, tmp_path / "run", TrainingOptions(kind="classes", **TINY), initial=trained
        )
    assert run.architecture.classes == 3
    check_same(load(tmp_path / "run").model, load(trained).model, but=["logits"])
    (line,) = [line for line in said if line.startswith("starting from")]
    assert line.endswith(
        "; the last layer is initialized at random, for 3 classes in place of 2 classes"
    )


NAMED = LabelEncoding("instances", (0, 1, 2), class_names=("long", "round"))


@pytest.mark.parametrize(
    ("initial", "encoding", "is_kept"),
    [
        (NAMED, NAMED, True),
        (NAMED, replace(NAMED, values=(0, 3, 4)), True),
        (NAMED, replace(NAMED, class_names=("long", "odd")), False),
        (NAMED, LabelEncoding("classes", (0, 1, 2)), False),
        (LabelEncoding("classes", (0, 1, 2)), NAMED, False),
        (LabelEncoding("classes", (0, 1, 2)), LabelEncoding("classes", (0, 5, 9)), True),
        (
            LabelEncoding("instances", (0, 1)),
            replace(NAMED, values=(0, 1), class_names=("a",)),
            True,
        ),
        (None, NAMED, True),  # a file of weights, of unknown classes
    ],
)
def test_the_last_layer_is_kept_for_the_same_names_alone(tmp_path, initial, encoding, is_kept):
    number = encoding.classes
    earlier, model = (build_unet((None, None, 1), number, depth=1, base_filters=2) for _ in "ab")
    earlier.save(tmp_path / "a.keras")
    source = (
        tmp_path / "a.keras" if initial is None else Segmenter.from_model(earlier, labels=initial)
    )
    start = Initial.of(source)
    with logged() as said:
        start.copy_weights(model, encoding)
    kernels = [network.get_layer("logits").get_weights()[0] for network in (earlier, model)]
    assert np.array_equal(*kernels) == is_kept
    assert any("initialized at random" in line for line in said) != is_kept
    info = Segmenter.from_model(model, labels=encoding).info
    record = {"initial": start.to_dict()}
    run = Run(**{**vars(info), "record": record}, folder=tmp_path / "run")
    assert starts_trained(run) == is_kept


def test_other_channels_are_refused(trained):
    pairs = [draw_cells(seed, size=(80, 80), cells=5) for seed in range(2)]
    images = [np.stack([image, image / 2, image * 0], axis=-1) for image, _ in pairs]
    with pytest.raises(
        ValueError, match=r"images of 3 channels.*Received one for 1; .* channels by --channels"
    ):
        train(images, [labels for _, labels in pairs], initial=trained, **TINY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 2}, r"depth must be that of .*, 1. Received: depth=2; leave it out"),
        ({"base_filters": 32}, "base_filters must be that of"),
        ({"padding": "same"}, "padding must be that of"),
    ],
)
def test_options_that_contradict_the_model_are_refused(trained, options, message):
    with pytest.raises(ValueError, match=message):
        Initial.of(trained).options(TrainingOptions(**options))


def test_normalization_and_network_are_those_of_the_model(trained):
    options = Initial.of(trained).options(TrainingOptions())
    architecture = Run.load(trained).architecture
    assert (options.depth, options.base_filters) == (architecture.depth, architecture.base_filters)
    assert options.normalization == Run.load(trained).normalization.mode


def test_default_values_that_contradict_the_model_are_refused_if_given(trained):
    initial, options = Initial.of(trained), TrainingOptions(base_filters=16)
    assert initial.options(options).base_filters == 4
    with pytest.raises(ValueError, match=r"base_filters must be .* 4. Received: base_filters=16"):
        initial.options(options, given=["base_filters"])
    with pytest.raises(ValueError, match=r"normalization must be .* image. Received: .*=dataset"):
        initial.options(TrainingOptions(normalization="dataset"))


@pytest.mark.parametrize("balanced", [False, True])
def test_classes_are_balanced_as_in_the_training_of_the_model(trained, tmp_path, balanced):
    folder = shutil.copytree(trained, tmp_path / "model")
    run = Run.load(folder)
    recorded = run.record["options"] | {"class_balance": balanced}
    dataclasses.replace(run, record={**run.record, "options": recorded}).save()
    initial = Initial.of(folder)
    assert initial.options(TrainingOptions()).class_balance is balanced
    assert (
        initial.options(TrainingOptions(class_balance=not balanced)).class_balance is not balanced
    )
    unknown = Initial.of(Segmenter.from_model(load(folder).model))
    assert unknown.options(TrainingOptions()).class_balance is None


def test_a_training_from_a_model_is_shorter_and_slower(trained, cells, tmp_path):
    rates = {}
    for name, initial in (("scratch", None), ("model", trained)):
        size = {} if initial else {"depth": 1, "base_filters": 4}
        options = TrainingOptions(max_minutes=0.01, **size)
        run = train_folder(cells, tmp_path / name, options, initial=initial)
        rates[name] = run.record["options"]["learning_rate"]
    assert rates == {"scratch": pytest.approx(1e-3), "model": pytest.approx(3e-4)}


def test_statistics_of_the_grey_values_are_those_of_the_model(trained, cells, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "model")
    statistics = Normalization("dataset", mean=(7.0,), std=(3.0,))
    dataclasses.replace(Run.load(folder), normalization=statistics).save()
    run = train_folder(cells, tmp_path / "run", TrainingOptions(**TINY), initial=folder)
    assert run.normalization == statistics


def squares(*sides):
    """Cells of these heights and widths, side by side."""
    labels = np.zeros((64, 64 * len(sides)), np.int32)
    for number, side in enumerate(sides):
        labels[:side, 64 * number : 64 * number + side] = number + 1
    return labels


@pytest.mark.parametrize(
    ("of_model", "references", "expected"),
    [
        (46, [squares(20, 20)], 100),  # a quarter of a cell
        (150, [squares(20, 20)], 150),
        (400, [squares(20, 20)], 200),  # a half of a cell
        (46, [squares(8), squares(8, 8)], 32),
        (46, [], 46),
        (46, [squares()], 46),
    ],
)
def test_instance_options_are_those_of_the_model(of_model, references, expected):
    options = InstanceOptions(
        threshold=0.4, markers="probability", minimum_size=of_model, affinities=True
    )
    initial = {"classes": 2, "kind": "instances", "instances": options.to_dict()}
    run = Run(
        folder=Path(),
        architecture=Architecture(),
        encoding=LabelEncoding("instances", (0, 1)),
        normalization=Normalization("image"),
        precision="float32",
        record={},
    )
    alone = default_instances(run, references, affinities=False)
    assert alone == default_options("instances", references)
    run = replace(run, record={"initial": initial})
    found = default_instances(run, references, affinities=False)
    assert found == replace(options, minimum_size=expected, affinities=False)


class TestStart:
    """The score before the first step, and what is kept."""

    def test_the_score_of_the_model_comes_first(self, trained, cells, tmp_path):
        options = TrainingOptions(**TINY, precision="float32")
        run = train_folder(cells, tmp_path / "run", options, initial=trained)
        rows = (run.folder / "history.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["step", "0", "1"]
        start = run.record["initial"]["score"]
        assert run.record["outcome"]["start_score"] == start
        assert f"; {start:.4f} before the training" in describe_score(run.record["outcome"])
        data = TrainingData.of(cells, None, options_of(run))
        as_trained = dataclasses.replace(run, instances=Run.load(trained).instances)
        expected = Validator(as_trained, data.targets(data.split_of(run).validation))
        assert start == expected.score(expected.predictions(load(trained).model))

    def test_a_last_layer_at_random_has_no_score_to_keep(self, trained, cells, tmp_path):
        data, options = with_three_classes(cells, tmp_path / "data"), TrainingOptions(**TINY)
        run = train_folder(data, tmp_path / "run", options, initial=trained)
        assert run.record["outcome"]["start_score"] is None
        assert not (run.folder / "initial.keras").exists()

    def test_the_report_lists_the_ancestors(self, trained, cells, tmp_path):
        ancestor = shutil.copytree(trained, tmp_path / "first")
        run = Run.load(ancestor)
        dataclasses.replace(run, record={**run.record, "license": "CC0-1.0"}).save()
        options = TrainingOptions(**TINY)
        train_folder(cells, tmp_path / "second", options, initial=ancestor)
        third = train_folder(cells, tmp_path / "third", options, initial=tmp_path / "second")
        second = third.record["initial"]
        assert (second["license"], second["initial"]["license"]) == (None, "CC0-1.0")
        text = re.sub(r"<[^>]*>", "", (third.folder / "report.html").read_text())
        names = rf"{tmp_path}/second \(SHA-256 \w{{12}}\), which started from {tmp_path}/first"
        assert re.search(rf"{names} \(SHA-256 \w{{12}}, CC0-1.0\)", text)


def test_an_ensemble_names_its_folds(trained, tmp_path):
    Ensemble(tmp_path, (("c0",), ("c1",)), {}, Run.load(trained).instances).save()
    with pytest.raises(ValueError, match=r"Received an ensemble; take one of its folds, .*fold-1"):
        Initial.of(tmp_path)


def test_a_tflite_file_is_nothing_to_start_from(lite):
    with pytest.raises(ValueError, match="expected a segmenter of one Keras model"):
        Initial.of(lite)


class TestKerasFile:
    @pytest.mark.parametrize(
        "numbers",
        [
            {"depth": 1, "base_filters": 4},
            {"depth": 2, "base_filters": 4, "padding": "same", "norm_layer": "batch"},
            {"depth": 1, "base_filters": 8, "norm_layer": "group", "dropout": 0.0},
        ],
    )
    def test_its_network_is_built_and_its_weights_are_read(self, tmp_path, numbers):
        keras.utils.set_random_seed(1)
        model = build_unet((None, None, 3), 5, **numbers)
        model.save(tmp_path / "a.keras")
        check_same(load_keras_file(tmp_path / "a.keras"), model)

    def test_another_network_is_refused(self, tmp_path):
        layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)]
        keras.Sequential(layers).save(tmp_path / "a.keras")
        with pytest.raises(ValueError, match=r"expected a .keras file of a network of build_unet"):
            load_keras_file(tmp_path / "a.keras")

    def test_what_is_none_is_refused(self, tmp_path):
        (tmp_path / "a.keras").write_bytes(b"no model")
        with pytest.raises(ValueError, match=r"expected a .keras file of"):
            Initial.of(tmp_path / "a.keras")
        with pytest.raises(FileNotFoundError, match="no such file"):
            Initial.of(tmp_path / "b.keras")


class TestRepeated:
    def test_a_repetition_starts_from_the_same_weights(self, trained, cells, tmp_path):
        options = TrainingOptions(**TINY)
        train_folder(cells, tmp_path / "first", options, initial=trained)
        train_folder(cells, tmp_path / "second", repeat=tmp_path / "first")
        check_same(load(tmp_path / "second").model, load(tmp_path / "first").model)
        first, second = (Run.load(tmp_path / name).record for name in ("first", "second"))
        assert first["initial"] == second["initial"]

    def test_weights_that_have_changed_are_refused(self, trained, tmp_path):
        folder = shutil.copytree(trained, tmp_path / "run")
        record = Initial.of(folder).to_dict()
        assert Initial.of_record(record).path == folder
        build_unet((None, None, 1), depth=1, base_filters=4).save(folder / "best.keras")
        with pytest.raises(ValueError, match="expected the weights that the training started from"):
            Initial.of_record(record)

    def test_a_model_in_memory_cannot_be_found_again(self, trained):
        record = Initial.of(load(trained)).to_dict()
        with pytest.raises(ValueError, match="started from a model in memory"):
            Initial.of_record(record)


def test_folds_start_from_the_same_model(trained, cells, tmp_path):
    runs = train_folds(cells, tmp_path / "new", TrainingOptions(**TINY), 2, initial=trained)
    for run in runs:
        check_same(load(run.folder).model, load(trained).model)
    assert Ensemble.load(tmp_path / "new").initial == Initial.of(trained).to_dict()


@pytest.fixture(scope="module")
def drawn():
    pairs = [draw_cells(seed, size=(80, 70 + seed), cells=6) for seed in range(4)]
    return [image for image, _ in pairs], [labels for _, labels in pairs]


def stop(*_, **__):
    raise KeyboardInterrupt


class TestArrays:
    def test_a_training_keeps_nothing_on_disk_unless_asked(self, drawn, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        segmenter = train(*drawn, steps=2, depth=1, base_filters=4)
        assert list(tmp_path.iterdir()) == []
        assert segmenter.segment(drawn[0][0]).shape == drawn[0][0].shape
        assert segmenter.info.record["outcome"]["steps"] == 2
        assert segmenter.info.record["data"]["folder"] == "(arrays)"
        saved = segmenter.save(tmp_path / "run")
        np.testing.assert_array_equal(
            load(saved).predict(drawn[0][0]), segmenter.predict(drawn[0][0])
        )

    def test_arrays_train_as_their_files_do(self, cells, tmp_path):
        samples = read_samples(cells).samples
        arrays = [one.image for one in samples], [one.instances for one in samples]
        options = TrainingOptions(steps=2, depth=1, base_filters=4, validation=0)
        ours = train(*arrays, run=tmp_path / "arrays", options=options)
        theirs = train(str(cells), run=str(tmp_path / "files"), options=options)
        check_same(ours.model, theirs.model)
        report = (tmp_path / "arrays" / "report.html").read_text()
        assert "keras_unet.train(images," in report
        assert "keras-unet train (arrays)" not in re.sub(r"<[^>]*>", "", report)

    def test_a_function_varies_the_tiles(self, drawn):
        seen = []

        def mirror(image, labels):
            seen.append((image.shape, labels.dtype))
            return image[::-1], labels[::-1]

        segmenter = train(*drawn, steps=2, depth=1, base_filters=4, augmentation=mirror)
        assert len(seen) >= 2
        assert segmenter.info.record["augmentation"] == "function mirror"

    def test_plain_tiles_are_recorded_and_asked_for_again(self, drawn, tmp_path):
        interrupt = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        options = TrainingOptions(steps=4, depth=1, base_filters=4)
        how = {"run": tmp_path / "run", "augmentation": None}
        train(*drawn, options=options, callbacks=[interrupt], **how)
        with pytest.raises(ValueError, match=r"must be the one .* None. Received: options"):
            train(*drawn, run=tmp_path / "run", resume=True)
        assert train(*drawn, resume=True, **how).info.record["outcome"]["complete"]

    def test_arrays_are_read_again_as_the_run_recorded(self, drawn, tmp_path):
        """The value to ignore is among the options of the run, which resuming does not repeat."""
        images, labels = drawn
        ignored = [np.where(one == 1, 99, one) for one in labels]
        interrupt = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        options = TrainingOptions(steps=4, depth=1, base_filters=4, ignore=99)
        run = tmp_path / "run"
        train(images, ignored, run=run, options=options, callbacks=[interrupt])
        resumed = train(images, ignored, run=run, resume=True)
        assert resumed.info.record["outcome"]["complete"]
        assert resumed.info.encoding.ignore == 99

    @pytest.mark.parametrize(
        "arguments",
        [{"steps": 9}, {"options": TrainingOptions()}, {"initial": "model"}, {"run": None}],
        ids=str,
    )
    def test_resuming_takes_nothing_but_the_run(self, drawn, tmp_path, arguments):
        with pytest.raises(ValueError, match="resume continues the training in the folder run"):
            train(*drawn, **{"run": tmp_path, "resume": True, **arguments})

    def test_a_repetition_varies_its_tiles_alike(self, cells, tmp_path):
        options = TrainingOptions(steps=1, depth=1, base_filters=4)
        train_folder(cells, tmp_path / "plain", options, augmentation=None)
        with pytest.raises(ValueError, match=r"plain was started with, None. Received: options"):
            train_folder(cells, tmp_path / "new", repeat=tmp_path / "plain")
        assert not (tmp_path / "new").exists()

    def test_a_data_set_of_ones_own_trains_a_model(self, drawn):
        keras.utils.set_random_seed(0)
        initial = Segmenter.from_model(build_unet((None, None, 1), depth=1, base_filters=4))
        architecture = initial.info.architecture
        tiles = {"architecture": architecture, "tile_size": 60}
        losses = []
        for form in ("channel", "sample_weight"):
            dataset = tile_dataset(*drawn, weights=form, **tiles)
            trained = train(dataset, initial=initial, steps=3)
            losses.append(weights(trained.model))
            assert trained.info.record["outcome"]["steps"] == 3
        for name, values in losses[0].items():
            np.testing.assert_allclose(values, losses[1][name], atol=1e-6)
        finite = tile_dataset(*drawn, **tiles).take(2)
        repeated = train(finite, initial=trained, steps=3)
        assert repeated.info.record["outcome"]["steps"] == 3
        rates = [one.info.record["options"]["learning_rate"] for one in (trained, repeated)]
        assert rates == [pytest.approx(1e-3), pytest.approx(3e-4)]

    @pytest.mark.parametrize("arguments", [{"steps": 2}, {"initial": "model"}])
    def test_a_data_set_needs_a_model_and_a_length(self, drawn, arguments):
        with pytest.raises(ValueError, match=r"a tf.data.Dataset needs initial, .* and a length"):
            train(tile_dataset(*drawn), **arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"labels": []}, "must be left out for a tf.data.Dataset"),
            ({"augmentation": None}, "must be left out for a tf.data.Dataset"),
            ({"depth": 3}, "depth must be that of model"),
        ],
    )
    def test_what_a_data_set_decides_is_not_given(self, drawn, arguments, message):
        initial = Segmenter.from_model(build_unet((None, None, 1), depth=1, base_filters=4))
        dataset = tile_dataset(*drawn, architecture=initial.info.architecture, tile_size=60)
        with pytest.raises(ValueError, match=message):
            train(dataset, initial=initial, steps=1, **arguments)

    def test_folds_of_arrays_predict_together(self, drawn):
        segmenter = cross_validate(*drawn, folds=2, steps=1, depth=1, base_filters=4)
        assert len(segmenter.members) == 2
        assert segmenter.segment(drawn[0][0]).shape == drawn[0][0].shape

    @pytest.mark.parametrize("function", [train, cross_validate])
    def test_options_are_given_in_one_way(self, drawn, function):
        with pytest.raises(ValueError, match="options must be None if they are given by name"):
            function(*drawn, options=TrainingOptions(), steps=2)
        with pytest.raises(TypeError, match="stride"):
            function(*drawn, stride=2)

    @pytest.mark.parametrize("function", [train, cross_validate])
    def test_every_option_can_be_given_by_name(self, function):
        names = {field.name for field in dataclasses.fields(TrainingOptions)}
        assert not names & inspect.signature(function).parameters.keys()

    def test_the_kind_of_labels_is_an_option(self, drawn):
        images, labels = drawn[0], [(cells > 0).astype(np.uint8) for cells in drawn[1]]
        for kind in ("classes", "instances"):
            trained = train(images, labels, kind=kind, steps=1, depth=1, base_filters=4)
            assert trained.info.encoding.kind == kind

    def test_labels_belong_to_arrays(self, drawn, cells):
        with pytest.raises(ValueError, match="labels must be None where images is a folder"):
            train(str(cells), drawn[1], steps=1)
        with pytest.raises(ValueError, match="labels must be label images, one for each image"):
            train(drawn[0], steps=1)


def test_the_command_starts_from_a_run(trained, cells, tmp_path):
    words = ["train", str(cells), "--run", str(tmp_path / "run"), "--steps", "1"]
    result = CliRunner().invoke(main, [*words, "--from", str(trained)])
    assert result.exit_code == 0, result.output
    assert f"starting from the weights of {trained}\n" in result.output
    refused = CliRunner().invoke(main, [*words, "--from", str(trained), "--resume"])
    assert refused.exit_code == 2
    assert "Received also --steps, --from" in refused.output
    contradicting = CliRunner().invoke(
        main, [*words[:3], str(tmp_path / "other"), "--from", str(trained), "--depth", "3"]
    )
    assert contradicting.exit_code == 2
    assert "depth must be that of" in contradicting.output
    assert not (tmp_path / "other").exists()
