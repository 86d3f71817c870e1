"""Requests that TensorFlow Serving makes to itself before a version serves.

It reads them from `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog
messages. Of their definition (tensorflow_serving/apis/prediction_log.proto) these fields are
needed, and no package of the server's to write them:

    PredictionLog   predict_log = 6     PredictLog
    PredictLog      request = 1         PredictRequest
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_unet.backend import tf
from keras_unet.client import Tensor, Value, field, model_spec, predict_request
from keras_unet.export.tiling import GraphTiling

WARMUP = "tf_serving_warmup_requests"


def write_warmup(path: Path, tiling: GraphTiling) -> None:
    """Writes a request to each signature that loads what a first client would wait for.

    Args:
        path: File to write.
        tiling: How the exported graph tiles; one tile an image is asked for.
    """
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature, inputs in _requests(tiling).items():
            records.write(prediction_log(signature, inputs))


def prediction_log(signature: str, inputs: Mapping[str, Value]) -> bytes:
    """Serialises a PredictionLog of one request.

    Args:
        signature: Signature to call.
        inputs: A tensor, or a list of bytes, by name.
    """
    request = predict_request(model_spec(signature=signature), inputs)
    return field(6, field(1, request))


def _requests(tiling: GraphTiling) -> dict[str, dict[str, Value]]:
    channels = tiling.architecture.channels
    image = np.zeros((1, 64, 64, channels), np.float32)
    tile = np.zeros((1, tiling.tile_size, tiling.tile_size, channels), np.float32)
    requests: dict[str, dict[str, Value]] = {
        "serving_default": {"image": Tensor.of(image)},
        "tile": {"tile": Tensor.of(tile)},
        "about": {"query": [b""]},
    }
    if channels in (1, 3):  # which is what PNG files hold
        png = tf.io.encode_png(image[0].astype(np.uint8)).numpy()
        requests["classify_bytes"] = {"image_bytes": [png]}
    return requests
