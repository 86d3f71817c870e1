"""The network of a run, new, trained or exported, and the runs that predict together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_unet.backend import keras
from keras_unet.checkpoint import BEST
from keras_unet.ensembles import Ensemble, is_ensemble
from keras_unet.litert import load_tflite
from keras_unet.model import unet_of
from keras_unet.precision import choose_precision, precision_policy
from keras_unet.runs import Run

_TFLITE = ".tflite"


def new_network(run: Run, seed: int) -> Any:
    """Builds the network of a run with weights drawn from a seed."""
    keras.utils.set_random_seed(seed)
    return _network(run, run.precision)


def load_runs(folder: Path) -> tuple[Run, ...]:
    """Loads what predicts: a run, or all of an ensemble, each with the ensemble's rule.

    A .tflite file is a run as well: it holds the record of the one it was exported from.

    Raises:
        FileNotFoundError: If the folder is neither, or a fold is not trained to its end.
        ValueError: If a record cannot be read.
    """
    if folder.suffix == _TFLITE:
        return (load_tflite(folder).run,)
    if not is_ensemble(folder):
        return (Run.load(folder),)
    ensemble = Ensemble.load(folder)
    if ensemble.rule is None:
        raise FileNotFoundError(
            f"{folder}: expected an ensemble of which all {len(ensemble.folds)} folds are trained. "
            "Received one whose training was interrupted; go on with it by --resume, or predict "
            "with a fold"
        )
    return tuple(replace(Run.load(fold), rule=ensemble.rule) for fold in ensemble.folds)


def load_single_run(folder: Path, purpose: str = "export") -> Run:
    """Loads a run, where an ensemble will not do.

    Args:
        folder: The run's folder.
        purpose: What a person wants of it, for the message.

    Raises:
        OSError: If the folder is missing, is no run, or is an ensemble.
        ValueError: If the record cannot be read.
    """
    if is_ensemble(folder):
        first = Ensemble.load(folder).folds[0]
        raise IsADirectoryError(
            f"{folder}: expected a run, for one network is taken at a time. Received an "
            f"ensemble; {purpose} one of its folds, such as {first}"
        )
    return Run.load(folder)


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
    path = run.folder / BEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder}: expected a run whose training has written {BEST}. Received one "
            "without; train until the first validation"
        )
    model = _network(run, precision or run.precision)
    _load_weights(model, path)
    return model


def _exported(run: Run, precision: str | None) -> Any:
    if precision is not None:
        raise ValueError(
            f"precision is that of {run.folder}, chosen when it was exported. "
            f"Received: {precision!r}; leave it out"
        )
    return load_tflite(run.folder)


def _network(run: Run, precision: str) -> Any:
    with precision_policy(choose_precision(precision)):
        model = unet_of(run.architecture)
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
