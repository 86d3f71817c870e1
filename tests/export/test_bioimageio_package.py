"""The BioImage.IO package: what it holds, and what other programs make of it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import imageio.v3
import numpy as np
import onnxruntime
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, tf
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.export.bioimageio import Credits, Example, check_license, write_package
from keras_unet.export.graph import GraphTiling, halo, smallest_block
from keras_unet.export.metadata import ExportMetadata
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.report.pictures import write_png
from keras_unet.runs import Run

READER = Path(__file__).with_name("bioimageio_reader.py")


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


class Package:
    """A drawn network and its package, also unpacked."""

    def __init__(self, folder, architecture, mode="image", kind="classes"):
        keras.utils.set_random_seed(3)
        self.network = unet_of(architecture)
        n, classes = architecture.channels, architecture.classes
        self.normalization = Normalization(
            mode, *(((100.0,) * n, (30.0,) * n) * (mode == "dataset"))
        )
        encoding = LabelEncoding(kind, tuple(range(classes)))
        record = {"data": {"training": ["a", "b"], "folder": "/home/ada/cells"}}
        run = Run(
            folder=folder / "a_run, №1",
            architecture=architecture,
            encoding=encoding,
            normalization=self.normalization,
            precision="float32",
            record=record,
        )
        run.folder.mkdir()
        (run.folder / "best.keras").touch()  # of which the provenance states a digest
        member = Member(run, lambda _: self.network, run.folder / "best.keras")
        segmenter = Segmenter(run, (member,))
        write_png(folder / "cover.png", np.zeros((9, 18, 3), np.uint8))
        image = drawn(
            smallest_block(architecture), smallest_block(architecture) + architecture.step, n
        )
        self.image, self.path, self.folder = image, folder / "cells.zip", folder / "unpacked"
        write_package(
            self.path,
            ExportMetadata(segmenter, GraphTiling.of(architecture), "float32", frozen=True),
            self.network,
            Example(image.astype(np.uint8), self.expected(image)),
            folder / "cover.png",
            Credits(("Ada Lovelace",), "MIT"),
        )
        with zipfile.ZipFile(self.path) as packed:
            packed.extractall(self.folder)

    def expected(self, image):
        return predict_image(self.network, self.normalization.apply(image))

    def read(self, image):
        """The description, and answers by blocks, in a fresh process."""
        np.save(self.folder / "image.npy", image)
        result = subprocess.run(
            [sys.executable, READER, "rdf.yaml", "image.npy", "answers.npz"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout), np.load(self.folder / "answers.npz")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Depth 1, two classes of cells; blocks of 18 pixels and a multiple of 2 more."""
    network = Architecture(depth=1, base_filters=2)
    return Package(tmp_path_factory.mktemp("package"), network, kind="instances")


@pytest.fixture(scope="module")
def read(package):
    """What bioimageio.spec and bioimageio.core make of the package."""
    return package.read(drawn(60, 44, 1, seed=5))


def test_it_is_valid_and_says_what_it_is(read):
    found, _ = read
    assert found["status"] == "valid-format"
    assert found["name"] == "U-Net a_run-1"
    assert found["authors"][0]["name"] == "Ada Lovelace"
    assert found["license"] == "MIT"
    assert found["cite"][0]["doi"] == "10.1007/978-3-319-24574-4_28"
    assert {"unet", "cells", "deepimagej"} <= set(found["tags"])
    (taken,), (given,) = found["inputs"], found["outputs"]
    assert taken["axes"][1]["size"] == {"min": 18, "step": 2}
    assert taken["pad"] == {"mode": "reflect"}
    assert [axis["halo"] for axis in given["axes"][1:3]] == [8, 8]
    assert given["axes"][3]["channel_names"] == ["background", "cell"]
    assert "zero_mean_unit_variance" in [one["id"] for one in taken["preprocessing"]]
    metadata = found["config"]["keras_unet"]
    assert metadata["record"]["data"] == {"training": ["a", "b"], "folder": "cells"}


