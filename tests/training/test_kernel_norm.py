"""Normalization of kernels in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_unet.backend import keras, tf
from keras_unet.model import build_unet
from keras_unet.training.gradients import FusedAdam, FusedSGD
from keras_unet.training.initial import Initial
from keras_unet.training.kernel_norm import (
    has_normalized_kernels,
    normalize_kernel,
    normalized_variables,
)
from keras_unet.training.loop import training_step
from keras_unet.training.options import ResolvedOptions, TrainingOptions
from keras_unet.training.schedule import Schedule
from keras_unet.training.train import train_folder

OPTIMIZERS = ["adam", "sgd"]


def tiny():
    keras.utils.set_random_seed(0)
    return build_unet((None, None, 1), depth=1, base_filters=4)


def batch():
    random = np.random.default_rng(0)
    image = random.normal(size=(1, 60, 60, 1)).astype(np.float32)
    y_true = np.stack([random.integers(0, 2, (1, 44, 44)), np.ones((1, 44, 44))], axis=-1)
    return tf.constant(image), tf.constant(y_true, tf.float32)


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 99), st.floats(-5, 5), st.floats(0.1, 9)
)
def test_each_feature_gets_mean_0_and_norm_sqrt_2(incoming, features, seed, shift, factor):
    kernel = np.random.default_rng(seed).normal(size=(3, 3, incoming, features))
    found = normalize_kernel(tf.constant(factor * kernel + shift)).numpy()
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose((found**2).sum((0, 1, 2)), 2)
    np.testing.assert_allclose(normalize_kernel(tf.constant(kernel)).numpy(), found, atol=1e-9)


def test_weights_that_are_all_equal_become_0():
    assert not normalize_kernel(tf.fill((3, 3, 2, 1), 0.5)).numpy().any()


def test_the_first_convolution_and_those_of_other_sizes_are_left_out():
    names = {variable.path.split("/")[-2] for variable in normalized_variables(tiny())}
    assert names == {
        *("level0_down_conv2", "bottom_conv1", "bottom_conv2", "level0_up_conv1"),
        "level0_up_conv2",
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_kernels_are_normalized_after_a_step(optimizer):
    model, schedule = tiny(), Schedule(optimizer=optimizer, normalize_kernels=True)
    assert not has_normalized_kernels(model)
    training_step(model, schedule)(*batch(), 0.01)
    assert has_normalized_kernels(model)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_other_weights_are_those_of_the_plain_optimizer(optimizer):
    models = tiny(), tiny()
    for model, normalized in zip(models, (True, False), strict=True):
        schedule = Schedule(optimizer=optimizer, normalize_kernels=normalized)
        training_step(model, schedule)(*batch(), 0.01)
    kernels = {variable.path for variable in normalized_variables(models[0])}
    for ours, plain in zip(*(model.trainable_variables for model in models), strict=True):
        expected = normalize_kernel(plain.value) if ours.path in kernels else plain
        np.testing.assert_allclose(ours.numpy(), np.asarray(expected), atol=1e-6)


def test_an_optimizer_normalizes_nothing_unless_told():
    assert FusedAdam().normalized == FusedSGD(0.9).normalized == frozenset()


def test_a_network_with_one_other_kernel_is_not_taken_for_normalized():
    model = tiny()
    for variable in normalized_variables(model):
        variable.assign(normalize_kernel(variable.value))
    assert has_normalized_kernels(model)
    last = normalized_variables(model)[-1]
    last.assign(1.1 * last.value)
    assert not has_normalized_kernels(model)


def test_kernels_are_normalized_by_default_but_not_in_older_runs():
    assert TrainingOptions().normalize_kernels
    recorded = ResolvedOptions(steps=1).to_dict()
    del recorded["normalize_kernels"]
    assert not ResolvedOptions.from_dict(recorded).normalize_kernels


def test_a_training_goes_on_with_kernels_as_the_model_has_them(cells, tmp_path):
    small = {"depth": 1, "base_filters": 4, "steps": 2}
    for normalized in (True, False):
        options = TrainingOptions(**small, normalize_kernels=normalized)
        run = train_folder(cells, tmp_path / f"{normalized}", options)
        initial = Initial.of(run.folder)
        assert initial.options(TrainingOptions()).normalize_kernels is normalized
        opposite = TrainingOptions(normalize_kernels=not normalized)
        with pytest.raises(ValueError, match="normalize_kernels must be that of"):
            initial.options(opposite, given=["normalize_kernels"])
