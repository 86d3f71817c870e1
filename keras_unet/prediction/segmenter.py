"""Segmenter: trained networks with all that prediction needs to know of them.

It is made of a run, an ensemble, a .tflite file or a model server by `keras_unet.load`, of a
training by `keras_unet.train`, and of a Keras model by `Segmenter.from_model`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.console import track
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import ImageFile
from keras_unet.data.normalization import Mode, Normalization
from keras_unet.files import PathLike, atomic_folder, check_new, make_folder
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances
from keras_unet.prediction.outputs import Prediction
from keras_unet.prediction.predict import TileFallback, predict_image, tile_size_of
from keras_unet.runs import BEST, Ensemble, ModelInfo, Run
from keras_unet.tiling import Tiling

if TYPE_CHECKING:
    import keras

_IMAGE = Path("image")  # what messages call an array


@dataclass(frozen=True, eq=False)
class Member:
    """One network of a segmenter; it is loaded on first use.

    Attributes:
        info: Facts of the network, the normalization of its own training among them.
        load: Returns the network, a Keras model or a callable from tiles to logits, in a precision;
            None for its own.
        weights: File of its weights; None where they are in memory alone.
        precision: Precision to load it in.
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
        """SHA-256 of the file of the weights or, where there is none, of the weights."""
        if self.weights is not None:
            with self.weights.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for weights in self.network.get_weights():
            digest.update(np.ascontiguousarray(weights).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained U-Net, or several whose probabilities are averaged: raw images in, labels out.

    Attributes:
        info: Facts of the model: architecture, labels, normalization, instances, precision and
            provenance. Of an ensemble, what its networks have in common, under its name.
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
    """False where only whole images are predicted, which memory must hold."""

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
        """Takes a Keras model that was trained by hand.

        Args:
            model: From normalized tiles `(batch, height, width, channels)` to logits
                `(batch, height - 2 * margin, width - 2 * margin, classes)`.
            normalization: Normalization of its training images: "image" for zero mean and unit
                variance of each image, or a `Normalization` with the numbers of a data set.
            labels: Meaning of its classes: "instances" for background and cells; "classes" for
                values from 0 on; or a `LabelEncoding`. None for instances where there are two.
            instances: Options by which cells are made of probabilities; None for the defaults.
            architecture: The network's numbers, where it is not one of `build_unet`.
            name: Name of the model, for messages and model cards.

        Raises:
            ValueError: If the model is not one of `build_unet` and no architecture is given, or
                labels and classes do not go together.
        """
        from keras_unet.prediction.networks import in_precision, precision_of

        network = architecture or Architecture.of(model)
        info = ModelInfo(
            architecture=network,
            encoding=_encoding(labels, network.classes),
            normalization=_normalization(normalization),
            precision=precision_of(model),
            instances=instances or InstanceOptions(),
            name=name,
        )
        return cls(info, (Member(info, partial(in_precision, model, info)),))

    def with_precision(self, precision: str) -> Self:
        """Returns the same networks, computing in another precision.

        Args:
            precision: "auto", "float32", "bfloat16" or "float16".

        Raises:
            ValueError: If the precision is unknown, or cannot be chosen here.
        """
        members = [replace(member, precision=precision) for member in self.members]
        return replace(self, members=tuple(members))

    def with_instances(self, **options: Any) -> Self:
        """Returns the same networks with other options for making cells of probabilities.

        Args:
            options: Fields of `InstanceOptions`, by name.

        Raises:
            ValueError: If a number is out of range.
        """
        return replace(
            self, info=replace(self.info, instances=replace(self.info.instances, **options))
        )

    def in_memory(self) -> Self:
        """Returns the same with all weights in memory, so that files are no longer needed."""
        from keras_unet.prediction.networks import in_precision

        members = []
        for member in self.members:
            info = _facts(member.info)
            members.append(Member(info, partial(in_precision, member.network, info)))
        return replace(self, info=_facts(self.info), members=tuple(members))

    @property
    def model(self) -> keras.Model:
        """The Keras model, for further training.

        Raises:
            ValueError: If there are several, or none of Keras.
        """
        network = self.members[0].network if len(self.members) == 1 else None
        if not hasattr(network, "get_weights"):
            raise ValueError(
                f"{self.info.name}: expected a segmenter of one Keras model. Received one of "
                f"{len(self.members)} networks; take a run, or one fold of an ensemble"
            )
        return network

    def predict(
        self, image: NDArray[Any], *, tile_size: int | None = None, tta: bool = False
    ) -> NDArray[np.float32]:
        """Predicts the class probabilities of every pixel of an image.

        Args:
            image: Grey values as measured, `(height, width)` or `(height, width, channels)`.
            tile_size: Height and width of the input tile in pixels; None chooses, see
                `predict_image`.
            tta: Test-time augmentation: whether to average over the eight rotated and mirrored
                versions of the image, in eight times the time.

        Returns:
            float32 probabilities `(height, width, classes)`.

        Raises:
            ValueError: If the image does not suit the model, or a pixel is not finite.
            OSError: If memory does not hold the smallest tile.
        """
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or not pixels.size:
            raise ValueError(
                "image must be (height, width) or (height, width, channels), at least one pixel. "
                f"Received: shape={np.shape(image)}"
            )
        return self.predict_pixels(pixels, _IMAGE, tile_size=tile_size, tta=tta)

    def segment(
        self,
        image: NDArray[Any],
        *,
        tile_size: int | None = None,
        tta: bool = False,
        **instances: Any,
    ) -> NDArray[Any]:
        """Segments an image.

        Args:
            image: As `predict`.
            tile_size: As `predict`.
            tta: As `predict`.
            instances: Fields of `InstanceOptions` to take instead of the model's, by name, such as
                `threshold=0.6`.

        Returns:
            Label image `(height, width)`: numbered cells, int32; or, of a model of classes, the
            values of its training labels.

        Raises:
            ValueError: As `predict`, or if an option is out of range or of no effect.
            OSError: As `predict`.
        """
        encoding = self.info.encoding
        if instances and encoding.kind != "instances":
            raise ValueError(
                f"{', '.join(sorted(instances))}: options for instances. Received for a model of "
                "classes; leave out"
            )
        rule = replace(self.info.instances, **instances)
        probabilities = self.predict(image, tile_size=tile_size, tta=tta)
        if encoding.kind == "instances":
            return label_instances(cell_probability(probabilities), rule)
        return encoding.from_classes(probabilities.argmax(axis=-1))

    def predict_pixels(
        self,
        pixels: NDArray[Any],
        path: Path,
        *,
        tile_size: int | None = None,
        tta: bool = False,
    ) -> NDArray[np.float32]:
        """Predicts raw pixels `(height, width, channels)`, see `predict`.

        Args:
            pixels: The pixels.
            path: Their file, for messages.
            tile_size: As `predict`.
            tta: As `predict`.
        """
        scores = [
            predict_image(
                network,
                info.normalize(pixels, path),
                tile_size=tile_size,
                architecture=info.architecture,
                tta=tta,
            )
            for info, network in self.scorers
        ]
        mean: NDArray[np.float32] = np.mean(scores, axis=0, dtype=np.float32)
        return mean

    def predict_planes(
        self,
        path: Path,
        image: ImageFile,
        *,
        tile_size: int | None = None,
        tta: bool = False,
        needs_probabilities: bool = True,  # noqa: ARG002 - a server is asked for less without
    ) -> Iterator[Prediction]:
        """Predicts the planes of an image file.

        Args:
            path: The file.
            image: Its content.
            tile_size: As `predict`.
            tta: As `predict`.
            needs_probabilities: Whether more than the classes is made use of.
        """
        for plane in image.planes:
            yield Prediction.of(self.predict_pixels(plane, path, tile_size=tile_size, tta=tta))

    @cached_property
    def scorers(self) -> Sequence[tuple[ModelInfo, Any]]:
        """Facts of each network, and the callable from its tiles to logits.

        A tile that memory does not hold is halved, and so are those after it.
        """
        halving = TileFallback()
        return [
            (member.info, halving.around(member.network, member.info.architecture))
            for member in track(self.members, "loading networks")
        ]

    @property
    def networks(self) -> list[Any]:
        """Callables from tiles to logits, one a network, see `scorers`."""
        return [network for _, network in self.scorers]

    def check_tile_size(self, tile_size: int | None) -> None:
        """Refuses a tile size that does not suit the networks.

        Raises:
            ValueError: If it does not.
        """
        for info, network in self.scorers:
            Tiling.covering((1, 1), info.architecture, tile_size_of(network, tile_size))

    def save(self, folder: PathLike) -> Path:
        """Writes the model to a folder, which every command takes as it takes a run.

        Args:
            folder: A new folder, or an empty one.

        Returns:
            The folder.

        Raises:
            ValueError: If a network is not one of `build_unet`, or that of a .tflite file or of a
                server.
            OSError: If the folder holds files, or cannot be written to.
        """
        folder = Path(folder)
        check_new(folder, "the model")
        if not self.members or not all(hasattr(one.network, "save") for one in self.members):
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
        data = [member.info.record.get("data", {}) for member in self.members]
        held_out = tuple(tuple(one.get("validation", ())) for one in data)
        options = self.info.record.get("options", {})
        ensemble = Ensemble(folder, held_out, options, self.info.instances)
        ensemble.save()
        for member, fold in zip(self.members, ensemble.folds, strict=True):
            _save(member, member.info, make_folder(fold))


def _save(member: Member, info: ModelInfo, folder: Path) -> None:
    if member.weights is None:
        Architecture.of(member.network)  # any other could not be loaded again
    if member.weights is not None and member.precision is None:
        shutil.copyfile(member.weights, folder / BEST)
    else:
        member.network.save(folder / BEST)
    Run(**vars(_facts(info)), folder=folder).save()


def _facts(info: ModelInfo) -> ModelInfo:
    """Returns the facts of a model alone, without the folder of a run."""
    return ModelInfo(**{one.name: getattr(info, one.name) for one in fields(ModelInfo)})


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
            f"({labels.kind})"
        )
    return labels
