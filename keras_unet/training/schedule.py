"""Length, learning rate and progress of a training: values, without TensorFlow.

A Progress is a value that every batch and every validation turns into the next one. What happens
next depends on it and the plan alone, so that a run whose Progress is saved with its weights goes
on as if it had never been interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import cos, inf, isfinite, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length and learning rate of a training.

    Example:
        >>> plan = Schedule(steps=1000, learning_rate=0.01, warmup=0.1)
        >>> shares = [plan.progress(step, seconds=0) for step in (0, 50, 100, 550, 1000)]
        >>> [round(plan.rate(share), 4) for share in shares]
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
    """Result of a validation.

    Attributes:
        score: The higher the better; None where there are no validation images.
        warning: What a person should be told at once, such as a single_class_warning to one class.
        picture: uint8 RGB picture of shape `(height, width, 3)` for TensorBoard, or None.
    """

    score: float | None = None
    warning: str | None = None
    picture: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Progress:
    """Progress of a training.

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

    @property
    def is_best(self) -> bool:
        """Tells whether the model just validated is the one to keep: the latest, without scores."""
        return self.best_score is None or (self.score is not None and self.stale == 0)

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


def describe_progress(progress: Progress) -> str:
    """Writes where a training stands.

    >>> describe_progress(Progress(step=9, loss=0.25))
    'step 9, loss 0.2500'
    """
    score = "" if progress.score is None else f", score {progress.score:.4f}"
    return f"step {progress.step}, loss {progress.loss:.4f}{score}"


def describe_validation(progress: Progress) -> str:
    """Writes the result of the latest validation.

    >>> describe_validation(Progress().after_validation(0.5, validated=0.1, seconds=3))
    'step 0: loss -, score 0.5000 (the best so far)'
    """
    row = progress.rows[-1]
    loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
    if row["score"] is None:
        return f"step {row['step']}: loss {loss}"
    best = "the best so far" if progress.stale == 0 else f"best {progress.best_score:.4f}"
    return f"step {row['step']}: loss {loss}, score {row['score']:.4f} ({best})"
