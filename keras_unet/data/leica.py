"""LIF files of Leica, read by `liffile`; the images of a file are images of their own.

The tiles of a mosaic that was not merged are planes along M.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from liffile import LifFile, LifImageABC
from numpy.typing import NDArray

from keras_unet.console import some
from keras_unet.data.calibration import Spacing, conversion_factor, of_ome
from keras_unet.data.scenes import Scene

_log = logging.getLogger(__name__)

_AXES = {"1": "X", "2": "Y", "3": "Z", "4": "T"}  # by the number of a dimension
_DESCRIPTION = "./Data/Image/ImageDescription"
_MOSAIC = "its tiles (M) are read as planes, for they were not merged"


def scenes_of(path: Path) -> list[Scene]:
    """Lists the images of a file that have height and width.

    Raises:
        ValueError: If there is none, or channels differ in their type.
    """
    with LifFile(path) as file:
        images = [image for image in file.images if _is_image(image)]
        others = [image.path for image in file.images if not _is_image(image)]
        if not images:
            raise ValueError("it holds no image with height and width")
        if others:
            _log.warning(f"{path.name}: not read, as they have no height and width: {some(others)}")
        numbers = {image.path: number for number, image in enumerate(file.images)}
        return [_scene(numbers[image.path], image) for image in images]


def read(path: Path, scene: Scene) -> NDArray[Any]:
    """Reads the pixels of an image, with the axes of the scene."""
    with LifFile(path) as file:
        pixels: NDArray[Any] = file.images[scene.number].asarray()
        return pixels


def _is_image(image: LifImageABC) -> bool:
    return not image.is_flim and {"X", "Y"} <= image.sizes.keys()


def _scene(number: int, image: LifImageABC) -> Scene:
    axes = "".join(axis[0] for axis in image.dims)  # channels in two dimensions are C and C1
    steps = dict(_steps(image.xml_element, axes))
    units = {axis: "second" if axis == "T" else "micrometer" for axis in steps}
    names = tuple(_channels(image.xml_element))
    spacing = Spacing(steps, {}, units, name=image.name, channels=names)
    notes = (_MOSAIC,) if "M" in axes else ()
    return Scene(number, axes, image.shape, image.dtype, spacing, notes)


def _steps(element: Element, axes: str) -> Iterator[tuple[str, float]]:
    """Yields the distances between pixels and planes in micrometers, and of frames in seconds."""
    for dimension in element.iterfind(f"{_DESCRIPTION}/Dimensions/DimensionDescription"):
        axis, number = (
            _AXES.get(dimension.get("DimID", "")),
            int(dimension.attrib["NumberOfElements"]),
        )
        unit = of_ome(dimension.get("Unit", ""))
        factor = 1.0 if (axis, unit) == ("T", "second") else conversion_factor(unit, "micrometer")
        length = abs(float(dimension.attrib["Length"]))  # of first to last
        if axis is not None and axis in axes and number > 1 and factor and length > 0:
            yield axis, float(f"{length / (number - 1) * factor:.12g}")


def _channels(element: Element) -> Iterator[str]:
    """Yields the names of the channels: the dye, or the color that it is shown in."""
    for channel in element.iterfind(f"{_DESCRIPTION}/Channels/ChannelDescription"):
        properties = {
            found.findtext("Key", ""): found.findtext("Value", "")
            for found in channel.iterfind("ChannelProperty")
            if found.findtext("Value")
        }
        yield properties.get("DyeName", channel.get("LUTName", ""))
