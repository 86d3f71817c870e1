"""Figure 1 of the paper, drawn for any architecture with its own sizes, as SVG.

Boxes are the features between two operations: the number above is that of their channels, the
number below their height and width. Each level starts below the end of the one above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import NamedTuple

from keras_unet.architecture import Architecture
from keras_unet.html.page import environment

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
