"""Numbers of an image that memory does not hold, kept in a file while they are worked on.

The file has no name: it is gone when the process ends, however that comes about.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, eq=False)
class Scratch:
    """One plane of numbers in a file, read and written by windows of rows and columns.

    Attributes:
        file: The file, unbuffered.
        shape: `(height, width)`, or with more dimensions after these, of which all is read.
        dtype: Of the numbers.
        offset: Where in the file the plane begins, in bytes.
    """

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        """Reads a window. The file is mapped no longer, for what is mapped counts as used."""
        mapped = np.memmap(self.file, self.dtype, "r", self.offset, self.shape)
        return np.array(mapped[window])

    def __setitem__(self, window: tuple[slice, slice], values: NDArray[Any]) -> None:
        """Writes a window; a disk that is full says so here, which a mapped file would not."""
        rows, columns = (range(*part.indices(size)) for part, size in self._spans(window))
        values = np.ascontiguousarray(values, self.dtype)
        pixel = self.dtype.itemsize * math.prod(self.shape[2:])
        whole = len(columns) == self.shape[1]
        for row, line in [(rows.start, values)] if whole else zip(rows, values, strict=True):
            self.file.seek(self.offset + (row * self.shape[1] + columns.start) * pixel)
            _write_all(self.file, line)

    def _spans(self, window: tuple[slice, slice]) -> Iterator[tuple[slice, int]]:
        return zip(window, self.shape[:2], strict=True)


@contextmanager
def scratches(
    folder: Path, planes: int, shape: tuple[int, ...], dtype: DTypeLike
) -> Iterator[list[Scratch]]:
    """Makes room for planes of numbers, all 0, until the body ends.

    Args:
        folder: Where to; it exists.
        planes: How many.
        shape: Of each.
        dtype: Of the numbers.

    Raises:
        OSError: The disk has not so much room.
    """
    kind = np.dtype(dtype)
    size = kind.itemsize * math.prod(shape)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        _reserve(file, planes * size, folder)
        yield [Scratch(file, shape, kind, plane * size) for plane in range(planes)]


def _reserve(file: IO[bytes], size: int, folder: Path) -> None:
    """Takes the room at once, where the system can, rather than run out of it after hours."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise OSError(
            f"{folder}: expected a disk with room for {size / 1e9:,.1f} GB to work in. The system "
            f"said: {error.strerror}. Make room, or choose another folder."
        ) from error


def _write_all(file: IO[bytes], values: NDArray[Any]) -> None:
    left = memoryview(values.tobytes())
    while left:
        left = left[file.write(left) :]
