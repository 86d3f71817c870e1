"""From a segmenter to an .onnx file that ONNX Runtime runs, in any of its languages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import tf2onnx

from keras_unet.backend import tf
from keras_unet.export.graph import IMAGE, PROBABILITIES, GraphTiling, normalizer
from keras_unet.export.metadata import ExportMetadata
from keras_unet.export.parity import TOLERANCES, answer_of_onnx, write_and_compare
from keras_unet.files import check_new_file, write_then_move
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.prediction.tflite import METADATA
from keras_unet.system import require

GROUPED = 1e-4
"""Largest difference of a probability where groups are normalized.

Small deviations of few pixels are divided by there, which makes rounding larger: networks of depth
4 differed by 2e-5 from TensorFlow, and both by 9e-5 from double precision.
"""


def export_onnx(segmenter: Segmenter, out: Path, *, tile_size: int | None = None) -> Path:
    """Exports a model as an .onnx file, complete in itself, see `export_model`.

    It takes raw pixels of any size and gives probabilities and classes of that size; see
    `keras_unet.export.onnx`.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .onnx.
        tile_size: Height and width of the tile in pixels; None for one that fills 512.

    Returns:
        The file written.
    """
    require("onnx", "onnx", "tf2onnx", "onnxruntime")
    from keras_unet.export.onnx import write_onnx

    network = segmenter.info.architecture
    tiling = GraphTiling.of(network, tile_size)
    check_new_file(out, ".onnx")
    tolerance = GROUPED if network.norm_layer == "group" else TOLERANCES["float32"]
    write_and_compare(
        segmenter, write_then_move(out), write_onnx, answer_of_onnx, tolerance, tiling=tiling
    )
    return out


OPSET = 15
"""The converter's default; every runtime since ONNX Runtime 1.10 (2021) knows it."""

_AXES = ("batch", "height", "width")

Graph = Callable[[Any], Any]


def write_onnx(path: Path, artefact: ExportMetadata, network: Any) -> None:
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


def _predictor(artefact: ExportMetadata, network: Any) -> Graph:
    info, score = artefact.info, constant(network)
    given = tf.TensorSpec((None, None, info.architecture.classes), tf.float32)

    def of_image(image: Any) -> Any:
        normalize = normalizer(info.normalization, image)
        return _stitched(lambda window: score(normalize(window)), artefact.tiling, image)

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
