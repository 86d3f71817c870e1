"""What is drawn, and what writes it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 20, 26


def drawn(*stack: int, channels: int = 1, seed: int = 0) -> NDArray[Any]:
    """Draws planes, `(*stack, height, width, channels)`, uint8."""
    shape = (*stack, HEIGHT, WIDTH, channels)
    return np.random.default_rng(seed).integers(0, 250, shape).astype(np.uint8)


def wide(planes: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Spreads drawn planes over the range of another type, below 0 as well where it has a sign."""
    low = np.iinfo(dtype).min // 2 if np.dtype(dtype).kind == "i" else 0
    step = 257 if np.dtype(dtype).itemsize > 1 else 1
    return (planes.astype(np.int64) * step // (2 if low else 1) + max(low, -9000)).astype(dtype)


def mask() -> NDArray[np.bool_]:
    """Draws a mask that covers a fifth."""
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[3:11, 4:17] = True
    return found


class Form(NamedTuple):
    """A form of file.

    Attributes:
        written: Writes it to a path, and returns the planes that are right.
        ending: Ending of the file.
        what: What is read of it, in words.
        by: What writes it.
        needs: Debian's program that the test needs.
    """

    written: Callable[[Path], NDArray[Any]]
    ending: str
    what: str
    by: str = "tifffile"
    needs: str | None = None


def run(*command: object) -> None:
    """Runs a program of libtiff, whose warnings go nowhere."""
    found = shutil.which(str(command[0]))
    subprocess.run([str(found), *map(str, command[1:])], check=True, stderr=subprocess.DEVNULL)
