"""The network of a run, new, trained or exported, and the runs that predict together."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from keras_unet.architecture import Architecture
from keras_unet.backend import keras
from keras_unet.model import unet_of
from keras_unet.precision import choose_precision, precision_policy
from keras_unet.prediction.predict import tile_size_of
from keras_unet.prediction.tflite import load_tflite
from keras_unet.runs import BEST, Ensemble, ModelInfo, Run, is_ensemble

_TFLITE = ".tflite"


def new_network(run: ModelInfo, seed: int) -> Any:
    """Builds the network of a run with weights drawn from a seed."""
    keras.utils.set_random_seed(seed)
    return _network(run.architecture, run.precision)


def load_runs(folder: Path) -> tuple[Any, ...]:
    """Loads what predicts: a run, or all of an ensemble, each with the ensemble's rule.

    A .tflite file is a run as well: it holds the record of the one it was exported from.

    Raises:
        FileNotFoundError: If the folder is neither, or a fold is not trained to its end.
        ValueError: If a record cannot be read.
    """
    if folder.suffix == _TFLITE:
        return (load_tflite(folder).info,)
    if not is_ensemble(folder):
        return (Run.load(folder),)
    ensemble = Ensemble.load(folder)
    if ensemble.rule is None:
        raise FileNotFoundError(
            f"{folder}: expected an ensemble of which all {len(ensemble.folds)} folds are trained. "
            "Received one whose training was interrupted; go on with it by --resume, or take one "
            "of its folds"
        )
    return tuple(replace(Run.load(fold), rule=ensemble.rule) for fold in ensemble.folds)


def load_network(run: Run, precision: str | None = None) -> Any:
    """Loads the best model of a run, or what was exported of it.

    Args:
        run: The run.
        precision: Precision to predict in; None for the one it was trained in.

    Raises:
        FileNotFoundError: If training has not written a model yet.
        ValueError: If the model cannot be read, or the precision is unknown or that of a .tflite
            file, which has one of its own.
    """
    if run.folder.suffix == _TFLITE:
        return _exported(run, precision)
    path = weights_of(run)
    model = _network(run.architecture, precision or run.precision)
    _load_weights(model, path)
    return model


def load_keras_file(path: Path) -> Any:
    """Loads a network of `build_unet` from a .keras file.

    Numbers and weights are read; code that a file of unknown origin may hold is not run, as
    `keras.models.load_model` might.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no .keras file, or its network is not one of `build_unet`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected a .keras file")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        architecture = Architecture.of(_described(config["layers"]))
    except (zipfile.BadZipFile, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected a .keras file of a network of build_unet. Received another "
            f"({reason}); build the network, load its weights, and give Segmenter.from_model"
        ) from error
    model = _network(architecture, "float32")
    _load_weights(model, path)
    return model


def _described(layers: Sequence[Mapping[str, Any]]) -> Any:
    """Stands in for a Keras model whose layers have the attributes that a .keras file records."""
    first = next(layer for layer in layers if layer["class_name"] == "InputLayer")
    named = [
        type(layer["class_name"], (SimpleNamespace,), {})(**layer["config"]) for layer in layers
    ]
    return SimpleNamespace(layers=named, input_shape=first["config"]["batch_shape"])


def precision_of(model: Any) -> str:
    """Returns the precision that a Keras model computes in: that of its policies, if one is mixed.

    Args:
        model: The model.
    """
    policies = {layer.dtype_policy.compute_dtype for layer in model.layers}
    return next((name for name in ("bfloat16", "float16") if name in policies), "float32")


def in_precision(model: Any, info: ModelInfo, precision: str | None) -> Any:
    """Returns a Keras model that computes in a precision: this one, or one with its weights.

    Args:
        model: The model.
        info: Its facts.
        precision: The precision, or "auto"; None for that of the model.

    Raises:
        ValueError: If the precision is unknown, or the model is not one of `build_unet`, which
            cannot be built anew.
    """
    if precision is None or choose_precision(precision) == info.precision:
        return model
    Architecture.of(model)
    other = _network(info.architecture, precision)
    other.set_weights(model.get_weights())
    return other


def weights_of(run: Run) -> Path:
    """Returns the file that `load_network` reads.

    Raises:
        FileNotFoundError: If training has not written a model yet.
    """
    path = run.folder if run.folder.suffix == _TFLITE else run.folder / BEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder}: expected a run whose training has written {BEST}. Received one "
            "without; train until the first validation"
        )
    return path


def tile_size_of_run(run: Run, tile_size: int | None) -> tuple[int | None, int | None]:
    """Returns what `tile_size_of` does of the network of a run, without building one.

    Args:
        run: The run.
        tile_size: Height and width asked for, or None.

    Raises:
        ValueError: If the network is of another size, as that of a .tflite file may be.
    """
    model = load_tflite(run.folder) if run.folder.suffix == _TFLITE else None
    return tile_size_of(model, tile_size)


def _exported(run: Run, precision: str | None) -> Any:
    if precision is not None:
        raise ValueError(
            f"precision is that of {run.folder}, chosen when it was exported. "
            f"Received: {precision!r}; leave it out"
        )
    return load_tflite(run.folder)


def _network(architecture: Architecture, precision: str) -> Any:
    with precision_policy(choose_precision(precision)):
        model = unet_of(architecture)
    # On a GPU Keras would have XLA compile a prediction, for seconds, for each new size of tile.
    model.jit_compile = False
    return model


def _load_weights(model: Any, path: Path) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises what zip, HDF5 and it itself raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected the model that training wrote for this run. Received a file that "
            f"cannot be read as one ({reason}); copy the run anew, or train again"
        ) from error
