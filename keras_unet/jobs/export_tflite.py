"""From a run or an ensemble to a .tflite file that a phone or the computer of a microscope runs."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.samples import read_samples
from keras_unet.export.artefact import Artefact
from keras_unet.export.tflite import Mode, Quantisation, write_tflite
from keras_unet.export.tiling import GraphTiling
from keras_unet.files import PathLike, drafted
from keras_unet.jobs.exporting import Source, network_of
from keras_unet.jobs.folders import check_new_file
from keras_unet.jobs.parity import LARGEST, MEAN, Measure, answer_of_tflite, check_parity
from keras_unet.runs import Run
from keras_unet.tiling import Tiling, mirrored_window
from keras_unet.tracking import working

_log = logging.getLogger(__name__)

ALLOWED: dict[Mode, tuple[Measure, float]] = {
    "none": (LARGEST, 1e-5),
    "float16": (LARGEST, 2e-2),
    "dynamic": (MEAN, 5e-2),
    "int8": (MEAN, 1e-1),
}
"""How far an export may be from its run.

Numbers rounded to int8 move the border of a cell by a fraction of a pixel. A pixel there may then
have any probability, so the largest difference tells nothing, and the mean is held against a limit.
The limit is for what is broken (an answer of one class alone is far beyond it), not for what is
good: only the score on images held out says that, and `python -m benchmarks.tflite` measures it.
"""

TILES = 16
"""Representative tiles: more take longer and, as measured, gain nothing."""

_USUAL = (0.1, 0.9)
"""Ranks of the usual tiles.

One very bright speck would stretch the range of int8 for all images, and their own grey values
would share what few of its 256 steps are left.
"""


def export_tflite(
    run_folder: PathLike,
    out: PathLike,
    *,
    tile_size: int | None = None,
    quantize: Mode = "none",
    int8_io: bool = False,
    data: PathLike | None = None,
) -> Path:
    """Exports a run or an ensemble as a .tflite file of one tile, which says how to tile with it.

    What was written is loaded by a fresh process and compared with the run before it gets its name.

    Args:
        run_folder: A folder that training wrote, a run or an ensemble.
        out: File to write; its name ends in .tflite.
        tile_size: Height and width of the tile in pixels; None for one that fills 512. Memory
            grows with it.
        quantize: "none" keeps float32, "float16" halves the file, "dynamic" and "int8" make it a
            quarter; `keras_unet.export.tflite.Quantisation` says how each computes.
        int8_io: Whether tile and logits are int8 too; with "int8".
        data: The data folder of the training, for "int8", which measures training images; None
            for where it was then.

    Returns:
        The file written.

    Raises:
        ValueError: If the run's record or model cannot be read, an option is unknown or does not go
            with the others, the tile size does not fit, the training images are not in the data
            folder, or what was written answers otherwise than the run.
        OSError: If the run or, for "int8", its data folder is missing, a fold is not trained to
            its end, the file is there already, or it cannot be written.
    """
    out, data = Path(out), None if data is None else Path(data)
    source = Source.load(run_folder)
    run = source.run
    quantisation = Quantisation(quantize, int8_io)
    tiling = GraphTiling.of(run.architecture, tile_size)
    check_new_file(out, ".tflite")
    if data is not None and quantize != "int8":
        raise ValueError(
            f'data is looked at for quantize="int8". Received: quantize="{quantize}"; leave it out'
        )
    tiles = _representative_tiles(run, tiling, data) if quantize == "int8" else []
    members = source.members("float32")
    measure, tolerance = ALLOWED[quantize]
    with drafted(out) as path:
        artefact = Artefact(run, tiling, "float32", frozen=True, folds=source.folds)
        with working("converting the graph"):
            write_tflite(path, artefact, network_of(members), quantisation, tiles)
        numbers = tiling.tile_size, tiling.useful, tolerance, partial(answer_of_tflite, path)
        _log.info(check_parity(run, members, *numbers, measure=measure))
    return out


def _representative_tiles(
    run: Run, tiling: GraphTiling, data: Path | None
) -> list[NDArray[np.float32]]:
    """Cuts usual tiles from the run's training images, standardised.

    All tiles are ranked by their largest standardised grey value, and some are taken at even
    distances of rank, the extremes left out.
    """
    size = (tiling.tile_size,) * 2
    places = [
        (image, tile.read)
        for image in _training_images(run, data)
        for tile in Tiling.covering(image.shape[:2], run.architecture, size)
    ]
    peaks = [np.abs(mirrored_window(image, *read)).max() for image, read in places]
    ranks = np.quantile(np.arange(len(places)), np.linspace(*_USUAL, min(TILES, len(places))))
    chosen = np.argsort(peaks)[ranks.round().astype(int)]
    return [mirrored_window(image, *read) for image, read in (places[one] for one in chosen)]


def _training_images(run: Run, data: Path | None) -> list[NDArray[np.float32]]:
    """Reads the images that the run was trained on, standardised."""
    record = run.record.get("data", {})
    folder = data or Path(record.get("folder", ""))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder. Expected the data that the run was trained on, by whose "
            "images the ranges of int8 are found; say where they are by data (--data)"
        )
    found = read_samples(
        folder,
        labels=run.scheme.kind,
        ignore=run.scheme.ignore,
        allow_empty=True,
        axes=run.record["options"].get("axes"),
    ).samples
    images = [one.image for one in found if one.name in record.get("training", ())]
    if not images:
        raise ValueError(
            f"{folder}: expected images that the run was trained on. Received none of them; say "
            "where they are by data (--data)"
        )
    return [run.standardisation.apply(image) for image in images]
