"""An .onnx file that takes raw pixels of any size and gives probabilities of that size.

In: `image`, float32 (batch, height, width, channels), raw grey values. Out: `probabilities`,
float32 (batch, height, width, classes), and `classes`, uint8 (batch, height, width).

Standardisation, mirroring, tiles and stitching are inside, as in the SavedModel, in loops that ONNX
knows: memory is that of one tile, besides the image and the result. Tiles are stacked and cut to
the image at the end, for the converter knows no joining of parts of different sizes. What the file
says of itself stands in its metadata, as JSON named `keras_unet.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import tf2onnx

from keras_unet.backend import tf
from keras_unet.export.artefact import Artefact
from keras_unet.export.graph import IMAGE, PROBABILITIES, GraphTiling, standardiser
from keras_unet.prediction.tflite import METADATA

OPSET = 15
"""The converter's default; every runtime since ONNX Runtime 1.10 (2021) knows it."""

_AXES = ("batch", "height", "width")

Graph = Callable[[Any], Any]


def write_onnx(path: Path, artefact: Artefact, network: Any) -> None:
    """Writes the file.

    Args:
        path: File to write.
        artefact: What it says of itself, and the tile.
        network: The Keras network, in float32.
    """
    model = converted(_predictor(artefact, network), artefact.info.architecture.channels)
    model.doc_string = (
        f"{artefact.words['what']}: raw pixels of any size to the probabilities and the class of "
        "each."
    )
    onnx.helper.set_model_props(model, {METADATA: json.dumps(artefact.metadata)})
    onnx.save(model, path)


def converted(graph: Graph, channels: int) -> Any:
    """Converts a graph from images to a dictionary of outputs.

    Args:
        graph: Operations of TensorFlow on `(batch, height, width, channels)`, float32.
        channels: Channels of an image.

    Returns:
        An `onnx.ModelProto` with the input `image`.
    """
    taken = [tf.TensorSpec((None, None, None, channels), tf.float32, IMAGE)]
    function = tf.function(graph, input_signature=taken, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, input_signature=taken, opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=False):
            axis.dim_param = name
    return model


def constant(network: Any) -> Graph:
    """Returns a network with its weights as constants, made where it is called.

    The converter takes no kernel of a convolution that comes into a loop from outside.
    """
    parts = [
        [variable.numpy() for variable in part]
        for part in (network.trainable_variables, network.non_trainable_variables)
    ]

    def score(tile: Any) -> Any:
        weights = [[tf.constant(one) for one in part] for part in parts]
        return network.stateless_call(*weights, tile, training=False)[0]

    return score


def _predictor(artefact: Artefact, network: Any) -> Graph:
    info, score = artefact.info, constant(network)
    given = tf.TensorSpec((None, None, info.architecture.classes), tf.float32)

    def of_image(image: Any) -> Any:
        standardise = standardiser(info.standardisation, image)
        return _stitched(lambda window: score(standardise(window)), artefact.tiling, image)

    def of_batch(images: Any) -> dict[str, Any]:
        probabilities = tf.map_fn(
            of_image, images, parallel_iterations=1, fn_output_signature=given
        )
        classes = tf.argmax(probabilities, -1, output_type=tf.int32)
        return {PROBABILITIES: probabilities, "classes": tf.cast(classes, tf.uint8)}

    return of_batch


def _stitched(score: Graph, tiling: GraphTiling, image: Any) -> Any:
    """Predicts an image `(height, width, channels)` tile by tile."""
    network = tiling.architecture
    stride = tiling.useful // network.step * network.step
    kept = slice(network.context - network.margin, network.context - network.margin + stride)
    height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
    rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride

    def tile(number: Any) -> Any:
        window = tiling.window(image, number // columns * stride, number % columns * stride)
        return tf.nn.softmax(score(window[None])[0, kept, kept])

    tiles = tf.map_fn(
        tile,
        tf.range(rows * columns),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec((stride, stride, network.classes), tf.float32),
    )
    parts = tf.reshape(tiles, tf.stack([rows, columns, stride, stride, network.classes]))
    size = tf.stack([rows * stride, columns * stride, network.classes])
    return tf.reshape(tf.transpose(parts, (0, 2, 1, 3, 4)), size)[:height, :width]
