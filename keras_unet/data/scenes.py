"""Images within one file of a microscope: scenes, positions, series; and the names of their paths.

The images of `a.czi` are called `a_s000.czi`, `a_s001.czi` and so on, counted from 0, unless there
is only one. These paths stand for no files of their own; outputs and labels are named after them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_unet.data.calibration import Spacing

_NUMBERED = re.compile(r"(.+)_s(\d{3,})")


@dataclass(frozen=True, eq=False)
class Scene:
    """One image of a file, without its pixels.

    Attributes:
        number: Number that the file gives it.
        axes: Letter of each dimension, see `keras_unet.data.images.ordered`.
        shape: Sizes of the dimensions.
        dtype: Type of the pixels.
        spacing: Calibration, with the names of image and channels.
        notes: Notes on its content.
    """

    number: int
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: Spacing = field(default_factory=Spacing)
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of the pixels in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def path_of_scene(file: Path, index: int) -> Path:
    """Returns the path of one of several images of a file.

    Args:
        file: Path of the file.
        index: Index of the image, from 0.

    Example:
        >>> path_of_scene(Path("a.czi"), 2).name
        'a_s002.czi'
    """
    return file.with_name(f"{file.stem}_s{index:03d}{file.suffix}")


def file_of(path: Path) -> Path:
    """Returns the file that holds an image: the path itself, or the file of a scene.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     (Path(folder) / "a.czi").touch()
        ...     file_of(Path(folder) / "a_s002.czi").name, file_of(Path(folder) / "b_s002.czi").name
        ('a.czi', 'b_s002.czi')
    """
    return path if index_of_scene(path) is None else _file_named(path)


def index_of_scene(path: Path) -> int | None:
    """Returns the index of an image in its file; None if the path is that of a file, or missing."""
    match = _NUMBERED.fullmatch(path.stem)
    if match is None or path.exists() or not _file_named(path).is_file():
        return None
    return int(match[2])


def _file_named(path: Path) -> Path:
    """Returns the path without the number of the scene."""
    return path.with_name(_NUMBERED.sub(r"\1", path.stem) + path.suffix)
