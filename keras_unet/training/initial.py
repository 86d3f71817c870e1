"""Weights that a training starts from: those of a run, a .keras file or a segmenter."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from keras_unet.architecture import Architecture
from keras_unet.files import PathLike
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_keras_file
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import is_ensemble
from keras_unet.training.options import TrainingOptions

_log = logging.getLogger(__name__)

_FROM_MODEL = ("base_filters", "padding", "norm_layer")
_LAST = "logits"

Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True, eq=False)
class Initial:
    """A model that a training starts from.

    Attributes:
        segmenter: The model, of one Keras network.
        path: Where it was loaded from; None for one in memory.
    """

    segmenter: Segmenter
    path: Path | None = None

    @classmethod
    def of(cls, initial: Segmenter | PathLike) -> Initial:
        """Loads the model.

        Args:
            initial: A segmenter, the folder of a run or of one fold of an ensemble, or a .keras
                file of a network of `build_unet`.

        Raises:
            ValueError: If it is an ensemble, a .tflite file or a server, or not of `build_unet`.
            OSError: If there is no such model.
        """
        if isinstance(initial, Segmenter):
            return cls(_of_unet(initial))
        path = Path(initial)
        if path.suffix == ".keras":
            segmenter = Segmenter.from_model(load_keras_file(path), name=path.stem)
            member = replace(segmenter.members[0], weights=path)
            return cls(replace(segmenter, members=(member,)), path)
        if is_ensemble(path):
            raise ValueError(
                f"{path}: expected a model of one network to start from. Received an ensemble; "
                f"take one of its folds, {path / 'fold-1'}"
            )
        return cls(_of_unet(load(path)), path)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Initial:
        """Loads the model that an earlier training started from.

        Args:
            record: What `to_dict` has returned.

        Raises:
            ValueError: If it was in memory, or has changed since.
            OSError: If it is no longer there.
        """
        if record["path"] is None:
            raise ValueError(
                f"{record['name']}: expected a training that started from a file, to be repeated. "
                "Received one that started from a model in memory; give it by initial"
            )
        found = cls.of(record["path"])
        if found.to_dict()["sha256"] != record["sha256"]:
            raise ValueError(
                f"{record['path']}: expected the weights that the training started from. Received "
                "others; put them back, or begin a new training from these"
            )
        return found

    @property
    def architecture(self) -> Architecture:
        """The network."""
        return self.segmenter.info.architecture

    def to_dict(self) -> dict[str, Any]:
        """Returns name, path and SHA-256 of the weights, for the record of a run."""
        (member,) = self.segmenter.members
        path = None if self.path is None else str(self.path)
        return {"name": self._name, "path": path, "sha256": member.checksum}

    def options(self, options: Options) -> Options:
        """Sets the options that the model decides: its network's, and the normalization.

        Args:
            options: What was chosen.

        Raises:
            ValueError: If an option was chosen that contradicts the model.
        """
        network, usual = self.architecture, TrainingOptions()
        decided = {name: getattr(network, name) for name in _FROM_MODEL}
        decided |= {"depth": network.depth}
        for name, value in decided.items():
            chosen = getattr(options, name)
            if chosen not in (value, getattr(usual, name)):
                raise ValueError(
                    f"{name} must be that of {self._name}, which training starts from, {value}. "
                    f"Received: {name}={chosen}; leave it out"
                )
        decided["normalization"] = self.segmenter.info.normalization.mode
        return replace(options, **decided)

    def check_channels(self, channels: int) -> None:
        """Refuses images of other channels than the model's.

        Raises:
            ValueError: If they are.
        """
        if channels != self.architecture.channels:
            raise ValueError(
                f"{self._name}: expected a model for images of {channels} channels, to start from. "
                f"Received one for {self.architecture.channels}; convert the images, or start "
                "without"
            )

    def copy_weights(self, model: Any) -> None:
        """Copies the weights to a new network; its last layer stays where classes differ.

        Args:
            model: The Keras network.
        """
        source, anew = self.segmenter.model, []
        for layer in model.layers:
            weights = source.get_layer(layer.name).get_weights() if layer.weights else []
            if [np.shape(one) for one in weights] == [one.shape for one in layer.weights]:
                layer.set_weights(weights)
            else:
                anew.append(layer.name)
        if anew != [_LAST] * bool(anew):
            raise ValueError(
                f"{self._name}: expected the layers of the network that is trained. Received "
                f"others ({', '.join(anew)}); start without"
            )
        drawn = (
            f"; the last layer is drawn anew, for {model.output_shape[-1]} classes in place of "
            f"{self.architecture.classes}"
        )
        _log.info(f"starting from the weights of {self._name}{drawn * bool(anew)}")

    @property
    def _name(self) -> str:
        return str(self.path or self.segmenter.info.name)


def _of_unet(segmenter: Segmenter) -> Segmenter:
    """Refuses what has no network of `build_unet` to start from."""
    Architecture.of(segmenter.model)
    return segmenter
