"""Where an image lies, its name and its calibration: from container to container."""

from __future__ import annotations

import re
from functools import partial

import ngff_zarr
import numpy as np
import pytest
import tifffile
import zarr

from keras_unet.data.calibration import Spacing
from keras_unet.data.images import read_image, write_tiff
from keras_unet.data.lazy import open_large
from keras_unet.data.tiled import LazyImage, write_ome_zarr, write_tiled_tiff

SHAPE = (2, 3, 24, 20)  # T, Z, Y, X
PIXELS = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.uint16)
SIZES = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25}
SIZES |= {"PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}
SIZES |= {"TimeIncrement": 4.0, "TimeIncrementUnit": "min"}


def planes_of(path):
    """Reads the planes of an OME-TIFF as tifffile reads its OME-XML."""
    with tifffile.TiffFile(path) as file:
        return tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]


def position(stated, letter):
    planes = stated["Pixels"]["Plane"]
    planes = planes if isinstance(planes, list) else [planes]
    units = {one[f"Position{letter}Unit"] for one in planes}
    return [one[f"Position{letter}"] for one in planes], units


def whole_tiff(path, array, axes, spacing):
    write_tiff(path, array, axes=axes, spacing=spacing)


def by_parts(write, path, array, axes, spacing):
    def read(place, window):
        return array[(*place, *window)]

    write(path, LazyImage(array.shape, array.dtype, axes, read, spacing))


TIFF_WRITERS = {"in memory": whole_tiff, "by parts": partial(by_parts, write_tiled_tiff)}
to_zarr = partial(by_parts, write_ome_zarr)


def both(path):
    """Reads what is said of a TIFF in memory and by parts, which must be the same."""
    whole = read_image(path)
    with open_large(path) as image:
        assert image.spacing == whole.spacing
        assert image.stack == whole.stack
    return whole.spacing


def ome(path, array=PIXELS, axes="TZYX", **metadata):
    tifffile.imwrite(path, array, ome=True, metadata={"axes": axes, **SIZES, **metadata})
    return path


def placed(count, **places):
    """Describes planes to tifffile: a number, or one for each plane, and its unit."""
    found = {}
    for letter, (place, unit) in places.items():
        found[f"Position{letter}"] = place if isinstance(place, list) else [place] * count
        found[f"Position{letter}Unit"] = [unit] * count
    return found


STACK = placed(6, X=(1.5, "mm"), Y=(-20.0, "µm"), Z=([10.0, 12.0, 14.0] * 2, "µm"))


@pytest.mark.parametrize("write", TIFF_WRITERS.values(), ids=TIFF_WRITERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_ome_tiff_to_tiff(write, dtype, tmp_path):
    spacing = both(ome(tmp_path / "a.ome.tif", Plane=STACK, Name="Well <A1> & µ"))
    assert spacing.starts == {"X": 1500.0, "Y": -20.0, "Z": 10.0}
    write(tmp_path / "b.tif", PIXELS.astype(dtype), "TZYX", spacing)
    stated = planes_of(tmp_path / "b.tif")
    assert stated["Name"] == "Well <A1> & µ"
    assert position(stated, "X") == ([1.5] * 6, {"mm"})
    assert position(stated, "Y") == ([-20.0] * 6, {"µm"})
    assert position(stated, "Z") == ([10.0, 12.0, 14.0] * 2, {"µm"})
    assert {name: stated["Pixels"][name] for name in SIZES} == SIZES
    assert both(tmp_path / "b.tif") == spacing
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), PIXELS)


def test_ome_tiff_to_ome_zarr(tmp_path):
    spacing = both(ome(tmp_path / "a.ome.tif", Plane=STACK, Name="Well A1"))
    assert spacing.not_in_zarr("TZYX") == []
    to_zarr(tmp_path / "b.ome.zarr", PIXELS, "TZYX", spacing)
    pyramid = ngff_zarr.from_ngff_zarr(str(tmp_path / "b.ome.zarr"), validate=True)
    (image,) = pyramid.images
    assert pyramid.metadata.name == "Well A1"
    assert image.scale == {"t": 4.0, "z": 2.0, "y": 0.25, "x": 0.5}
    assert image.translation == {"t": 0.0, "z": 10.0, "y": -20.0, "x": 1500.0}
    assert image.axes_units == {"t": "minute", **dict.fromkeys("zyx", "micrometer")}


