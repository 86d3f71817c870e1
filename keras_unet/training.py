"""The paper's training made dependable: SGD with momentum 0.99, one large tile a batch.

Added to the paper, because without them training collapses now and then: warm-up, a bound on the
gradient's norm, Nesterov's form of the momentum, and a cosine decay that ends with the training,
whether its length is given in steps or in minutes. An update whose gradient is not finite is never
applied; it is counted.

The loop is written out rather than given to `Model.fit`, so that a step can be refused, the
schedule can follow the clock, and everything a resumed run needs lies in one file.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from math import cos, inf, pi
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras, tf
from keras_unet.files import atomic
from keras_unet.losses import WeightedCrossEntropy

BEST, LAST, CHECKPOINT, HISTORY = "best.keras", "last.keras", "checkpoint.npz", "history.csv"


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How long and how fast to train.

    Attributes:
        steps: Updates in all; None where the minutes alone decide.
        max_minutes: Time in all; whichever limit comes first ends the training, and the learning
            rate has decayed by then.
        learning_rate: The highest rate, reached after warm-up.
        momentum: The paper takes 0.99.
        warmup: Share of the training in which the rate rises from 0.
        clip_norm: Bound of the gradient's global norm.
        validations: How often the validation images are looked at.
        patience: Validations without a better score after which training ends; None for never.
    """

    steps: int | None = 2500
    max_minutes: float | None = None
    learning_rate: float = 1e-2
    momentum: float = 0.99
    warmup: float = 0.05
    clip_norm: float = 1.0
    validations: int = 20
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuses a training without an end and numbers out of range.

        Raises:
            ValueError: The message names the number.
        """
        if self.steps is None and self.max_minutes is None:
            raise ValueError("steps or max_minutes must be given. Received: neither")
        for name in ("steps", "max_minutes", "learning_rate", "clip_norm", "validations"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0. Received: {name}={value}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1. Received: patience={self.patience}")

    def progress(self, step: int, seconds: float) -> float:
        """Returns the share of the training that is done, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_clock = seconds / (60 * self.max_minutes) if self.max_minutes else 0.0
        return min(1.0, max(by_steps, by_clock))

    def rate(self, progress: float) -> float:
        """Returns the learning rate: linear warm-up, then half a cosine down to 0."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        return self.learning_rate * (1 + cos(pi * (progress - self.warmup) / (1 - self.warmup))) / 2


@dataclass(frozen=True)
class Validation:
    """What looking at the validation images gave.

    Attributes:
        score: The higher the better; None where there are no validation images.
        warning: What a person should be told at once, such as a collapse to one class.
        picture: uint8 RGB picture of shape `(height, width, 3)` for TensorBoard, or None.
    """

    score: float | None = None
    warning: str | None = None
    picture: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: Batches seen.
        seconds: Time spent, in all sessions of the run.
        loss: Mean loss of the latest batches.
        skipped: Updates refused because their gradient was not finite.
        score: Latest validation score.
        best_score: Highest validation score.
        stale: Validations since the highest score.
        loss_sum: Sum of the losses since the last validation.
        loss_count: Their number.
        rows: The history: one dictionary a validation.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float = inf
    skipped: int = 0
    score: float | None = None
    best_score: float | None = None
    stale: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def after_step(self, loss: float, applied: bool, seconds: float) -> Progress:
        """Returns the progress after one more batch."""
        counts = applied and bool(np.isfinite(loss))
        smooth = loss if self.loss == inf else 0.95 * self.loss + 0.05 * loss
        return replace(
            self,
            step=self.step + 1,
            seconds=seconds,
            loss=smooth if counts else self.loss,
            skipped=self.skipped + (not applied),
            loss_sum=self.loss_sum + (loss if counts else 0.0),
            loss_count=self.loss_count + counts,
        )

    def after_validation(self, score: float | None, rate: float) -> Progress:
        """Returns the progress with a row of history and the score taken in."""
        better = score is not None and score > (-inf if self.best_score is None else self.best_score)
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "learning_rate": rate,
            "loss": self.loss_sum / self.loss_count if self.loss_count else None,
            "score": score,
            "skipped_updates": self.skipped,
        }
        return replace(
            self,
            score=score,
            best_score=score if better else self.best_score,
            stale=0 if better else self.stale + 1,
            loss_sum=0.0,
            loss_count=0,
            rows=(*self.rows, row),
        )


def train(
    model: Any,
    batches: Callable[[int], Any],
    plan: TrainingPlan,
    *,
    folder: Path,
    validate: Callable[[Any], Validation] = lambda _: Validation(),
    on_step: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = print,
    resume: bool = False,
) -> Progress:
    """Trains a model and leaves `best.keras`, `last.keras` and `history.csv` in the run folder.

    Ctrl-C ends the training after the current step: the last model and the checkpoint are written
    before the function returns, and `resume=True` goes on from there.

    Args:
        model: A network of `build_unet`.
        batches: Gives the data set of `(image, y_true)` from a batch number on, as `build_dataset`
            does with its argument `first`.
        plan: How long and how fast.
        folder: The run's folder; it must exist.
        validate: Looks at the model and returns a score.
        on_step: Called after every batch.
        say: Takes a line for a person.
        resume: Goes on from the folder's checkpoint.

    Returns:
        The final progress.

    Raises:
        FileNotFoundError: If there is no checkpoint to resume from.
    """
    optimizer = _optimizer(model, plan)
    progress = _restore(folder, model, optimizer) if resume else Progress()
    update = _update_function(model, optimizer)
    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    started = time.monotonic() - progress.seconds
    try:
        for image, y_true in batches(progress.step):
            done = plan.progress(progress.step, time.monotonic() - started)
            if done >= 1:
                break
            rate = plan.rate(done)
            _inner(optimizer).learning_rate.assign(rate)
            loss, applied = update(image, y_true)
            seconds = time.monotonic() - started
            progress = progress.after_step(float(loss), bool(applied), seconds)
            looked = _is_due(plan, progress)
            if looked:
                progress = _look(model, validate, progress, rate, folder, writer, say)
                _save(folder, model, optimizer, progress)
            on_step(progress)
            if looked and plan.patience and progress.stale >= plan.patience:
                say(f"No better score in {progress.stale} validations: training ends here.")
                break
    except KeyboardInterrupt:
        say("Interrupted: writing the last model; --resume goes on from here.")
        _save(folder, model, optimizer, progress)
    _save_model(model, folder / LAST)
    if not (folder / BEST).exists():
        _save_model(model, folder / BEST)
    return progress


def _optimizer(model: Any, plan: TrainingPlan) -> Any:
    optimizer = keras.optimizers.SGD(
        0.0, momentum=plan.momentum, nesterov=True, global_clipnorm=plan.clip_norm
    )
    if any(layer.dtype_policy.name == "mixed_float16" for layer in model.layers):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)


def _update_function(model: Any, optimizer: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    loss = WeightedCrossEntropy()
    variables = model.trainable_variables
    scales = _inner(optimizer) is not optimizer  # lowers its scale and skips by itself

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def update(image: Any, y_true: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            value = loss(y_true, model(image, training=True))
            scaled = optimizer.scale_loss(value)
        gradients = tape.gradient(scaled, variables)
        finite = tf.math.is_finite(tf.linalg.global_norm(gradients))

        def apply() -> Any:
            optimizer.apply(gradients, variables)
            return finite

        return value, tf.cond(tf.logical_or(finite, scales), apply, lambda: finite)

    return update  # type: ignore[no-any-return]


def _is_due(plan: TrainingPlan, progress: Progress) -> bool:
    done = plan.progress(progress.step, progress.seconds)
    return done * plan.validations >= len(progress.rows) + 1 or done >= 1


def _look(
    model: Any,
    validate: Callable[[Any], Validation],
    progress: Progress,
    rate: float,
    folder: Path,
    writer: Any,
    say: Callable[[str], None],
) -> Progress:
    seen = validate(model)
    if seen.warning:
        say(seen.warning)
    before = progress.rows[-1]["skipped_updates"] if progress.rows else 0
    if progress.skipped > before:
        say(
            f"{progress.skipped - before} updates with a non-finite gradient were not applied "
            f"({progress.skipped} of {progress.step} in all)."
        )
    progress = progress.after_validation(seen.score, rate)
    if progress.stale == 0:
        _save_model(model, folder / BEST)
    _write_history(folder / HISTORY, progress.rows)
    _summarise(writer, progress, seen.picture)
    return progress


def _summarise(writer: Any, progress: Progress, picture: NDArray[np.uint8] | None) -> None:
    row = progress.rows[-1]
    with writer.as_default(step=progress.step):
        for name in ("loss", "score", "learning_rate", "skipped_updates"):
            if row[name] is not None:
                tf.summary.scalar(name, row[name])
        if picture is not None:
            tf.summary.image("validation", picture[None])
    writer.flush()


def _save_model(model: Any, path: Path) -> None:
    with atomic(path) as temporary:
        model.save(temporary)


def _write_history(path: Path, rows: tuple[dict[str, Any], ...]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="") as stream:
        table = csv.DictWriter(stream, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def _save(folder: Path, model: Any, optimizer: Any, progress: Progress) -> None:
    """Writes all that a resumed run needs into one file, at once or not at all."""
    arrays = {name: variable.numpy() for name, variable in _variables(model, optimizer).items()}
    with atomic(folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
        np.savez(stream, progress=np.array(json.dumps(asdict(progress))), **arrays)


def _restore(folder: Path, model: Any, optimizer: Any) -> Progress:
    path = folder / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(
            f"{path} must exist to resume from. Received a run without a checkpoint; start it "
            "anew without resume"
        )
    with np.load(path, allow_pickle=False) as arrays:
        for name, variable in _variables(model, optimizer).items():
            variable.assign(arrays[name])
        values = json.loads(str(arrays["progress"]))
    values["rows"] = tuple(values["rows"])
    return Progress(**{one.name: values[one.name] for one in fields(Progress)})


def _variables(model: Any, optimizer: Any) -> dict[str, Any]:
    """Names every number that changes in training, the state of dropout's randomness included."""
    return {
        f"{owner}{number}": variable
        for owner, variables in (("model", model.variables), ("optimizer", optimizer.variables))
        for number, variable in enumerate(variables)
    }
