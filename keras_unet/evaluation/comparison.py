"""Predictions beside their labels, of one size and with the same numbers, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, track
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import read_image
from keras_unet.data.labels import LabelFile, read_labels
from keras_unet.data.stacks import Stack, in_order_of
from keras_unet.evaluation.pairing import FilePair
from keras_unet.metrics.isbi2012 import isbi2012
from keras_unet.metrics.objects import (
    THRESHOLDS,
    Matching,
    Overlaps,
    matching_of_overlaps,
    overlaps_of_images,
    seg_of_overlaps,
)
from keras_unet.metrics.pixels import dice, iou, pixel_error


@dataclass(frozen=True, eq=False)
class LabelPair:
    """An image's reference and prediction; ignored pixels are background in both.

    All arrays are `(planes, height, width)`.

    Attributes:
        name: Name of the image.
        reference: Instances held to be true.
        result: Instances predicted.
        scores: Probability of cell; 0 and 1 by the label image where there is none to read.
        counted: Which pixels count.
    """

    name: str
    reference: NDArray[np.int32]
    result: NDArray[np.int32]
    scores: NDArray[np.float32]
    counted: NDArray[np.bool_]

    @cached_property
    def overlaps(self) -> list[Overlaps]:
        """Overlaps of the instances, one a plane."""
        return overlaps_of_images(list(self.reference), list(self.result))


def compare(
    pairs: Sequence[FilePair],
    truths: Sequence[LabelFile],
    encoding: LabelEncoding,
    *,
    with_probabilities: bool,
) -> list[LabelPair]:
    """Reads the predictions of label files and puts both into the same terms.

    Predictions hold classes where they have no other values than the labels' classes, or a single
    one besides 0; else instances.

    Args:
        pairs: The files.
        truths: What the label files hold.
        encoding: What the numbers in them mean.
        with_probabilities: Whether to read the probabilities, which every prediction has.

    Raises:
        ValueError: If a prediction has another size than its labels, or axes that do not say which
            planes belong together, or holds no labels.
    """
    results = [
        _result(one, truth)
        for one, truth in zip(track(pairs, "reading predictions"), truths, strict=True)
    ]
    reading = _reading(results, encoding)
    return [
        _comparison(one, truth, _instances(result, reading), encoding, with_probabilities)
        for one, truth, result in zip(pairs, truths, results, strict=True)
    ]


def _comparison(
    one: FilePair,
    truth: LabelFile,
    found: NDArray[np.int32],
    encoding: LabelEncoding,
    with_probabilities: bool,
) -> LabelPair:
    counted = ~encoding.ignored(truth.labels)
    scores = (found > 0).astype(np.float32)
    if with_probabilities and one.probabilities is not None:
        scores = _foreground(one, one.probabilities, truth)
    return LabelPair(
        one.reference.name, _instances(truth.labels, encoding), found * counted, scores, counted
    )


def _result(one: FilePair, truth: LabelFile) -> NDArray[np.int32]:
    file = read_labels(one.result)
    return _planes_of(one, (one.result, file.stack), file.labels, truth)


def _foreground(one: FilePair, path: Path, truth: LabelFile) -> NDArray[np.float32]:
    """Reads probabilities and joins all classes but the background."""
    image = read_image(path)
    planes = _planes_of(one, (path, image.stack), image.planes, truth)
    return (1 - planes[..., 0].astype(np.float32)).clip(0, 1)


def _planes_of(
    one: FilePair, file: tuple[Path, Stack], planes: NDArray[Any], truth: LabelFile
) -> NDArray[Any]:
    """Picks the planes of a file that the labels belong to, in their order and of their size."""
    plane = one.reference.plane
    picked = planes if plane is None or len(planes) == 1 else planes[plane : plane + 1]
    if picked.shape[:3] != truth.labels.shape:
        raise ValueError(
            f"{file[0]}: expected the size of {one.reference.labels}, {_size(truth.labels)}. "
            f"Received {_size(planes)}; predict the image that was labelled"
        )
    if plane is not None:
        return picked
    return in_order_of((one.reference.labels, truth.stack), file, planes, "planes")


def _reading(results: Sequence[NDArray[np.int32]], encoding: LabelEncoding) -> LabelEncoding:
    """Finds out what the numbers in the predictions mean."""
    values = set().union(*(np.unique(result).tolist() for result in results))
    if encoding.kind == "classes" and values <= set(encoding.values):
        return LabelEncoding("classes", encoding.values)
    cells = sorted(values - {0})
    if len(cells) == 1:
        return LabelEncoding("classes", (0, cells[0]))
    return LabelEncoding("instances", (0, 1))


def _instances(planes: NDArray[np.int32], reading: LabelEncoding) -> NDArray[np.int32]:
    return np.stack([reading.to_instances(plane) for plane in planes])


def _size(planes: NDArray[Any]) -> str:
    return f"{counted(len(planes), 'plane')} of {planes.shape[1]} x {planes.shape[2]} pixels"


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


def score(images: Sequence[LabelPair], metrics: Sequence[Metric]) -> Scores:
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


def _pixels(images: Sequence[LabelPair]) -> dict[str, float]:
    masks = [(one.reference[one.counted] > 0, one.result[one.counted] > 0) for one in images]
    return {
        "iou": _mean([iou(*pair) for pair in masks]),
        "dice": _mean([dice(*pair) for pair in masks]),
        **_pixel_error(images),
    }


def _pixel_error(images: Sequence[LabelPair]) -> dict[str, float]:
    scores = np.concatenate([one.scores[one.counted] for one in images])
    labels = np.concatenate([one.reference[one.counted] for one in images])
    if not scores.size:
        return {"pixel_error": nan, "pixel_error_threshold": nan}
    found = pixel_error(labels, scores)
    return {"pixel_error": found.value, "pixel_error_threshold": found.threshold}


def _isbi2012(images: Sequence[LabelPair]) -> dict[str, float]:
    _refuse_sizes_that_differ(images)
    _refuse_ignored_pixels(images)
    return isbi2012(
        np.concatenate([one.reference for one in images]),
        np.concatenate([one.scores for one in images]),
    )


def _ctc(images: Sequence[LabelPair]) -> dict[str, float]:
    return {"seg": seg_of_overlaps([plane for one in images for plane in one.overlaps])}


def _matching(images: Sequence[LabelPair]) -> list[Matching]:
    planes = [plane for one in images for plane in one.overlaps]
    return [matching_of_overlaps(planes, threshold) for threshold in THRESHOLDS]


_COMPUTED: Mapping[Metric, Callable[[Sequence[LabelPair]], dict[str, float]]] = {
    "pixels": _pixels,
    "isbi2012": _isbi2012,
    "ctc": _ctc,
}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not isnan(value)]
    return float(np.mean(defined)) if defined else nan


def _refuse_sizes_that_differ(images: Sequence[LabelPair]) -> None:
    first = images[0]
    for one in images:
        if one.reference.shape[1:] != first.reference.shape[1:]:
            raise ValueError(
                "isbi2012 scores slices of one size, as one stack. Received "
                f"{_with_size(first)} and {_with_size(one)} pixels; take --metrics "
                "pixels,ctc,matching, or score a folder for each size"
            )


def _with_size(one: LabelPair) -> str:
    return f"{one.name} of {one.reference.shape[1]} x {one.reference.shape[2]}"


def _refuse_ignored_pixels(images: Sequence[LabelPair]) -> None:
    for one in images:
        if not one.counted.all():
            raise ValueError(
                "isbi2012 counts every pixel. Received labels of "
                f"{one.name} with {np.count_nonzero(~one.counted):,} pixels to ignore; "
                "take --metrics pixels,ctc,matching"
            )
