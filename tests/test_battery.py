"""Every promise of a network, over one table of networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, tf
from keras_unet.losses import AffinityCrossEntropy, WeightedCrossEntropy
from keras_unet.model import build_unet, unet_of
from keras_unet.prediction.predict import predict_outputs

HEAD = ("depth", "channels", "classes", "padding", "norm_layer", "dropout", "base_filters")
AFFINITIES = Architecture(depth=2, base_filters=3, affinities=True)
TABLE = {
    "-".join(map(str, row)): Architecture(**dict(zip(HEAD, row, strict=True)))
    for row in [
        (1, 1, 2, "valid", None, 0.5, 4),
        (1, 3, 4, "same", "batch", 0.0, 3),
        (1, 2, 3, "valid", "group", 0.5, 4),
        (2, 1, 2, "valid", "batch", 0.5, 4),
        (2, 2, 4, "same", None, 0.5, 3),
        (2, 3, 2, "same", "group", 0.0, 4),
        (3, 1, 3, "valid", None, 0.0, 3),
        (3, 2, 2, "same", "batch", 0.5, 2),
        (3, 3, 4, "valid", "group", 0.5, 2),
        (4, 1, 2, "valid", "batch", 0.0, 2),
        (4, 3, 2, "same", None, 0.0, 2),
        (4, 1, 2, "valid", None, 0.5, 2),
    ]
} | {"affinities": AFFINITIES}

LOSSES = {2: WeightedCrossEntropy, 3: AffinityCrossEntropy}  # by the channels of y_true

# What a process runs that has never heard of this package.
LOADER = """
import json, pathlib, sys
sys.modules["keras_unet"] = None
import keras, numpy
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    arrays = numpy.load(file.with_suffix(".npz"))
    logits = numpy.asarray(keras.models.load_model(file)(arrays["image"]))
    print(json.dumps([file.stem, float(abs(logits - arrays["logits"]).max()), float(logits.std())]))
"""


class Trained(NamedTuple):
    """A network of the table after one training step."""

    architecture: Architecture
    model: Any
    image: np.ndarray
    loss: float
    old_kernels: list[np.ndarray]
    output: tuple[int, ...]


@pytest.fixture(scope="module")
def networks() -> dict[str, Trained]:
    keras.utils.set_random_seed(4)
    return {name: train(architecture) for name, architecture in TABLE.items()}


@pytest.fixture(params=TABLE)
def trained(request, networks) -> Trained:
    return networks[request.param]


def train(architecture):
    """Builds a network and takes one step on a batch of one image, label and weight map."""
    model = unet_of(architecture)
    rng = np.random.default_rng(5)
    size = architecture.minimum_size + 2 * architecture.step
    output = (1, *(architecture.output_size(size),) * 2)
    image = rng.normal(size=(1, size, size, architecture.channels)).astype(np.float32)
    labels, weights = rng.integers(architecture.classes, size=output), rng.uniform(0, 2, output)
    old_kernels = [kernel.numpy() for kernel in kernels(model)]
    y_true = [labels, weights, labels] if architecture.affinities else [labels, weights]
    loss = take_step(model, image, np.stack(y_true, axis=-1))
    return Trained(architecture, model, image, loss, old_kernels, output)


def take_step(model, image, y_true):
    with tf.GradientTape() as tape:
        loss = LOSSES[y_true.shape[-1]]()(y_true, model(image, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    keras.optimizers.SGD(0.1).apply(gradients, model.trainable_variables)
    return float(loss)


def kernels(model):
    return [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]


def one_shot(model, pixels, architecture):
    """Softmax of one call on the whole image, padded by np.pad's reflection."""
    context, skip = architecture.context, architecture.context - architecture.margin
    height, width = pixels.shape[:2]
    after = (
        architecture.fitting_size(one + 2 * context) - one - context for one in (height, width)
    )
    whole = np.pad(pixels, (*((context, one) for one in after), (0, 0)), mode="reflect")
    logits = np.asarray(model(whole[None]))[0, skip : skip + height, skip : skip + width]
    exponentials, affinities = np.split(np.exp(logits), [architecture.classes], axis=-1)
    classes = exponentials / exponentials.sum(-1, keepdims=True)
    return np.concatenate([classes, affinities / (1 + affinities)], axis=-1)


def test_the_table_has_every_value():
    columns = [{getattr(one, name) for one in TABLE.values()} for name in HEAD[:-1]]
    assert columns == [
        {1, 2, 3, 4},
        {1, 2, 3},
        {2, 3, 4},
        {"valid", "same"},
        {None, "batch", "group"},
        {0.0, 0.5},
    ]
    assert len({(one.padding, one.norm_layer) for one in TABLE.values()}) == 6


def test_its_numbers_are_read_back(trained):
    values = trained.architecture.to_dict()
    rebuilt = build_unet((None, None, values.pop("channels")), **values)
    assert Architecture.of(rebuilt) == Architecture.of(trained.model) == trained.architecture


def test_its_output_has_the_size_it_says(trained):
    logits = trained.model(trained.image)
    assert logits.shape == (*trained.output, trained.architecture.outputs)


def test_one_training_step_changes_every_convolution(trained):
    assert np.isfinite(trained.loss)
    for kernel, old in zip(kernels(trained.model), trained.old_kernels, strict=True):
        assert np.isfinite(kernel).all()
        assert (kernel.numpy() != old).any(), kernel.path


def test_stitched_prediction_is_one_shot(trained):
    architecture = trained.architecture
    pixels = trained.image[0, :40, :33]
    tile = architecture.fitting_size(2 * architecture.context + architecture.step)
    if architecture.norm_layer == "group":  # whose statistics are those of the tile: one tile
        tile = None
    stitched = predict_outputs(trained.model, pixels, architecture, tile_size=tile)
    expected = one_shot(trained.model, pixels, architecture)
    np.testing.assert_allclose(stitched, expected, atol=1e-5)


def test_saved_they_load_where_this_package_is_unknown(networks, tmp_path):
    for name, trained in networks.items():
        trained.model.save(tmp_path / f"{name}.keras")
        logits = np.asarray(trained.model(trained.image))
        np.savez(tmp_path / f"{name}.npz", image=trained.image, logits=logits)
    loaded = load_in_a_fresh_process(tmp_path)
    assert [stem for stem, *_ in loaded] == sorted(TABLE)
    for _, difference, spread in loaded:
        assert difference < 1e-5
        assert spread > 1e-2


def load_in_a_fresh_process(folder: Path) -> list[tuple[str, float, float]]:
    result = subprocess.run(
        [sys.executable, "-I", "-c", LOADER, folder],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]
