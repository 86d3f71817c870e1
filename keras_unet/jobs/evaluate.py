"""Score predictions against labels: one row an image, and the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import IMAGE_SUFFIXES, read_planes
from keras_unet.data.labels import Kind, LabelScheme, check_labels, detect_scheme
from keras_unet.files import make_folder, write_json
from keras_unet.metrics import dice, iou, pixel_error, seg

SCORES = ("iou", "dice", "pixel_error", "seg")
_PROBABILITIES = "_probabilities"


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
    """Scores the predictions of a folder against the labels of another, paired by stem.

    All classes but the background count as cell. The pixel error is the ISBI 2012 challenge's,
    1 - max F over thresholds; it reads `<stem>_probabilities.tif` where every prediction has one,
    and the label image elsewhere. SEG is the Cell Tracking Challenge's, on the instances of the
    label image, or on its 4-connected pieces where it holds classes.

    Args:
        predictions: Folder that `predict_files` wrote.
        labels: Folder of label files, or a data folder with `labels/` in it.
        kind: What the label files hold; "auto" finds out.
        ignore: Value in the labels of pixels that are not to count.
        json: File to write the scores to.

    Raises:
        ValueError: If no label has a prediction, or sizes differ.
        OSError: If a folder is missing, or the file cannot be written.
    """
    references = _files(_label_folder(labels))
    results = _files(predictions)
    common = sorted(references.keys() & results.keys())
    if not common:
        raise ValueError(
            f"{predictions}: expected predictions named like the files of {labels}, "
            f"<stem>.tif. Received {', '.join(sorted(results)[:3]) or 'no image file'}"
        )
    truths = {name: check_labels(references[name], read_planes(references[name])) for name in common}
    scheme = detect_scheme([(name, p) for name in common for p in truths[name]], kind=kind, ignore=ignore)
    soft = all(f"{name}{_PROBABILITIES}" in results for name in common)
    pairs = [
        _Pair.read(name, truths[name], results, scheme, soft) for name in common
    ]
    missing = sorted(path.name for name, path in references.items() if name not in results)
    evaluation = _evaluate(pairs, soft, missing)
    if json is not None:
        make_folder(json.parent)
        write_json(json, evaluation.to_dict())
    return evaluation


@dataclass(frozen=True, eq=False)
class _Pair:
    """One file's reference and prediction; the pixels to ignore are background in both."""

    name: str
    reference: NDArray[np.int32]
    result: NDArray[np.int32]
    scores: NDArray[np.float32]
    counted: NDArray[np.bool_]

    @classmethod
    def read(
        cls,
        name: str,
        truth: NDArray[Any],
        results: Mapping[str, Path],
        scheme: LabelScheme,
        soft: bool,
    ) -> _Pair:
        found = check_labels(results[name], read_planes(results[name]))
        if found.shape != truth.shape:
            raise ValueError(
                f"{results[name]}: expected the size of its labels, {truth.shape[1:]} in "
                f"{len(truth)} planes. Received {found.shape[1:]} in {len(found)}"
            )
        counted = ~scheme.ignored(truth)
        reference = np.stack([scheme.to_instances(plane) for plane in truth])
        result = np.stack([_result_instances(plane, scheme) for plane in found]) * counted
        scores = (result > 0).astype(np.float32)
        if soft:
            scores = _foreground(results[f"{name}{_PROBABILITIES}"], truth.shape)
        return cls(name, reference, result, scores, counted)


def _result_instances(plane: NDArray[Any], scheme: LabelScheme) -> NDArray[np.int32]:
    if scheme.kind == "instances":
        return plane.astype(np.int32)
    return scheme.to_instances(np.where(np.isin(plane, scheme.values), plane, scheme.values[0]))


def _foreground(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Reads probabilities and joins all classes but the background."""
    planes = read_planes(path)
    if planes.shape[:3] != shape:
        raise ValueError(
            f"{path}: expected probabilities of {shape[0]} planes of {shape[1:]} pixels. "
            f"Received {planes.shape[0]} of {planes.shape[1:3]}"
        )
    return (1 - planes[..., 0].astype(np.float32)).clip(0, 1)


def _evaluate(pairs: Sequence[_Pair], soft: bool, missing: Sequence[str]) -> Evaluation:
    rows = {pair.name: _row(pair) for pair in pairs}
    pooled = pixel_error(
        np.concatenate([pair.reference[pair.counted] > 0 for pair in pairs])[None],
        np.concatenate([pair.scores[pair.counted] for pair in pairs])[None],
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


def _row(pair: _Pair) -> dict[str, float]:
    reference, result = pair.reference[pair.counted] > 0, pair.result[pair.counted] > 0
    return {
        "iou": iou(reference, result),
        "dice": dice(reference, result),
        "pixel_error": pixel_error(reference[None], pair.scores[pair.counted][None]).value,
        "seg": seg(list(pair.reference), list(pair.result)),
    }


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _label_folder(folder: Path) -> Path:
    inner = [folder / name for name in ("labels", "masks") if (folder / name).is_dir()]
    return inner[0] if inner else folder


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of label images. Received none there")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.stem: path for path in files}
