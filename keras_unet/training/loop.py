"""Training loop: SGD with momentum 0.99, as in the paper, or Adam; one large tile per batch.

Additions to the paper, without which training sometimes collapses: warm-up, a bound on the norm of
the gradient, Nesterov momentum, and a cosine decay that ends with the training, whether its length
is given in steps or in minutes. Updates with a non-finite gradient are counted and not applied.

The loop does not use `Model.fit`, so that an update can be skipped, the schedule can follow the
clock, and one file holds all that a resumed run needs. The next step depends on a `Progress` alone,
which is saved with the weights: an interrupted run continues as if it had not been interrupted.

If several devices or machines train together (`keras_unet.training.distribute`), each batch is
divided among them, and the gradient and its norm are those of the sum. The chief decides on time
and score, and writes the files.
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
from types import FrameType
from typing import Any, Self

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, tf
from keras_unet.console import Task
from keras_unet.files import PathLike, make_folder
from keras_unet.losses import AffinityCrossEntropy, WeightedCrossEntropy
from keras_unet.training.checkpoint import PLAIN, Logged, RunFiles
from keras_unet.training.distribute import SINGLE, Cluster, copy_weights, reseed_dropout
from keras_unet.training.gradients import FusedAdam, FusedSGD, with_fast_gradients
from keras_unet.training.kernel_norm import normalized_variables
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
    schedule: Schedule,
    *,
    folder: PathLike,
    validate: Callable[[Any], Validation] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    resume: bool = False,
    cluster: Cluster | None = None,
    logged: Logged = PLAIN,
    final_batches: Callable[[int], Any] | None = None,
) -> TrainingHistory:
    """Trains a model and writes `best.keras`, `last.keras` and `history.csv` to the run folder.

    Ctrl-C ends the training, also during a validation: the last model and the checkpoint are
    written before the function returns, and `resume=True` continues from there.

    Args:
        model: A network of `build_unet`.
        batches: Function from the number of a batch to the endless data set of `(image, y_true)`
            that starts with it, as `build_dataset` with its argument `first`; on several workers,
            with this worker's part of each batch.
        schedule: Length and learning rate.
        folder: The run's folder, created if missing.
        validate: Function that validates the model; None for no validation.
        callbacks: Keras callbacks. A batch is a step, whose logs are the `learning_rate` and the
            mean `loss` of the latest steps. An epoch lasts from one validation to the next; its
            logs are the row of `history.csv`. If several devices train, the weights of the model
            are updated at validations. A callback that sets `model.stop_training` ends the
            training as Ctrl-C does.
        resume: Whether to continue from the folder's checkpoint.
        cluster: Devices and processes that train together; None for one device. Workers other than
            the chief write nothing and need no `validate`, `callbacks` and `resume`.
        logged: Values to log for TensorBoard besides curves and pictures.
        final_batches: Function as `batches`, for the final share of the schedule, in which nothing
            is validated: batches of all images. None for `batches`.

    Returns:
        The history: the values of each column of `history.csv`, one per validation, of all
        sessions of the run; and the final progress.

    Raises:
        ConnectionError: If another worker was lost; the chief has written a checkpoint.
        FileNotFoundError: If there is no checkpoint to resume from.
        OSError: If the folder cannot be written.
        ValueError: If the checkpoint is damaged or of another network, or the data set ends.
    """
    cluster = cluster or SINGLE
    team = _Team.of(cluster, model, schedule, Path(folder), logged)
    progress = team.begin(resume=resume)
    history, callback_list = _begin_history(model, schedule, progress, callbacks)
    update = _update_function(team.replicas, team.optimizer, schedule.clip_norm, cluster)
    stream = _batches(schedule, batches, final_batches or batches, lambda: progress)
    started = time.monotonic() - progress.seconds
    try:
        with _noted_interrupts() as check_interrupts:
            while not schedule.is_over(progress) and not model.stop_training:
                check_interrupts()
                if schedule.is_due(progress):
                    validation = team.validate(validate or _no_validation, progress)
                    with _uninterrupted():
                        seconds = cluster.broadcast_number(time.monotonic() - started)
                        progress = _after_validation(schedule, progress, validation, seconds)
                        team.write(team.files.record, progress, validation.picture)
                        team.log_validation(progress, validation)
                    callback_list.on_epoch_end(len(progress.rows) - 1, dict(progress.rows[-1]))
                else:
                    rate = schedule.rate(schedule.progress(progress.step, progress.seconds))
                    with _uninterrupted():
                        image, y_true = next(stream)
                    with _uninterrupted():
                        loss, applied = update(image, y_true, rate)
                        progress = progress.after_step(loss, applied, rate, progress.seconds)
                        seconds = cluster.broadcast_number(time.monotonic() - started)
                        progress = replace(progress, seconds=seconds)
                    callback_list.on_train_batch_end(
                        progress.step - 1, {"loss": progress.loss, "learning_rate": rate}
                    )
                team.show(progress)
    except KeyboardInterrupt:
        with _uninterrupted():
            team.log("Interrupted: writing the last model; --resume continues from here.")
            team.write(team.files.save_checkpoint, progress)
    except ConnectionError:  # another worker was lost
        with _uninterrupted():
            team.write(team.files.save_checkpoint, progress)
        raise
    finally:
        team.task.end()
    with _uninterrupted():
        team.write(team.files.save_last, progress)
    if schedule.is_out_of_patience(progress):
        team.log(f"No better score in {progress.stale} validations: training ends here.")
    callback_list.on_train_end()
    history.progress = progress
    return history


def _no_validation(_: Any) -> Validation:
    return Validation()


class TrainingHistory(keras.callbacks.History):  # type: ignore[misc]  # Keras is untyped
    """Keras history of a training, with one value per validation.

    Attributes:
        progress: Progress of the training.
    """

    def __init__(self, progress: Progress) -> None:
        """Starts from the progress of earlier sessions."""
        super().__init__()
        self.progress = progress

    def on_train_begin(self, logs: Any = None) -> None:
        """Adds the validations of earlier sessions."""
        super().on_train_begin(logs)
        for epoch, row in enumerate(self.progress.rows):
            self.on_epoch_end(epoch, dict(row))


def _begin_history(
    model: Any,
    schedule: Schedule,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[TrainingHistory, Any]:
    history = TrainingHistory(progress)
    callback_list = keras.callbacks.CallbackList(
        [history, *callbacks], model=model, schedule=schedule, epochs=schedule.validations
    )
    model.stop_training = False
    callback_list.on_train_begin()
    return history, callback_list


def training_step(
    model: Any, schedule: Schedule
) -> Callable[[Any, Any, float], tuple[float, bool]]:
    """Returns the function that `fit` calls for each batch, to measure its speed.

    Args:
        model: A network of `build_unet`.
        schedule: Schedule, of which optimizer, momentum and bound of the gradient are used.

    Returns:
        Function from image, `y_true` and learning rate to the loss and whether the update was
        applied.
    """
    return _update_function(model, _optimizer(model, schedule), schedule.clip_norm, SINGLE)


@dataclass(frozen=True, eq=False)
class _Team:
    """Replicas of a model that train together, and the files that the chief writes."""

    cluster: Cluster
    model: Any
    schedule: Schedule
    replicas: Any
    optimizer: Any
    files: RunFiles
    task: Task

    @classmethod
    def of(
        cls, cluster: Cluster, model: Any, schedule: Schedule, folder: Path, logged: Logged
    ) -> Self:
        replicas = cluster.replicated(model)
        with cluster.strategy.scope():
            optimizer = _optimizer(replicas, schedule)
        files = RunFiles(make_folder(folder), model, optimizer, logged)
        task = Task("training", _PERCENT, counts="compiling", logged=False)
        return cls(cluster, model, schedule, replicas, optimizer, files, task)

    def begin(self, *, resume: bool) -> Progress:
        """Restores or starts the progress, and gives all workers the chief's."""
        progress = self.files.restore() if resume else Progress()
        values = json.loads(self.cluster.broadcast_text(json.dumps(asdict(progress))))
        self.cluster.share(self.files.variables)
        copy_weights(self.model, self.replicas)
        reseed_dropout(self.cluster, self.replicas)
        progress = Progress(**{**values, "rows": tuple(values["rows"])})
        self.task.before = self.task.completed = self._percent(progress)
        if self.cluster.is_chief:
            self.task.start()
        if not resume:
            self.write(self.files.curves.begin)
        return progress

    def show(self, progress: Progress) -> None:
        """Updates the progress bar."""
        self.task.update(self._percent(progress), describe_progress(progress))

    def _percent(self, progress: Progress) -> float:
        return _PERCENT * self.schedule.progress(progress.step, progress.seconds)

    def validate(self, validate: Callable[[Any], Validation], progress: Progress) -> Validation:
        """Validates the model, with the chief's score on all workers."""
        if not progress.rows:  # so that a checkpoint exists before the first model is written
            with _uninterrupted():
                self.write(self.files.save_checkpoint, progress)
        copy_weights(self.replicas, self.model)
        is_final = self.schedule.is_final(progress)
        validation = Validation() if is_final else validate(self.model)
        local_score = nan if validation.score is None else validation.score
        score = self.cluster.broadcast_number(local_score)
        return replace(validation, score=None if isnan(score) else score)

    def log_validation(self, progress: Progress, validation: Validation) -> None:
        """Logs the result of a validation, its warning, and skipped updates since the last one."""
        self.log(f"{describe_validation(progress)}, {self.task.left} left")
        if validation.warning:
            self.log(validation.warning, logging.WARNING)
        counts = [0, *(row["skipped_updates"] for row in progress.rows)]
        if counts[-1] > counts[-2]:
            self.log(
                f"{counts[-1] - counts[-2]} updates with a non-finite gradient were not applied "
                f"({counts[-1]} of {progress.step} in all)."
            )

    def log(self, message: str, level: int = logging.INFO) -> None:
        """Logs a message on the chief."""
        if self.cluster.is_chief:
            _log.log(level, message)

    def write(self, write_files: Callable[..., None], *arguments: Any) -> None:
        """Writes files of the replicas' weights on the chief."""
        if self.cluster.is_chief:
            copy_weights(self.replicas, self.model)
            write_files(*arguments)


