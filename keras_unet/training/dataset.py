"""Training data: samples, their split, targets and weight maps, and batches of tiles."""

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
from keras_unet.data.groups import HeldOut
from keras_unet.data.normalization import Mode, Normalization
from keras_unet.data.pipeline import (
    AugmentationFunction,
    Engine,
    Weights,
    build_dataset,
    build_dataset_by_function,
)
from keras_unet.data.samples import Sample, Samples, read_samples, samples_of_arrays, split
from keras_unet.data.sampling import ClassPixels, Sampling
from keras_unet.data.tiles import TrainingImage
from keras_unet.data.weight_maps import close_borders
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
"""Augmentation of tiles: an `Augmentation`, a function, None, or that of the options."""


@dataclass(frozen=True, eq=False)
class Split:
    """The samples to train on and those held out."""

    training: Sequence[Sample]
    validation: Sequence[Sample]

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the samples of each subset."""
        return {
            "training": [sample.name for sample in self.training],
            "validation": [sample.name for sample in self.validation],
        }

    @property
    def held_out(self) -> HeldOut:
        """Relation of the samples held out to those to train on."""
        training, validation = (
            [sample.group for sample in subset] for subset in (self.training, self.validation)
        )
        return HeldOut.of(training, validation)

    @property
    def pixels(self) -> int:
        """Number of pixels of all images to train on."""
        return sum(sample.classes.size for sample in self.training)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Annotated images of a training, with digests and targets that are computed once.

    Attributes:
        samples: The images and their labels.
        source: Folder that they were read from, or "(arrays)".
    """

    samples: Samples
    source: str

    @classmethod
    def of(cls, images: Images, labels: Labels, options: TrainingOptions) -> Self:
        """Reads a folder, or takes arrays.

        Args:
            images: Folder with `images/` and `labels/`, or in the Cell Tracking Challenge's layout;
                or arrays, each `(height, width)` or `(height, width, channels)`.
            labels: Label images of arrays, each `(height, width)` or `(height, width, 2)`; None
                for a folder.
            options: Options, of which `kind`, `ignore`, `unlabelled`, `allow_empty`, `axes`,
                `channels` and `groups` are used.

        Raises:
            ValueError: If images and labels are not suitable for training.
            OSError: If a file cannot be read.
        """
        if isinstance(images, str | os.PathLike):
            if labels is not None:
                raise ValueError(
                    "labels must be None where images is a folder, which holds them. "
                    f"Received: images={str(images)!r} and labels"
                )
            is_pattern = isinstance(options.groups, str)
            if not is_pattern:
                raise ValueError(
                    'groups must be "auto", "none" or a regular expression of the names of images '
                    f"in a folder. Received: {options.groups}"
                )
            samples = read_samples(
                images,
                labels=options.kind,
                ignore=options.ignore,
                unlabelled=options.unlabelled,
                allow_empty=options.allow_empty,
                axes=options.axes,
                channels=options.channels,
                groups=options.groups,
            )
            return cls(samples, str(images))
        if labels is None:
            raise ValueError(
                "labels must be label images, one for each image. Received: None; give them, or a "
                "folder of images and labels"
            )
        if options.channels is not None:
            raise ValueError(
                "channels must be None for arrays, whose channels can be indexed. "
                f"Received: channels={options.channels!r}; index the last axis of the images"
            )
        samples = samples_of_arrays(
            images,
            labels,
            kind=options.kind,
            ignore=options.ignore,
            unlabelled=options.unlabelled,
            allow_empty=options.allow_empty,
            groups=options.groups,
        )
        return cls(samples, ARRAYS)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digest of each sample, by name."""
        samples = track(self.samples.samples, "computing checksums")
        return {sample.name: sample_digest(sample) for sample in samples}

    @cached_property
    def _targets(self) -> dict[str, Target]:
        return {}

    def targets(self, samples: Sequence[Sample]) -> list[Target]:
        """Returns the training targets of samples of this data set."""
        missing = [sample for sample in samples if sample.name not in self._targets]
        for sample in track(missing, "separating touching cells"):
            self._targets[sample.name] = Target.of(sample, self.samples.encoding)
        return [self._targets[sample.name] for sample in samples]

    def split(self, options: TrainingOptions) -> Split:
        """Splits the samples into those to train on and those held out.

        Raises:
            ValueError: If the options `validation` or `patience` do not suit the samples.
        """
        divided = Split(*split(self.samples.samples, options.validation, options.seed))
        if options.patience is not None and not divided.validation:
            raise ValueError(
                "patience counts validations without a better score, so images must be held out. "
                f"Received: {len(divided.training)} image in all, none of them held out"
            )
        return divided

    def split_of(self, run: ModelInfo) -> Split:
        """Returns the split that a run records."""
        return Split(*split(self.samples.samples, run.record["data"]["validation"], 0))

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
        """Returns a function from the number of a batch to the data set that starts with it.

        Args:
            info: Architecture, label encoding and normalization of the model.
            targets: Images to train on.
            weights: Their weight maps.
            options: Options, of which those of tiles are used.
            part: Number of this worker, and number of workers that share each batch.
            augmentation: Augmentation of the tiles; "options" for that of the options.
        """
        network = info.architecture
        centers = _centers(options.sampling, targets, info.encoding, weights.sigma, options.seed)
        tiles: dict[str, Any] = {
            "tile_size": options.tile,
            "seed": options.seed,
            "batch_size": options.batch_size,
            "shard": part,
            "centers": centers,
        }
        if callable(augmentation):
            arrays = [
                (
                    info.normalization.apply(target.sample.image),
                    _label_values(target.sample, info.encoding),
                )
                for target in targets
            ]
            target_of = partial(weights.of_labels, encoding=info.encoding)
            return lambda first: build_dataset_by_function(
                arrays, network, augmentation=augmentation, target=target_of, first=first, **tiles
            )
        images = [
            TrainingImage(
                info.normalization.apply(target.sample.image),
                target.classes,
                weights.of(target),
                target.sample.instances,
            )
            for target in track(targets, "computing weight maps")
        ]
        of_tiles = options.augmentation() if augmentation == "options" else augmentation
        return lambda first: build_dataset(
            images, network, augmentation=of_tiles, engine=options.engine, first=first, **tiles
        )


def _centers(
    sampling: Sampling,
    targets: Sequence[Target],
    encoding: LabelEncoding,
    sigma: float,
    seed: int,
) -> ClassPixels | None:
    """Returns the pixels that tiles are centered at, class by class; None for all pixels.

    The classes of instances are cells and close borders. Of images labelled in part, tiles are
    centered at labelled pixels, of all classes together or, by class, also of the background.
    """
    is_complete = encoding.unlabelled is None
    if sampling == "uniform" and is_complete:
        return None
    classes = [target.classes for target in targets]
    if sampling == "uniform":
        classes = [np.zeros_like(one) for one in classes]
    elif encoding.kind == "instances":
        border = np.uint8(encoding.classes)  # stands for the background between close cells
        classes = [
            np.where(close_borders(target.sample.instances, sigma=sigma), border, target.classes)
            for target in targets
        ]
    return ClassPixels.of(
        classes,
        [target.counted for target in targets],
        foreground_only=encoding.kind == "instances" and is_complete,
        seed=seed,
        **({} if is_complete else {"share": 1.0}),
    )


def _label_values(sample: Sample, encoding: LabelEncoding) -> NDArray[np.int32]:
    """Returns the labels of a sample with the values of its label file, see `LabelEncoding`."""
    values = encoding.from_classes(sample.classes).astype(np.int32)
    labels = values.copy()
    if encoding.kind == "instances":
        labels = np.where(sample.instances > 0, sample.instances, encoding.background)
    masked = encoding.unlabelled if encoding.ignore is None else encoding.ignore
    if masked is not None:
        labels[sample.ignored] = masked
    return np.stack([labels, values], axis=-1) if encoding.class_names else labels


def weight_maps(
    folder: Path, targets: Sequence[Target], classes: int, options: ResolvedOptions
) -> WeightMaps:
    """Returns the weight maps of training images, which are computed when they are read.

    Args:
        folder: Existing folder of their files.
        targets: Images to train on, over which the classes are balanced.
        classes: Number of classes.
        options: Options, of which those of equation 2 are used.
    """
    w0, sigma = options.border_weight, options.sigma
    if options.class_balance:
        return WeightMaps.balanced(folder, targets, classes, w0=w0, sigma=sigma)
    return WeightMaps.unbalanced(folder, classes, w0=w0, sigma=sigma)


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
    unlabelled: int | None = None,
    augmentation: Augmentation | AugmentationFunction | None = Augmentation(),
    sampling: Sampling = "uniform",
    batch_size: int = 1,
    seed: int = 0,
    first: int = 0,
    engine: Engine = "graph",
    device: str | None = None,
) -> tf.data.Dataset:
    """Builds an endless data set of training tiles from images and label images.

    The data set suits `model.fit` and `keras_unet.train`. Touching cells are separated by
    background, and each pixel is weighted by equation 2 of the paper, with the classes balanced
    over all images.

    With `weights="channel"`, compile with `keras_unet.WeightedCrossEntropy()` and
    `metrics=[keras_unet.PixelAccuracy()]`, because Keras' own metrics would mistake the weight for
    a label. With `weights="sample_weight"`, compile with Keras' own
    `SparseCategoricalCrossentropy(from_logits=True)` and `weighted_metrics=["accuracy"]`. The loss
    is the same.

    Args:
        images: Grey values as measured, each `(height, width)` or `(height, width, channels)`;
            sizes may differ.
        labels: Label images, each `(height, width)`: one number per cell, or one per class; or
            `(height, width, 2)`: instances and the number of the class of each pixel.
        tile_size: Height and width of the input tile in pixels. The paper takes 572.
        architecture: Architecture of the network, `Architecture.of(model)`; None for figure 1,
            with the channels of the images and the classes of the labels.
        weights: Place of the weights: "channel", the last channel of `y_true`, or "sample_weight",
            the third element of each batch.
        weight_maps: Weights, each `(height, width)`, in place of equation 2.
        border_weight: w0 of equation 2; 0 turns the border term off.
        sigma: sigma of equation 2 in pixels.
        normalization: "image" gives each image zero mean and unit variance, "dataset" all of them
            together; or a `Normalization`.
        kind: Kind of the labels: "instances", "classes", or "auto" to detect it.
        ignore: Label value of pixels with weight 0, or None.
        unlabelled: Label value of the pixels that nobody has labelled, for images labelled in part:
            their weight is 0, and tiles are centered at the others; or None.
        augmentation: Augmentation of the tiles: an `Augmentation`; None for none; or a function
            that maps a normalized tile `(tile, tile, channels)` and its labels `(tile, tile)`, or
            `(tile, tile, 2)` for instances that have classes, to both, in the same shapes. Weights
            are computed from the labels it returns.
        sampling: Centers of the tiles: "uniform" over all pixels; or "classes", which centers half
            of the tiles at a pixel of a class drawn uniformly from those present. If the labels
            hold instances, the classes are those of the cells and the borders between close cells.
        batch_size: Tiles per batch. The paper takes 1, and large tiles.
        seed: Seed of all random choices, except those of an augmentation function.
        first: Number of the first batch, to resume a training.
        engine: Backend of the elastic deformation, "graph" or "elasticdeform".
        device: Device that computes the tiles; None for the first GPU, else the CPU.

    Returns:
        A `tf.data.Dataset` of `(image, y_true)`, float32 `(batch, tile, tile, channels)` and
        `(batch, output, output, 2)`: the class and the weight of each pixel, and with affinities as
        third its object, for `keras_unet.losses.AffinityCrossEntropy()`; or of
        `(image, y_true, sample_weight)`, the latter two `(batch, output, output)`.

    Raises:
        ValueError: If images and labels do not match each other or the architecture, the tile size
            does not fit, an argument is out of range, or a function returns other shapes.
        ImportError: If `engine` is "elasticdeform" and the library is missing.
    """
    if weights not in get_args(Weights):
        raise ValueError(f'weights must be "channel" or "sample_weight". Received: {weights!r}')
    if sampling not in get_args(Sampling):
        raise ValueError(f'sampling must be "uniform" or "classes". Received: {sampling!r}')
    if callable(augmentation) and weight_maps is not None:
        raise ValueError(
            "weight_maps must be None where augmentation is a function, which transforms the "
            "labels and not the weights. Received: both"
        )
    samples = samples_of_arrays(
        images,
        labels,
        kind=kind,
        ignore=ignore,
        unlabelled=unlabelled,
        allow_empty=True,
        groups="none",
    )
    network = architecture or Architecture(
        channels=samples.channels, classes=samples.encoding.classes
    )
    targets = [Target.of(sample, samples.encoding) for sample in samples.samples]
    maps = WeightMaps.balanced(None, targets, network.classes, w0=border_weight, sigma=sigma)
    pixels = _normalized([sample.image for sample in samples.samples], normalization)
    tiles: dict[str, Any] = {"tile_size": tile_size, "seed": seed, "batch_size": batch_size}
    tiles |= {"first": first, "weights": weights}
    tiles["centers"] = _centers(sampling, targets, samples.encoding, sigma, seed)
    if callable(augmentation):
        return build_dataset_by_function(
            [
                (image, _label_values(sample, samples.encoding))
                for image, sample in zip(pixels, samples.samples, strict=True)
            ],
            network,
            augmentation=augmentation,
            target=partial(maps.of_labels, encoding=samples.encoding),
            **tiles,
        )
    weighted = [maps.of(target) for target in targets] if weight_maps is None else weight_maps
    classes = [target.classes for target in targets]
    objects = [target.sample.instances for target in targets]
    return build_dataset(
        [TrainingImage(*arrays) for arrays in zip(pixels, classes, weighted, objects, strict=True)],
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
