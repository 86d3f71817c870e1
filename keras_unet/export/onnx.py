"""Exports a model as an .onnx file, which ONNX Runtime runs in many languages.

In: `image`, float32 (batch, height, width, channels), raw grey values of any size; `scale`, a
float32 scalar, 1 if it is missing, by which images are resampled before the prediction. Out:
`probabilities`, float32 (batch, height, width, classes), and `classes`, uint8 (batch, height,
width). Normalization, tiles and stitching are inside the graph; the metadata is a property of the
file, JSON named `keras_unet.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_unet.backend import tf
from keras_unet.export.graph import (
    IMAGE,
    PROBABILITIES,
    SCALE,
    Graph,
    GraphTiling,
    scaled_prediction,
)
from keras_unet.export.metadata import ExportMetadata
from keras_unet.export.parity import TOLERANCES, predict_by_onnx, write_and_compare
from keras_unet.files import check_new_file, write_then_move
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.prediction.tflite import METADATA
from keras_unet.system import require

OPSET = 15
"""Default of tf2onnx; every runtime since ONNX Runtime 1.10 (2021) supports it."""

GROUP_TOLERANCE = 1e-4
"""Largest difference of a probability of networks with group normalization.

It divides by small deviations of few pixels, which amplifies rounding: networks of depth 4 differed
by 2e-5 from TensorFlow, and both by 9e-5 from double precision.
"""

_AXES = ("batch", "height", "width")


def export_onnx(segmenter: Segmenter, out: Path, *, tile_size: int | None = None) -> Path:
    """Exports a model as an .onnx file, see `export_model`.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .onnx.
        tile_size: Height and width of the input tile in pixels; None for 512 useful pixels.

    Returns:
        The file written.
    """
    require("onnx", "onnx", "tf2onnx", "onnxruntime")
    network = segmenter.info.architecture
    tiling = GraphTiling.of(network, tile_size)
    check_new_file(out, ".onnx")
    tolerance = GROUP_TOLERANCE if network.norm_layer == "group" else TOLERANCES["float32"]
    write_and_compare(
        segmenter, write_then_move(out), write_onnx, predict_by_onnx, tolerance, tiling=tiling
    )
    return out


def write_onnx(path: Path, metadata: ExportMetadata, network: Any) -> None:
    """Writes an .onnx file.

    Args:
        path: File to write.
        metadata: Metadata of the export, with its tiling.
        network: The Keras network, in float32.
    """
    import onnx

    channels = metadata.info.architecture.channels
    scale = tf.TensorSpec((), tf.float32, SCALE)
    model = to_onnx(_prediction_graph(metadata, network), channels, scale)
    default = onnx.numpy_helper.from_array(np.ones((), np.float32), SCALE)
    model.graph.initializer.append(default)  # of an input: its default
    model.doc_string = (
        f"{metadata.card_fields['what']}: raw pixels of any size to the probabilities and the "
        "class of each."
    )
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata.to_dict())})
    onnx.save(model, path)


def to_onnx(graph: Callable[..., Any], channels: int, *more: Any) -> Any:
    """Converts a graph of TensorFlow to ONNX.

    Args:
        graph: Function from a float32 tensor `(batch, height, width, channels)` to a dictionary of
            outputs.
        channels: Number of channels of an image.
        more: `tf.TensorSpec` of each further input.

    Returns:
        An `onnx.ModelProto` with the input `image`, and the further ones.
    """
    import tf2onnx

    inputs = [tf.TensorSpec((None, None, None, channels), tf.float32, IMAGE), *more]
    function = tf.function(graph, input_signature=inputs, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, input_signature=inputs, opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=False):
            axis.dim_param = name
    return model


def with_constant_weights(network: Any) -> Graph:
    """Returns a network whose weights are constants of the graph.

    The constants are made where the network is called: tf2onnx does not convert a convolution in a
    loop whose kernel comes from outside.
    """
    parts = [
        [variable.numpy() for variable in part]
        for part in (network.trainable_variables, network.non_trainable_variables)
    ]

    def predict(tile: Any) -> Any:
        weights = [[tf.constant(array) for array in part] for part in parts]
        return network.stateless_call(*weights, tile, training=False)[0]

    return predict


def _prediction_graph(metadata: ExportMetadata, network: Any) -> Callable[..., Any]:
    info, predict_tile = metadata.info, with_constant_weights(network)
    output = tf.TensorSpec((None, None, info.architecture.classes), tf.float32)

    predict_scaled = scaled_prediction(
        lambda pixels: _predict_tiled(predict_tile, metadata.tiling, pixels), info.normalization
    )

    def predict_batch(images: Any, scale: Any) -> dict[str, Any]:
        probabilities = tf.map_fn(
            lambda image: predict_scaled(image, scale),
            images,
            parallel_iterations=1,
            fn_output_signature=output,
        )
        classes = tf.argmax(probabilities, -1, output_type=tf.int32)
        return {PROBABILITIES: probabilities, "classes": tf.cast(classes, tf.uint8)}

    return predict_batch


def _predict_tiled(network: Graph, tiling: GraphTiling, image: Any) -> Any:
    """Predicts an image `(height, width, channels)` tile by tile."""
    architecture = tiling.architecture
    stride = tiling.useful // architecture.step * architecture.step
    skipped = architecture.context - architecture.margin
    kept = slice(skipped, skipped + stride)
    height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
    rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride

    def predict_tile(number: Any) -> Any:
        window = tiling.window(image, number // columns * stride, number % columns * stride)
        return tf.nn.softmax(network(window[None])[0, kept, kept])

    tiles = tf.map_fn(
        predict_tile,
        tf.range(rows * columns),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec((stride, stride, architecture.classes), tf.float32),
    )
    grid = tf.reshape(tiles, tf.stack([rows, columns, stride, stride, architecture.classes]))
    size = tf.stack([rows * stride, columns * stride, architecture.classes])
    return tf.reshape(tf.transpose(grid, (0, 2, 1, 3, 4)), size)[:height, :width]