@pytest.fixture
def zarr_image(tmp_path):
    """An OME-Zarr image with a place, a unit of time and a name."""
    units = {"T": "millisecond", **dict.fromkeys("ZYX", "micrometer")}
    steps = {"T": 40.0, "Z": 2.0, "Y": 0.25, "X": 0.5}
    starts = {"T": 80.0, "Z": 10.0, "Y": -20.0, "X": 1500.0}
    spacing = Spacing(steps, starts, units, name="Well A1")
    to_zarr(tmp_path / "a.ome.zarr", PIXELS, "TZYX", spacing)
    with open_large(tmp_path / "a.ome.zarr") as image:
        assert image.spacing == spacing
    return spacing


def test_ome_zarr_to_ome_zarr(zarr_image, tmp_path):
    to_zarr(tmp_path / "b.ome.zarr", PIXELS, "TZYX", zarr_image)
    before, after = (
        zarr.open_group(tmp_path / name, mode="r").attrs["ome"]
        for name in ("a.ome.zarr", "b.ome.zarr")
    )
    assert before == after
    assert after["multiscales"][0]["axes"][0] == {
        "name": "t",
        "type": "time",
        "unit": "millisecond",
    }


@pytest.mark.parametrize("write", TIFF_WRITERS.values(), ids=TIFF_WRITERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_ome_zarr_to_tiff(write, dtype, zarr_image, tmp_path):
    write(tmp_path / "b.tif", PIXELS.astype(dtype), "TZYX", zarr_image)
    stated = planes_of(tmp_path / "b.tif")
    assert stated["Name"] == "Well A1"
    assert position(stated, "X") == ([1500.0] * 6, {"µm"})
    assert position(stated, "Z") == ([10.0, 12.0, 14.0] * 2, {"µm"})
    times = [(one["DeltaT"], one["DeltaTUnit"]) for one in stated["Pixels"]["Plane"]]
    assert times == [(80.0, "ms")] * 3 + [(120.0, "ms")] * 3
    assert (stated["Pixels"]["TimeIncrement"], stated["Pixels"]["TimeIncrementUnit"]) == (
        40.0,
        "ms",
    )
    read = both(tmp_path / "b.tif")
    assert read.steps == zarr_image.steps
    assert read.units == zarr_image.units
    assert read.starts == {letter: zarr_image.starts[letter] for letter in "ZYX"}


@pytest.mark.parametrize("write", TIFF_WRITERS.values(), ids=TIFF_WRITERS)
def test_units_that_ome_does_not_know_are_not_called_micrometers(write, tmp_path):
    spacing = Spacing({"Y": 2.0, "X": 3.0}, {"Y": 4.0, "X": 5.0}, {"Y": "furlong"})
    write(tmp_path / "b.tif", PIXELS[0, 0].astype(np.uint32), "YX", spacing)
    stated = planes_of(tmp_path / "b.tif")
    assert stated["Pixels"]["PhysicalSizeXUnit"] == "reference frame"
    assert position(stated, "Y") == ([4.0], {"reference frame"})
    assert both(tmp_path / "b.tif").units == {}


def test_imagej_has_no_place(tmp_path):
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 2.0}
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS[0], imagej=True, resolution=(2, 4), metadata=metadata
    )
    spacing = both(tmp_path / "a.tif")
    assert not spacing.is_placed
    write_tiff(tmp_path / "b.tif", PIXELS[0], axes="ZYX", spacing=spacing)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.imagej_metadata["spacing"] == 2.0
    to_zarr(tmp_path / "b.ome.zarr", PIXELS[0], "ZYX", spacing)
    (image,) = ngff_zarr.from_ngff_zarr(str(tmp_path / "b.ome.zarr"), validate=True).images
    assert image.scale == {"z": 2.0, "y": 0.25, "x": 0.5}
    assert set(image.translation.values()) == {0.0}


def test_channels_lie_where_their_plane_does(tmp_path):
    spacing = both(ome(tmp_path / "a.ome.tif", Plane=STACK))
    probabilities = np.zeros((2, 3, 2, 24, 20), np.float32)
    named = Spacing(**{**vars(spacing), "channels": ("background", "cell")})
    for name, write in TIFF_WRITERS.items():
        write(tmp_path / f"{name}.tif", probabilities, "TZCYX", named)
        stated = planes_of(tmp_path / f"{name}.tif")
        places = [(one["TheZ"], one["PositionZ"]) for one in stated["Pixels"]["Plane"]]
        assert places == [(z, 10.0 + 2 * z) for _ in range(2) for z in range(3) for _ in range(2)]
        assert [one["Name"] for one in stated["Pixels"]["Channel"]] == ["background", "cell"]
    to_zarr(tmp_path / "b.ome.zarr", probabilities.transpose(0, 2, 1, 3, 4), "TCZYX", named)
    pyramid = ngff_zarr.from_ngff_zarr(str(tmp_path / "b.ome.zarr"), validate=True)
    assert [one.label for one in pyramid.metadata.omero.channels] == ["background", "cell"]


