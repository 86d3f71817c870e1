"""What TensorBoard is given, read back by its own reader: curves, pictures, histograms, hparams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from keras_unet.backend import keras, tf
from keras_unet.training.checkpoint import PLAIN, Curves, Logged
from keras_unet.training.schedule import Progress

VALUES = {"depth": 4, "learning_rate": 0.01, "class_balance": True, "padding": "valid"}


def network() -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])


def curves_of(run: Path, logged: Logged = PLAIN) -> Curves:
    return Curves(run / "tensorboard", network(), logged)


def add(curves: Curves, *scores: float | None, picture: Any = None) -> None:
    """Logs validations, ten steps apart."""
    progress = Progress()
    for number, score in enumerate(scores, 1):
        progress = replace(progress, step=10 * number, seconds=2.5 * number)
        progress = progress.after_step(0.5 / number, True, 0.1, progress.seconds)
        progress = replace(progress, step=10 * number)
        progress = progress.after_validation(score, number / 10, progress.seconds)
        curves.add(progress, picture)


def read(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), {"tensors": 0})
    events.Reload()
    return events


def curve(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(one.step, float(tf.make_ndarray(one.tensor_proto))) for one in events.Tensors(tag)]


def hparams(events: EventAccumulator, tag: str) -> Any:
    return events.SummaryMetadata(tag).plugin_data.content


def test_curves_have_a_point_a_validation(tmp_path: Path) -> None:
    add(curves_of(tmp_path), 0.25, 0.125, None)
    events = read(tmp_path)
    numbers = {"loss", "score", "best_score", "learning_rate", "skipped_updates", "seconds"}
    assert set(events.Tags()["tensors"]) == numbers
    assert curve(events, "score") == [(10, 0.25), (20, 0.125)]
    assert curve(events, "best_score") == [(10, 0.25), (20, 0.25), (30, 0.25)]
    assert curve(events, "loss") == [(10, 0.5), (20, 0.25), (30, pytest.approx(1 / 6))]
    assert curve(events, "seconds") == [(10, 2.5), (20, 5.0), (30, 7.5)]


def test_a_picture_is_kept_pixel_by_pixel(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    add(curves_of(tmp_path), 0.25, 0.5, picture=picture)
    shown = read(tmp_path).Tensors("validation")
    assert [one.step for one in shown] == [10, 20]
    width, height, png = tf.make_ndarray(shown[-1].tensor_proto)
    assert (int(width), int(height)) == (7, 5)
    np.testing.assert_array_equal(tf.io.decode_png(png), picture)


def test_histograms_of_all_weights_are_logged_where_they_are_wanted(tmp_path: Path) -> None:
    curves = curves_of(tmp_path, Logged(histograms=True))
    kernel, bias = curves.model.trainable_variables
    kernel.assign([[-1.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    add(curves, 0.5, 0.5)
    events = read(tmp_path)
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("weights/")]
    assert tags == [f"weights/{kernel.path}", f"weights/{bias.path}"]
    assert [one.step for one in events.Tensors(tags[0])] == [10, 20]
    buckets = tf.make_ndarray(events.Tensors(tags[0])[0].tensor_proto)  # left, right, count
    assert (buckets[0, 0], buckets[-1, 1], buckets[:, 2].sum()) == (-1, 3, 6)
    assert buckets[0, 2] == buckets[-1, 2] == 1


def test_hyperparameters_are_those_of_the_run_under_the_name_of_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    curves = curves_of(run, Logged(hyperparameters=VALUES))
    curves.begin()
    events = read(run)
    tag = metadata.SESSION_START_INFO_TAG
    begun = metadata.parse_session_start_info_plugin_data(hparams(events, tag))
    assert events.Tags()["tensors"] == [tag]
    assert begun.group_name == "runs/first"
    assert begun.hparams["depth"].number_value == 4
    assert begun.hparams["learning_rate"].number_value == 0.01
    assert begun.hparams["class_balance"].bool_value is True
    assert begun.hparams["padding"].string_value == "valid"


def test_what_tensorflow_says_of_a_full_disk_is_no_shortage_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"{tmp_path}/events.out; No space left on device\n\tFailed to flush 5 events"

    def fail() -> None:
        raise tf.errors.ResourceExhaustedError(None, None, words)

    curves = curves_of(tmp_path)
    monkeypatch.setattr(curves.writer, "flush", fail)
    with pytest.raises(
        OSError,
        match=r"tensorboard: expected .* The system said: No space left on device\. Res",
    ):
        add(curves, 0.5)
