"""Inspection of a data set as a training would see it, in words and pictures."""

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
    grey_picture,
    heat_picture,
    label_picture,
    middle,
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
_MOST = 6  # samples and tiles that are drawn
_MIDDLE = 512  # pixels of an image's height and width that are drawn


@dataclass(frozen=True)
class Inspection:
    """Result of an inspection.

    Attributes:
        seen: What was seen over the images to train on.
        options: The options with all numbers set.
        network: The network that would be trained.
        warnings: What is odd about the data.
        pictures: The pictures written.
    """

    seen: Fingerprint
    options: ResolvedOptions
    network: Architecture
    warnings: Sequence[str]
    pictures: Sequence[Path]


def inspect_folder(
    data: Path,
    out: Path,
    options: TrainingOptions | None = None,
) -> Inspection:
    """Looks at a data set as a training would, and draws what the network would be given.

    `samples.png` shows images, their labels and weight maps; `tiles.png` the first tiles of the
    training with these options, deformed, with their labels and weights. The tiles are the very
    ones that a training with the same options and seed begins with.

    Args:
        data: Folder with `images/` and `labels/`, or in the Cell Tracking Challenge's layout.
        out: Folder to write the pictures to; older ones in it are replaced.
        options: What to choose, as for a training.

    Raises:
        ValueError: If the data cannot be learned from, as `train` would say.
        OSError: If a file cannot be read, or the folder holds other files or cannot be written.
    """
    _check_folder(out)
    asked = options or TrainingOptions()
    read = TrainingData.of(data, None, asked)
    samples = read.samples
    _log.info(samples.describe())
    parts = read.split(asked)
    _log.info(
        f"training on {len(parts.training)}, held out for validation: {len(parts.validation)}"
    )
    seen = Fingerprint.of(parts.training)
    resolved = autoconfigure(asked, seen)
    amiss = check_dataset(samples, seen, parts.names["validation"])
    for line in amiss:
        _log.warning(line)
    network = resolved.architecture(channels=samples.channels, classes=samples.encoding.classes)
    images = [sample.image for sample in parts.training]
    info = ModelInfo(
        architecture=network,
        encoding=samples.encoding,
        normalization=Normalization.of(images, resolved.normalization),
    )
    targets = read.targets(parts.training)
    with tempfile.TemporaryDirectory() as folder:
        weights = weight_maps(Path(folder), targets, network.classes, resolved)
        shown = _spread(targets)
        of_samples = _picture_of_samples(shown, weights)
        of_tiles = _picture_of_tiles(read.batches(info, targets, weights, resolved), network)
    make_folder(out)
    write_png(out / SAMPLES, of_samples)
    write_png(out / TILES, of_tiles)
    _log.info(f"{out / SAMPLES}: {', '.join(target.sample.name for target in shown)}")
    _log.info(
        f"{out / TILES}: the first tiles of a training, {resolved.tile} pixels a side; what lies "
        "outside the line is seen but not scored"
    )
    return Inspection(seen, resolved, network, amiss, (out / SAMPLES, out / TILES))


def _check_folder(out: Path) -> None:
    check_writable(out)
    if any(name not in (SAMPLES, TILES) or own_kind(out / name) != "png" for name in visible(out)):
        check_new(out, "the pictures")


def _spread(targets: Sequence[Target]) -> list[Target]:
    places = np.linspace(0, len(targets) - 1, min(_MOST, len(targets)))
    return [targets[round(place)] for place in places]


def _picture_of_samples(targets: Sequence[Target], weights: WeightMaps) -> Picture:
    rows = []
    for target in targets:
        image = middle(target.sample.image, _MIDDLE)
        instances = middle(target.sample.instances, _MIDDLE)
        rows.append(
            [
                grey_picture(image),
                label_picture(instances, image),
                heat_picture(middle(weights.of(target), _MIDDLE)),
            ]
        )
    return montage(rows, ("image", "labels", "weight map"))


def _picture_of_tiles(batches: Callable[[int], Any], network: Architecture) -> Picture:
    rows = [
        [
            _framed(grey_picture(image), network.margin),
            label_picture(y_true[..., 0].astype(np.int32), _inner(image, network.margin)),
            heat_picture(y_true[..., 1]),
        ]
        for image, y_true in batches(0).unbatch().take(_MOST).as_numpy_iterator()
    ]
    return montage(rows, ("tile", "labels of its middle", "weights"))


def _inner(image: NDArray[np.float32], margin: int) -> NDArray[np.float32]:
    return image[margin : len(image) - margin, margin : len(image) - margin]


def _framed(picture: Picture, margin: int) -> Picture:
    """Draws a line around what is scored."""
    if not margin:
        return picture
    first, last = margin - 1, len(picture) - margin
    framed = picture.copy()
    framed[[first, last], first : last + 1] = ONLY_REFERENCE
    framed[first : last + 1, [first, last]] = ONLY_REFERENCE
    return framed
