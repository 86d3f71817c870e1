"""Whether what was exported answers as the run does, seen from outside.

TensorFlow's own saved_model_cli loads it in a fresh process, where nothing of this package can
help. Both sides compute on the processor, since a GPU rounds otherwise and is not shared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import tf
from keras_unet.data.images import as_channels, read_planes
from keras_unet.data.pairs import find_pairs
from keras_unet.precision import Precision
from keras_unet.prediction import predict_image
from keras_unet.runs import Run
from keras_unet.synthetic import draw_cells

TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 1e-2}
"""Largest difference of a probability; half precisions round where operations are joined."""

Answer = Callable[[NDArray[np.float32]], NDArray[Any]]

_SMALLEST_DRAWING = 64


def check_parity(
    run: Run, network: Any, tile_size: int, useful: int, tolerance: float, answer: Answer
) -> str:
    """Compares what was exported with the run on an image of several tiles.

    The image is the first of the run's data folder where that is still there, else a drawn one.

    Args:
        run: The run.
        network: Its network, in the precision exported.
        tile_size: Height and width of the tiles in pixels.
        useful: Pixels a side that one tile fills.
        tolerance: Largest difference of a probability that is due to rounding.
        answer: Asks what was exported: raw pixels `(height, width, channels)`, float32, to
            probabilities `(height, width, classes)`.

    Returns:
        A line for a person with the largest difference.

    Raises:
        ValueError: If it does not answer, or differs by more than the tolerance.
    """
    image, name = _image(run, 3 * useful // 2)
    with tf.device("/CPU:0"):
        standardised = run.standardise(image, Path(name))
        expected = predict_image(network, standardised, tile_size=tile_size)
    answered = answer(image.astype(np.float32))
    alike = answered.shape == expected.shape
    difference = float(np.abs(answered - expected).max()) if alike else np.inf
    if not difference <= tolerance:  # NaN is no parity either
        raise ValueError(
            f"{run.folder}: expected an export that answers as the run does, to "
            f"{tolerance:.0e}. Received a difference of {difference:.1e} on {name}; "
            "nothing was kept. Export in float32, or with another version of TensorFlow"
        )
    return (
        f"largest difference from the run on {name}, {image.shape[0]} x {image.shape[1]} pixels: "
        f"{difference:.1e} (allowed: {tolerance:.0e})"
    )


def answer_of_saved_model(folder: Path, image: NDArray[np.float32]) -> NDArray[Any]:
    """Answers by a SavedModel, in a fresh process.

    Raises:
        ValueError: If it does not load or answer.
    """
    with tempfile.TemporaryDirectory() as name:
        np.save(Path(name) / "image.npy", image[None])
        command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"]
        command += ["--dir", str(folder.absolute()), "--tag_set", "serve"]
        command += ["--signature_def", "serving_default", "--inputs", "image=image.npy"]
        result = subprocess.run(  # noqa: S603 - TensorFlow's own program on files of our own
            [*command, "--outdir", "."],
            cwd=name,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        written = Path(name) / "probabilities.npy"
        if not written.is_file():
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            raise ValueError(
                f"{folder}: expected a graph that a fresh process loads and runs. Received one "
                f"that it does not ({reason}); nothing was kept. Export without --frozen, or with "
                "another version of TensorFlow"
            )
        answer: NDArray[Any] = np.load(written)[0]
        return answer


def _image(run: Run, largest: int) -> tuple[NDArray[Any], str]:
    """Raw pixels `(height, width, channels)` and their name."""
    channels = run.architecture.channels
    try:
        path = find_pairs(Path(run.record["data"]["folder"])).pairs[0].image
        image = as_channels(read_planes(path, palette="colours")[0], channels, path)
    except (KeyError, OSError, ValueError):  # moved, or replaced by other data
        size = (max(largest, _SMALLEST_DRAWING),) * 2
        drawn = [draw_cells(seed, size=size)[0] for seed in range(channels)]
        return np.stack(drawn, axis=-1), "a drawn image"
    return image[:largest, :largest], path.name
