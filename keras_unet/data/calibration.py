"""Calibration: the distances between pixels, planes and frames that an image file states."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tifffile
from tifffile import RESUNIT

_MICROMETRES = {RESUNIT.CENTIMETER: 1e4, RESUNIT.INCH: 2.54e4}
_IMAGEJ_UNITS = {"um": "micrometer", "µm": "micrometer", "micron": "micrometer", "nm": "nanometer"}
_IMAGEJ_UNITS |= {"mm": "millimeter", "cm": "centimeter", "m": "meter", "\\u00B5m": "micrometer"}
_IMAGEJ_UNITS |= {"microns": "micrometer", "micrometer": "micrometer"}
_IMAGEJ_UNITS |= {"inch": "inch", "inches": "inch"}
_IMAGEJ_TIMES = {"sec": "second", "s": "second", "ms": "millisecond", "msec": "millisecond"}
_IMAGEJ_TIMES |= {"min": "minute", "h": "hour", "hour": "hour"}
_UNCALIBRATED = ("", "pixel", "pixels")
_OME_UNITS = {
    "inch": "in",
    "micrometer": "µm",
    "nanometer": "nm",
    "millimeter": "mm",
    "centimeter": "cm",
}
_OME_UNITS |= {"meter": "m", "second": "s", "millisecond": "ms", "minute": "min", "hour": "h"}
_OF_OME_UNITS = {short: long for long, short in _OME_UNITS.items()}


@dataclass(frozen=True)
class Spacing:
    """Where the pixels of an image lie, as far as its file says so; a letter for each axis.

    Attributes:
        steps: Distances from one pixel (X, Y), plane (Z) or frame (T) to the next.
        starts: Places of the first pixel.
        units: Units of both, such as "micrometer" and "second".
    """

    steps: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def of_axes(self, axes: str) -> Spacing:
        """Returns the calibration of some axes alone."""
        return Spacing(
            {axis: step for axis, step in self.steps.items() if axis in axes},
            {axis: start for axis, start in self.starts.items() if axis in axes},
            {axis: unit for axis, unit in self.units.items() if axis in axes},
        )


def spacing_of_tiff(file: tifffile.TiffFile) -> Spacing:
    """Reads the calibration of an OME-TIFF, of ImageJ, or the resolution tags of any other TIFF."""
    if file.is_ome:
        return _of_ome(file.ome_metadata or "")
    if file.is_imagej:
        return _of_imagej(file)
    page = file.pages.first
    factor = _MICROMETRES.get(_tag(page, "ResolutionUnit", RESUNIT.NONE))
    return _of_resolution(page, "micrometer", factor) if factor else Spacing()


def tiff_options(spacing: Spacing, axes: str, imagej_dtype: Any = None) -> dict[str, Any]:
    """Returns the arguments with which tifffile writes axes and calibration.

    Fiji reads them of ImageJ's form, which has no 32-bit integers and one order of axes; all other
    calibrated images are written as OME-TIFF. Without calibration, the axes alone are recorded.

    Args:
        spacing: The calibration.
        axes: A letter for each dimension.
        imagej_dtype: Type of the pixels if ImageJ's form may be taken, which is no BigTIFF.
    """
    spacing = spacing.of_axes(axes)
    if not spacing.steps:
        if set(axes) <= set("ZCYX") or not _fits_imagej(axes, imagej_dtype):
            return {"metadata": {"axes": axes}}
        return {"imagej": True, "metadata": {"axes": axes}}
    if _fits_imagej(axes, imagej_dtype) and _one_unit(spacing):
        return _as_imagej(spacing, axes)
    return _as_ome(spacing, axes)


def _fits_imagej(axes: str, dtype: Any) -> bool:
    order = [letter for letter in "TZCYX" if letter in axes]
    return "".join(order) == axes and str(dtype) in ("uint8", "uint16", "float32")


def _one_unit(spacing: Spacing) -> bool:
    units = {spacing.units.get(letter) for letter in "ZYX" if letter in spacing.steps}
    seconds = spacing.units.get("T", "second") == "second"
    return len(units) <= 1 and seconds and not any(spacing.starts.values())


def _as_imagej(spacing: Spacing, axes: str) -> dict[str, Any]:
    unit = next((spacing.units[one] for one in "XYZ" if one in spacing.units), None)
    metadata: dict[str, Any] = {"axes": axes}
    if unit is not None:
        metadata["unit"] = "um" if unit == "micrometer" else _OME_UNITS.get(unit, unit)
    if "Z" in spacing.steps:
        metadata["spacing"] = spacing.steps["Z"]
    if "T" in spacing.steps:
        metadata["finterval"] = spacing.steps["T"]
    resolution = tuple(1 / spacing.steps.get(letter, 1.0) for letter in "XY")
    return {"imagej": True, "resolution": resolution, "metadata": metadata}


def _as_ome(spacing: Spacing, axes: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": axes}
    for letter, step in spacing.steps.items():
        name = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
        unit = spacing.units.get(letter)
        metadata[name] = step
        if unit is not None:
            metadata[f"{name}Unit"] = _OME_UNITS.get(unit, unit)
    return {"ome": True, "metadata": metadata}


def _of_imagej(file: tifffile.TiffFile) -> Spacing:
    stated = file.imagej_metadata or {}
    name = str(stated.get("unit", ""))
    unit = _IMAGEJ_UNITS.get(name, name)
    found = _of_resolution(file.pages.first, unit, 1.0) if unit not in _UNCALIBRATED else Spacing()
    steps, units = dict(found.steps), dict(found.units)
    if unit not in _UNCALIBRATED and "spacing" in stated:
        steps["Z"], units["Z"] = float(stated["spacing"]), unit
    if stated.get("finterval"):
        steps["T"] = float(stated["finterval"])
        named = str(stated.get("tunit", "sec"))
        units["T"] = _IMAGEJ_TIMES.get(named, named)
    return Spacing(steps, {}, units)


def _of_resolution(page: Any, unit: str, factor: float) -> Spacing:
    steps = {}
    for letter in "XY":
        number, per = _tag(page, f"{letter}Resolution", (0, 1))
        if number and per:
            steps[letter] = factor * per / number
    return Spacing(steps, {}, dict.fromkeys(steps, unit))


def _of_ome(text: str) -> Spacing:
    try:
        found = [one for one in ET.fromstring(text).iter() if one.tag.endswith("Pixels")]  # noqa: S314 - as tifffile
    except ET.ParseError:
        return Spacing()
    steps, units = {}, {}
    for letter in "XYZT":
        name = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
        stated = found[0].get(name) if found else None
        if stated is not None:
            steps[letter] = float(stated)
            unit = found[0].get(f"{name}Unit", "s" if letter == "T" else "µm")
            units[letter] = _OF_OME_UNITS.get(unit, unit)
    return Spacing(steps, {}, units)


def _tag(page: Any, name: str, default: Any) -> Any:
    tag = page.tags.get(name)
    return default if tag is None else tag.value
