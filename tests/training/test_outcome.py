"""Which weights a run keeps, and the score that it states."""

import json

import keras
import numpy as np
import pytest
import tifffile
from logs import logged

from keras_unet.metrics import matching, seg
from keras_unet.prediction.load import load
from keras_unet.runs import describe_score
from keras_unet.training.options import TrainingOptions
from keras_unet.training.train import train_folder
from keras_unet.training.validation import Validator

TINY = {"depth": 1, "tile": 60, "precision": "float32"}


def train(data, folder, resume=False, **options):
    """Trains a tiny network, or goes on; returns the run and the messages logged."""
    chosen = None if resume else TrainingOptions(**TINY | options)
    with logged() as messages:
        run = train_folder(data, folder, chosen, resume=resume)
    return run, messages


def test_the_score_of_a_run_is_that_of_its_predictions(cells, trained):
    segmenter = load(trained)
    image, truth = (tifffile.imread(cells / part / "c3.tif") for part in ("images", "labels"))
    found = segmenter.segment(image)
    assert segmenter.info.record["outcome"]["score"] == pytest.approx(
        (seg([truth], [found]) + matching([truth], [found], [0.5])[0].ap) / 2
    )


FINAL = {"final_share": 0.5, "validation": ("c3",), "steps": 12, "base_filters": 4}


def test_the_last_share_trains_on_all_images(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(Validator, "score", lambda *_: 0.5)  # so that the last are not worse
    run, messages = train(cells, tmp_path / "run", **FINAL)
    assert messages[-1] == (
        "the last weights, trained on all images, are used; validated.keras holds those that were "
        "validated before"
    )
    weights = {path.stem: network_in(path) for path in run.folder.glob("*.keras")}
    assert_same(weights["best"], weights["last"])
    assert not np.array_equal(weights["best"][0], weights["validated"][0])
    alone, _ = train(cells, tmp_path / "alone", **FINAL | {"final_share": 0.0})
    assert not np.array_equal(network_in(alone.folder / "last.keras")[0], weights["last"][0])
    rows = (run.folder / "history.csv").read_text().splitlines()[1:]
    assert [row.split(",")[4] == "" for row in rows] == [int(row.split(",")[0]) > 6 for row in rows]

    record = json.loads((run.folder / "run.json").read_text())  # as if killed at the very end
    record["record"]["outcome"]["complete"] = False
    (run.folder / "run.json").write_text(json.dumps(record))
    seen = []
    monkeypatch.setattr(Validator, "select_options", lambda _, model: seen.append(model))
    again, _ = train(cells, run.folder, resume=True)
    assert_same(seen[0].get_weights(), weights["validated"])
    assert_same(network_in(again.folder / "best.keras"), weights["best"])


def test_last_weights_that_are_worse_are_not_used(cells, tmp_path, monkeypatch):
    scores = iter([0.5] * 7 + [0.4])  # six validations, the run's score, the last
    monkeypatch.setattr(Validator, "score", lambda *_: next(scores))
    run, messages = train(cells, tmp_path / "run", **FINAL)
    assert list(scores) == []
    assert "the last weights are not used: although they were trained on all" in messages[-1]
    assert run.record["outcome"]["score"] == 0.5
    weights = {path.stem: network_in(path) for path in run.folder.glob("*.keras")}
    assert weights.keys() == {"best", "last"}
    assert not np.array_equal(weights["best"][0], weights["last"][0])


def network_in(path):
    return keras.saving.load_model(path).get_weights()


def assert_close(model, other):
    for one, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-6)


def stop(*_, **__):
    raise KeyboardInterrupt


def assert_same(weights, others):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_worse_than_the_model_is_not_kept(trained, cells, tmp_path):
    options = TrainingOptions(steps=4, learning_rate=30.0, validation=0.25)
    run = train_folder(cells, tmp_path / "run", options, initial=trained)
    assert_close(load(run.folder).model, load(trained).model)
    outcome = run.record["outcome"]
    assert outcome["score"] >= outcome["start_score"] > 0
    assert outcome["weights"] == "initial"
    assert "before the training, whose weights are kept" in describe_score(outcome)
    assert "whose weights are kept" in (run.folder / "report.html").read_text()


def test_a_resumed_training_goes_on_from_its_best_weights(trained, cells, tmp_path):
    interrupt = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    options = TrainingOptions(steps=3, learning_rate=30.0, validation=0.25)
    how = {"initial": trained, "callbacks": [interrupt]}
    run = train_folder(cells, tmp_path / "run", options, **how)
    assert not run.record["outcome"]["complete"]
    assert_close(load(run.folder).model, load(trained).model)
    resumed = train_folder(cells, tmp_path / "run", resume=True)
    assert resumed.record["outcome"]["complete"]
    assert resumed.record["outcome"]["start_score"] == run.record["outcome"]["start_score"]
    assert_close(load(run.folder).model, load(trained).model)
