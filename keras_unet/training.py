"""The paper's training made dependable: SGD with momentum 0.99, one large tile a batch.

Added to the paper, because without them training collapses now and then: warm-up, a bound on the
gradient's norm, Nesterov's form of the momentum, and a cosine decay that ends with the training,
whether its length is given in steps or in minutes. An update whose gradient is not finite is never
applied; it is counted.

The loop is written out rather than given to `Model.fit`, so that a step can be refused, the
schedule can follow the clock, and everything a resumed run needs lies in one file. What happens
next depends on a Progress alone, which is saved with the weights: a run that was interrupted
anywhere goes on as if it had not been.
"""

from __future__ import annotations

import csv
import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import cos, inf, isfinite, pi
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras, tf
from keras_unet.files import atomic, make_folder
from keras_unet.losses import WeightedCrossEntropy

BEST, LAST, CHECKPOINT, HISTORY = "best.keras", "last.keras", "checkpoint.npz", "history.csv"


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How long and how fast to train.

    >>> plan = TrainingPlan(steps=1000, learning_rate=0.01, warmup=0.1)
    >>> [round(plan.rate(plan.progress(step, seconds=0)), 4) for step in (0, 50, 100, 550, 1000)]
    [0.0, 0.005, 0.01, 0.005, 0.0]

    Attributes:
        steps: Updates in all; None where the minutes alone decide.
        max_minutes: Time in all; whichever limit comes first ends the training, and the learning
            rate has decayed by then.
        learning_rate: The highest rate, reached after warm-up.
        momentum: The paper takes 0.99.
        warmup: Share of the training in which the rate rises from 0.
        clip_norm: Bound of the gradient's global norm.
        validations: How often the validation images are looked at, evenly over the training.
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
            if value is not None and not 0 < value < inf:
                raise ValueError(
                    f"{name} must be greater than 0 and finite. Received: {name}={value}"
                )
        for name in ("momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1). Received: {getattr(self, name)}")
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

    def is_due(self, progress: Progress) -> bool:
        """Tells whether a whole share of the training has passed since the latest validation."""
        done = self.progress(progress.step, progress.seconds)
        return int(done * self.validations) > int(progress.validated * self.validations)

    def is_over(self, progress: Progress) -> bool:
        """Tells whether all is done, the last validation included, or patience has run out."""
        done = self.progress(progress.step, progress.seconds)
        return self.is_out_of_patience(progress) or (done >= 1 and not self.is_due(progress))

    def is_out_of_patience(self, progress: Progress) -> bool:
        """Tells whether the score has stood still for too many validations."""
        return self.patience is not None and progress.stale >= self.patience


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
        rate: Learning rate of the latest batch.
        loss: Mean loss of the latest batches.
        skipped: Updates refused because their gradient was not finite.
        score: Latest validation score.
        best_score: Highest validation score.
        stale: Validations since the highest score.
        validated: Share of the training that was done at the latest validation, 0 to 1.
        loss_sum: Sum of the losses since the latest validation.
        loss_count: Their number.
        rows: The history: one dictionary a validation.
    """

    step: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    loss: float = inf
    skipped: int = 0
    score: float | None = None
    best_score: float | None = None
    stale: int = 0
    validated: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def after_step(self, loss: float, applied: bool, rate: float, seconds: float) -> Progress:
        """Returns the progress after one more batch."""
        counts = applied and isfinite(loss)
        smooth = loss if self.loss == inf else 0.95 * self.loss + 0.05 * loss
        return replace(
            self,
            step=self.step + 1,
            seconds=seconds,
            rate=rate,
            loss=smooth if counts else self.loss,
            skipped=self.skipped + (not applied),
            loss_sum=self.loss_sum + (loss if counts else 0.0),
            loss_count=self.loss_count + counts,
        )

    def after_validation(self, score: float | None, validated: float, seconds: float) -> Progress:
        """Returns the progress with a row of history and the score taken in."""
        best = -inf if self.best_score is None else self.best_score
        better = score is not None and score > best
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "learning_rate": self.rate,
            "loss": self.loss_sum / self.loss_count if self.loss_count else None,
            "score": score,
            "skipped_updates": self.skipped,
        }
        return replace(
            self,
            seconds=seconds,
            score=score,
            best_score=score if better else self.best_score,
            stale=0 if better or score is None else self.stale + 1,
            validated=validated,
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

    Ctrl-C ends the training, and a validation under way: the last model and the checkpoint are
    written before the function returns, and `resume=True` goes on from there.

    Args:
        model: A network of `build_unet`.
        batches: Gives the endless data set of `(image, y_true)` from a batch number on, as
            `build_dataset` does with its argument `first`.
        plan: How long and how fast.
        folder: The run's folder, created where missing.
        validate: Looks at the model and returns a score.
        on_step: Called after every batch, and after the validation where one is due.
        say: Takes a line for a person.
        resume: Goes on from the folder's checkpoint.

    Returns:
        The final progress.

    Raises:
        FileNotFoundError: If there is no checkpoint to resume from.
        OSError: If the folder cannot be written.
        ValueError: If the checkpoint is damaged or of another network, or the data set ends.
    """
    optimizer = _optimizer(model, plan)
    files = _Files(make_folder(folder), model, optimizer)
    progress = files.restore() if resume else Progress()
    update = _update_function(model, optimizer)
    stream = _endless(batches, progress.step)
    started = time.monotonic() - progress.seconds
    try:
        while not plan.is_over(progress):
            if plan.is_due(progress):
                seen = validate(model)
                with _uninterrupted():
                    progress = _after_validation(plan, progress, seen, time.monotonic() - started)
                    files.record(progress, seen.picture)
                    _tell(progress, seen, say)
            else:
                rate = plan.rate(plan.progress(progress.step, progress.seconds))
                image, y_true = next(stream)
                with _uninterrupted():
                    loss, applied = update(image, y_true, rate)
                    progress = progress.after_step(loss, applied, rate, time.monotonic() - started)
            if not plan.is_due(progress):
                on_step(progress)
    except KeyboardInterrupt:
        with _uninterrupted():
            say("Interrupted: writing the last model; --resume goes on from here.")
            files.save_checkpoint(progress)
    with _uninterrupted():
        files.save_last(progress)
    if plan.is_out_of_patience(progress):
        say(f"No better score in {progress.stale} validations: training ends here.")
    return progress


