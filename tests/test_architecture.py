"""The numbers of a U-Net against walking through its layers one by one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.architecture import Architecture

PEERS = Path(__file__).parents[1] / "benchmarks" / "results" / "peers"
FIGURE_1 = Architecture()
architectures = st.builds(
    Architecture, depth=st.integers(1, 6), padding=st.sampled_from(["valid", "same"])
)


def walk(size, architecture):
    """Walks down and up again; returns the output's size, or None where a layer refuses."""
    lost = 4 if architecture.padding == "valid" else 0
    skips = []
    for _ in range(architecture.depth):
        size -= lost
        skips.append(size)
        if size < 2 or size % 2:
            return None
        size //= 2
    size -= lost
    for skip in reversed(skips):
        size *= 2
        if size < 1 or skip < size or (skip - size) % 2:
            return None
        size -= lost
    return size if size > 0 else None


def test_the_defaults_are_figure_1():
    assert (
        Architecture(
            channels=1,
            classes=2,
            depth=4,
            base_filters=64,
            dropout=0.5,
            padding="valid",
            norm_layer=None,
        )
        == FIGURE_1
    )
    assert [FIGURE_1.filters(level) for level in range(5)] == [64, 128, 256, 512, 1024]
    assert [FIGURE_1.crop(level) for level in (3, 2, 1, 0)] == [4, 16, 40, 88]
    assert (FIGURE_1.step, FIGURE_1.margin, FIGURE_1.minimum_size) == (16, 92, 188)
    assert FIGURE_1.output_size(572) == 388


@settings(deadline=None, max_examples=60)
@given(architecture=architectures, beyond=st.integers(-400, 400))
def test_sizes_are_those_that_pass_every_layer(architecture, beyond):
    size = architecture.minimum_size + beyond
    output = walk(size, architecture)
    assert architecture.fits(size) == (output is not None)
    if output is not None:
        assert architecture.output_size(size) == output


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_minimum_size_is_the_first_that_passes(depth, padding):
    architecture = Architecture(depth=depth, padding=padding)
    first = next(size for size in range(1, 1000) if walk(size, architecture) is not None)
    assert architecture.minimum_size == first


@settings(deadline=None, max_examples=40)
@given(architecture=architectures, size=st.integers(-10, 900))
def test_fitting_size_is_the_next_that_passes(architecture, size):
    candidates = range(max(size, 1), 2000)
    assert architecture.fitting_size(size) == next(
        one for one in candidates if walk(one, architecture) is not None
    )


@settings(deadline=None, max_examples=20)
@given(architecture=architectures)
def test_crops_make_the_skip_as_large_as_what_comes_up(architecture):
    size = architecture.fitting_size(500)
    lost = 4 if architecture.padding == "valid" else 0
    skips = []
    for _ in range(architecture.depth):
        skips.append(size - lost)
        size = (size - lost) // 2
    size -= lost
    for level in reversed(range(architecture.depth)):
        assert skips[level] - 2 * architecture.crop(level) == 2 * size
        size = 2 * size - lost


@pytest.mark.parametrize(
    ("architecture", "size", "message"),
    [
        (
            FIGURE_1,
            570,
            (
                'input_size must be 16k + 12 and at least 188 for depth=4 and padding="valid". '
                "Received: 570; the nearest that fit are 556 and 572"
            ),
        ),
        (
            FIGURE_1,
            100,
            (
                'input_size must be 16k + 12 and at least 188 for depth=4 and padding="valid". '
                "Received: 100; the nearest that fits is 188"
            ),
        ),
        (
            Architecture(depth=2, padding="same"),
            30,
            (
                'input_size must be 4k and at least 4 for depth=2 and padding="same". '
                "Received: 30; the nearest that fit are 28 and 32"
            ),
        ),
    ],
)
def test_a_size_that_does_not_fit_is_answered_with_those_that_do(architecture, size, message):
    for refuse in (architecture.check_size, architecture.output_size):
        with pytest.raises(ValueError, match="input_size") as refusal:
            refuse(size)
        assert str(refusal.value) == message


