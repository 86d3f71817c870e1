"""The network of a run, new, trained or exported, and the runs that predict together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras
from keras_unet.ensembles import Ensemble, is_ensemble
from keras_unet.model import unet_of
from keras_unet.precision import choose_precision, precision_policy
from keras_unet.prediction.predict import predict_image, tile_size_of
from keras_unet.prediction.tflite import load_tflite
from keras_unet.runs import BEST, Run

Member = tuple[Run, Any]
"""A run, and its network or any callable that `predict_image` takes."""

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
    model = _network(run, precision or run.precision)
    _load_weights(model, path)
    return model


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


def predict_together(
    members: Sequence[Member],
    image: NDArray[Any],
    path: Path,
    *,
    tile_size: int | None = None,
    symmetries: bool = False,
) -> NDArray[np.float32]:
    """Averages what networks say of an image, each of which takes it as in its own training.

    Args:
        members: The runs and their networks, at least one.
        image: Raw pixels `(height, width, channels)`.
        path: The image's file, for messages.
        tile_size: As `predict_image`.
        symmetries: As `predict_image`.

    Returns:
        Probabilities `(height, width, classes)`.

    Raises:
        ValueError: If the image does not suit a run, or as `predict_image`.
    """
    scores = [
        predict_image(
            network,
            run.standardise(image, path),
            tile_size=tile_size,
            architecture=run.architecture,
            symmetries=symmetries,
        )
        for run, network in members
    ]
    mean: NDArray[np.float32] = np.mean(scores, axis=0, dtype=np.float32)
    return mean


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
