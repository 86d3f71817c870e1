"""From a run or an ensemble to a BioImage.IO package, which Fiji and the model zoo read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.console import status
from keras_unet.export.artefact import Artefact
from keras_unet.export.graph import USEFUL_PIXELS, GraphTiling, least_size
from keras_unet.export.parity import answer_of_bioimageio, check_parity, example_image
from keras_unet.export.source import Source, network_of
from keras_unet.files import PathLike, check_new_file, drafted
from keras_unet.prediction.networks import Member, predict_together
from keras_unet.report.pictures import grey_picture, label_picture, write_png
from keras_unet.runs import Run
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

LICENCE = "CC-BY-4.0"
UNKNOWN = "unknown"

_PACKAGES = ("bioimageio.core", "bioimageio.spec", "onnx", "onnxruntime", "tf2onnx")


def export_bioimageio(
    run_folder: PathLike,
    out: PathLike,
    *,
    authors: Sequence[str] = (),
    licence: str = LICENCE,
) -> Path:
    """Exports a run or an ensemble as a BioImage.IO package, complete in itself.

    What was written is loaded by a fresh process: the package's own test must pass there for all
    weights, blocks must give what the whole image gives, and that is compared with the run, before
    the package gets its name.

    Args:
        run_folder: A folder that training wrote, a run or an ensemble.
        out: File to write; its name ends in .zip.
        authors: Names of those who made the model; none for unknown, which will do until the
            package is published.
        licence: SPDX identifier of the licence that others may use the model under.

    Returns:
        The file written.

    Raises:
        ModuleNotFoundError: If the packages of the extra `bioimageio` are missing.
        ValueError: If the run's record or model cannot be read, its network normalises groups, the
            licence is no SPDX identifier, a name is not UTF-8, or what was written is not valid or
            answers otherwise than the run.
        OSError: If the run is missing, a fold is not trained to its end, the file is there
            already, or it cannot be written.
    """
    require("bioimageio", *_PACKAGES)
    from keras_unet.export.bioimageio_package import (
        Credits,
        Example,
        check_authors,
        check_licence,
        write_package,
    )

    out = Path(out)
    source = Source.load(run_folder)
    run = source.run
    _check_blocks(run)
    check_licence(licence)
    check_authors(authors)
    check_new_file(out, ".zip")
    members, tiling = source.members("float32"), GraphTiling.of(run.architecture)
    image = _example(run)
    example = Example(image, _predicted(members, image))
    artefact = Artefact(run, tiling, "float32", frozen=True, folds=source.folds)
    with drafted(out) as path:
        cover = path.with_name("cover.png")
        write_png(cover, _cover(example.image, example.probabilities))
        credited = Credits(authors or (UNKNOWN,), licence)
        with status("converting the graph"):
            write_package(path, artefact, network_of(members), example, cover, credited)
        numbers = tiling.tile_size, tiling.useful, ALLOWED[run.standardisation.mode]
        _log.info(check_parity(run, members, *numbers, partial(answer_of_bioimageio, path)))
    _log.info(
        f"authors: {', '.join(authors) or UNKNOWN} (--author); licence: {licence} (--license)"
    )
    return out


def _check_blocks(run: Run) -> None:
    """Refuses a network that measures each block by itself: blocks would not give the whole."""
    if run.architecture.normalization == "group":
        raise ValueError(
            f'{run.folder}: expected a run without normalization="group", whose scores depend on '
            "the block that a program lays. Received one with it; export it as saved_model, onnx "
            "or tflite, where the tile is fixed"
        )


def _example(run: Run) -> NDArray[Any]:
    """Reads an image of the run's data, cut or mirrored to a size that a block may have."""
    image, _ = example_image(run, USEFUL_PIXELS)
    rows, columns = (slice(0, _fitting(size, run.architecture)) for size in image.shape[:2])
    return mirrored_window(image, rows, columns)


def _fitting(size: int, network: Architecture) -> int:
    least = least_size(network)
    return least + max(0, size - least) // network.step * network.step


def _predicted(members: Sequence[Member], image: NDArray[Any]) -> NDArray[np.float32]:
    with tf.device("/CPU:0"):
        return predict_together(members, image, Path("the example"))


def _cover(image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draws image and classes side by side, twice as wide as high."""
    side = min(*image.shape[:2], COVER)
    square, classes = image[:side, :side], probabilities[:side, :side].argmax(-1)
    return np.concatenate([grey_picture(square), label_picture(classes, square)], axis=1)
