"""The whole way on pictures of touching cells that the package draws itself: no download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_unet.data.images import read_planes, write_tiff
from keras_unet.data.weights import weight_map
from keras_unet.distances import separate_touching
from keras_unet.files import make_folder
from keras_unet.jobs.evaluate import Evaluation, evaluate_folders
from keras_unet.jobs.predict import predict_files
from keras_unet.jobs.train import TrainingOptions, train_folder
from keras_unet.report import grey_picture, heat_picture, label_picture, montage, write_png
from keras_unet.synthetic import draw_cells
from keras_unet.training import Progress, TrainingPlan

TRAINING_IMAGES, HELD_OUT_IMAGES = 12, 4


def run_demo(
    out: Path,
    *,
    steps: int = 300,
    seed: int = 0,
    border_weight: float = 10.0,
    on_start: Callable[[TrainingPlan], None] = lambda _: None,
    on_step: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Draws touching cells, trains, predicts pictures the network has not seen, and scores them.

    Args:
        out: Folder to write: `data/`, `held_out/`, `run/`, `predictions/` and `demo.png`.
        steps: Training steps.
        seed: Decides the pictures and the training.
        border_weight: w0 of equation 2; 0 shows what the border weights are worth.
        on_start: Called with the plan before the first batch.
        on_step: Called after every batch.
        say: Takes a line for a person.

    Returns:
        The scores on the held-out pictures.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If the folder holds a demo already.
    """
    data, held_out = out / "data", out / "held_out"
    _draw(data, range(1000 * seed, 1000 * seed + TRAINING_IMAGES))
    _draw(held_out, range(1000 * seed + 500, 1000 * seed + 500 + HELD_OUT_IMAGES))
    say(f"Drew {TRAINING_IMAGES} pictures of touching cells to train on, {HELD_OUT_IMAGES} to test.")
    options = TrainingOptions(
        steps=steps, depth=3, base_filters=16, seed=seed, border_weight=border_weight
    )
    train_folder(data, out / "run", options, on_start=on_start, on_step=on_step, say=say)
    predict_files(out / "run", [held_out / "images"], out / "predictions", say=say)
    write_png(out / "demo.png", _picture(out))
    return evaluate_folders(out / "predictions", held_out / "labels", json=out / "scores.json")


def _draw(folder: Path, seeds: range) -> None:
    images, labels = make_folder(folder / "images"), make_folder(folder / "labels")
    for seed in seeds:
        image, instances = draw_cells(seed)
        write_tiff(images / f"cells{seed:04d}.tif", image, axes="YX")
        write_tiff(labels / f"cells{seed:04d}.tif", instances.astype(np.uint16), axes="YX")


def _picture(out: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows = []
    for path in sorted((out / "held_out" / "images").iterdir()):
        image = read_planes(path)[0]
        truth = read_planes(out / "held_out" / "labels" / path.name)[0, ..., 0].astype(np.int32)
        found = read_planes(out / "predictions" / path.name)[0, ..., 0]
        weights = weight_map((separate_touching(truth) > 0).astype(np.uint8), truth)
        rows.append(
            [grey_picture(image), label_picture(truth), label_picture(found), heat_picture(weights)]
        )
    return montage(rows, ["image", "truth", "prediction", "weight map"])
