"""Headers of PNG files."""

from __future__ import annotations

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MOST_PIXELS = 2**28
"""Largest number of pixels in the header of a PNG, 16384 x 16384."""

HEADER = 26
"""Bytes of the signature, the size, the bit depth and the color type."""

_PALETTE = 3
_PIXELS = b"IDAT"
_ANIMATION = b"acTL"


def has_whole_samples(start: bytes) -> bool:
    """Returns whether a PNG holds grey values or colors of at least 8 bits.

    Args:
        start: First `HEADER` bytes of the file.
    """
    bits, color_type = start[24:26].ljust(2, b"\0")
    return bits >= 8 and color_type != _PALETTE


def levels_of_grey(start: bytes) -> int:
    """Returns the number of grey levels of a PNG of less than 8 bits, and 256 for other files.

    Args:
        start: First `HEADER` bytes of a file, of a PNG or not.
    """
    return int(2 ** start[24]) if start.startswith(SIGNATURE) and start[24] < 8 else 256


def frames(stored: bytes) -> int:
    """Returns the number of images in a PNG, more than one for an animation (APNG).

    Args:
        stored: All bytes of the file.
    """
    chunk = stored.find(_ANIMATION, 0, max(stored.find(_PIXELS), 0))
    return int.from_bytes(stored[chunk + 4 : chunk + 8]) if chunk > 0 else 1


def check_size(start: bytes) -> None:
    """Refuses images of more than `MOST_PIXELS` pixels before memory is allocated.

    Args:
        start: First `HEADER` bytes of the file.

    Raises:
        ValueError: If the header states more.
    """
    width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
    if width * height > MOST_PIXELS:
        raise ValueError(f"it states {width} x {height} pixels, more than {MOST_PIXELS:,}")
