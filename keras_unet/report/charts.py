"""Charts of a report as SVG: training curves, and a diagram of the network as in figure 1."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import log2
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from keras_unet.architecture import Architecture

_INK, _LINE, _MARK = "#010203", "#010204", "#010205"  # placeholders for colors of the page
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
_MOST_BINS = 40
_COLUMN, _ROW_GAP = 50, 46  # units of the drawing
_LEGEND = 170, 80  # width and height
_MAX_HEIGHT, _MIN_HEIGHT = 120, 16  # of boxes
_MAX_WIDTH, _MIN_WIDTH = 26, 4


class Box(NamedTuple):
    """Feature maps of a network, a box in figure 1.

    Attributes:
        level: Row, 0 for the uppermost.
        column: Column, 0 for the leftmost.
        channels: Number of channels.
        size: Height and width in pixels.
        copied: Whether half of the channels are copied from the contracting path.
    """

    level: int
    column: int
    channels: int
    size: int
    copied: bool = False


def network_svg(network: Architecture, tile_size: int) -> str:
    """Draws a network as in figure 1.

    Args:
        network: Architecture of the network.
        tile_size: Height and width of the input tile in pixels.

    Raises:
        ValueError: If the tile does not fit.
    """
    boxes = boxes_of(network, tile_size)
    positions = _positions(boxes)
    bottom = positions[3 * network.depth + 2]
    legend = Bbox.from_bounds(bottom.x1, bottom.y0, *_LEGEND)
    drawing = Bbox.union([*positions, legend]).padded(24)
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "network"}):
        figure = Figure((drawing.width / 72, drawing.height / 72))
        axes = figure.add_axes((0, 0, 1, 1), xlim=drawing.intervalx, ylim=drawing.intervaly)
        axes.set_axis_off()
        for number, (box, position) in enumerate(zip(boxes, positions, strict=True)):
            _draw_box(axes, box, position, f"box-{number}")
        for number, (kind, start, end) in enumerate(_arrows(boxes, positions)):
            axes.add_patch(_arrow(kind, start, end, f"{kind}-{number}"))
        lines = [Line2D([], [], color=color, label=name) for color, name in _ARROWS.values()]
        axes.legend(handles=lines, loc="lower right", frameon=False)
        return _svg(figure)


def boxes_of(network: Architecture, tile_size: int) -> list[Box]:
    """Returns the feature maps of a network from input to output.

    Raises:
        ValueError: If the tile does not fit.

    Example:
        >>> [box.size for box in boxes_of(Architecture(depth=1), 20)]
        [20, 18, 16, 8, 6, 4, 8, 6, 4, 4]
    """
    network.check_size(tile_size, "tile_size")
    lost = 2 if network.padding == "valid" else 0
    boxes = [Box(0, 0, network.channels, tile_size)]
    for stage in range(2 * network.depth + 1):
        if stage:
            boxes.append(_next_level(boxes[-1], is_up=stage > network.depth))
        for _ in range(2):
            level, column, _, size, _ = boxes[-1]
            boxes.append(Box(level, column + 1, network.filters(level), size - lost))
    last = boxes[-1]
    return [*boxes, last._replace(column=last.column + 1, channels=network.outputs)]


def _next_level(box: Box, *, is_up: bool) -> Box:
    """Returns the box after a pooling, or after an up-convolution and concatenation."""
    if is_up:
        return box._replace(level=box.level - 1, size=2 * box.size, copied=True)
    return box._replace(level=box.level + 1, size=box.size // 2)


def _positions(boxes: Sequence[Box]) -> list[Bbox]:
    widest, largest = log2(max(box.channels for box in boxes)) or 1, boxes[0].size
    heights = [_MIN_HEIGHT + (_MAX_HEIGHT - _MIN_HEIGHT) * box.size / largest for box in boxes]
    positions = []
    for box, height in zip(
        boxes, heights, strict=True
    ):  # the first of a level has the greatest height
        bottom = -sum(heights[3 * level] + _ROW_GAP for level in range(box.level + 1))
        width = _MIN_WIDTH + (_MAX_WIDTH - _MIN_WIDTH) * log2(box.channels) / widest
        left = _COLUMN * box.column - width / 2
        positions.append(Bbox.from_bounds(left, bottom, width, height))
    return positions


def _draw_box(axes: Axes, box: Box, position: Bbox, gid: str) -> None:
    """Draws a box with its channels above and its size below; copied channels are not filled."""
    center, filled = (position.x0 + position.x1) / 2, position.width / (1 + box.copied)
    edge = Rectangle(
        position.p0, position.width, position.height, fill=False, edgecolor=_EDGE, gid=gid
    )
    axes.add_patch(edge)
    axes.add_patch(
        Rectangle((position.x1 - filled, position.y0), filled, position.height, color=_FILL)
    )
    axes.text(center, position.y1 + 4, f"{box.channels}", ha="center")
    axes.text(center, position.y0 - 12, f"{box.size}", ha="center", size=10, alpha=0.7)


_Point = tuple[float, float]


def _arrows(
    boxes: Sequence[Box], positions: Sequence[Bbox]
) -> Iterator[tuple[str, _Point, _Point]]:
    """Yields the kind, start and end of each arrow."""
    for (source, start), (target, end) in pairwise(zip(boxes, positions, strict=True)):
        center = (start.x0 + start.x1) / 2
        if target.level > source.level:
            yield "pool", (center, start.y0 - 16), (center, end.y1 + 15)
        elif target.level < source.level:
            yield "up", (center, start.y1 + 15), (center, end.y0 - 16)
        else:
            yield "last" if target is boxes[-1] else "conv", *_horizontal(start, end)
    for target, end in zip(boxes, positions, strict=True):
        if target.copied:
            yield "copy", *_horizontal(positions[3 * target.level + 2], end)


def _arrow(kind: str, start: _Point, end: _Point, gid: str) -> FancyArrowPatch:
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 10, "linewidth": 1.5}
    color, _ = _ARROWS[kind]
    return FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, color=color, gid=gid, **style)


def _horizontal(start: Bbox, end: Bbox) -> tuple[_Point, _Point]:
    height = (end.y0 + end.y1) / 2
    return (start.x1 + 2, height), (end.x0 - 3, height)


Curve = Sequence[tuple[int, float]]
"""Steps and values, at least one."""


def curves_svg(name: str, curves: Mapping[str, Curve], *, highest: bool = False) -> str:
    """Draws curves of one quantity.

    Args:
        name: Name of the quantity.
        curves: Curves by name; each name is drawn at the end of its curve.
        highest: Whether to mark the highest value of each curve; that of a single curve is labeled.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(_SIZE, layout="constrained")
        axes = figure.subplots()
        for title, curve in curves.items():
            _draw(axes, title, curve, highest=highest, labeled=len(curves) == 1)
        axes.set(title=name, xlabel="step")
        axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.2, color=_INK)
        return _svg(figure)


