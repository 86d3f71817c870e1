"""Plane axes of stacks (time, depth, pages), and the order of planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Stack = Sequence[tuple[str, int]]
"""Letter and size of each plane axis, see `ImageFile`."""

_UNNAMED = "IQ"  # axes of pages without a stated meaning
_FEW = 4  # planes that may be channels


def stack_of(axes: str, shape: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    """Lists letter and size of the plane axes.

    >>> stack_of("TZCYX", (3, 2, 1, 64, 64))
    (('T', 3), ('Z', 2))
    """
    sizes = zip(axes, shape, strict=True)
    return tuple((axis, size) for axis, size in sizes if axis not in "YXCS")


def axes_of_stack(stack: Sequence[tuple[str, int]]) -> tuple[str, tuple[int, ...]]:
    """Returns the axes of an output with the planes of a stack, and their sizes.

    Time and depth keep their letters, axes of size 1 are dropped, and a single unnamed axis becomes
    depth if there is none.

    >>> axes_of_stack((("T", 4), ("Z", 2))), axes_of_stack((("I", 3), ("C", 1)))
    (('TZ', (4, 2)), ('Z', (3,)))
    """
    long = [(axis, size) for axis, size in stack if size > 1]
    letters = [axis if axis in "TZ" else "Q" for axis, _ in long]
    if letters.count("Q") == 1 and "Z" not in letters:
        letters[letters.index("Q")] = "Z"
    return "".join(letters), tuple(size for _, size in long)


def in_order_of(
    model: tuple[Path, Stack], file: tuple[Path, Stack], planes: NDArray[Any], content: str
) -> NDArray[Any]:
    """Sorts the planes of a file in the order of another file.

    Args:
        model: The other file, and its plane axes.
        file: The file, and its plane axes.
        planes: Planes of the file, `(planes, height, width, ...)`, as many as in the other.
        content: Content of the file in a word, for the message.

    Returns:
        The sorted planes, `(planes, height, width, ...)`.

    Raises:
        ValueError: If the plane axes do not match.
    """
    expected, stored = (
        [(axis, size) for axis, size in stack if size > 1] for _, stack in (model, file)
    )
    if expected == stored:
        return planes
    if sorted(expected) == sorted(stored) and len({axis for axis, _ in expected}) == len(expected):
        return _transpose_planes(expected, stored, planes)
    is_named = not any(axis in _UNNAMED for axis, _ in expected + stored)
    same_sizes = [size for _, size in expected] == [size for _, size in stored]
    if same_sizes and (len(expected) == 1 or not is_named):
        return planes
    raise ValueError(
        f"{file[0]}: expected planes along {describe_axes(expected)} as in {model[0]}, "
        f"received {describe_axes(stored)}: it is not clear which planes belong together. Save "
        f"the {content} with the same axes"
    )


def describe_axes(stack: Stack) -> str:
    """Returns axes and their sizes in one line.

    Examples:
        >>> describe_axes([("T", 3), ("Z", 4)]), describe_axes([])
        ('T = 3 x Z = 4', 'one plane')
    """
    return " x ".join(f"{axis} = {size}" for axis, size in stack) or "one plane"


def check_planes_along(axis: str, stack: Stack, path: Path) -> None:
    """Checks that the planes of a stack lie along an axis, or along one without a name.

    Args:
        axis: "Z" or "T".
        stack: Letter and size of each plane axis.
        path: The file, for the message.

    Raises:
        ValueError: If there is one plane, or others along another axis.
    """
    long = [letter for letter, size in stack if size > 1]
    if len(long) != 1 or long[0] not in (axis, *_UNNAMED):
        raise ValueError(
            f"{path}: expected planes along {axis} alone. Received {describe_axes(stack)}; save a "
            "stack of its own for each series"
        )


def channels_in_doubt(stack: Stack) -> str:
    """Returns a warning about a few unnamed planes that may be channels, or an empty text.

    Args:
        stack: Letter and size of each plane axis.

    Example:
        >>> channels_in_doubt([("Q", 2)])
        'its 2 pages are read as planes; if they are channels, set --axes CYX'
        >>> channels_in_doubt([("Z", 2)]), channels_in_doubt([("Q", 90)])
        ('', '')
    """
    planes = math.prod(size for _, size in stack)
    is_unnamed = any(axis in _UNNAMED for axis, size in stack if size > 1)
    if not is_unnamed or not 1 < planes <= _FEW:
        return ""
    return f"its {planes} pages are read as planes; if they are channels, set --axes CYX"


def _transpose_planes(expected: Stack, stored: Stack, planes: NDArray[Any]) -> NDArray[Any]:
    size = planes.shape[1:]
    order = [list(stored).index(axis) for axis in expected]
    within = range(len(order), len(order) + len(size))
    hyperstack = planes.reshape(*(length for _, length in stored), *size)
    return hyperstack.transpose(*order, *within).reshape(-1, *size)
