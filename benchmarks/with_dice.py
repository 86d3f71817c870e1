"""`python -m benchmarks.with_dice ARGUMENTS`: keras-unet with a Dice loss beside the cross-entropy.

The loss of each class but the background is 1 - 2 sum(p y) / (sum(p) + sum(y)), over the pixels of
the batch that are not ignored. For the comparison of training options.
"""

from __future__ import annotations

from typing import Any

from keras_unet.backend import keras
from keras_unet.cli import main
from keras_unet.losses import WeightedCrossEntropy

ops = keras.ops
cross_entropy = WeightedCrossEntropy.call


def with_dice(self: WeightedCrossEntropy, y_true: Any, y_pred: Any) -> Any:
    """Returns the weighted cross-entropy of each pixel, with the Dice loss added to each."""
    counted = ops.cast(y_true[..., 1:2] != 0, self.dtype)
    classes = y_pred.shape[-1]
    probabilities = ops.softmax(ops.cast(y_pred, self.dtype), axis=-1)[..., 1:] * counted
    truth = ops.one_hot(ops.cast(y_true[..., 0], "int32"), classes)[..., 1:] * counted
    axes = [0, 1, 2]
    shared = ops.sum(probabilities * truth, axes)
    total = ops.sum(probabilities, axes) + ops.sum(truth, axes)
    dice = 2 * shared / ops.maximum(total, keras.config.epsilon())
    has_class = ops.cast(ops.sum(truth, axes) > 0, self.dtype)
    loss = ops.sum((1 - dice) * has_class) / ops.maximum(ops.sum(has_class), 1)
    return cross_entropy(self, y_true, y_pred) + loss


if __name__ == "__main__":
    WeightedCrossEntropy.call = with_dice  # type: ignore[method-assign]
    main()
