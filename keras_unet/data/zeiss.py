"""CZI files of Zeiss, read by `pylibCZIrw`; the scenes of a file are images of their own.

The tiles of a mosaic are stitched by the library, and pyramids are read at full resolution.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pylibCZIrw import czi

from keras_unet.data.calibration import Spacing
from keras_unet.data.scenes import Scene

_PLANES = "TZ"
_WHOLE = -1  # number of the image of a file without scenes
_MICROMETERS = 1e6  # in a meter
_COLORS = 3
_DIMENSIONS = "TZCRIHVB"
_TYPES = {"Gray8": "u1", "Gray16": "u2", "Gray32Float": "f4", "Bgr24": "u1", "Bgr48": "u2"}

Planes = Mapping[str, Sequence[int]]
"""Coordinates of the planes of a scene along each dimension."""


def scenes_of(path: Path) -> list[Scene]:
    """Lists the scenes of a file.

    Raises:
        ValueError: If planes are missing, or lie along other dimensions than time and depth, or the
            pixels are of an unknown type.
    """
    with czi.open_czi(str(path)) as file:
        metadata = ET.fromstring(file.raw_metadata)  # noqa: S314 - parsed as by the library
        names = _names_of_scenes(metadata)
        return [
            _scene(file, metadata, number, planes, names.get(number, ""))
            for number, planes in _planes_of_scenes(file).items()
        ]


def read(path: Path, scene: Scene) -> NDArray[Any]:
    """Reads the pixels of a scene, with its axes."""
    pixels = np.empty(scene.shape, scene.dtype)
    with czi.open_czi(str(path)) as file:
        planes, box = _planes_of_scenes(file)[scene.number], _box(file, scene.number)
        number = None if scene.number == _WHOLE else scene.number
        letters = scene.axes[:-3]
        for index in np.ndindex(scene.shape[: len(letters)]):
            place = {axis: values[0] for axis, values in planes.items()}
            place |= {axis: planes[axis][i] for axis, i in zip(letters, index, strict=True)}
            channels = [
                _in_order_of_colors(file.read(box, {**place, "C": channel}, number))
                for channel in planes["C"]
            ]
            np.concatenate(channels, axis=-1, out=pixels[index])
    return pixels


def _scene(
    file: czi.CziReader, metadata: ET.Element, number: int, planes: Planes, name: str
) -> Scene:
    samples, dtype = _pixels([file.get_channel_pixel_type(channel) for channel in planes["C"]])
    long = {axis: len(planes[axis]) for axis in _PLANES if len(planes[axis]) > 1}
    box, letters = _box(file, number), "".join(long)
    spacing = _spacing(metadata, letters, name, samples)
    return Scene(number, f"{letters}YXC", (*long.values(), box.h, box.w, samples), dtype, spacing)


def _box(file: czi.CziReader, number: int) -> Any:
    """Returns position and size of a scene at full resolution."""
    scenes = file.scenes_bounding_rectangle_no_pyramid
    return file.total_bounding_rectangle_no_pyramid if number == _WHOLE else scenes[number]


def _pixels(kinds: Sequence[str]) -> tuple[int, np.dtype[Any]]:
    """Returns number and type of the samples of a pixel, over all channels."""
    unknown = [kind for kind in kinds if kind not in _TYPES]
    if unknown:
        raise ValueError(f"it holds pixels of the type {unknown[0]}")
    samples = sum(_COLORS if kind.startswith("Bgr") else 1 for kind in kinds)
    return samples, np.result_type(*(np.dtype(_TYPES[kind]) for kind in kinds))


def _in_order_of_colors(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns red, green, blue for the blue, green, red of a file."""
    return pixels[..., ::-1] if pixels.shape[-1] == _COLORS else pixels


def _planes_of_scenes(file: czi.CziReader) -> dict[int, Planes]:
    """Returns the planes of each scene, of which none is missing."""
    has_scenes = bool(file.scenes_bounding_rectangle_no_pyramid)
    places: dict[int, set[tuple[int, ...]]] = defaultdict(set)
    for coordinate in _coordinates(file):
        number = coordinate.get("S", _WHOLE) if has_scenes else _WHOLE
        places[number].add(tuple(coordinate.get(axis, 0) for axis in _DIMENSIONS))
    return {number: _planes(found) for number, found in sorted(places.items())}


def _planes(places: set[tuple[int, ...]]) -> Planes:
    values = (sorted(set(numbers)) for numbers in zip(*places, strict=True))
    planes = dict(zip(_DIMENSIONS, values, strict=True))
    others = [axis for axis in _DIMENSIONS[3:] if len(planes[axis]) > 1]
    if others:
        raise ValueError(
            f"its planes lie along {', '.join(others)} (rotation R, illumination I, phase H, view "
            "V), not only along T, Z and C; save one of them"
        )
    stated = math.prod(map(len, planes.values()))
    if len(places) < stated:
        raise ValueError(
            f"it holds {len(places):,} of {stated:,} planes: the recording was stopped"
        )
    return planes


def _coordinates(file: czi.CziReader) -> list[dict[str, int]]:
    """Lists the coordinates of the blocks of full resolution."""
    found: list[dict[str, int]] = []

    def add(_index: int, block: Any) -> bool:
        found.append(block.coordinate.to_dict())
        return True

    file.enumerate_subblocks_subset(add, only_layer0=True)
    return found


def _spacing(metadata: ET.Element, planes: str, name: str, samples: int) -> Spacing:
    steps, units = {}, {}
    for distance in metadata.iterfind(".//Scaling/Items/Distance"):
        axis, step = distance.get("Id", ""), _number(distance.findtext("Value"))
        if axis in f"XY{planes}" and axis in "XYZ" and step > 0:
            steps[axis], units[axis] = float(f"{step * _MICROMETERS:.12g}"), "micrometer"
    interval = _number(metadata.findtext(".//Dimensions/T/Positions/Interval/Increment"))
    if "T" in planes and interval > 0:
        steps["T"], units["T"] = interval, "second"
    channels = metadata.iterfind(".//Information/Image/Dimensions/Channels/Channel")
    names = tuple(channel.get("Name", channel.get("Id", "")) for channel in channels)
    return Spacing(steps, {}, units, name=name, channels=names if len(names) == samples else ())


def _names_of_scenes(metadata: ET.Element) -> dict[int, str]:
    scenes = metadata.iterfind(".//Information/Image/Dimensions/S/Scenes/Scene")
    return {int(scene.get("Index", 0)): scene.get("Name", "") for scene in scenes}


def _number(text: str | None) -> float:
    """Returns the number in a text; 0 if there is none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
