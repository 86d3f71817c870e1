"""Comparison of an export with its model, in a fresh process.

A SavedModel is run by TensorFlow's saved_model_cli, without this package; a .tflite file by this
package without TensorFlow; an .onnx file by ONNX Runtime; a BioImage.IO package by
bioimageio.core. Both sides compute on the CPU, since a GPU rounds differently and may be in use.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import Precision, tf
from keras_unet.console import status
from keras_unet.data.images import as_channels, read_image
from keras_unet.data.pairs import find_pairs
from keras_unet.data.synthetic import draw_cells
from keras_unet.export.graph import GraphTiling, average_ensemble
from keras_unet.export.metadata import ExportMetadata
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import ModelInfo

_log = logging.getLogger(__name__)

Write = Callable[[Path, ExportMetadata, Any], None]
"""Writes an export to a path: its metadata, and the one Keras network of all members."""

Predict = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Predicts by an export: from raw pixels `(height, width, channels)` to probabilities."""

PredictByFile = Callable[[Path, NDArray[np.float32]], NDArray[Any]]
"""Predicts by an export at a path, see `Predict`."""

TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 1e-2}
"""Largest difference of a probability; half precisions round differently in fused operations."""

_SMALLEST_DRAWING = 64

_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",  # bioimageio.core's default is torch
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class Measure(NamedTuple):
    """Measure of the difference between predicted and expected probabilities.

    Attributes:
        name: Name for messages.
        compute: Function from predicted and expected probabilities to the difference.
    """

    name: str
    compute: Callable[[NDArray[Any], NDArray[Any]], float]


def _largest(predicted: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(predicted - expected).max())


def _mean(predicted: NDArray[Any], expected: NDArray[Any]) -> float:
    # All expected classes have the same weight, however few pixels are cells.
    differences, classes = np.abs(predicted - expected), expected.argmax(axis=-1)
    return float(np.mean([differences[classes == number].mean() for number in np.unique(classes)]))


LARGEST = Measure("largest", _largest)
MEAN = Measure("mean", _mean)


def write_and_compare(
    segmenter: Segmenter,
    draft: AbstractContextManager[Path],
    write: Write,
    predict: PredictByFile,
    tolerance: float,
    *,
    tiling: GraphTiling,
    precision: Precision = "float32",
    frozen: bool = True,
    measure: Measure = LARGEST,
) -> None:
    """Writes an export under a temporary name, and compares it with the segmenter.

    Args:
        segmenter: The model.
        draft: Context of the temporary path; moves the export to its name if the body succeeds.
        write: Writes the export.
        predict: Predicts by the export, in a fresh process.
        tolerance: Largest difference of the probabilities.
        tiling: Tiling in the graph.
        precision: Precision that the graph computes in.
        frozen: Whether the weights are constants of the graph.
        measure: Measure of the difference.

    Raises:
        ValueError: If the export does not run, or differs by more than the tolerance.
        OSError: If it cannot be written.
    """
    exact = segmenter.with_precision(precision)
    with draft as path:
        metadata = ExportMetadata(exact, tiling, precision, frozen)
        network = average_ensemble(
            [member.network for member in exact.members],
            [member.info.normalization for member in exact.members],
        )
        with status("writing the graph"):
            write(path, metadata, network)
        result = check_parity(exact, tiling, tolerance, partial(predict, path), measure=measure)
        _log.info(result)


