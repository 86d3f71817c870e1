"""From samples to the batches that a network is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from keras_unet.architecture import Architecture
from keras_unet.data.atlas import TrainingImage
from keras_unet.data.pipeline import build_dataset
from keras_unet.data.samples import Sample, Samples, split
from keras_unet.data.standardisation import Standardisation
from keras_unet.jobs.options import SettledOptions, TrainingOptions
from keras_unet.jobs.targets import Target, WeightMaps


@dataclass(frozen=True, eq=False)
class Parts:
    """The samples to train on and those held out."""

    training: Sequence[Sample]
    validation: Sequence[Sample]

    @classmethod
    def of(cls, samples: Samples, options: TrainingOptions) -> Self:
        """Holds samples out as the options say.

        Raises:
            ValueError: If the options do not suit the samples.
        """
        parts = cls(*split(samples.samples, options.validation, options.seed))
        if options.patience is not None and not parts.validation:
            raise ValueError(
                "patience counts validations without a better score, so images must be held out. "
                f"Received: {len(parts.training)} image in all, none of them held out"
            )
        return parts

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the samples of each part."""
        return {
            "training": [sample.name for sample in self.training],
            "validation": [sample.name for sample in self.validation],
        }

    @property
    def pixels(self) -> int:
        """Pixels of all images to train on."""
        return sum(sample.classes.size for sample in self.training)


def weight_maps(
    folder: Path, targets: Sequence[Target], classes: int, options: SettledOptions
) -> WeightMaps:
    """Makes ready for the weight maps of training images.

    Args:
        folder: Folder of their files, which exists.
        targets: The images to train on, by which classes are balanced.
        classes: Number of classes.
        options: The numbers of equation 2.
    """
    w0, sigma = options.border_weight, options.sigma
    if options.class_balance:
        return WeightMaps.balanced(folder, targets, classes, w0=w0, sigma=sigma)
    return WeightMaps.unbalanced(folder, classes, w0=w0, sigma=sigma)


def training_image(
    target: Target, standardisation: Standardisation, weights: WeightMaps
) -> TrainingImage:
    """Brings an image into the form that the pipeline takes."""
    image = standardisation.apply(target.sample.image)
    return TrainingImage(image, target.classes, weights.of(target))


def training_batches(
    images: Sequence[TrainingImage],
    network: Architecture,
    options: SettledOptions,
    first: int = 0,
    *,
    part: tuple[int, int] = (0, 1),
) -> Any:
    """Builds the data set of a training, or this worker's part of it, from a batch number on."""
    return build_dataset(
        images,
        network,
        tile_size=options.tile,
        seed=options.seed,
        batch_size=options.batch_size,
        part=part,
        augmentation=options.augmentation(),
        first=first,
        engine=options.engine,
    )
