"""Words that messages to a person share."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Says how many there are of something.

    Examples:
        >>> counted(1, "plane"), counted(1200, "plane")
        ('1 plane', '1,200 planes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """Lists the first of many names, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shortened(name: str, room: int) -> str:
    """Leaves out the middle of a name that is too long: names differ at either end.

    Example:
        >>> shortened("abcdefgh", 5), shortened("abc", 5)
        ('ab…gh', 'abc')
    """
    if len(name) <= room:
        return name
    end = (room - 1) // 2
    return f"{name[: room - 1 - end]}…{name[-end:]}"
