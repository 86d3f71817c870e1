"""The training loop: schedule, refused updates, interruption and resumption."""

from __future__ import annotations

import csv
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from logs import logged
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

from keras_unet.backend import keras, precision_policy, tf
from keras_unet.console import Display, Task, use_display
from keras_unet.losses import WeightedCrossEntropy
from keras_unet.model import build_unet
from keras_unet.runs import BEST
from keras_unet.training import loop as training
from keras_unet.training.checkpoint import CHECKPOINT, CURVES, HISTORY, LAST, Logged, RunFiles
from keras_unet.training.loop import fit, training_step
from keras_unet.training.schedule import Progress, Schedule, Validation

PLAN = Schedule(steps=8, validations=4, learning_rate=0.1, momentum=0.9)
SCORES = {2: 0.3, 4: 0.6, 6: 0.5, 8: 0.4}  # by step: the second is the best


def tiny_unet(seed: int = 0, **options: Any) -> Any:
    keras.utils.set_random_seed(seed)
    return build_unet((None, None, 1), depth=1, base_filters=2, **options)


def batch(number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A bright disc on a dark ground, with noise: easy to learn."""
    random = np.random.default_rng(number)
    rows, columns = np.indices((28, 28)) - random.uniform(9, 18, (2, 1, 1))
    labels = (np.hypot(rows, columns) < 6).astype(np.float32)
    image = 2 * labels - 1 + 0.3 * random.standard_normal((28, 28))
    y_true = np.stack([labels, np.ones_like(labels)], axis=-1)[8:-8, 8:-8]
    return image[None, ..., None].astype(np.float32), y_true[None]


def batches(first: int) -> Iterator[Any]:
    return (batch(number) for number in count(first))


def spoil(part: str, *numbers: int) -> Callable[[int], Iterator[Any]]:
    """Batches of which some have a pixel that is no number, or a weight without bound."""

    def spoilt(first: int) -> Iterator[Any]:
        for number in count(first):
            image, y_true = batch(number)
            if number in numbers and part == "image":
                image[0, 5, 5] = np.nan
            if number in numbers and part == "weights":
                y_true[0, 5, 5, 1] = np.inf
            yield image, y_true

    return spoilt


def numbers_of(variables: Any) -> list[NDArray[Any]]:
    return [np.array(variable) for variable in variables]


def assert_equal(first: list[NDArray[Any]], second: list[NDArray[Any]]) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


class RecordingValidator:
    """Keeps what a validation saw, and gives the scores above."""

    def __init__(self, scores: dict[int, float] = SCORES) -> None:
        self.scores = iter(scores.values())
        self.weights: list[list[NDArray[Any]]] = []

    def __call__(self, model: Any) -> Validation:
        self.weights.append(model.get_weights())
        return Validation(next(self.scores, None))


def run(folder: Path, schedule: Schedule = PLAN, **options: Any) -> tuple[Any, Progress, list[str]]:
    options = {"model": tiny_unet(), "batches": batches, **options}
    with logged() as messages:
        history = fit(schedule=schedule, folder=folder, **options)
    return (
        options["model"],
        history.progress,
        [one for one in messages if not one.startswith("step ")],
    )


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / HISTORY).open(newline="") as stream:
        return list(csv.DictReader(stream))


def hidden_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


class TestTraining:
    def test_learns(self, tmp_path: Path) -> None:
        schedule = Schedule(steps=150, validations=5, learning_rate=0.1, momentum=0.9)
        model, progress, _ = run(tmp_path, schedule)
        assert progress.step == 150
        losses = [row["loss"] for row in progress.rows]
        assert losses[-1] < 0.3 * losses[0]
        assert progress.loss == pytest.approx(losses[-1], rel=0.5)
        image, y_true = batch(1000)
        assert (np.argmax(model.predict(image, verbose=0), -1) == y_true[..., 0]).mean() > 0.95

    def test_steps_are_those_of_sgd_with_the_schedules_rate(self, tmp_path: Path) -> None:
        """Three steps by hand: Nesterov's momentum, and the gradient bounded by its norm."""
        schedule = Schedule(steps=3, warmup=0.5, learning_rate=0.2, momentum=0.8, clip_norm=0.3)
        model, twin = tiny_unet(dropout=0.0), tiny_unet(dropout=0.0)
        run(tmp_path, schedule, model=model)
        weights = twin.trainable_variables
        momentum = [np.zeros(one.shape) for one in weights]
        for step in range(3):
            image, y_true = batch(step)
            with tf.GradientTape() as tape:
                loss = WeightedCrossEntropy()(y_true, twin(image, training=True))
            gradients = [np.array(one) for one in tape.gradient(loss, weights)]
            norm = np.sqrt(sum((one**2).sum() for one in gradients))
            assert norm > 0.3  # the bound is felt
            rate = schedule.rate(step / 3)
            for number, (one, gradient) in enumerate(zip(weights, gradients, strict=True)):
                scaled = rate * gradient * 0.3 / norm
                momentum[number] = 0.8 * momentum[number] - scaled
                one.assign(one + 0.8 * momentum[number] - scaled)
        for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)

    def test_bounds_the_gradient_by_its_norm_in_float16_as_well(self) -> None:
        """There gradients come multiplied by the scale of the loss."""
        with precision_policy("float16"):
            model = tiny_unet(dropout=0.0)
        before = numbers_of(model.weights)
        schedule = Schedule(momentum=0.5, clip_norm=1e-3)
        assert training.training_step(model, schedule)(*batch(0), 1.0)[1]
        moved = zip(numbers_of(model.weights), before, strict=True)
        norm = np.sqrt(sum(((one - other) ** 2).sum() for one, other in moved))
        assert norm == pytest.approx(1.5e-3, rel=1e-2)  # Nesterov's form goes on by half a step

    def test_leaves_best_and_last_model_and_a_history(self, tmp_path: Path) -> None:
        validator = RecordingValidator()
        model, progress, _ = run(tmp_path, validate=validator)
        assert_equal(keras.saving.load_model(tmp_path / BEST).get_weights(), validator.weights[1])
        assert_equal(keras.saving.load_model(tmp_path / LAST).get_weights(), model.get_weights())
        assert progress.best_score == 0.6
        assert progress.score == 0.4
        rows = history(tmp_path)
        assert list(rows[0]) == [
            "step",
            "seconds",
            "learning_rate",
            "loss",
            "score",
            "skipped_updates",
        ]
        assert {int(row["step"]): float(row["score"]) for row in rows} == SCORES
        assert [float(row["learning_rate"]) for row in rows] == pytest.approx(
            [PLAN.rate((step - 1) / 8) for step in SCORES]
        )
        assert all(0 < float(row["loss"]) < 3 for row in rows)
        assert [float(row["seconds"]) for row in rows] == [row["seconds"] for row in progress.rows]
        assert not hidden_files(tmp_path)

    def test_without_scores_the_last_model_is_the_best(self, tmp_path: Path) -> None:
        (tmp_path / BEST).write_text("of an earlier training")
        model, progress, _ = run(tmp_path)
        assert_equal(keras.saving.load_model(tmp_path / BEST).get_weights(), model.get_weights())
        assert progress.best_score is None
        assert history(tmp_path)[0]["score"] == ""

    def test_without_scores_the_best_is_renewed_as_training_goes_on(self, tmp_path: Path) -> None:
        """A process that dies leaves the model of the latest validation, and --resume continues."""
        seen: list[list[NDArray[Any]]] = []

        def validate(model: Any) -> Validation:
            seen.append(model.get_weights())
            return Validation()

        def dying(first: int) -> Iterator[Any]:
            yield from (batch(number) for number in range(first, 5))
            raise SystemExit

        with pytest.raises(SystemExit):
            run(tmp_path, batches=dying, validate=validate)
        assert len(seen) == 2
        assert_equal(keras.saving.load_model(tmp_path / BEST).get_weights(), seen[-1])
        model, progress, _ = run(tmp_path, model=tiny_unet(seed=9), validate=validate, resume=True)
        assert progress.step == 8
        assert len(seen) == 4
        assert_equal(keras.saving.load_model(tmp_path / BEST).get_weights(), model.get_weights())

    def test_a_score_that_is_no_number_is_never_the_best(self, tmp_path: Path) -> None:
        _, progress, _ = run(
            tmp_path, validate=RecordingValidator({2: float("nan"), 4: 0.2, 6: float("nan")})
        )
        assert progress.best_score == 0.2

    def test_the_step_is_traced_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        traces = []

        class Counted(WeightedCrossEntropy):
            def call(self, y_true: Any, y_pred: Any) -> Any:
                traces.append(y_pred)
                return super().call(y_true, y_pred)

        monkeypatch.setattr(training, "WeightedCrossEntropy", Counted)
        run(tmp_path)
        assert len(traces) == 1

    def test_tiles_of_many_sizes_share_two_traces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        traces = []

        class Counted(WeightedCrossEntropy):
            def call(self, y_true: Any, y_pred: Any) -> Any:
                traces.append(y_pred)
                return super().call(y_true, y_pred)

        monkeypatch.setattr(training, "WeightedCrossEntropy", Counted)
        step = training_step(tiny_unet(), PLAN)
        for size in (20, 24, 28, 32, 44):
            y_true = np.ones((1, size - 16, size - 16, 2), np.float32)
            step(tf.ones((1, size, size, 1)), tf.constant(y_true), 0.1)
        assert len(traces) <= 2

    def test_callbacks_are_called_as_keras_does_it(self, tmp_path: Path) -> None:
        calls: list[Any] = []
        callback = keras.callbacks.LambdaCallback(
            on_train_begin=lambda *_: calls.append("begin"),
            on_train_batch_end=lambda step, logs: calls.append((step, sorted(logs))),
            on_epoch_end=lambda epoch, logs: calls.append((epoch, logs["step"], logs["score"])),
            on_train_end=lambda *_: calls.append("end"),
        )
        model = tiny_unet()
        _, progress, _ = run(
            tmp_path, model=model, validate=RecordingValidator(), callbacks=[callback]
        )
        of_steps = [(step, ["learning_rate", "loss"]) for step in range(8)]
        of_validations = [(n, row["step"], row["score"]) for n, row in enumerate(progress.rows)]
        assert [one for one in calls if len(one) == 2] == of_steps
        assert [one for one in calls if len(one) == 3 and one != "end"] == of_validations
        assert (calls[0], calls[-1]) == ("begin", "end")
        assert calls.index(of_steps[1]) < calls.index(of_validations[0]) < calls.index(of_steps[2])
        assert callback.model is model

    def test_the_history_is_keras_own_and_of_all_sessions(self, tmp_path: Path) -> None:
        options = {"model": tiny_unet(), "batches": batches, "schedule": PLAN, "folder": tmp_path}
        fit(**options, callbacks=[interrupt_at(5)])
        history = fit(**options, resume=True)
        assert isinstance(history, keras.callbacks.History)
        assert history.epoch == [0, 1, 2, 3]
        assert history.history["step"] == [2, 4, 6, 8]
        assert history.history["loss"] == [row["loss"] for row in history.progress.rows]

    def test_a_callback_ends_it(self, tmp_path: Path) -> None:
        stop = keras.callbacks.EarlyStopping("score", patience=1, mode="max")
        scores = RecordingValidator({2: 0.5, 4: 0.4, 6: 0.3, 8: 0.2})
        _, progress, _ = run(tmp_path, validate=scores, callbacks=[stop])
        assert progress.step == 4
        _, progress, _ = run(tmp_path, resume=True)
        assert progress.step == 8

    def test_patience_ends_it(self, tmp_path: Path) -> None:
        schedule = Schedule(steps=80, validations=40, patience=2)
        _, progress, messages = run(tmp_path, schedule, validate=RecordingValidator())
        assert progress.step == 8
        assert messages == ["No better score in 2 validations: training ends here."]

    def test_patience_waits_where_there_are_no_scores(self, tmp_path: Path) -> None:
        _, progress, _ = run(tmp_path, Schedule(steps=4, validations=4, patience=1))
        assert progress.step == 4

    def test_a_warning_is_said_at_once(self, tmp_path: Path) -> None:
        def validate(_: Any) -> Validation:
            messages.append("validation")
            return Validation(0.1, warning="collapsed")

        with logged() as messages:
            run(tmp_path, Schedule(steps=2, validations=1), validate=validate)
        assert messages[::2] == ["validation", "Warning: collapsed"]
        assert messages[1].startswith("step ")


