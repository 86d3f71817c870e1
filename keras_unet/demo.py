"""The whole way on pictures of touching cells that the package draws itself: no download."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import numpy as np

from keras_unet.console import track
from keras_unet.data.distances import separate_touching
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.data.synthetic import draw_cells
from keras_unet.data.weight_maps import weight_map
from keras_unet.evaluation.evaluate import Evaluation, evaluate_folders
from keras_unet.evaluation.figures import matched
from keras_unet.files import check_new, make_folder
from keras_unet.prediction.folder import predict_files
from keras_unet.report.pictures import (
    Picture,
    grey_picture,
    heat_picture,
    label_picture,
    montage,
    write_png,
)
from keras_unet.training.options import ResolvedOptions
from keras_unet.training.train import train_folder

_log = logging.getLogger(__name__)

TRAINING_IMAGES, HELD_OUT_IMAGES = 12, 4
_TILE = 348  # pixels, of which 260 are scored: a whole picture
_SEEDS = 1000  # pictures that one seed of the demo may draw
_HELD_OUT = 500  # the first of them that are held out


def run_demo(
    out: Path,
    *,
    steps: int = 1000,
    seed: int = 0,
    border_weight: float = 10.0,
) -> Evaluation:
    """Draws touching cells, trains, predicts pictures the network has not seen, and scores them.

    Args:
        out: Folder to write: `data/`, `held_out/`, `run/`, `predictions/`, `scores.json`
            and `demo.png`.
        steps: Training steps.
        seed: Decides the pictures and the training.
        border_weight: w0 of equation 2; 0 shows what the border weights are worth.

    Returns:
        The scores on the held-out pictures.

    Raises:
        OSError: If the folder holds files, or cannot be written.
        ValueError: If a number is out of range.
    """
    options = ResolvedOptions(
        steps=steps,
        depth=3,
        tile=_TILE,
        base_filters=16,
        seed=seed,
        border_weight=border_weight,
    )
    check_new(out, "the demo")
    data, held_out = out / "data", out / "held_out"
    _draw(data, range(_SEEDS * seed, _SEEDS * seed + TRAINING_IMAGES))
    first = _SEEDS * seed + _HELD_OUT
    _draw(held_out, range(first, first + HELD_OUT_IMAGES))
    _log.info(
        f"drew {TRAINING_IMAGES} pictures of touching cells to train on, {HELD_OUT_IMAGES} to test"
    )
    train_folder(data, out / "run", options)
    predict_files(out / "run", [held_out / "images"], out / "predictions")
    write_png(out / "demo.png", _picture(out, border_weight))
    return evaluate_folders(out / "predictions", held_out / "labels", json=out / "scores.json")


def what_next(out: Path) -> str:
    """Says what a demo has written, and the commands for data of one's own."""
    folder = shlex.quote(str(out))
    return f"""
Written to {out}:
  demo.png      image, truth, prediction and weight map of the held-out pictures
  run/          the trained network, history.csv, pictures/
  predictions/  label images of the held-out pictures
  scores.json   the scores above
The same steps, one by one:
  keras-unet predict {folder}/run {folder}/held_out/images --out FOLDER
  keras-unet evaluate {folder}/predictions {folder}/held_out/labels
On your own images: put them into DATA/images, their labels (one number a cell, or 0 and 255) under
the same names into DATA/labels, and type
  keras-unet train DATA --run RUN
  keras-unet predict RUN IMAGES... --out PREDICTIONS
  keras-unet evaluate PREDICTIONS LABELS"""


def _draw(folder: Path, seeds: range) -> None:
    images, labels = make_folder(folder / "images"), make_folder(folder / "labels")
    for seed in track(seeds, "drawing cells"):
        image, instances = draw_cells(seed)
        name, truth = f"cells{seed:04d}.tif", instances.astype(np.uint16)
        write_tiff(images / name, image, axes="YX", is_data=True)
        write_tiff(labels / name, truth, axes="YX", is_data=True)


def _picture(out: Path, border_weight: float) -> Picture:
    rows = []
    for path in sorted((out / "held_out" / "images").iterdir()):
        image = read_planes(path)[0]
        truth = read_planes(out / "held_out" / "labels" / path.name)[0, ..., 0].astype(np.int32)
        found = matched(truth, read_planes(out / "predictions" / path.name)[0, ..., 0])
        cells = (separate_touching(truth) > 0).astype(np.uint8)
        weights = weight_map(cells, truth, w0=border_weight)
        rows.append(
            [grey_picture(image), label_picture(truth), label_picture(found), heat_picture(weights)]
        )
    return montage(rows, ["image", "truth", "prediction", "weight map"])
