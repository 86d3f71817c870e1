"""Shortcuts give what the long way gives, by Keras' own layers and optimiser as oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, tf
from keras_unet.model import unet_of
from keras_unet.precision import Precision, precision_policy
from keras_unet.shortcuts import Momentum, with_quick_crops

NETWORK = Architecture(depth=2, base_filters=4, dropout=0)
SIZE = 60


def network(precision: Precision = "float32", **given: Any) -> Any:
    keras.utils.set_random_seed(0)
    with precision_policy(precision):
        return unet_of(Architecture(**{**vars(NETWORK), **given}))


def gradients(model: Any, image: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        logits = model(image, training=True)
        loss = tf.reduce_mean(tf.sin(logits))
    return [logits, *tape.gradient(loss, model.trainable_variables)]


def image_of(size: int) -> Any:
    return tf.constant(np.random.default_rng(0).standard_normal((2, size, size, 1), np.float32))


class TestQuickCrops:
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_give_the_same_scores_and_gradients_to_the_bit(self, precision: Precision) -> None:
        model, image = network(precision), image_of(SIZE)
        quick = gradients(with_quick_crops(model), image)
        for one, other in zip(quick, gradients(model, image), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_leave_no_gradient_of_a_slice(self) -> None:
        def kinds(model: Any) -> set[str]:
            graph = tf.function(lambda image: gradients(model, image)).get_concrete_function(
                image_of(SIZE)
            )
            return {operation.type for operation in graph.graph.get_operations()}

        model = network()
        assert "StridedSliceGrad" in kinds(model)
        assert "StridedSliceGrad" not in kinds(with_quick_crops(model))

    @pytest.mark.parametrize("given", [{}, {"padding": "same"}, {"normalization": "batch"}])
    def test_share_all_variables(self, given: dict[str, Any]) -> None:
        model = network(**given)
        quick = with_quick_crops(model)
        assert [id(one) for one in quick.variables] == [id(one) for one in model.variables]


class TestMomentum:
    @pytest.mark.parametrize("wrapped", [lambda one: one, keras.optimizers.LossScaleOptimizer])
    def test_updates_as_that_of_keras_does(self, wrapped: Callable[[Any], Any]) -> None:
        random = np.random.default_rng(0)
        start = random.standard_normal((5, 7), np.float32)
        optimizers = [
            wrapped(one)
            for one in (Momentum(0.9), keras.optimizers.SGD(0.0, momentum=0.9, nesterov=True))
        ]
        variables = [keras.Variable(start) for _ in optimizers]
        for optimizer, variable in zip(optimizers, variables, strict=True):
            optimizer.build([variable])
        for rate in (0.1, 0.3, 0.0, 0.2):
            gradient = tf.constant(random.standard_normal(start.shape, np.float32))
            for optimizer, variable in zip(optimizers, variables, strict=True):
                optimizer.learning_rate = rate
                optimizer.apply([optimizer.scale_loss(gradient)], [variable])
        quick, plain = (
            [one.numpy() for one in (*optimizer.variables, variable)]
            for optimizer, variable in zip(optimizers, variables, strict=True)
        )
        for one, other in zip(quick, plain, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert np.abs(quick[-1] - start).max() > 0.1