def check_parity(
    segmenter: Segmenter,
    tiling: GraphTiling,
    tolerance: float,
    predict: Predict,
    *,
    measure: Measure = LARGEST,
) -> str:
    """Compares an export with its segmenter on an image of several tiles.

    Args:
        segmenter: The model, in the precision of the export.
        tiling: Tiling of the export.
        tolerance: Largest difference of the probabilities.
        predict: Predicts by the export.
        measure: Measure of the difference.

    Returns:
        A message with the difference.

    Raises:
        ValueError: If the export does not run, or differs by more than the tolerance.
    """
    image, name = example_image(segmenter.info, 3 * tiling.useful // 2)
    with tf.device("/CPU:0"):
        expected = segmenter.predict_pixels(image, Path(name), tile_size=tiling.tile_size)
    predicted = predict(image.astype(np.float32))
    has_shape = predicted.shape == expected.shape
    difference = measure.compute(predicted, expected) if has_shape else np.inf
    source = "ensemble" if len(segmenter.members) > 1 else "run"
    if not difference <= tolerance:  # NaN is no parity either
        raise ValueError(
            f"{segmenter.info.name}: expected an export that predicts the same as the {source}, to "
            f"{tolerance:.0e}. Received a difference of {difference:.1e} ({measure.name}) on "
            f"{name}; nothing was kept. Export in float32 without quantization, or with another "
            "version of TensorFlow"
        )
    return (
        f"{measure.name} difference from the {source} on {name}, {image.shape[0]} x "
        f"{image.shape[1]} pixels: {difference:.1e} (allowed: {tolerance:.0e})"
    )


def example_image(info: ModelInfo, largest: int) -> tuple[NDArray[Any], str]:
    """Reads the first image of the training's data folder, or draws one if it is missing.

    Args:
        info: Metadata of the model.
        largest: Largest height and width in pixels; larger images are cut.

    Returns:
        Raw pixels `(height, width, channels)` and the name of the image.
    """
    channels = info.architecture.channels
    try:
        path = find_pairs(Path(info.record["data"]["folder"])).pairs[0].image
        axes = info.record["options"].get("axes")
        planes = read_image(path, palette="colors", axes=axes, channels=info.selection).planes
        image = as_channels(planes[0], channels, path)
    except (KeyError, OSError, ValueError):  # the data was moved or replaced
        size = (max(largest, _SMALLEST_DRAWING),) * 2
        drawn = [draw_cells(seed, size=size)[0] for seed in range(channels)]
        return np.stack(drawn, axis=-1), "a drawn image"
    return image[:largest, :largest], path.name


def predict_by_saved_model(folder: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Predicts by a SavedModel in a fresh process, see `Predict`.

    Raises:
        ValueError: If it does not load or run.
    """
    command = ["tensorflow.python.tools.saved_model_cli", "run", "--dir", str(folder.absolute())]
    command += ["--tag_set", "serve", "--signature_def", "serving_default"]
    command += ["--inputs", "image=image.npy", "--outdir", "."]
    probabilities: NDArray[Any] = _run(folder, command, image[None])[0]
    return probabilities


def predict_by_tflite(path: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Predicts by a .tflite file in a fresh process, see `Predict`.

    Raises:
        ValueError: If it does not load or run.
    """
    return _run_module("keras_unet.prediction.tflite", path, image)


def predict_by_onnx(path: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Predicts by an .onnx file in a fresh process, see `Predict`.

    Raises:
        ValueError: If it does not load or run.
    """
    return _run_module("keras_unet.export.check_onnx", path, image)


def predict_by_bioimageio(path: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Predicts by a BioImage.IO package in a fresh process, after its own test, see `Predict`.

    Raises:
        ValueError: If it is not valid, its test fails, or it does not run.
    """
    return _run_module("keras_unet.export.check_bioimageio", path, image)


def _run_module(module: str, path: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    return _run(path, [module, str(path.absolute()), "image.npy", "probabilities.npy"], image)


def _run(exported: Path, command: list[str], image: NDArray[np.float32]) -> NDArray[Any]:
    """Runs a module that reads image.npy and writes probabilities.npy."""
    with tempfile.TemporaryDirectory() as name, status("running the export in a fresh process"):
        np.save(Path(name) / "image.npy", image)
        result = subprocess.run(  # noqa: S603 - modules named in this file, on files of our own
            [sys.executable, "-m", *command],
            cwd=name,
            env=os.environ | _ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        output = Path(name) / "probabilities.npy"
        if not output.is_file():
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            raise ValueError(
                f"{exported}: expected an export that a fresh process loads and runs. Received "
                f"one that fails ({reason}); nothing was kept. Export without --frozen, or "
                "with another version of TensorFlow"
            )
        probabilities: NDArray[Any] = np.load(output)
        return probabilities