def test_the_message_names_the_given_argument():
    with pytest.raises(ValueError, match=r"^tile must be 16k \+ 12 "):
        FIGURE_1.check_size(500, "tile")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 0}, "channels must be a whole number of at least 1. Received: channels=0"),
        ({"classes": 1}, "classes must be a whole number of at least 2. Received: classes=1"),
        ({"depth": 0}, "depth must be a whole number of at least 1. Received: depth=0"),
        ({"depth": True}, "depth must be a whole number of at least 1. Received: depth=True"),
        (
            {"base_filters": 8.0},
            "base_filters must be a whole number of at least 1. Received: base_filters=8.0",
        ),
        (
            {"dropout": 1},
            "dropout must be a rate in [0, 1). Received: dropout=1; 0 turns it off",
        ),
        (
            {"dropout": "0.5"},
            "dropout must be a rate in [0, 1). Received: dropout='0.5'; 0 turns it off",
        ),
        (
            {"dropout": float("nan")},
            "dropout must be a rate in [0, 1). Received: dropout=nan; 0 turns it off",
        ),
        (
            {"padding": "full"},
            'padding must be "valid" or "same". Received: padding=\'full\'',
        ),
        (
            {"norm_layer": "layer"},
            'norm_layer must be None, "batch" or "group". Received: norm_layer=\'layer\'',
        ),
    ],
    ids=str,
)
def test_numbers_of_which_no_network_can_be_built(values, message):
    with pytest.raises(ValueError, match=next(iter(values))) as refusal:
        Architecture(**values)
    assert str(refusal.value) == message


def test_json_holds_an_architecture():
    architecture = Architecture(channels=3, classes=4, depth=2, dropout=0, norm_layer="group")
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


def test_numpy_numbers_become_pythons():
    architecture = Architecture(classes=np.array([0, 2]).max() + 1, dropout=np.float32(0.5))
    assert architecture == Architecture(classes=3)
    assert json.dumps(architecture.to_dict()) == json.dumps(Architecture(classes=3).to_dict())


@pytest.mark.parametrize("model", [len, SimpleNamespace(layers=[SimpleNamespace(name="logits")])])
def test_of_refuses_what_build_unet_has_not_made(model):
    with pytest.raises(ValueError, match=r"^model must be a network of build_unet, .*Received: "):
        Architecture.of(model)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("norm_layer", [None, "batch", "group"])
def test_weights_and_kept_numbers_are_those_of_the_layers(padding, norm_layer):
    from keras_unet.model import unet_of

    network = Architecture(
        channels=3,
        classes=4,
        depth=2,
        base_filters=3,
        padding=padding,
        norm_layer=norm_layer,
        dropout=0.0,
    )
    size = network.fitting_size(70)
    model = unet_of(network, (size, size))
    assert network.parameters == sum(int(np.prod(one.shape)) for one in model.trainable_variables)
    kept = [
        int(np.prod(layer.output.shape[1:]))
        for layer in model.layers
        if layer.name.endswith(("conv1", "conv2", "pool", "concatenate"))
    ]
    assert network._activations(size) == kept


MEASURED = json.loads((PEERS / "memory.json").read_text())["memory"]["training_memory"]["measured"]


@pytest.mark.parametrize("training", MEASURED)
def test_memory_of_the_trainings_measured_is_predicted_within_15_percent(training):
    predicted = Architecture.from_dict(training["network"]).training_memory(
        training["tile"], batch_size=training["batch_size"], precision=training["precision"]
    )
    assert 0.85 <= predicted / 1e6 / training["megabytes"] <= 1.15


def test_memory_of_float16_is_taken_for_that_of_bfloat16():
    assert FIGURE_1.training_memory(572, precision="float16") == (
        FIGURE_1.training_memory(572, precision="bfloat16")
    )


def test_memory_of_a_tile_that_does_not_fit():
    with pytest.raises(ValueError, match=r"tile_size must be 16k.*Received: 570"):
        FIGURE_1.training_memory(570)


@settings(deadline=None, max_examples=30)
@given(architectures, st.integers(100, 3000), st.integers(1, 3))
def test_the_largest_tile_is_held_and_the_next_is_not(network, megabytes, batch_size):
    def takes(size):
        return network.training_memory(size, batch_size=batch_size)

    largest = network.largest_tile(megabytes * 1e6, 1000, batch_size=batch_size)
    if largest is None:
        smallest = network.minimum_size
        assert smallest > 1000 or takes(smallest) > megabytes * 1e6
    else:
        assert takes(largest) <= megabytes * 1e6
        following = largest + network.step
        assert following > 1000 or takes(following) > megabytes * 1e6
