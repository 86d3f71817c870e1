"""The axes that count planes, and the order of planes by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Stack = Sequence[tuple[str, int]]
"""Letter and size of each axis that counts planes, see `ImageFile`."""

_UNNAMED = "IQ"  # axes of pages of which nobody says what they are
_FEW = 4  # planes that may be channels


def stack_of(axes: str, shape: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    """Lists letter and size of the axes that count planes.

    >>> stack_of("TZCYX", (3, 2, 1, 64, 64))
    (('T', 3), ('Z', 2))
    """
    sizes = zip(axes, shape, strict=True)
    return tuple((axis, size) for axis, size in sizes if axis not in "YXCS")


def axes_of_stack(stack: Sequence[tuple[str, int]]) -> tuple[str, tuple[int, ...]]:
    """Returns the axes of an output for each plane of a stack, and their sizes.

    Time and depth keep their letters, axes of one plane are left out, and an axis without a name is
    depth unless there is one.

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
    """Brings the planes of a file into the order of another's.

    Args:
        model: The file whose order is wanted, and its axes of planes.
        file: The file that is read, and its axes of planes.
        planes: What it holds, `(planes, height, width, ...)`, as many planes as the other.
        content: What it holds in a word, for the message.

    Returns:
        The planes, `(planes, height, width, ...)`.

    Raises:
        ValueError: The axes do not say which planes belong together.
    """
    wanted, stored = ([(axis, size) for axis, size in one[1] if size > 1] for one in (model, file))
    if wanted == stored:
        return planes
    if sorted(wanted) == sorted(stored) and len({axis for axis, _ in wanted}) == len(wanted):
        return _moved(wanted, stored, planes)
    is_named = not any(axis in _UNNAMED for axis, _ in wanted + stored)
    same_sizes = [size for _, size in wanted] == [size for _, size in stored]
    if same_sizes and (len(wanted) == 1 or not is_named):
        return planes
    raise ValueError(
        f"{file[0]}: expected planes along {describe_axes(wanted)} as in {model[0]}, "
        f"received {describe_axes(stored)}: it is not clear which planes belong together. Save "
        f"the {content} with the axes of the other"
    )


def describe_axes(stack: Stack) -> str:
    """Lists axes and their sizes.

    Examples:
        >>> describe_axes([("T", 3), ("Z", 4)]), describe_axes([])
        ('T = 3 x Z = 4', 'one plane')
    """
    return " x ".join(f"{axis} = {size}" for axis, size in stack) or "one plane"


def channels_in_doubt(stack: Stack) -> str:
    """Says of a few planes without a name that they may be channels; nothing of others.

    Args:
        stack: Letter and size of each axis that counts planes.

    Example:
        >>> channels_in_doubt([("Q", 2)])
        'its 2 pages are read as planes; if they are channels, say --axes CYX'
        >>> channels_in_doubt([("Z", 2)]), channels_in_doubt([("Q", 90)])
        ('', '')
    """
    planes = math.prod(size for _, size in stack)
    unnamed = any(axis in _UNNAMED for axis, size in stack if size > 1)
    if not unnamed or not 1 < planes <= _FEW:
        return ""
    return f"its {planes} pages are read as planes; if they are channels, say --axes CYX"


def _moved(wanted: Stack, stored: Stack, planes: NDArray[Any]) -> NDArray[Any]:
    size = planes.shape[1:]
    order = [list(stored).index(one) for one in wanted]
    within = range(len(order), len(order) + len(size))
    apart = planes.reshape(*(length for _, length in stored), *size)
    return apart.transpose(*order, *within).reshape(-1, *size)
