"""The thresholds of the ISBI 2012 challenge, and the best of the scores that they give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.0, *accumulate([0.1] * 10))
"""Probabilities above which a pixel counts as cell: 0, 0.1, ... 1.

They are sums of 0.1 in double precision, as in the challenge's program. The last is a hair below 1,
and a probability of 1 exceeds it.
"""


@dataclass(frozen=True)
class Best:
    """A score at the threshold that serves it best.

    Attributes:
        value: The score; nan where it is undefined.
        threshold: The smallest threshold on the probabilities that gives it, in tenths; nan
            likewise.
    """

    value: float
    threshold: float


def lowest(errors: NDArray[np.float64]) -> Best:
    """Returns the lowest of the errors at the thresholds from 0 on.

    Example:
        >>> lowest(np.array([0.4, 0.2, 0.2]))
        Best(value=0.2, threshold=0.1)
    """
    return _at(errors, int(errors.argmin()))


def highest(scores: NDArray[np.float64]) -> Best:
    """Returns the highest of the scores at the thresholds from 0 on."""
    return _at(scores, int(scores.argmax()))


def above(scores: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Returns where scores in single precision exceed a threshold in double precision."""
    return scores > np.float64(threshold)


def check_probabilities(labels: NDArray[Any], scores: NDArray[Any], name: str) -> None:
    """Refuses scores, called `name`, that are no probabilities of the labels' pixels.

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
    """Refuses two arrays that do not show the same pixels.

    Raises:
        ValueError: If the shapes differ.
    """
    if left.shape != right.shape:
        raise ValueError(
            f"{first} and {second} must have one shape. Received {left.shape} and {right.shape}; "
            "crop or predict so that both show the same pixels."
        )


def _at(values: NDArray[np.float64], index: int) -> Best:
    value = float(values[index])
    return Best(value, math.nan if math.isnan(value) else index / 10)
