"""Predicts an image by an .onnx file in ONNX Runtime, without TensorFlow and this package.

`python -m keras_unet.export.check_onnx MODEL.onnx IMAGE.npy PROBABILITIES.npy`
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import onnxruntime


def main(arguments: Sequence[str]) -> None:
    """Predicts an array of raw pixels `(height, width, channels)` and writes the probabilities."""
    model, image, out = arguments
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"image": np.load(image)[None]})
    np.save(out, probabilities[0])


if __name__ == "__main__":
    main(sys.argv[1:])
