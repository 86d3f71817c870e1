"""OME-XML of an OME-TIFF: calibration, name, and the position of each plane."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import tifffile

from keras_unet.data.calibration import (
    REFERENCE_FRAME,
    Spacing,
    conversion_factor,
    of_ome,
    spacing_of_tags,
)
from keras_unet.data.tiffs import TiffImage

_Value = TypeVar("_Value", bound=Hashable)
_Position = tuple[float, str]  # a number and its unit
_NAMELESS = ("", "Image0")  # the latter is tifffile's default


def spacing_of_tiff(file: tifffile.TiffFile, image: TiffImage) -> Spacing:
    """Reads calibration and position of a TIFF from OME-XML, ImageJ metadata or resolution tags.

    Values that differ between the images of an OME-TIFF are omitted.

    Args:
        file: The open file.
        image: The image of the file.
    """
    if not file.is_ome:
        return spacing_of_tags(file)
    try:
        root = ET.fromstring(file.ome_metadata or "")  # noqa: S314 - as tifffile
    except ET.ParseError:
        return Spacing()
    every = [element for element in _children(root, "Image") if any(_children(element, "Pixels"))]
    own = _elements_of_parts(file, image, every)
    metadata = _ImageMetadata(image, tuple(own or every), is_mapped=own is not None)
    return metadata.spacing() if every else Spacing()


def _elements_of_parts(
    file: tifffile.TiffFile, image: TiffImage, every: Sequence[ET.Element]
) -> list[ET.Element] | None:
    """Returns the element of each part of a stack; None if the assignment is not clear."""
    numbers = {id(series): number for number, series in enumerate(file.series)}
    own = [numbers[id(part)] for part in image.parts if id(part) in numbers]
    is_clear = len(every) == len(numbers) and len(own) == len(image.parts)
    return [every[number] for number in own] if is_clear else None


@dataclass(frozen=True)
class _ImageMetadata:
    """XML elements of the images of a stack; with `is_mapped`, in the order of its parts."""

    image: TiffImage
    elements: tuple[ET.Element, ...]
    is_mapped: bool

    @property
    def stack(self) -> list[tuple[str, int]]:
        axes = zip(self.image.axes, self.image.shape, strict=True)
        return [(axis, size) for axis, size in axes if axis not in "YXCS"]

    def spacing(self) -> Spacing:
        name = _common(element.get("Name", "") for element in self.elements) or ""
        spacing = replace(
            self._steps(), name="" if name in _NAMELESS else name, channels=self._channels()
        )
        for letter in "XYZ":
            spacing = self._with_positions(spacing, letter)
        return spacing

    def _steps(self) -> Spacing:
        """Reads the distances along the axes of the stack that are the same in all images."""
        pixels = [next(_children(element, "Pixels")) for element in self.elements]
        long = {axis for axis, size in self.stack if size > 1} | set("XY")
        steps: dict[str, float] = {}
        units: dict[str, str] = {}
        for letter in "XYZT":
            name = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
            step = _common(_number(element.get(name)) for element in pixels)
            default = "s" if letter == "T" else "µm"
            unit = _common(element.get(f"{name}Unit", default) for element in pixels)
            if step and unit and letter in long:
                steps[letter] = step
                units |= {letter: known} if (known := of_ome(unit)) else {}
        return Spacing(steps, {}, units)

    def _channels(self) -> tuple[str, ...]:
        """Returns the names of the channels, if they are the same in all images."""
        names = _common(
            tuple(channel.get("Name", "") for channel in _children(pixels, "Channel"))
            for element in self.elements
            for pixels in _children(element, "Pixels")
        )
        return names if names and all(names) else ()

    def _with_positions(self, spacing: Spacing, letter: str) -> Spacing:
        positions = self._positions(letter)
        unit = _common(unit for _, unit in positions)
        if unit is None:
            return spacing
        values = tuple(value for value, _ in positions)
        factor = conversion_factor(of_ome(unit), spacing.units.get(letter))
        start = None if factor is None else self._start(letter, np.array(values) * factor, spacing)
        return replace(
            spacing,
            starts=spacing.starts if start is None else {**spacing.starts, letter: start},
            places={**spacing.places, letter: values},
            place_units={**spacing.place_units, letter: unit},
        )

    def _start(self, letter: str, values: Any, spacing: Spacing) -> float | None:
        """Returns the position of the first plane, if it determines those of all others."""
        first = float(values[0])
        sizes = tuple(size for _, size in self.stack)
        letters = [axis for axis, _ in self.stack]
        offsets = np.zeros(len(values))
        if letter == "Z" and "Z" in letters and (values != first).any():
            offsets = np.indices(sizes)[letters.index("Z")].ravel() * spacing.steps.get("Z", 0.0)
        is_regular = np.allclose(values, first + offsets, rtol=1e-6, atol=1e-9)
        return first if is_regular else None

    def _positions(self, letter: str) -> list[_Position]:
        """Lists the position of each plane along an axis; none unless all are known."""
        count = math.prod(size for _, size in self.stack)
        known = [dict(_read_positions(element, letter)) for element in self.elements]
        common = _common(position for positions in known for position in positions.values())
        if common is not None:
            return [common] * count
        if not self.is_mapped or not any(known):
            return []
        positions = [known[part].get(numbers) for part, numbers in self._plane_numbers()]
        if None in positions:
            return []
        return [position for position in positions if position is not None]

    def _plane_numbers(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yields the part of each plane, and its numbers along C, Z and T; the first channel's."""
        # The order of the planes is that of the dimensions, whatever their letters.
        orders = [_PlaneOrder.of(element) for element in self.elements]
        axes = [axis for axis in self.image.axes if axis not in "YXS"]
        sizes = [n for a, n in zip(self.image.axes, self.image.shape, strict=True) if a in axes]
        members = self.image.members() if len(self.image.parts) > 1 else None
        for place in np.ndindex(*(1 if a == "C" else n for a, n in zip(axes, sizes, strict=True))):
            if members is None:
                yield 0, orders[0].numbers(place, sizes)
                continue
            part, index = members[place[0]]
            if index is None:  # the part lacks the first axis
                yield part, orders[part].numbers(place[1:], sizes[1:])
            else:
                own_sizes = [int(self.image.parts[part].shape[0]), *sizes[1:]]
                yield part, orders[part].numbers((index, *place[1:]), own_sizes)


