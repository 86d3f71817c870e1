"""Calibration of images: distances between pixels, planes and frames, positions, and units."""

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
_LARGEST_PIXEL = 20.0  # micrometers; programs write 72 to 1200 dpi, for printing, into any TIFF


@dataclass(frozen=True)
class Spacing:
    """Pixel sizes, positions and units of an image by the letters of its axes.

    Attributes:
        steps: Distances between pixels (X, Y), planes (Z) or frames (T).
        starts: Positions of the first pixel, if they are the same for all planes, in the units of
            the steps.
        units: Units of steps and starts, such as "micrometer" and "second".
        places: Positions of each plane, in the order of the planes, from an OME-TIFF.
        place_units: Units of the positions, as in OME-XML.
        name: Name of the image, or an empty text.
        channels: Names of the channels, as far as the file states them; or those of an output.
    """

    steps: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    place_units: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    channels: tuple[str, ...] = ()

    def of_axes(self, axes: str) -> Spacing:
        """Returns the calibration restricted to some axes, with the positions of planes."""
        return replace(
            self,
            steps={axis: step for axis, step in self.steps.items() if axis in axes},
            starts={axis: start for axis, start in self.starts.items() if axis in axes},
            units={axis: unit for axis, unit in self.units.items() if axis in axes},
        )

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Height and width of a pixel in micrometers; None if the file does not state them.

        Sizes above 20 micrometers are those of prints, 72 to 1200 dpi, and count as not stated.

        >>> Spacing({"Y": 500, "X": 500}, {}, {"Y": "nanometer", "X": "nanometer"}).pixel_size
        (0.5, 0.5)
        """
        sizes = [self._micrometers(axis) for axis in "YX"]
        if not all(0 < size <= _LARGEST_PIXEL for size in sizes):
            return None
        return sizes[0], sizes[1]

    def _micrometers(self, axis: str) -> float:
        factor = conversion_factor(self.units.get(axis), "micrometer")
        return 0.0 if factor is None else factor * self.steps.get(axis, 0.0)

    @property
    def is_placed(self) -> bool:
        """True if the file states the position of the image."""
        return bool(self.places) or any(self.starts.values())

    def not_in_zarr(self, axes: str) -> list[str]:
        """Lists the axes whose positions OME-Zarr, with one position per image, cannot record."""
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
    """Returns the arguments for tifffile to write axes, calibration and position.

    The format is ImageJ's, for Fiji, where possible: it has no 32-bit integers, no positions and
    one order of axes. Other calibrated images are written as OME-TIFF. Without calibration only the
    axes are recorded.

    Args:
        spacing: Calibration.
        axes: Letter of each dimension; the last two are "YX".
        shape: Sizes of the dimensions.
        imagej_dtype: Type of the pixels if ImageJ's format, which is no BigTIFF, is allowed.
    """
    spacing = _valid_in_tiff(spacing.of_axes(axes))
    if not spacing.steps and not spacing.is_placed:
        if set(axes) <= set("ZCYX") or not _fits_imagej(axes, imagej_dtype):
            return {"metadata": {"axes": axes}}
        return {"imagej": True, "metadata": {"axes": axes}}
    if _fits_imagej(axes, imagej_dtype) and _has_one_unit(spacing):
        return _imagej_options(spacing, axes)
    return _ome_options(spacing, axes, shape)


def _valid_in_tiff(spacing: Spacing) -> Spacing:
    """Drops distances of 0 or less, and times in unknown units."""
    has_time = to_ome(spacing.units.get("T")) != REFERENCE_FRAME
    spacing = spacing if has_time else spacing.of_axes("ZYX")
    steps = {axis: step for axis, step in spacing.steps.items() if 0 < step < math.inf}
    return replace(spacing, steps=steps)


def _fits_imagej(axes: str, dtype: Any) -> bool:
    order = [letter for letter in "TZCYX" if letter in axes]
    return "".join(order) == axes and str(dtype) in ("uint8", "uint16", "float32")


def _has_one_unit(spacing: Spacing) -> bool:
    units = {spacing.units.get(letter) for letter in "ZYX" if letter in spacing.steps}
    seconds = spacing.units.get("T", "second") == "second"
    return len(units) <= 1 and seconds and not spacing.is_placed


def _imagej_options(spacing: Spacing, axes: str) -> dict[str, Any]:
    unit = next((spacing.units[axis] for axis in "XYZ" if axis in spacing.units), None)
    metadata: dict[str, Any] = {"axes": axes}
    if unit is not None:
        metadata["unit"] = to_imagej(unit)
    if "Z" in spacing.steps:
        metadata["spacing"] = spacing.steps["Z"]
    if "T" in spacing.steps:
        metadata["finterval"] = spacing.steps["T"]
    resolution = tuple(1 / spacing.steps.get(letter, 1.0) for letter in "XY")
    return {"imagej": True, "resolution": resolution, "metadata": metadata}


def _ome_options(spacing: Spacing, axes: str, shape: tuple[int, ...]) -> dict[str, Any]:
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
        metadata["Plane"] = _plane_positions(spacing, axes, shape)
    if axes.count("Q") > 1 or len(axes) > _MOST_AXES:  # not supported by OME-TIFF
        return {"metadata": metadata, **_resolution(spacing)}
    return {"ome": True, "metadata": metadata}


def _resolution(spacing: Spacing) -> dict[str, Any]:
    """Returns the resolution tags of a TIFF, in pixels per centimeter."""
    factors = [conversion_factor(spacing.units.get(axis), "centimeter") for axis in "XY"]
    if None in factors or not set("XY") <= spacing.steps.keys():
        return {}
    pairs = zip("XY", factors, strict=True)
    resolution = tuple(1 / (spacing.steps[axis] * (factor or 1.0)) for axis, factor in pairs)
    return {"resolution": resolution, "resolutionunit": RESUNIT.CENTIMETER}


def _plane_positions(spacing: Spacing, axes: str, shape: tuple[int, ...]) -> dict[str, list[Any]]:
    """Returns the positions of the pages; channels of one plane have the same."""
    stack = tuple(1 if axis == "C" else size for axis, size in zip(axes, shape, strict=True))[:-2]
    metadata: dict[str, list[Any]] = {}
    for letter in "XYZT":
        if letter in spacing.places:
            positions, unit = np.array(spacing.places[letter]), spacing.place_units[letter]
        elif spacing.starts.get(letter) or (letter != "T" and letter in spacing.starts):
            positions = _equidistant_positions(spacing, letter, axes, stack)
            unit = to_ome(spacing.units.get(letter))
        else:
            continue
        pages = np.broadcast_to(positions.reshape(stack), shape[:-2]).ravel().tolist()
        name = "DeltaT" if letter == "T" else f"Position{letter}"
        metadata |= {name: pages, f"{name}Unit": [unit] * len(pages)}
    return metadata


def _equidistant_positions(
    spacing: Spacing, letter: str, axes: str, stack: tuple[int, ...]
) -> NDArray[np.float64]:
    index = np.indices(stack)[axes.index(letter)] if letter in axes[:-2] else np.zeros(stack)
    positions: NDArray[np.float64] = spacing.starts[letter] + index * spacing.steps.get(letter, 0.0)
    return positions


def _of_imagej(file: tifffile.TiffFile) -> Spacing:
    stated = file.imagej_metadata or {}
    unit = of_imagej(str(stated.get("unit", "")))
    is_calibrated = unit not in _UNCALIBRATED
    spacing = _of_resolution(file.pages.first, unit, 1.0) if is_calibrated else Spacing()
    steps, units = dict(spacing.steps), dict(spacing.units)
    if is_calibrated and "spacing" in stated:
        steps["Z"], units["Z"] = float(stated["spacing"]), unit
    if stated.get("finterval"):
        steps["T"] = float(stated["finterval"])
        units["T"] = time_of_imagej(str(stated.get("tunit", "sec")))
    return Spacing(steps, {}, units, channels=_channels_of_imagej(stated))


def _channels_of_imagej(stated: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the labels of the slices, if each slice is a channel."""
    labels = stated.get("Labels") or ()
    count = int(stated.get("channels", 1))
    return tuple(map(str, labels)) if count == len(labels) > 1 and all(labels) else ()


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
"""Unknown unit in OME-XML."""

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
    """Returns the OME-XML symbol of a unit, or `REFERENCE_FRAME` for an unknown unit.

    >>> to_ome("micrometer"), to_ome("microsecond"), to_ome(None)
    ('µm', 'µs', 'reference frame')
    """
    return _OME.get(unit or "", REFERENCE_FRAME)


