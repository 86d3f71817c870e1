"""Inspection of a data set before training: statistics, warnings and pictures."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.data.findings import check_dataset
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.normalization import Normalization
from keras_unet.files import check_new, check_writable, make_folder, own_kind, visible
from keras_unet.report.pictures import (
    ONLY_REFERENCE,
    Picture,
    center_crop,
    grey_picture,
    heat_picture,
    label_picture,
    montage,
    write_png,
)
from keras_unet.runs import ModelInfo
from keras_unet.training.autoconfig import autoconfigure
from keras_unet.training.dataset import TrainingData, weight_maps
from keras_unet.training.options import ResolvedOptions, TrainingOptions
from keras_unet.training.targets import Target, WeightMaps

_log = logging.getLogger(__name__)

SAMPLES, TILES = "samples.png", "tiles.png"
_MAX_DRAWN = 6  # samples and tiles
_LONGEST_SIDE = 512  # pixels of a drawn image


@dataclass(frozen=True)
class Inspection:
    """Result of an inspection.

    Attributes:
        fingerprint: Statistics of the images to train on.
        options: Options with all numbers set.
        network: Architecture of the network to train.
        warnings: Warnings about the data.
        pictures: Paths of the pictures.
    """

    fingerprint: Fingerprint
    options: ResolvedOptions
    network: Architecture
    warnings: Sequence[str]
    pictures: Sequence[Path]


def inspect_folder(
    data: Path,
    out: Path,
    options: TrainingOptions | None = None,
) -> Inspection:
    """Reads a data set as a training does, and draws the input of the network.

    `samples.png` shows images, their labels and weight maps; `tiles.png` the first augmented tiles
    of a training with these options and seed, with their labels and weights.

    Args:
        data: Folder with `images/` and `labels/`, or in the Cell Tracking Challenge's layout.
        out: Folder of the pictures to write; earlier pictures in it are replaced.
        options: Options, as for a training.

    Raises:
        ValueError: If the data are not suitable for training.
        OSError: If a file cannot be read, or the folder holds other files or cannot be written.
    """
    _check_folder(out)
    requested = options or TrainingOptions()
    training_data = TrainingData.of(data, None, requested)
    samples = training_data.samples
    _log.info(samples.describe())
    split = training_data.split(requested)
    scored = f": {split.held_out.describe()}" if split.held_out.groups else ""
    _log.info(
        f"training on {len(split.training)}, held out for validation: {len(split.validation)}"
        f"{scored}"
    )
    strokes = samples.encoding.holds_strokes
    fingerprint = Fingerprint.of(split.training, holds_strokes=strokes)
    resolved = autoconfigure(requested, fingerprint, samples.encoding.kind)
    warnings = check_dataset(samples, fingerprint, split.names["validation"])
    for warning in warnings:
        _log.warning(warning)
    encoding = samples.encoding
    network = resolved.architecture(
        channels=samples.channels, classes=encoding.classes, kind=encoding.kind
    )
    images = [sample.image for sample in split.training]
    info = ModelInfo(
        architecture=network,
        encoding=samples.encoding,
        normalization=Normalization.of(images, resolved.normalization),
    )
    targets = training_data.targets(split.training)
    with tempfile.TemporaryDirectory() as folder:
        weights = weight_maps(Path(folder), targets, network.classes, resolved)
        drawn = _evenly_spaced(targets)
        batches = training_data.batches(info, targets, weights, resolved)
        samples_picture = _samples_picture(drawn, weights)
        tiles_picture = _tiles_picture(batches, network)
    make_folder(out)
    write_png(out / SAMPLES, samples_picture)
    write_png(out / TILES, tiles_picture)
    _log.info(f"{out / SAMPLES}: {', '.join(target.sample.name for target in drawn)}")
    _log.info(
        f"{out / TILES}: the first tiles of a training, {resolved.tile} pixels a side; the network "
        "predicts the pixels inside the line"
    )
    return Inspection(fingerprint, resolved, network, warnings, (out / SAMPLES, out / TILES))


def _check_folder(out: Path) -> None:
    check_writable(out)
    if any(name not in (SAMPLES, TILES) or own_kind(out / name) != "png" for name in visible(out)):
        check_new(out, "the pictures")


def _evenly_spaced(targets: Sequence[Target]) -> list[Target]:
    indices = np.linspace(0, len(targets) - 1, min(_MAX_DRAWN, len(targets)))
    return [targets[round(index)] for index in indices]


def _samples_picture(targets: Sequence[Target], weights: WeightMaps) -> Picture:
    rows = []
    for target in targets:
        image = center_crop(target.sample.image, _LONGEST_SIDE)
        instances = center_crop(target.sample.instances, _LONGEST_SIDE)
        rows.append(
            [
                grey_picture(image),
                label_picture(instances, image),
                heat_picture(center_crop(weights.of(target), _LONGEST_SIDE)),
            ]
        )
    return montage(rows, ("image", "labels", "weight map"))


def _tiles_picture(batches: Callable[[int], Any], network: Architecture) -> Picture:
    rows = [
        [
            _frame_output(grey_picture(image), network.margin),
            label_picture(y_true[..., 0].astype(np.int32), _without_margin(image, network.margin)),
            heat_picture(y_true[..., 1]),
        ]
        for image, y_true in batches(0).unbatch().take(_MAX_DRAWN).as_numpy_iterator()
    ]
    return montage(rows, ("tile", "labels of its center", "weights"))


def _without_margin(image: NDArray[np.float32], margin: int) -> NDArray[np.float32]:
    return image[margin : len(image) - margin, margin : len(image) - margin]


def _frame_output(picture: Picture, margin: int) -> Picture:
    """Draws a line around the pixels that are predicted."""
    if not margin:
        return picture
    first, last = margin - 1, len(picture) - margin
    framed = picture.copy()
    framed[[first, last], first : last + 1] = ONLY_REFERENCE
    framed[first : last + 1, [first, last]] = ONLY_REFERENCE
    return framed
