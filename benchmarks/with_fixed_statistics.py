"""`python -m benchmarks.with_fixed_statistics ARGUMENTS`: keras-unet with fixed batch statistics.

In the later part of the training, batch normalization takes the averages that it has collected, as
in the prediction, in place of the statistics of each tile. For the comparison of training options,
with `--norm-layer batch`.
"""

from __future__ import annotations

from typing import Any

from keras_unet.backend import tf
from keras_unet.cli import main
from keras_unet.training import gradients
from keras_unet.training.schedule import Schedule

SHARE = 0.4
"""Share of the training after which the statistics are fixed."""

normalize, rate_of = gradients._BatchNormalization.call, Schedule.rate  # noqa: SLF001
is_fixed = tf.Variable(False, trainable=False)


def with_fixed_statistics(
    self: Any, features: Any, training: bool = False, mask: Any = None
) -> Any:
    """Normalizes by the statistics of the tile or, later in the training, by their averages."""
    if not training:
        return normalize(self, features, training, mask)
    return tf.cond(
        is_fixed,
        lambda: self.norm(features, training=False),
        lambda: normalize(self, features, training, mask),
    )


def rate(self: Schedule, progress: float) -> float:
    """Returns the learning rate, and fixes the statistics when it is time."""
    is_fixed.assign(progress >= SHARE)
    return rate_of(self, progress)


if __name__ == "__main__":
    gradients._BatchNormalization.call = with_fixed_statistics  # noqa: SLF001
    Schedule.rate = rate  # type: ignore[method-assign]
    main()
