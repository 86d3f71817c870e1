"""What a reader gives is what was drawn, plane by plane, for each form of file that people have."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from keras_unet.data.calibration import Spacing
from keras_unet.data.headers import read_header
from keras_unet.data.images import read_image, read_planes, write_tiff
from keras_unet.data.labels import detect_encoding, read_labels
from keras_unet.data.lazy import open_large
from keras_unet.data.samples import read_samples, split

_FOLDER = Path(__file__).with_name("forms")
_SPEC = importlib.util.spec_from_file_location("forms", _FOLDER / "__init__.py")
forms = importlib.util.module_from_spec(_SPEC)
sys.modules["forms"] = forms
_SPEC.loader.exec_module(forms)


def needs(program):
    """Skips a test where one of Debian's programs of libtiff is not there."""
    if program and shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt-get install libtiff-tools")


@pytest.mark.parametrize("form", forms.FORMS.values(), ids=forms.FORMS)
def test_what_is_read_is_what_was_drawn(tmp_path, form):
    needs(form.needs)
    path = tmp_path / f"a{form.ending}"
    expected = form.written(path)
    if path.suffix != ".zarr":
        np.testing.assert_array_equal(read_planes(path), expected)
        assert read_planes(path).dtype == expected.dtype
        seen = read_image(path, palette="colors").planes.shape
    else:
        seen = expected.shape
    planes, height, width, channels = read_header(path).shape
    assert (planes, channels, {height, width}) == (seen[0], seen[-1], set(seen[1:3]))
    if path.suffix not in (".tif", ".zarr"):
        return
    with open_large(path) as image:
        assert image.shape == expected.shape
        windows = [plane[slice(2, 17), slice(0, 26)] for plane in image]
    np.testing.assert_array_equal(np.stack(windows), expected[:, 2:17])


@pytest.mark.parametrize("mask", forms.MASKS.values(), ids=forms.MASKS)
def test_a_mask_in_any_convention_is_the_same_pixels(tmp_path, mask):
    needs(mask.needs)
    check_mask(tmp_path / f"a{mask.ending}", mask, forms.mask())


def check_mask(path, convention, marked):
    convention.written(path, marked)
    labels = read_labels(path).labels[0]
    encoding = detect_encoding([("a", labels)])
    np.testing.assert_array_equal(encoding.to_classes(labels), marked)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    convention=st.sampled_from([one for one in forms.MASKS.values() if one.needs is None]),
    marked=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=5, max_side=20)).filter(
        lambda marked: 0 < marked.sum() < marked.size
    ),
)
def test_any_mask_in_any_convention_is_the_same_pixels(tmp_path_factory, convention, marked):
    check_mask(tmp_path_factory.mktemp("a") / f"a{convention.ending}", convention, marked)


@pytest.mark.parametrize("form", forms.REFUSED.values(), ids=forms.REFUSED)
def test_what_is_refused_says_the_way_out_in_one_line(tmp_path, form):
    path = tmp_path / f"a{form.ending}"
    form.written(path)
    readers = [open_large] if form.ending == ".zarr" else [read_image]
    for read in [*readers, *([open_large] if form.ending == ".tif" else [])]:
        with pytest.raises(ValueError, match=form.message) as caught:
            read(path).__enter__()
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(path))


def write(folder, images, labels):
    for name, drawn in (("images", images), ("labels", labels)):
        (folder / name).mkdir(exist_ok=True)
        for number, array in enumerate(drawn):
            tifffile.imwrite(folder / name / f"{number}.tif", array, photometric="minisblack")


def test_content_that_is_not_read_is_noted(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((20, 26), np.uint8), metadata=None)
        file.write(np.zeros((7, 9), bool), metadata=None, subfiletype=4)
    assert "7 x 9 is not read" in read_image(tmp_path / "a.tif").notes[0]
    forms.FORMS["PNG with alpha"].written(tmp_path / "a.png")
    assert "alpha channel" in read_image(tmp_path / "a.png").notes[0]


