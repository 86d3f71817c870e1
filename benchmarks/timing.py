"""Two ways of one work, timed in turn: machines are shared, and only ratios mean something."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

PAIRS = 5

_PAUSE = 0.1  # seconds in which the threads of the other, which spin for a while, go to sleep


@dataclass(frozen=True)
class Timing:
    """How long both took, pair by pair.

    Attributes:
        seconds: Of the one.
        reference: Of the other.
    """

    seconds: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Times of the one by those of the other, from the lowest to the highest."""
        return sorted(one / other for one, other in zip(self.seconds, self.reference, strict=True))

    def to_dict(self) -> dict[str, float]:
        """Returns the median ratio, its spread, and the medians of both times."""
        return {
            **spread(self.ratios),
            "milliseconds": round(1000 * median(self.seconds), 3),
            "milliseconds_reference": round(1000 * median(self.reference), 3),
        }


def spread(ratios: list[float]) -> dict[str, float]:
    """Returns the median, the lowest and the highest of some ratios."""
    return {
        "ratio": round(median(ratios), 4),
        "ratio_lowest": round(min(ratios), 4),
        "ratio_highest": round(max(ratios), 4),
    }


def compare(
    this: Callable[[], Any], reference: Callable[[], Any], calls: float = 1
) -> dict[str, float]:
    """Times both in turn, after one call each to warm up.

    Args:
        this: The one.
        reference: The other.
        calls: What one call of either stands for; times are given for one of these.

    Returns:
        The time of the one by that of the other, the median of five pairs with the lowest and the
        highest, and the medians of both times in milliseconds.
    """
    this(), reference()
    return take_turns(this, reference, (calls, calls)).to_dict()


def take_turns(
    this: Callable[[], Any],
    reference: Callable[[], Any],
    calls: tuple[float, float] = (1, 1),
    pairs: int = PAIRS,
) -> Timing:
    """Times both in turn; who begins a pair alternates as well.

    Args:
        this: The one, warm.
        reference: The other, warm.
        calls: What one call of each stands for; times are given for one of these.
        pairs: How often.
    """
    measured: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for who in (0, 1) if pair % 2 == 0 else (1, 0):
            time.sleep(_PAUSE)
            measured[who].append(seconds((this, reference)[who]) / calls[who])
    return Timing(tuple(measured[0]), tuple(measured[1]))


def seconds(function: Callable[[], Any]) -> float:
    """Measures a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
