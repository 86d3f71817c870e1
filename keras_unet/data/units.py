"""Units of length and time, by the names that OME-Zarr, OME-XML and ImageJ give them."""

from __future__ import annotations

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
_METRES = {f"{prefix}meter": 10.0**power for prefix, (_, power) in _PREFIXES.items()}
_METRES |= {"inch": 0.0254, "foot": 0.3048, "yard": 0.9144, "mile": 1609.344, "angstrom": 1e-10}

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
    if unit in _METRES and other in _METRES:
        return float(f"{_METRES[unit] / _METRES[other]:.12g}")  # 1000, not 999.9999999999999
    return None