@dataclass(frozen=True)
class _PlaneOrder:
    """Order of the planes of an image: sizes of C, Z and T, the fastest varying first."""

    axes: str
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, image: ET.Element) -> _PlaneOrder:
        pixels = next(_children(image, "Pixels"))
        axes = pixels.get("DimensionOrder", "XYCZT")[2:]
        channels = _children(pixels, "Channel")
        samples = next((channel.get("SamplesPerPixel") for channel in channels), None)
        sizes = {axis: int(_number(pixels.get(f"Size{axis}")) or 1) for axis in axes}
        sizes["C"] = max(1, sizes.get("C", 1) // int(_number(samples) or 1))
        return cls(axes, tuple(sizes[axis] for axis in axes))

    def numbers(self, place: tuple[int, ...], sizes: Sequence[int]) -> tuple[int, ...]:
        """Returns the numbers of a plane along C, Z and T."""
        plane = int(np.ravel_multi_index(place, sizes)) if sizes else 0
        indices = np.unravel_index(min(plane, math.prod(self.sizes) - 1), self.sizes, order="F")
        return tuple(int(indices[self.axes.index(axis)]) for axis in "CZT")


def _read_positions(image: ET.Element, letter: str) -> Iterator[tuple[tuple[int, ...], _Position]]:
    """Yields the position of each plane with its numbers along C, Z and T."""
    pixels = next(_children(image, "Pixels"))
    name, has_positions = f"Position{letter}", False
    for plane in _children(pixels, "Plane"):
        position = _number(plane.get(name))
        if position is not None:
            has_positions = True
            numbers = tuple(int(_number(plane.get(f"The{axis}")) or 0) for axis in "CZT")
            yield numbers, (position, plane.get(f"{name}Unit", REFERENCE_FRAME))
    label = next(_children(image, "StageLabel"), None)
    position = None if label is None or has_positions else _number(label.get(letter))
    if label is not None and position is not None:
        sizes = (int(_number(pixels.get(f"Size{axis}")) or 1) for axis in "CZT")
        for numbers in np.ndindex(*sizes):
            yield numbers, (position, label.get(f"{letter}Unit", REFERENCE_FRAME))


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _common(values: Iterable[_Value | None]) -> _Value | None:
    """Returns the value if all are equal, or None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