def _after_validation(
    schedule: Schedule, progress: Progress, validation: Validation, seconds: float
) -> Progress:
    share = schedule.progress(progress.step, seconds)
    return progress.after_validation(validation.score, share, seconds)


def _batches(
    schedule: Schedule,
    batches: Callable[[int], Any],
    final_batches: Callable[[int], Any],
    progress: Callable[[], Progress],
) -> Iterator[Any]:
    """Yields the batches of the current share of the schedule."""
    while not schedule.is_final(progress()):
        for batch in _endless(batches, progress().step):
            yield batch
            if schedule.is_final(progress()):
                break
    yield from _endless(final_batches, progress().step)


def _endless(batches: Callable[[int], Any], first: int) -> Iterator[Any]:
    """Yields batches; raises if the data set ends."""
    number = first
    for number, batch in enumerate(batches(first), first + 1):  # noqa: B007 - in the message
        yield batch
    raise ValueError(
        "batches must return an endless data set. "
        f"Received one that ended after batch {number}; call its method repeat()"
    )


@contextmanager
def _noted_interrupts() -> Iterator[Callable[[], None]]:
    """Yields a function that raises KeyboardInterrupt if Ctrl-C was pressed since the start."""
    # Keras converts the logs of callbacks within `except: pass`, where a KeyboardInterrupt is lost.
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if callable(before):
            before(number, frame)

    def check() -> None:
        if noted:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block."""
    # So that an update is always recorded, and a record always has its files. Python interrupts
    # the main thread alone, and only if it handles the signal itself.
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    delayed = []
    with _blocked_sigint():
        before = signal.signal(signal.SIGINT, lambda number, _: delayed.append(number))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
    if delayed:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _blocked_sigint() -> Iterator[None]:
    """Blocks the signal in this thread and those it starts, if the system can."""
    # TensorFlow 2.21 cuts tiles by code compiled with XLA. A signal within it, even if its handler
    # only takes note of it, may end the process by a damaged heap.
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _optimizer(model: Any, schedule: Schedule) -> Any:
    kernels = normalized_variables(model) if schedule.normalize_kernels else []
    paths = {kernel.path for kernel in kernels}
    variables = enumerate(model.trainable_variables)
    normalized = [number for number, variable in variables if variable.path in paths]
    is_adam = schedule.optimizer == "adam"
    optimizer = FusedAdam(normalized) if is_adam else FusedSGD(schedule.momentum, normalized)
    if any(layer.dtype_policy.name == "mixed_float16" for layer in model.layers):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def _update_function(
    model: Any, optimizer: Any, clip_norm: float, cluster: Cluster
) -> Callable[[Any, Any, float], tuple[float, bool]]:
    """Returns the function that applies one batch and returns its loss and whether it was applied.

    If the gradient is not finite, weights, moments and the statistics of batch normalization keep
    their values; only the loss scale of float16 is halved.
    """
    has_affinities = Architecture.of(model).affinities
    loss = AffinityCrossEntropy() if has_affinities else WeightedCrossEntropy()
    logits_of = with_fast_gradients(model)
    variables, statistics = model.trainable_variables, model.non_trainable_weights

    def gradients_of(image: Any, y_true: Any) -> Any:
        """Returns loss and gradients, means over all pixels of the batch, on every replica."""
        with tf.GradientTape() as tape:
            value = loss(cluster.shard(y_true), logits_of(cluster.shard(image), training=True))
            scaled = optimizer.scale_loss(value)
        cluster.average(statistics)
        return cluster.all_reduce([value, *tape.gradient(scaled, variables)])

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def compiled(image: Any, y_true: Any) -> tuple[Any, Any]:
        before = [tf.identity(variable) for variable in statistics]
        value, *gradients = cluster.run(gradients_of, image, y_true)
        norm, bound = tf.linalg.global_norm(gradients), optimizer.scale_loss(clip_norm)
        finite = tf.math.is_finite(norm)

        def apply() -> Any:
            clipped, _ = tf.clip_by_global_norm(gradients, bound, use_norm=norm)
            optimizer.apply(clipped, variables)
            return finite

        def skip() -> Any:
            for variable, value_before in zip(statistics, before, strict=True):
                variable.assign(value_before)
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                optimizer.step_counter.assign(0)
                optimizer.dynamic_scale.assign(tf.maximum(1.0, optimizer.dynamic_scale / 2))
            return finite

        return value, tf.cond(finite, apply, skip)

    def update(image: Any, y_true: Any, rate: float) -> tuple[float, bool]:
        optimizer.learning_rate.assign(rate)
        with cluster.catch_worker_loss(model.non_trainable_variables):
            value, applied = compiled(image, y_true)
            return float(value), bool(applied)

    return update