def histogram_svg(name: str, values: Mapping[str, Sequence[float]]) -> str:
    """Draws histograms of one quantity over each other, in common bins.

    Args:
        name: Name of the quantity.
        values: Values of each histogram by its name; the first is drawn as a line, the last as an
            area.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(_SIZE, layout="constrained")
        axes = figure.subplots()
        bins = np.histogram_bin_edges([one for part in values.values() for one in part], "auto")
        bins = bins if len(bins) <= _MOST_BINS else np.linspace(bins[0], bins[-1], _MOST_BINS)
        last = list(values)[-1]
        for title, part in values.items():
            style: dict[str, Any] = {"histtype": "step", "color": _INK, "label": title}
            if title == last:
                style |= {"histtype": "stepfilled", "color": _LINE, "alpha": 0.5}
            axes.hist(part, bins.tolist(), **style)
        axes.set(title=name, ylabel="objects")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(frameon=False)
        return _svg(figure)


def _draw(axes: Axes, title: str, curve: Curve, *, highest: bool, labeled: bool) -> None:
    axes.plot(*zip(*curve, strict=True), color=_LINE, marker="o", markersize=3.5)
    if title:
        axes.annotate(title, curve[-1], xytext=(6, -4), textcoords="offset points", color=_LINE)
    if highest:
        step, best = max(curve, key=lambda point: point[1])
        axes.plot(step, best, "o", color=_MARK, markersize=8)
        if labeled:
            axes.annotate(
                f"{best:.4f}",
                (step, best),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                color=_MARK,
            )


def _svg(figure: Figure) -> str:
    """Renders a figure with the colors of the page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    text = stream.getvalue()
    for placeholder, color in _COLORS.items():
        text = text.replace(placeholder, color)
    return text[text.index("<svg") :]
