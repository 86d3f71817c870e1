"""What a training writes: models, checkpoint, history, curves; each from a few values by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from keras_unet.backend import keras, tf
from keras_unet.files import leftovers
from keras_unet.runs import BEST
from keras_unet.training.checkpoint import CHECKPOINT, HISTORY, LAST, RunFiles
from keras_unet.training.schedule import Progress


def network(features: int = 2, seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((3,)), keras.layers.Dense(features), keras.layers.Dropout(0.5)]
    return keras.Sequential(layers)


def files_of(folder: Path, model: Any | None = None) -> RunFiles:
    model = model or network()
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    return RunFiles(folder, model, optimizer)


def shift(files: RunFiles) -> None:
    """Changes every number there is."""
    for variable in files.variables.values():
        variable.assign(variable + tf.ones_like(variable))


def numbers(files: RunFiles) -> list[NDArray[Any]]:
    return [np.array(variable) for variable in files.variables.values()]


def weights_in(path: Path) -> Any:
    return keras.saving.load_model(path).get_weights()


def validated(progress: Progress, step: int, score: float | None) -> Progress:
    return replace(progress, step=step).after_validation(score, step / 10, float(step))


def record(files: RunFiles, *scores: float | None, picture: Any = None) -> list[Any]:
    """Records validations, with a change of the weights before each; returns the weights."""
    progress, weights = Progress(), []
    for step, score in enumerate(scores, 1):
        shift(files)
        weights.append(files.model.get_weights())
        progress = validated(progress, step, score)
        files.record(progress, picture)
    return weights


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.3, 0.6, 0.5], 1),
        ([0.3, 0.3], 0),
        ([None], 0),
        ([None, None, None], 2),
        ([0.3, None], 0),
        ([None, 0.1, None], 1),
    ],
)
def test_best_is_renewed_at_a_higher_score_or_at_each_validation_without_one(
    tmp_path: Path, scores: list[float | None], kept: int
) -> None:
    weights = record(files_of(tmp_path), *scores)
    for one, other in zip(weights_in(tmp_path / BEST), weights[kept], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("score", "renewed"), [(0.5, False), (None, True)])
def test_the_last_model_is_the_best_where_none_has_a_score(
    tmp_path: Path, score: float | None, renewed: bool
) -> None:
    files = files_of(tmp_path)
    record(files, score)
    shift(files)
    files.save_last(validated(Progress(), 1, score))
    best, last, now = weights_in(tmp_path / BEST), weights_in(tmp_path / LAST), files.model
    np.testing.assert_array_equal(last[0], now.get_weights()[0])
    assert np.array_equal(best[0], last[0]) == renewed


def test_history_has_a_row_a_validation(tmp_path: Path) -> None:
    record(files_of(tmp_path), 0.5, None)
    with (tmp_path / HISTORY).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["step"], row["score"]) for row in rows] == [("1", "0.5"), ("2", "")]


def test_a_checkpoint_brings_back_every_number_and_the_progress(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    shift(files)
    progress = validated(Progress(loss=inf, skipped=3), 4, None)
    files.save_checkpoint(progress)
    other = files_of(tmp_path, network(seed=7))
    assert other.restore() == progress
    for one, restored in zip(numbers(files), numbers(other), strict=True):
        np.testing.assert_array_equal(one, restored)
    assert len(numbers(files)) == 2 + 1 + 4  # weights, dropout's seed; rate, steps, two momenta


def test_no_file_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path)
    record(files, 0.5)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}

    def fail(stream: Any, **_: Any) -> None:
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        files.save_checkpoint(Progress())
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before


@given(room=st.integers(0, 40_000))
@settings(max_examples=15, deadline=None)
def test_a_disk_that_becomes_full_leaves_the_files_before(
    full_disk: Any, tmp_path_factory: pytest.TempPathFactory, room: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    files = files_of(folder)
    progress = validated(Progress(), 1, 0.5)
    files.record(progress, None)
    before = [numbers(files), weights_in(folder / BEST)]
    shift(files)
    better = validated(progress, 2, 0.6)
    with full_disk(folder, room=room):
        try:
            files.record(better, None)
        except OSError as error:
            message = str(error)
        else:
            return
    assert message.startswith(f"{folder}/")
    assert "The system said: No space left on device." in message
    assert not list(leftovers(folder))
    after = weights_in(folder / BEST)
    assert any(np.array_equal(after[0], one[0]) for one in (before[1], files.model.get_weights()))
    other = files_of(folder, network(seed=7))
    assert other.restore() == progress
    for one, restored in zip(before[0], numbers(other), strict=True):
        np.testing.assert_array_equal(one, restored)
    files.record(better, None)
    assert files_of(folder).restore() == better


def test_a_validation_is_logged_last_lest_a_resumed_run_logs_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(tmp_path)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.curves, "add", die)
    progress = validated(Progress(), 1, 0.5)
    with pytest.raises(KeyboardInterrupt):
        files.record(progress, None)
    assert files_of(tmp_path).restore() == progress


def test_nothing_to_restore(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.npz must exist.*start it anew"):
        files_of(tmp_path).restore()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive"])
def test_a_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.npz: expected the checkpoint .* anew"):
        files_of(tmp_path).restore()


def test_a_checkpoint_cut_short(tmp_path: Path) -> None:
    files_of(tmp_path).save_checkpoint(Progress())
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.npz: expected the checkpoint"):
        files_of(tmp_path).restore()


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    files_of(tmp_path).save_checkpoint(Progress())
    with pytest.raises(ValueError, match="the weights have other shapes"):
        files_of(tmp_path, network(features=3)).restore()
