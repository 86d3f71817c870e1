"""Numbers of an image with a palette: intensities, or places in a list of colours.

Microscopes' programs colour a grey image by a table from dark to bright, and the number is the
intensity. Programs for photographs reduce an image to a few colours, whose order means nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMOOTH = 32  # of 255, from one colour of a table of intensities to the next
_MOSTLY = 0.9


def table_of(colours: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """Returns what to take in place of each number of an image; None where it is the intensity.

    Args:
        colours: Red, green and blue of each number, `(numbers, 3)`, or None without a palette.

    Returns:
        Grey values `(numbers, 1)` or colours `(numbers, 3)`.

    Examples:
        >>> ramp = np.arange(256, dtype=np.uint8)
        >>> table_of(np.stack([0 * ramp, ramp, 0 * ramp], axis=-1)) is None
        True
        >>> table_of(np.array([[255, 255, 255], [0, 0, 0]], np.uint8)).tolist()
        [[255], [0]]
    """
    if colours is None:
        return None
    if (colours == colours[:, :1]).all():
        is_itself = bool((colours[:, 0] == np.arange(len(colours))).all())
        return None if is_itself else colours[:, :1]
    steps = np.abs(np.diff(_used(colours).astype(int), axis=0)).max(axis=1)
    is_ramp = steps.size >= _SMOOTH and np.mean(steps <= _SMOOTH) >= _MOSTLY
    return None if is_ramp else colours


def _used(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cuts off what only fills the table: the last colour, again and again."""
    differs = np.flatnonzero((colours != colours[-1]).any(axis=1))
    return colours[: differs[-1] + 2] if differs.size else colours[:1]
