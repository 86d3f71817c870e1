"""Two ways of one work, timed in turn: machines are shared, and only ratios mean something."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

PAIRS = 5


def compare(
    fast: Callable[[], Any], reference: Callable[[], Any], calls: int = 1
) -> dict[str, Any]:
    """Times both in turn, after one call each to warm up.

    Args:
        fast: The one.
        reference: The other.
        calls: What one call of either stands for; times are given for one of these.

    Returns:
        How many times faster the one is, the median of five pairs with the lowest and the highest,
        and the medians of both times in milliseconds.
    """
    fast(), reference()
    pairs = [(seconds(fast) / calls, seconds(reference) / calls) for _ in range(PAIRS)]
    ratios = sorted(slow / quick for quick, slow in pairs)
    return {
        "times_faster": round(median(ratios), 2),
        "times_faster_lowest": round(ratios[0], 2),
        "times_faster_highest": round(ratios[-1], 2),
        "milliseconds": round(1000 * median(quick for quick, _ in pairs), 2),
        "milliseconds_reference": round(1000 * median(slow for _, slow in pairs), 2),
    }


def seconds(function: Callable[[], Any]) -> float:
    """Measures a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
