"""The network against figure 1, Keras' own shape inference, and its own arithmetic."""

from __future__ import annotations

import importlib.util
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, precision_policy
from keras_unet.model import build_unet, unet_of

GOLDEN = Path(__file__).parent / "golden"


def load_generator():
    spec = importlib.util.spec_from_file_location("generate", GOLDEN / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figure1():
    keras.utils.set_random_seed(1)
    return build_unet()


def test_defaults_are_figure_1(figure1):
    assert figure1.count_params() == 31_030_658
    assert figure1.input_shape == (None, 572, 572, 1)
    assert figure1.output_shape == (None, 388, 388, 2)
    convolutions = [layer for layer in figure1.layers if type(layer).__name__.startswith("Conv2D")]
    assert len(convolutions) == 23
    assert Architecture.of(figure1) == Architecture()


def test_defaults_are_the_golden_layer_by_layer(figure1, tmp_path):
    generator = load_generator()
    golden = json.loads(generator.GOLDEN.read_text())
    description = generator.describe(figure1)
    assert description == golden
    generator.write(description, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == generator.GOLDEN.read_text()


def test_defaults_of_the_function_are_those_of_the_architecture():
    parameters = inspect.signature(build_unet).parameters
    others = {"input_shape", "weights"}
    defaults = {name: one.default for name, one in parameters.items() if name not in others}
    assert defaults.items() <= Architecture().to_dict().items()


@pytest.mark.parametrize("norm_layer", [None, "batch", "group"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_every_layer_is_keras_own(padding, norm_layer):
    model = build_unet((None, None, 1), base_filters=2, padding=padding, norm_layer=norm_layer)
    assert type(model).__module__.startswith("keras.src.models.")
    for layer in model.layers:
        assert type(layer).__module__.startswith("keras.src.layers.")
        assert keras.saving.get_registered_name(type(layer)) == type(layer).__name__


def test_a_network_for_any_size_has_the_paper_crops(figure1):
    model = build_unet((None, None, 1), base_filters=1)
    crops = {layer.name: layer.cropping for layer in model.layers if "crop" in layer.name}
    assert crops == {
        f"level{level}_crop": ((pixels, pixels),) * 2
        for level, pixels in enumerate((88, 40, 16, 4))
    }
    assert [layer.name for layer in model.layers] == [layer.name for layer in figure1.layers]
    assert model(np.zeros((2, 188, 220, 1))).shape == (2, 4, 36, 2)


def test_the_skip_comes_first_and_before_dropout(figure1):
    join = figure1.get_layer("level3_concatenate")
    before = [tensor._keras_history.operation.name for tensor in join.input]
    assert before == ["level3_crop", "level3_up"]
    crop = figure1.get_layer("level3_crop")
    assert crop.input._keras_history.operation.name == "level3_down_conv2"
    assert figure1.get_layer("level3_up").activation is keras.activations.linear


def incoming_nodes(layer):
    """Pixels that one output pixel sees, times their features; an up-convolution sees one."""
    height, width = layer.kernel_size
    features = layer.input.shape[-1]
    return (
        features if isinstance(layer, keras.layers.Conv2DTranspose) else height * width * features
    )


def test_weights_are_gaussian_of_standard_deviation_sqrt_2_over_n(figure1):
    for layer in figure1.layers:
        if not layer.weights:
            continue
        kernel, bias = (np.asarray(one) for one in layer.get_weights())
        expected = np.sqrt(2 / incoming_nodes(layer))
        # The standard deviation of n Gaussian numbers wavers by 1 / sqrt(2 n) of itself.
        assert kernel.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * kernel.size)), layer.name
        assert abs(kernel.mean()) < 5 * expected / np.sqrt(kernel.size)
        assert not bias.any()
        if kernel.size > 10_000:
            # A Gaussian leaves 0.27 % beyond three standard deviations, a truncated one nothing.
            assert np.mean(np.abs(kernel) > 3 * expected) == pytest.approx(0.0027, rel=0.5)


def test_a_seed_makes_a_network_reproducible():
    models = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(seed)
        models.append(build_unet((None, None, 1), depth=1, base_filters=2).get_weights())
    for first, again in zip(models[0], models[1], strict=True):
        np.testing.assert_array_equal(first, again)
    assert (models[0][0] != models[2][0]).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("norm_layer", [None, "batch", "group"])
def test_logits_are_float32_in_every_precision(precision, norm_layer):
    with precision_policy(precision):
        model = build_unet((20, 20, 1), depth=1, base_filters=2, norm_layer=norm_layer)
    assert model.output.dtype == "float32"
    assert model(np.ones((1, 20, 20, 1))).dtype == "float32"
    assert model.get_layer("level0_up_conv2").compute_dtype == precision
    assert {weight.dtype for weight in model.weights} == {"float32"}


def build_succeeds(architecture, size):
    try:
        return unet_of(architecture, (size, architecture.minimum_size)).output_shape[1]
    except ValueError:
        return None


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_architecture_agrees_with_keras_on_every_size(depth, padding):
    architecture = Architecture(depth=depth, base_filters=1, padding=padding)
    smallest = architecture.minimum_size
    for size in range(max(1, smallest - architecture.step), smallest + architecture.step + 1):
        output = build_succeeds(architecture, size)
        assert architecture.fits(size) == (output is not None)
        if output is not None:
            assert architecture.output_size(size) == output
            assert (size - output) / 2 == architecture.margin


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scores_further_inside_than_the_context_know_nothing_of_beyond(depth, padding):
    """Perturbs all pixels outside of a tile on the lattice and looks which scores change."""
    keras.utils.set_random_seed(depth)
    architecture = Architecture(depth=depth, base_filters=4, padding=padding, dropout=0)
    model = unet_of(architecture)
    context, margin, step = architecture.context, architecture.margin, architecture.step
    size = architecture.fitting_size(2 * context + 2 * step)
    tile = np.random.default_rng(0).normal(size=(1, size, size, 1)).astype(np.float32)
    around = 4 * step
    whole = np.random.default_rng(1).normal(size=(1, size + 2 * around, size + 2 * around, 1))
    whole[:, around:-around, around:-around] = tile
    alone = np.asarray(model(tile))[0]
    inside = np.asarray(model(whole))[0][around:-around, around:-around]
    changed = np.abs(alone - inside).max(-1) > 1e-5
    skip = context - margin
    assert not changed[skip : changed.shape[0] - skip, skip : changed.shape[1] - skip].any()
    if padding == "same":
        # What they know reaches as far as the docstring says; the context rounds it up.
        reach = np.flatnonzero(changed[size // 2])
        assert reach[reach < size // 2].max() + 1 == (8 if depth == 1 else 6 * step - 2)


def test_keras_settings_for_images_have_no_say():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        model = build_unet((None, None, 3), depth=2, base_filters=2)
    finally:
        keras.config.set_image_data_format(before)
    assert model(np.zeros((1, 44, 48, 3))).shape == (1, 4, 8, 2)


@pytest.mark.parametrize(
    ("input_shape", "message"),
    [
        (
            (570, 572, 1),
            (
                'input_shape must be 16k + 12 and at least 188 for depth=4 and padding="valid". '
                "Received: 570; the nearest that fit are 556 and 572"
            ),
        ),
        (
            (None, 180, 1),
            (
                'input_shape must be 16k + 12 and at least 188 for depth=4 and padding="valid". '
                "Received: 180; the nearest that fits is 188"
            ),
        ),
        (
            (572, 572),
            (
                "input_shape must be (height, width, channels) with channels given. "
                "Received: input_shape=(572, 572)"
            ),
        ),
        (
            (572, 572, None),
            (
                "input_shape must be (height, width, channels) with channels given. "
                "Received: input_shape=(572, 572, None)"
            ),
        ),
        (
            572,
            (
                "input_shape must be (height, width, channels) with channels given. "
                "Received: input_shape=572"
            ),
        ),
        (
            (572, 572, -1),
            "channels must be a whole number of at least 1. Received: channels=-1",
        ),
    ],
    ids=str,
)
def test_an_input_of_which_no_network_can_be_built(input_shape, message):
    with pytest.raises(ValueError, match="must be") as refusal:
        build_unet(input_shape)
    assert str(refusal.value) == message