@pytest.mark.parametrize("n", ["0", "1", "7"])
def test_blocks_give_the_whole(package, read, n):
    """In bioimageio.core, whose blocks are normalized as one image and mirrored at its border."""
    expected = package.expected(drawn(60, 44, 1, seed=5))
    np.testing.assert_allclose(read[1][n], expected, atol=1e-5)


def test_the_description_is_one_that_fiji_reads(package):
    """Its engine takes cover and documentation for text, and asks for an id or a nickname."""
    text = (package.folder / "rdf.yaml").read_text()
    assert "\nformat_version: 0.5.10\n" in text
    assert "\ndocumentation: README.md\n" in text
    assert "\ncovers:\n  - cover.png\n" in text
    assert "nickname: u-net-a_run-1\n" in text


def test_the_bundle_is_one_that_old_releases_run(package, tmp_path):
    """TensorFlow 2.7, which Fiji brings for Java 8, has no variables as newer releases save them.

    Its engine feeds and fetches by the names of the tensors, and takes the bundle for unpacked
    where it finds `saved_model.pb` beside `variables`.
    """
    with zipfile.ZipFile(package.folder / "tf_weights.zip") as bundle:
        bundle.extractall(tmp_path)
    assert (tmp_path / "variables").is_dir()
    message = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    graph = message.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    assert not {"VarHandleOp", "ReadVariableOp", "DisableCopyOnRead"} & {one.op for one in nodes}
    signature = message.meta_graphs[0].signature_def["serving_default"]
    assert list(signature.inputs) == ["image"]
    assert list(signature.outputs) == ["probabilities"]


def test_the_examples_are_readable(package):
    sample = imageio.v3.imread(package.folder / "sample_input.tif")
    np.testing.assert_array_equal(sample, package.image[..., 0])
    test = np.load(package.folder / "test_output.npy")
    np.testing.assert_array_equal(test, package.expected(package.image)[None])
    np.testing.assert_array_equal(imageio.v3.imread(package.folder / "sample_output.tif"), test[0])


def test_the_card(package):
    card = (package.folder / "README.md").read_text()
    assert "| 1 | 1 | cell |" in card
    assert "# Validation" in card
    assert "Sizes are 18 + 2 k pixels" in card
    assert "normalizes each whole image" in card
    assert "2 images, unknown steps" in card


BATTERY = {
    "depth 2, numbers of the data": ({"depth": 2, "channels": 2}, "dataset"),
    "depth 3, RGB, same padding": (
        {"depth": 3, "channels": 3, "classes": 4, "padding": "same"},
        "image",
    ),
    "depth 4, three classes": ({"depth": 4, "classes": 3}, "dataset"),
}


@pytest.mark.parametrize(("numbers", "mode"), BATTERY.values(), ids=BATTERY)
def test_all_weights_of_networks_of_all_kinds(tmp_path, numbers, mode):
    network = Architecture(base_filters=2, **numbers)
    one = Package(tmp_path, network, mode)
    text = (one.folder / "rdf.yaml").read_text()
    assert ("zero_mean_unit_variance" in text) == (mode == "image")
    assert text.count(f"halo: {halo(network)}\n") == 2
    image = drawn(70, 53, network.channels)
    taken = one.normalization.apply(image)[None] if mode == "image" else image[None]
    for answer in answers(one.folder, taken, tmp_path / "bundle"):
        np.testing.assert_allclose(answer[0], one.expected(image), atol=1e-5)


def answers(folder, image, bundle):
    yield np.asarray(keras.models.load_model(folder / "model.keras")(image))
    with zipfile.ZipFile(folder / "tf_weights.zip") as packed:
        packed.extractall(bundle)
    serve = tf.saved_model.load(str(bundle)).signatures["serving_default"]
    yield serve(image=tf.constant(image))["probabilities"].numpy()
    session = onnxruntime.InferenceSession(folder / "weights.onnx")
    yield session.run(["probabilities"], {"image": image})[0]


def test_a_license_that_no_program_knows():
    check_license("CC-BY-4.0")
    with pytest.raises(ValueError, match=r"SPDX identifier, such as .*Received: 'as you like'"):
        check_license("as you like")
