"""Calibration: the distances between pixels, planes and frames that an image file states.

And where it lies: on a stage, or in a larger image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import RESUNIT

_MICROMETERS = {RESUNIT.CENTIMETER: 1e4, RESUNIT.INCH: 2.54e4}
_MOST_AXES = 5
_UNCALIBRATED = ("", "pixel", "pixels")


@dataclass(frozen=True)
class Spacing:
    """Pixel sizes, positions and units of an image as its file states them; a letter for each axis.

    Attributes:
        steps: Distances from one pixel (X, Y), plane (Z) or frame (T) to the next.
        starts: Places of the first pixel, where they are the same for all planes, in the unit of
            the steps.
        units: Units of both, such as "micrometer" and "second".
        places: Places of each plane, in the order of the planes, as an OME-TIFF states them.
        place_units: Units of these, as OME-XML writes them.
        name: Name of the image, where its file gives it one.
        channels: Names of the channels, where what is written has some.
    """

    steps: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    place_units: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    channels: tuple[str, ...] = ()

    def of_axes(self, axes: str) -> Spacing:
        """Returns the calibration of some axes alone; planes stay where they are."""
        return replace(
            self,
            steps={axis: step for axis, step in self.steps.items() if axis in axes},
            starts={axis: start for axis, start in self.starts.items() if axis in axes},
            units={axis: unit for axis, unit in self.units.items() if axis in axes},
        )

    @property
    def is_placed(self) -> bool:
        """Tells whether the file states the position of the image."""
        return bool(self.places) or any(self.starts.values())

    def not_in_zarr(self, axes: str) -> list[str]:
        """Lists the axes along which OME-Zarr of some axes does not say where the planes lie.

        It has one place for an image, in the unit of its pixels.
        """
        return [axis for axis in self.places if axis not in axes or axis not in self.starts]


def spacing_of_tags(file: tifffile.TiffFile) -> Spacing:
    """Reads the calibration of ImageJ, or the resolution tags of any other TIFF but OME-TIFF."""
    if file.is_imagej:
        return _of_imagej(file)
    page = file.pages.first
    factor = _MICROMETERS.get(_tag(page, "ResolutionUnit", RESUNIT.NONE))
    return _of_resolution(page, "micrometer", factor) if factor else Spacing()


def tiff_options(
    spacing: Spacing, axes: str, shape: tuple[int, ...], imagej_dtype: Any = None
) -> dict[str, Any]:
    """Returns the arguments with which tifffile writes axes, calibration and place.

    Fiji reads them of ImageJ's form, which has no 32-bit integers, no place and one order of axes;
    all other calibrated images are written as OME-TIFF. Without calibration, the axes alone are
    recorded.

    Args:
        spacing: The calibration.
        axes: A letter for each dimension, of which the last two are "YX".
        shape: Sizes of the dimensions.
        imagej_dtype: Type of the pixels if ImageJ's form may be taken, which is no BigTIFF.
    """
    spacing = _possible(spacing.of_axes(axes))
    if not spacing.steps and not spacing.is_placed:
        if set(axes) <= set("ZCYX") or not _fits_imagej(axes, imagej_dtype):
            return {"metadata": {"axes": axes}}
        return {"imagej": True, "metadata": {"axes": axes}}
    if _fits_imagej(axes, imagej_dtype) and _one_unit(spacing):
        return _as_imagej(spacing, axes)
    return _as_ome(spacing, axes, shape)


def _possible(spacing: Spacing) -> Spacing:
    """Leaves out what no TIFF states: distances of 0 or less, and times in no unit it knows."""
    has_time = to_ome(spacing.units.get("T")) != REFERENCE_FRAME
    spacing = spacing if has_time else spacing.of_axes("ZYX")
    steps = {axis: step for axis, step in spacing.steps.items() if 0 < step < math.inf}
    return replace(spacing, steps=steps)


def _fits_imagej(axes: str, dtype: Any) -> bool:
    order = [letter for letter in "TZCYX" if letter in axes]
    return "".join(order) == axes and str(dtype) in ("uint8", "uint16", "float32")


def _one_unit(spacing: Spacing) -> bool:
    units = {spacing.units.get(letter) for letter in "ZYX" if letter in spacing.steps}
    seconds = spacing.units.get("T", "second") == "second"
    return len(units) <= 1 and seconds and not spacing.is_placed


def _as_imagej(spacing: Spacing, axes: str) -> dict[str, Any]:
    unit = next((spacing.units[one] for one in "XYZ" if one in spacing.units), None)
    metadata: dict[str, Any] = {"axes": axes}
    if unit is not None:
        metadata["unit"] = to_imagej(unit)
    if "Z" in spacing.steps:
        metadata["spacing"] = spacing.steps["Z"]
    if "T" in spacing.steps:
        metadata["finterval"] = spacing.steps["T"]
    resolution = tuple(1 / spacing.steps.get(letter, 1.0) for letter in "XY")
    return {"imagej": True, "resolution": resolution, "metadata": metadata}


def _as_ome(spacing: Spacing, axes: str, shape: tuple[int, ...]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": axes}
    if spacing.name.isprintable() and spacing.name:
        metadata["Name"] = spacing.name
    if spacing.channels and "C" in axes:
        metadata["Channel"] = {"Name": list(spacing.channels)}
    for letter, step in spacing.steps.items():
        name = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
        metadata[name] = step
        metadata[f"{name}Unit"] = to_ome(spacing.units.get(letter))
    if spacing.is_placed:
        metadata["Plane"] = _planes(spacing, axes, shape)
    if axes.count("Q") > 1 or len(axes) > _MOST_AXES:  # which OME-TIFF does not have
        return {"metadata": metadata, **_resolution(spacing)}
    return {"ome": True, "metadata": metadata}


def _resolution(spacing: Spacing) -> dict[str, Any]:
    """States the distance of pixels in the tags of any TIFF, in pixels a centimeter."""
    found = [lengths_in(spacing.units.get(axis), "centimeter") for axis in "XY"]
    if None in found or not set("XY") <= spacing.steps.keys():
        return {}
    pairs = zip("XY", found, strict=True)
    resolution = tuple(1 / (spacing.steps[axis] * (factor or 1.0)) for axis, factor in pairs)
    return {"resolution": resolution, "resolutionunit": RESUNIT.CENTIMETER}


def _planes(spacing: Spacing, axes: str, shape: tuple[int, ...]) -> dict[str, list[Any]]:
    """Lists the place of each page; pages that are channels of one plane have one."""
    stack = tuple(1 if axis == "C" else size for axis, size in zip(axes, shape, strict=True))[:-2]
    found: dict[str, list[Any]] = {}
    for letter in "XYZT":
        if letter in spacing.places:
            of_planes, unit = np.array(spacing.places[letter]), spacing.place_units[letter]
        elif spacing.starts.get(letter) or (letter != "T" and letter in spacing.starts):
            of_planes = _regular(spacing, letter, axes, stack)
            unit = to_ome(spacing.units.get(letter))
        else:
            continue
        pages = np.broadcast_to(of_planes.reshape(stack), shape[:-2]).ravel().tolist()
        name = "DeltaT" if letter == "T" else f"Position{letter}"
        found |= {name: pages, f"{name}Unit": [unit] * len(pages)}
    return found


def _regular(
    spacing: Spacing, letter: str, axes: str, stack: tuple[int, ...]
) -> NDArray[np.float64]:
    """Computes the places of planes that follow each other at equal distances along their axis."""
    place = np.indices(stack)[axes.index(letter)] if letter in axes[:-2] else np.zeros(stack)
    places: NDArray[np.float64] = spacing.starts[letter] + place * spacing.steps.get(letter, 0.0)
    return places


def _of_imagej(file: tifffile.TiffFile) -> Spacing:
    stated = file.imagej_metadata or {}
    unit = of_imagej(str(stated.get("unit", "")))
    found = _of_resolution(file.pages.first, unit, 1.0) if unit not in _UNCALIBRATED else Spacing()
    steps, units = dict(found.steps), dict(found.units)
    if unit not in _UNCALIBRATED and "spacing" in stated:
        steps["Z"], units["Z"] = float(stated["spacing"]), unit
    if stated.get("finterval"):
        steps["T"] = float(stated["finterval"])
        units["T"] = time_of_imagej(str(stated.get("tunit", "sec")))
    return Spacing(steps, {}, units)


def _of_resolution(page: Any, unit: str, factor: float) -> Spacing:
    steps = {}
    for letter in "XY":
        number, per = _tag(page, f"{letter}Resolution", (0, 1))
        if number and per:
            steps[letter] = factor * per / number
    return Spacing(steps, {}, dict.fromkeys(steps, unit))


def _tag(page: Any, name: str, default: Any) -> Any:
    tag = page.tags.get(name)
    return default if tag is None else tag.value


REFERENCE_FRAME = "reference frame"
"""OME-XML's word for a unit that is not known."""

