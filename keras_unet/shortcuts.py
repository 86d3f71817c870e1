"""Shortcuts of a training step: what TensorFlow computes slowly, computed quickly.

A profile of the step of figure 1 on a processor tells what is worth one (`benchmarks/NOTES.md`).
Neither is ever written to a file: models and checkpoints are those of Keras' own classes.
"""

from __future__ import annotations

from typing import Any

from keras_unet.backend import keras, tf


def with_quick_crops(model: Any) -> Any:
    """Returns a model of the same layers, but for crops, whose gradients take a tenth of the time.

    TensorFlow puts the gradient of a slice into place number by number; padding moves whole rows.

    Args:
        model: A network of `build_unet`, with which the new one shares all variables.
    """
    return keras.models.clone_model(model, clone_function=_quick)


class Momentum(keras.optimizers.SGD):  # type: ignore[misc]  # Keras is untyped
    """SGD with Nesterov's momentum, in one pass over the weights rather than one an operation."""

    def __init__(self, momentum: float) -> None:
        """Begins with a learning rate of 0."""
        super().__init__(0.0, momentum=momentum, nesterov=True)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a TensorFlow variable, and its momentum."""
        momentum = self.momentums[self._get_variable_index(variable)]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=momentum.value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class _Crop(keras.layers.Cropping2D):  # type: ignore[misc]  # Keras is untyped
    def call(self, features: Any) -> Any:
        around = [(0, 0), *self.cropping, (0, 0)]

        @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow is untyped
        def crop(features: Any) -> Any:
            cropped = super(_Crop, self).call(features)
            return cropped, lambda gradient: tf.pad(gradient, around)

        return crop(features)


def _quick(layer: Any) -> Any:
    if isinstance(layer, keras.layers.Cropping2D):
        return _Crop.from_config(layer.get_config())
    return layer
