"""Exports a model as a SavedModel for TensorFlow Serving.

It maps raw pixels of any size to probabilities and classes of that size. Normalization, mirroring,
tiles and stitching are inside the graph, of stock operations only: no XLA, no Python. Signatures:

serving_default   image: float32 (batch, height, width, channels), raw grey values
                  -> probabilities: float32 (batch, height, width, classes)
                     classes: uint8 (batch, height, width)
scaled            image: as above; scale: float32 (1,) or (batch,), 1 if it is missing, by which
                  images are resampled before the prediction, and probabilities back after it
                  -> probabilities, classes: as above
classify_bytes    image_bytes: string (batch,), PNG or JPEG files, whose sizes may differ
                  -> classes_bytes: string (batch,), a grey PNG of the classes for each file
                     probabilities_bytes: string (batch,), a serialized TensorProto for each file,
                     float32 (height, width, classes)
tile              tile: float32 (batch, height, width, channels), normalized
                  -> logits: float32, smaller by the margin on each side
about             query: string (batch,), of any content
                  -> about: string (batch,), JSON: classes, labels, instance options, network,
                     normalization

Classes are numbers from 0 in the order of the run's label values. Files are answered with files:
images of different sizes do not fit one array, and a server that pads them would change their size.
`scaled` is apart from `serving_default`, since a server that batches requests needs every input to
have as many rows as the images, which a default value cannot have.
`about` takes a batch like the others, since request batching needs one, and REST needs an input.
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
from keras_unet.export.graph import SCALE, Graph, GraphTiling, normalizer, scaled_prediction
from keras_unet.export.metadata import EXTRA, ExportMetadata
from keras_unet.export.parity import TOLERANCES, predict_by_saved_model, write_and_compare
from keras_unet.export.serving_inputs import (
    check_files,
    check_images,
    check_scales,
    check_tiles,
    decode_image,
)
from keras_unet.files import check_name, check_writable
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import ModelInfo

WARMUP = "tf_serving_warmup_requests"

_COMPRESSION = 1  # of zlib: its default takes as long as half the tiles, for little smaller files


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

    Args:
        segmenter: The model.
        out: Folder of the model, in which `<version>/` is written.
        precision: Precision to compute in; None for that of the training. Images and probabilities
            are float32 in each.
        frozen: Whether weights become constants of the graph, for runtimes without variables.
        tile_size: Height and width of the input tile in pixels; None for 512 useful pixels.
        version: Version number, at least 1. Servers load the highest by default.

    Returns:
        The folder written, `out / str(version)`.
    """
    check_name(out, "choose another folder")
    tiling = GraphTiling.of(segmenter.info.architecture, tile_size)
    chosen = choose_precision(precision or segmenter.info.precision)
    check_writable(out)

    def write(folder: Path, metadata: ExportMetadata, network: Any) -> None:
        write_graph(folder, segmenter.info, network, tiling, metadata.about, frozen=frozen)
        metadata.write(folder)
        write_warmup(folder / EXTRA / WARMUP, tiling)

    write_and_compare(
        segmenter,
        new_version(out, version),
        write,
        predict_by_saved_model,
        TOLERANCES[chosen],
        tiling=tiling,
        precision=chosen,
        frozen=frozen,
    )
    return out / str(version)


def check_version(out: Path, version: int) -> Path:
    """Returns the folder of a new version.

    Raises:
        ValueError: If the version number is below 1.
        FileExistsError: If the version exists.
    """
    if version < 1:
        raise ValueError(f"version must be a whole number of at least 1. Received: {version}")
    path = out / str(version)
    if path.exists():
        versions = [int(folder.name) for folder in out.iterdir() if folder.name.isdecimal()]
        raise FileExistsError(
            f"{path}: expected a version that does not exist yet. Received one that does; the next "
            f"is {max(versions) + 1}"
        )
    return path


