"""Loads a trained model from a run, an ensemble, a .tflite file or a model server."""

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
from keras_unet.runs import Ensemble, ModelInfo, Run, is_ensemble, locate, runs_of, weights_of

TFLITE = ".tflite"


def load(model: PathLike, *, precision: str | None = None, timeout: float = TIMEOUT) -> Segmenter:
    """Loads a trained model.

    Only its records are read; the networks and their weights are loaded on first use.

    Args:
        model: Folder of a run or of an ensemble; a .tflite file that `export_model` wrote; the name
            of a model of the package, such as "nuclei", see `keras-unet models`; or the address of
            a model server, `grpc://HOST:PORT/MODEL` or `http://HOST:PORT/v1/models/MODEL`, after
            MODEL optionally @VERSION or @LABEL.
        precision: Precision to predict in, "auto", "float32", "bfloat16" or "float16"; None for
            that of the training. Fixed for a .tflite file and a server.
        timeout: Time in seconds to wait for each response of a server.

    Returns:
        The segmenter.

    Raises:
        FileNotFoundError: If there is no such model, training has not written one yet, or the
            training of a fold has not finished.
        ValueError: If a record cannot be read, or a precision is given for a .tflite file or a
            server.
        OSError: If a server cannot be reached.

    Example:
        segmenter = keras_unet.load("RUN")
        labels = segmenter.segment(image)
    """
    if isinstance(model, str) and "://" in model:
        _refuse_precision(precision, model)
        return connect(model, timeout)
    path = locate(model)
    if path.suffix == TFLITE:
        _refuse_precision(precision, path)
        network = load_tflite(path)
        load_member = partial(_return_network, network)
        return Segmenter(network.info, (Member(network.info, load_member, path),))
    if is_ensemble(path):
        return _load_ensemble(path, precision)
    run = Run.load(path)
    return Segmenter(run, (_member(run, precision),))


def _load_ensemble(folder: Path, precision: str | None) -> Segmenter:
    ensemble = Ensemble.load(folder)
    runs = runs_of(ensemble)
    return Segmenter(_shared_info(ensemble, runs), tuple(_member(run, precision) for run in runs))


def _member(run: Run, precision: str | None) -> Member:
    return Member(run, partial(_load_network, run), weights_of(run), precision)


def _load_network(run: Run, precision: str | None) -> Any:
    from keras_unet.prediction.networks import load_network

    return load_network(run, precision)


def _return_network(network: Any, precision: str | None) -> Any:
    _refuse_precision(precision, network.info.name)
    return network


def _refuse_precision(precision: str | None, model: PathLike) -> None:
    if precision is not None:
        raise ValueError(
            f"precision is that of {model}, chosen when it was exported. "
            f"Received: {precision!r}; leave it out"
        )


def _shared_info(ensemble: Ensemble, runs: Sequence[Run]) -> ModelInfo:
    """Returns the metadata of an ensemble, with normalization and precision of the first fold."""
    records = [run.record.get("data", {}) for run in runs]
    training = sorted({name for data in records for name in data.get("training", ())})
    folder = records[-1].get("folder", "")  # of the images when the last fold was trained
    record = {"options": dict(ensemble.options), "data": {"folder": folder, "training": training}}
    return replace(runs[0], folder=ensemble.folder, record=record)
