"""Versions of an exported model, loaded by TensorFlow, and the answers of their signatures."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

from keras_unet.backend import tf
from keras_unet.console import status
from keras_unet.export.export import export_model
from keras_unet.files import PathLike
from keras_unet.runs import ModelInfo

GRAPH = "saved_model.pb"
_WORDS = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
_INTERNAL = "__"  # start of the names of signatures that TensorFlow adds
_NO_TRACES = "<stack traces unavailable>"  # before the reason in an error of a loaded graph
_FIRST_OF_SEVERAL = re.compile(r"^\d+ root error.*\s+\(0\)\s+\w+: ")


@dataclass(frozen=True)
class Version:
    """A loaded version of a model.

    Attributes:
        number: Version number.
        definitions: Signatures with the names and types of inputs and outputs, by name.
        functions: Functions of the signatures, by name.
        owner: Object that holds the variables of the functions.
    """

    number: int
    definitions: Mapping[str, Any]
    functions: Mapping[str, Any]
    owner: Any = field(repr=False)

    @classmethod
    def load(cls, folder: Path, number: int) -> Version:
        """Loads a SavedModel.

        Raises:
            ValueError: If it cannot be loaded.
        """
        try:
            message = saved_model_pb2.SavedModel.FromString((folder / GRAPH).read_bytes())
            definitions = dict(message.meta_graphs[0].signature_def)
            owner = tf.saved_model.load(str(folder))
            functions = dict(owner.signatures)
        except Exception as error:  # of protobuf, TensorFlow or the file system, by the damage
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(
                f"{folder}: expected a SavedModel that TensorFlow loads. Received one that fails "
                f"({reason}); export it again"
            ) from error
        return cls(number, definitions, functions, owner)

    def input_dtypes(self, signature: str) -> dict[str, np.dtype[Any]]:
        """Returns the type of each input of a signature by name; object for bytes.

        Raises:
            ValueError: If there is no such signature.
        """
        if signature not in self.functions:
            raise ValueError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self.definitions[signature].inputs
        return {
            name: np.dtype(tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype)
            for name, tensor in inputs.items()
        }

    def run(self, signature: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Computes all outputs of a signature.

        Args:
            signature: Name of the signature.
            inputs: Arrays by name; bytes in arrays of type object.

        Returns:
            Arrays by name.

        Raises:
            ValueError: If the graph refuses the inputs.
            MemoryError: If memory is too small.
            RuntimeError: If the graph fails.
        """
        types = {name: _tensor_type(array) for name, array in inputs.items()}
        try:
            outputs = self.functions[signature](
                **{name: tf.constant(array, types[name]) for name, array in inputs.items()}
            )
            return {name: tensor.numpy() for name, tensor in outputs.items()}
        except (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError) as error:
            raise ValueError(_reason(error)) from error
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(_reason(error)) from error
        except tf.errors.OpError as error:
            raise RuntimeError(_reason(error)) from error

    @cached_property
    def info(self) -> ModelInfo | None:
        """Information about the model; None if this package did not export it."""
        if "about" not in self.functions:
            return None
        (text,) = self.run("about", {"query": np.array([b""], object)})["about"]
        try:
            return ModelInfo.from_dict(json.loads(text))
        except (KeyError, TypeError, ValueError):
            return None

    def describe_signatures(self) -> dict[str, Any]:
        """Returns the signatures as JSON, in the form of a SignatureDefMap."""
        return {
            name: json_format.MessageToDict(definition, **_WORDS)
            for name, definition in sorted(self.definitions.items())
            if not name.startswith(_INTERNAL)
        }


@dataclass(frozen=True)
class Model:
    """Versions of a model under one name.

    Attributes:
        name: Name in the addresses.
        versions: Loaded versions by number.
        labels: Version numbers by label.
    """

    name: str
    versions: Mapping[int, Version]
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks name and labels.

        Raises:
            ValueError: If an address cannot hold the name, or a label names no version.
        """
        if not self.name or set(self.name) & set("/:@"):
            raise ValueError(
                f"name must be at least one character, without / : @. Received: {self.name!r}; "
                "choose one by --name"
            )
        for label, number in self.labels.items():
            if number not in self.versions:
                raise ValueError(
                    f"label must name one of the versions {_listed(self.versions)}. Received: "
                    f"{label}={number}"
                )

    @classmethod
    def load(
        cls, model: PathLike, name: str | None = None, labels: Mapping[str, int] | None = None
    ) -> Model:
        """Loads an exported model, or exports one to a temporary folder first.

        Args:
            model: Folder of an exported SavedModel, with a subfolder for each version, or one of
                its versions; a run, an ensemble, or the name of a model of the package.
            name: Name in the addresses; None for that of the model.
            labels: Version numbers by label.

        Raises:
            ValueError: If the model cannot be exported or loaded, or a name is malformed.
            OSError: If there is no such model.
        """
        folders = exported_versions(Path(model))
        own_name = _own_name(Path(model))
        if folders:
            return cls(name or own_name, _loaded(folders), labels or {})
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "model"
            export_model(model, out, format="saved_model")
            return cls(name or own_name, _loaded(exported_versions(out)), labels or {})

    @property
    def newest(self) -> Version:
        """Version with the highest number."""
        return self.versions[max(self.versions)]

    def version(self, number: str | None = None, label: str | None = None) -> Version | None:
        """Returns a version by its number or its label, or else the newest; None if it is missing.

        Raises:
            ValueError: If there is no such label.
        """
        if label is not None and label not in self.labels:
            raise ValueError(f"Unrecognized servable version label: {label}")
        newest = self.newest.number if label is None else self.labels[label]
        texts = {str(known): version for known, version in self.versions.items()}
        return texts.get(str(newest) if number is None else number.lstrip("0") or "0")


def exported_versions(folder: Path) -> dict[int, Path]:
    """Returns the folders of the versions of an exported SavedModel by number; none of others."""
    if (folder / GRAPH).is_file():
        name = folder.resolve().name
        return {int(name) if name.isdecimal() else 1: folder}
    if not folder.is_dir():
        return {}
    return {
        int(path.name): path
        for path in folder.iterdir()
        if path.name.isdecimal() and (path / GRAPH).is_file()
    }


def _own_name(path: Path) -> str:
    folder = path.resolve()
    is_version = (folder / GRAPH).is_file() and folder.name.isdecimal()
    return folder.parent.name if is_version else folder.name


def _loaded(folders: Mapping[int, Path]) -> dict[int, Version]:
    with status("loading the model"):
        return {number: Version.load(path, number) for number, path in sorted(folders.items())}


def _listed(numbers: Sequence[int] | Mapping[int, Any]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _tensor_type(array: NDArray[Any]) -> Any:
    return tf.string if array.dtype == object else tf.dtypes.as_dtype(array.dtype)


def _reason(error: Any) -> str:
    """Returns the message of an error of TensorFlow without the places in the graph."""
    told = str(error.message).rpartition(_NO_TRACES)[2]
    first = _FIRST_OF_SEVERAL.sub("", told.strip())
    return " ".join(first.split("[[{{")[0].split())
