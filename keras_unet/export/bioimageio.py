"""From a run or an ensemble to a BioImage.IO package, which Fiji and the model zoo read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.export.artefact import Artefact
from keras_unet.export.draft import write_and_compare
from keras_unet.export.graph import USEFUL_PIXELS, GraphTiling, least_size
from keras_unet.export.parity import answer_of_bioimageio, example_image
from keras_unet.files import check_new_file, drafted
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.report.pictures import grey_picture, label_picture, write_png
from keras_unet.runs import ModelInfo
from keras_unet.system import require
from keras_unet.tiling import mirrored_window

_log = logging.getLogger(__name__)

ALLOWED = {"dataset": 1e-5, "image": 1e-4}
"""Largest difference of a probability, by who measures grey values.

An image is measured by itself by the program that runs the model. The format lets it add 1e-6 to
the deviation, which images in [0, 1] feel.
"""

COVER = 256
"""Height of the cover in pixels at most, which keeps it below the model zoo's 500 KB."""

LICENSE = "CC-BY-4.0"
UNKNOWN = "unknown"

_PACKAGES = ("bioimageio.core", "bioimageio.spec", "onnx", "onnxruntime", "tf2onnx")


def export_bioimageio(
    segmenter: Segmenter,
    out: Path,
    *,
    authors: Sequence[str] = (),
    license: str = LICENSE,  # noqa: A002 - the field's word
) -> Path:
    """Exports a model as a BioImage.IO package, complete in itself, see `export_model`.

    A fresh process must pass the package's own test for all weights, and blocks must give what the
    whole image gives.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .zip.
        authors: Names of those who made the model; none for unknown, which will do until the
            package is published.
        license: SPDX identifier of the license that others may use the model under.

    Returns:
        The file written.
    """
    require("bioimageio", *_PACKAGES)
    from keras_unet.export.bioimageio_package import (
        Credits,
        Example,
        check_authors,
        check_license,
        write_package,
    )

    info = segmenter.info
    _check_blocks(info)
    check_license(license)
    check_authors(authors)
    check_new_file(out, ".zip")

    def write(path: Path, artefact: Artefact, network: Any) -> None:
        image = _example(info)
        example = Example(image, _predicted(artefact.segmenter, image))
        cover = path.with_name("cover.png")
        write_png(cover, _cover(example.image, example.probabilities))
        credited = Credits(authors or (UNKNOWN,), license)
        write_package(path, artefact, network, example, cover, credited)

    write_and_compare(
        segmenter,
        drafted(out),
        write,
        answer_of_bioimageio,
        ALLOWED[info.standardisation.mode],
        tiling=GraphTiling.of(info.architecture),
    )
    _log.info(
        f"authors: {', '.join(authors) or UNKNOWN} (--author); license: {license} (--license)"
    )
    return out


def _check_blocks(info: ModelInfo) -> None:
    """Refuses a network that measures each block by itself: blocks would not give the whole."""
    if info.architecture.normalization == "group":
        raise ValueError(
            f'{info.name}: expected a model without normalization="group", whose scores depend on '
            "the block that a program lays. Received one with it; export it as saved_model, onnx "
            "or tflite, where the tile is fixed"
        )


def _example(info: ModelInfo) -> NDArray[Any]:
    """Reads an image of the run's data, cut or mirrored to a size that a block may have."""
    image, _ = example_image(info, USEFUL_PIXELS)
    rows, columns = (slice(0, _fitting(size, info.architecture)) for size in image.shape[:2])
    return mirrored_window(image, rows, columns)


def _fitting(size: int, network: Architecture) -> int:
    least = least_size(network)
    return least + max(0, size - least) // network.step * network.step


def _predicted(segmenter: Segmenter, image: NDArray[Any]) -> NDArray[np.float32]:
    with tf.device("/CPU:0"):
        return segmenter.predict_pixels(image, Path("the example"))


def _cover(image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draws image and classes side by side, twice as wide as high."""
    side = min(*image.shape[:2], COVER)
    square, classes = image[:side, :side], probabilities[:side, :side].argmax(-1)
    return np.concatenate([grey_picture(square), label_picture(classes, square)], axis=1)
