"""The .tflite file: equal to the network, complete in what it says, and quiet while it is made."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_unet.architecture import Architecture
from keras_unet.backend import keras
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.export.graph import GraphTiling
from keras_unet.export.metadata import ExportMetadata
from keras_unet.export.tflite import Quantization, write_tflite
from keras_unet.instances.label import InstanceOptions
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.prediction.tflite import load_tflite
from keras_unet.runs import Run

MODES = ("none", "float16", "dynamic", "int8")


class Exported:
    """A drawn network and the file written of it."""

    def __init__(self, folder, architecture, mode="none", *, tile=None, int8_io=False):
        keras.utils.set_random_seed(3)
        self.network = unet_of(architecture)
        network = architecture
        self.tile = tile or network.fitting_size(2 * network.context + 2 * network.step)
        encoding = LabelEncoding("classes", tuple(range(5, 5 + network.classes)))
        rule, normalization = InstanceOptions(threshold=0.25), Normalization("image")
        record = {"data": {"folder": "/somewhere/cells"}}
        self.run = Run(
            folder=folder,
            architecture=network,
            encoding=encoding,
            normalization=normalization,
            precision="bfloat16",
            record=record,
            instances=rule,
        )
        self.network.save(folder / "best.keras")
        self.path = folder / f"{mode}.tflite"
        tiles = [self.drawn(self.tile, self.tile, seed=seed) for seed in range(4)]
        member = Member(self.run, lambda _: self.network, folder / "best.keras")
        segmenter = Segmenter(self.run, (member,))
        metadata = ExportMetadata(segmenter, GraphTiling.of(network, self.tile), "float32", True)
        write_tflite(self.path, metadata, self.network, Quantization(mode, int8_io), tiles)
        self.loaded = load_tflite(self.path)

    def drawn(self, height, width, seed=9):
        shape = (height, width, self.run.architecture.channels)
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    def answers(self, image):
        """What the file and the network predict, by the same tiles."""
        return (
            predict_image(self.loaded, image, architecture=self.loaded.architecture),
            predict_image(self.network, image, tile_size=self.tile),
        )


BATTERY = {
    "depth 2": {"depth": 2},
    "depth 2, same padding, RGB, four classes": {
        "depth": 2,
        "padding": "same",
        "channels": 3,
        "classes": 4,
    },
    "depth 3, two channels, batch": {"depth": 3, "channels": 2, "norm_layer": "batch"},
    "depth 3, same padding, three classes": {"depth": 3, "padding": "same", "classes": 3},
    "depth 4, RGB, three classes": {"depth": 4, "channels": 3, "classes": 3},
    "depth 4, same padding, four classes": {"depth": 4, "padding": "same", "classes": 4},
    "depth 2, two channels, group": {"depth": 2, "channels": 2, "norm_layer": "group"},
}


@pytest.mark.parametrize("numbers", BATTERY.values(), ids=BATTERY)
def test_networks_of_all_kinds_are_predicted_alike(tmp_path, numbers):
    exported = Exported(tmp_path, Architecture(base_filters=2, **numbers))
    answer, expected = exported.answers(exported.drawn(41, 33))
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert expected.std() > 1e-2  # a network that gives one answer for all would prove nothing


@pytest.fixture(scope="module")
def by_mode(tmp_path_factory):
    """One network in every mode."""
    network = Architecture(depth=2, base_filters=4, padding="same", norm_layer="batch")
    return {
        mode: Exported(tmp_path_factory.mktemp("mode"), network, mode, tile=64) for mode in MODES
    }


def test_fewer_bits_make_smaller_files_that_answer_nearly_alike(by_mode):
    for mode, allowed in zip(MODES, (1e-6, 1e-3, 2e-2, 5e-2), strict=True):
        answer, expected = by_mode[mode].answers(by_mode[mode].drawn(50, 70))
        assert np.abs(answer - expected).mean() < allowed, mode
    sizes = [by_mode[mode].path.stat().st_size for mode in MODES]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.4 * sizes[1]


def test_weights_stand_where_strict_processors_read_them(by_mode):
    for exported in by_mode.values():
        content = exported.path.read_bytes()
        model = schema.Model.GetRootAsModel(content)
        buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
        start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
        places = [
            buffer.DataAsNumpy().__array_interface__["data"][0] - start
            for buffer in buffers
            if buffer.DataLength()
        ]
        assert len(places) > 10
        assert not np.any(np.array(places) % 16)


@pytest.mark.parametrize("int8_io", [False, True])
def test_int8_takes_and_gives_float32_unless_asked(tmp_path, int8_io):
    network = Architecture(depth=1, base_filters=4, norm_layer="group")
    exported = Exported(tmp_path, network, "int8", int8_io=int8_io)
    interpreter = Interpreter(model_path=str(exported.path))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    metadata = exported.loaded.metadata
    for details, said in ((taken, metadata["input"]), (given, metadata["output"])):
        assert details["dtype"] == (np.int8 if int8_io else np.float32)
        assert said["dtype"] == details["dtype"].__name__
        assert said["shape"] == details["shape"].tolist()
        scaling = (said["scale"], said["zero_point"]) if int8_io else (0.0, 0)
        assert scaling == pytest.approx(details["quantization"])
    answer, expected = exported.answers(exported.drawn(30, 30))
    assert np.abs(answer - expected).mean() < 5e-2


def test_all_numbers_within_are_int8_or_sums_of_them(tmp_path):
    exported = Exported(tmp_path, Architecture(depth=1, base_filters=4), "int8", int8_io=True)
    model = schema.ModelT.InitFromPackedBuf(exported.path.read_bytes())
    types = {tensor.type for tensor in model.subgraphs[0].tensors}
    assert types <= {schema.TensorType.INT8, schema.TensorType.INT32}


def test_the_file_says_all_that_tiling_needs(by_mode):
    for mode, exported in by_mode.items():
        metadata = exported.loaded.metadata
        architecture = exported.run.architecture
        margin = architecture.margin
        context = architecture.context
        assert metadata["quantize"] == mode
        assert metadata["network"] == {
            "frozen": True,
            "margin": margin,
            "context": context,
            "step": 4,
            "minimum_size": architecture.minimum_size,
            "tile_size": 64,
            "output_size": 64 - 2 * margin,
            "skip": context - margin,
            "stride": (64 - 2 * context) // 4 * 4,
        }
        output = [1, 64 - 2 * margin, 64 - 2 * margin, 2]
        assert metadata["input"] == {"name": "tile", "shape": [1, 64, 64, 1], "dtype": "float32"}
        assert metadata["output"] == {"name": "logits", "shape": output, "dtype": "float32"}
        assert metadata["classes"][1] == {"class": 1, "value": 6, "name": "label 6"}
        assert metadata["architecture"] == architecture.to_dict()
        assert metadata["record"]["data"]["folder"] == "cells"
        assert len(metadata["provenance"]["sha256"]) == 64
        run = exported.loaded.info
        assert (run.architecture, run.encoding) == (architecture, exported.run.encoding)
        assert (run.normalization, run.instances) == (
            exported.run.normalization,
            exported.run.instances,
        )


def test_tiling_by_the_metadata_alone_is_the_prediction(tmp_path):
    exported = Exported(tmp_path, Architecture(depth=3, base_filters=2), tile=108)
    model = schema.Model.GetRootAsModel(exported.path.read_bytes())
    entries = [model.Metadata(number) for number in range(model.MetadataLength())]
    (entry,) = [one for one in entries if one.Name() == b"keras_unet.json"]
    numbers = json.loads(bytes(model.Buffers(entry.Buffer()).DataAsNumpy()))["network"]
    context, stride, skip = (numbers[name] for name in ("context", "stride", "skip"))
    assert (stride, numbers["output_size"]) == (16, 20)
    image = exported.drawn(31, 45)
    padded = np.pad(image, ((context, 99), (context, 99), (0, 0)), mode="reflect")
    logits = np.empty((31 + 99, 45 + 99, 2), np.float32)
    for row in range(0, 31, stride):
        for column in range(0, 45, stride):
            tile = padded[row : row + numbers["tile_size"], column : column + numbers["tile_size"]]
            answer = exported.loaded(tile[None])[0, skip : skip + stride, skip : skip + stride]
            logits[row : row + stride, column : column + stride] = answer
    logits = logits[:31, :45]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, exported.answers(image)[1], atol=1e-5)


@pytest.mark.parametrize("mode", ["none", "int8"])
def test_nothing_is_printed(tmp_path, capfd, mode):
    Exported(tmp_path, Architecture(depth=1, base_filters=2), mode)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int4",), "quantize must be one of none, float16, dynamic, int8. Received: 'int4'"),
        (("float16", True), 'int8_io needs quantize="int8". Received: quantize="float16"'),
    ],
)
def test_quantizations_that_tflite_does_not_know(arguments, message):
    with pytest.raises(ValueError, match=message):
        Quantization(*arguments)
