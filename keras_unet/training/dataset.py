"""From samples to the batches that a network is trained on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.console import track
from keras_unet.data.augmentation import Augmentation
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.normalization import Mode, Normalization
from keras_unet.data.pipeline import (
    AugmentationFunction,
    Engine,
    Weights,
    build_dataset,
    build_dataset_by_function,
)
from keras_unet.data.samples import Sample, Samples, read_samples, samples_of_arrays, split
from keras_unet.data.tiles import TrainingImage
from keras_unet.files import PathLike
from keras_unet.runs import ARRAYS, ModelInfo
from keras_unet.training.options import ResolvedOptions, TrainingOptions
from keras_unet.training.targets import Target, WeightMaps, sample_digest

if TYPE_CHECKING:
    import tensorflow as tf

Images = PathLike | Sequence[NDArray[Any]]
"""Folder of images and labels, or images as arrays."""

Labels = Sequence[NDArray[Any]] | None

Variation = Augmentation | AugmentationFunction | Literal["options"] | None
"""Variation of tiles: an `Augmentation`, a function, None for none, or that of the options."""


@dataclass(frozen=True, eq=False)
class Split:
    """The samples to train on and those held out."""

    training: Sequence[Sample]
    validation: Sequence[Sample]

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


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Annotated images of a training, read once, and what is computed of them once.

    Attributes:
        samples: The images and their labels.
        source: The folder that they were read from, or "(arrays)".
    """

    samples: Samples
    source: str

    @classmethod
    def of(cls, images: Images, labels: Labels, options: TrainingOptions) -> Self:
        """Reads a folder, or takes arrays.

        Args:
            images: Folder with `images/` and `labels/`, or in the Cell Tracking Challenge's layout;
                or arrays, each `(height, width)` or `(height, width, channels)`.
            labels: None of a folder; of arrays, their label images, each `(height, width)`.
            options: What the labels hold, the value to ignore, and the axes of files.

        Raises:
            ValueError: If they cannot be learned from.
            OSError: If a file cannot be read.
        """
        if isinstance(images, str | os.PathLike):
            if labels is not None:
                raise ValueError(
                    "labels must be None where images is a folder, which holds them. "
                    f"Received: images={str(images)!r} and labels"
                )
            samples = read_samples(
                images,
                labels=options.kind,
                ignore=options.ignore,
                allow_empty=options.allow_empty,
                axes=options.axes,
            )
            return cls(samples, str(images))
        if labels is None:
            raise ValueError(
                "labels must be label images, one for each image. Received: None; or give a folder "
                "of images and labels"
            )
        samples = samples_of_arrays(
            images,
            labels,
            kind=options.kind,
            ignore=options.ignore,
            allow_empty=options.allow_empty,
        )
        return cls(samples, ARRAYS)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digest of each sample, by name."""
        summing = track(self.samples.samples, "taking checksums")
        return {sample.name: sample_digest(sample) for sample in summing}

    @cached_property
    def _targets(self) -> dict[str, Target]:
        return {}

    def targets(self, samples: Sequence[Sample]) -> list[Target]:
        """Returns the training targets of some samples; touching cells are separated once.

        Args:
            samples: Some of this data set's.
        """
        missing = [sample for sample in samples if sample.name not in self._targets]
        for sample in track(missing, "parting cells that touch"):
            self._targets[sample.name] = Target.of(sample, self.samples.encoding)
        return [self._targets[sample.name] for sample in samples]

    def split(self, options: TrainingOptions) -> Split:
        """Holds samples out as the options say.

        Raises:
            ValueError: If the options do not suit the samples.
        """
        parts = Split(*split(self.samples.samples, options.validation, options.seed))
        if options.patience is not None and not parts.validation:
            raise ValueError(
                "patience counts validations without a better score, so images must be held out. "
                f"Received: {len(parts.training)} image in all, none of them held out"
            )
        return parts

    def batches(
        self,
        info: ModelInfo,
        targets: Sequence[Target],
        weights: WeightMaps,
        options: ResolvedOptions,
        *,
        part: tuple[int, int] = (0, 1),
        augmentation: Variation = "options",
    ) -> Callable[[int], Any]:
        """Returns the function from a batch's number to the data set that begins with it.

        Args:
            info: Facts of the model, the normalization among them.
            targets: The images to train on.
            weights: Their weight maps.
            options: The numbers of the tiles.
            part: Number of this worker, and how many share each batch.
            augmentation: How tiles are varied; "options" for as the options say.
        """
        network = info.architecture
        tiles: dict[str, Any] = {
            "tile_size": options.tile,
            "seed": options.seed,
            "batch_size": options.batch_size,
            "part": part,
        }
        if callable(augmentation):
            arrays = [
                (info.normalization.apply(one.sample.image), _stored(one.sample, info.encoding))
                for one in targets
            ]
            target = partial(weights.of_labels, encoding=info.encoding)
            return lambda first: build_dataset_by_function(
                arrays, network, augmentation=augmentation, target=target, first=first, **tiles
            )
        weighing = track(targets, "computing weight maps")
        images = [training_image(target, info.normalization, weights) for target in weighing]
        varied = options.augmentation() if augmentation == "options" else augmentation
        return lambda first: build_dataset(
            images, network, augmentation=varied, engine=options.engine, first=first, **tiles
        )


def _stored(sample: Sample, encoding: LabelEncoding) -> NDArray[np.int32]:
    """Returns the labels of a sample as their files hold them."""
    if encoding.kind == "instances":
        stored = sample.instances.copy()
    else:
        stored = encoding.from_classes(sample.classes).astype(np.int32)
    if encoding.ignore is not None:
        stored[sample.ignored] = encoding.ignore
    return stored


def weight_maps(
    folder: Path, targets: Sequence[Target], classes: int, options: ResolvedOptions
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
    target: Target, normalization: Normalization, weights: WeightMaps
) -> TrainingImage:
    """Brings an image into the form that the pipeline takes."""
    image = normalization.apply(target.sample.image)
    return TrainingImage(image, target.classes, weights.of(target))


def tile_dataset(  # noqa: PLR0913 - all but two by name
    images: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    *,
    tile_size: int = 572,
    architecture: Architecture | None = None,
    weights: Weights = "channel",
    weight_maps: Sequence[NDArray[Any]] | None = None,
    border_weight: float = 10.0,
    sigma: float = 5.0,
    normalization: Normalization | Mode = "image",
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    augmentation: Augmentation | AugmentationFunction | None = Augmentation(),
    batch_size: int = 1,
    seed: int = 0,
    first: int = 0,
    engine: Engine = "graph",
    device: str | None = None,
) -> tf.data.Dataset:
    """Builds an endless data set of training tiles from images and label images.

    For `model.fit`, and for `keras_unet.train`. Touching cells are separated by background, and
    each pixel is weighted by equation 2 of the paper, with the classes balanced over all images.

    Which `weights` to take: with "channel", compile with `keras_unet.WeightedCrossEntropy()` and
    `metrics=[keras_unet.PixelAccuracy()]`; Keras' own metrics would take the weight for a label.
    With "sample_weight", compile with Keras' own
    `SparseCategoricalCrossentropy(from_logits=True)` and `weighted_metrics=["accuracy"]`. The loss
    is the same.

    Args:
        images: Grey values as measured, each `(height, width)` or `(height, width, channels)`;
            sizes may differ.
        labels: Label images, each `(height, width)`: one number a cell, or one a class.
        tile_size: Height and width of the input tile in pixels. The paper takes 572.
        architecture: The network that the tiles are for, `Architecture.of(model)`; None for
            figure 1, with the channels of the images and the classes of the labels.
        weights: Where the weight of each pixel stands: "channel", the last of `y_true`, or
            "sample_weight", the third of each batch.
        weight_maps: Weight of each pixel, each `(height, width)`, instead of equation 2.
        border_weight: w0 of equation 2; 0 turns the border term off.
        sigma: sigma of equation 2 in pixels.
        normalization: "image" gives each image zero mean and unit variance, "dataset" all of them
            together; or a `Normalization`.
        kind: What the labels hold: "instances", "classes", or "auto" to find out.
        ignore: Value in the labels of pixels that are not to count.
        augmentation: How tiles are varied: an `Augmentation`; None for plain tiles; or a function
            from a tile `(tile, tile, channels)`, normalized, and its labels `(tile, tile)` to both,
            of the same shapes. The weights are computed of the labels that the function returns.
        batch_size: Tiles a batch. The paper takes 1, and large tiles.
        seed: Seed of all that is random about a tile, but for a function's own choices.
        first: Number of the first batch, for a training that is resumed.
        engine: Backend of the elastic deformation, "graph" or "elasticdeform".
        device: Where tiles are made; None for the first GPU, or the CPU where there is none.

    Returns:
        A `tf.data.Dataset` of `(image, y_true)`, float32 `(batch, tile, tile, channels)` and
        `(batch, output, output, 2)`: the class and the weight of each pixel; or of
        `(image, y_true, sample_weight)`, the latter two `(batch, output, output)`.

    Raises:
        ValueError: If images and labels do not go together or do not suit the architecture, the
            tile size does not fit, an argument is out of its range, or a function returns other
            shapes.
        ImportError: If `engine` is "elasticdeform" and the library is missing.
    """
    if weights not in get_args(Weights):
        raise ValueError(f'weights must be "channel" or "sample_weight". Received: {weights!r}')
    if callable(augmentation) and weight_maps is not None:
        raise ValueError(
            "weight_maps must be None where augmentation is a function, which moves the labels and "
            "not the weights. Received: both"
        )
    samples = samples_of_arrays(images, labels, kind=kind, ignore=ignore, allow_empty=True)
    network = architecture or Architecture(
        channels=samples.channels, classes=samples.encoding.classes
    )
    targets = [Target.of(sample, samples.encoding) for sample in samples.samples]
    maps = WeightMaps.balanced(None, targets, network.classes, w0=border_weight, sigma=sigma)
    pixels = _normalized([sample.image for sample in samples.samples], normalization)
    tiles: dict[str, Any] = {"tile_size": tile_size, "seed": seed, "batch_size": batch_size}
    tiles |= {"first": first, "weights": weights}
    if callable(augmentation):
        return build_dataset_by_function(
            list(zip(pixels, map(_label_image, labels), strict=True)),
            network,
            augmentation=augmentation,
            target=partial(maps.of_labels, encoding=samples.encoding),
            **tiles,
        )
    weighted = [maps.of(one) for one in targets] if weight_maps is None else weight_maps
    classes = [target.classes for target in targets]
    return build_dataset(
        [TrainingImage(*arrays) for arrays in zip(pixels, classes, weighted, strict=True)],
        network,
        augmentation=augmentation,
        engine=engine,
        device=device,
        **tiles,
    )


def _normalized(
    images: Sequence[NDArray[np.float32]], normalization: Normalization | Mode
) -> list[NDArray[np.float32]]:
    if not isinstance(normalization, Normalization):
        normalization = Normalization.of(images, normalization)
    return [normalization.apply(image) for image in images]


def _label_image(labels: NDArray[Any]) -> NDArray[np.int32]:
    array = np.asarray(labels, np.int32)
    return array.reshape(array.shape[:2])
