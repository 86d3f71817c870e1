"""The network in ONNX Runtime, in float32, the only precision that it has on a CPU."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.contenders import Contender, Work, ready
from benchmarks.peers import inputs
from keras_unet.architecture import Architecture

_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def prediction(network: Architecture, side: int, tile: int | None, device: str) -> Work:
    """Prediction of an image by the same tiles."""
    session, image = _session(network, device), inputs.normalized_image(side)

    def score(window: NDArray[np.float32]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(None, {"image": window})[0]
        return probabilities

    return lambda: [inputs.stitched(score, image, network, tile)]


def _session(network: Architecture, device: str) -> Any:
    """Writes the file in another process, with TensorFlow, and loads it in this one, without."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        with ready(Contender("", "in_keras.onnx_file", {"network": network, "path": path})) as file:
            file.answer()
        return onnxruntime.InferenceSession(path, options, providers=[_PROVIDERS[device]])