class RecordingDisplay(Display):
    """Records the updates of a task."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, str, bool]] = []

    def update(self, task: Task) -> None:
        self.seen.append((task.completed, task.counts, task.ended is not None))


class TestShown:
    def test_every_step_and_a_line_a_validation(self, tmp_path: Path) -> None:
        shown = RecordingDisplay()
        with use_display(shown), logged() as messages:
            fit(tiny_unet(), batches, PLAN, folder=tmp_path, validate=RecordingValidator())
        percents = [percent for percent, _, _ in shown.seen]
        of_steps = [12.5, 25, 25, 37.5, 50, 50, 62.5, 75, 75, 87.5, 100, 100]  # and validations
        assert percents == [0, *of_steps, 100]
        assert [counts.split(", loss")[0] for _, counts, _ in shown.seen[:3]] == [
            "compiling",
            "step 1",
            "step 2",
        ]
        assert shown.seen[3][1].endswith(", score 0.3000")
        assert [ended for _, _, ended in shown.seen] == [False] * 13 + [True]
        best = [line.split("score ")[1].split(", ")[0] for line in messages]
        assert best == [
            "0.3000 (the best so far)",
            "0.6000 (the best so far)",
            "0.5000 (best 0.6000)",
            "0.4000 (best 0.6000)",
        ]
        assert all(line.endswith(" left") for line in messages)
        assert messages[-1].endswith(", 0:00:00 left")

    def test_the_limit_that_comes_first_decides(self, tmp_path: Path) -> None:
        shown, schedule = RecordingDisplay(), Schedule(steps=4, max_minutes=1e-9, validations=1)
        with use_display(shown):
            run(tmp_path, schedule)
        assert [percent for percent, _, _ in shown.seen] == [0, 100, 100, 100]

    def test_a_resumed_training_begins_where_it_was(self, tmp_path: Path) -> None:
        run(tmp_path, callbacks=[interrupt_at(4)])
        shown = RecordingDisplay()
        with use_display(shown):
            run(tmp_path, resume=True)
        assert shown.seen[0][0] == 50

    def test_one_that_fails_is_shown_no_longer(self, tmp_path: Path) -> None:
        shown = RecordingDisplay()
        with pytest.raises(ValueError, match="endless"), use_display(shown):
            run(tmp_path, batches=lambda _: iter([batch(0)]))
        assert shown.seen[-1][-1]


class TestClock:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        clock = SimpleNamespace(now=100.0)
        monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: clock.now))
        return clock

    @staticmethod
    def slow(clock: SimpleNamespace, seconds: float) -> Callable[[int], Iterator[Any]]:
        def timed(first: int) -> Iterator[Any]:
            for one in batches(first):
                clock.now += seconds
                yield one

        return timed

    def test_a_plan_in_minutes_ends_in_time_with_the_rate_near_0(
        self, tmp_path: Path, clock: SimpleNamespace
    ) -> None:
        schedule = Schedule(steps=None, max_minutes=1.0, validations=4)
        rates = []
        _, progress, _ = run(
            tmp_path,
            schedule,
            batches=self.slow(clock, 3),
            callbacks=[each_step(lambda logs: rates.append(logs["learning_rate"]))],
        )
        assert (progress.step, progress.seconds) == (20, 60)
        assert [row["step"] for row in progress.rows] == [5, 10, 15, 20]
        assert rates == pytest.approx([schedule.rate(step / 20) for step in range(20)])
        assert rates[-1] < 0.01 * max(rates)

    def test_slow_steps_are_not_followed_by_a_queue_of_validations(
        self, tmp_path: Path, clock: SimpleNamespace
    ) -> None:
        schedule = Schedule(steps=None, max_minutes=1.0, validations=40)
        _, progress, _ = run(tmp_path, schedule, batches=self.slow(clock, 20))
        assert [row["step"] for row in progress.rows] == [1, 2, 3]

    def test_validations_take_from_the_same_minutes(
        self, tmp_path: Path, clock: SimpleNamespace
    ) -> None:
        def validate(_: Any) -> Validation:
            clock.now += 25
            return Validation()

        schedule = Schedule(steps=None, max_minutes=1.0, validations=10)
        _, progress, _ = run(tmp_path, schedule, batches=self.slow(clock, 5), validate=validate)
        # At 10 seconds, and at the end, because one takes more than a tenth of the time.
        assert [row["step"] for row in progress.rows] == [2, 7]
        assert progress.seconds == 85

    def test_a_resumed_run_has_the_time_that_is_left(
        self, tmp_path: Path, clock: SimpleNamespace
    ) -> None:
        schedule = Schedule(steps=None, max_minutes=1.0, validations=2)
        timed = self.slow(clock, 6)
        run(tmp_path, schedule, batches=timed, callbacks=[interrupt_at(4)])
        clock.now += 10_000
        _, progress, _ = run(tmp_path, schedule, batches=timed, resume=True)
        assert (progress.step, progress.seconds) == (10, 60)


class TestCurves:
    def logged(self, folder: Path, tag: str) -> list[tuple[int, Any]]:
        events = EventAccumulator(str(folder / CURVES), {"tensors": 0})
        events.Reload()
        return [(one.step, tf.make_ndarray(one.tensor_proto)) for one in events.Tensors(tag)]

    def test_a_resumed_run_goes_on_in_its_curves_and_no_point_is_there_twice(
        self, tmp_path: Path
    ) -> None:
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        logged = Logged(hyperparameters={"depth": 1})
        run(whole, validate=RecordingValidator(), logged=logged)
        validator = RecordingValidator()
        for step in (3, 5):
            interrupt = interrupt_at(step)
            run(parts, validate=validator, callbacks=[interrupt], resume=step > 3, logged=logged)
        run(parts, validate=validator, resume=True, logged=logged)
        assert len(list((parts / CURVES).iterdir())) > 2
        for tag in ("score", "loss"):
            assert self.logged(parts, tag) == self.logged(whole, tag)
        assert [step for step, _ in self.logged(parts, "score")] == [2, 4, 6, 8]

    def test_a_resumed_training_is_one_session(self, tmp_path: Path) -> None:
        run(tmp_path, callbacks=[interrupt_at(3)])
        run(tmp_path, resume=True)
        assert len(self.logged(tmp_path, SESSION_START_INFO_TAG)) == 1


class TestRefusedUpdates:
    @pytest.fixture
    def variables(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[NDArray[Any]]]:
        """Gives weights, momentum and statistics of the training under way."""
        made = []
        inner = training._optimizer

        def kept(model: Any, schedule: Schedule) -> Any:
            made.append(inner(model, schedule))
            return made[-1]

        def changing(model: Any) -> list[NDArray[Any]]:
            rate = made[-1].learning_rate
            variables = [one for one in made[-1].variables if one is not rate]
            return numbers_of([*model.weights, *variables])

        monkeypatch.setattr(training, "_optimizer", kept)
        return changing

    @pytest.mark.parametrize(
        ("part", "norm_layer"), [("image", "batch"), ("image", None), ("weights", None)]
    )
    def test_change_nothing_and_are_counted_and_said(
        self,
        tmp_path: Path,
        variables: Callable[[Any], list[NDArray[Any]]],
        part: str,
        norm_layer: Any,
    ) -> None:
        model = tiny_unet(norm_layer=norm_layer)
        states: list[list[NDArray[Any]]] = []
        _, progress, messages = run(
            tmp_path,
            model=model,
            batches=spoil(part, 3, 4, 6),
            callbacks=[each_step(lambda _: states.append(variables(model)))],
        )
        assert_equal(states[3], states[2])
        assert_equal(states[4], states[2])
        assert_equal(states[6], states[5])
        assert any((one != other).any() for one, other in zip(states[5], states[4], strict=True))
        assert all(np.isfinite(one).all() for one in states[-1])
        assert progress.skipped == 3
        assert [row["skipped_updates"] for row in progress.rows] == [0, 1, 2, 3]
        assert isfinite(progress.loss)
        assert all(isfinite(row["loss"]) for row in progress.rows)
        assert messages == [
            f"1 updates with a non-finite gradient were not applied ({n} of {step} in all)."
            for n, step in ((1, 4), (2, 6), (3, 8))
        ]

    def test_in_float16_halve_the_scale_of_the_loss(
        self, tmp_path: Path, variables: Callable[[Any], list[NDArray[Any]]]
    ) -> None:
        with precision_policy("float16"):
            model = tiny_unet()
        states: list[list[NDArray[Any]]] = []
        run(
            tmp_path,
            model=model,
            batches=spoil("image", 3),
            callbacks=[each_step(lambda _: states.append(variables(model)))],
        )
        changed = [not np.array_equal(*pair) for pair in zip(states[3], states[2], strict=True)]
        before, after = (
            [one for one, differs in zip(state, changed, strict=True) if differs]
            for state in states[2:4]
        )
        assert [one.shape for one in after] == [(), ()]  # the scale, and steps since it changed
        assert sorted(float(one) for one in after) == [0.0, max(map(float, before)) / 2]
        assert not np.array_equal(states[4][0], states[3][0])

    def test_a_training_of_nothing_else_says_so_and_keeps_the_model(self, tmp_path: Path) -> None:
        model = tiny_unet()
        before = model.get_weights()
        _, progress, _ = run(tmp_path, model=model, batches=spoil("image", *range(8)))
        assert_equal(model.get_weights(), before)
        assert (progress.skipped, progress.rows[-1]["loss"]) == (8, None)


class TestFinalShare:
    SCHEDULE = replace(PLAN, final_share=0.4)  # from step 4.8, so of 8 from 5 on

    def fit(self, folder: Path, log: list[Any], **options: Any) -> tuple[Any, Progress, list[str]]:
        def logging(kind: str) -> Callable[[int], Iterator[Any]]:
            def logged_batches(first: int) -> Iterator[Any]:
                for number, one in enumerate(batches(first), first):
                    log.append((kind, number))
                    yield one

            return logged_batches

        def validate(model: Any) -> Validation:
            log.append("validation")
            return stable_score(model)

        given = {"batches": logging("training"), "final_batches": logging("all")}
        return run(folder, self.SCHEDULE, **given, validate=validate, **options)

    def test_trains_on_all_images_without_validation(self, tmp_path: Path) -> None:
        log: list[Any] = []
        _, progress, _ = self.fit(tmp_path, log)
        assert [one for one in log if one != "validation"] == [
            *(("training", step) for step in range(5)),
            *(("all", step) for step in range(5, 8)),
        ]
        assert log.count("validation") == 3
        assert [(row["step"], row["score"] is None) for row in progress.rows] == [
            *((2, False), (4, False), (5, False)),
            *((6, True), (8, True)),
        ]

    def test_goes_on_as_if_it_had_not_been_interrupted(self, tmp_path: Path) -> None:
        expected, whole, _ = self.fit(tmp_path / "whole", [])
        for step in (5, 7):
            log: list[Any] = []
            folder = tmp_path / str(step)
            self.fit(folder, log, callbacks=[interrupt_at(step)])
            model, progress, _ = self.fit(folder, log, model=tiny_unet(seed=9), resume=True)
            assert_equal(model.get_weights(), expected.get_weights())
            assert without_seconds(progress.rows) == without_seconds(whole.rows)
            trained = [one for one in log if one != "validation"]
            assert (
                sorted(trained, key=lambda one: one[1]) == trained == list(dict.fromkeys(trained))
            )


def each_step(function: Callable[[Any], None]) -> keras.callbacks.Callback:
    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: function(logs))


def interrupt_at(step: int) -> keras.callbacks.Callback:
    def interrupt(batch: int, **_: Any) -> None:
        if batch + 1 == step:
            raise KeyboardInterrupt

    return keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)


def catch_interrupt_at(step: int) -> keras.callbacks.Callback:
    def interrupt(batch: int, **_: Any) -> None:
        if batch + 1 == step:
            with suppress(KeyboardInterrupt):  # as Keras does while it converts logs
                press_ctrl_c()

    return keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Progress]:
    model, progress, _ = run(tmp_path_factory.mktemp("unbroken"), validate=stable_score)
    return model, progress


class TestInterruption:
    @pytest.mark.parametrize(
        "where", ["step", "caught", "batch", "update", "validation", "writing"]
    )
    def test_ends_tidily_and_goes_on_as_if_it_had_not_been(
        self,
        tmp_path: Path,
        unbroken: tuple[Any, Progress],
        monkeypatch: pytest.MonkeyPatch,
        where: str,
    ) -> None:
        options = {"validate": stable_score, **interruption(where, monkeypatch)}
        model, progress, messages = run(tmp_path, **options)
        monkeypatch.undo()
        assert progress.step in (4, 5)
        assert messages == ["Interrupted: writing the last model; --resume continues from here."]
        assert_equal(keras.saving.load_model(tmp_path / LAST).get_weights(), model.get_weights())
        keras.saving.load_model(tmp_path / BEST)
        assert not hidden_files(tmp_path)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

        resumed, progress, messages = run(
            tmp_path, model=tiny_unet(seed=9), validate=stable_score, resume=True
        )
        assert messages == []
        expected, whole = unbroken
        assert_equal(resumed.get_weights(), expected.get_weights())
        assert without_seconds(progress.rows) == without_seconds(whole.rows)
        assert [int(row["step"]) for row in history(tmp_path)] == [2, 4, 6, 8]

    def test_a_run_with_adam_goes_on_with_its_moments(self, tmp_path: Path) -> None:
        schedule = replace(PLAN, optimizer="adam", learning_rate=0.01)
        expected, _, _ = run(tmp_path / "whole", schedule)

        def interrupted(first: int) -> Iterator[Any]:
            yield from (batch(number) for number in range(first, 5))
            press_ctrl_c()
            yield batch(5)

        parts = tmp_path / "parts"
        _, progress, _ = run(parts, schedule, batches=interrupted)
        assert 0 < progress.step < 8
        resumed, _, _ = run(parts, schedule, model=tiny_unet(seed=9), resume=True)
        assert_equal(resumed.get_weights(), expected.get_weights())

    def test_before_the_first_step_leaves_models_and_a_checkpoint(self, tmp_path: Path) -> None:
        def none(first: int) -> Iterator[Any]:
            press_ctrl_c()
            return batches(first)

        _, progress, _ = run(tmp_path, batches=none)
        assert progress.step == 0
        assert {BEST, LAST, CHECKPOINT} <= {path.name for path in tmp_path.iterdir()}

    def test_the_signal_does_not_reach_compiled_code(self, tmp_path: Path) -> None:
        masks = []

        def recorded(first: int) -> Iterator[Any]:
            for batch in batches(first):
                masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
                yield batch

        run(tmp_path, batches=recorded)
        assert masks
        assert all(signal.SIGINT in mask for mask in masks)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def test_a_second_ctrl_c_waits_until_all_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = RunFiles.save_last

        def save_last(files: Any, progress: Progress) -> None:
            press_ctrl_c()
            inner(files, progress)

        monkeypatch.setattr(RunFiles, "save_last", save_last)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, callbacks=[interrupt_at(3)])
        assert {BEST, LAST, CHECKPOINT} <= {path.name for path in tmp_path.iterdir()}
        assert not hidden_files(tmp_path)

    def test_a_run_that_ignores_ctrl_c_goes_on_ignoring_it(self, tmp_path: Path) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the shell does for `command &`
        try:
            _, progress, _ = run(tmp_path, callbacks=[each_step(lambda _: press_ctrl_c())])
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)
        assert progress.step == 8

    def test_trains_in_another_thread(self, tmp_path: Path) -> None:
        found: list[Progress] = []
        thread = threading.Thread(target=lambda: found.append(run(tmp_path)[1]))
        thread.start()
        thread.join()
        assert found[0].step == 8

    def test_a_finished_run_is_left_as_it_is(self, tmp_path: Path) -> None:
        model, progress, _ = run(tmp_path, validate=RecordingValidator())
        before = (tmp_path / BEST).read_bytes(), (tmp_path / CHECKPOINT).read_bytes()
        again, after, _ = run(tmp_path, model=tiny_unet(seed=5), resume=True)
        assert after == progress
        assert_equal(again.get_weights(), model.get_weights())
        assert ((tmp_path / BEST).read_bytes(), (tmp_path / CHECKPOINT).read_bytes()) == before


def interruption(where: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a run that is interrupted once, at step 4 or 5."""
    looks = count(1)

    def validate(model: Any) -> Validation:
        if next(looks) == 2:
            press_ctrl_c()
        return stable_score(model)

    def tiles(first: int) -> Iterator[Any]:
        for number, one in enumerate(batches(first)):
            if number == 4:
                press_ctrl_c()
            yield one

    if where == "writing":
        press_in(RunFiles, "save_checkpoint", monkeypatch)
    if where == "update":  # the weights have moved on, the record has not
        press_in(Progress, "after_step", monkeypatch)
    options: dict[str, dict[str, Any]] = {
        "step": {"callbacks": [interrupt_at(5)]},
        "caught": {"callbacks": [catch_interrupt_at(5)]},
        "batch": {"batches": tiles},
        "validation": {"validate": validate},
    }
    return options.get(where, {})


