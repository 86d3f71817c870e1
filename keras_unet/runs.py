"""Run and ensemble folders, and the information about a model that prediction needs.

run/
├── run.json           architecture, labels, normalization, instances, precision; options, data,
│                      outcome and provenance of the training
├── best.keras         model with the best validation score; loads without this package
├── last.keras         model at the end of the training
├── history.csv        one row per validation
├── checkpoint.npz     state for `--resume`
├── report.html        report for a browser
├── pictures/          images held out: truth, prediction, difference, weight map
├── tensorboard/       curves, and a picture at every validation
├── weight_maps/       float32 TIFF files
└── .lock              lock of the training that writes to the folder

ensemble/              folds of a cross-validation, each trained without its images
├── ensemble.json      options, images held out from each fold, instance options
├── fold-1/            a run
├── fold-2/            a run
└── ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet import shipped
from keras_unet.architecture import Architecture
from keras_unet.data.channels import Selection
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.fingerprint import Percentiles
from keras_unet.data.groups import HeldOut
from keras_unet.data.images import as_channels, pixels_of
from keras_unet.data.normalization import Normalization
from keras_unet.files import PathLike, write_json
from keras_unet.instances.label import InstanceOptions

RECORD = "run.json"
ENSEMBLE = "ensemble.json"
REPORT = "report.html"
BEST = "best.keras"
FORMAT = 2
ARRAYS, DATASET = "(arrays)", "(dataset)"  # recorded in place of a data folder


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Information about a trained model that prediction needs besides the weights.

    Attributes:
        architecture: Architecture of the network.
        encoding: Encoding of the label files.
        normalization: Normalization of grey values in training and prediction.
        precision: Precision of the training.
        instances: Instance options, selected at the end of the training.
        channels: Channels of the training's image files that the model reads, see
            `keras_unet.data.channels`; None for all.
        pixel_size: Height and width in micrometers of a pixel of the training images; None if
            their files do not state it, or it differs between them.
        diameters: 10th, 50th and 90th percentile of the diameters of the training cells in pixels,
            see `Fingerprint`; None for labels that hold classes, and without cells.
        record: Options, data, outcome and provenance of the training, as plain values.
        name: Name of the model, for messages and model cards.
    """

    architecture: Architecture
    encoding: LabelEncoding
    normalization: Normalization
    precision: str = "float32"
    instances: InstanceOptions = field(default_factory=InstanceOptions)
    channels: tuple[int | str, ...] | None = None
    pixel_size: tuple[float, float] | None = None
    diameters: Percentiles | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default="model", compare=False)

    def __post_init__(self) -> None:
        """Checks that the network predicts what the instance options use."""
        if self.instances.affinities and not self.architecture.affinities:
            raise ValueError(
                "affinities=True needs a network that predicts affinities. Received "
                f"{self.name}, which does not; leave it out, or train with affinities=True"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the information as values for JSON, in the layout of run.json and exports."""
        return {
            "format": FORMAT,
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "labels": self.encoding.to_dict(),
            "normalization": self.normalization.to_dict(),
            "precision": self.precision,
            "instances": self.instances.to_dict(),
            "channels": self.channels and list(self.channels),
            "pixel_size": self.pixel_size and list(self.pixel_size),
            "diameters": self.diameters and list(self.diameters),
            "record": dict(self.record),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **more: Any) -> Self:
        """Rebuilds the information from the result of `to_dict`.

        Args:
            values: Result of `to_dict`; `record`, `channels`, `pixel_size` and `diameters` may be
                missing, as in older ones, whose records may hold the diameters.
            more: Further fields.

        Raises:
            KeyError: If an entry is missing.
            TypeError: If an entry has another type.
            ValueError: If an entry is out of range, or the format is another.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        if not isinstance(values.get("record", {}), dict):
            raise TypeError("record is not a dictionary")
        pixel_size = values.get("pixel_size")
        diameters = values["diameters"] if "diameters" in values else _measured_diameters(values)
        info = {
            "architecture": Architecture.from_dict(values["architecture"]),
            "encoding": LabelEncoding.from_dict(values["labels"]),
            "normalization": Normalization.from_dict(values["normalization"]),
            "precision": values["precision"],
            "instances": InstanceOptions.from_dict(values["instances"]),
            "channels": values.get("channels") and tuple(values["channels"]),
            "pixel_size": pixel_size and _two_sizes(*pixel_size),
            "diameters": diameters and Percentiles(*map(float, diameters)),
            "record": values.get("record", {}),
            "name": str(values["name"]),
        }
        return cls(**info | more)

    def with_instances(self, **options: Any) -> Self:
        """Returns the information with other instance options.

        Args:
            options: Fields of `InstanceOptions`, by name.

        Raises:
            ValueError: If an option is out of range, or affinities are to be used that the network
                does not predict.
        """
        return replace(self, instances=replace(self.instances, **options))

    @property
    def selection(self) -> Selection | None:
        """Channels to read of images to predict; None for all."""
        return Selection.of(self.channels, is_recorded=True)

    @property
    def data_folder(self) -> Path | None:
        """Folder of the training images; None if they were in memory, or it is unknown."""
        folder = self.record.get("data", {}).get("folder")
        return None if folder in (None, ARRAYS, DATASET) else Path(folder)

    def normalize(self, image: NDArray[Any], path: Path) -> NDArray[np.float32]:
        """Normalizes raw pixels as in training.

        Args:
            image: Raw pixels, `(height, width, channels)`.
            path: Path of the image, for messages.

        Raises:
            ValueError: If the channels do not match the model or a pixel is not finite.
        """
        converted = as_channels(image, self.architecture.channels, path)
        return self.normalization.apply(pixels_of(converted, path))


@dataclass(frozen=True, kw_only=True)
class Run(ModelInfo):
    """A run: the information about its model, and its folder, whose name is its name."""

    folder: Path

    def __post_init__(self) -> None:
        """Sets the name."""
        object.__setattr__(self, "name", self.folder.resolve().name)
        super().__post_init__()

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Reads the record of a run.

        Raises:
            FileNotFoundError: If the folder is missing or is not a run.
            ValueError: If the record cannot be read.
        """
        path = Path(folder) / RECORD
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder}: expected a run, the folder that keras-unet train writes. "
                f"Received {'a folder' if Path(folder).is_dir() else 'a path'} without {RECORD}"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_dict(values, folder=Path(folder))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(_unreadable(path, "a run", error)) from error

    def save(self) -> None:
        """Writes the record, whole or not at all."""
        write_json(self.folder / RECORD, self.to_dict())


@dataclass(frozen=True)
class Ensemble:
    """Record of an ensemble.

    Attributes:
        folder: The ensemble's folder.
        held_out: Names of the images held out from each fold.
        options: Options of the training, as plain values, common to all folds except the images.
        instances: Instance options, selected on the images held out from all folds; None before
            all folds are trained.
        initial: Name, path and SHA-256 of the initial model of each fold, or None.
    """

    folder: Path
    held_out: tuple[tuple[str, ...], ...]
    options: Mapping[str, Any]
    instances: InstanceOptions | None = None
    initial: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, folder: Path) -> Ensemble:
        """Reads the record of an ensemble.

        Raises:
            FileNotFoundError: If the folder is not an ensemble.
            ValueError: If the record cannot be read.
        """
        path = folder / ENSEMBLE
        try:
            return cls._from_dict(folder, json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(_unreadable(path, "an ensemble", error)) from error

    @classmethod
    def _from_dict(cls, folder: Path, values: dict[str, Any]) -> Ensemble:
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        held_out = tuple(tuple(names) for names in values["held_out"])
        instances = values["instances"] and InstanceOptions.from_dict(values["instances"])
        return cls(folder, held_out, dict(values["options"]), instances, values.get("initial"))

    def save(self) -> None:
        """Writes the record, whole or not at all."""
        values = {
            "format": FORMAT,
            "held_out": self.held_out,
            "options": dict(self.options),
            "instances": self.instances and self.instances.to_dict(),
            "initial": self.initial,
        }
        write_json(self.folder / ENSEMBLE, values)

    @property
    def folds(self) -> tuple[Path, ...]:
        """Folders of the runs, one per fold."""
        return tuple(self.folder / f"fold-{fold}" for fold in range(1, len(self.held_out) + 1))


def describe_score(outcome: Mapping[str, Any]) -> str | None:
    """Returns the validation score and the images it is of; None if there is none.

    It is that of the run's weights with its instance options, as `keras-unet predict` takes them;
    in older runs, with the default instance options.

    Args:
        outcome: The entry `outcome` of a run's record.

    Example:
        >>> held_out = {"kind": "groups", "groups": ["02"], "images": 9}
        >>> outcome = {"score_name": "mean IoU", "score": 0.75, "validation": held_out}
        >>> describe_score(outcome)
        'mean IoU 0.7500 on 9 images of 1 group that was not trained on (02)'
        >>> describe_score(outcome | {"start_score": 0.5, "weights": "best"})
        'mean IoU 0.7500 on 9 images of 1 group that was ...; 0.5000 before the training'
    """
    score = outcome.get("score", outcome.get("best_score"))
    if score is None:
        return None
    held_out = held_out_of(outcome)
    images = held_out.describe() if held_out else "images held out"
    start = outcome.get("start_score")
    before = "" if start is None else f"; {start:.4f} before the training"
    kept = ", whose weights are kept" if outcome.get("weights") == "initial" else ""
    return f"{outcome['score_name']} {score:.4f} on {images}{before}{kept}"


def held_out_of(outcome: Mapping[str, Any]) -> HeldOut | None:
    """Returns the relation of the validation images to the training; None in an older record."""
    return HeldOut.from_dict(outcome["validation"]) if "validation" in outcome else None


def weights_of(run: Run) -> Path:
    """Returns the path of a run's weights.

    Raises:
        FileNotFoundError: If the training has not written them yet.
    """
    path = run.folder / BEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder}: expected a run whose training has written {BEST}. Received one "
            "without; train until the first validation"
        )
    return path


def runs_of(ensemble: Ensemble) -> tuple[Run, ...]:
    """Loads the folds of an ensemble, with the ensemble's instance options.

    Raises:
        FileNotFoundError: If a fold is not complete.
        ValueError: If a record cannot be read.
    """
    if ensemble.instances is None:
        raise FileNotFoundError(
            f"{ensemble.folder}: expected an ensemble of which all {len(ensemble.folds)} folds are "
            "trained. Received one whose training was interrupted; resume it with --resume, or use "
            "one of its folds"
        )
    return tuple(replace(Run.load(fold), instances=ensemble.instances) for fold in ensemble.folds)


def is_ensemble(folder: Path) -> bool:
    """Returns whether a folder is an ensemble."""
    return (folder / ENSEMBLE).is_file()


def locate(model: PathLike) -> Path:
    """Returns the path of a model: the given one, or that of the package's model of this name.

    A run or an ensemble of the same name in the current folder comes first.

    Args:
        model: A path, or a name.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If the weights of the package's model are damaged.
    """
    path, names = Path(model), shipped.names()
    if str(path) in names and not ((path / RECORD).is_file() or is_ensemble(path)):
        return shipped.find(path.name)
    if not path.exists():
        raise FileNotFoundError(
            f"{model}: expected a run, an ensemble, a .tflite file, or a model of the package "
            f"({', '.join(names) or 'there is none'}). Received a path that does not exist"
        )
    return path


def _measured_diameters(values: Mapping[str, Any]) -> Sequence[float] | None:
    """Returns the diameters in the record of the training, if its labels hold instances."""
    measured = values.get("record", {}).get("data", {}).get("fingerprint") or {}
    return measured.get("diameters") if values["labels"]["kind"] == "instances" else None


def _two_sizes(height: float, width: float) -> tuple[float, float]:
    return float(height), float(width)


def _unreadable(path: Path, kind: str, error: Exception) -> str:
    return (
        f"{path}: expected the record of {kind} of format {FORMAT}. Received one that cannot be "
        f"read ({type(error).__name__}: {error}); copy it again, or train again"
    )