NOTES = {
    "TIFF with a palette of false colors": ("palette is not applied", "palette is not applied"),
    "TIFF, 0 is white": ("white is stored as 0: inverted", "white is stored as 0: inverted"),
    "TIFF, colors with alpha": (
        "alpha channel.*, which varies, is not read",
        "alpha channel.* is not read",
    ),
    "TIFF of scikit-image, three pages": ("3 planes are read as colors.*ZYX",) * 2,
}


@pytest.mark.parametrize(("name", "expected"), NOTES.items(), ids=NOTES)
def test_conversions_are_noted_whole_and_by_windows(tmp_path, name, expected):
    path = tmp_path / "a.tif"
    forms.FORMS[name].written(path)
    (note,) = read_image(path, palette="colors").notes
    assert re.search(expected[0], note)
    with open_large(path) as image:
        (note,) = image.notes
    assert re.search(expected[1], note)


def test_a_palette_is_no_matter_of_labels(tmp_path):
    forms.FORMS["TIFF with a palette of false colors"].written(tmp_path / "a.tif")
    assert read_labels(tmp_path / "a.tif").notes == ()


def test_three_pages_that_are_no_colors_are_planes_with_axes(tmp_path):
    forms.FORMS["TIFF of scikit-image, three pages"].written(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif", axes="ZYX")
    np.testing.assert_array_equal(read.planes, forms.drawn(3))
    assert read.notes == ()


def test_channels_without_axes_are_refused_and_read_with_axes(tmp_path):
    array = forms.drawn(channels=2)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    message = (
        r"\(20, 26, 2\) without stated axes would be 20 planes or channels of 26 x 2 .* --axes YXC"
    )
    with pytest.raises(ValueError, match=message):
        read_planes(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif", axes="YXC")
    np.testing.assert_array_equal(read.planes, array[None])
    with pytest.raises(ValueError, match=r"--axes YX names 2 axes, but its shape is \(20, 26, 2\)"):
        read_image(tmp_path / "a.tif", axes="YX")


SIZES = {"Y": 12, "X": 15, "S": 3}


def axes_in(container, counted, channels, dtype):
    """Orders axes as a container has them; channels are C or S in front of or behind the others."""
    order = sorted(counted, key="TZC".index) if container == "imagej" else counted
    has_colors = container in ("ome", "shaped") or (container, dtype) == ("imagej", "uint8")
    if channels == "S" and has_colors:
        return "".join(order) + "YXS"
    if channels == "C" and container not in ("imagej", "ome") and "C" not in counted:
        return "".join(order) + "YXC"
    return "".join(order) + "YX"


def write_container(path, array, axes, container):
    if container.startswith("0."):
        forms.write_ome_zarr(path, array, axes.lower(), container)
        return
    options = {container: True} if container in ("imagej", "ome") else {}
    metadata = None if container == "plain" else {"axes": axes}
    photometric = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(path, array, metadata=metadata, photometric=photometric, **options)


def read_container(path, axes, container):
    """Reads a file whole, and by windows, which is the same; or tells why it is refused."""
    stated = axes if container == "plain" else None
    try:
        with open_large(path, stated) as image:
            stack, planes = (
                image.stack,
                np.stack([one[slice(0, 12), slice(0, 15)] for one in image]),
            )
    except ValueError as error:
        return None, str(error)
    if path.suffix == ".tif":
        read = read_image(path, axes=stated)
        np.testing.assert_array_equal(read.planes, planes)
        assert read.stack == stack
    return (planes, stack), ""


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    counted=st.lists(st.sampled_from("TZC"), unique=True),
    channels=st.sampled_from(["", "C", "S"]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    container=st.sampled_from(["imagej", "ome", "shaped", "plain", "0.4", "0.5"]),
    data=st.data(),
)
def test_arrays_with_stated_axes_come_back(
    tmp_path_factory, counted, channels, dtype, container, data
):
    axes = axes_in(container, counted, channels, dtype)
    sizes = {axis: data.draw(st.integers(1, 4), label=axis) for axis in "TZC"} | SIZES
    array = np.arange(np.prod([sizes[axis] for axis in axes])).astype(dtype)
    array = array.reshape([sizes[axis] for axis in axes])
    path = tmp_path_factory.mktemp("a") / ("a.zarr" if container.startswith("0.") else "a.tif")
    write_container(path, array, axes, container)
    read, refusal = read_container(path, axes, container)
    if refusal:
        assert refusal.startswith(f"{path}: ")
        assert "\n" not in refusal
        event(f"refused: {container} {axes} {array.shape}")
        return
    planes, stack = read
    np.testing.assert_array_equal(planes, expected_planes(array, axes).reshape(planes.shape))
    long = [(axis, sizes[axis]) for axis in axes if axis in "TZ" and sizes[axis] > 1]
    assert [one for one in stack if one[1] > 1] == long


def expected_planes(array, axes):
    moved = [axis for axis in axes if axis in "TZ"] + ["Y", "X"] + [a for a in "CS" if a in axes]
    found = array.transpose([axes.index(axis) for axis in moved])
    height = len(moved) - 2 - sum(axis in "CS" for axis in moved)
    planes = int(np.prod(found.shape[:height]))
    return found.reshape(planes, 12, 15, -1)


def test_labels_follow_the_axes_of_the_image(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    truth = np.zeros((3, 2, 20, 26), np.uint8)
    for t in range(3):
        for z in range(2):
            truth[t, z, 2 + t : 9 + t, 3 + z : 9 + z], truth[t, z, 14:18, 14:20] = 1, 2
    image = 10 * truth + 3
    stored = {"axes": "ZTYX"}
    tifffile.imwrite(tmp_path / "images/a.ome.tif", image.swapaxes(0, 1), metadata=stored)
    tifffile.imwrite(tmp_path / "labels/a.tif", truth, imagej=True, metadata={"axes": "TZYX"})
    for sample in read_samples(tmp_path, labels="instances").samples:
        np.testing.assert_array_equal(sample.image[..., 0] > 3, sample.instances > 0)
    flat = truth.reshape(6, 20, 26)
    tifffile.imwrite(tmp_path / "labels/a.tif", flat, photometric="minisblack")
    message = r"a\.tif: expected planes along Z = 2 x T = 3 .*received Q = 6: it is not clear"
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path, labels="instances")


def test_calibration_comes_back(tmp_path):
    spacing = Spacing(
        {"X": 0.25, "Y": 0.25, "Z": 0.8, "T": 30.0},
        {},
        {"X": "micrometer", "Y": "micrometer", "Z": "micrometer", "T": "second"},
    )
    for dtype in ("uint8", "uint32"):  # ImageJ's form, and OME-TIFF
        array = np.zeros((3, 2, 20, 26), dtype)
        write_tiff(tmp_path / "a.tif", array, axes="TZYX", spacing=spacing)
        read = read_image(tmp_path / "a.tif")
        assert read.stack == (("T", 3), ("Z", 2))
        assert read.spacing.steps == pytest.approx(spacing.steps)
        assert read.spacing.units == spacing.units
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.is_imagej == (dtype == "uint8")


@pytest.mark.parametrize(
    ("stated", "unit"), [("sec", "second"), ("min", "minute"), (None, "second")]
)
def test_the_frame_interval_keeps_its_unit(tmp_path, stated, unit):
    metadata = {"axes": "TYX", "finterval": 5.0} | ({"tunit": stated} if stated else {})
    array = np.zeros((3, 20, 26), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata=metadata)
    spacing = read_image(tmp_path / "a.tif").spacing
    assert (spacing.steps, spacing.units) == ({"T": 5.0}, {"T": unit})
    write_tiff(tmp_path / "b.tif", array, axes="TYX", spacing=spacing)
    assert read_image(tmp_path / "b.tif").spacing == spacing


def test_a_turned_image_with_alpha_says_both(tmp_path):
    note = Image.Exif()
    note[274] = 3
    Image.fromarray(forms.drawn(channels=4), "RGBA").save(tmp_path / "a.png", exif=note)
    alpha, turned = read_image(tmp_path / "a.png").notes
    assert "alpha channel" in alpha
    assert "orientation 3" in turned


def squares(*values):
    """Draws squares apart, one a value."""
    found = np.zeros((20, 26), np.uint8)
    for number, value in enumerate(values):
        found[3:9, 2 + 8 * number : 8 + 8 * number] = value
    return found


def test_masks_of_two_scales_are_refused_by_name():
    files = [("a.png", squares(1, 1)), ("b.png", squares(255, 255)), ("c.png", squares(1))]
    message = r"a\.png: expected one convention.*0 and 1 in it, 0 and 255 in b\.png.*--labels class"
    with pytest.raises(ValueError, match=message):
        detect_encoding(files)
    assert detect_encoding(files, kind="classes").values == (0, 1, 255)


def nested(shift):
    found = np.zeros((20, 26), np.uint8)
    found[2:18, 2 + shift : 20 + shift] = 1
    found[6:12, 6 + shift : 12 + shift] = 2
    return found


def layered(shift):
    found = np.zeros((20, 26), np.uint8)
    found[5 + shift : 10], found[10:15] = 1, 2
    return found


AMBIGUOUS = {
    "a part in a whole": ([nested(0), nested(1)], "one encloses another"),
    "layers": ([layered(0), layered(1)], "they touch in all images"),
    "strokes": ([squares(1, 2), squares(2, 1), squares(1, 2)], "is seldom the same in all images"),
}


@pytest.mark.parametrize(("arrays", "reason"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_labels_are_refused(arrays, reason):
    files = [(f"{number}.png", array) for number, array in enumerate(arrays)]
    with pytest.raises(ValueError, match=rf"{reason}.*--labels classes or --labels instances"):
        detect_encoding(files)
    assert detect_encoding(files, kind="classes").values == (0, 1, 2)
    assert detect_encoding(files, kind="instances").kind == "instances"


def test_as_many_cells_in_every_image_are_instances():
    files = [(f"{n}.png", squares(1, 2, 3) + 4 * (squares(0, 0, 0) > 0)) for n in range(2)]
    assert detect_encoding(files).kind == "instances"


def test_inverted_masks_among_others_are_refused(tmp_path):
    masks = [squares(255, 255), squares(255), 255 - squares(255, 255), squares(255, 0, 255)]
    images = [np.uint8(40 + 100 * (one > 0)) for one in masks]
    images[2] = 180 - images[2]
    write(tmp_path, images, masks)
    with pytest.raises(ValueError, match=r"2\.tif: expected value 255 to mark.*1 mask of 4"):
        read_samples(tmp_path)
    assert len(read_samples(tmp_path, labels="classes").samples) == 4


def test_planes_of_one_stack_are_held_out_at_its_end(tmp_path):
    truth = np.stack([squares(1, 2)] * 10)
    write(tmp_path, [truth + np.arange(10, dtype=np.uint8)[:, None, None]], [truth])
    samples = read_samples(tmp_path, labels="instances").samples
    training, held_out = split(samples, 0.2, seed=0)
    assert [one.name for one in held_out] == ["0_008", "0_009"]
    assert len(training) == 8


def test_whole_stacks_are_held_out_where_there_are_several(tmp_path):
    truth = np.stack([squares(1, 2)] * 3)
    write(tmp_path, [truth] * 4, [truth] * 4)
    samples = read_samples(tmp_path, labels="instances").samples
    for seed in range(4):
        _, held_out = split(samples, 0.25, seed=seed)
        assert len({one.group for one in held_out}) == 1
        assert len(held_out) == 3


def test_of_two_stacks_planes_at_the_end_of_one_are_held_out(tmp_path):
    truth = np.stack([squares(1, 2)] * 6)
    write(tmp_path, [truth] * 2, [truth] * 2)
    samples = read_samples(tmp_path, labels="instances").samples
    training, held_out = split(samples, 0.2, seed=0)
    assert [one.name[-3:] for one in held_out] == ["004", "005"]
    assert len({one.group for one in held_out}) == 1
    assert len(training) == 10
