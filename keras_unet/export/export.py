"""Export of a trained model, in the format that its reader takes."""

from __future__ import annotations

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
    """Exports a trained model for others to run it.

    What was written is loaded by a fresh process and compared with the model on an image; only then
    does it get its name.

    - "saved_model": a folder `out/<version>/` for TensorFlow Serving, from raw pixels of any size
      to probabilities and classes of that size; `keras_unet.export.saved_model` lists its
      signatures.
    - "tflite": a file of one fixed tile for small devices, which says how to tile with it.
    - "onnx": a file for ONNX Runtime, from raw pixels of any size to probabilities and classes.
    - "bioimageio": a package (zip) for Fiji, bioimageio.core and the BioImage Model Zoo.

    Args:
        model: A segmenter, or the folder of a run or of an ensemble.
        out: File or folder to write.
        format: The format; None for that of the ending: .tflite, .onnx, .zip (BioImage.IO), and a
            SavedModel for a name without one.
        tile_size: Height and width of the tile in pixels; None for one that fills 512. Memory and
            the time of small images grow with it. Not of "bioimageio".
        precision: Precision that a SavedModel computes in, "auto", "float32", "bfloat16" or
            "float16"; None for that of the training. Images and probabilities are float32 in each.
        frozen: Whether the weights of a SavedModel become constants of the graph, for runtimes
            without variables.
        version: Number of a SavedModel's version, at least 1. Servers take the highest by default.
        quantize: Numbers of a TFLite file: "none" keeps float32, "float16" halves the file,
            "dynamic" and "int8" make it a quarter.
        int8_io: Whether tile and logits of a TFLite file are int8 too; with "int8".
        data: Data folder of the training, whose images "int8" measures; None for where it was then.
        authors: Names of those who made a BioImage.IO package; none for unknown, which will do
            until the package is published.
        license: SPDX identifier of the license of a BioImage.IO package.

    Returns:
        The file or folder written.

    Raises:
        ValueError: If the format is unknown, an option is of another format or out of range, the
            model has no Keras network, or what was written answers otherwise than the model.
        OSError: If the model is missing, the output is there already, or it cannot be written.
        ModuleNotFoundError: If the packages of a format's extra are missing.
    """
    given = {
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
    others = [
        name
        for name, value in given.items()
        if name not in known and value != defaults[name].default
    ]
    if others:
        raise ValueError(
            f"{', '.join(others)}: not of the format {chosen}, which takes {', '.join(known)}. "
            "Received: " + ", ".join(f"{name}={given[name]!r}" for name in others)
        )
    segmenter = model if isinstance(model, Segmenter) else load(model)
    _check_network(segmenter)
    return _EXPORTS[chosen](segmenter, out, **{name: given[name] for name in known})


def options_of(format: Format) -> list[str]:  # noqa: A002
    """Lists the options of a format.

    Args:
        format: The format.
    """
    return list(signature(_EXPORTS[format]).parameters)[2:]


def _check_network(segmenter: Segmenter) -> None:
    """Refuses what has been exported already, and networks that cannot be joined to one."""
    infos = [member.info for member in segmenter.members]
    kinds = {(info.architecture, info.encoding, info.normalization.mode) for info in infos}
    if len(kinds) > 1:
        raise ValueError(
            f"{segmenter.info.name}: expected an ensemble whose folds have one architecture, one "
            "meaning of labels and one way of normalizing. Received "
            f"{len(kinds)} kinds; train it anew"
        )
    files = [member.weights for member in segmenter.members]
    if not files or any(file is not None and file.suffix == TFLITE for file in files):
        raise ValueError(
            f"{segmenter.info.name}: expected a model of Keras, to be exported. Received one of a "
            ".tflite file or of a server; export the run that it was made of"
        )
