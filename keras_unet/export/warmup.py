"""Requests that TensorFlow Serving makes to itself before a version serves.

It reads them from `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog
messages. Of their definitions (tensorflow_serving/apis/prediction_log.proto, predict.proto and
model.proto) these fields are needed:

    PredictionLog   predict_log = 6     PredictLog
    PredictLog      request = 1         PredictRequest
    PredictRequest  model_spec = 1      ModelSpec
                    inputs = 2          map<string, TensorProto>, entries of key = 1, value = 2
    ModelSpec       signature_name = 3  string

Every one of them holds bytes, so a field is its number, its length and its bytes, and no package of
the server's is needed to write them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_unet.backend import tf
from keras_unet.export.tiling import GraphTiling

WARMUP = "tf_serving_warmup_requests"

_LENGTH_DELIMITED = 2
_SEVEN_BITS = 0x7F
_MORE = 0x80


def write_warmup(path: Path, tiling: GraphTiling) -> None:
    """Writes a request to each signature that loads what a first client would wait for.

    Args:
        path: File to write.
        tiling: How the exported graph tiles; one tile an image is asked for.
    """
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature, (name, value) in _requests(tiling).items():
            records.write(prediction_log(signature, name, value))


def prediction_log(signature: str, name: str, value: object) -> bytes:
    """Serialises a PredictionLog of one request with one input.

    Args:
        signature: Signature to call.
        name: Name of its input.
        value: What `tf.make_tensor_proto` takes.
    """
    tensor = tf.make_tensor_proto(value).SerializeToString()
    model_spec = _field(3, signature.encode())
    entry = _field(1, name.encode()) + _field(2, tensor)
    request = _field(1, model_spec) + _field(2, entry)
    return _field(6, _field(1, request))


def _requests(tiling: GraphTiling) -> dict[str, tuple[str, object]]:
    channels = tiling.architecture.channels
    image = np.zeros((1, 64, 64, channels), np.float32)
    tile = np.zeros((1, tiling.tile_size, tiling.tile_size, channels), np.float32)
    requests: dict[str, tuple[str, object]] = {
        "serving_default": ("image", image),
        "tile": ("tile", tile),
    }
    if channels in (1, 3):  # which is what PNG files hold
        png = tf.io.encode_png(image[0].astype(np.uint8)).numpy()
        requests["classify_bytes"] = "image_bytes", [png]
    return requests


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Writes a number in groups of seven bits, the lowest first; a set top bit says more follow."""
    low, rest = number & _SEVEN_BITS, number >> 7
    return bytes([low | _MORE]) + _varint(rest) if rest else bytes([low])
