"""Images written part by part are those written whole."""

from __future__ import annotations

from dataclasses import replace

import ngff_zarr
import numpy as np
import pytest
import tifffile
import zarr

from keras_unet.data.calibration import Spacing
from keras_unet.data.tiled import LazyImage, write_ome_zarr, write_tiled_tiff

KINDS = {
    "plane": ((530, 1100), "YX", np.uint8),
    "stack": ((3, 520, 40), "ZYX", np.uint32),
    "probabilities": ((2, 20, 600), "CYX", np.float32),
    "pixel": ((1, 1), "YX", np.uint16),
}


def parts_of(array, axes):
    return LazyImage(array.shape, array.dtype, axes, lambda place, window: array[(*place, *window)])


def numbers(shape, dtype):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "axes", "dtype"), KINDS.values(), ids=KINDS)
def test_a_tiled_tiff_holds_what_it_was_given(shape, axes, dtype, tmp_path):
    path, array = tmp_path / "a.tif", numbers(shape, dtype)
    write_tiled_tiff(path, parts_of(array, axes))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert file.series[0].keyframe.tile == (512, 512)
        assert file.series[0].axes.endswith(axes if len(array) > 1 else "")
        read = file.asarray()
    np.testing.assert_array_equal(read, array)
    assert read.dtype == dtype


@pytest.mark.parametrize(("shape", "axes", "dtype"), KINDS.values(), ids=KINDS)
def test_another_reader_reads_the_pyramid(shape, axes, dtype, tmp_path):
    path, array = tmp_path / "a.ome.zarr", numbers(shape, dtype)
    write_ome_zarr(path, parts_of(array, axes))
    pyramid = ngff_zarr.from_ngff_zarr(str(path), validate=True)
    assert pyramid.metadata.name == "a"
    assert len(pyramid.images) == (2 if max(shape) > 1024 else 1)
    for level, image in enumerate(pyramid.images):
        step = 2**level
        np.testing.assert_array_equal(image.data, array[..., ::step, ::step])
        assert image.dims == tuple(axes.lower())
        assert (image.scale["y"], image.scale["x"]) == (step, step)


def test_where_pixels_lie_is_written_for_every_resolution(tmp_path):
    path, array = tmp_path / "a.ome.zarr", numbers((2, 3, 1025), np.uint8)
    units = {"Z": "micrometer", "X": "nanometer"}
    spacing = Spacing({"Z": 2.0, "Y": 0.5, "X": 0.25}, {"X": 7.0}, units)
    write_ome_zarr(path, replace(parts_of(array, "ZYX"), spacing=spacing))
    pyramid = ngff_zarr.from_ngff_zarr(str(path), validate=True)
    for level, image in enumerate(pyramid.images):
        step = 2**level
        assert image.scale == {"z": 2.0, "y": 0.5 * step, "x": 0.25 * step}
        assert image.translation == {"z": 0.0, "y": 0.0, "x": 7.0}
        assert image.axes_units == {"z": "micrometer", "x": "nanometer", "y": None}
    assert len(pyramid.images) == 2


def test_the_smallest_resolution_is_one_chunk(tmp_path):
    path = tmp_path / "a.ome.zarr"
    array = numbers((3, 4097), np.uint8)
    write_ome_zarr(path, parts_of(array, "YX"))
    group = zarr.open_group(path, mode="r")
    assert {name: one.shape for name, one in group.arrays()} == {
        "0": (3, 4097),
        "1": (2, 2049),
        "2": (1, 1025),
        "3": (1, 513),
    }
    assert group["0"].chunks == (1024, 1024)


@pytest.mark.parametrize(("write", "name"), [(write_tiled_tiff, "a.tif"), (write_ome_zarr, "a")])
def test_what_fails_leaves_nothing_and_replaces_nothing(write, name, tmp_path):
    array = numbers((600, 1200), np.uint8)
    write(tmp_path / name, parts_of(array, "YX"))
    before = sorted(tmp_path.rglob("*"))

    def read(_, window):
        if window[1].start:
            raise OSError("no room")
        return array[window]

    with pytest.raises(OSError, match="no room"):
        write(tmp_path / name, LazyImage(array.shape, array.dtype, "YX", read))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_image_is_replaced(tmp_path):
    for number in (1, 2):
        write_ome_zarr(tmp_path / "a", parts_of(np.full((3, 4), number), "YX"))
    assert zarr.open_array(tmp_path / "a" / "0", mode="r")[:].tolist() == [[2] * 4] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
