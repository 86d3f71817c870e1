"""The paper's training made dependable: SGD with momentum 0.99, one large tile a batch.

Added to the paper, because without them training collapses now and then: warm-up, a bound on the
gradient's norm, Nesterov's form of the momentum, and a cosine decay that ends with the training,
whether its length is given in steps or in minutes. An update whose gradient is not finite is never
applied; it is counted.

The loop is written out rather than given to `Model.fit`, so that a step can be refused, the
schedule can follow the clock, and everything a resumed run needs lies in one file. What happens
next depends on a Progress alone, which is saved with the weights: a run that was interrupted
anywhere goes on as if it had not been.

Where several devices or machines train together (`keras_unet.training.distribute`), each batch is
dealt out to them, and what is said here of the gradient and its norm holds of the sum over all.
Clock, score and files are the chief's.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import Any, Self

from keras_unet.backend import keras, tf
from keras_unet.console import Task
from keras_unet.files import PathLike, make_folder
from keras_unet.losses import WeightedCrossEntropy
from keras_unet.training.checkpoint import PLAIN, Logged, RunFiles
from keras_unet.training.distribute import SINGLE, Cluster, copy_weights, reseed_dropout
from keras_unet.training.gradients import FusedSGD, with_fast_gradients
from keras_unet.training.schedule import (
    Progress,
    Schedule,
    Validation,
    describe_progress,
    describe_validation,
)

_log = logging.getLogger(__name__)

_PERCENT = 100


def fit(
    model: Any,
    batches: Callable[[int], Any],
    plan: Schedule,
    *,
    folder: PathLike,
    validate: Callable[[Any], Validation] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    resume: bool = False,
    cluster: Cluster | None = None,
    logged: Logged = PLAIN,
) -> TrainingHistory:
    """Trains a model and leaves `best.keras`, `last.keras` and `history.csv` in the run folder.

    Ctrl-C ends the training, and a validation under way: the last model and the checkpoint are
    written before the function returns, and `resume=True` goes on from there.

    Args:
        model: A network of `build_unet`.
        batches: Gives the endless data set of `(image, y_true)` from a batch number on, as
            `build_dataset` does with its argument `first`; of each batch this worker's part.
        plan: How long and how fast.
        folder: The run's folder, created where missing.
        validate: Looks at the model and returns a score; None for none.
        callbacks: Keras callbacks. A batch is a step, whose logs are the `learning_rate` and the
            mean `loss` of the latest steps; an epoch is what lies between two validations, and its
            logs are the row of `history.csv`.
            Where several devices train, the model's weights are renewed at validations. A callback
            that sets `model.stop_training` ends the training as Ctrl-C does.
        resume: Goes on from the folder's checkpoint.
        cluster: What trains together; None for this process alone.
            The chief writes to its folder; the others need none of its
            files, nor `validate`, `callbacks` and `resume`.
        logged: What TensorBoard shows besides curves and pictures.

    Returns:
        The history: a list of values for each column of `history.csv`, one a validation, of all
        sessions of the run; and the final progress.

    Raises:
        ConnectionError: If another worker is gone; the chief has written a checkpoint.
        FileNotFoundError: If there is no checkpoint to resume from.
        OSError: If the folder cannot be written.
        ValueError: If the checkpoint is damaged or of another network, or the data set ends.
    """
    cluster = cluster or SINGLE
    team = _Team.of(cluster, model, plan, Path(folder), logged)
    progress = team.begin(resume=resume)
    if not resume:
        team.write(team.files.curves.begin)
    history, told = _history(model, plan, progress, callbacks)
    update = _update_function(team.replicas, team.optimizer, plan.clip_norm, cluster)
    stream = _endless(batches, progress.step)
    started = time.monotonic() - progress.seconds
    try:
        while not plan.is_over(progress) and not model.stop_training:
            if plan.is_due(progress):
                seen = team.look(validate or _no_validation, progress)
                with _uninterrupted():
                    seconds = cluster.broadcast_number(time.monotonic() - started)
                    progress = _after_validation(plan, progress, seen, seconds)
                    team.write(team.files.record, progress, seen.picture)
                    team.describe(progress, seen)
                told.on_epoch_end(len(progress.rows) - 1, dict(progress.rows[-1]))
            else:
                rate = plan.rate(plan.progress(progress.step, progress.seconds))
                with _uninterrupted():
                    image, y_true = next(stream)
                with _uninterrupted():
                    loss, applied = update(image, y_true, rate)
                    progress = progress.after_step(loss, applied, rate, progress.seconds)
                    seconds = cluster.broadcast_number(time.monotonic() - started)
                    progress = replace(progress, seconds=seconds)
                told.on_train_batch_end(
                    progress.step - 1, {"loss": progress.loss, "learning_rate": rate}
                )
            team.show(progress)
    except KeyboardInterrupt:
        with _uninterrupted():
            team.log("Interrupted: writing the last model; --resume goes on from here.")
            team.write(team.files.save_checkpoint, progress)
    except ConnectionError:  # another worker is gone
        with _uninterrupted():
            team.write(team.files.save_checkpoint, progress)
        raise
    finally:
        team.task.end()
    with _uninterrupted():
        team.write(team.files.save_last, progress)
    if plan.is_out_of_patience(progress):
        team.log(f"No better score in {progress.stale} validations: training ends here.")
    told.on_train_end()
    history.progress = progress
    return history


def _no_validation(_: Any) -> Validation:
    return Validation()


class TrainingHistory(keras.callbacks.History):  # type: ignore[misc]  # Keras is untyped
    """Keras' history of a training, one value a validation.

    Attributes:
        progress: Where the training stands.
    """

    def __init__(self, progress: Progress) -> None:
        """Takes up the validations of earlier sessions."""
        super().__init__()
        self.progress = progress

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins with the validations that the run has had."""
        super().on_train_begin(logs)
        for epoch, row in enumerate(self.progress.rows):
            self.on_epoch_end(epoch, dict(row))


