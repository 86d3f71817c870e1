"""Comparison of two contenders: equality of their results, then times."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparisons import Comparison, Rival
from benchmarks.contenders import Answer, Worker, ready
from benchmarks.timing import Timing, spread, take_turns

LABELS_THAT_MAY_DIFFER = 1e-3
"""Share of labels. Where a sampling position is midway between pixels, rounding decides."""

_TINY = {"useful pixel", "operation"}  # units reported per second


def measure(
    comparison: Comparison, pairs: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Compares this package with each rival.

    Args:
        comparison: The comparison.
        pairs: Number of timed pairs.
        say: Prints a line.

    Returns:
        Ratio, range, times, goal and difference of results, or the error, by rival.
    """
    say(comparison.work)
    found = {}
    try:
        with ready(comparison.this) as this:
            answers = _answers(this, comparison.checks)
            for rival in comparison.rivals:
                found[rival.contender.name] = _against(rival, comparison, this, answers, pairs)
                say(_line(rival, found[rival.contender.name]))
    except RuntimeError as error:
        found["this"] = {"failed": str(error)}
        say(f"  this failed: {error}")
    return found


def _against(
    rival: Rival, comparison: Comparison, this: Worker, answers: list[Answer], pairs: int
) -> dict[str, Any]:
    try:
        with ready(rival.contender) as other:
            theirs = _answers(other, comparison.checks)
            agreement = _agreement(rival, answers, theirs)
            this.run()
            calls = comparison.this.calls, rival.contender.calls
            timing = take_turns(this.run, other.run, calls, pairs)
    except RuntimeError as error:
        return {"failed": str(error)}
    return {**_figures(comparison, timing), **_verdict(rival, comparison, timing), **agreement}


def _answers(worker: Worker, checks: int) -> list[Answer]:
    return [worker.answer() for _ in range(checks)]


def _figures(comparison: Comparison, timing: Timing) -> dict[str, Any]:
    """Returns the ratio, its range, and the speed of both."""
    found = timing.to_dict()
    if comparison.is_rate:
        found |= spread([1 / ratio for ratio in timing.ratios])
    if comparison.unit not in _TINY:
        return found
    ratios = {name: value for name, value in found.items() if name.startswith("ratio")}
    name = f"{comparison.unit.replace(' ', '_')}s_a_second"
    both = {name: timing.seconds, f"{name}_reference": timing.reference}
    return ratios | {name: float(f"{1 / median(one):.4g}") for name, one in both.items()}


def _verdict(rival: Rival, comparison: Comparison, timing: Timing) -> dict[str, Any]:
    if rival.goal is None:
        return {}
    ratio = median(timing.ratios)
    met = rival.goal.is_met(1 / ratio if comparison.is_rate else ratio)
    return {"goal": str(rival.goal), "met": met}


def _agreement(rival: Rival, answers: list[Answer], theirs: list[Answer]) -> dict[str, float]:
    """Compares the results of both.

    Raises:
        RuntimeError: If they differ by more than the tolerance.
    """
    if rival.tolerance is None:
        return {}
    pairs = [
        pair
        for one, other in zip(answers, theirs, strict=True)
        for pair in zip(one, other, strict=True)
    ]
    numbers = [_difference(a, b) for a, b in pairs if not _are_labels(a)]
    labels = [np.mean(a != b) for a, b in pairs if _are_labels(a)]
    largest, differing = float(max(numbers)), float(max(labels, default=0.0))
    if not (largest <= rival.tolerance and differing <= LABELS_THAT_MAY_DIFFER):
        raise RuntimeError(
            f"results must agree within {rival.tolerance:g}. Received a difference of {largest:g}, "
            f"and {differing:g} of the labels differ"
        )
    share = {"share_of_labels_that_differ": differing} if labels else {}
    return {"largest_difference": float(f"{largest:.3g}"), **share}


def _difference(numbers: NDArray[Any], others: NDArray[Any]) -> float:
    """Returns the largest difference, relative to the largest value if that exceeds 1."""
    exact = numbers.astype(float)
    return float(np.abs(exact - others).max() / max(1.0, np.abs(exact).max()))


def _are_labels(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "biu"


def _line(rival: Rival, found: dict[str, Any]) -> str:
    name = f"  {rival.contender.name:40}"
    if "failed" in found:
        return f"{name} failed: {found['failed']}"
    low, high = found["ratio_lowest"], found["ratio_highest"]
    goal = f"  goal {found['goal']}: {'met' if found['met'] else 'missed'}" if rival.goal else ""
    return f"{name} {found['ratio']:7.3f} ({low:.3f} to {high:.3f}){goal}"
