"""What is read window by window is what is read whole."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from keras_unet.data import lazy
from keras_unet.data.calibration import Spacing
from keras_unet.data.images import read_planes
from keras_unet.data.lazy import is_large, is_tiff, is_zarr, open_large

RANDOM = np.random.default_rng(0)


def numbers(*shape, dtype=np.uint16):
    return RANDOM.integers(0, 200, shape).astype(dtype)


TIFFS = {
    "plain": (numbers(40, 50), {}),
    "strips": (numbers(40, 50), {"rowsperstrip": 7, "compression": "zlib"}),
    "tiles": (numbers(45, 70), {"tile": (16, 32), "compression": "lzw"}),
    "BigTIFF": (numbers(45, 70), {"tile": (16, 32), "bigtiff": True}),
    "big end first": (numbers(40, 50), {"byteorder": ">"}),
    "big end first, tiles": (numbers(40, 50), {"byteorder": ">", "tile": (16, 16)}),
    "float": (numbers(40, 50, dtype=np.float32), {"compression": "zlib", "predictor": True}),
    "1 bit": (numbers(40, 50) > 99, {}),
    "pages": (numbers(3, 40, 50), {"photometric": "minisblack"}),
    "pages, tiles": (numbers(3, 40, 50), {"tile": (16, 16), "photometric": "minisblack"}),
    "ImageJ": (numbers(2, 3, 40, 50), {"imagej": True, "metadata": {"axes": "TZYX"}}),
    "ImageJ, channels": (numbers(3, 2, 40, 50), {"imagej": True, "metadata": {"axes": "ZCYX"}}),
    "OME": (numbers(2, 3, 40, 50), {"ome": True, "metadata": {"axes": "TZYX"}}),
    "OME, tiles, channels": (
        numbers(3, 2, 40, 50),
        {"ome": True, "metadata": {"axes": "ZCYX"}, "tile": (16, 16), "compression": "zlib"},
    ),
    "colors": (numbers(40, 50, 3, dtype=np.uint8), {"photometric": "rgb", "tile": (16, 16)}),
    "planar": (
        numbers(3, 40, 50, dtype=np.uint8),
        {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)},
    ),
    "colors, alpha": (
        numbers(40, 50, 4, dtype=np.uint8),
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "zlib"},
    ),
    "pages of colors": (numbers(2, 40, 50, 3, dtype=np.uint8), {"photometric": "rgb"}),
    "white is 0": (numbers(40, 50, dtype=np.uint8), {"photometric": "miniswhite"}),
}


@pytest.mark.parametrize(("array", "options"), TIFFS.values(), ids=TIFFS)
def test_windows_of_a_tiff_are_those_of_the_whole(array, options, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, **options)
    _compare(path, read_planes(path))


def test_the_largest_resolution_of_a_pyramid_is_read(tmp_path):
    path = tmp_path / "a.ome.tif"
    array = numbers(64, 96)
    with tifffile.TiffWriter(path) as file:
        file.write(array, subifds=1, tile=(16, 16))
        file.write(array[::2, ::2], subfiletype=1, tile=(16, 16))
    _compare(path, read_planes(path))


def _compare(path, whole):
    with open_large(path) as image:
        assert image.shape == whole.shape
        for plane, expected in zip(image, whole, strict=True):
            for rows, columns in (
                (slice(0, 40), slice(0, 50)),
                (slice(3, 21), slice(17, 18)),
                (slice(3, 21), slice(30, 49)),
                (slice(39, 40), slice(0, 1)),
            ):
                read = plane[rows, columns]
                np.testing.assert_array_equal(read, expected[rows, columns])
                assert read.dtype == whole.dtype
                assert read.dtype.isnative


ZARRS = {
    "2D": ((40, 50), None, (0, 1), 3),
    "2D, version 2": ((40, 50), None, (0, 1), 2),
    "stack without names": ((3, 40, 50), None, (0, 1, 2), 3),
    "stack, version 2": ((3, 40, 50), None, (0, 1, 2), 2),
    "stack": ((3, 40, 50), "zyx", (0, 1, 2), 3),
    "time and depth": ((2, 3, 40, 50), "tzyx", (0, 1, 2, 3), 3),
    "channels first": ((2, 40, 50), "cyx", (1, 2, 0), 3),
    "channels last": ((40, 50, 2), "yxc", (0, 1, 2), 3),
    "five axes": ((2, 2, 3, 40, 50), "tczyx", (0, 2, 3, 4, 1), 3),
}


@pytest.mark.parametrize(("shape", "axes", "order", "version"), ZARRS.values(), ids=ZARRS)
def test_windows_of_a_zarr_array_are_those_of_the_whole(shape, axes, order, version, tmp_path):
    array = numbers(*shape)
    chunks = tuple(min(size, 16) for size in shape)
    zarr.create_array(
        tmp_path / "a.zarr", data=array, chunks=chunks, dimension_names=axes, zarr_format=version
    )
    channels = "c" in (axes or "")
    moved = array.transpose(order)
    whole = moved if channels else moved[..., np.newaxis]
    _compare(tmp_path / "a.zarr", whole.reshape(-1, 40, 50, whole.shape[-1]))


@pytest.mark.parametrize(("version", "zarr_format"), [("0.4", 2), ("0.5", 3)])
def test_the_largest_resolution_of_ome_zarr_is_read(version, zarr_format, tmp_path):
    import ngff_zarr

    array = numbers(2, 3, 40, 50)
    image = ngff_zarr.to_ngff_image(array, dims=["c", "z", "y", "x"])
    pyramid = ngff_zarr.to_multiscales(image, scale_factors=[{"z": 1, "y": 2, "x": 2}])
    ngff_zarr.to_ngff_zarr(str(tmp_path / "a.ome.zarr"), pyramid, version=version)
    assert zarr.open(tmp_path / "a.ome.zarr", mode="r").metadata.zarr_format == zarr_format
    _compare(tmp_path / "a.ome.zarr", array.transpose(1, 2, 3, 0))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_image_of_a_collection_is_read_if_it_is_the_only_one(zarr_format, tmp_path):
    layout = {"bioformats2raw.layout": 3}
    attributes = layout if zarr_format == 2 else {"ome": {"version": "0.5", **layout}}
    axes = [{"name": name, "type": "space"} for name in "yx"]
    multiscales = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    path, array = tmp_path / "a.zarr", numbers(40, 50)
    group = zarr.create_group(path, zarr_format=zarr_format, attributes=attributes)
    for name in ("0", "1"):
        of_image = multiscales if zarr_format == 2 else {"ome": multiscales}
        group.create_group(name, attributes=of_image).create_array("0", data=array)
        if name == "0":
            _compare(path, array[np.newaxis, ..., np.newaxis])
    with pytest.raises(ValueError, match=r"holds 2 images \(0, 1\); pass one of them, such as"):
        open_large(path).__enter__()


@pytest.mark.parametrize(
    ("kind", "planes", "channels"), [("channel", 1, 3), ("angle", 3, 1), ("custom", 3, 1)]
)
def test_what_an_axis_of_ome_zarr_is_its_kind_says(kind, planes, channels, tmp_path):
    axes = [{"name": "a", "type": kind}, {"name": "y"}, {"name": "x"}]
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", data=numbers(3, 8, 9))
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    with open_large(tmp_path / "a.zarr") as image:
        assert image.shape == (planes, 8, 9, channels)


WHERE = {
    "scale and translation": (
        [{"type": "scale", "scale": [1, 4, 3, 2]}, {"translation": [0, 5, 6, 7]}],
        [],
        Spacing({"Z": 4, "Y": 3, "X": 2}, {"Z": 5, "Y": 6, "X": 7}, {"X": "meter"}),
    ),
    "of all resolutions as well": (
        [{"scale": [1, 1, 3, 2]}, {"translation": [0, 0, 6, 7]}],
        [{"scale": [1, 1, 10, 10]}],
        Spacing({"Z": 1, "Y": 30, "X": 20}, {"Z": 0, "Y": 60, "X": 70}, {"X": "meter"}),
    ),
    "nothing": (
        None,
        [],
        Spacing({"Z": 1, "Y": 1, "X": 1}, {"Z": 0, "Y": 0, "X": 0}, {"X": "meter"}),
    ),
}


@pytest.mark.parametrize(("largest", "all_of_them", "spacing"), WHERE.values(), ids=WHERE)
def test_where_pixels_lie_is_read(largest, all_of_them, spacing, tmp_path):
    names = {"c": "channel", "z": "space", "y": "space", "x": "space"}
    axes = [{"name": name, "type": kind} for name, kind in names.items()]
    axes[3]["unit"] = "meter"
    dataset = {"path": "0"} | ({"coordinateTransformations": largest} if largest else {})
    image = {"axes": axes, "datasets": [dataset], "coordinateTransformations": all_of_them}
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", data=numbers(1, 2, 8, 9))
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    with open_large(tmp_path / "a.zarr") as opened:
        assert opened.spacing == spacing
    image["axes"] = [{"name": "t", "type": "time"}, *axes[1:]]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    with open_large(tmp_path / "a.zarr") as opened:
        assert set(opened.spacing.steps) == {"T", "Z", "Y", "X"}


def test_rows_are_read_once_for_all_their_columns(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbers(40, 50))
    with open_large(path) as image:
        (plane,) = image
        plane[3:9, 0:10]
        monkeypatch.setattr(lazy.OpenImage, "read", None)
        assert plane[3:9, 10:50].shape == (6, 40, 1)


def test_what_is_large(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "LARGE", 2_000)
    for name, size in (("small.tif", (40, 50)), ("large.tif", (40, 51))):
        tifffile.imwrite(tmp_path / name, numbers(*size))
    zarr.create_array(tmp_path / "a.zarr", data=numbers(4, 5))
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    names = ("small.tif", "large.tif", "a.zarr", "a.png", "nowhere")
    paths = [tmp_path / name for name in names]
    assert list(map(is_large, paths)) == [False, True, True, False, False]
    assert list(map(is_tiff, paths)) == [True, True, False, False, False]
    assert list(map(is_zarr, [*paths, tmp_path])) == [False, False, True, False, False, False]


def _cut(path):
    tifffile.imwrite(path, numbers(40, 50), tile=(16, 16), compression="zlib")
    path.write_bytes(path.read_bytes()[:-100])


def _group(path, attributes):
    zarr.create_group(path, attributes=attributes)


REFUSED = {
    "missing": (lambda _: None, FileNotFoundError, "no such file"),
    "text": (lambda path: path.write_text("text"), ValueError, "expected a TIFF or Zarr"),
    "cut": (_cut, ValueError, "ends before its last pixel"),
    "header alone": (lambda path: path.write_bytes(b"II*\0"), ValueError, "cannot be read as an"),
    "empty": (lambda path: zarr.create_array(path, shape=(0, 5), dtype="u1"), ValueError, "no pix"),
    "one axis": (
        lambda path: zarr.create_array(path, data=np.zeros(5)),
        ValueError,
        "no height and width",
    ),
    "no axis": (
        lambda path: zarr.create_array(path, shape=(), dtype="u1"),
        ValueError,
        "no height and width",
    ),
    "group": (lambda path: _group(path, {}), ValueError, "without multiscales"),
    "channels?": (
        lambda path: zarr.create_array(path, data=numbers(40, 50, 3)),
        ValueError,
        r"\(40, 50, 3\) has no dimension names, and the last .* looks like channels; add names",
    ),
    "words": (
        lambda path: zarr.create_array(path, data=np.full((3, 4), "word", "U4")),
        ValueError,
        "no grey values",
    ),
}


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
@pytest.mark.parametrize(("write", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(write, error, message, tmp_path):
    path = tmp_path / "a"
    write(path)
    with pytest.raises(error, match=message) as caught, open_large(path):
        pass
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_pieces_that_are_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "LARGEST_CHUNK", 1000)
    tifffile.imwrite(tmp_path / "a.tif", numbers(40, 50), rowsperstrip=40, compression="zlib")
    zarr.create_array(tmp_path / "a.zarr", data=numbers(40, 50), chunks=(40, 50))
    for name, pieces in (("a.tif", "tiles or strips"), ("a.zarr", "chunks")):
        message = rf"{name}: .*stored in {pieces} of .* GB.*save it in tiles"
        with pytest.raises(ValueError, match=message), open_large(tmp_path / name):
            pass


def test_a_chunk_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=numbers(40, 50), chunks=(20, 50))
    (path / "c" / "1" / "0").write_bytes(b"nothing")
    with open_large(path) as image:
        (plane,) = image
        plane[0:20, 0:50]
        with pytest.raises(ValueError, match=r"a\.zarr: cannot be read as an image"):
            plane[20:40, 0:50]
