"""The .onnx file in ONNX Runtime, against the package's own prediction."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from keras_unet.architecture import Architecture
from keras_unet.backend import keras
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.export.graph import GraphTiling
from keras_unet.export.metadata import ExportMetadata
from keras_unet.export.onnx import write_onnx
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.runs import Run


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


class Written:
    """A drawn network, written, and its session."""

    def __init__(self, folder, architecture, *, tile=None, mode="image"):
        keras.utils.set_random_seed(3)
        self.network = unet_of(architecture)
        n = architecture.channels
        rule = Normalization(mode, *(((100.0,) * n, (30.0,) * n) if mode == "dataset" else ()))
        encoding = LabelEncoding("classes", tuple(range(architecture.classes)))
        run = Run(
            folder=folder,
            architecture=architecture,
            encoding=encoding,
            normalization=rule,
            precision="float32",
            record={},
        )
        (folder / "best.keras").touch()  # of which the provenance states a digest
        self.normalization, self.tiling = rule, GraphTiling.of(architecture, tile)
        self.path = folder / "network.onnx"
        segmenter = Segmenter(run, (Member(run, lambda _: self.network, folder / "best.keras"),))
        metadata = ExportMetadata(segmenter, self.tiling, "float32", frozen=True)
        write_onnx(self.path, metadata, self.network)
        self.session = onnxruntime.InferenceSession(self.path)

    def __call__(self, images):
        names = [one.name for one in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {"image": images}), strict=True))

    def expected(self, image):
        return predict_image(
            self.network, self.normalization.apply(image), tile_size=self.tiling.tile_size
        )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Depth 1, one channel, three classes; tiles of 26 pixels that fill 10."""
    folder = tmp_path_factory.mktemp("written")
    return Written(folder, Architecture(depth=1, base_filters=2, classes=3), tile=26)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (10, 10), (11, 30), (57, 43)], ids=str)
def test_any_size_is_predicted_as_the_package_does(written, size):
    images = drawn(2, *size, 1)
    answer = written(images)
    assert sorted(answer) == ["classes", "probabilities"]
    for image, probabilities in zip(images, answer["probabilities"], strict=True):
        np.testing.assert_allclose(probabilities, written.expected(image), atol=1e-5)
    assert answer["classes"].dtype == np.uint8
    np.testing.assert_array_equal(answer["classes"], answer["probabilities"].argmax(-1))


def test_wide_greys_are_normalized_in_double_precision(written):
    for image in (np.full((9, 8, 1), 0.1), 1e6 + drawn(300, 8, 1)):
        pixels = image.astype(np.float32)
        answer = written(pixels[None])["probabilities"][0]
        np.testing.assert_allclose(answer, written.expected(pixels), atol=1e-5)


BATTERY = {
    "same padding, numbers of the data": (
        {"depth": 2, "padding": "same", "channels": 2},
        {"tile": 60, "mode": "dataset"},
    ),
    "depth 3, RGB, four classes": ({"depth": 3, "channels": 3, "classes": 4}, {"tile": 132}),
    "depth 4, batch normalization": ({"depth": 4, "norm_layer": "batch"}, {"tile": 204}),
}


@pytest.mark.parametrize(("numbers", "options"), BATTERY.values(), ids=BATTERY)
def test_networks_of_all_kinds(tmp_path, numbers, options):
    network = Architecture(base_filters=2, **numbers)
    one = Written(tmp_path, network, **options)
    image = drawn(41, 33, network.channels)
    answer = one(image[None])["probabilities"][0]
    np.testing.assert_allclose(answer, one.expected(image), atol=1e-5)


def test_groups_are_normalized_to_the_rounding_of_float32(tmp_path):
    """A bottom of few pixels makes rounding larger, in TensorFlow as here."""
    one = Written(tmp_path, Architecture(depth=2, base_filters=4, norm_layer="group"), tile=60)
    image = drawn(41, 33, 1)
    np.testing.assert_allclose(one(image[None])["probabilities"][0], one.expected(image), atol=1e-4)


def test_the_file_is_valid_and_says_what_it_is(written):
    model = onnx.load(written.path)
    onnx.checker.check_model(model, full_check=True)
    assert [one.version for one in model.opset_import if not one.domain] == [15]
    (taken,) = written.session.get_inputs()
    assert taken.shape == ["batch", "height", "width", 1]
    shapes = {one.name: one.shape for one in written.session.get_outputs()}
    assert shapes == {
        "classes": ["batch", "height", "width"],
        "probabilities": ["batch", "height", "width", 3],
    }
    properties = written.session.get_modelmeta().custom_metadata_map
    about = json.loads(properties["keras_unet.json"])
    assert about["normalization"] == written.normalization.to_dict()
    assert about["network"]["tile_size"] == 26
    assert [one["value"] for one in about["classes"]] == [0, 1, 2]
    assert about["provenance"]["versions"]["keras"] == keras.__version__


def test_convolutions_are_in_the_loop_over_tiles_alone(written):
    """So no tensor of features is larger than a tile, whatever the image is."""
    model = onnx.load(written.path)
    (images,) = loops(model.graph)
    (tiles,) = [one for one in loops(images) if "Conv" in kinds(one)]
    assert "Conv" not in kinds(model.graph) | kinds(images)
    assert "Softmax" in kinds(tiles)


def kinds(graph):
    return {node.op_type for node in graph.node}


def loops(graph):
    """Bodies of the loops that stand in a graph."""
    return [node.attribute[0].g for node in graph.node if node.op_type == "Loop"]
