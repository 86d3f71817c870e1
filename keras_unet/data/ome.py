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
    lengths_in,
    of_ome,
    spacing_of_tags,
)
from keras_unet.data.tiffs import TiffImage

_Value = TypeVar("_Value", bound=Hashable)
_Place = tuple[float, str]  # a number and its unit
_NAMELESS = ("", "Image0")  # the second by tifffile, of an image without a name


def spacing_of_tiff(file: tifffile.TiffFile, image: TiffImage) -> Spacing:
    """Reads calibration and place of a TIFF: of OME-XML, of ImageJ, or its resolution tags.

    Where an OME-TIFF consists of several images, what differs among them is not taken for all.

    Args:
        file: The file.
        image: The image that is read of it.
    """
    if not file.is_ome:
        return spacing_of_tags(file)
    try:
        root = ET.fromstring(file.ome_metadata or "")  # noqa: S314 - as tifffile
    except ET.ParseError:
        return Spacing()
    every = [one for one in _children(root, "Image") if any(_children(one, "Pixels"))]
    known = _elements_of(file, image, every)
    stated = _Stated(image, tuple(known or every), is_mapped=known is not None)
    return stated.spacing() if every else Spacing()


def _elements_of(
    file: tifffile.TiffFile, image: TiffImage, every: Sequence[ET.Element]
) -> list[ET.Element] | None:
    """Finds the element of each part of a stack; None where it is not clear which they are."""
    numbers = {id(series): number for number, series in enumerate(file.series)}
    own = [numbers[id(part)] for part in image.parts if id(part) in numbers]
    is_clear = len(every) == len(numbers) and len(own) == len(image.parts)
    return [every[number] for number in own] if is_clear else None


