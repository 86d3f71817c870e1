"""Builds and loads the Keras networks of runs and .keras files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from keras_unet.architecture import Architecture
from keras_unet.backend import choose_precision, keras, precision_policy
from keras_unet.model import unet_of
from keras_unet.runs import ModelInfo, Run, weights_of

_WEIGHTS = "model.weights.h5"  # member of a .keras file
_MOST_BYTES, _HEADERS = 8, 2**24  # bytes of a weight, and of all else in that member


def new_network(run: ModelInfo, seed: int) -> Any:
    """Builds the network of a run with random initial weights of a seed."""
    keras.utils.set_random_seed(seed)
    return _network(run.architecture, run.precision)


def load_network(run: Run, precision: str | None = None) -> Any:
    """Loads the best model of a run.

    Args:
        run: The run.
        precision: Precision to predict in; None for that of the training.

    Raises:
        FileNotFoundError: If training has not written a model yet.
        ValueError: If the model cannot be read, or the precision is unknown.
    """
    model = _network(run.architecture, precision or run.precision)
    _load_weights(model, weights_of(run))
    return model


def load_keras_file(path: Path) -> Any:
    """Loads a network of `build_unet` from a .keras file.

    Only numbers and weights are read: unlike `keras.models.load_model`, it runs no code of a file
    of unknown origin.

    Args:
        path: Path of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a .keras file, or `build_unet` did not build its network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected a .keras file")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        architecture = Architecture.of(_model_stub(config["layers"]))
    except (zipfile.BadZipFile, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected a .keras file of a network of build_unet. Received another "
            f"({reason}); build the network, load its weights, and use Segmenter.from_model"
        ) from error
    model = _network(architecture, "float32")
    _load_weights(model, path)
    return model


def _model_stub(layers: Sequence[Mapping[str, Any]]) -> Any:
    """Returns an object with the layers' attributes that a .keras file records."""
    first = next(layer for layer in layers if layer["class_name"] == "InputLayer")
    stubs = [
        type(layer["class_name"], (SimpleNamespace,), {})(**layer["config"]) for layer in layers
    ]
    return SimpleNamespace(layers=stubs, input_shape=first["config"]["batch_shape"])


def precision_of(model: Any) -> str:
    """Returns the precision of a Keras model: "bfloat16" or "float16" if a layer uses it.

    Args:
        model: The model.
    """
    policies = {layer.dtype_policy.compute_dtype for layer in model.layers}
    return next((name for name in ("bfloat16", "float16") if name in policies), "float32")


def in_precision(model: Any, info: ModelInfo, precision: str | None) -> Any:
    """Returns a Keras model in a precision: the model itself, or a new one with its weights.

    Args:
        model: The model.
        info: Metadata of the model.
        precision: Precision to compute in, or "auto"; None for that of the model.

    Raises:
        ValueError: If the precision is unknown, or `build_unet` did not build the model.
    """
    if precision is None or choose_precision(precision) == info.precision:
        return model
    Architecture.of(model)  # raises for a network that cannot be rebuilt
    converted = _network(info.architecture, precision)
    converted.set_weights(model.get_weights())
    return converted


def classes_alone(load: Callable[[str | None], Any], precision: str | None) -> Any:
    """Loads a network of `build_unet` with affinities, and returns its part without them.

    Args:
        load: Function that loads the network in a precision.
        precision: Precision to compute in; None for that of the training.
    """
    model = load(precision)
    return keras.Model(model.input, model.get_layer("logits").output, name=model.name)


def _network(architecture: Architecture, precision: str) -> Any:
    with precision_policy(choose_precision(precision)):
        model = unet_of(architecture)
    # On a GPU, Keras would let XLA compile the network, for seconds, for each new tile size.
    model.jit_compile = False
    return model


def _load_weights(model: Any, path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_WEIGHTS).compress_type != zipfile.ZIP_STORED:
                _load_compressed(model, archive)
                return
        model.load_weights(path)
    except Exception as error:  # Keras raises errors of zipfile, h5py and its own
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected the model that training wrote for this run. Received a file that "
            f"cannot be read as one ({reason}); copy the run again, or train again"
        ) from error


def _load_compressed(model: Any, archive: zipfile.ZipFile) -> None:
    """Loads weights by a temporary file, since Keras decompresses them anew at each seek."""
    size, most = archive.getinfo(_WEIGHTS).file_size, _MOST_BYTES * model.count_params() + _HEADERS
    if size > most:
        raise ValueError(f"{size:,} bytes of weights, for a network of at most {most:,}")
    with TemporaryDirectory() as folder:
        model.load_weights(archive.extract(_WEIGHTS, folder))
