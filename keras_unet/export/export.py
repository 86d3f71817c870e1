"""Exports a trained model as SavedModel, TFLite, ONNX or BioImage.IO."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Literal, get_args

from keras_unet.export.bioimageio import LICENSE, export_bioimageio
from keras_unet.export.onnx import export_onnx
from keras_unet.export.saved_model import export_saved_model
from keras_unet.export.tflite import Mode, export_tflite
from keras_unet.files import PathLike
from keras_unet.prediction.load import TFLITE, load
from keras_unet.prediction.segmenter import Segmenter

_log = logging.getLogger(__name__)

Format = Literal["saved_model", "tflite", "bioimageio", "onnx"]

_EXPORTS: Mapping[Format, Callable[..., Path]] = {
    "saved_model": export_saved_model,
    "tflite": export_tflite,
    "bioimageio": export_bioimageio,
    "onnx": export_onnx,
}
_ENDINGS: Mapping[str, Format] = {".tflite": "tflite", ".zip": "bioimageio", ".onnx": "onnx"}


def export_model(  # noqa: PLR0913 - all but two by name
    model: Segmenter | PathLike,
    out: PathLike,
    *,
    format: Format | None = None,  # noqa: A002
    tile_size: int | None = None,
    precision: str | None = None,
    frozen: bool = False,
    version: int = 1,
    quantize: Mode = "none",
    int8_io: bool = False,
    data: PathLike | None = None,
    authors: Sequence[str] = (),
    license: str = LICENSE,  # noqa: A002
) -> Path:
    """Exports a trained model, for use without this package.

    The export is written under a temporary name, loaded in a fresh process and compared with the
    model on an image, and then moved to `out`.

    - "saved_model": a folder `out/<version>/` for TensorFlow Serving, from raw pixels of any size
      to probabilities and classes of that size; `keras_unet.export.saved_model` lists its
      signatures.
    - "tflite": a file for small devices, of one fixed tile size; its metadata describes the tiling.
    - "onnx": a file for ONNX Runtime, from raw pixels of any size to probabilities and classes.
    - "bioimageio": a package (zip) for Fiji, bioimageio.core and the BioImage Model Zoo.

    Args:
        model: A segmenter, or the folder of a run or of an ensemble.
        out: File or folder to write.
        format: File format; None for that of the suffix: .tflite, .onnx, .zip (BioImage.IO), or
            none for a SavedModel.
        tile_size: Height and width of the input tile in pixels; None for 512 useful pixels. A
            larger tile takes more memory, and more time for small images. Not for "bioimageio".
        precision: Precision of a SavedModel, "auto", "float32", "bfloat16" or "float16"; None for
            that of the training. Images and probabilities are float32 in each.
        frozen: Whether the weights of a SavedModel become constants of the graph, for runtimes
            without variables.
        version: Version number of a SavedModel, at least 1. Servers load the highest by default.
        quantize: Quantization of a TFLite file: "none" keeps float32, "float16" halves the size,
            "dynamic" and "int8" reduce it to a quarter.
        int8_io: Whether input and output of a TFLite file are int8 too; only with "int8".
        data: Data folder of the training, which "int8" needs to choose value ranges; None for the
            recorded one.
        authors: Names of the authors of a BioImage.IO package; empty for "unknown", to be replaced
            before publication.
        license: SPDX identifier of the license of a BioImage.IO package.

    Returns:
        The file or folder written.

    Raises:
        ValueError: If the format is unknown, an option belongs to another format or is out of
            range, the model has no Keras network, or the export predicts something else.
        OSError: If the model is missing, the output exists, or it cannot be written.
        ModuleNotFoundError: If the packages of a format's extra are missing.
    """
    options = {
        "tile_size": tile_size,
        "precision": precision,
        "frozen": frozen,
        "version": version,
        "quantize": quantize,
        "int8_io": int8_io,
        "data": data,
        "authors": authors,
        "license": license,
    }
    out = Path(out)
    chosen = format or _ENDINGS.get(out.suffix, "saved_model")
    if chosen not in _EXPORTS:
        raise ValueError(
            f"format must be one of {', '.join(get_args(Format))}. Received: {format!r}"
        )
    known, defaults = options_of(chosen), signature(export_model).parameters
    unsupported = [
        name
        for name, value in options.items()
        if name not in known and value != defaults[name].default
    ]
    if unsupported:
        raise ValueError(
            f"{', '.join(unsupported)}: not an option of the format {chosen}, which takes "
            f"{', '.join(known)}. Received: "
            + ", ".join(f"{name}={options[name]!r}" for name in unsupported)
        )
    segmenter = model if isinstance(model, Segmenter) else load(model)
    _check_networks(segmenter)
    if segmenter.info.architecture.affinities:
        _log.info(
            "the affinities are not exported: objects that touch are separated by the shape or the "
            "probability alone, and not as keras-unet predict separates them"
        )
        segmenter = segmenter.without_affinities()
    return _EXPORTS[chosen](segmenter, out, **{name: options[name] for name in known})


def options_of(format: Format) -> list[str]:  # noqa: A002
    """Returns the names of a format's options.

    Args:
        format: The format.
    """
    return list(signature(_EXPORTS[format]).parameters)[2:]


def _check_networks(segmenter: Segmenter) -> None:
    """Checks that the networks are of Keras and can be averaged in one graph."""
    infos = [member.info for member in segmenter.members]
    kinds = {(info.architecture, info.encoding, info.normalization.mode) for info in infos}
    if len(kinds) > 1:
        raise ValueError(
            f"{segmenter.info.name}: expected an ensemble whose folds have the same architecture, "
            "labels and normalization mode. Received "
            f"{len(kinds)} different ones; train it again"
        )
    files = [member.weights for member in segmenter.members]
    if not files or any(file is not None and file.suffix == TFLITE for file in files):
        raise ValueError(
            f"{segmenter.info.name}: expected a model of Keras, to be exported. Received one of a "
            ".tflite file or of a server; export its run instead"
        )
