"""Scores that count pixels: IoU and Dice of masks and of classes, pixel error of ISBI 2012."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.0, *accumulate([0.1] * 10))
"""Thresholds on the cell probability: 0, 0.1, ... 1.

They are sums of 0.1 in double precision, as in the challenge's program. The last is slightly below
1, and a probability of 1 exceeds it.
"""


@dataclass(frozen=True)
class Best:
    """Score at its best threshold.

    Attributes:
        value: Score; nan if undefined.
        threshold: Smallest threshold on the probabilities with this score; nan if undefined.
    """

    value: float
    threshold: float


def lowest(errors: NDArray[np.float64]) -> Best:
    """Returns the lowest of the errors at `THRESHOLDS`.

    Example:
        >>> lowest(np.array([0.4, 0.2, 0.2]))
        Best(value=0.2, threshold=0.1)
    """
    return _at(errors, int(errors.argmin()))


def highest(scores: NDArray[np.float64]) -> Best:
    """Returns the highest of the scores at `THRESHOLDS`."""
    return _at(scores, int(scores.argmax()))


def above(scores: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Returns a mask of the scores (single precision) above a threshold (double precision)."""
    return scores > np.float64(threshold)


def check_probabilities(labels: NDArray[Any], scores: NDArray[Any], name: str) -> None:
    """Checks that scores are probabilities of the pixels of labels.

    Args:
        labels: Labels of any shape.
        scores: Scores to check.
        name: Name of the scores in the message.

    Raises:
        ValueError: If the shapes differ, there is no pixel, or a score is outside [0, 1].
    """
    check_shapes("labels", labels, name, scores)
    if scores.size == 0:
        raise ValueError(
            f"{name} must hold at least one pixel. Received shape {scores.shape}; "
            "pass (height, width) or (slices, height, width)."
        )
    if not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(
            f"{name} must be finite and in [0, 1], as probabilities are. "
            f"Received {scores.min()} ... {scores.max()}; apply softmax to logits first."
        )


def check_shapes(first: str, left: NDArray[Any], second: str, right: NDArray[Any]) -> None:
    """Checks that two arrays have one shape.

    Args:
        first: Name of the first array in the message.
        left: First array.
        second: Name of the second array in the message.
        right: Second array.

    Raises:
        ValueError: If the shapes differ.
    """
    if left.shape != right.shape:
        raise ValueError(
            f"{first} and {second} must have one shape. Received {left.shape} and {right.shape}; "
            "crop them to the same pixels."
        )


def _at(values: NDArray[np.float64], index: int) -> Best:
    value = float(values[index])
    return Best(value, math.nan if math.isnan(value) else index / 10)


def iou(reference: NDArray[np.bool_], result: NDArray[np.bool_]) -> float:
    """Computes the intersection over union (Jaccard index) of two masks.

    Args:
        reference: Reference mask of any shape.
        result: Mask to score, of the same shape.

    Returns:
        The score, 0 to 1 (best); nan, undefined, if both masks are empty.

    Raises:
        ValueError: If the shapes differ or a mask is not boolean.

    Example:
        >>> iou(np.array([True, True, False]), np.array([False, True, True])) == 1 / 3
        True
    """
    _check_masks(reference, result)
    return _ratio(np.count_nonzero(reference & result), np.count_nonzero(reference | result))


