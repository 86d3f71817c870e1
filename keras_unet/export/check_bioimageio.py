"""Tests a BioImage.IO package in bioimageio.core, and predicts an image by it.

`python -m keras_unet.export.check_bioimageio PACKAGE.zip IMAGE.npy PROBABILITIES.npy`

The description must be valid, all weights must reproduce the test output, and a blockwise
prediction must equal that of the whole image.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bioimageio.core import PredictionPipeline, Sample, Tensor, create_prediction_pipeline
from bioimageio.core import test_model as run_test
from bioimageio.spec import load_model_description
from bioimageio.spec.model.v0_5 import TensorId
from numpy.typing import NDArray

_IMAGE, _PROBABILITIES = TensorId("image"), TensorId("probabilities")
_AXES = ("batch", "y", "x", "channel")
_ROUNDING = 1e-5


def main(arguments: Sequence[str]) -> None:
    """Predicts an array of raw pixels `(height, width, channels)` and writes the probabilities."""
    package, image, out = map(Path, arguments)
    _check_package(package)
    description: Any = load_model_description(package)
    pixels = np.load(image)
    with create_prediction_pipeline(description) as pipeline:
        _check_blocks(pipeline, description.inputs[0].axes[1].size, pixels)
        np.save(out, _predict_whole(pipeline, pixels))


def _check_package(package: Path) -> None:
    """Exits if the format is invalid or the test output is not reproduced."""
    summary = run_test(package)
    if summary.status != "passed":
        reasons = [f"{part.name}: {error.msg}" for part in summary.details for error in part.errors]
        sys.exit("; ".join(" ".join(reason.split()) for reason in reasons) or summary.status)


def _check_blocks(pipeline: PredictionPipeline, sizes: Any, pixels: NDArray[Any]) -> None:
    """Exits if a blockwise prediction differs from that of the whole image."""
    steps = [(size - sizes.min) // sizes.step for size in pixels.shape[:2]]
    if min(steps) < 0:  # the image is smaller than a block
        return
    height, width = (sizes.min + step * sizes.step for step in steps)
    block = pixels[:height, :width]
    joined = pipeline.predict_sample_with_blocking(_sample(block), ns=min(steps) // 2)
    difference = np.abs(_array(joined) - _predict_whole(pipeline, block)).max()
    if not difference <= _ROUNDING:
        sys.exit(f"a blockwise prediction differs from that of the whole image by {difference:.1e}")


def _predict_whole(pipeline: PredictionPipeline, pixels: NDArray[Any]) -> NDArray[Any]:
    """Predicts a whole image, which needs no halo."""
    return _array(
        pipeline.predict_sample_without_blocking(
            _sample(pixels), skip_input_padding=True, skip_output_cropping=True
        )
    )


def _sample(pixels: NDArray[Any]) -> Sample:
    return Sample(members={_IMAGE: Tensor(pixels[None], dims=_AXES)}, stat={}, id="image")


def _array(sample: Sample) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(sample.members[_PROBABILITIES].data)[0]
    return array


if __name__ == "__main__":
    main(sys.argv[1:])
