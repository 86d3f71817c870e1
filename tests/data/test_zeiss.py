import struct

import numpy as np
import pytest
from microscope_files import write_czi
from pylibCZIrw import czi

from keras_unet.data.images import image_files, read_image
from keras_unet.data.microscopes import scenes_of


def noise(shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(1, 250, shape).astype(dtype)


def test_scenes_planes_and_channels(tmp_path):
    scenes = [noise((2, 3, 2, 12, 17)), noise((1, 3, 2, 9, 11))]
    write_czi(tmp_path / "a.czi", scenes, names=("DAPI", "GFP"), pixel_size=0.25, distance=1.5)
    paths = image_files(tmp_path)
    assert [path.name for path in paths] == ["a_s000.czi", "a_s001.czi"]
    images = [read_image(path) for path in paths]
    for image, scene in zip(images, scenes, strict=True):
        expected = np.moveaxis(scene, 2, -1).reshape(-1, *scene.shape[-2:], 2)
        np.testing.assert_array_equal(image.planes, expected)
        assert image.planes.dtype == np.uint16
        assert image.spacing.channels == ("DAPI", "GFP")
        assert image.spacing.pixel_size == (0.25, 0.25)
        assert image.spacing.steps["Z"] == 1.5
    assert [image.stack for image in images] == [(("T", 2), ("Z", 3)), (("Z", 3),)]


def test_colors_are_red_green_blue(tmp_path):
    colors = noise((1, 1, 1, 6, 7, 3), np.uint8)
    write_czi(tmp_path / "a.czi", [colors])
    image = read_image(tmp_path / "a.czi")
    np.testing.assert_array_equal(image.planes[0], colors[0, 0, 0, ..., ::-1])
    assert image.spacing.channels == ()
    assert image.spacing.pixel_size is None


def test_the_tiles_of_a_mosaic_are_stitched_at_their_places(tmp_path):
    whole = noise((30, 40))
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for row, column in ((0, 0), (0, 20), (15, 0), (15, 20)):
            tile = whole[row : row + 15, column : column + 20, np.newaxis]
            file.write(tile, location=(column - 5, row + 3), plane={"C": 0, "T": 0, "Z": 0})
    np.testing.assert_array_equal(read_image(tmp_path / "a.czi").planes[0, ..., 0], whole)


def test_a_pyramid_is_read_at_full_resolution(tmp_path):
    whole, path = noise((30, 40)), tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        place = {"C": 0, "T": 0, "Z": 0}
        file.write(whole[..., np.newaxis], plane=place)
        file.write(np.full((15, 20, 1), 999, np.uint16), plane=place)
    assert (read_image(path).planes[0, :15, :20] == 999).all()  # a block on top of the other
    content = path.read_bytes()  # the library writes no pyramids: half the pixels in the same area
    for axis, stored, size in ((b"X", 20, 40), (b"Y", 15, 30)):
        old, new = (struct.pack("<4sii", axis, 0, number) for number in (stored, size))
        assert content.count(old) == 2  # with the block, and in the directory
        content = content.replace(old, new)
    path.write_bytes(content)
    with czi.open_czi(str(path)) as file:
        zooms = []
        file.enumerate_subblocks(lambda _, block: zooms.append(block.get_zoom()) or True)
    assert zooms == [1.0, 0.5]
    np.testing.assert_array_equal(read_image(path).planes[0, ..., 0], whole)


def test_channels_of_different_types_keep_their_values(tmp_path):
    first, second = noise((5, 6, 1), np.uint8), noise((5, 6, 1)) * 200
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(first, plane={"C": 0, "T": 0, "Z": 0})
        file.write(second, plane={"C": 1, "T": 0, "Z": 0})
    image = read_image(tmp_path / "a.czi")
    assert image.planes.dtype == np.uint16
    np.testing.assert_array_equal(image.planes[0], np.concatenate([first, second], -1))


def test_planes_of_a_part_of_a_recording_need_not_begin_at_0(tmp_path):
    pixels = noise((2, 5, 6, 1))
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for index, depth in enumerate((3, 4)):
            file.write(pixels[index], plane={"C": 0, "T": 7, "Z": depth})
    image = read_image(tmp_path / "a.czi")
    np.testing.assert_array_equal(image.planes, pixels)
    assert image.stack == (("Z", 2),)


def test_the_interval_of_frames_and_the_names_of_scenes(tmp_path):
    write_czi(tmp_path / "a.czi", [noise((2, 1, 1, 5, 6)), noise((2, 1, 1, 5, 6))], names=("A",))
    with czi.open_czi(str(tmp_path / "a.czi")) as file:
        xml = file.raw_metadata
    known = """<T><Positions><Interval><Increment>2.5</Increment></Interval></Positions></T>
        <S><Scenes><Scene Index="0" Name="P1"/><Scene Index="1" Name="P2"/></Scenes></S>"""
    _set_metadata(tmp_path / "a.czi", xml.replace("<Dimensions>", f"<Dimensions>{known}"))
    found = [read_image(path).spacing for path in image_files(tmp_path)]
    assert [spacing.name for spacing in found] == ["P1", "P2"]
    assert [(spacing.steps["T"], spacing.units["T"]) for spacing in found] == [(2.5, "second")] * 2


def _set_metadata(path, xml):
    with czi.edit_czi(str(path)) as editor, editor.edit_session() as builder:
        builder.set_xml(xml)


def test_a_recording_that_was_stopped_is_refused(tmp_path):
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for time, depth in ((0, 0), (0, 1), (1, 0)):
            file.write(noise((5, 6, 1)), plane={"C": 0, "T": time, "Z": depth})
    with pytest.raises(
        ValueError, match=r"a.czi: cannot be read as CZI of Zeiss \(it holds 3 of 4"
    ):
        scenes_of(tmp_path / "a.czi")


def test_planes_along_other_dimensions_are_refused(tmp_path):
    write_czi(tmp_path / "a.czi", [np.ones((1, 2, 1, 5, 6), np.uint16)])
    content = (tmp_path / "a.czi").read_bytes()  # the library does not write phases (H)
    (tmp_path / "a.czi").write_bytes(content.replace(b"Z\0\0\0", b"H\0\0\0"))
    with pytest.raises(
        ValueError, match=r"its planes lie along H \(rotation R, .*; save one of th"
    ):
        scenes_of(tmp_path / "a.czi")


def test_pixels_of_an_unknown_type_are_refused(tmp_path, monkeypatch):
    write_czi(tmp_path / "a.czi", [noise((1, 1, 1, 5, 6))])
    monkeypatch.setattr("keras_unet.data.zeiss._TYPES", {"Gray8": "u1"})
    with pytest.raises(ValueError, match=r"it holds pixels of the type Gray16"):
        scenes_of(tmp_path / "a.czi")
