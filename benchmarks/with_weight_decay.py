"""`python -m benchmarks.with_weight_decay ARGUMENTS`: keras-unet with Adam and weight decay.

The decay is decoupled from the gradient, as in AdamW (I. Loshchilov, F. Hutter, ICLR 2019), and
applied to kernels alone. For the comparison of training options.
"""

from __future__ import annotations

from typing import Any

from keras_unet.cli import main
from keras_unet.training.gradients import FusedAdam

DECAY = 0.05
"""Factor on the learning rate: the share of a kernel that is subtracted at each step."""

update_without_decay = FusedAdam.update_step


def update_with_decay(self: FusedAdam, gradient: Any, variable: Any, learning_rate: Any) -> None:
    """Subtracts a share of a kernel, and updates the variable and its moments."""
    if variable.shape.rank > 1:
        variable.assign_sub(DECAY * learning_rate * variable)
    update_without_decay(self, gradient, variable, learning_rate)


if __name__ == "__main__":
    FusedAdam.update_step = update_with_decay  # type: ignore[method-assign]
    main()
