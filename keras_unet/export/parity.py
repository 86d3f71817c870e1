"""Comparison of an export with its run or ensemble, from outside.

It is loaded in a fresh process: a SavedModel by TensorFlow's own saved_model_cli, where nothing of
this package can help, a .tflite file by the package's runner, where nothing of TensorFlow can, an
.onnx file by ONNX Runtime and a BioImage.IO package by bioimageio.core. Both sides compute on the
processor, since a GPU rounds otherwise and is not shared.
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

TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 1e-2}
"""Largest difference of a probability; half precisions round where operations are joined."""

_log = logging.getLogger(__name__)

Answer = Callable[[NDArray[np.float32]], NDArray[Any]]


class Measure(NamedTuple):
    """One number for the difference of all probabilities, answered and expected."""

    name: str
    of: Callable[[NDArray[Any], NDArray[Any]], float]


def _largest(answered: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(answered - expected).max())


def _mean(answered: NDArray[Any], expected: NDArray[Any]) -> float:
    """Lets the classes expected count alike, so that few cells are not lost among background."""
    differences, classes = np.abs(answered - expected), expected.argmax(axis=-1)
    return float(np.mean([differences[classes == one].mean() for one in np.unique(classes)]))


LARGEST = Measure("largest", _largest)
MEAN = Measure("mean", _mean)

_SMALLEST_DRAWING = 64

_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",  # bioimageio.core's default is torch
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def check_parity(
    segmenter: Segmenter,
    tiling: GraphTiling,
    tolerance: float,
    answer: Answer,
    *,
    measure: Measure = LARGEST,
) -> str:
    """Compares what was exported with its segmenter on an image of several tiles.

    The image is the first of the training's data folder where that is still there, else a drawn
    one.

    Args:
        segmenter: The model, in the precision exported.
        tiling: How the export tiles.
        tolerance: Difference of probabilities that is due to rounding.
        answer: Asks what was exported: raw pixels `(height, width, channels)`, float32, to
            probabilities `(height, width, classes)`.
        measure: Which difference is held against the tolerance.

    Returns:
        A line for a person with the difference.

    Raises:
        ValueError: If it does not answer, or differs by more than the tolerance.
    """
    image, name = example_image(segmenter.info, 3 * tiling.useful // 2)
    with tf.device("/CPU:0"):
        expected = segmenter.predict_pixels(image, Path(name), tile_size=tiling.tile_size)
    answered = answer(image.astype(np.float32))
    alike = answered.shape == expected.shape
    difference = measure.of(answered, expected) if alike else np.inf
    source = "ensemble" if len(segmenter.members) > 1 else "run"
    if not difference <= tolerance:  # NaN is no parity either
        raise ValueError(
            f"{segmenter.info.name}: expected an export that answers as the {source} does, to "
            f"{tolerance:.0e}. Received a difference of {difference:.1e} ({measure.name}) on "
            f"{name}; nothing was kept. Export in float32 and unquantised, or with another version "
            "of TensorFlow"
        )
    return (
        f"{measure.name} difference from the {source} on {name}, {image.shape[0]} x "
        f"{image.shape[1]} pixels: {difference:.1e} (allowed: {tolerance:.0e})"
    )


def answer_of_saved_model(folder: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Answers by a SavedModel, in a fresh process.

    Raises:
        ValueError: If it does not load or answer.
    """
    command = ["tensorflow.python.tools.saved_model_cli", "run", "--dir", str(folder.absolute())]
    command += ["--tag_set", "serve", "--signature_def", "serving_default"]
    command += ["--inputs", "image=image.npy", "--outdir", "."]
    answer: NDArray[Any] = _asked(folder, command, image[None])[0]
    return answer


