"""A SavedModel that takes raw pixels of any size and gives probabilities and classes of that size.

Standardisation, mirroring, tiles and stitching are inside the graph, of stock operations only: no
XLA, no Python. Its signatures:

serving_default   image: float32 (batch, height, width, channels), raw grey values
                  -> probabilities: float32 (batch, height, width, classes)
                     classes: uint8 (batch, height, width)
classify_bytes    image_bytes: string (batch,), PNG or JPEG files, whose sizes may differ
                  -> classes_bytes: string (batch,), a grey PNG of the classes each
                     probabilities_bytes: string (batch,), a serialised TensorProto each,
                     float32 (height, width, classes)
tile              tile: float32 (batch, height, width, channels), standardised
                  -> logits: float32, smaller by the margin on each side
about             query: string (batch,), of any content
                  -> about: string (batch,), JSON: classes, labels, rule, network, standardisation

A class is its position in the run's label values. What files give is in files again: images of
different sizes have no common array, and a server that pads them to one would change their sizes.
`about` takes a batch as the others do: joining requests takes one, and REST takes an input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from keras_unet.backend import tf
from keras_unet.export.requests import checked_files, checked_images, checked_tiles, decoded
from keras_unet.export.standardising import standardiser
from keras_unet.export.tiling import GraphTiling
from keras_unet.runs import Run

Graph = Callable[[Any], Any]

_QUICK = 1  # of zlib's levels: the usual one takes as long as half the tiles and gains little


def write_graph(
    folder: Path,
    run: Run,
    network: Any,
    tiling: GraphTiling,
    about: Mapping[str, Any],
    *,
    frozen: bool = False,
) -> None:
    """Writes the graph with its four signatures.

    Args:
        folder: Folder to write, `saved_model.pb` and `variables/` in it.
        run: The run, for the standardisation.
        network: Its Keras network, in the precision to compute in.
        tiling: How images are tiled.
        about: What the model says of itself, as JSON knows it.
        frozen: Whether the weights are constants of the graph rather than variables beside it.
    """
    root = tf.Module()
    root.weights = [] if frozen else [variable.value for variable in network.variables]
    score = _constant(network) if frozen else _plain(network)
    signatures = _signatures(run, score, tiling) | {"about": _about(about)}
    tf.saved_model.save(root, str(folder), signatures=signatures)
    _state_shapes(folder / "saved_model.pb", run.architecture.channels)


def _signatures(run: Run, score: Graph, tiling: GraphTiling) -> dict[str, Any]:
    channels = run.architecture.channels

    def predict(image: Any) -> Any:
        standardise = standardiser(run.standardisation, image)
        return tiling.probabilities(lambda window: score(standardise(window)), image)

    def serving_default(image: Any) -> dict[str, Any]:
        probabilities = _each(
            predict,
            checked_images(image, channels),
            tf.TensorSpec((None, None, run.architecture.classes), tf.float32),
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
        return {"logits": score(checked_tiles(tile, run.architecture))}

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
