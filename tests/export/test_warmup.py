"""Warm-up requests: what the server's own definitions read, and what the graph answers."""

from __future__ import annotations

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.client import Tensor
from keras_unet.export.graph import GraphTiling
from keras_unet.export.saved_model import prediction_log, write_warmup

apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")


def requests(path):
    logs = [apis.PredictionLog.FromString(one.numpy()) for one in tf.data.TFRecordDataset(path)]
    assert all(log.WhichOneof("log_type") == "predict_log" for log in logs)
    return [log.predict_log.request for log in logs]


@pytest.mark.parametrize("size", [1, 100, 40_000])
def test_the_servers_definitions_read_it(size):
    value = np.arange(size, dtype=np.float32)
    content = prediction_log("a signature", {"an input": Tensor.of(value)})
    request = apis.PredictionLog.FromString(content).predict_log.request
    assert request.model_spec.signature_name == "a signature"
    assert list(request.inputs) == ["an input"]
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["an input"]), value)
    assert apis.PredictionLog.FromString(content).SerializeToString() == content


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_signature_that_has_images_of_so_many_channels_is_asked(tmp_path, channels):
    tiling = GraphTiling(40, Architecture(depth=1, channels=channels))
    write_warmup(tmp_path / "requests", tiling)
    found = {one.model_spec.signature_name: one for one in requests(str(tmp_path / "requests"))}
    files = set() if channels == 2 else {"classify_bytes"}
    assert set(found) == {"serving_default", "scaled", "tile", "about"} | files
    tile = tf.make_ndarray(found["tile"].inputs["tile"])
    assert tile.shape == (1, 40, 40, channels)