def _history(
    model: Any,
    plan: Schedule,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[TrainingHistory, Any]:
    """Begins the history, and the list of all callbacks."""
    history = TrainingHistory(progress)
    every = [history, *callbacks]
    told = keras.callbacks.CallbackList(every, model=model, plan=plan, epochs=plan.validations)
    model.stop_training = False
    told.on_train_begin()
    return history, told


def training_step(model: Any, plan: Schedule) -> Callable[[Any, Any, float], tuple[float, bool]]:
    """Makes the function of `fit` that takes one batch in, on its own, to be timed.

    Args:
        model: A network of `build_unet`.
        plan: FusedSGD and bound of the gradient are taken from it.

    Returns:
        A function from image, `y_true` and learning rate to the loss and whether it was applied.
    """
    return _update_function(model, _optimizer(model, plan), plan.clip_norm, SINGLE)


@dataclass(frozen=True, eq=False)
class _Team:
    """Replicas of a model that train together, and the files that the chief writes."""

    cluster: Cluster
    model: Any
    plan: Schedule
    replicas: Any
    optimizer: Any
    files: RunFiles
    task: Task

    @classmethod
    def of(cls, cluster: Cluster, model: Any, plan: Schedule, folder: Path, logged: Logged) -> Self:
        replicas = cluster.replicated(model)
        with cluster.strategy.scope():
            optimizer = _optimizer(replicas, plan)
        files = RunFiles(make_folder(folder), model, optimizer, logged)
        task = Task("training", _PERCENT, counts="compiling", logged=False)
        return cls(cluster, model, plan, replicas, optimizer, files, task)

    def begin(self, *, resume: bool) -> Progress:
        """Brings all workers to where the chief begins."""
        progress = self.files.restore() if resume else Progress()
        values = json.loads(self.cluster.broadcast_text(json.dumps(asdict(progress))))
        self.cluster.share(self.files.variables)
        copy_weights(self.model, self.replicas)
        reseed_dropout(self.cluster, self.replicas)
        progress = Progress(**{**values, "rows": tuple(values["rows"])})
        self.task.before = self.task.completed = self._percent(progress)
        if self.cluster.is_chief:
            self.task.start()
        return progress

    def show(self, progress: Progress) -> None:
        """Shows where the training stands."""
        self.task.update(self._percent(progress), describe_progress(progress))

    def _percent(self, progress: Progress) -> float:
        return _PERCENT * self.plan.progress(progress.step, progress.seconds)

    def look(self, validate: Callable[[Any], Validation], progress: Progress) -> Validation:
        """Looks at the model, and takes the chief's score."""
        if not progress.rows:  # so that no model is ever without a checkpoint
            with _uninterrupted():
                self.write(self.files.save_checkpoint, progress)
        copy_weights(self.replicas, self.model)
        seen = validate(self.model)
        score = self.cluster.broadcast_number(nan if seen.score is None else seen.score)
        return replace(seen, score=None if isnan(score) else score)

    def describe(self, progress: Progress, seen: Validation) -> None:
        """Logs the result of a validation, and what is odd about the steps before it."""
        self.log(f"{describe_validation(progress)}, {self.task.left} left")
        if seen.warning:
            self.log(seen.warning, logging.WARNING)
        counts = [0, *(row["skipped_updates"] for row in progress.rows)]
        if counts[-1] > counts[-2]:
            self.log(
                f"{counts[-1] - counts[-2]} updates with a non-finite gradient were not applied "
                f"({counts[-1]} of {progress.step} in all)."
            )

    def log(self, message: str, level: int = logging.INFO) -> None:
        """Logs a message, once for all workers."""
        if self.cluster.is_chief:
            _log.log(level, message)

    def write(self, what: Callable[..., None], *facts: Any) -> None:
        """Lets the chief write a file of what the replicas have come to."""
        if self.cluster.is_chief:
            copy_weights(self.replicas, self.model)
            what(*facts)


def _after_validation(
    plan: Schedule, progress: Progress, seen: Validation, seconds: float
) -> Progress:
    return progress.after_validation(seen.score, plan.progress(progress.step, seconds), seconds)


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
    with _undelivered():
        before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _undelivered() -> Iterator[None]:
    """Keeps the signal from this thread and those it starts, where the system knows how to.

    TensorFlow 2.21 cuts tiles by code that XLA has compiled. Interrupted within it, the process
    may die of a damaged heap, even where the signal is only noted down.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _optimizer(model: Any, plan: Schedule) -> Any:
    optimizer = FusedSGD(plan.momentum)
    if any(layer.dtype_policy.name == "mixed_float16" for layer in model.layers):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def _update_function(
    model: Any, optimizer: Any, clip_norm: float, cluster: Cluster
) -> Callable[[Any, Any, float], tuple[float, bool]]:
    """Makes the function that takes one batch in and returns its loss and whether it was applied.

    Where the gradient is not finite, weights, momentum and the statistics of a batch normalization
    stay as they were; only the scale of the loss, where float16 has one, is halved.
    """
    loss, score = WeightedCrossEntropy(), with_fast_gradients(model)
    variables, statistics = model.trainable_variables, model.non_trainable_weights

    def gradients_of(image: Any, y_true: Any) -> Any:
        """Runs on every replica: the loss, a mean over all pixels of the batch, and gradients."""
        with tf.GradientTape() as tape:
            value = loss(cluster.shard(y_true), score(cluster.shard(image), training=True))
            scaled = optimizer.scale_loss(value)
        cluster.average(statistics)
        return cluster.all_reduce([value, *tape.gradient(scaled, variables)])

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def compiled(image: Any, y_true: Any) -> tuple[Any, Any]:
        before = [tf.identity(one) for one in statistics]
        value, *gradients = cluster.run(gradients_of, image, y_true)
        norm, bound = tf.linalg.global_norm(gradients), optimizer.scale_loss(clip_norm)
        finite = tf.math.is_finite(norm)

        def apply() -> Any:
            clipped, _ = tf.clip_by_global_norm(gradients, bound, use_norm=norm)
            optimizer.apply(clipped, variables)
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
        with cluster.catch_worker_loss(model.non_trainable_variables):
            value, applied = compiled(image, y_true)
            return float(value), bool(applied)

    return update
