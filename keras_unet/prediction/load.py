"""Trained models from where they lie: a run, an ensemble, a .tflite file, a model server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from keras_unet.client import TIMEOUT
from keras_unet.files import PathLike
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.prediction.server import connect
from keras_unet.prediction.tflite import load_tflite
from keras_unet.runs import Ensemble, ModelInfo, Run, is_ensemble, runs_of, weights_of

TFLITE = ".tflite"


def load(model: PathLike, *, precision: str | None = None, timeout: float = TIMEOUT) -> Segmenter:
    """Loads a trained model.

    Records are read here; the networks are built, and their weights read, when they are first used.

    Args:
        model: Folder of a run or of an ensemble; a .tflite file that `export_model` wrote; or the
            address of a model server, `grpc://HOST:PORT/MODEL` or
            `http://HOST:PORT/v1/models/MODEL`, after MODEL optionally @VERSION or @LABEL.
        precision: Precision to predict in, "auto", "float32", "bfloat16" or "float16"; None for
            that of the training. A .tflite file and a server have their own.
        timeout: Seconds to wait for each answer of a server.

    Returns:
        The segmenter.

    Raises:
        FileNotFoundError: If there is no such model, training has not written one yet, or a fold
            of an ensemble is not trained to its end.
        ValueError: If a record cannot be read, or a precision is given for a model that has one of
            its own.
        OSError: If a server cannot be reached.

    Example:
        segmenter = keras_unet.load("RUN")
        labels = segmenter.segment(image)
    """
    if isinstance(model, str) and "://" in model:
        _refuse_precision(precision, model)
        return connect(model, timeout)
    path = Path(model)
    if path.suffix == TFLITE:
        _refuse_precision(precision, path)
        network = load_tflite(path)
        return Segmenter(network.info, (Member(network.info, partial(_own, network), path),))
    if is_ensemble(path):
        return _ensemble(path, precision)
    run = Run.load(path)
    return Segmenter(run, (_member(run, precision),))


def _ensemble(folder: Path, precision: str | None) -> Segmenter:
    ensemble = Ensemble.load(folder)
    runs = runs_of(ensemble)
    return Segmenter(_common(ensemble, runs), tuple(_member(run, precision) for run in runs))


def _member(run: Run, precision: str | None) -> Member:
    return Member(run, partial(_of_run, run), weights_of(run), precision)


def _of_run(run: Run, precision: str | None) -> Any:
    from keras_unet.prediction.networks import load_network

    return load_network(run, precision)


def _own(network: Any, precision: str | None) -> Any:
    _refuse_precision(precision, network.info.name)
    return network


def _refuse_precision(precision: str | None, model: PathLike) -> None:
    if precision is not None:
        raise ValueError(
            f"precision is that of {model}, chosen when it was exported. "
            f"Received: {precision!r}; leave it out"
        )


def _common(ensemble: Ensemble, runs: Sequence[Run]) -> ModelInfo:
    """Returns what the folds have in common, under the ensemble's name.

    Normalization and precision are those of the first, which an export of all as one takes.
    """
    data = [run.record.get("data", {}) for run in runs]
    seen = sorted({name for one in data for name in one.get("training", ())})
    last = data[-1].get("folder", "")  # where the images were when the ensemble was finished
    record = {"options": dict(ensemble.options), "data": {"folder": last, "training": seen}}
    return replace(runs[0], folder=ensemble.folder, record=record)