def press_in(owner: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, once = getattr(owner, method), iter([True])

    def pressing(*arguments: Any) -> Any:
        if any(isinstance(one, Progress) and one.step == 4 for one in arguments) and next(once, 0):
            press_ctrl_c()
        return inner(*arguments)

    monkeypatch.setattr(owner, method, pressing)


def stable_score(model: Any) -> Validation:
    """A score that depends on the weights alone."""
    return Validation(float(np.abs(model.get_weights()[0]).sum()))


def without_seconds(rows: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


class TestErrors:
    def test_nothing_to_resume(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"checkpoint\.npz must exist.*start it anew"):
            run(tmp_path, resume=True)

    def test_a_data_set_that_ends(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"ended after batch 3; call its method repeat\(\)"):
            run(tmp_path, batches=lambda _: [batch(number) for number in range(3)])

    def test_a_data_set_that_fails_leaves_the_run_as_last_validated(self, tmp_path: Path) -> None:
        def failing(first: int) -> Iterator[Any]:
            yield from (batch(number) for number in range(first, 5))
            raise OSError("disk gone")

        with pytest.raises(OSError, match="disk gone"):
            run(tmp_path, batches=failing, validate=stable_score)
        assert [int(row["step"]) for row in history(tmp_path)] == [2, 4]
        assert not hidden_files(tmp_path)
        keras.saving.load_model(tmp_path / BEST)
        _, progress, _ = run(tmp_path, validate=stable_score, resume=True)
        assert progress.step == 8

    def test_a_file_in_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("")
        with pytest.raises(OSError, match="expected a writable folder"):
            run(tmp_path / "run")
