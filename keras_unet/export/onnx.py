"""From a segmenter to an .onnx file that ONNX Runtime runs, in any of its languages."""

from __future__ import annotations

from pathlib import Path

from keras_unet.export.draft import write_and_compare
from keras_unet.export.graph import GraphTiling
from keras_unet.export.parity import TOLERANCES, answer_of_onnx
from keras_unet.files import check_new_file, drafted
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.system import require

GROUPED = 1e-4
"""Largest difference of a probability where groups are normalised.

Small deviations of few pixels are divided by there, which makes rounding larger: networks of depth
4 differed by 2e-5 from TensorFlow, and both by 9e-5 from double precision.
"""


def export_onnx(segmenter: Segmenter, out: Path, *, tile_size: int | None = None) -> Path:
    """Exports a model as an .onnx file, complete in itself, see `export_model`.

    It takes raw pixels of any size and gives probabilities and classes of that size; see
    `keras_unet.export.onnx_graph`.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .onnx.
        tile_size: Height and width of the tile in pixels; None for one that fills 512.

    Returns:
        The file written.
    """
    require("onnx", "onnx", "tf2onnx", "onnxruntime")
    from keras_unet.export.onnx_graph import write_onnx

    network = segmenter.info.architecture
    tiling = GraphTiling.of(network, tile_size)
    check_new_file(out, ".onnx")
    tolerance = GROUPED if network.normalization == "group" else TOLERANCES["float32"]
    write_and_compare(segmenter, drafted(out), write_onnx, answer_of_onnx, tolerance, tiling=tiling)
    return out
