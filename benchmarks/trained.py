"""Comparison of run folders: readability, and difference of all numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras
from keras_unet.runs import BEST, ENSEMBLE, RECORD, Ensemble, Run, is_ensemble
from keras_unet.training.checkpoint import CHECKPOINT, HISTORY, LAST

OF_THE_CLOCK = {"seconds", "finished"}


def unreadable(folder: Path, whole: Path) -> Iterator[str]:
    """Yields the files that cannot be read, or differ from an uninterrupted training.

    Args:
        folder: A run, or an ensemble, whose training was killed.
        whole: The same from an uninterrupted training.
    """
    for path in sorted(folder.rglob("*")):
        try:
            _read(path, whole / path.relative_to(folder))
        except Exception as error:  # noqa: BLE001 - any error is reported
            yield f"{path.relative_to(folder)}: {type(error).__name__}: {error}"


def _read(path: Path, whole: Path) -> None:
    """Reads a file of a run; other files are skipped.

    Raises:
        ValueError: If it is not of this training.
    """
    if path.name == RECORD:
        Run.load(path.parent)
    elif path.name == ENSEMBLE:
        Ensemble.load(path.parent)
    elif path.name == CHECKPOINT:
        _checkpoint(path)
    elif path.name == HISTORY:
        rows = _history(path)
        if rows != _history(whole)[: len(rows)]:
            raise ValueError("other rows than those of the uninterrupted training")
    elif path.name in {BEST, LAST}:
        keras.saving.load_model(path)
        if not (path.parent / CHECKPOINT).is_file():
            raise ValueError("a model without a checkpoint to resume from")


def distance(one: Path, other: Path) -> float:
    """Returns the largest difference between the numbers of two folders.

    It is infinite if texts or shapes differ.
    """
    first, second = (_contents(folder) for folder in (one, other))
    if first.keys() != second.keys():
        return inf
    return max(_apart(first[name], second[name]) for name in first)


def _apart(one: Any, other: Any) -> float:
    if not isinstance(one, np.ndarray):
        return 0.0 if one == other else inf
    if one.shape != other.shape:
        return inf
    if np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        return 0.0
    return float(np.nan_to_num(np.abs(one.astype(float) - other.astype(float)), nan=inf).max())


def _contents(folder: Path) -> dict[str, Any]:
    """Returns all results of a training by name, without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob(RECORD)):
        run, name = Run.load(path.parent), path.parent.relative_to(folder)
        parts = {
            "rule": run.instances.to_dict(),
            **_without_clock(run.record["outcome"]),
            **_checkpoint(run.folder / CHECKPOINT),
            **_columns(_history(run.folder / HISTORY)),
            **_weights(run.folder / BEST),
            **_weights(run.folder / LAST),
        }
        found |= {f"{name}/{part}": value for part, value in parts.items()}
    rule = Ensemble.load(folder).instances if is_ensemble(folder) else None
    return found | {"rule": rule and rule.to_dict()}


def _history(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as table:
        return [_without_clock(row) for row in csv.DictReader(table)]


def _columns(rows: list[dict[str, str]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def _checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """Reads all numbers of a checkpoint, without times."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    progress = _without_clock(json.loads(str(arrays.pop("progress"))))
    del progress["rows"]  # are the history
    numbers = {name: np.array(value, float) for name, value in progress.items()}
    return {f"checkpoint {name}": value for name, value in {**arrays, **numbers}.items()}


def _weights(path: Path) -> dict[str, NDArray[Any]]:
    weights = keras.saving.load_model(path).get_weights()
    return {f"{path.name} {number}": one for number, one in enumerate(weights)}


def _without_clock(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in OF_THE_CLOCK}
