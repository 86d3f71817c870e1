"""Header of a PNG, and the chunks in front of its pixels."""

from __future__ import annotations

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MOST_PIXELS = 2**28
"""Pixels that the header of a PNG may state: those of 16384 x 16384."""

HEADER = 26
"""Bytes in which the signature, the size, the bits and the kind of colors stand."""

_PALETTE = 3
_PIXELS = b"IDAT"
_ANIMATION = b"acTL"


def has_whole_samples(start: bytes) -> bool:
    """Tells whether a PNG holds grey values or colors of at least 8 bits.

    Args:
        start: First `HEADER` bytes of the file.
    """
    bits, color_type = start[24:26].ljust(2, b"\0")
    return bits >= 8 and color_type != _PALETTE


def levels_of_grey(start: bytes) -> int:
    """Returns how many grey values a PNG of less than 8 bits tells apart, and 256 of others.

    Args:
        start: First `HEADER` bytes of a file, of a PNG or not.
    """
    return int(2 ** start[24]) if start.startswith(SIGNATURE) and start[24] < 8 else 256


def frames(stored: bytes) -> int:
    """Returns how many images a PNG holds: several where it is an animation (APNG).

    Args:
        stored: All bytes of the file.
    """
    place = stored.find(_ANIMATION, 0, max(stored.find(_PIXELS), 0))
    return int.from_bytes(stored[place + 4 : place + 8]) if place > 0 else 1


def check_size(start: bytes) -> None:
    """Refuses more pixels than `MOST_PIXELS`, before there is room made for them.

    Args:
        start: First `HEADER` bytes of the file.

    Raises:
        ValueError: The header states more.
    """
    width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
    if width * height > MOST_PIXELS:
        raise ValueError(f"it states {width} x {height} pixels; at most {MOST_PIXELS:,} are read")