def dice(reference: NDArray[np.bool_], result: NDArray[np.bool_]) -> float:
    """Computes the Dice coefficient of two masks: twice the common pixels by the sum of both sizes.

    Args:
        reference: Reference mask of any shape.
        result: Mask to score, of the same shape.

    Returns:
        The score, 0 to 1 (best); nan, undefined, if both masks are empty.

    Raises:
        ValueError: If the shapes differ or a mask is not boolean.

    Example:
        >>> dice(np.array([True, True, False]), np.array([False, True, True]))
        0.5
    """
    _check_masks(reference, result)
    common = np.count_nonzero(reference & result)
    return _ratio(2 * common, np.count_nonzero(reference) + np.count_nonzero(result))


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, over all pixels of all images together.

    Attributes:
        label: Label value of the class.
        iou: Intersection over union; nan, undefined, if the class is in neither labels nor result.
        dice: Dice coefficient; nan as `iou`.
    """

    label: int
    iou: float
    dice: float


def confusion_matrix(
    reference: NDArray[np.integer], result: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """Counts the pixels of each pair of classes.

    Args:
        reference: True classes, 0 to `classes` - 1, of any shape.
        result: Predicted classes, of the same shape.
        classes: Number of classes.

    Returns:
        Array of shape `(classes, classes)`: pixels of each true class by predicted class.

    Raises:
        ValueError: If the shapes differ or a class is out of range.

    Example:
        >>> confusion_matrix(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), 3).tolist()
        [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    """
    check_shapes("reference", reference, "result", result)
    for name, values in (("reference", reference), ("result", result)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"{name} must hold classes from 0 to {classes - 1}. "
                f"Received {values.min()} to {values.max()}"
            )
    pairs = reference.ravel().astype(np.int64) * classes + result.ravel()
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return counts.astype(np.int64)


def class_scores(confusion: NDArray[np.integer], labels: Sequence[int]) -> list[ClassScore]:
    """Computes IoU and Dice of each class from a confusion matrix.

    Args:
        confusion: Pixels of each true class by predicted class, `(classes, classes)`.
        labels: Label value of each class.

    Example:
        >>> class_scores(np.array([[6, 2], [0, 2]]), [0, 255])[1]
        ClassScore(label=255, iou=0.5, dice=0.6666666666666666)
    """
    common, sizes = confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1)
    return [
        ClassScore(label, _ratio(both, size - both), _ratio(2 * both, size))
        for label, both, size in zip(labels, common, sizes, strict=True)
    ]


def mean_iou(reference: NDArray[np.integer], result: NDArray[np.integer], classes: int) -> float:
    """Computes the mean IoU over the classes, background included.

    Pixels of several images are scored together: concatenate them. A class that is in neither
    array is left out of the mean.

    Args:
        reference: True classes, 0 to `classes` - 1, of any shape.
        result: Predicted classes, of the same shape.
        classes: Number of classes.

    Returns:
        The score, 0 to 1 (best); nan, undefined, without pixels.

    Raises:
        ValueError: If the shapes differ or a class is out of range.

    Example:
        IoU 1 of class 0, and 1/2 of the classes 1 and 2:

        >>> mean_iou(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), 3).__round__(4)
        0.6667
    """
    confusion = confusion_matrix(reference, result, classes)
    return mean_of_defined([score.iou for score in class_scores(confusion, range(classes))])


def mean_of_defined(values: Sequence[float]) -> float:
    """Computes the mean of the values that are not nan; nan if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def pixel_error(labels: NDArray[Any], scores: NDArray[np.floating]) -> Best:
    """Computes the pixel error of the ISBI 2012 challenge.

    The error is 1 - F at the best of the thresholds 0, 0.1, ... 1. F is the harmonic mean of
    precision and recall on cell pixels of all slices together; a pixel is cell if its score, in
    single precision, exceeds the threshold. Precision is 1 without false positives, recall 1
    without false negatives.

    Args:
        labels: Reference, cell where positive, `(height, width)` or `(slices, height, width)`.
        scores: Probability of cell in [0, 1], of the same shape.

    Returns:
        The error, 0 (best) to 1, and its threshold.

    Raises:
        ValueError: If the shapes differ, there is no pixel, or a score is outside [0, 1].

    Example:
        >>> pixel_error(np.array([[1, 1, 0]]), np.array([[0.95, 0.45, 0.35]]))
        Best(value=0.0, threshold=0.4)
    """
    check_probabilities(labels, scores, "scores")
    exceeded = np.searchsorted(THRESHOLDS, scores.astype(np.float32).ravel())
    cell = labels.ravel() > 0
    true_positives = _above_each_threshold(exceeded[cell])
    positives = _above_each_threshold(exceeded)
    size = positives + np.count_nonzero(cell)  # 2 TP + FP + FN
    f_scores = np.where(size == 0, 1.0, 2 * true_positives / np.maximum(size, 1))
    return lowest(1 - f_scores)


def _above_each_threshold(exceeded: NDArray[np.intp]) -> NDArray[np.intp]:
    """Counts the pixels above each threshold from the number of thresholds each pixel exceeds."""
    histogram = np.bincount(exceeded, minlength=len(THRESHOLDS) + 1)
    return histogram[::-1].cumsum()[::-1][1:]


def _ratio(part: int | np.integer, whole: int | np.integer) -> float:
    return float(part / whole) if whole else math.nan


def _check_masks(reference: NDArray[Any], result: NDArray[Any]) -> None:
    for name, mask in (("reference", reference), ("result", result)):
        if mask.dtype != np.bool_:
            raise ValueError(
                f"{name} must be boolean. Received {mask.dtype}; compare it first, e.g. {name} > 0."
            )
    check_shapes("reference", reference, "result", result)