def positions(path, places, **options):
    """Writes an OME-TIFF of one image for each place along X; each 24 x 20 pixels, or a stack."""
    stack = options.pop("stack", 1)
    pixels = PIXELS[0, :stack] if stack > 1 else PIXELS[0, 0]
    axes = "ZYX" if stack > 1 else "YX"
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, place in enumerate(places):
            plane = placed(stack, X=(place, "µm"), Y=(7.0, "µm"))
            metadata = {"axes": axes, **SIZES, "Name": f"Pos{number}", "Plane": plane, **options}
            file.write(pixels, photometric="minisblack", metadata=metadata)
    return path


@pytest.mark.parametrize("write", TIFF_WRITERS.values(), ids=TIFF_WRITERS)
def test_each_of_several_positions_keeps_its_own(write, tmp_path):
    spacing = both(positions(tmp_path / "a.ome.tif", [100.0, 200.0, 300.0]))
    assert spacing.starts == {"Y": 7.0}
    assert spacing.name == ""
    assert "Z" not in spacing.steps  # positions are not planes at the distance that is stated
    assert spacing.not_in_zarr("ZYX") == ["X"]
    write(tmp_path / "b.tif", PIXELS[0].astype(np.uint32), "ZYX", spacing)
    stated = planes_of(tmp_path / "b.tif")
    assert position(stated, "X") == ([100.0, 200.0, 300.0], {"µm"})
    assert position(stated, "Y") == ([7.0] * 3, {"µm"})
    assert "PhysicalSizeZ" not in stated["Pixels"]


@pytest.mark.parametrize("write", TIFF_WRITERS.values(), ids=TIFF_WRITERS)
def test_each_of_several_stacks_keeps_its_own(write, tmp_path):
    spacing = both(positions(tmp_path / "a.ome.tif", [100.0, 200.0], stack=3))
    write(tmp_path / "b.tif", PIXELS.astype(np.uint32), "QZYX", spacing)
    stated = planes_of(tmp_path / "b.tif")
    assert position(stated, "X") == ([100.0] * 3 + [200.0] * 3, {"µm"})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), PIXELS)
    assert both(tmp_path / "b.tif").places == spacing.places


STACKS = ("Q", "QZ", "QT", "QTZ", "ZQ", "TQZ", "ZT", "QC", "QZC", "TZC", "QTZC", "QQ", "QQZC")


