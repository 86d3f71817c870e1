"""The axes that count planes: those of a file, and those of what is made of it."""

from __future__ import annotations

from collections.abc import Sequence


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
