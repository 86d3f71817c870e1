"""Pairs of label images and predictions in memory, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, track
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import read_image
from keras_unet.data.labels import LabelFile, labels_of_planes, read_labels
from keras_unet.data.object_classes import StatedClasses, class_of_objects, number_classes
from keras_unet.data.stacks import Stack, in_order_of
from keras_unet.evaluation.pairing import FilePair
from keras_unet.metrics.isbi2012 import isbi2012
from keras_unet.metrics.objects import (
    THRESHOLDS,
    Matching,
    Overlaps,
    matching_of_overlaps,
    mean_ap_of_overlaps,
    seg_of_overlaps,
)
from keras_unet.metrics.pixels import (
    ClassScore,
    class_scores,
    confusion_matrix,
    dice,
    iou,
    mean_of_defined,
    pixel_error,
)


@dataclass(frozen=True, eq=False)
class LabelPair:
    """Labels and prediction of an image, in which ignored pixels are background.

    Of images labelled in part, predicted instances are whole, see `Overlaps.of`.

    All arrays are `(planes, height, width)`.

    Attributes:
        name: Name of the image.
        reference: True instances.
        result: Predicted instances.
        scores: Predicted cell probability; without probabilities, 1 at predicted cells and 0
            elsewhere.
        counted: Pixels that are neither ignored nor unlabelled.
        classes: Label values of the classes, if labels and prediction hold more than two; else
            empty.
        confusion: Counted pixels of each true class by predicted class,
            `(planes, classes, classes)`; None without classes.
        in_part: Whether the image is labelled in part.
        class_names: Names of the classes of objects in all images, if labels and prediction state
            them; else empty.
        reference_classes: Class of each true object of each plane; empty without `class_names`.
        result_classes: Class of each predicted object of each plane; empty without `class_names`.
    """

    name: str
    reference: NDArray[np.int32]
    result: NDArray[np.int32]
    scores: NDArray[np.float32]
    counted: NDArray[np.bool_]
    classes: Sequence[int] = ()
    confusion: NDArray[np.int64] | None = None
    in_part: bool = False
    class_names: Sequence[str] = ()
    reference_classes: Sequence[Mapping[int, str]] = ()
    result_classes: Sequence[Mapping[int, str]] = ()

    @cached_property
    def overlaps(self) -> list[Overlaps]:
        """Overlaps of the instances of each plane."""
        return list(map(Overlaps.of, self.reference, self.result, self._labelled))

    @property
    def _labelled(self) -> list[NDArray[np.bool_] | None]:
        return list(self.counted) if self.in_part else [None] * len(self.counted)

    def overlaps_of_class(self, name: str) -> list[Overlaps]:
        """Returns the overlaps of the instances of a class, of each plane."""
        references, results = (
            [_only(*pair, name) for pair in zip(planes, classes, strict=True)]
            for planes, classes in (
                (self.reference, self.reference_classes),
                (self.result, self.result_classes),
            )
        )
        return list(map(Overlaps.of, references, results, self._labelled))


def compare(
    pairs: Sequence[FilePair],
    truths: Sequence[LabelFile],
    encoding: LabelEncoding,
    *,
    with_probabilities: bool,
    with_classes: bool = False,
) -> list[LabelPair]:
    """Reads the predictions of label files, and converts both to instances.

    Predictions hold classes if all their values are classes of the labels, or if there is a single
    value besides 0; otherwise they hold instances, as they do if their objects have classes.

    Args:
        pairs: The files.
        truths: Contents of the label files.
        encoding: Encoding of the label files.
        with_probabilities: Whether to read the probabilities, which every prediction must have.
        with_classes: Whether to compare the classes of objects, if predictions state them.

    Raises:
        ValueError: If a prediction has another size than its labels, the order of its planes is
            unclear, it holds no labels, or an object has no class or several.
    """
    files = [
        _read_result(pair, truth)
        for pair, truth in zip(track(pairs, "reading predictions"), truths, strict=True)
    ]
    has_classes = with_classes and any(file.classes for file in files)
    results = [file.labels for file in files]
    result_encoding = (
        LabelEncoding("instances", (0, 1))
        if has_classes
        else _detect_result_encoding(results, encoding)
    )
    images = [
        _label_pair(pair, truth, result, (encoding, result_encoding), with_probabilities)
        for pair, truth, result in zip(pairs, truths, results, strict=True)
    ]
    references = [
        _classes_of(pair.reference.labels, truth, encoding.others, complete=with_classes)
        for pair, truth in zip(pairs, truths, strict=True)
    ]
    predicted = [
        _classes_of(pair.result, file, (0,), complete=has_classes)
        for pair, file in zip(pairs, files, strict=True)
    ]
    return _with_classes(images, references, predicted) if has_classes else images


def _with_classes(
    images: Sequence[LabelPair],
    references: Sequence[Sequence[Mapping[int, str]]],
    predicted: Sequence[Sequence[Mapping[int, str]]],
) -> list[LabelPair]:
    """Adds the classes of the objects."""
    named = [*chain(*references), *chain(*predicted)]
    names = tuple(number_classes({name for plane in named for name in plane.values()}))
    return [
        replace(image, class_names=names, reference_classes=reference, result_classes=result)
        for image, reference, result in zip(images, references, predicted, strict=True)
    ]


def _classes_of(
    path: Path, file: LabelFile, others: Collection[int], *, complete: bool
) -> list[dict[int, str]]:
    """Returns the class of each object of each plane, after checks, see `class_of_objects`."""
    if not file.classes and not complete:
        return []
    stated: Sequence[StatedClasses] = file.classes or [{}] * len(file.labels)
    places = [f"{path}, plane {plane}" for plane in range(1, len(stated) + 1)]
    places = places if len(stated) > 1 else [f"{path}"]
    return [
        class_of_objects(place, labels, classes, others, complete=complete)
        for place, labels, classes in zip(places, file.labels, stated, strict=True)
    ]


def _only(labels: NDArray[np.int32], classes: Mapping[int, str], name: str) -> NDArray[np.int32]:
    """Returns a label image with the objects of a class alone."""
    numbers = [number for number, of_object in classes.items() if of_object == name]
    return np.where(np.isin(labels, numbers), labels, 0).astype(np.int32)


def _label_pair(
    pair: FilePair,
    truth: LabelFile,
    result_labels: NDArray[np.int32],
    encodings: tuple[LabelEncoding, LabelEncoding],
    with_probabilities: bool,
) -> LabelPair:
    encoding, result_encoding = encodings
    counted, in_part = ~encoding.ignored(truth.labels), encoding.unlabelled is not None
    result = _instances(result_labels, result_encoding)
    if not in_part:
        result *= counted
    scores = (result > 0).astype(np.float32)
    if with_probabilities and pair.probabilities is not None:
        scores = _read_foreground(pair, pair.probabilities, truth)
    values = encoding.values if _have_same_classes(*encodings) else ()
    return LabelPair(
        pair.reference.name,
        _instances(truth.labels, encoding),
        result,
        scores,
        counted,
        values,
        _confusion(encoding, truth.labels, result_labels, counted) if values else None,
        in_part,
    )


def _have_same_classes(encoding: LabelEncoding, result_encoding: LabelEncoding) -> bool:
    """Tells whether both hold the same classes, more than two; two are scored as masks."""
    return (
        encoding.kind == result_encoding.kind == "classes"
        and encoding.values == result_encoding.values
        and encoding.classes > 2
    )


def _confusion(
    encoding: LabelEncoding,
    truth: NDArray[np.int32],
    result: NDArray[np.int32],
    counted: NDArray[np.bool_],
) -> NDArray[np.int64]:
    pairs = zip(encoding.to_classes(truth), encoding.to_classes(result), counted, strict=True)
    return np.stack(
        [confusion_matrix(left[mask], right[mask], encoding.classes) for left, right, mask in pairs]
    )


def _read_result(pair: FilePair, truth: LabelFile) -> LabelFile:
    """Reads the planes of a prediction that are labeled, in the order of the labels."""
    file = read_labels(pair.result)
    if truth.classes and pair.reference.plane is None:
        file = labels_of_planes(file, len(truth.labels))
    source = pair.result, file.stack
    labels = _labeled_planes(pair, source, file.labels, truth)
    if not file.classes:
        return replace(file, labels=labels)
    numbers = np.arange(len(file.labels), dtype=np.int32)[:, None, None] + 0 * file.labels
    order = _labeled_planes(pair, source, numbers, truth)[:, 0, 0].tolist()
    return replace(file, labels=labels, classes=tuple(file.classes[number] for number in order))


def _read_foreground(pair: FilePair, path: Path, truth: LabelFile) -> NDArray[np.float32]:
    """Reads the probabilities of all classes except the background, summed."""
    image = read_image(path)
    planes = _labeled_planes(pair, (path, image.stack), image.planes, truth)
    return (1 - planes[..., 0].astype(np.float32)).clip(0, 1)


def _labeled_planes(
    pair: FilePair, file: tuple[Path, Stack], planes: NDArray[Any], truth: LabelFile
) -> NDArray[Any]:
    """Returns the planes of a file that are labeled, in the order of the labels."""
    plane = pair.reference.plane
    selected = planes if plane is None or len(planes) == 1 else planes[plane : plane + 1]
    if selected.shape[:3] != truth.labels.shape:
        raise ValueError(
            f"{file[0]}: expected the size of {pair.reference.labels}, {_size(truth.labels)}. "
            f"Received {_size(planes)}; predict the image that was labeled"
        )
    if plane is not None:
        return selected
    return in_order_of((pair.reference.labels, truth.stack), file, planes, "planes")


def _detect_result_encoding(
    results: Sequence[NDArray[np.int32]], encoding: LabelEncoding
) -> LabelEncoding:
    values = set().union(*(np.unique(result).tolist() for result in results))
    if encoding.kind == "classes" and values <= set(encoding.values):
        return LabelEncoding("classes", encoding.values)
    cells = sorted(values - {0})
    if len(cells) == 1:
        return LabelEncoding("classes", (0, cells[0]))
    return LabelEncoding("instances", (0, 1))


def _instances(planes: NDArray[np.int32], encoding: LabelEncoding) -> NDArray[np.int32]:
    return np.stack([encoding.to_instances(plane) for plane in planes])


def _size(planes: NDArray[Any]) -> str:
    return f"{counted(len(planes), 'plane')} of {planes.shape[1]} x {planes.shape[2]} pixels"


Metric = Literal["pixels", "isbi2012", "ctc", "matching"]

DEFAULT_METRICS: Mapping[Kind, Sequence[Metric]] = {
    "classes": ("pixels",),
    "instances": ("pixels", "ctc", "matching"),
}
PROBABILITY_METRICS = frozenset({"pixels", "isbi2012"})


@dataclass(frozen=True)
class Scores:
    """Scores of an image, or of all images together.

    Attributes:
        values: Scores by name; nan if undefined. `<score>_threshold` is the threshold of the
            probabilities of a score.
        matching: Counts and scores of matched cells, for each threshold of the IoU.
        classes: Scores of each class, if there are more than two.
        matching_of_class: Counts and scores of cells that are matched within their class, for each
            threshold, by the name of the class; empty if cells have no classes.
    """

    values: Mapping[str, float]
    matching: Sequence[Matching] = ()
    classes: Sequence[ClassScore] = ()
    matching_of_class: Mapping[str, Sequence[Matching]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        rows = {"matching": [row.to_dict() for row in self.matching]} if self.matching else {}
        classes = {"classes": [asdict(score) for score in self.classes]} if self.classes else {}
        by_class = {
            name: [row.to_dict() for row in matching]
            for name, matching in self.matching_of_class.items()
        }
        return {
            **self.values,
            **rows,
            **classes,
            **({"matching_of_class": by_class} if by_class else {}),
        }


def parse_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Returns metrics by their names, sorted and without repetition.

    Raises:
        ValueError: If a name is unknown.
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
        metrics: Metrics to compute.

    Raises:
        ValueError: If `isbi2012` is among the metrics, and the images differ in size or have
            ignored pixels.
    """
    results = [compute(images) for metric, compute in _FUNCTIONS.items() if metric in metrics]
    return Scores(
        {name: value for values in results for name, value in values.items()},
        _matching(images) if "matching" in metrics else (),
        _class_scores(images) if "pixels" in metrics else (),
        _matching_of_class(images) if "matching" in metrics else {},
    )


