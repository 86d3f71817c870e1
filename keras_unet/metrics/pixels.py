"""Scores that count pixels: intersection over union, Dice, and the pixel error of ISBI 2012."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.metrics.thresholds import (
    THRESHOLDS,
    Best,
    check_probabilities,
    check_shapes,
    lowest,
)


def iou(reference: NDArray[np.bool_], result: NDArray[np.bool_]) -> float:
    """Computes the intersection over union (Jaccard index) of two masks.

    Args:
        reference: The mask held to be true, of any shape.
        result: The mask to score, of the same shape.

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
        reference: The mask held to be true, of any shape.
        result: The mask to score, of the same shape.

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


def pixel_error(labels: NDArray[Any], scores: NDArray[np.floating]) -> Best:
    """Computes the pixel error of the ISBI 2012 challenge.

    The error is 1 - F at the best of the thresholds 0, 0.1, ... 1. F is the harmonic mean of
    precision and recall on cell pixels, counted over all slices together; a pixel counts as cell
    where its score, in single precision, exceeds the threshold. Precision is 1 without false
    positives, recall 1 without false negatives.

    Args:
        labels: The reference, cell where positive, `(height, width)` or `(slices, height, width)`.
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
    """Counts the pixels above each threshold, given how many thresholds each pixel exceeds."""
    histogram = np.bincount(exceeded, minlength=len(THRESHOLDS) + 1)
    return histogram[::-1].cumsum()[::-1][1:]


def _ratio(part: int | np.integer, whole: int | np.integer) -> float:
    return float(part / whole) if whole else math.nan


def _check_masks(reference: NDArray[Any], result: NDArray[Any]) -> None:
    """Refuses masks that are not boolean or do not match."""
    for name, mask in (("reference", reference), ("result", result)):
        if mask.dtype != np.bool_:
            raise ValueError(
                f"{name} must be boolean. Received {mask.dtype}; compare first, e.g. {name} > 0."
            )
    check_shapes("reference", reference, "result", result)
