"""Epochs that fit into the minutes, for contenders that are trained by `keras.Model.fit`.

A trial of a few steps and a validation is timed; it is part of the training. Then validations may
take a tenth of the time, and the epochs are at least 10. The learning rate is reduced after a tenth
of the epochs without a better validation loss.
"""

from __future__ import annotations

import time
from typing import Any

import keras

from benchmarks.rivals.job import Clock

TRIAL = 6  # steps, the first two of which are not timed, since they are compiled
FEWEST_EPOCHS = 10
MOST_VALIDATION = 0.1  # share of the time


class Timer(keras.callbacks.Callback):  # type: ignore[misc]
    """Times steps and validations; ends the training when the time is over.

    Attributes:
        clock: Clock of the training loop.
        ends: Time at the end of each step.
        validation: Seconds of the latest validation.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.ends: list[float] = []
        self.validation = 0.0
        self._validation_began = 0.0

    @property
    def steps(self) -> int:
        """Number of updates."""
        return len(self.ends)

    def length(self, most: int) -> tuple[int, int]:
        """Returns epochs, at most `most`, and steps per epoch, for the rest of the time.

        Zero epochs if the time is over.
        """
        left = self.clock.limit - self.clock.seconds
        if left <= 0 or self.steps < TRIAL:
            return 0, 0
        step = (self.ends[-1] - self.ends[1]) / (self.steps - 2)
        by_validation = int(MOST_VALIDATION * left / self.validation)
        epochs = min(most, max(FEWEST_EPOCHS, by_validation))
        return epochs, max(1, int((left / epochs - self.validation) / step))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Records a step."""
        del batch, logs
        self.ends.append(time.monotonic())
        if self.clock.is_over:
            self.model.stop_training = True

    def on_test_begin(self, logs: Any = None) -> None:
        """Begins to time a validation."""
        del logs
        self._validation_began = time.monotonic()

    def on_test_end(self, logs: Any = None) -> None:
        """Records the seconds of a validation."""
        del logs
        self.validation = time.monotonic() - self._validation_began


def patience(epochs: int) -> int:
    """Returns the epochs without a better loss after which the learning rate is reduced."""
    return max(1, epochs // 10)
