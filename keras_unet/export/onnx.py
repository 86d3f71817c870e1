"""From a run or an ensemble to an .onnx file that ONNX Runtime runs, in any of its languages."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from keras_unet.console import status
from keras_unet.export.artefact import Artefact
from keras_unet.export.graph import GraphTiling
from keras_unet.export.parity import TOLERANCES, answer_of_onnx, check_parity
from keras_unet.export.source import Source, network_of
from keras_unet.files import PathLike, check_new_file, drafted
from keras_unet.runs import Run
from keras_unet.system import require

_log = logging.getLogger(__name__)

GROUPED = 1e-4
"""Largest difference of a probability where groups are normalised.

Small deviations of few pixels are divided by there, which makes rounding larger: networks of depth
4 differed by 2e-5 from TensorFlow, and both by 9e-5 from double precision.
"""


def export_onnx(
    run_folder: PathLike,
    out: PathLike,
    *,
    tile_size: int | None = None,
) -> Path:
    """Exports a run or an ensemble as an .onnx file, complete in itself.

    It takes raw pixels of any size and gives probabilities and classes of that size; see
    `keras_unet.export.onnx_graph`. What was written is loaded by a fresh process and compared with
    the run before it gets its name.

    Args:
        run_folder: A folder that training wrote, a run or an ensemble.
        out: File to write; its name ends in .onnx.
        tile_size: Height and width of the tile in pixels; None for one that fills 512. Memory and
            the time of small images grow with it.

    Returns:
        The file written.

    Raises:
        ModuleNotFoundError: If the packages of the extra `onnx` are missing.
        ValueError: If the run's record or model cannot be read, the tile size does not fit, or
            what was written answers otherwise than the run.
        OSError: If the run is missing, a fold is not trained to its end, the file is there
            already, or it cannot be written.
    """
    require("onnx", "onnx", "tf2onnx", "onnxruntime")
    from keras_unet.export.onnx_graph import write_onnx

    out = Path(out)
    source = Source.load(run_folder)
    run = source.run
    tiling = GraphTiling.of(run.architecture, tile_size)
    check_new_file(out, ".onnx")
    members = source.members("float32")
    with drafted(out) as path:
        artefact = Artefact(run, tiling, "float32", frozen=True, folds=source.folds)
        with status("converting the graph"):
            write_onnx(path, artefact, network_of(members))
        numbers = tiling.tile_size, tiling.useful, _allowed(run)
        _log.info(check_parity(run, members, *numbers, partial(answer_of_onnx, path)))
    return out


def _allowed(run: Run) -> float:
    return GROUPED if run.architecture.normalization == "group" else TOLERANCES["float32"]
