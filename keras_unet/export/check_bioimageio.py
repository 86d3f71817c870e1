"""Answers by a BioImage.IO package in bioimageio.core, after the package's own test.

`python -m keras_unet.export.check_bioimageio PACKAGE.zip IMAGE.npy PROBABILITIES.npy`

The description must be valid, all weights must reproduce the test output, and a prediction by
blocks must give what the whole image gives.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bioimageio.core import PredictionPipeline, Sample, Tensor, create_prediction_pipeline
from bioimageio.core import test_model as try_out
from bioimageio.spec import load_model_description
from bioimageio.spec.model.v0_5 import TensorId
from numpy.typing import NDArray

_IMAGE, _PROBABILITIES = TensorId("image"), TensorId("probabilities")
_AXES = ("batch", "y", "x", "channel")
_ROUNDING = 1e-5


def main(arguments: Sequence[str]) -> None:
    """Predicts an array of raw pixels `(height, width, channels)` and writes the probabilities."""
    package, image, answer = map(Path, arguments)
    _check(package)
    description: Any = load_model_description(package)
    pixels = np.load(image)
    with create_prediction_pipeline(description) as pipeline:
        _check_blocks(pipeline, description.inputs[0].axes[1].size, pixels)
        np.save(answer, _whole(pipeline, pixels))


def _check(package: Path) -> None:
    """Ends the program where the format or the reproduction of the test output fails."""
    summary = try_out(package)
    if summary.status != "passed":
        reasons = [f"{part.name}: {error.msg}" for part in summary.details for error in part.errors]
        sys.exit("; ".join(" ".join(reason.split()) for reason in reasons) or summary.status)


def _check_blocks(pipeline: PredictionPipeline, sizes: Any, pixels: NDArray[Any]) -> None:
    """Ends the program where blocks give something else; of a small image there are none."""
    steps = [(size - sizes.min) // sizes.step for size in pixels.shape[:2]]
    if min(steps) < 0:
        return
    height, width = (sizes.min + step * sizes.step for step in steps)
    cut = pixels[:height, :width]
    joined = pipeline.predict_sample_with_blocking(_sample(cut), ns=min(steps) // 2)
    difference = np.abs(_array(joined) - _whole(pipeline, cut)).max()
    if not difference <= _ROUNDING:
        sys.exit(f"a prediction by blocks differs from that of the whole by {difference:.1e}")


def _whole(pipeline: PredictionPipeline, pixels: NDArray[Any]) -> NDArray[Any]:
    """Predicts at once, without the halo: an image has no neighbours."""
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