_PREFIXES = {"yotta": ("Y", 24), "zetta": ("Z", 21), "exa": ("E", 18), "peta": ("P", 15)}
_PREFIXES |= {"tera": ("T", 12), "giga": ("G", 9), "mega": ("M", 6), "kilo": ("k", 3)}
_PREFIXES |= {"hecto": ("h", 2), "": ("", 0), "deci": ("d", -1), "centi": ("c", -2)}
_PREFIXES |= {"milli": ("m", -3), "micro": ("µ", -6), "nano": ("n", -9), "pico": ("p", -12)}
_PREFIXES |= {"femto": ("f", -15), "atto": ("a", -18), "zepto": ("z", -21), "yocto": ("y", -24)}
_OTHERS = {"inch": "in", "foot": "ft", "yard": "yd", "mile": "mi.", "parsec": "pc"}
_OTHERS |= {"angstrom": "Å", "minute": "min", "hour": "h", "day": "d"}
_OME = {
    f"{prefix}{unit}": f"{short}{letter}"
    for prefix, (short, _) in _PREFIXES.items()
    for unit, letter in (("meter", "m"), ("second", "s"))
} | _OTHERS
_OF_OME = {short: name for name, short in _OME.items()}
_METERS = {f"{prefix}meter": 10.0**power for prefix, (_, power) in _PREFIXES.items()}
_METERS |= {"inch": 0.0254, "foot": 0.3048, "yard": 0.9144, "mile": 1609.344, "angstrom": 1e-10}

