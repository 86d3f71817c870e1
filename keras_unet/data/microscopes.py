"""Files of microscopes: ND2 of Nikon, CZI of Zeiss and LIF of Leica, of the extra `microscopes`.

A file may hold several images, see `keras_unet.data.scenes`. They are read whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from keras_unet.console import counted
from keras_unet.data.scenes import Scene, file_of, index_of_scene, path_of_scene
from keras_unet.data.tiffs import LARGEST_RATIO, SMALL, check_room

AS_TIFF = "save it as TIFF, such as in Fiji by File > Save As > Tiff"
"""Way out of a format that is not read."""

_FILES = 64  # whose metadata are kept
_START = 16  # bytes that identify a format


@dataclass(frozen=True)
class Format:
    """Format of a microscope's files.

    Attributes:
        name: Name and maker.
        library: Package that reads it.
        module: Module of this package that calls the library.
    """

    name: str
    library: str
    module: str


FORMATS = {
    ".czi": Format("CZI of Zeiss", "pylibCZIrw", "keras_unet.data.zeiss"),
    ".lif": Format("LIF of Leica", "liffile", "keras_unet.data.leica"),
    ".nd2": Format("ND2 of Nikon", "nd2", "keras_unet.data.nikon"),
}
"""Formats by the ending of a file."""


def format_of(start: bytes) -> Format | None:
    """Returns the format of a file by its first bytes; None for any other.

    Example:
        >>> format_of(b"ZISRAWFILE").name, format_of(b"II*")
        ('CZI of Zeiss', None)
    """
    if start.startswith(b"ZISRAWFILE"):
        return FORMATS[".czi"]
    if start.startswith(b"\xda\xce\xbe\x0a"):
        return FORMATS[".nd2"]
    is_lif = start.startswith(b"p\0\0\0") and start[8:9] == b"*"
    return FORMATS[".lif"] if is_lif else None


def holds_scenes(path: Path) -> bool:
    """Returns whether a path is that of a microscope's file, or of a scene in one."""
    file = file_of(path)
    return file.is_file() and format_of(_first_bytes(file)) is not None


def scene_paths(path: Path) -> list[Path]:
    """Lists the images of a file: the path itself, or a path for each of several scenes.

    Args:
        path: An image file of any format.

    Raises:
        ModuleNotFoundError: If the library that reads it is not installed.
        ValueError: If it cannot be read, or another file has the name of one of its scenes.
    """
    if not holds_scenes(path):
        return [path]
    scenes = scenes_of(path)
    if len(scenes) == 1:
        return [path]
    paths = [path_of_scene(path, index) for index in range(len(scenes))]
    if taken := next((scene for scene in paths if scene.exists()), None):
        raise ValueError(
            f"{taken}: expected no file of this name, which is that of an image in {path.name}. "
            "Received one; rename it"
        )
    return paths


def scenes_of(file: Path) -> tuple[Scene, ...]:
    """Reads the metadata of all images of a file.

    Raises:
        ModuleNotFoundError: If the library that reads it is not installed.
        ValueError: If it cannot be read.
    """
    state = file.stat()
    return _scenes_of(file, state.st_size, state.st_mtime_ns)


def find_scene(path: Path) -> Scene:
    """Returns the image that a path stands for.

    Args:
        path: A file with one image, or the path of a scene.

    Raises:
        ModuleNotFoundError: If the library that reads it is not installed.
        ValueError: If there is no such scene, the file has several, or it cannot be read.
    """
    file, index = file_of(path), index_of_scene(path)
    scenes = scenes_of(file)
    if index is None and len(scenes) > 1:
        first, last = (path_of_scene(file, i).name for i in (0, len(scenes) - 1))
        raise ValueError(
            f"{path}: expected the name of one of its {len(scenes)} images, {first} to {last}. "
            "Received that of the file; add the number"
        )
    if (index or 0) >= len(scenes) or (index is not None and len(scenes) == 1):
        images = counted(len(scenes), "image")
        raise ValueError(
            f"{path}: expected the name of an image in {file.name}. Received number {index}, "
            f"counted from 0, of {images}; correct it, or pass the file"
        )
    return scenes[index or 0]


def read_scene(path: Path, scene: Scene) -> NDArray[Any]:
    """Reads the pixels of an image.

    Args:
        path: See `find_scene`.
        scene: Its metadata.

    Returns:
        Array with the axes of the metadata.

    Raises:
        ValueError: If it is larger than memory, or than a file of this size can hold.
    """
    check_room(scene.nbytes)
    file = file_of(path)
    size = file.stat().st_size
    if scene.nbytes > max(SMALL, LARGEST_RATIO * size):
        raise ValueError(f"it states {scene.nbytes:,} bytes of pixels in a file of {size:,} bytes")
    pixels: NDArray[Any] = _reader(file).read(file, scene)
    return pixels


@lru_cache(_FILES)
def _scenes_of(file: Path, _size: int, _time: int) -> tuple[Scene, ...]:
    reader = _reader(file)
    try:
        scenes = tuple(reader.scenes_of(file))
    except Exception as error:  # the libraries raise any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{file}: cannot be read as {_format(file).name} ({reason}). Expected an intact file; "
            f"copy it again, or {AS_TIFF}"
        ) from error
    return scenes


def _reader(file: Path) -> Any:
    """Returns the module that reads a file.

    Raises:
        ModuleNotFoundError: If its library is not installed.
    """
    known = _format(file)
    if find_spec(known.library) is None:
        raise ModuleNotFoundError(
            f"{file}: {known.name} is read by {known.library}, which is not installed; pip install "
            f'".[microscopes]", or {AS_TIFF}'
        )
    return import_module(known.module)


def _format(file: Path) -> Format:
    known = format_of(_first_bytes(file))
    if known is None:
        raise ValueError(f"{file}: expected CZI, LIF or ND2. Received another format")
    return known


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_START)
