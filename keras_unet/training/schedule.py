"""Schedule of a training (length, optimizer, learning rate) and its progress, without TensorFlow.

A `Progress` is an immutable value; every batch and every validation returns the next one. Training
depends on the progress and the schedule alone, so a run whose progress is saved with its weights
continues as if it had not been interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import cos, inf, isfinite, pi
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Optimizer = Literal["sgd", "adam"]

_MOST_VALIDATING = 0.1  # share of the time


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length, optimizer and learning rate of a training.

    Example:
        >>> schedule = Schedule(steps=1000, learning_rate=0.01, warmup=0.1)
        >>> shares = [schedule.progress(step, seconds=0) for step in (0, 50, 100, 550, 1000)]
        >>> [round(schedule.rate(share), 4) for share in shares]
        [0.0, 0.005, 0.01, 0.005, 0.0]

    Attributes:
        steps: Number of updates; None if only the time is limited.
        max_minutes: Time limit in minutes. The limit reached first ends the training, and the
            learning rate has decayed by then.
        optimizer: "sgd" with Nesterov momentum, or "adam".
        learning_rate: The highest learning rate, reached after the warm-up.
        momentum: Momentum of SGD. The paper takes 0.99.
        normalize_kernels: Whether kernels are normalized after each update, see
            `keras_unet.training.kernel_norm`. The paper does not.
        warmup: Share of the training in which the learning rate rises from 0.
        clip_norm: Bound of the global norm of the gradient.
        validations: Number of validations, evenly spaced over the training; fewer if time alone is
            limited and they would take more than a tenth of it.
        patience: Validations without a better score after which training ends; None for no such
            limit.
        final_share: Share of the training, at its end, in which the images held out are trained on
            as well. The last validation with a score is at its start.
        validates_start: Whether the first validation comes before the first step, for a training
            that starts from a model.
    """

    steps: int | None = 2500
    max_minutes: float | None = None
    optimizer: Optimizer = "sgd"
    learning_rate: float = 1e-2
    momentum: float = 0.99
    normalize_kernels: bool = False
    warmup: float = 0.05
    clip_norm: float = 1.0
    validations: int = 20
    patience: int | None = None
    final_share: float = 0.0
    validates_start: bool = False

    def __post_init__(self) -> None:
        """Validates the numbers.

        Raises:
            ValueError: If a number is out of range, or both limits are None.
        """
        if self.steps is None and self.max_minutes is None:
            raise ValueError("steps or max_minutes must be given. Received: neither")
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(
                f'optimizer must be "sgd" or "adam". Received: optimizer={self.optimizer!r}'
            )
        for name in ("steps", "max_minutes", "learning_rate", "clip_norm", "validations"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise ValueError(
                    f"{name} must be greater than 0 and finite. Received: {name}={value}"
                )
        for name in ("momentum", "warmup", "final_share"):
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
        """Returns whether the next validation is due."""
        if self.validates_start and not progress.rows:
            return True
        done = self.progress(progress.step, progress.seconds)
        if done >= 1 - self.final_share > progress.validated:
            return True
        by_time_alone = self.steps is None and done < 1
        if by_time_alone and progress.validating > _MOST_VALIDATING * progress.seconds:
            return False
        return int(done * self.validations) > int(progress.validated * self.validations)

    def is_final(self, progress: Progress) -> bool:
        """Returns whether the images held out are trained on as well."""
        return self.final_share > 0 and progress.validated >= 1 - self.final_share

    def is_over(self, progress: Progress) -> bool:
        """Returns whether the training has had its last validation, or is out of patience."""
        done = self.progress(progress.step, progress.seconds)
        return self.is_out_of_patience(progress) or (done >= 1 and not self.is_due(progress))

    def is_out_of_patience(self, progress: Progress) -> bool:
        """Returns whether `patience` validations have brought no better score."""
        return self.patience is not None and progress.stale >= self.patience


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes:
        score: Score, the higher the better; None without images held out.
        warning: Warning to log, such as of a network that predicts a single class; or None.
        picture: uint8 RGB picture of shape `(height, width, 3)` for TensorBoard, or None.
    """

    score: float | None = None
    warning: str | None = None
    picture: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Progress:
    """Progress of a training.

    Attributes:
        step: Number of batches.
        seconds: Time in seconds, over all sessions of the run.
        rate: Learning rate of the latest batch.
        loss: Exponential moving average of the loss.
        skipped: Updates that were not applied because their gradient was not finite.
        score: Latest validation score.
        best_score: Highest validation score.
        stale: Validations since the highest score.
        validated: Share of the training that was done at the latest validation, 0 to 1.
        validating: Time in seconds of all validations.
        loss_sum: Sum of the losses since the latest validation.
        loss_count: Number of these losses.
        rows: History: one dictionary per validation.
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
    validating: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def is_start_best(self) -> bool:
        """Returns whether no validation has had a higher score than that before the first step."""
        starts = [row["score"] for row in self.rows[:1] if row["step"] == 0]
        return self.best_score is not None and self.best_score in starts

    @property
    def is_best(self) -> bool:
        """Returns whether the latest validation is the best; always true without scores."""
        return self.best_score is None or (self.score is not None and self.stale == 0)

    def after_step(self, loss: float, applied: bool, rate: float, seconds: float) -> Progress:
        """Returns the progress after one more batch."""
        is_counted = applied and isfinite(loss)
        smooth = loss if self.loss == inf else 0.95 * self.loss + 0.05 * loss
        return replace(
            self,
            step=self.step + 1,
            seconds=seconds,
            rate=rate,
            loss=smooth if is_counted else self.loss,
            skipped=self.skipped + (not applied),
            loss_sum=self.loss_sum + (loss if is_counted else 0.0),
            loss_count=self.loss_count + is_counted,
        )

    def after_validation(self, score: float | None, validated: float, seconds: float) -> Progress:
        """Returns the progress after a validation, with a new row of history."""
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
            validating=self.validating + seconds - self.seconds,
            loss_sum=0.0,
            loss_count=0,
            rows=(*self.rows, row),
        )


def describe_progress(progress: Progress) -> str:
    """Formats the step, loss and score of a training.

    Example:
        >>> describe_progress(Progress(step=9, loss=0.25))
        'step 9, loss 0.2500'
    """
    score = "" if progress.score is None else f", score {progress.score:.4f}"
    return f"step {progress.step}, loss {progress.loss:.4f}{score}"


def describe_validation(progress: Progress) -> str:
    """Formats the result of the latest validation.

    Example:
        >>> describe_validation(Progress().after_validation(0.5, validated=0.1, seconds=3))
        'step 0: loss -, score 0.5000 (the best so far)'
    """
    row = progress.rows[-1]
    loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
    if row["score"] is None:
        return f"step {row['step']}: loss {loss}"
    best = "the best so far" if progress.stale == 0 else f"best {progress.best_score:.4f}"
    return f"step {row['step']}: loss {loss}, score {row['score']:.4f} ({best})"