def _after_validation(
    plan: TrainingPlan, progress: Progress, seen: Validation, seconds: float
) -> Progress:
    return progress.after_validation(seen.score, plan.progress(progress.step, seconds), seconds)


def _tell(progress: Progress, seen: Validation, say: Callable[[str], None]) -> None:
    if seen.warning:
        say(seen.warning)
    counts = [0, *(row["skipped_updates"] for row in progress.rows)]
    if counts[-1] > counts[-2]:
        say(
            f"{counts[-1] - counts[-2]} updates with a non-finite gradient were not applied "
            f"({counts[-1]} of {progress.step} in all)."
        )


def _endless(batches: Callable[[int], Any], first: int) -> Iterator[Any]:
    """Yields batches, and refuses a data set that ends before the training does."""
    number = first
    for number, batch in enumerate(batches(first), first + 1):  # noqa: B007 - told below
        yield batch
    raise ValueError(
        "batches must give an endless data set. "
        f"Received one that ended after batch {number}; call its method repeat()"
    )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back to the end of the block.

    An update is never without its record, nor a record without its files. Python interrupts the
    main thread alone, and only where it handles the signal itself.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    held = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def _optimizer(model: Any, plan: TrainingPlan) -> Any:
    optimizer = keras.optimizers.SGD(
        0.0, momentum=plan.momentum, nesterov=True, global_clipnorm=plan.clip_norm
    )
    if any(layer.dtype_policy.name == "mixed_float16" for layer in model.layers):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def _update_function(model: Any, optimizer: Any) -> Callable[[Any, Any, float], tuple[float, bool]]:
    """Makes the function that takes one batch in and returns its loss and whether it was applied.

    Where the gradient is not finite, weights, momentum and the statistics of a batch normalisation
    stay as they were; only the scale of the loss, where float16 has one, is halved.
    """
    loss = WeightedCrossEntropy()
    variables, statistics = model.trainable_variables, model.non_trainable_weights

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def compiled(image: Any, y_true: Any) -> tuple[Any, Any]:
        before = [tf.identity(one) for one in statistics]
        with tf.GradientTape() as tape:
            value = loss(y_true, model(image, training=True))
            scaled = optimizer.scale_loss(value)
        gradients = tape.gradient(scaled, variables)
        finite = tf.math.is_finite(tf.linalg.global_norm(gradients))

        def apply() -> Any:
            optimizer.apply(gradients, variables)
            return finite

        def refuse() -> Any:
            for variable, was in zip(statistics, before, strict=True):
                variable.assign(was)
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                optimizer.step_counter.assign(0)
                optimizer.dynamic_scale.assign(tf.maximum(1.0, optimizer.dynamic_scale / 2))
            return finite

        return value, tf.cond(finite, apply, refuse)

    def update(image: Any, y_true: Any, rate: float) -> tuple[float, bool]:
        optimizer.learning_rate.assign(rate)
        value, applied = compiled(image, y_true)
        return float(value), bool(applied)

    return update


