"""What a TIFF claims and does not hold is refused or said, and sets of files are read once."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from keras_unet.data.images import read_image
from keras_unet.data.lazy import open_large
from keras_unet.data.samples import read_samples
from keras_unet.data.tiff_planes import files_of_set, repeated_in

HEIGHT, WIDTH = 20, 26


def planes(count):
    return np.random.default_rng(0).integers(0, 250, (count, HEIGHT, WIDTH)).astype(np.uint8)


def ome(images, *, own):
    """Returns OME-XML of images, each a list of files that hold a plane along Z each."""
    parts = []
    for number, files in enumerate(images):
        data = "".join(
            f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1">'
            f'<UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
            for z, name in enumerate(files)
        )
        parts.append(
            f'<Image ID="Image:{number}"><Pixels DimensionOrder="XYZCT" ID="Pixels:{number}" '
            f'SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeC="1" SizeZ="{len(files)}" SizeT="1" '
            f'Type="uint8"><Channel ID="Channel:{number}:0" SamplesPerPixel="1"/>{data}</Pixels>'
            "</Image>"
        )
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<OME xmlns="{schema}" UUID="urn:uuid:{own}">{"".join(parts)}</OME>'


def write_set(folder, images):
    """Writes the files of OME-TIFF images, one plane each."""
    names = [name for files in images for name in files]
    folder.mkdir(exist_ok=True)
    for name, plane in zip(names, planes(len(names)), strict=True):
        text = ome(images, own=name)
        tifffile.imwrite(folder / name, plane, description=text, metadata=None)
    return [folder / name for name in names]


def test_the_files_of_one_image_are_known(tmp_path):
    paths = write_set(tmp_path, [["a.ome.tif", "b.ome.tif", "c.ome.tif"]])
    tifffile.imwrite(tmp_path / "d.tif", planes(1)[0])
    for path in paths:
        np.testing.assert_array_equal(read_image(path).planes[..., 0], planes(3))
        assert files_of_set(path) == tuple(paths)
    others = [*paths, tmp_path / "d.tif", tmp_path / "none.tif"]
    assert repeated_in(others) == dict.fromkeys(paths[1:], paths[0])


def test_a_set_with_a_file_missing_is_refused_by_its_name(tmp_path):
    paths = write_set(tmp_path, [["a.ome.tif", "b.ome.tif", "c.ome.tif"]])
    paths[1].unlink()
    message = r"1 of its 3 planes are missing; it names b\.ome\.tif, not found.*Keep the files"
    with pytest.raises(ValueError, match=message):
        read_image(paths[0])


def test_of_positions_side_by_side_each_file_gives_its_own(tmp_path):
    paths = write_set(tmp_path, [["a.ome.tif"], ["b.ome.tif"], ["c.ome.tif"]])
    for path, plane in zip(paths, planes(3), strict=True):
        read = read_image(path)
        np.testing.assert_array_equal(read.planes, plane[None, ..., None])
        assert "of the 3 images that it names, those in other files" in read.notes[0]
        with open_large(path) as image:
            assert (image.shape, image.notes) == (read.planes.shape, read.notes)
    assert not repeated_in(paths)


def test_a_set_is_one_image_of_a_data_set(tmp_path):
    names = ["a.ome.tif", "b.ome.tif"]
    for name in names:
        (tmp_path / "labels").mkdir(exist_ok=True)
        truth = np.zeros((2, HEIGHT, WIDTH), np.uint8)
        truth[:, 2:8, 2:8], truth[0, 10:16, 2:8] = 1, 2
        tifffile.imwrite(tmp_path / "labels" / name, truth, metadata={"axes": "ZYX"})
    write_set(tmp_path / "images", [names])
    samples = read_samples(tmp_path)
    assert [one.name for one in samples.samples] == ["a_000", "a_001"]
    assert [(one.path.name, one.reason) for one in samples.unused] == [
        ("b.ome.tif", "part of the image that begins in a.ome.tif")
    ] * 2
    tifffile.imwrite(tmp_path / "labels/a.ome.tif", truth[0])
    with pytest.raises(
        ValueError, match=r"expected 2 planes .*\(an image in 2 files\), received 1"
    ):
        read_samples(tmp_path)


def test_metadata_in_a_companion_file_are_missed(tmp_path):
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    text = f'<OME xmlns="{schema}"><BinaryOnly MetadataFile="a.companion.ome" UUID="u"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", planes(1)[0], description=text, metadata=None)
    assert read_image(tmp_path / "a.ome.tif").notes == (
        "its metadata are in a.companion.ome, which is not read",
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for plane in planes(3):
            file.write(plane, description=text, metadata=None)
    with pytest.raises(
        ValueError, match=r"axes of its 3 pages are stated only in a\.companion\.ome.*CYX"
    ):
        read_image(tmp_path / "a.ome.tif")
    assert read_image(tmp_path / "a.ome.tif", axes="CYX").planes.shape == (1, HEIGHT, WIDTH, 3)


def imagej(path, pages, stated, compression):
    text = "ImageJ=1.53t\n" + "".join(f"{name}={size}\n" for name, size in stated.items())
    with tifffile.TiffWriter(path) as file:
        for number, plane in enumerate(pages):
            description = text if number == 0 else None
            file.write(plane, description=description, metadata=None, compression=compression)


@pytest.mark.parametrize(("held", "compression"), [(1, None), (4, None), (4, "zlib")])
def test_an_imagej_file_that_was_cut_is_refused(tmp_path, held, compression):
    stated = {"images": 6, "frames": 6, "hyperstack": "true"}
    imagej(tmp_path / "a.tif", planes(held), stated, compression)
    with pytest.raises(
        ValueError, match=rf"states 6 planes \(ImageJ\) and holds {held}: it was truncated"
    ):
        read_image(tmp_path / "a.tif")
    if compression or held == 1:
        read = read_image(tmp_path / "a.tif", axes="YX" if held == 1 else "TYX")
        np.testing.assert_array_equal(read.planes[..., 0], planes(held))


def test_pages_that_axes_do_not_account_for_are_read_and_said(tmp_path):
    imagej(tmp_path / "a.tif", planes(6), {"images": 6, "slices": 4}, "zlib")
    read = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read.planes[..., 0], planes(6))
    assert read.stack == (("I", 6),)
    assert "do not account for its 6 pages: read page by page" in read.notes[0]
    with open_large(tmp_path / "a.tif") as image:
        assert (image.shape, image.notes) == (read.planes.shape, read.notes)


def test_planes_behind_the_only_page_of_imagej_are_read(tmp_path):
    imagej(tmp_path / "a.tif", planes(1), {"images": 3, "slices": 3}, None)
    with (tmp_path / "a.tif").open("ab") as file:
        file.write(planes(3)[1:].tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").planes[..., 0], planes(3))


def test_channels_of_colors_in_imagej_are_asked_for(tmp_path):
    colors = np.stack([planes(4)] * 3, axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", colors, imagej=True)
    with pytest.raises(ValueError, match=r"4 channels of colors.*--axes ZYXS"):
        read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", axes="ZYXS").planes, colors)
