"""A network wrapped for images of any size, against the package's own prediction."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.architecture import Architecture
from keras_unet.backend import keras
from keras_unet.data.normalization import Normalization
from keras_unet.export.graph import any_size_model, halo, smallest_block
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image

BY_IMAGE = Normalization("image")
LOADS = """
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model(np.load(sys.argv[2])))
assert "keras_unet" not in sys.modules
"""


def wrapped(network, architecture, rule=BY_IMAGE):
    return any_size_model(network, architecture, rule)


def drawn_network(architecture):
    keras.utils.set_random_seed(3)
    return unet_of(architecture)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def pair():
    """A network of depth 2 with three classes, and the same wrapped."""
    architecture = Architecture(depth=2, base_filters=2, classes=3)
    network = drawn_network(architecture)
    return network, wrapped(network, architecture)


@given(height=st.integers(1, 50), width=st.integers(1, 50), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_any_size_is_predicted_as_the_package_does(pair, height, width, seed):
    network, model = pair
    images = noise(2, height, width, 1, seed=seed)
    for image, answer in zip(images, np.asarray(model(images)), strict=True):
        np.testing.assert_allclose(answer, predict_image(network, image), atol=1e-5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_blocks_with_the_halo_cut_off_are_the_whole(depth, padding):
    """Blocks of the least size, laid as the halo says, from a window mirrored by NumPy."""
    architecture = Architecture(depth=depth, base_filters=2, padding=padding)
    model = wrapped(drawn_network(architecture), architecture)
    size, lost = smallest_block(architecture), halo(architecture)
    stride = size - 2 * lost
    image = noise(1, 3 * stride, 2 * stride, 1)
    whole = np.asarray(model(image))
    around = np.pad(image, [(0, 0), (lost, lost), (lost, lost), (0, 0)], "reflect")
    for row in range(0, image.shape[1], stride):
        for column in range(0, image.shape[2], stride):
            block = np.asarray(model(around[:, row : row + size, column : column + size]))
            np.testing.assert_allclose(
                block[:, lost:-lost, lost:-lost],
                whole[:, row : row + stride, column : column + stride],
                atol=1e-5,
            )


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", range(1, 6))
def test_the_halo_holds_the_context_and_keeps_to_the_lattice(depth, padding):
    network = Architecture(depth=depth, padding=padding)
    assert network.context <= halo(network) < network.context + network.step
    assert halo(network) % network.step == smallest_block(network) % network.step == 0
    assert smallest_block(network) - 2 * halo(network) == network.step


def test_numbers_of_the_data_set_are_inside():
    """Exactly 0 is where a channel does not vary, however far from the mean it lies."""
    architecture = Architecture(depth=1, base_filters=2, channels=2)
    network = drawn_network(architecture)
    rule = Normalization("dataset", mean=(3e4, 7.0), std=(50.0, 0.0))
    image = np.stack([3e4 + 50 * noise(9, 8), np.full((9, 8), 7.0)], axis=-1).astype(np.float32)
    answer = np.asarray(wrapped(network, architecture, rule)(image[None]))[0]
    np.testing.assert_allclose(answer, predict_image(network, rule.apply(image)), atol=1e-5)


def test_it_loads_where_the_package_is_not_installed(pair, tmp_path):
    image = noise(1, 21, 34, 1)
    pair[1].save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", image)
    result = subprocess.run(
        [sys.executable, "-c", LOADS, "model.keras", "image.npy", "answer.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), pair[1](image), atol=1e-6)
    with zipfile.ZipFile(tmp_path / "model.keras") as saved:
        config = json.loads(saved.read("config.json"))["config"]
    assert {one["module"].split(".")[0] for one in config["layers"]} == {"keras"}
