"""Demos: training, prediction and evaluation on drawn cells; a model of the package on an image."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import numpy as np
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry
from skimage.exposure import rescale_intensity
from skimage.filters import gaussian

from keras_unet import shipped
from keras_unet.console import track
from keras_unet.data.distances import separate_touching
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.data.synthetic import draw_cells
from keras_unet.data.weight_maps import weight_map
from keras_unet.evaluation.evaluate import Evaluation, evaluate_folders
from keras_unet.evaluation.figures import renumber_matches
from keras_unet.files import check_new, make_folder
from keras_unet.prediction.folder import predict_files
from keras_unet.report.pictures import (
    Picture,
    grey_picture,
    heat_picture,
    label_picture,
    montage,
    outline_picture,
    write_png,
)
from keras_unet.training.options import ResolvedOptions
from keras_unet.training.train import train_folder

_log = logging.getLogger(__name__)

TRAINING_IMAGES, HELD_OUT_IMAGES = 12, 4
_MODEL = "nuclei"  # whose demo has an image
_BLUR = 1.5  # pixels; the separation of colors amplifies noise
_TILE = 348  # pixels; the output of 260 covers a whole image
_SEEDS = 1000  # images reserved for each seed of the demo
_HELD_OUT = 500  # number of the first image held out


def run_demo(
    out: Path,
    *,
    steps: int = 1000,
    seed: int = 0,
    border_weight: float = 10.0,
) -> Evaluation:
    """Draws touching cells, trains on them, and predicts and scores images held out.

    Args:
        out: Folder to write: `data/`, `held_out/`, `run/`, `predictions/`, `scores.json`
            and `demo.png`.
        steps: Number of training steps.
        seed: Seed of the images and of the training.
        border_weight: w0 of equation 2; 0 turns the border term off, for comparison.

    Returns:
        The scores of the images held out.

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
        f"drew {TRAINING_IMAGES} images of touching cells to train on and {HELD_OUT_IMAGES} to test"
    )
    train_folder(data, out / "run", options)
    predict_files(out / "run", [held_out / "images"], out / "predictions")
    write_png(out / "demo.png", _picture(out, border_weight))
    return evaluate_folders(out / "predictions", held_out / "labels", json=out / "scores.json")


def run_model_demo(name: str, out: Path) -> int:
    """Segments an image that comes with scikit-image by a model of the package.

    Args:
        name: Name of the model; the image is for "nuclei", of stained tissue: its amount of
            hematoxylin, which colors nuclei, smoothed.
        out: Folder to write: `image.tif`, `predictions/image.tif` and `demo.png`.

    Returns:
        The number of objects found.

    Raises:
        OSError: If the folder holds files, or cannot be written.
        ValueError: If there is no model of this name, or no image for it.
    """
    shipped.find(name)
    if name != _MODEL:
        raise ValueError(
            f"the demo has an image for the model {_MODEL}. Received: {name!r}; predict images of "
            f"your own: keras-unet predict {name} IMAGES... --out FOLDER"
        )
    check_new(out, "the demo")
    hematoxylin = gaussian(rgb2hed(immunohistochemistry())[..., 0], _BLUR)
    grey = rescale_intensity(hematoxylin, out_range=(0, 255)).astype(np.uint8)
    write_tiff(make_folder(out) / "image.tif", grey, axes="YX", is_data=True)
    (written,) = predict_files(
        name, out / "image.tif", out / "predictions", save=["instances"], scale=1.0
    )
    labels, picture = read_planes(written)[0, ..., 0].astype(np.int32), grey_picture(grey)
    outlines = outline_picture(picture, np.zeros_like(labels), labels)
    row = [picture, label_picture(labels), outlines]
    write_png(out / "demo.png", montage([row], ["image", "prediction", "outlines"]))
    return int(labels.max())


def next_steps(out: Path) -> str:
    """Returns a text on the files of a demo, and the commands for other images."""
    folder = shlex.quote(str(out))
    return f"""
Written to {out}:
  demo.png      image, truth, prediction and weight map of the images held out
  run/          the trained network, history.csv, pictures/
  predictions/  label images of the images held out
  scores.json   the scores above
The same steps as single commands:
  keras-unet predict {folder}/run {folder}/held_out/images --out FOLDER
  keras-unet evaluate {folder}/predictions {folder}/held_out/labels
For your own images: put them into DATA/images, and their labels (one number per cell, or 0 and 255)
into DATA/labels under the same names, and run
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
        predicted = renumber_matches(truth, read_planes(out / "predictions" / path.name)[0, ..., 0])
        cells = (separate_touching(truth) > 0).astype(np.uint8)
        weights = weight_map(cells, truth, w0=border_weight)
        rows.append(
            [
                grey_picture(image),
                label_picture(truth),
                label_picture(predicted),
                heat_picture(weights),
            ]
        )
    return montage(rows, ["image", "truth", "prediction", "weight map"])
