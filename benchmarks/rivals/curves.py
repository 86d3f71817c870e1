"""Table and curves of the results: score over minutes until the model is ready."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.recipes import CELL_SCORES, MAIN_SCORES, spread

Row = Mapping[str, Any]

SCORES = ("scores", "scores_tta")
SUFFIX = {"scores": "", "scores_tta": " --tta"}
COLUMNS = 3  # panels in a line of the figure
SHOWN = {"isbi2012": "v_rand", "axons": "iou"}  # in the curves; AP at an IoU of 0.5 for cells


def table(rows: Sequence[Row]) -> list[str]:
    """Returns a Markdown table: a row for each data set, length and contender.

    Minutes are those of the training loop; "ready" is the time until the model is ready, in
    minutes, "predicted" that of all held-out images, in seconds.
    """
    head = "data", "minutes", "contender", "seeds", "steps", "ready", "predicted", "scores"
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for group in _groups(rows, ("set", "minutes", "contender")):
        lines += [_line(group, scores) for scores in SCORES if scores in group[0]]
    return lines


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Draws a panel for each data set, with a curve for each contender, as PNG."""
    sets = sorted({row["set"] for row in rows})
    lines = math.ceil(len(sets) / COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 3.2 * lines + 0.6), layout="constrained")
    names = sorted({row["contender"] for row in rows})
    colors = {name: f"C{index}" for index, name in enumerate(names)}
    panels = [figure.add_subplot(lines, COLUMNS, 1 + index) for index in range(len(sets))]
    for axes, name in zip(panels, sets, strict=True):
        _draw(axes, [row for row in rows if row["set"] == name], colors)
        axes.set_title(name)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    labels = sorted(handles)
    legend = [handles[label] for label in labels]
    figure.legend(legend, labels, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=100)


def _draw(axes: Axes, rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    shown = SHOWN.get(rows[0]["set"], "ap_50")
    axes.set(xlabel="minutes until the model is ready", ylabel=shown, xscale="log")
    for curve in _groups(rows, ("contender",)):
        for scores in SCORES:
            if scores in curve[0]:
                points = list(_groups(curve, ("minutes",)))
                contender = curve[0]["contender"]
                axes.plot(
                    [mean(row["seconds"]["training"] for row in point) / 60 for point in points],
                    [mean(row[scores][shown] for row in point) for point in points],
                    color=colors[contender],
                    linestyle="-" if scores == "scores" else "--",
                    marker="o",
                    label=contender + SUFFIX[scores],
                )
    lengths = sorted({row["minutes"] for row in rows})
    axes.set_xticks(lengths, [f"{minutes:g}" for minutes in lengths])
    axes.set_xticks([], minor=True)


def _groups(rows: Sequence[Row], names: Sequence[str]) -> Iterator[list[Row]]:
    for key in sorted({tuple(row[name] for name in names) for row in rows}):
        yield [row for row in rows if tuple(row[name] for name in names) == key]


def _line(group: Sequence[Row], scores: str) -> str:
    first = group[0]
    shown = MAIN_SCORES.get(first["set"], CELL_SCORES)
    cells = (
        first["set"],
        f"{first['minutes']:g}",
        first["contender"] + SUFFIX[scores],
        len(group),
        round(mean(row["steps"] for row in group)),
        f"{mean(row['seconds']['training'] for row in group) / 60:.1f}",
        f"{mean(row['seconds']['prediction'] for row in group):.0f}",
        ", ".join(f"{name} {spread([row[scores][name] for row in group])}" for name in shown),
    )
    return f"| {' | '.join(map(str, cells))} |"
