"""Folders that training writes, and the facts of a model that a prediction needs.

run/
├── run.json           architecture, labels, normalization, instances, precision; options, data,
│                      outcome and origin of the training
├── best.keras         the model with the best validation score; loads without this package
├── last.keras         the model at the end
├── history.csv        one row a validation
├── checkpoint.npz     what `--resume` needs
├── report.html        all of it for a person, in a browser
├── pictures/          held-out images: truth, prediction, difference, weight map
├── tensorboard/       the history as curves, and a picture at every validation
├── weight_maps/       float32 TIFF, computed once
└── .lock              what a training holds while it writes here

ensemble/              the folds of a cross-validation, each trained without its images
├── ensemble.json      options, the images that each fold was trained without, the rule of cells
├── fold-1/            a run
├── fold-2/            a run
└── ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import as_channels, pixels_of
from keras_unet.data.normalization import Normalization
from keras_unet.files import PathLike, write_json
from keras_unet.instances.label import InstanceOptions

RECORD = "run.json"
ENSEMBLE = "ensemble.json"
REPORT = "report.html"
BEST = "best.keras"
FORMAT = 2
ARRAYS, DATASET = "(arrays)", "(dataset)"  # in the place of a data folder


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Facts of a trained model: all that prediction needs beside the weights.

    Attributes:
        architecture: The network.
        encoding: What the numbers in the label files mean.
        normalization: How grey values are normalized, in training as in prediction.
        precision: Precision the network was trained in.
        instances: How cells are made of probabilities, chosen when training ends.
        record: Provenance, as plain values: options, data and outcome of the training.
        name: Name of the model, for messages and model cards.
    """

    architecture: Architecture
    encoding: LabelEncoding
    normalization: Normalization
    precision: str = "float32"
    instances: InstanceOptions = field(default_factory=InstanceOptions)
    record: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default="model", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the facts as JSON knows them; run.json and every export have this layout."""
        return {
            "format": FORMAT,
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "labels": self.encoding.to_dict(),
            "normalization": self.normalization.to_dict(),
            "precision": self.precision,
            "instances": self.instances.to_dict(),
            "record": dict(self.record),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **more: Any) -> Self:
        """Returns what `to_dict` described.

        Args:
            values: The layout of `to_dict`; `record` may be left out.
            more: Further fields.

        Raises:
            KeyError: If an entry is missing.
            TypeError: If an entry is of another kind.
            ValueError: If an entry is out of range, or the layout is another.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        if not isinstance(values.get("record", {}), dict):
            raise TypeError("record is no dictionary")
        known = {
            "architecture": Architecture.from_dict(values["architecture"]),
            "encoding": LabelEncoding.from_dict(values["labels"]),
            "normalization": Normalization.from_dict(values["normalization"]),
            "precision": values["precision"],
            "instances": InstanceOptions.from_dict(values["instances"]),
            "record": values.get("record", {}),
            "name": str(values["name"]),
        }
        return cls(**known | more)

    @property
    def data_folder(self) -> Path | None:
        """Folder of the training images; None where they came from none, or it is unknown."""
        folder = self.record.get("data", {}).get("folder")
        return None if folder in (None, ARRAYS, DATASET) else Path(folder)

    def normalize(self, image: NDArray[Any], path: Path) -> NDArray[np.float32]:
        """Prepares raw pixels `(height, width, channels)` for the network, as in training.

        Args:
            image: Raw pixels.
            path: The image's file, for messages.

        Raises:
            ValueError: If the channels do not suit the model or a pixel is not finite.
        """
        suited = as_channels(image, self.architecture.channels, path)
        return self.normalization.apply(pixels_of(suited, path))


@dataclass(frozen=True, kw_only=True)
class Run(ModelInfo):
    """A run: the facts of its model, and its folder, which names it."""

    folder: Path

    def __post_init__(self) -> None:
        """Takes the folder's name."""
        object.__setattr__(self, "name", self.folder.resolve().name)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Reads a run's record.

        Raises:
            FileNotFoundError: If the folder is missing or is no run.
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
        """Writes the record, at once or not at all."""
        write_json(self.folder / RECORD, self.to_dict())


@dataclass(frozen=True)
class Ensemble:
    """Record of an ensemble.

    Attributes:
        folder: The ensemble's folder.
        held_out: Names of the images that each fold was trained without.
        options: Options of the training, as plain values; those of every fold but for the images.
        instances: How cells are made of probabilities, chosen on all images by the folds that were
            trained without them; None before all folds are trained.
        initial: The model that each fold starts from, its name, path and SHA-256; None for none.
    """

    folder: Path
    held_out: tuple[tuple[str, ...], ...]
    options: Mapping[str, Any]
    instances: InstanceOptions | None = None
    initial: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, folder: Path) -> Ensemble:
        """Reads an ensemble's record.

        Raises:
            FileNotFoundError: If the folder is no ensemble.
            ValueError: If the record cannot be read.
        """
        path = folder / ENSEMBLE
        try:
            return cls._of(folder, json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(_unreadable(path, "an ensemble", error)) from error

    @classmethod
    def _of(cls, folder: Path, values: dict[str, Any]) -> Ensemble:
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        held_out = tuple(tuple(names) for names in values["held_out"])
        rule = values["instances"] and InstanceOptions.from_dict(values["instances"])
        return cls(folder, held_out, dict(values["options"]), rule, values.get("initial"))

    def save(self) -> None:
        """Writes the record, at once or not at all."""
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
        """Folders of the runs, one a fold."""
        return tuple(self.folder / f"fold-{fold}" for fold in range(1, len(self.held_out) + 1))


def weights_of(run: Run) -> Path:
    """Returns the file of a run's weights.

    Raises:
        FileNotFoundError: If training has not written it yet.
    """
    path = run.folder / BEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder}: expected a run whose training has written {BEST}. Received one "
            "without; train until the first validation"
        )
    return path


def runs_of(ensemble: Ensemble) -> tuple[Run, ...]:
    """Loads the folds of an ensemble, each with the ensemble's rule.

    Raises:
        FileNotFoundError: If a fold is not trained to its end.
        ValueError: If a record cannot be read.
    """
    if ensemble.instances is None:
        raise FileNotFoundError(
            f"{ensemble.folder}: expected an ensemble of which all {len(ensemble.folds)} folds are "
            "trained. Received one whose training was interrupted; go on with it by --resume, or "
            "take one of its folds"
        )
    return tuple(replace(Run.load(fold), instances=ensemble.instances) for fold in ensemble.folds)


def is_ensemble(folder: Path) -> bool:
    """Tells whether a folder holds an ensemble, rather than a run."""
    return (folder / ENSEMBLE).is_file()


def _unreadable(path: Path, what: str, error: Exception) -> str:
    return (
        f"{path}: expected the record of {what} of format {FORMAT}. Received one that cannot be "
        f"read ({type(error).__name__}: {error}); copy it anew, or train again"
    )