@dataclass(frozen=True)
class _Stated:
    """The elements of the images that a stack consists of.

    Without `is_mapped` it is not known which of them are which planes.
    """

    image: TiffImage
    elements: tuple[ET.Element, ...]
    is_mapped: bool

    @property
    def stack(self) -> list[tuple[str, int]]:
        axes = zip(self.image.axes, self.image.shape, strict=True)
        return [(axis, size) for axis, size in axes if axis not in "YXCS"]

    def spacing(self) -> Spacing:
        name = _same(one.get("Name", "") for one in self.elements) or ""
        found = replace(self._steps(), name="" if name in _NAMELESS else name)
        for letter in "XYZ":
            found = self._placed(found, letter)
        return found

    def _steps(self) -> Spacing:
        """Takes the distances along axes that the stack has, if they are the same in all images."""
        pixels = [next(_children(one, "Pixels")) for one in self.elements]
        long = {axis for axis, size in self.stack if size > 1} | set("XY")
        steps: dict[str, float] = {}
        units: dict[str, str] = {}
        for letter in "XYZT":
            name = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
            step = _same(_number(one.get(name)) for one in pixels)
            unit = _same(one.get(f"{name}Unit", "s" if letter == "T" else "µm") for one in pixels)
            if step and unit and letter in long:
                steps[letter] = step
                units |= {letter: known} if (known := of_ome(unit)) else {}
        return Spacing(steps, {}, units)

    def _placed(self, found: Spacing, letter: str) -> Spacing:
        places = self._places(letter)
        unit = _same(unit for _, unit in places)
        if unit is None:
            return found
        values = tuple(place for place, _ in places)
        factor = lengths_in(of_ome(unit), found.units.get(letter))
        start = None if factor is None else self._start(letter, np.array(values) * factor, found)
        return replace(
            found,
            starts=found.starts if start is None else {**found.starts, letter: start},
            places={**found.places, letter: values},
            place_units={**found.place_units, letter: unit},
        )

    def _start(self, letter: str, values: Any, found: Spacing) -> float | None:
        """Returns the place of the first plane, if those of all others follow from it."""
        first = float(values[0])
        sizes = tuple(size for _, size in self.stack)
        letters = [axis for axis, _ in self.stack]
        offsets = np.zeros(len(values))
        if letter == "Z" and "Z" in letters and (values != first).any():
            offsets = np.indices(sizes)[letters.index("Z")].ravel() * found.steps.get("Z", 0.0)
        is_regular = np.allclose(values, first + offsets, rtol=1e-6, atol=1e-9)
        return first if is_regular else None

    def _places(self, letter: str) -> list[_Place]:
        """Lists the place of each plane along an axis; none where not all of them are known."""
        count = math.prod(size for _, size in self.stack)
        known = [dict(_places_in(one, letter)) for one in self.elements]
        one = _same(place for places in known for place in places.values())
        if one is not None:
            return [one] * count
        if not self.is_mapped or not any(known):
            return []
        found = [known[part].get(number) for part, number in self._numbers()]
        return [place for place in found if place is not None] if None not in found else []

    def _numbers(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yields the part that each plane is of, and its numbers in it; of channels, the first.

        Planes lie in the order of the dimensions, whatever these are called here.
        """
        orders = [_Order.of(one) for one in self.elements]
        axes = [axis for axis in self.image.axes if axis not in "YXS"]
        sizes = [n for a, n in zip(self.image.axes, self.image.shape, strict=True) if a in axes]
        members = self.image.members() if len(self.image.parts) > 1 else None
        for place in np.ndindex(*(1 if a == "C" else n for a, n in zip(axes, sizes, strict=True))):
            if members is None:
                yield 0, orders[0].numbers(place, sizes)
                continue
            part, inside = members[place[0]]
            alone = 1 if inside is None else 0  # whether the part lacks the first axis
            within = place[1:] if alone else (inside or 0, *place[1:])
            own = sizes[1:] if alone else [int(self.image.parts[part].shape[0]), *sizes[1:]]
            yield part, orders[part].numbers(within, own)


@dataclass(frozen=True)
class _Order:
    """The order of an image's planes: sizes of C, Z and T, from the first to the last to run."""

    axes: str
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, image: ET.Element) -> _Order:
        pixels = next(_children(image, "Pixels"))
        axes = pixels.get("DimensionOrder", "XYCZT")[2:]
        samples = next((one.get("SamplesPerPixel") for one in _children(pixels, "Channel")), None)
        sizes = {axis: int(_number(pixels.get(f"Size{axis}")) or 1) for axis in axes}
        sizes["C"] = max(1, sizes.get("C", 1) // int(_number(samples) or 1))
        return cls(axes, tuple(sizes[axis] for axis in axes))

    def numbers(self, place: tuple[int, ...], sizes: Sequence[int]) -> tuple[int, ...]:
        """Returns the numbers of a plane along C, Z and T."""
        plane = int(np.ravel_multi_index(place, sizes)) if sizes else 0
        found = np.unravel_index(min(plane, math.prod(self.sizes) - 1), self.sizes, order="F")
        return tuple(int(found[self.axes.index(axis)]) for axis in "CZT")


def _places_in(image: ET.Element, letter: str) -> Iterator[tuple[tuple[int, ...], _Place]]:
    """Yields the place of each plane, by its numbers along C, Z and T."""
    pixels = next(_children(image, "Pixels"))
    name, is_found = f"Position{letter}", False
    for plane in _children(pixels, "Plane"):
        place = _number(plane.get(name))
        if place is not None:
            is_found = True
            numbers = tuple(int(_number(plane.get(f"The{axis}")) or 0) for axis in "CZT")
            yield numbers, (place, plane.get(f"{name}Unit", REFERENCE_FRAME))
    label = next(_children(image, "StageLabel"), None)
    place = None if label is None or is_found else _number(label.get(letter))
    if label is not None and place is not None:
        sizes = (int(_number(pixels.get(f"Size{axis}")) or 1) for axis in "CZT")
        for numbers in np.ndindex(*sizes):
            yield numbers, (place, label.get(f"{letter}Unit", REFERENCE_FRAME))


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (one for one in element if one.tag.rpartition("}")[2] == name)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _same(values: Iterable[_Value | None]) -> _Value | None:
    """Returns the value that all of them are, or None."""
    found = set(values)
    return found.pop() if len(found) == 1 else None