@pytest.mark.parametrize("write", TIFF_WRITERS.values(), ids=TIFF_WRITERS)
@pytest.mark.parametrize("stack", STACKS)
def test_whatever_the_axes_a_calibrated_stack_is_written(write, stack, tmp_path):
    """OME-TIFF has at most one axis besides T, Z and C, and that in the place of one of them."""
    axes, sizes = f"{stack}YX", [2 + number % 2 for number in range(len(stack))]
    array = np.arange(np.prod(sizes) * 20, dtype=np.uint8).reshape(*sizes, 4, 5)
    planes = array.size // 20 // (sizes[-1] if "C" in stack else 1)
    unit, places = dict.fromkeys("YX", "micrometer"), tuple(float(one) for one in range(planes))
    spacing = Spacing({"Y": 0.25, "X": 0.5}, {}, unit, {"X": places}, {"X": "mm"})
    write(tmp_path / "b.tif", array, axes, spacing)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.asarray(), array)
        assert file.series[0].axes == axes
        if not file.is_ome:
            stated = file.shaped_metadata[0]["Plane"]
            assert stated["PositionX"][:: array.size // 20 // planes] == list(places)
        assert file.is_ome == (stack not in ("QTZC", "QQ", "QQZC"))
    read = both(tmp_path / "b.tif")
    assert read.steps == pytest.approx({"Y": 0.25, "X": 0.5})
    assert read.places == (spacing.places if stack not in ("QTZC", "QQ", "QQZC") else {})


def test_several_images_at_one_place_have_one(tmp_path):
    spacing = both(positions(tmp_path / "a.ome.tif", [100.0, 100.0], Name="one"))
    assert spacing.starts == {"X": 100.0, "Y": 7.0}
    assert spacing.name == "one"


def edited(path, pattern, text):
    """Replaces a part of the OME-XML of a file."""
    stated, times = re.subn(pattern, text, tifffile.tiffcomment(path), count=1)
    assert times
    tifffile.tiffcomment(path, stated.encode())
    return path


def test_sizes_that_differ_among_images_are_not_taken_for_all(tmp_path):
    path = positions(tmp_path / "a.ome.tif", [100.0, 200.0])
    edited(path, 'PhysicalSizeX="0.5"', 'PhysicalSizeX="0.7"')
    assert both(path).steps == {"Y": 0.25}


LABELS = {
    "with a unit": (
        '<StageLabel Name="A" X="3" XUnit="mm" Y="4" YUnit="µm"/>',
        {"X": 3000.0, "Y": 4.0},
        {"X": (3.0,) * 6, "Y": (4.0,) * 6},
    ),
    "without": ('<StageLabel Name="A" X="3"/>', {}, {"X": (3.0,) * 6}),
    "no number": ('<StageLabel Name="A" X="left"/>', {}, {}),
}


@pytest.mark.parametrize(("label", "starts", "places"), LABELS.values(), ids=LABELS)
def test_the_label_of_a_stage(label, starts, places, tmp_path):
    path = edited(ome(tmp_path / "a.ome.tif"), "</Pixels>", f"</Pixels>{label}")
    spacing = both(path)
    assert spacing.starts == starts
    assert spacing.places == places
    write_tiff(tmp_path / "b.tif", PIXELS, axes="TZYX", spacing=spacing)
    assert both(tmp_path / "b.tif") == spacing


KINDS_OF_STACKS = {
    "regular": ([10.0, 12.0, 14.0] * 2, 10.0),
    "all the same": ([10.0] * 6, 10.0),
    "downwards": ([14.0, 12.0, 10.0] * 2, None),
    "at other distances": ([10.0, 13.0, 16.0] * 2, None),
    "drifting": ([10.0, 12.0, 14.0, 11.0, 13.0, 15.0], None),
}


@pytest.mark.parametrize(("places", "start"), KINDS_OF_STACKS.values(), ids=KINDS_OF_STACKS)
def test_a_stack_starts_somewhere_only_if_its_planes_follow(places, start, tmp_path):
    spacing = both(ome(tmp_path / "a.ome.tif", Plane=placed(6, Z=(places, "µm"))))
    assert spacing.starts.get("Z") == start
    assert spacing.not_in_zarr("TZYX") == ([] if start else ["Z"])
    write_tiff(tmp_path / "b.tif", PIXELS, axes="TZYX", spacing=spacing)
    assert position(planes_of(tmp_path / "b.tif"), "Z") == (places, {"µm"})


def test_places_without_a_pixel_size_are_kept_where_they_can_be(tmp_path):
    plane = placed(1, X=(5.0, "µm"), Y=(6.0, "µm"))
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS[0, 0], ome=True, metadata={"axes": "YX", "Plane": plane})
    spacing = both(path)
    assert spacing.not_in_zarr("YX") == ["X", "Y"]  # whose pixels would be 1 µm there
    write_tiff(tmp_path / "b.tif", PIXELS[0, 0], axes="YX", spacing=spacing)
    assert position(planes_of(tmp_path / "b.tif"), "X") == ([5.0], {"µm"})


def test_the_size_is_that_of_the_image_that_is_read(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, size in (("macro", 50.0), ("slide", 0.5)):
            metadata = {"axes": "YX", "Name": name, "PhysicalSizeX": size}
            file.write(PIXELS[0, 0], metadata=metadata)
    spacing = both(path)
    assert (spacing.steps, spacing.name) == ({"X": 0.5}, "slide")


@pytest.mark.parametrize("axes", [None, "ZTYX", "RQYX"])
def test_planes_are_where_they_are_whatever_a_person_calls_the_axes(axes, tmp_path):
    path = ome(tmp_path / "a.ome.tif", Plane=placed(6, X=([1.0, 2, 3, 4, 5, 6], "µm")))
    assert read_image(path, axes=axes).spacing.places == {"X": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}


def test_distances_that_no_tiff_states_are_left_out(tmp_path):
    spacing = Spacing({"Y": 0.0, "X": -2.0}, {}, {"Y": "micrometer", "X": "micrometer"})
    write_tiff(tmp_path / "b.tif", PIXELS[0, 0], axes="YX", spacing=spacing)
    assert read_image(tmp_path / "b.tif").spacing.steps == {}
