"""Score predictions against labels: one row an image, and the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import read_planes
from keras_unet.data.labels import check_labels, detect_scheme
from keras_unet.data.schemes import Kind, LabelScheme
from keras_unet.data.wording import counted
from keras_unet.files import make_folder, write_json
from keras_unet.jobs.folders import check_writable
from keras_unet.jobs.pairing import Scored, find_references, pair
from keras_unet.metrics import dice, iou, pixel_error, seg


@dataclass(frozen=True)
class Evaluation:
    """The scores of a folder of predictions.

    Attributes:
        rows: Scores by image and name; nan where undefined.
        overall: Over all images together: IoU and Dice as means over the images, the pixel error
            with one threshold for all, SEG as the mean over all reference cells.
        threshold: Probability above which a pixel counts as cell in the overall pixel error.
        from_probabilities: Whether the pixel error was computed from probabilities.
        missing: Label files without a prediction.
    """

    rows: Mapping[str, Mapping[str, float]]
    overall: Mapping[str, float]
    threshold: float
    from_probabilities: bool
    missing: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {
            "images": {name: dict(row) for name, row in self.rows.items()},
            "overall": dict(self.overall),
            "pixel_error_threshold": self.threshold,
            "pixel_error_from_probabilities": self.from_probabilities,
            "missing": list(self.missing),
        }


def evaluate_folders(
    predictions: Path,
    labels: Path,
    *,
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    json: Path | None = None,
) -> Evaluation:
    """Scores the predictions of a folder against the labels of another, paired by name.

    All classes but the background count as cell. The pixel error is the ISBI 2012 challenge's,
    1 - max F over thresholds; it reads `<stem>_probabilities.tif` where every prediction has one,
    and the label image elsewhere. SEG is the Cell Tracking Challenge's, on the instances of the
    label image, or on its 4-connected pieces where it holds classes.

    Predictions hold classes where they have no other values than the labels' classes, or a single
    one besides 0; else instances.

    Args:
        predictions: Folder that `predict_files` wrote.
        labels: Folder of label files, a data folder with `labels/` in it, or one of the Cell
            Tracking Challenge, `01_GT/SEG` or above.
        kind: What the label files hold; "auto" finds out.
        ignore: Value in the labels of pixels that are not to count.
        json: File to write the scores to.

    Raises:
        ValueError: If no label has a prediction, or sizes differ.
        OSError: If a folder is missing, or the file cannot be written.
    """
    references = find_references(labels)
    pairs = pair(references, predictions)
    if json is not None:
        check_writable(json.parent)
    truths = [_labels(one.reference.labels) for one in pairs]
    named = zip(pairs, truths, strict=True)
    planes = [(str(one.reference.labels), plane) for one, truth in named for plane in truth]
    scheme = detect_scheme(planes, kind=kind, ignore=ignore)
    soft = all(one.probabilities for one in pairs)
    scored = {one.reference for one in pairs}
    missing = [one.labels.name for one in references if one not in scored]
    evaluation = _evaluate(_compare(pairs, truths, scheme, soft), soft, missing)
    if json is not None:
        make_folder(json.parent)
        write_json(json, evaluation.to_dict())
    return evaluation


@dataclass(frozen=True, eq=False)
class _Comparison:
    """An image's reference and prediction; ignored pixels are background in both.

    All arrays are `(planes, height, width)`: instances of both, probability of cell, and which
    pixels count.
    """

    name: str
    reference: NDArray[np.int32]
    result: NDArray[np.int32]
    scores: NDArray[np.float32]
    counted: NDArray[np.bool_]

    def row(self) -> dict[str, float]:
        """Computes the scores of the image."""
        reference, result = self.reference[self.counted] > 0, self.result[self.counted] > 0
        is_defined = bool(self.counted.any())
        return {
            "iou": iou(reference, result),
            "dice": dice(reference, result),
            "pixel_error": pixel_error(reference, self.scores[self.counted]).value
            if is_defined
            else nan,
            "seg": seg(list(self.reference), list(self.result)),
        }


def _labels(path: Path) -> NDArray[np.int32]:
    return check_labels(path, read_planes(path))


def _compare(
    pairs: Sequence[Scored], truths: Sequence[NDArray[np.int32]], scheme: LabelScheme, soft: bool
) -> list[_Comparison]:
    results = [
        _plane_of(one, one.result, _labels(one.result), truth)
        for one, truth in zip(pairs, truths, strict=True)
    ]
    reading = _reading(results, scheme)
    return [
        _comparison(one, truth, _instances(result, reading), scheme, soft)
        for one, truth, result in zip(pairs, truths, results, strict=True)
    ]


def _plane_of(
    one: Scored, path: Path, planes: NDArray[Any], truth: NDArray[np.int32]
) -> NDArray[Any]:
    """Picks the plane of a file that the labels belong to, and makes sure that sizes agree."""
    plane = one.reference.plane
    picked = planes if plane is None or len(planes) == 1 else planes[plane : plane + 1]
    if picked.shape[:3] != truth.shape:
        raise ValueError(
            f"{path}: expected the size of {one.reference.labels}, {_size(truth)}. "
            f"Received {_size(planes)}; predict the image that was labelled"
        )
    return picked


def _comparison(
    one: Scored,
    truth: NDArray[np.int32],
    found: NDArray[np.int32],
    scheme: LabelScheme,
    soft: bool,
) -> _Comparison:
    counted = ~scheme.ignored(truth)
    scores = (found > 0).astype(np.float32)
    if soft and one.probabilities is not None:
        scores = _foreground(one, truth)
    reference = np.stack([scheme.to_instances(plane) for plane in truth])
    return _Comparison(one.reference.name, reference, found * counted, scores, counted)


def _foreground(one: Scored, truth: NDArray[np.int32]) -> NDArray[np.float32]:
    """Reads probabilities and joins all classes but the background."""
    path = one.probabilities or one.result
    planes = _plane_of(one, path, read_planes(path), truth)
    return (1 - planes[..., 0].astype(np.float32)).clip(0, 1)


def _reading(results: Sequence[NDArray[np.int32]], scheme: LabelScheme) -> LabelScheme:
    """Finds out what the numbers in the predictions mean."""
    values = set().union(*(np.unique(result).tolist() for result in results))
    if scheme.kind == "classes" and values <= set(scheme.values):
        return LabelScheme("classes", scheme.values)
    cells = sorted(values - {0})
    if len(cells) == 1:
        return LabelScheme("classes", (0, cells[0]))
    return LabelScheme("instances", (0, 1))


def _instances(planes: NDArray[np.int32], reading: LabelScheme) -> NDArray[np.int32]:
    return np.stack([reading.to_instances(plane) for plane in planes])


def _evaluate(pairs: Sequence[_Comparison], soft: bool, missing: Sequence[str]) -> Evaluation:
    rows = {pair.name: pair.row() for pair in pairs}
    pooled = pixel_error(
        np.concatenate([pair.reference[pair.counted] > 0 for pair in pairs]),
        np.concatenate([pair.scores[pair.counted] for pair in pairs]),
    )
    overall = {
        "iou": _mean([row["iou"] for row in rows.values()]),
        "dice": _mean([row["dice"] for row in rows.values()]),
        "pixel_error": pooled.value,
        "seg": seg(
            [plane for pair in pairs for plane in pair.reference],
            [plane for pair in pairs for plane in pair.result],
        ),
    }
    return Evaluation(rows, overall, pooled.threshold, soft, missing)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not isnan(value)]
    return float(np.mean(defined)) if defined else nan


def _size(planes: NDArray[Any]) -> str:
    return f"{counted(len(planes), 'plane')} of {planes.shape[1]} x {planes.shape[2]} pixels"
