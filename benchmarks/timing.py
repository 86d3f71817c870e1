"""Alternating timing of two functions: on shared machines, only ratios are reliable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

PAIRS = 5

_PAUSE = 0.1  # seconds, for the spinning threads of the other to go to sleep


@dataclass(frozen=True)
class Timing:
    """Times of both functions, pair by pair.

    Attributes:
        seconds: Seconds of the function.
        reference: Seconds of the reference.
    """

    seconds: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Times divided by those of the reference, in ascending order."""
        return sorted(one / other for one, other in zip(self.seconds, self.reference, strict=True))

    def to_dict(self) -> dict[str, float]:
        """Returns the median ratio, its range, and the medians of both times."""
        return {
            **spread(self.ratios),
            "milliseconds": round(1000 * median(self.seconds), 3),
            "milliseconds_reference": round(1000 * median(self.reference), 3),
        }


def spread(ratios: list[float]) -> dict[str, float]:
    """Returns the median, the lowest and the highest ratio."""
    return {
        "ratio": round(median(ratios), 4),
        "ratio_lowest": round(min(ratios), 4),
        "ratio_highest": round(max(ratios), 4),
    }


def compare(
    this: Callable[[], Any], reference: Callable[[], Any], calls: float = 1
) -> dict[str, float]:
    """Times two functions alternately, after one warm-up call each.

    Args:
        this: The function.
        reference: The reference.
        calls: Number of units in one call; times are given for one unit.

    Returns:
        Ratio of the times, the median of five pairs with the lowest and the highest, and the
        medians of both times in milliseconds.
    """
    this(), reference()
    return take_turns(this, reference, (calls, calls)).to_dict()


def take_turns(
    this: Callable[[], Any],
    reference: Callable[[], Any],
    calls: tuple[float, float] = (1, 1),
    pairs: int = PAIRS,
) -> Timing:
    """Times two functions alternately; the order in a pair alternates as well.

    Args:
        this: The function, warmed up.
        reference: The reference, warmed up.
        calls: Number of units in one call of each; times are given for one unit.
        pairs: Number of pairs.
    """
    measured: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for who in (0, 1) if pair % 2 == 0 else (1, 0):
            time.sleep(_PAUSE)
            measured[who].append(seconds((this, reference)[who]) / calls[who])
    return Timing(tuple(measured[0]), tuple(measured[1]))


def seconds(function: Callable[[], Any]) -> float:
    """Returns the seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