class _Files:
    """What a training writes into the run's folder, each file whole or not at all."""

    def __init__(self, folder: Path, model: Any, optimizer: Any) -> None:
        self.folder = folder
        self.model = model
        self.variables = {  # every number that changes, the state of dropout's randomness included
            f"{owner}{number}": variable
            for owner, part in (("model", model), ("optimizer", optimizer))
            for number, variable in enumerate(part.variables)
        }
        self.summaries = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def record(self, progress: Progress, picture: NDArray[np.uint8] | None) -> None:
        """Writes all that a validation leaves behind."""
        if progress.score is not None and progress.stale == 0:
            self._save_model(BEST)
        self._write_history(progress.rows)
        self._summarise(progress, picture)
        self.save_checkpoint(progress)

    def save_last(self, progress: Progress) -> None:
        """Writes the model as it is, and as the best one where none had a score."""
        self._save_model(LAST)
        if progress.best_score is None:
            self._save_model(BEST)

    def save_checkpoint(self, progress: Progress) -> None:
        """Writes all that a resumed run needs into one file."""
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        with atomic(self.folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
            np.savez(stream, progress=np.array(json.dumps(asdict(progress))), **arrays)

    def restore(self) -> Progress:
        """Puts the checkpoint's numbers into model and optimizer and returns its progress."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise FileNotFoundError(
                f"{path} must exist to resume from. Received a run without a checkpoint; start it "
                "anew without resume"
            )
        try:
            arrays = _read_arrays(path)
            values = json.loads(str(arrays.pop("progress")))
            progress = Progress(**{**values, "rows": tuple(values["rows"])})
            self._assign(arrays)
        except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: expected the checkpoint of a training of this network. Received one that "
                f"cannot be used ({type(error).__name__}: {error}); start anew without resume"
            ) from error
        return progress

    def _assign(self, arrays: dict[str, NDArray[Any]]) -> None:
        shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        if shapes != {name: array.shape for name, array in arrays.items()}:
            raise ValueError("the weights have other shapes")
        for name, variable in self.variables.items():
            variable.assign(arrays[name])

    def _save_model(self, name: str) -> None:
        with atomic(self.folder / name) as temporary:
            self.model.save(temporary)

    def _write_history(self, rows: tuple[dict[str, Any], ...]) -> None:
        path = self.folder / HISTORY
        with atomic(path) as temporary, temporary.open("w", newline="") as stream:
            table = csv.DictWriter(stream, rows[0].keys())
            table.writeheader()
            table.writerows(rows)

    def _summarise(self, progress: Progress, picture: NDArray[np.uint8] | None) -> None:
        row = progress.rows[-1]
        with self.summaries.as_default(step=progress.step):
            for name in ("loss", "score", "learning_rate", "skipped_updates"):
                if row[name] is not None:
                    tf.summary.scalar(name, row[name])
            if picture is not None:
                tf.summary.image("validation", picture[None])
        self.summaries.flush()


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)
