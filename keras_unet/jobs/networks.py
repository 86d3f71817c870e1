"""A run's network, built in the precision asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_unet.model import unet_of
from keras_unet.precision import Precision, choose_precision, precision_policy
from keras_unet.runs import Run
from keras_unet.training import BEST


def load_network(run: Run, precision: str | None = None) -> Any:
    """Loads the best model of a run.

    Args:
        run: The run.
        precision: Precision to predict in; None for the one it was trained in.

    Raises:
        FileNotFoundError: If training has not written a model yet.
        ValueError: If the model cannot be read, or the precision is unknown.
    """
    path = run.folder / BEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder}: expected a run whose training has written {BEST}. Received one "
            "without; let keras-unet train --resume finish it"
        )
    wanted: Precision = choose_precision(precision or run.precision)
    with precision_policy(wanted):
        model = unet_of(run.architecture)
    _load_weights(model, path)
    return model


def _load_weights(model: Any, path: Path) -> None:
    try:
        model.load_weights(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: cannot be read as a Keras model ({reason})") from error