def _pixels(images: Sequence[LabelPair]) -> dict[str, float]:
    masks = [
        (image.reference[image.counted] > 0, image.result[image.counted] > 0) for image in images
    ]
    return {
        "iou": mean_of_defined([iou(truth, result) for truth, result in masks]),
        "dice": mean_of_defined([dice(truth, result) for truth, result in masks]),
        **_pixel_error(images),
        **_class_means(_class_scores(images)),
    }


def _class_scores(images: Sequence[LabelPair]) -> list[ClassScore]:
    """Scores each class over the pixels of all images; empty if there are no more than two."""
    counts = [image.confusion for image in images if image.confusion is not None]
    return class_scores(np.concatenate(counts).sum(axis=0), images[0].classes) if counts else []


def _class_means(scores: Sequence[ClassScore]) -> dict[str, float]:
    return {
        f"mean_{name}": mean_of_defined([getattr(score, name) for score in scores])
        for name in ("iou", "dice")
        if scores
    }


def _pixel_error(images: Sequence[LabelPair]) -> dict[str, float]:
    scores = np.concatenate([image.scores[image.counted] for image in images])
    labels = np.concatenate([image.reference[image.counted] for image in images])
    if not scores.size:
        return {"pixel_error": nan, "pixel_error_threshold": nan}
    error = pixel_error(labels, scores)
    return {"pixel_error": error.value, "pixel_error_threshold": error.threshold}


