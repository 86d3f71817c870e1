"""Charts of a report, as SVG: training curves, and the network as in figure 1."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_unet.architecture import Architecture
from keras_unet.report.page import environment

_COLUMN, _ROW_GAP, _TOP = 50, 46, 26  # units of the drawing
_HIGHEST, _LOWEST = 120, 16  # of boxes
_WIDEST, _NARROWEST = 26, 4


class Box(NamedTuple):
    """A box: where it stands, what it holds.

    Attributes:
        level: 0 for the uppermost row.
        column: 0 for the leftmost.
        channels: Number of channels.
        size: Height and width in pixels.
        copied: Whether part of it was copied from the left side.
    """

    level: int
    column: int
    channels: int
    size: int
    copied: bool = False


@dataclass(frozen=True)
class _Placed:
    """A box in units of the drawing."""

    box: Box
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def centre(self) -> float:
        return self.x + self.width / 2


class _Arrow(NamedTuple):
    kind: str  # conv, pool, up, copy or last
    x1: float
    y1: float
    x2: float
    y2: float


def network_svg(network: Architecture, tile_size: int) -> str:
    """Draws a network as figure 1 does.

    Args:
        network: The network.
        tile_size: Height and width of the input tile in pixels.

    Raises:
        ValueError: If the tile does not fit.
    """
    placed = _place(boxes_of(network, tile_size), network.depth)
    return (
        environment()
        .get_template("network.svg")
        .render(
            placed=placed,
            arrows=list(_arrows(placed)),
            width=max(one.right for one in placed) + 30,
            height=max(one.bottom for one in placed) + 34,
            title=f"U-Net of depth {network.depth}: {tile_size} pixels in, "
            f"{network.output_size(tile_size)} out",
        )
    )


def boxes_of(network: Architecture, tile_size: int) -> list[Box]:
    """Lists the features of a network from input to output.

    Raises:
        ValueError: If the tile does not fit.

    Example:
        >>> [box.size for box in boxes_of(Architecture(depth=1), 20)]
        [20, 18, 16, 8, 6, 4, 8, 6, 4, 4]
    """
    network.check_size(tile_size, "tile_size")
    lost = 2 if network.padding == "valid" else 0
    size, channels, column = tile_size, network.channels, 0
    boxes: list[Box] = []

    def convolve_twice(level: int, *, copied: bool = False) -> None:
        nonlocal size, channels, column
        boxes.append(Box(level, column, channels, size, copied))
        channels = network.filters(level)
        for _ in range(2):
            size, column = size - lost, column + 1
            boxes.append(Box(level, column, channels, size))

    for level in range(network.depth):
        convolve_twice(level)
        size //= 2
    convolve_twice(network.depth)
    for level in reversed(range(network.depth)):
        size, channels = 2 * size, 2 * network.filters(level)
        convolve_twice(level, copied=True)
    boxes.append(Box(0, column + 1, network.classes, size))
    return boxes


def _place(boxes: list[Box], depth: int) -> list[_Placed]:
    most = max(box.channels for box in boxes)
    heights = [_height(box, boxes[0].size) for box in boxes]
    highest = [
        max(height for box, height in zip(boxes, heights, strict=True) if box.level == level)
        for level in range(depth + 1)
    ]
    tops = [_TOP + sum(highest[:level]) + level * _ROW_GAP for level in range(depth + 1)]
    return [
        _Placed(
            box,
            20 + box.column * _COLUMN,
            tops[box.level] + highest[box.level] - height,
            _NARROWEST + (_WIDEST - _NARROWEST) * log2(box.channels) / max(log2(most), 1),
            height,
        )
        for box, height in zip(boxes, heights, strict=True)
    ]


def _height(box: Box, largest: int) -> float:
    return _LOWEST + (_HIGHEST - _LOWEST) * box.size / largest


def _arrows(placed: list[_Placed]) -> Iterator[_Arrow]:
    for one, other in pairwise(placed):
        down = other.box.level - one.box.level
        if down > 0:
            yield _Arrow("pool", one.centre, one.bottom + 16, other.centre, other.y - 15)
        elif down < 0:
            yield _Arrow("up", one.centre, one.y - 15, one.centre, other.bottom + 16)
        else:
            kind = "last" if other is placed[-1] else "conv"
            yield _Arrow(kind, one.right + 2, one.middle, other.x - 3, one.middle)
    for other in placed:
        if other.box.copied:
            left = [one for one in placed if one.box.level == other.box.level][2]
            yield _Arrow("copy", left.right + 2, other.middle, other.x - 3, other.middle)


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
