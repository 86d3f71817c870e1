"""The folder that training writes, and all that a prediction needs to know of it.

run/
├── run.json           architecture, standardisation, labels, rule, options, data, outcome, origin
├── best.keras         the model with the best validation score; loads without this package
├── last.keras         the model at the end
├── history.csv        one row a validation
├── checkpoint.npz     what `--resume` needs
├── report.html        all of it for a person, in a browser
├── pictures/          held-out images: truth, prediction, difference, weight map
├── tensorboard/       the history as curves, and a picture at every validation
├── weight_maps/       float32 TIFF, computed once
└── .lock              what a training holds while it writes here
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.data.images import as_channels, pixels_of
from keras_unet.data.schemes import LabelScheme
from keras_unet.data.standardisation import Standardisation
from keras_unet.files import PathLike, write_json
from keras_unet.instances.label import InstanceRule

RECORD = "run.json"
REPORT = "report.html"
BEST = "best.keras"
FORMAT = 1


@dataclass(frozen=True)
class Run:
    """Record of a run.

    Attributes:
        folder: The run's folder.
        architecture: The network.
        scheme: What the numbers in the label files mean.
        standardisation: How grey values are standardised, in training as in prediction.
        precision: Precision the network was trained in.
        record: Everything else, as plain values: options, data, outcome.
        rule: How cells are made of probabilities, chosen when training ends.
    """

    folder: Path
    architecture: Architecture
    scheme: LabelScheme
    standardisation: Standardisation
    precision: str
    record: Mapping[str, Any]
    rule: InstanceRule = field(default_factory=InstanceRule)

    @classmethod
    def load(cls, folder: PathLike) -> Run:
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
            return cls._of(Path(folder), json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected the record of a run of format {FORMAT}. "
                f"Received one that cannot be read ({type(error).__name__}: {error}); copy the run "
                "anew, or train again"
            ) from error

    @classmethod
    def _of(cls, folder: Path, values: dict[str, Any]) -> Run:
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        if not isinstance(values["record"], dict):
            raise TypeError("record is no dictionary")
        return cls(
            folder,
            Architecture.from_dict(values["architecture"]),
            LabelScheme.from_dict(values["labels"]),
            Standardisation.from_dict(values["standardisation"]),
            values["precision"],
            values["record"],
            InstanceRule.from_dict(values.get("rule", {})),
        )

    def save(self) -> None:
        """Writes the record, at once or not at all."""
        values = {
            "format": FORMAT,
            "architecture": self.architecture.to_dict(),
            "labels": self.scheme.to_dict(),
            "standardisation": self.standardisation.to_dict(),
            "precision": self.precision,
            "rule": self.rule.to_dict(),
            "record": dict(self.record),
        }
        write_json(self.folder / RECORD, values)

    def standardise(self, image: NDArray[Any], path: Path) -> NDArray[np.float32]:
        """Prepares raw pixels `(height, width, channels)` for the network, as in training.

        Args:
            image: Raw pixels.
            path: The image's file, for messages.

        Raises:
            ValueError: If the channels do not suit the run or a pixel is not finite.
        """
        suited = as_channels(image, self.architecture.channels, path)
        return self.standardisation.apply(pixels_of(suited, path))