@contextmanager
def new_version(out: Path, version: int) -> Iterator[Path]:
    """Yields a hidden folder in `out`, and renames it to the version number afterwards.

    A server ignores folders whose names are not numbers, and renaming is atomic, so it never loads
    an incomplete version. If the body fails, the folder is removed, and `out` too if it is new.

    Args:
        out: Folder of the model; it may be missing.
        version: Version number.

    Yields:
        The folder to write to.

    Raises:
        ValueError: If the version number is below 1.
        FileExistsError: If the version exists.
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


def write_warmup(path: Path, tiling: GraphTiling) -> None:
    """Writes a warm-up request to each signature, so that the first client need not wait.

    Args:
        path: File to write.
        tiling: Tiling of the exported graph; each request needs one tile.
    """
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature, inputs in _requests(tiling).items():
            records.write(prediction_log(signature, inputs))


def prediction_log(signature: str, inputs: Mapping[str, Value]) -> bytes:
    """Serializes a PredictionLog of one request.

    Args:
        signature: Name of the signature.
        inputs: Tensors or lists of bytes, by name.
    """
    request = predict_request(model_spec(signature=signature), inputs)
    return field(6, field(1, request))


def _requests(tiling: GraphTiling) -> dict[str, dict[str, Value]]:
    channels = tiling.architecture.channels
    image = np.zeros((1, 64, 64, channels), np.float32)
    tile = np.zeros((1, tiling.tile_size, tiling.tile_size, channels), np.float32)
    requests: dict[str, dict[str, Value]] = {
        "serving_default": {"image": Tensor.of(image)},
        "scaled": {"image": Tensor.of(image), "scale": Tensor.of(np.ones(1, np.float32))},
        "tile": {"tile": Tensor.of(tile)},
        "about": {"query": [b""]},
    }
    if channels in (1, 3):  # as in PNG files
        png = tf.io.encode_png(image[0].astype(np.uint8)).numpy()
        requests["classify_bytes"] = {"image_bytes": [png]}
    return requests


def write_graph(
    folder: Path,
    info: ModelInfo,
    network: Any,
    tiling: GraphTiling,
    about: Mapping[str, Any],
    *,
    frozen: bool = False,
) -> None:
    """Writes the graph with its signatures.

    Args:
        folder: Folder to write `saved_model.pb` and `variables/` to.
        info: Metadata of the model, for the normalization.
        network: Keras network, in the precision to compute in.
        tiling: Tiling of the images.
        about: JSON object that the signature `about` returns.
        frozen: Whether the weights are constants of the graph rather than variables.
    """
    root = tf.Module()
    root.weights = [] if frozen else [variable.value for variable in network.variables]
    predict_tile = _with_constant_weights(network) if frozen else _with_variables(network)
    signatures = _signatures(info, predict_tile, tiling) | {"about": _about(about)}
    tf.saved_model.save(root, str(folder), signatures=signatures)
    _write_input_shapes(folder / "saved_model.pb", info.architecture.channels)


def _signatures(info: ModelInfo, predict_tile: Graph, tiling: GraphTiling) -> dict[str, Any]:
    channels = info.architecture.channels

    def predict(image: Any) -> Any:
        normalize = normalizer(info.normalization, image)
        return tiling.probabilities(lambda window: predict_tile(normalize(window)), image)

    unscaled = tf.ones(1)
    output = tf.TensorSpec((None, None, info.architecture.classes), tf.float32)
    predict_scaled = scaled_prediction(
        lambda pixels: tiling.probabilities(predict_tile, pixels), info.normalization
    )

    def serving_default(image: Any) -> dict[str, Any]:
        probabilities = _map(predict, check_images(image, channels), output)
        return {"probabilities": probabilities, "classes": _classes(probabilities)}

    def scaled(image: Any, scale: Any = unscaled) -> dict[str, Any]:
        images = check_images(image, channels)
        batch = images, check_scales(scale, images)
        probabilities = _map(lambda pair: predict_scaled(*pair), batch, output)
        return {"probabilities": probabilities, "classes": _classes(probabilities)}

    def classify_bytes(image_bytes: Any) -> dict[str, Any]:
        classes, probabilities = _map(
            lambda file: _encode(predict(decode_image(file, channels))),
            check_files(image_bytes),
            (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.string)),
        )
        return {"classes_bytes": classes, "probabilities_bytes": probabilities}

    def tile_logits(tile: Any) -> dict[str, Any]:
        return {"logits": predict_tile(check_tiles(tile, info.architecture))}

    return {
        "serving_default": _trace(serving_default, tf.TensorSpec(None, tf.float32, "image")),
        "scaled": _trace(
            scaled,
            tf.TensorSpec(None, tf.float32, "image"),
            tf.TensorSpec(None, tf.float32, "scale"),
        ),
        "classify_bytes": _trace(classify_bytes, tf.TensorSpec(None, tf.string, "image_bytes")),
        "tile": _trace(tile_logits, tf.TensorSpec(None, tf.float32, "tile")),
    }


def _about(content: Mapping[str, Any]) -> Any:
    text = json.dumps(content)

    def about(query: Any) -> dict[str, Any]:
        return {"about": tf.fill(tf.shape(query), text)}

    return _trace(about, tf.TensorSpec(None, tf.string, "query"))


def _trace(function: Callable[..., Any], *specs: Any) -> Any:
    return tf.function(function, input_signature=specs, autograph=False)


def _write_input_shapes(path: Path, channels: int) -> None:
    """Writes the shapes of inputs to the signatures; the graph checks them, so it lacks them."""
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for signature in message.meta_graphs[0].signature_def.values():
        for name, tensor in signature.inputs.items():
            is_list = tensor.dtype == tf.string.as_datatype_enum or name == SCALE
            shape = (None,) if is_list else (None, None, None, channels)
            tensor.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    path.write_bytes(message.SerializeToString(deterministic=True))
    path.with_name("fingerprint.pb").unlink()  # of the unchanged message


def _with_variables(network: Any) -> Graph:
    return lambda tile: network(tile, training=False)


def _with_constant_weights(network: Any) -> Graph:
    parts = network.trainable_variables, network.non_trainable_variables
    weights = [[tf.constant(variable.numpy()) for variable in part] for part in parts]
    return lambda tile: network.stateless_call(*weights, tile, training=False)[0]


def _map(function: Graph, batch: Any, spec: Any) -> Any:
    """Applies a function to one element after the other, which takes the memory of one."""
    return tf.map_fn(function, batch, parallel_iterations=1, fn_output_signature=spec)


def _classes(probabilities: Any) -> Any:
    return tf.cast(tf.argmax(probabilities, -1, output_type=tf.int32), tf.uint8)


def _encode(probabilities: Any) -> tuple[Any, Any]:
    classes = tf.io.encode_png(_classes(probabilities)[..., None], compression=_COMPRESSION)
    return classes, tf.io.serialize_tensor(probabilities)
