"""A SavedModel that takes raw pixels of any size and gives probabilities and classes of that size.

Normalization, mirroring, tiles and stitching are inside the graph, of stock operations only: no
XLA, no Python. Its signatures:

serving_default   image: float32 (batch, height, width, channels), raw grey values
                  -> probabilities: float32 (batch, height, width, classes)
                     classes: uint8 (batch, height, width)
classify_bytes    image_bytes: string (batch,), PNG or JPEG files, whose sizes may differ
                  -> classes_bytes: string (batch,), a grey PNG of the classes each
                     probabilities_bytes: string (batch,), a serialised TensorProto each,
                     float32 (height, width, classes)
tile              tile: float32 (batch, height, width, channels), normalized
                  -> logits: float32, smaller by the margin on each side
about             query: string (batch,), of any content
                  -> about: string (batch,), JSON: classes, labels, rule, network, normalization

A class is its position in the run's label values. What files give is in files again: images of
different sizes have no common array, and a server that pads them to one would change their sizes.
`about` takes a batch as the others do: joining requests takes one, and REST takes an input.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf import saved_model_pb2

from keras_unet.backend import choose_precision, tf
from keras_unet.client import Tensor, Value, field, model_spec, predict_request
from keras_unet.export.graph import GraphTiling, normalizer
from keras_unet.export.metadata import EXTRA, ExportMetadata
from keras_unet.export.parity import TOLERANCES, answer_of_saved_model, write_and_compare
from keras_unet.export.serving_inputs import checked_files, checked_images, checked_tiles, decoded
from keras_unet.files import check_name, check_writable
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import ModelInfo


def check_version(out: Path, version: int) -> Path:
    """Returns the folder of a version that is free.

    Raises:
        ValueError: If the version is no number from 1.
        FileExistsError: If the version is there already.
    """
    if version < 1:
        raise ValueError(f"version must be a whole number of at least 1. Received: {version}")
    path = out / str(version)
    if path.exists():
        taken = [int(one.name) for one in out.iterdir() if one.name.isdecimal()]
        raise FileExistsError(
            f"{path}: expected a version that is not there yet. Received one that is; the next "
            f"is {max(taken) + 1}"
        )
    return path


@contextmanager
def new_version(out: Path, version: int) -> Iterator[Path]:
    """Yields a hidden folder in `out` and gives it its number when the body has ended well.

    A server passes over folders that are no numbers, and moving is done at once, so it never sees
    a version half written. Where the body raises, nothing is left, a folder `out` made for it
    included.

    Args:
        out: Folder of the model, whose parent exists or can be made.
        version: Number of the version.

    Yields:
        The folder to write to.

    Raises:
        ValueError: If the version is no number from 1.
        FileExistsError: If the version is there already.
    """
    final = check_version(out, version)
    is_new = not out.exists()
    hidden = out / f".{secrets.token_hex(4)}-{version}"
    hidden.mkdir(parents=True)
    try:
        yield hidden
        hidden.rename(final)
    except BaseException:
        shutil.rmtree(hidden)
        if is_new and not any(out.iterdir()):
            out.rmdir()
        raise


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


Graph = Callable[[Any], Any]

_QUICK = 1  # of zlib's levels: the usual one takes as long as half the tiles and gains little


def write_graph(
    folder: Path,
    info: ModelInfo,
    network: Any,
    tiling: GraphTiling,
    about: Mapping[str, Any],
    *,
    frozen: bool = False,
) -> None:
    """Writes the graph with its four signatures.

    Args:
        folder: Folder to write, `saved_model.pb` and `variables/` in it.
        info: Facts of the model, for the normalization.
        network: Its Keras network, in the precision to compute in.
        tiling: How images are tiled.
        about: What the model says of itself, as JSON knows it.
        frozen: Whether the weights are constants of the graph rather than variables beside it.
    """
    root = tf.Module()
    root.weights = [] if frozen else [variable.value for variable in network.variables]
    score = _constant(network) if frozen else _plain(network)
    signatures = _signatures(info, score, tiling) | {"about": _about(about)}
    tf.saved_model.save(root, str(folder), signatures=signatures)
    _state_shapes(folder / "saved_model.pb", info.architecture.channels)


def _signatures(info: ModelInfo, score: Graph, tiling: GraphTiling) -> dict[str, Any]:
    channels = info.architecture.channels

    def predict(image: Any) -> Any:
        normalize = normalizer(info.normalization, image)
        return tiling.probabilities(lambda window: score(normalize(window)), image)

    def serving_default(image: Any) -> dict[str, Any]:
        probabilities = _each(
            predict,
            checked_images(image, channels),
            tf.TensorSpec((None, None, info.architecture.classes), tf.float32),
        )
        return {"probabilities": probabilities, "classes": _classes(probabilities)}

    def classify_bytes(image_bytes: Any) -> dict[str, Any]:
        classes, probabilities = _each(
            lambda file: _encoded(predict(decoded(file, channels))),
            checked_files(image_bytes),
            (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.string)),
        )
        return {"classes_bytes": classes, "probabilities_bytes": probabilities}

    def bare(tile: Any) -> dict[str, Any]:
        return {"logits": score(checked_tiles(tile, info.architecture))}

    return {
        "serving_default": _traced(serving_default, tf.TensorSpec(None, tf.float32, "image")),
        "classify_bytes": _traced(classify_bytes, tf.TensorSpec(None, tf.string, "image_bytes")),
        "tile": _traced(bare, tf.TensorSpec(None, tf.float32, "tile")),
    }


def _about(described: Mapping[str, Any]) -> Any:
    text = json.dumps(described)

    def about(query: Any) -> dict[str, Any]:
        return {"about": tf.fill(tf.shape(query), text)}

    return _traced(about, tf.TensorSpec(None, tf.string, "query"))


def _traced(function: Graph, taken: Any) -> Any:
    return tf.function(function, input_signature=[taken], autograph=False)


def _state_shapes(path: Path, channels: int) -> None:
    """Says in the signatures what the graph, which checks it, must not know: shapes of inputs."""
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for signature in message.meta_graphs[0].signature_def.values():
        for taken in signature.inputs.values():
            is_text = taken.dtype == tf.string.as_datatype_enum
            shape = (None,) if is_text else (None, None, None, channels)
            taken.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    path.write_bytes(message.SerializeToString(deterministic=True))
    path.with_name("fingerprint.pb").unlink()  # which was of the message as it was before


def _plain(network: Any) -> Graph:
    return lambda tile: network(tile, training=False)


def _constant(network: Any) -> Graph:
    """The network with its weights as constants."""
    parts = network.trainable_variables, network.non_trainable_variables
    weights = [[tf.constant(variable.numpy()) for variable in part] for part in parts]
    return lambda tile: network.stateless_call(*weights, tile, training=False)[0]


def _each(function: Graph, batch: Any, returned: Any) -> Any:
    """Goes through a batch one by one, so that memory is that of one image at work."""
    return tf.map_fn(function, batch, parallel_iterations=1, fn_output_signature=returned)


def _classes(probabilities: Any) -> Any:
    return tf.cast(tf.argmax(probabilities, -1, output_type=tf.int32), tf.uint8)


def _encoded(probabilities: Any) -> tuple[Any, Any]:
    classes = tf.io.encode_png(_classes(probabilities)[..., None], compression=_QUICK)
    return classes, tf.io.serialize_tensor(probabilities)


def export_saved_model(
    segmenter: Segmenter,
    out: Path,
    *,
    precision: str | None = None,
    frozen: bool = False,
    tile_size: int | None = None,
    version: int = 1,
) -> Path:
    """Exports a model as a SavedModel for TensorFlow Serving, see `export_model`.

    It takes raw pixels of any size and gives probabilities and classes of that size; the signatures
    are those of `keras_unet.export.saved_model`.

    Args:
        segmenter: The model.
        out: Folder of the model, in which `<version>/` is written.
        precision: Precision to compute in; None for that of the training. Images and probabilities
            are float32 in each.
        frozen: Whether weights become constants of the graph, for runtimes without variables.
        tile_size: Height and width of the tile in pixels; None for one that fills 512.
        version: Number of the version, at least 1. Servers take the highest by default.

    Returns:
        The folder written, `out / str(version)`.
    """
    check_name(out, "choose another folder")
    tiling = GraphTiling.of(segmenter.info.architecture, tile_size)
    chosen = choose_precision(precision or segmenter.info.precision)
    check_writable(out)

    def write(folder: Path, artefact: ExportMetadata, network: Any) -> None:
        write_graph(folder, segmenter.info, network, tiling, artefact.about, frozen=frozen)
        artefact.write(folder)
        write_warmup(folder / EXTRA / WARMUP, tiling)

    write_and_compare(
        segmenter,
        new_version(out, version),
        write,
        answer_of_saved_model,
        TOLERANCES[chosen],
        tiling=tiling,
        precision=chosen,
        frozen=frozen,
    )
    return out / str(version)
