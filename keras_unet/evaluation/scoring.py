"""The scores of images, alone or together, by the names that a person asks for.

- `pixels`: IoU and Dice of the foreground, each the mean over the images, and the pixel error of
  the ISBI 2012 challenge, with one threshold for all.
- `isbi2012`: the scores of that challenge, over all slices as one stack.
- `ctc`: SEG of the Cell Tracking Challenge, the mean over all reference cells.
- `matching`: AP, F1, PQ and their counts at several thresholds on the IoU of two cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Literal, get_args

import numpy as np

from keras_unet.data.schemes import Kind
from keras_unet.evaluation.comparison import Comparison
from keras_unet.metrics.isbi2012 import isbi2012
from keras_unet.metrics.objects import THRESHOLDS, Matching, matching_of_overlaps, seg_of_overlaps
from keras_unet.metrics.pixels import dice, iou, pixel_error

Metric = Literal["pixels", "isbi2012", "ctc", "matching"]

DEFAULT_METRICS: Mapping[Kind, Sequence[Metric]] = {
    "classes": ("pixels",),
    "instances": ("pixels", "ctc", "matching"),
}
OF_PROBABILITIES = frozenset({"pixels", "isbi2012"})


@dataclass(frozen=True)
class Scores:
    """The scores of an image, or of all together.

    Attributes:
        values: Scores by name, and the threshold on the probabilities of some, `<score>_threshold`;
            nan where undefined.
        matching: Counts and scores of cells, one for each threshold on their IoU.
    """

    values: Mapping[str, float]
    matching: Sequence[Matching] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        rows = {"matching": [row.to_dict() for row in self.matching]} if self.matching else {}
        return {**self.values, **rows}


def chosen_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Returns the metrics of these names, in one order and each once.

    Raises:
        ValueError: If there is no metric of a name.
    """
    unknown = [name for name in names if name not in get_args(Metric)]
    if unknown:
        raise ValueError(
            f"metrics must be of {', '.join(get_args(Metric))}. Received: {', '.join(unknown)}"
        )
    return tuple(metric for metric in get_args(Metric) if metric in names)


def score(images: Sequence[Comparison], metrics: Sequence[Metric]) -> Scores:
    """Scores images together.

    Args:
        images: The images, at least one.
        metrics: What to compute.

    Raises:
        ValueError: If `isbi2012` is asked for and the images are no stack of one size, or not every
            pixel counts.
    """
    values = [compute(images) for metric, compute in _COMPUTED.items() if metric in metrics]
    return Scores(
        {name: value for part in values for name, value in part.items()},
        _matching(images) if "matching" in metrics else (),
    )


def _pixels(images: Sequence[Comparison]) -> dict[str, float]:
    masks = [(one.reference[one.counted] > 0, one.result[one.counted] > 0) for one in images]
    return {
        "iou": _mean([iou(*pair) for pair in masks]),
        "dice": _mean([dice(*pair) for pair in masks]),
        **_pixel_error(images),
    }


def _pixel_error(images: Sequence[Comparison]) -> dict[str, float]:
    scores = np.concatenate([one.scores[one.counted] for one in images])
    labels = np.concatenate([one.reference[one.counted] for one in images])
    if not scores.size:
        return {"pixel_error": nan, "pixel_error_threshold": nan}
    found = pixel_error(labels, scores)
    return {"pixel_error": found.value, "pixel_error_threshold": found.threshold}


def _isbi2012(images: Sequence[Comparison]) -> dict[str, float]:
    _refuse_sizes_that_differ(images)
    _refuse_ignored_pixels(images)
    return isbi2012(
        np.concatenate([one.reference for one in images]),
        np.concatenate([one.scores for one in images]),
    )


def _ctc(images: Sequence[Comparison]) -> dict[str, float]:
    return {"seg": seg_of_overlaps([plane for one in images for plane in one.overlaps])}


def _matching(images: Sequence[Comparison]) -> list[Matching]:
    planes = [plane for one in images for plane in one.overlaps]
    return [matching_of_overlaps(planes, threshold) for threshold in THRESHOLDS]


_COMPUTED: Mapping[Metric, Callable[[Sequence[Comparison]], dict[str, float]]] = {
    "pixels": _pixels,
    "isbi2012": _isbi2012,
    "ctc": _ctc,
}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not isnan(value)]
    return float(np.mean(defined)) if defined else nan


def _refuse_sizes_that_differ(images: Sequence[Comparison]) -> None:
    first = images[0]
    for one in images:
        if one.reference.shape[1:] != first.reference.shape[1:]:
            raise ValueError(
                "isbi2012 scores slices of one size, as one stack. Received "
                f"{_with_size(first)} and {_with_size(one)} pixels; take --metrics "
                "pixels,ctc,matching, or score a folder for each size"
            )


def _with_size(one: Comparison) -> str:
    return f"{one.name} of {one.reference.shape[1]} x {one.reference.shape[2]}"


def _refuse_ignored_pixels(images: Sequence[Comparison]) -> None:
    for one in images:
        if not one.counted.all():
            raise ValueError(
                "isbi2012 counts every pixel. Received labels of "
                f"{one.name} with {np.count_nonzero(~one.counted):,} pixels to ignore; "
                "take --metrics pixels,ctc,matching"
            )
