"""Shortcuts give what the long way gives, by Keras' own layers and optimiser as oracle."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.backend import Precision, keras, precision_policy, tf, uses_onednn
from keras_unet.model import unet_of
from keras_unet.training.gradients import FusedAdam, FusedSGD, with_fast_gradients

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


def copy_in_float64(model: Any) -> Any:
    configuration = model.get_config()
    for layer in configuration["layers"]:
        layer["config"]["dtype"] = "float64"
    exact = type(model).from_config(configuration)
    exact.set_weights(model.get_weights())
    return exact


def exact_gradients(model: Any, image: Any) -> list[Any]:
    """Returns the gradients of the same network in float64."""
    return gradients(copy_in_float64(model), tf.cast(image, tf.float64))


def distance(gradient: Any, exact: Any) -> float:
    return float(np.linalg.norm(np.asarray(gradient, np.float64) - np.asarray(exact)))


def image_of(size: int) -> Any:
    return tf.constant(np.random.default_rng(0).standard_normal((2, size, size, 1), np.float32))


WIDE = {"depth": 1, "base_filters": 128}
KINDS = [{}, {"padding": "same"}, {"norm_layer": "group"}, WIDE, {**WIDE, "padding": "same"}]


def kinds(model: Any) -> list[str]:
    """Lists the kinds of operations in the graph of the gradients."""
    traced = tf.function(lambda image: gradients(model, image))
    graph = traced.get_concrete_function(image_of(SIZE)).graph
    return [operation.type for operation in graph.get_operations()]


@pytest.fixture(params=[True, False], ids=["oneDNN", "Eigen"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Selects the gradients for TensorFlow with or without oneDNN."""
    monkeypatch.setattr("keras_unet.training.gradients.uses_onednn", lambda: request.param)
    return bool(request.param)


@pytest.mark.usefixtures("onednn")
class TestShortcuts:
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("given", KINDS)
    def test_give_the_same_scores_to_the_bit_and_gradients_as_exact_as_those_of_keras(
        self, given: dict[str, Any], precision: Precision, onednn: bool
    ) -> None:
        model, image = network(precision, **given), image_of(SIZE)
        quick, plain = gradients(with_fast_gradients(model), image), gradients(model, image)
        np.testing.assert_array_equal(quick[0], plain[0])
        expected = exact_gradients(model, image)
        digits = np.finfo(np.float32).eps if precision == "float32" else 2.0**-8
        factor = 3.0 if uses_onednn() and not onednn else 1.5  # oneDNN's sums round less
        rounding = digits * max(float(np.linalg.norm(exact)) for exact in expected[1:])
        for one, other, exact in zip(quick, plain, expected, strict=True):
            last_digit = np.finfo(np.float32).eps * np.linalg.norm(exact)
            limit = factor * distance(other, exact) + last_digit
            if not onednn and np.linalg.norm(exact) < 1e-9:  # of a bias before a normalization
                limit = max(limit, rounding)  # both are rounding alone
            assert distance(one, exact) <= limit

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_normalize_batches_as_exactly_as_keras(self, precision: Precision) -> None:
        model, image = network(precision, norm_layer="batch"), image_of(SIZE)
        exact = copy_in_float64(model)
        plain = keras.models.clone_model(model)
        plain.set_weights(model.get_weights())
        quick = with_fast_gradients(model)
        found, of_keras = gradients(quick, image), gradients(plain, image)
        expected = gradients(exact, tf.cast(image, tf.float64))
        for of_quick, of_plain, of_exact in (
            (found, of_keras, expected),
            (
                model.non_trainable_variables,
                plain.non_trainable_variables,
                exact.non_trainable_variables,
            ),
        ):
            norms = [float(np.linalg.norm(one)) for one in of_exact]
            rounding = np.finfo(np.float32).eps * max(norms)
            for one, other, best in zip(of_quick, of_plain, of_exact, strict=True):
                assert distance(one, best) <= 2 * distance(other, best) + 10 * rounding
        np.testing.assert_array_equal(quick(image), model(image))

    @pytest.mark.parametrize("padding", ["valid", "same"])
    def test_give_them_for_tiles_and_batches_of_any_size(self, padding: str) -> None:
        model = network(**WIDE, padding=padding)
        quick = with_fast_gradients(model)
        open_sizes = [tf.TensorSpec((None, None, None, 1), tf.float32)]
        traced = tf.function(lambda image: gradients(quick, image), input_signature=open_sizes)
        for size in (20, 36):
            image = image_of(size)
            for one, other in zip(traced(image), gradients(model, image), strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * np.abs(other).max())

    def test_take_the_slow_gradients_away(self, onednn: bool) -> None:
        model = network(**WIDE)
        assert {"StridedSliceGrad", "Conv2DBackpropFilter"} <= set(kinds(model))
        quick = kinds(with_fast_gradients(model))
        assert "StridedSliceGrad" not in quick
        # With oneDNN of an image and of logits, which have few features; else of logits alone.
        assert quick.count("Conv2DBackpropFilter") == (2 if onednn else 1)
        if not onednn:  # the up-convolution, and the gradient of logits
            assert quick.count("Conv2DBackpropInput") == 2

    def test_are_of_crops_alone_on_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = network(**WIDE)
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"])
        quick = kinds(with_fast_gradients(model))
        assert "StridedSliceGrad" not in quick
        assert quick.count("Conv2DBackpropFilter") == kinds(model).count("Conv2DBackpropFilter")

    @pytest.mark.parametrize("given", [*KINDS, {"norm_layer": "batch"}])
    def test_share_all_variables(self, given: dict[str, Any]) -> None:
        model = network(**given)
        quick = with_fast_gradients(model)
        assert [id(one) for one in quick.variables] == [id(one) for one in model.variables]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for x86")
@pytest.mark.parametrize(("setting", "expected"), [("0", "False"), ("1", "True")])
def test_the_gradients_depend_on_the_library_that_tensorflow_uses(
    setting: str, expected: str
) -> None:
    program = "from keras_unet.backend import uses_onednn; print(uses_onednn())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": setting},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == expected


class TestOptimizers:
    @pytest.mark.parametrize("wrapped", [lambda one: one, keras.optimizers.LossScaleOptimizer])
    @pytest.mark.parametrize(
        ("fused", "of_keras"),
        [
            (lambda: FusedSGD(0.9), lambda: keras.optimizers.SGD(0.0, 0.9, nesterov=True)),
            (FusedAdam, lambda: keras.optimizers.Adam(0.0)),
        ],
        ids=["sgd", "adam"],
    )
    def test_update_as_those_of_keras_do(
        self,
        fused: Callable[[], Any],
        of_keras: Callable[[], Any],
        wrapped: Callable[[Any], Any],
    ) -> None:
        random = np.random.default_rng(0)
        start = random.standard_normal((5, 7), np.float32)
        optimizers = [wrapped(fused()), wrapped(of_keras())]
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
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        assert np.abs(quick[-1] - start).max() > 0.1
