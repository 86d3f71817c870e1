"""Curves over a training, drawn by matplotlib as SVG in the colours of the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK, _LINE, _MARK = "#010203", "#010204", "#010205"  # stand for colours of the page
_COLOURS = {_INK: "currentColor", _LINE: "var(--line)", _MARK: "var(--mark)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
}
_SIZE = 5.2, 3.1  # inches of 72 units
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


Curve = Sequence[tuple[int, float]]
"""Steps and values, at least one."""


def curves_svg(name: str, curves: Mapping[str, Curve], *, highest: bool = False) -> str:
    """Draws curves of one quantity.

    Args:
        name: Name of the quantity.
        curves: The curves; the name of each stands at its end.
        highest: Whether the highest value of each is marked and, of a single one, written.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(_SIZE, layout="constrained")
        axes = figure.subplots()
        for title, curve in curves.items():
            _draw(axes, title, curve, highest=highest, written=len(curves) == 1)
        axes.set(title=name, xlabel="step")
        axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.2, color=_INK)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    text = stream.getvalue()
    for colour, of_page in _COLOURS.items():
        text = text.replace(colour, of_page)
    return text[text.index("<svg") :]


def _draw(axes: Axes, title: str, curve: Curve, *, highest: bool, written: bool) -> None:
    axes.plot(*zip(*curve, strict=True), color=_LINE, marker="o", markersize=3.5)
    if title:
        axes.annotate(title, curve[-1], xytext=(6, -4), textcoords="offset points", color=_LINE)
    if highest:
        step, best = max(curve, key=lambda one: one[1])
        axes.plot(step, best, "o", color=_MARK, markersize=8)
        if written:
            axes.annotate(
                f"{best:.4f}",
                (step, best),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                color=_MARK,
            )