_IMAGEJ = {"um": "micrometer", "µm": "micrometer", "micron": "micrometer", "nm": "nanometer"}
_IMAGEJ |= {"mm": "millimeter", "cm": "centimeter", "m": "meter", "\\u00B5m": "micrometer"}
_IMAGEJ |= {"microns": "micrometer", "micrometer": "micrometer"}
_IMAGEJ |= {"inch": "inch", "inches": "inch"}
_IMAGEJ_TIMES = {"sec": "second", "s": "second", "ms": "millisecond", "msec": "millisecond"}
_IMAGEJ_TIMES |= {"min": "minute", "h": "hour", "hour": "hour"}


def to_ome(unit: str | None) -> str:
    """Returns how OME-XML writes a unit; one that it does not know is `REFERENCE_FRAME`.

    >>> to_ome("micrometer"), to_ome("microsecond"), to_ome(None)
    ('µm', 'µs', 'reference frame')
    """
    return _OME.get(unit or "", REFERENCE_FRAME)


def of_ome(unit: str) -> str | None:
    """Returns the name of a unit of OME-XML; None for pixels and the like, which are none.

    >>> of_ome("µm"), of_ome("pixel")
    ('micrometer', None)
    """
    return _OF_OME.get(unit)


def to_imagej(unit: str) -> str:
    """Returns how ImageJ writes a unit of length, in ASCII.

    >>> to_imagej("micrometer"), to_imagej("nanometer"), to_imagej("angstrom")
    ('um', 'nm', 'angstrom')
    """
    short = "um" if unit == "micrometer" else _OME.get(unit, unit)
    return short if short.isascii() else unit


def of_imagej(unit: str) -> str:
    """Returns the name of ImageJ's unit of length; one that is not known stays as it is."""
    return _IMAGEJ.get(unit) or of_ome(unit) or unit


def time_of_imagej(unit: str) -> str:
    """Returns the name of ImageJ's unit of time; one that is not known stays as it is."""
    return _IMAGEJ_TIMES.get(unit, unit)


def lengths_in(unit: str | None, other: str | None) -> float | None:
    """Returns how many of `other` a unit of length is, or None where that is not known.

    >>> lengths_in("millimeter", "micrometer"), lengths_in(None, "micrometer")
    (1000.0, None)
    """
    if unit is not None and unit == other:
        return 1.0
    if unit in _METERS and other in _METERS:
        return float(f"{_METERS[unit] / _METERS[other]:.12g}")  # 1000, not 999.9999999999999
    return None
