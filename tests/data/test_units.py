"""Units have the names that each form knows."""

import pytest

from keras_unet.data.calibration import (
    Spacing,
    conversion_factor,
    of_imagej,
    of_ome,
    time_of_imagej,
    to_imagej,
    to_ome,
)

# of OME-Zarr 0.5 (ngff.openmicroscopy.org/0.5) and of the enumerations of the schema ome.xsd
LENGTHS = {
    "angstrom": "Å",
    "attometer": "am",
    "centimeter": "cm",
    "decimeter": "dm",
    "exameter": "Em",
    "femtometer": "fm",
    "foot": "ft",
    "gigameter": "Gm",
    "hectometer": "hm",
    "inch": "in",
    "kilometer": "km",
    "megameter": "Mm",
    "meter": "m",
    "micrometer": "µm",
    "mile": "mi.",
    "millimeter": "mm",
    "nanometer": "nm",
    "parsec": "pc",
    "petameter": "Pm",
    "picometer": "pm",
    "terameter": "Tm",
    "yard": "yd",
    "yoctometer": "ym",
    "yottameter": "Ym",
    "zeptometer": "zm",
    "zettameter": "Zm",
}
TIMES = {
    "attosecond": "as",
    "centisecond": "cs",
    "day": "d",
    "decisecond": "ds",
    "exasecond": "Es",
    "femtosecond": "fs",
    "gigasecond": "Gs",
    "hectosecond": "hs",
    "hour": "h",
    "kilosecond": "ks",
    "megasecond": "Ms",
    "microsecond": "µs",
    "millisecond": "ms",
    "minute": "min",
    "nanosecond": "ns",
    "petasecond": "Ps",
    "picosecond": "ps",
    "second": "s",
    "terasecond": "Ts",
    "yoctosecond": "ys",
    "yottasecond": "Ys",
    "zeptosecond": "zs",
    "zettasecond": "Zs",
}


@pytest.mark.parametrize(("name", "short"), (LENGTHS | TIMES).items())
def test_ome_knows_all_units_of_ome_zarr(name, short):
    assert to_ome(name) == short
    assert of_ome(short) == name


@pytest.mark.parametrize("name", LENGTHS)
def test_imagej_gives_back_what_it_was_given(name):
    assert of_imagej(to_imagej(name)) == name
    assert to_imagej(name).isascii()


def test_what_is_not_known_is_not_made_up():
    assert to_ome("furlong") == to_ome("") == "reference frame"
    assert of_ome("pixel") is None
    assert of_imagej("furlong") == to_imagej("furlong") == time_of_imagej("furlong") == "furlong"


RATIOS = {
    ("millimeter", "micrometer"): 1000.0,
    ("micrometer", "millimeter"): 0.001,
    ("inch", "centimeter"): 2.54,
    ("furlong", "furlong"): 1.0,
    ("second", "micrometer"): None,
    (None, None): None,
}


@pytest.mark.parametrize(("units", "ratio"), RATIOS.items())
def test_conversion_factors(units, ratio):
    assert conversion_factor(*units) == ratio


@pytest.mark.parametrize(
    ("steps", "units", "size"),
    [
        ({"Y": 0.65, "X": 0.6}, {"Y": "micrometer", "X": "micrometer"}, (0.65, 0.6)),
        ({"Y": 5e-4, "X": 5e-4}, {"Y": "millimeter", "X": "millimeter"}, (0.5, 0.5)),
        ({"Y": 25_400 / 72, "X": 25_400 / 72}, {"Y": "micrometer", "X": "micrometer"}, None),
        ({"X": 0.6}, {"X": "micrometer"}, None),
        ({"Y": 1.0, "X": 1.0}, {}, None),
        ({"Y": 0.0, "X": 0.6}, {"Y": "micrometer", "X": "micrometer"}, None),
        ({"Y": 1.0, "X": 1.0}, {"Y": "second", "X": "second"}, None),
    ],
)
def test_pixel_sizes_are_micrometers_of_a_microscope(steps, units, size):
    assert Spacing(steps, {}, units).pixel_size == (size and pytest.approx(size))
