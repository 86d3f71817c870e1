"""Words that messages to a person share."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Says how many there are of something.

    Examples:
        >>> counted(1, "plane"), counted(1200, "plane")
        ('1 plane', '1,200 planes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
