"""Initial weights of a training: of a run, a .keras file or a segmenter."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.data.encoding import LabelEncoding
from keras_unet.files import PathLike
from keras_unet.instances.label import InstanceOptions
from keras_unet.instances.selection import default_options
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_keras_file
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import Run, is_ensemble
from keras_unet.training.kernel_norm import has_normalized_kernels
from keras_unet.training.options import TrainingOptions

_log = logging.getLogger(__name__)

INITIAL = "initial.keras"
"""Weights that a run has started from, of the same classes."""

_FROM_MODEL = ("base_filters", "padding", "norm_layer", "depth", "affinities")
_LAST_LAYER = "logits"
_KERAS = ".keras"
_ONE_CLASS = 2  # with the background

Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True, eq=False)
class Initial:
    """A model that a training starts from.

    Attributes:
        segmenter: The model, with one Keras network.
        path: Path that it was loaded from; None for a model in memory.
    """

    segmenter: Segmenter
    path: Path | None = None

    @classmethod
    def of(cls, initial: Initial | Segmenter | PathLike) -> Initial:
        """Loads the model.

        Args:
            initial: A segmenter, the folder of a run or of one fold of an ensemble, a .keras file
                of a network of `build_unet`, or the name of a model of the package; or the result
                of this function.

        Raises:
            ValueError: If it is an ensemble, a .tflite file or a server, or its network is not one
                of `build_unet`.
            OSError: If there is no such model.
        """
        if isinstance(initial, Initial):
            return initial
        if isinstance(initial, Segmenter):
            return cls(_check_unet(initial))
        path = Path(initial)
        if path.suffix == _KERAS:
            segmenter = Segmenter.from_model(load_keras_file(path), name=path.stem)
            member = replace(segmenter.members[0], weights=path)
            return cls(replace(segmenter, members=(member,)), path)
        if is_ensemble(path):
            raise ValueError(
                f"{path}: expected a model of one network to start from. Received an ensemble; "
                f"take one of its folds, {path / 'fold-1'}"
            )
        return cls(_check_unet(load(path)), path)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Initial:
        """Loads the model that an earlier training started from.

        Args:
            record: Result of `to_dict`.

        Raises:
            ValueError: If the model was in memory, or has changed since.
            OSError: If the file no longer exists.
        """
        if record["path"] is None:
            raise ValueError(
                f"{record['name']}: expected a training that started from a file, to repeat it. "
                "Received one that started from a model in memory; pass the model as initial"
            )
        loaded = cls.of(record["path"])
        if loaded.to_dict()["sha256"] != record["sha256"]:
            raise ValueError(
                f"{record['path']}: expected the weights that the training started from. Received "
                "others; restore the file, or begin a new training"
            )
        return loaded

    @property
    def architecture(self) -> Architecture:
        """Architecture of the network."""
        return self.segmenter.info.architecture

    @property
    def is_trained(self) -> bool:
        """State of the weights: True if of a file or a training, False if new and in memory."""
        return self.path is not None or bool(self.segmenter.info.record)

    def to_dict(self) -> dict[str, Any]:
        """Returns the model as plain values, for the record of a run.

        Returns:
            Name, path and SHA-256 of the weights; license of the model and what it was trained
            from, or None; its number of classes, kind of labels, and names of the classes of
            objects and instance options, None if unknown.
        """
        (member,) = self.segmenter.members
        info = self.segmenter.info
        is_file = self.path is not None and self.path.suffix == _KERAS  # of weights alone
        return {
            "name": self._name,
            "path": None if self.path is None else str(self.path),
            "sha256": member.checksum,
            "license": info.record.get("license"),
            "initial": info.record.get("initial"),
            "classes": info.architecture.classes,
            "kind": info.encoding.kind,
            "class_names": None if is_file else list(info.encoding.class_names),
            "instances": None if is_file else info.instances.to_dict(),
        }

    def options(self, options: Options, given: Collection[str] = ()) -> Options:
        """Returns options with the architecture and normalization of the model.

        Classes are balanced as in its training, if that is known and no option says otherwise,
        since the balance shifts the probabilities that the model has learned.

        Args:
            options: The requested options.
            given: Names of options that were given, even if they have the default value.

        Raises:
            ValueError: If an option contradicts the model.
        """
        info, defaults = self.segmenter.info, TrainingOptions()
        values = {name: getattr(info.architecture, name) for name in _FROM_MODEL}
        values["normalization"] = info.normalization.mode
        values["normalize_kernels"] = has_normalized_kernels(self.segmenter.model)
        for name, value in values.items():
            requested = getattr(options, name)
            is_default = requested == getattr(defaults, name) and name not in given
            if requested != value and not is_default:
                raise ValueError(
                    f"{name} must be that of {self._name}, which training starts from, {value}. "
                    f"Received: {name}={requested}; leave it out"
                )
        if options.class_balance is None:
            recorded = info.record.get("options", {}).get("class_balance")
            values["class_balance"] = None if recorded is None else bool(recorded)
        return replace(options, **values)

    def check_channels(self, channels: int) -> None:
        """Checks that the model takes images of so many channels.

        Raises:
            ValueError: If it does not.
        """
        if channels != self.architecture.channels:
            raise ValueError(
                f"{self._name}: expected a model for images of {channels} channels, to start from. "
                f"Received one for {self.architecture.channels}; convert the images, choose "
                "channels by --channels (channels=), or train without an initial model"
            )

    def copy_weights(self, model: Any, encoding: LabelEncoding) -> None:
        """Copies the weights to a new network, except to its last layer if the classes differ.

        Args:
            model: The Keras network to copy to.
            encoding: Encoding of the labels that it is trained on.

        Raises:
            ValueError: If other layers differ.
        """
        source, unmatched = self.segmenter.model, []
        is_same = _has_same_classes(self.to_dict(), encoding)
        for layer in model.layers:
            weights = source.get_layer(layer.name).get_weights() if layer.weights else []
            if layer.name == _LAST_LAYER and not is_same:
                unmatched.append(layer.name)
            elif [array.shape for array in weights] == [
                variable.shape for variable in layer.weights
            ]:
                layer.set_weights(weights)
            else:
                unmatched.append(layer.name)
        if unmatched not in ([], [_LAST_LAYER]):
            raise ValueError(
                f"{self._name}: expected the layers of the network that is trained. Received "
                f"others ({', '.join(unmatched)}); train without an initial model"
            )
        message = f"starting from the weights of {self._name}"
        if unmatched:
            earlier = self.segmenter.info.encoding
            message += (
                f"; the last layer is initialized at random, for {_describe_classes(encoding)} "
                f"in place of {_describe_classes(earlier)}"
            )
        _log.info(message)

    @property
    def _name(self) -> str:
        return str(self.path or self.segmenter.info.name)


def starts_trained(run: Run) -> bool:
    """Returns whether a run starts from a model of the same classes, none of its layers drawn."""
    initial = run.record.get("initial") or {}
    return bool(initial) and _has_same_classes(initial, run.encoding)


def _has_same_classes(initial: Mapping[str, Any], encoding: LabelEncoding) -> bool:
    """Compares number and, as far as they are known, names of classes; one class needs no name."""
    names = initial.get("class_names", [])
    is_named = encoding.classes > _ONE_CLASS and names is not None
    is_other = is_named and tuple(names) != encoding.class_names
    return initial.get("classes") == encoding.classes and not is_other


def _describe_classes(encoding: LabelEncoding) -> str:
    names = ", ".join(encoding.class_names)
    return f"{encoding.classes} classes{f' ({names})' if names else ''}"


def initial_instances(run: Run) -> InstanceOptions | None:
    """Returns the instance options of the model that a run starts from.

    None if there is no such model, they are unknown, or its labels are of another kind.
    """
    initial = run.record.get("initial") or {}
    is_same_kind = starts_trained(run) and initial["kind"] == run.encoding.kind
    options = initial["instances"] if is_same_kind else None
    return options and InstanceOptions.from_dict(options)


def default_instances(
    run: Run, references: Sequence[NDArray[np.integer]], *, affinities: bool
) -> InstanceOptions:
    """Returns the default instance options of a run, which are those of the model it starts from.

    The minimum size is that of the model as well, but from a quarter to a half of a small cell of
    the labels: few images may hold no small cell, and other images other cells than the model's.

    Args:
        run: The run.
        references: Instances of the images, `(height, width)` each; 0 is background.
        affinities: Whether the network predicts affinities, to be used.
    """
    defaults = default_options(run.encoding.kind, references, affinities=affinities)
    initial = initial_instances(run)
    if initial is None:
        return defaults
    quarter = defaults.minimum_size
    size = initial.minimum_size
    if quarter:
        size = max(quarter, min(size, 2 * quarter))
    return replace(initial, minimum_size=size, affinities=affinities)


def _check_unet(segmenter: Segmenter) -> Segmenter:
    """Returns a segmenter whose network is one of `build_unet`; raises otherwise."""
    Architecture.of(segmenter.model)
    return segmenter
