"""Reads a BioImage.IO package by bioimageio.spec and predicts by blocks with bioimageio.core.

A program of its own, `bioimageio_reader.py RDF IMAGE.npy ANSWERS.npz`, since the libraries leave
files open. It answers once for each of the size parameters 0, 1 and 7, by the ONNX weights, and
prints the description as they understand it.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from bioimageio.core import Sample, Tensor, create_prediction_pipeline
from bioimageio.spec import load_model_description
from bioimageio.spec.model.v0_5 import TensorId


def sample(image):
    axes = ("batch", "y", "x", "channel")
    return Sample(members={TensorId("image"): Tensor(image[None], axes)}, stat={}, id="image")


def main(path, image, answers):
    description = load_model_description(path)
    pixels = np.load(image)
    with create_prediction_pipeline(description, weights_format="onnx") as pipeline:
        found = {
            str(n): pipeline.predict_sample_with_blocking(sample(pixels), ns=n) for n in (0, 1, 7)
        }
    members = {n: one.members[TensorId("probabilities")] for n, one in found.items()}
    np.savez(answers, **{n: np.asarray(one.data)[0] for n, one in members.items()})
    status = description.validation_summary.status
    print(json.dumps({"status": status} | description.model_dump(mode="json")))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
