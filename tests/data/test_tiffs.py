"""What a TIFF states of itself; files made to do harm are in integration/test_hostile_files.py."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_unet.data import tiffs
from keras_unet.data.images import read_planes
from keras_unet.data.tiffs import tiff_image


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.booleans(),
    st.sampled_from(["L", "RGB", "CMYK"]),
    st.binary(max_size=40),
)
def test_the_size_of_a_jpeg_is_found_in_its_header(height, width, progressive, mode, comment):
    file = io.BytesIO()
    image = Image.new(mode, (width, height))
    image.save(file, "JPEG", progressive=progressive, comment=comment)
    assert tiffs._jpeg_size(file.getvalue()) == (height, width)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_what_is_no_jpeg_states_a_size_or_none(stored):
    height, width = tiffs._jpeg_size(b"\xff\xd8" + stored)
    assert 0 <= height < 2**16
    assert 0 <= width < 2**16


@pytest.mark.parametrize("pages", [1, 3])
def test_jpegs_of_the_size_of_their_tiles_are_read(tmp_path, monkeypatch, pages):
    monkeypatch.setattr(tiffs, "_SMALL_JPEG", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (pages, 40, 50), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in pixels:
            file.write(plane, tile=(16, 16), compression="jpeg", metadata=None)
    planes = read_planes(tmp_path / "a.tif")
    assert planes.shape == (pages, 40, 50, 1)
    np.testing.assert_allclose(planes[..., 0], pixels, atol=40)


def test_a_set_of_ome_tiffs_is_whole_where_all_its_files_are(tmp_path):
    """Planes 0 and 1 are in one file, plane 2 in another, each with the description of both."""
    planes = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    description = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:{own}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        'Type="uint8" SizeX="4" SizeY="4" SizeC="1" SizeZ="3" SizeT="1">'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="2"><UUID FileName="a.ome.tif">urn:uuid:1</UUID>'
        '</TiffData><TiffData IFD="0" FirstZ="2" PlaneCount="1">'
        '<UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    for own, name, part in (("1", "a", planes[:2]), ("2", "b", planes[2:])):
        with tifffile.TiffWriter(tmp_path / f"{name}.ome.tif") as file:
            for plane in part:
                file.write(
                    plane, description=description.format(own=own), metadata=None, contiguous=False
                )
    np.testing.assert_array_equal(read_planes(tmp_path / "a.ome.tif")[..., 0], planes)
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(ValueError, match=r"a\.ome\.tif: .*1 of its 3 planes are missing"):
        read_planes(tmp_path / "a.ome.tif")


def test_room_is_measured_by_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tiffs, "SMALL", 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((1000, 1000), np.uint16), compression="zlib")
    size = path.stat().st_size
    for ratio, fits in ((2_000_000 // size + 1, True), (2_000_000 // size - 1, False)):
        monkeypatch.setattr(tiffs, "LARGEST_RATIO", ratio)
        with tifffile.TiffFile(path) as file:
            if fits:
                assert tiff_image(file).shape == (1000, 1000)
                continue
            with pytest.raises(ValueError, match=rf"states 2,000,000 bytes.*more than {ratio} "):
                tiff_image(file)


def test_many_pages_are_many_planes(tmp_path):
    planes = np.arange(200, dtype=np.uint8).reshape(200, 1, 1).repeat(2, axis=2)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in planes:
            file.write(plane, metadata=None, contiguous=False)
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif")[..., 0], planes)