def of_ome(unit: str) -> str | None:
    """Returns the name of a unit of OME-XML; None if it is no physical unit, such as pixels.

    >>> of_ome("µm"), of_ome("pixel")
    ('micrometer', None)
    """
    return _OF_OME.get(unit)


def to_imagej(unit: str) -> str:
    """Returns ImageJ's ASCII symbol of a unit of length.

    >>> to_imagej("micrometer"), to_imagej("nanometer"), to_imagej("angstrom")
    ('um', 'nm', 'angstrom')
    """
    short = "um" if unit == "micrometer" else _OME.get(unit, unit)
    return short if short.isascii() else unit


def of_imagej(unit: str) -> str:
    """Returns the name of ImageJ's unit of length, or an unknown unit itself."""
    return _IMAGEJ.get(unit) or of_ome(unit) or unit


def time_of_imagej(unit: str) -> str:
    """Returns the name of ImageJ's unit of time, or an unknown unit itself."""
    return _IMAGEJ_TIMES.get(unit, unit)


def conversion_factor(unit: str | None, other: str | None) -> float | None:
    """Returns the factor from one unit of length to another, or None if it is unknown.

    >>> conversion_factor("millimeter", "micrometer"), conversion_factor(None, "micrometer")
    (1000.0, None)
    """
    if unit is not None and unit == other:
        return 1.0
    if unit in _METERS and other in _METERS:
        return float(f"{_METERS[unit] / _METERS[other]:.12g}")  # 1000, not 999.9999999999999
    return None