def answer_of_tflite(path: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Answers by a .tflite file, in a fresh process.

    Raises:
        ValueError: If it does not load or answer.
    """
    command = [
        "keras_unet.prediction.tflite",
        str(path.absolute()),
        "image.npy",
        "probabilities.npy",
    ]
    return _asked(path, command, image)


def answer_of_onnx(path: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Answers by an .onnx file, in a fresh process.

    Raises:
        ValueError: If it does not load or answer.
    """
    command = [
        "keras_unet.export.check_onnx",
        str(path.absolute()),
        "image.npy",
        "probabilities.npy",
    ]
    return _asked(path, command, image)


def answer_of_bioimageio(path: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Answers by a BioImage.IO package, in a fresh process, where its own test passes first.

    Raises:
        ValueError: If it is not valid, its test fails, or it does not answer.
    """
    module = "keras_unet.export.check_bioimageio"
    return _asked(path, [module, str(path.absolute()), "image.npy", "probabilities.npy"], image)


def _asked(exported: Path, command: list[str], image: NDArray[np.float32]) -> NDArray[Any]:
    """Runs a module that reads image.npy and writes probabilities.npy."""
    with tempfile.TemporaryDirectory() as name, status("asking a fresh process for its answer"):
        np.save(Path(name) / "image.npy", image)
        result = subprocess.run(  # noqa: S603 - modules named here, on files of our own
            [sys.executable, "-m", *command],
            cwd=name,
            env=os.environ | _ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        written = Path(name) / "probabilities.npy"
        if not written.is_file():
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            raise ValueError(
                f"{exported}: expected an export that a fresh process loads and runs. Received "
                f"one that it does not ({reason}); nothing was kept. Export without --frozen, or "
                "with another version of TensorFlow"
            )
        answer: NDArray[Any] = np.load(written)
        return answer


def example_image(info: ModelInfo, largest: int) -> tuple[NDArray[Any], str]:
    """Reads the first image of a training's data or, where that is no longer there, draws one.

    Args:
        info: Facts of the model.
        largest: Pixels a side that it is cut to.

    Returns:
        Raw pixels `(height, width, channels)` and their name.
    """
    channels = info.architecture.channels
    try:
        path = find_pairs(Path(info.record["data"]["folder"])).pairs[0].image
        axes = info.record["options"].get("axes")
        planes = read_image(path, palette="colors", axes=axes).planes
        image = as_channels(planes[0], channels, path)
    except (KeyError, OSError, ValueError):  # moved, or replaced by other data
        size = (max(largest, _SMALLEST_DRAWING),) * 2
        drawn = [draw_cells(seed, size=size)[0] for seed in range(channels)]
        return np.stack(drawn, axis=-1), "a drawn image"
    return image[:largest, :largest], path.name


Write = Callable[[Path, ExportMetadata, Any], None]
"""Writes an export to a path: its metadata, and the one Keras network of all members."""

AnswerByFile = Callable[[Path, NDArray[np.float32]], NDArray[Any]]
"""Answers by an export, from raw pixels to probabilities."""


def write_and_compare(
    segmenter: Segmenter,
    draft: AbstractContextManager[Path],
    write: Write,
    answer: AnswerByFile,
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
        draft: Yields the temporary path, and moves what was written there when all has gone well.
        write: Writes the export.
        answer: Answers by it, in a fresh process.
        tolerance: Difference of probabilities that is due to rounding.
        tiling: How the graph tiles.
        precision: Precision that the graph computes in.
        frozen: Whether the weights are constants of the graph.
        measure: Which difference is held against the tolerance.

    Raises:
        ValueError: If what was written does not answer, or differs by more than the tolerance.
        OSError: If it cannot be written.
    """
    exact = segmenter.with_precision(precision)
    with draft as path:
        artefact = ExportMetadata(exact, tiling, precision, frozen)
        network = average_ensemble(
            [member.network for member in exact.members],
            [member.info.normalization for member in exact.members],
        )
        with status("writing the graph"):
            write(path, artefact, network)
        _log.info(check_parity(exact, tiling, tolerance, partial(answer, path), measure=measure))