def _isbi2012(images: Sequence[LabelPair]) -> dict[str, float]:
    _check_equal_sizes(images)
    _check_no_ignored_pixels(images)
    return isbi2012(
        np.concatenate([image.reference for image in images]),
        np.concatenate([image.scores for image in images]),
    )


def _ctc(images: Sequence[LabelPair]) -> dict[str, float]:
    return {"seg": seg_of_overlaps(_overlaps(images))}


def _matching(images: Sequence[LabelPair]) -> list[Matching]:
    return [matching_of_overlaps(_overlaps(images), threshold) for threshold in THRESHOLDS]


def _matching_of_class(images: Sequence[LabelPair]) -> dict[str, list[Matching]]:
    """Matches the cells of each class alone."""
    found = {}
    for name in images[0].class_names:
        overlaps = [plane for image in images for plane in image.overlaps_of_class(name)]
        found[name] = [matching_of_overlaps(overlaps, threshold) for threshold in THRESHOLDS]
    return found


def _mean_ap(images: Sequence[LabelPair]) -> dict[str, float]:
    return {"ap_mean": mean_ap_of_overlaps(_overlaps(images))}


def _overlaps(images: Sequence[LabelPair]) -> list[Overlaps]:
    return [plane for image in images for plane in image.overlaps]


_FUNCTIONS: Mapping[Metric, Callable[[Sequence[LabelPair]], dict[str, float]]] = {
    "pixels": _pixels,
    "isbi2012": _isbi2012,
    "ctc": _ctc,
    "matching": _mean_ap,
}


def _check_equal_sizes(images: Sequence[LabelPair]) -> None:
    first = images[0]
    for image in images:
        if image.reference.shape[1:] != first.reference.shape[1:]:
            raise ValueError(
                "isbi2012 scores slices of one size, as one stack. Received "
                f"{_with_size(first)} and {_with_size(image)} pixels; use --metrics "
                "pixels,ctc,matching, or score images of each size separately"
            )


def _with_size(image: LabelPair) -> str:
    return f"{image.name} of {image.reference.shape[1]} x {image.reference.shape[2]}"


def _check_no_ignored_pixels(images: Sequence[LabelPair]) -> None:
    for image in images:
        if not image.counted.all():
            pixels = "unlabelled pixels" if image.in_part else "pixels to ignore"
            raise ValueError(
                "isbi2012 counts every pixel. Received labels of "
                f"{image.name} with {np.count_nonzero(~image.counted):,} {pixels}; "
                "use --metrics pixels,ctc,matching"
            )
