"""Charts of a report, as SVG: training curves, and the network as in figure 1."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import log2
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from keras_unet.architecture import Architecture

_INK, _LINE, _MARK = "#010203", "#010204", "#010205"  # stand for colors of the page
_COLORS = {_INK: "currentColor", _LINE: "var(--line)", _MARK: "var(--mark)"}
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

_EDGE, _FILL = "#3f7fc4", "#3f7fc440"
_ARROWS = {  # color and name
    "conv": ("#3f7fc4", "3 x 3 convolution, ReLU"),
    "copy": ("#8b93a1", "copy and crop"),
    "pool": ("#d1495b", "2 x 2 max pooling"),
    "up": ("#3a9d5d", "2 x 2 up-convolution"),
    "last": ("#17a2a2", "1 x 1 convolution"),
}
_COLUMN, _ROW_GAP = 50, 46  # units of the drawing
_LEGEND = 170, 80  # width and height
_HIGHEST, _LOWEST = 120, 16  # of boxes
_WIDEST, _NARROWEST = 26, 4


class Box(NamedTuple):
    """Features of a network, a box in figure 1.

    Attributes:
        level: 0 for the uppermost row.
        column: 0 for the leftmost.
        channels: Number of channels.
        size: Height and width in pixels.
        copied: Whether half of it was copied from the left side.
    """

    level: int
    column: int
    channels: int
    size: int
    copied: bool = False


def network_svg(network: Architecture, tile_size: int) -> str:
    """Draws a network as figure 1 does.

    Args:
        network: The network.
        tile_size: Height and width of the input tile in pixels.

    Raises:
        ValueError: If the tile does not fit.
    """
    boxes = boxes_of(network, tile_size)
    places = _places(boxes)
    lowest = places[3 * network.depth + 2]
    beside = Bbox.from_bounds(lowest.x1, lowest.y0, *_LEGEND)
    drawing = Bbox.union([*places, beside]).padded(24)
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "network"}):
        figure = Figure((drawing.width / 72, drawing.height / 72))
        axes = figure.add_axes((0, 0, 1, 1), xlim=drawing.intervalx, ylim=drawing.intervaly)
        axes.set_axis_off()
        for number, (box, place) in enumerate(zip(boxes, places, strict=True)):
            _draw_box(axes, box, place, f"box-{number}")
        for number, (kind, start, end) in enumerate(_arrows(boxes, places)):
            axes.add_patch(_arrow(kind, start, end, f"{kind}-{number}"))
        lines = [Line2D([], [], color=color, label=name) for color, name in _ARROWS.values()]
        axes.legend(handles=lines, loc="lower right", frameon=False)
        return _svg(figure)


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
    boxes = [Box(0, 0, network.channels, tile_size)]
    for turn in range(2 * network.depth + 1):
        if turn:
            boxes.append(_next_level(boxes[-1], is_up=turn > network.depth))
        for _ in range(2):
            level, column, _, size, _ = boxes[-1]
            boxes.append(Box(level, column + 1, network.filters(level), size - lost))
    last = boxes[-1]
    return [*boxes, last._replace(column=last.column + 1, channels=network.classes)]


def _next_level(box: Box, *, is_up: bool) -> Box:
    """Pools the features, or doubles their size and sets as many channels beside them."""
    if is_up:
        return box._replace(level=box.level - 1, size=2 * box.size, copied=True)
    return box._replace(level=box.level + 1, size=box.size // 2)


def _places(boxes: Sequence[Box]) -> list[Bbox]:
    widest, largest = log2(max(box.channels for box in boxes)) or 1, boxes[0].size
    heights = [_LOWEST + (_HIGHEST - _LOWEST) * box.size / largest for box in boxes]
    places = []
    for box, height in zip(boxes, heights, strict=True):  # the first of a level is the highest
        bottom = -sum(heights[3 * level] + _ROW_GAP for level in range(box.level + 1))
        width = _NARROWEST + (_WIDEST - _NARROWEST) * log2(box.channels) / widest
        left = _COLUMN * box.column - width / 2
        places.append(Bbox.from_bounds(left, bottom, width, height))
    return places


def _draw_box(axes: Axes, box: Box, place: Bbox, gid: str) -> None:
    """Draws features with their channels above and their size below; what is copied is empty."""
    middle, filled = (place.x0 + place.x1) / 2, place.width / (1 + box.copied)
    edge = Rectangle(place.p0, place.width, place.height, fill=False, edgecolor=_EDGE, gid=gid)
    axes.add_patch(edge)
    axes.add_patch(Rectangle((place.x1 - filled, place.y0), filled, place.height, color=_FILL))
    axes.text(middle, place.y1 + 4, f"{box.channels}", ha="center")
    axes.text(middle, place.y0 - 12, f"{box.size}", ha="center", size=10, alpha=0.7)


_Point = tuple[float, float]


def _arrows(boxes: Sequence[Box], places: Sequence[Bbox]) -> Iterator[tuple[str, _Point, _Point]]:
    """Yields the kind, start and end of each arrow."""
    for (one, here), (other, there) in pairwise(zip(boxes, places, strict=True)):
        middle = (here.x0 + here.x1) / 2
        if other.level > one.level:
            yield "pool", (middle, here.y0 - 16), (middle, there.y1 + 15)
        elif other.level < one.level:
            yield "up", (middle, here.y1 + 15), (middle, there.y0 - 16)
        else:
            yield "last" if other is boxes[-1] else "conv", *_across(here, there)
    for other, there in zip(boxes, places, strict=True):
        if other.copied:
            yield "copy", *_across(places[3 * other.level + 2], there)


def _arrow(kind: str, start: _Point, end: _Point, gid: str) -> FancyArrowPatch:
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 10, "linewidth": 1.5}
    color, _ = _ARROWS[kind]
    return FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, color=color, gid=gid, **style)


def _across(here: Bbox, there: Bbox) -> tuple[_Point, _Point]:
    height = (there.y0 + there.y1) / 2
    return (here.x1 + 2, height), (there.x0 - 3, height)


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
        return _svg(figure)


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


def _svg(figure: Figure) -> str:
    """Renders a figure in the colors of the page that it stands on."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    text = stream.getvalue()
    for color, of_page in _COLORS.items():
        text = text.replace(color, of_page)
    return text[text.index("<svg") :]
