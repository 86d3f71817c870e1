"""Segmenter: a trained U-Net with its normalization, labels and instance options.

`keras_unet.load` returns one for a run, an ensemble, a .tflite file or a model server,
`keras_unet.train` for a training, and `Segmenter.from_model` for a Keras model.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.console import track
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import ImageFile
from keras_unet.data.normalization import Mode, Normalization
from keras_unet.files import PathLike, atomic_folder, check_new, make_folder
from keras_unet.instances.affinities import class_probabilities
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances
from keras_unet.measurement.properties import Columns, measure_objects
from keras_unet.prediction.outputs import Prediction
from keras_unet.prediction.predict import (
    TileFallback,
    disagreement_of_views,
    predict_outputs,
    tile_size_of,
)
from keras_unet.prediction.resampling import resample, scaled_size
from keras_unet.prediction.scale import Choice, Scale, as_scale, middle_window, scale_of_objects
from keras_unet.runs import BEST, Ensemble, ModelInfo, Run
from keras_unet.tiling import Tiling

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

_IMAGE = Path("image")  # stands for the file of an array in messages


@dataclass(frozen=True, eq=False)
class Member:
    """One network of a segmenter, loaded on first use.

    Attributes:
        info: Metadata of the network, with the normalization of its own training.
        load: Function from a precision, None for the network's own, to the network: a Keras model
            or a callable from tiles to logits.
        weights: File of its weights; None if they are in memory only.
        precision: Precision to load it in; None for its own.
    """

    info: ModelInfo
    load: Callable[[str | None], Any]
    weights: Path | None = None
    precision: str | None = None

    @cached_property
    def network(self) -> Any:
        """The network."""
        return self.load(self.precision)

    @property
    def checksum(self) -> str:
        """SHA-256 of the weights' file or, without one, of the weights in memory."""
        if self.weights is not None:
            with self.weights.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for weights in self.network.get_weights():
            digest.update(np.ascontiguousarray(weights).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained U-Net, or an ensemble whose probabilities are averaged: raw images in, labels out.

    Attributes:
        info: Metadata of the model: architecture, labels, normalization, instances, precision and
            provenance. For an ensemble, those that its networks share, under its name.
        members: The networks, at least one.

    Example:
        >>> import keras_unet
        >>> model = keras_unet.build_unet((None, None, 1), depth=1, base_filters=4)
        >>> segmenter = keras_unet.Segmenter.from_model(model)
        >>> segmenter.segment(np.zeros((50, 70), np.uint16)).shape
        (50, 70)
    """

    info: ModelInfo
    members: tuple[Member, ...]

    predicts_tiles: ClassVar[bool] = True
    """False for a model server, to which whole images are sent."""

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        *,
        normalization: Normalization | Mode = "image",
        labels: LabelEncoding | Kind | None = None,
        instances: InstanceOptions | None = None,
        architecture: Architecture | None = None,
        name: str = "model",
    ) -> Self:
        """Wraps a Keras model that was trained by other code.

        Args:
            model: Maps normalized tiles `(batch, height, width, channels)` to logits
                `(batch, height - 2 * margin, width - 2 * margin, classes)`.
            normalization: Normalization of its training images: "image" for zero mean and unit
                variance of each image, or a `Normalization` with the statistics of a data set.
            labels: Meaning of its classes: "instances" for background and cells; "classes" for
                label values 0, 1, ...; or a `LabelEncoding`. None for "instances" if there are two
                classes, "classes" if there are more.
            instances: Options of the instance segmentation; None for the defaults, with affinities
                if the network predicts them.
            architecture: Architecture of the network, if `build_unet` did not build it.
            name: Name of the model, for messages and model cards.

        Raises:
            ValueError: If `build_unet` did not build the model and no architecture is given, or
                the labels have another number of classes.
        """
        from keras_unet.prediction.networks import in_precision, precision_of

        network = architecture or Architecture.of(model)
        info = ModelInfo(
            architecture=network,
            encoding=_encoding(labels, network.classes),
            normalization=_normalization(normalization),
            precision=precision_of(model),
            instances=instances or InstanceOptions(affinities=network.affinities),
            name=name,
        )
        return cls(info, (Member(info, partial(in_precision, model, info)),))

    def with_precision(self, precision: str) -> Self:
        """Returns a segmenter of the same networks that computes in another precision.

        Args:
            precision: "auto", "float32", "bfloat16" or "float16".

        Raises:
            ValueError: If the precision is unknown, or fixed, as in a .tflite file.
        """
        members = [replace(member, precision=precision) for member in self.members]
        return replace(self, members=tuple(members))

    def with_instances(self, **options: Any) -> Self:
        """Returns a segmenter of the same networks with other instance options.

        Args:
            options: Fields of `InstanceOptions`, by name.

        Raises:
            ValueError: If an option is out of range, or affinities are to be used that the network
                does not predict.
        """
        return replace(self, info=self.info.with_instances(**options))

    def in_memory(self) -> Self:
        """Returns a copy with all weights in memory, which no longer needs the files."""
        from keras_unet.prediction.networks import in_precision

        members = []
        for member in self.members:
            info = _without_folder(member.info)
            members.append(Member(info, partial(in_precision, member.network, info)))
        return replace(self, info=_without_folder(self.info), members=tuple(members))

    def without_affinities(self) -> Self:
        """Returns a segmenter of the same networks that predict classes alone."""
        from keras_unet.prediction.networks import classes_alone

        def without(info: ModelInfo) -> ModelInfo:
            architecture = replace(info.architecture, affinities=False)
            instances = replace(info.instances, affinities=False)
            return replace(info, architecture=architecture, instances=instances)

        members = [
            replace(member, info=without(member.info), load=partial(classes_alone, member.load))
            for member in self.members
        ]
        return replace(self, info=without(self.info), members=tuple(members))

    @property
    def model(self) -> keras.Model:
        """The Keras model, for further training.

        Raises:
            ValueError: If the segmenter has several networks, or none of Keras.
        """
        network = self.members[0].network if len(self.members) == 1 else None
        if not hasattr(network, "get_weights"):
            raise ValueError(
                f"{self.info.name}: expected a segmenter of one Keras model. Received one of "
                f"{len(self.members)} networks; load a run, or one fold of an ensemble"
            )
        return network

    def predict(
        self,
        image: NDArray[Any],
        *,
        tile_size: int | None = None,
        tta: bool = False,
        scale: Scale = "off",
    ) -> NDArray[np.float32]:
        """Predicts the class probabilities of every pixel of an image.

        Args:
            image: Raw grey values, `(height, width)` or `(height, width, channels)`.
            tile_size: Height and width of the input tile in pixels; None for the default of
                `predict_image`.
            tta: Whether to use test-time augmentation, the average over the eight rotations and
                reflections of the image; takes eight times as long.
            scale: Factor by which the image is resampled before the prediction, and the
                probabilities back after it: 2 if objects are half as wide as in training. "auto"
                for that at which the objects found are as wide as in training, see
                `choose_scale`; "off" for the image as it is.

        Returns:
            float32 probabilities `(height, width, classes)`.

        Raises:
            ValueError: If the image has another shape or number of channels than the model takes,
                or a pixel that is not finite; or if the scale is out of range.
            OSError: If memory is too small for the smallest tile.
        """
        return self._predict_array(image, tile_size, tta, scale).probabilities

    def _predict_array(
        self,
        image: NDArray[Any],
        tile_size: int | None,
        tta: bool,
        scale: Scale,
    ) -> Prediction:
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or not pixels.size:
            raise ValueError(
                "image must be (height, width) or (height, width, channels), at least one pixel. "
                f"Received: shape={np.shape(image)}"
            )
        factor = self.check_scale(scale)
        if factor == "auto":
            choice = self.choose_scale(pixels, _IMAGE, tile_size=tile_size)
            _log.info(str(choice))
            factor = choice.factor
        return self._predict_plane(pixels, _IMAGE, tile_size, tta, factor)

    def segment(
        self,
        image: NDArray[Any],
        *,
        tile_size: int | None = None,
        tta: bool = False,
        scale: Scale = "off",
        **instances: Any,
    ) -> NDArray[Any]:
        """Segments an image.

        Args:
            image: See `predict`.
            tile_size: See `predict`.
            tta: See `predict`.
            scale: See `predict`. Cells are labeled in the resampled image, and each pixel gets the
                label at its center; sizes in the instance options are in resampled pixels, which
                are those of the training.
            instances: Fields of `InstanceOptions` that override the model's, such as
                `threshold=0.6`; for a model of classes, `affinities` alone.

        Returns:
            Label image `(height, width)`: int32 cell numbers or, for a model of classes, the
            values of its training labels.

        Raises:
            ValueError: See `predict`; or if an option is out of range or has no effect.
            OSError: See `predict`.
        """
        encoding = self.info.encoding
        unused = sorted(instances.keys() - {"affinities"})
        if unused and encoding.kind != "instances":
            raise ValueError(
                f"{', '.join(unused)}: options for instances. Received for a model of "
                "classes; leave out"
            )
        if instances:
            changed = self.with_instances(**instances)
            return changed.segment(image, tile_size=tile_size, tta=tta, scale=scale)
        prediction = self._predict_array(image, tile_size, tta, scale)
        if encoding.kind == "instances":
            return prediction.instances(self.info.instances)
        return encoding.from_classes(prediction.classes)

    def measure(
        self,
        image: NDArray[Any],
        *,
        pixel_size: float | tuple[float, float] | None = None,
        tile_size: int | None = None,
        tta: bool = False,
        scale: Scale = "off",
        **instances: Any,
    ) -> Columns:
        """Segments an image, and measures the cells.

        Args:
            image: See `predict`.
            pixel_size: Height and width of a pixel in micrometers, or one number for both; None if
                unknown.
            tile_size: See `predict`.
            tta: See `predict`.
            scale: See `segment`.
            instances: Fields of `InstanceOptions` that override the model's, such as
                `threshold=0.6`.

        Returns:
            Columns of a table by name, one value for each cell, see `measure_objects`;
            `pandas.DataFrame` takes them.

        Raises:
            ValueError: See `predict`; or if an instance option is out of range.
            OSError: See `predict`.
        """
        if instances:
            changed = self.with_instances(**instances)
            return changed.measure(
                image, pixel_size=pixel_size, tile_size=tile_size, tta=tta, scale=scale
            )
        prediction = self._predict_array(image, tile_size, tta, scale)
        return measure_objects(
            prediction.instances(self.info.instances),
            np.asarray(image),
            probabilities=prediction.probabilities,
            pixel_size=pixel_size,
            classes=self.info.encoding.names,
        )

    def disagreement(self, image: NDArray[Any], *, tile_size: int | None = None) -> float:
        """Computes how much the predictions of the eight rotations and reflections differ.

        Of several images, the one with the largest value is the one to annotate next.

        Args:
            image: See `predict`.
            tile_size: See `predict`.

        Returns:
            The Jensen-Shannon divergence of their class probabilities, in bits per pixel, see
            `disagreement_of_views`: 0 if all agree.

        Raises:
            ValueError: See `predict`.
            OSError: See `predict`.
        """
        predict = partial(self.predict, tile_size=tile_size)
        return disagreement_of_views(predict, np.asarray(image))

    def choose_scale(
        self,
        image: Any,
        path: Path,
        *,
        tile_size: int | None = None,
    ) -> Choice:
        """Chooses the scale at which objects are as wide as in training.

        The middle of the image, of 2**20 pixels after resampling, is predicted at the factors 2/3,
        1 and 3/2, see `scale_of_objects`.

        Args:
            image: Raw grey values `(height, width, channels)`: an array, or an object that is
                indexed by a window of rows and columns like one.
            path: Its file, for messages.
            tile_size: See `predict`.

        Returns:
            The factor and its reason. The factor is 1 if few objects are found, or the model has no
            instances.
        """

        def label(factor: float) -> NDArray[np.int32]:
            middle = image[middle_window(image.shape, factor)]
            size = scaled_size(middle.shape, factor)
            probabilities = self._probabilities(middle, path, tile_size, False, size)
            return label_instances(cell_probability(probabilities), self.info.instances)

        return scale_of_objects(label, self.info.diameters)

    def predict_pixels(
        self,
        pixels: NDArray[Any],
        path: Path,
        *,
        tile_size: int | None = None,
        tta: bool = False,
        scale: float = 1.0,
    ) -> NDArray[np.float32]:
        """Predicts the class probabilities of raw pixels.

        Args:
            pixels: Raw grey values `(height, width, channels)`.
            path: Their file, for messages.
            tile_size: See `predict`.
            tta: See `predict`.
            scale: Factor, see `predict`.

        Returns:
            float32 probabilities `(height, width, classes)`.
        """
        return self._predict_plane(pixels, path, tile_size, tta, scale).probabilities

    def _predict_plane(
        self, pixels: NDArray[Any], path: Path, tile_size: int | None, tta: bool, scale: float
    ) -> Prediction:
        height, width = pixels.shape[:2]
        size = scaled_size((height, width), scale)
        probabilities = self._probabilities(pixels, path, tile_size, tta, size)
        return Prediction.of(probabilities, (height, width))

    def _probabilities(
        self,
        pixels: NDArray[Any],
        path: Path,
        tile_size: int | None,
        tta: bool,
        size: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Predicts the image at another size, without resampling the result back."""
        # Grey values are normalized first, by mean and deviation of the image itself, as before the
        # random scaling of a training.
        outputs = [
            predict_outputs(
                network,
                resample(info.normalize(pixels, path), size),
                info.architecture,
                tile_size=tile_size,
                tta=tta,
            )
            for info, network in self.networks_with_info
        ]
        mean: NDArray[np.float32] = np.mean(outputs, axis=0, dtype=np.float32)
        separated = self.info.instances.affinities
        return class_probabilities(mean, self.info.architecture, separated=separated)

    def predict_planes(
        self,
        path: Path,
        image: ImageFile,
        *,
        tile_size: int | None = None,
        tta: bool = False,
        scale: float = 1.0,
        needs_probabilities: bool = True,  # noqa: ARG002 - a server may send classes alone
    ) -> Iterator[Prediction]:
        """Predicts the planes of an image file.

        Args:
            path: Path of the file.
            image: Content of the file.
            tile_size: See `predict`.
            tta: See `predict`.
            scale: Factor, see `predict`.
            needs_probabilities: Whether the caller uses more than the classes.

        Yields:
            The prediction of each plane.
        """
        for plane in image.planes:
            yield self._predict_plane(plane, path, tile_size, tta, scale)

    @cached_property
    def networks_with_info(self) -> Sequence[tuple[ModelInfo, Any]]:
        """Metadata of each network, and its callable from tiles to logits.

        The callables halve tiles that are too large for memory, see `TileFallback`.
        """
        fallback = TileFallback()
        return [
            (member.info, fallback.wrap(member.network, member.info.architecture))
            for member in track(self.members, "loading networks")
        ]

    @property
    def networks(self) -> list[Any]:
        """Callables of the networks, from tiles to logits, see `networks_with_info`."""
        return [network for _, network in self.networks_with_info]

    def check_tile_size(self, tile_size: int | None) -> None:
        """Checks that every network accepts a tile size.

        Args:
            tile_size: Height and width of the input tile in pixels; None for the default.

        Raises:
            ValueError: If a network does not accept it.
        """
        for info, network in self.networks_with_info:
            Tiling.covering((1, 1), info.architecture, tile_size_of(network, tile_size))

    def check_scale(self, scale: Scale | str) -> float | Literal["auto"]:
        """Returns the factor of a scale, or "auto", see `as_scale`.

        Raises:
            ValueError: If the scale is out of range.
        """
        return as_scale(scale)

    def save(self, folder: PathLike) -> Path:
        """Saves the model to a folder, which all commands accept in place of a run.

        Args:
            folder: A new or empty folder.

        Returns:
            The folder.

        Raises:
            ValueError: If `build_unet` did not build a network, or it is in a .tflite file or on a
                server.
            OSError: If the folder holds files, or cannot be written to.
        """
        folder = Path(folder)
        check_new(folder, "the model")
        if not self.members or not all(hasattr(member.network, "save") for member in self.members):
            raise ValueError(
                f"{self.info.name}: expected a segmenter of Keras models, to be saved. Received "
                "one of a .tflite file, which can be copied, or of a server"
            )
        make_folder(folder.parent)
        with atomic_folder(folder, replaces=False) as temporary:
            make_folder(temporary)
            if len(self.members) == 1:
                _save(self.members[0], self.info, temporary)
            else:
                self._save_ensemble(temporary)
        return folder

    def _save_ensemble(self, folder: Path) -> None:
        records = [member.info.record.get("data", {}) for member in self.members]
        held_out = tuple(tuple(data.get("validation", ())) for data in records)
        options = self.info.record.get("options", {})
        ensemble = Ensemble(folder, held_out, options, self.info.instances)
        ensemble.save()
        for member, fold in zip(self.members, ensemble.folds, strict=True):
            _save(member, member.info, make_folder(fold))


def _save(member: Member, info: ModelInfo, folder: Path) -> None:
    if member.weights is None:
        Architecture.of(member.network)  # raises for a network that `load` could not rebuild
    if member.weights is not None and member.precision is None:
        shutil.copyfile(member.weights, folder / BEST)
    else:
        member.network.save(folder / BEST)
    Run(**vars(_without_folder(info)), folder=folder).save()


def _without_folder(info: ModelInfo) -> ModelInfo:
    """Returns the plain `ModelInfo` of a run."""
    return ModelInfo(**{field.name: getattr(info, field.name) for field in fields(ModelInfo)})


def _normalization(normalization: Normalization | Mode) -> Normalization:
    if isinstance(normalization, Normalization):
        return normalization
    return Normalization(normalization)


def _encoding(labels: LabelEncoding | Kind | None, classes: int) -> LabelEncoding:
    if not isinstance(labels, LabelEncoding):
        kind: Kind = labels or ("instances" if classes == 2 else "classes")
        labels = LabelEncoding(kind, (0, 1) if kind == "instances" else tuple(range(classes)))
    if labels.classes != classes:
        raise ValueError(
            f"labels must have as many classes as the model, {classes}. Received: {labels.classes} "
            f"({labels.kind}); for instances of several classes, give a LabelEncoding with "
            "class_names"
        )
    return labels
