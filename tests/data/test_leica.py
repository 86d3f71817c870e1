import numpy as np
import pytest
from logs import logged
from microscope_files import LifImage, write_lif

from keras_unet.data.images import image_files, read_image
from keras_unet.data.microscopes import scenes_of

STEPS = {"X": 2.5e-7, "Y": 2.5e-7, "Z": 1.5e-6, "T": 5.0}


def noise(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def test_images_planes_and_channels(tmp_path):
    first, second = noise((2, 3, 2, 7, 9)), noise((5, 6), np.uint16)
    write_lif(
        tmp_path / "a.lif",
        [
            LifImage("one", first, "TZCYX", STEPS, ("DAPI", "GFP")),
            LifImage("two", second, "YX", {}, ("Gray",)),
        ],
    )
    paths = image_files(tmp_path)
    assert [path.name for path in paths] == ["a_s000.lif", "a_s001.lif"]
    image, other = map(read_image, paths)
    np.testing.assert_array_equal(image.planes, np.moveaxis(first, 2, -1).reshape(6, 7, 9, 2))
    np.testing.assert_array_equal(other.planes[0, ..., 0], second)
    assert image.stack == (("T", 2), ("Z", 3))
    assert image.spacing.steps == {"T": 5.0, "Z": 1.5, "Y": 0.25, "X": 0.25}
    assert image.spacing.units == dict.fromkeys("XYZ", "micrometer") | {"T": "second"}
    assert image.spacing.channels == ("DAPI", "GFP")
    assert [image.spacing.name, other.spacing.name] == ["one", "two"]
    assert other.spacing.steps == {}


def test_tiles_that_were_not_merged_are_planes(tmp_path):
    pixels = noise((4, 7, 9))
    write_lif(tmp_path / "a.lif", [LifImage("tiles", pixels, "MYX", STEPS, ("DAPI",))])
    image = read_image(tmp_path / "a.lif")
    np.testing.assert_array_equal(image.planes[..., 0], pixels)
    assert image.stack == (("M", 4),)
    assert image.notes == ("its tiles (M) are read as planes, for they were not merged",)


def test_what_is_no_image_is_skipped_with_a_message(tmp_path):
    line, image = noise((5, 9)), noise((7, 9))
    parts = [LifImage("line", line, "TX", {}, ("A",)), LifImage("image", image, "YX", {}, ("A",))]
    write_lif(tmp_path / "a.lif", parts)
    with logged() as said:
        planes = read_image(tmp_path / "a.lif").planes
    np.testing.assert_array_equal(planes[0, ..., 0], image)
    assert said == ["Warning: a.lif: not read, as they have no height and width: line"]
    write_lif(tmp_path / "b.lif", parts[:1])
    with pytest.raises(ValueError, match=r"b.lif: .*it holds no image with height and width"):
        scenes_of(tmp_path / "b.lif")


def test_a_file_cut_off_in_its_pixels_is_refused(tmp_path):
    write_lif(tmp_path / "a.lif", [LifImage("image", noise((7, 9)), "YX", {}, ("A",))])
    whole = (tmp_path / "a.lif").read_bytes()
    (tmp_path / "a.lif").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"a.lif: cannot be read as an image"):
        read_image(tmp_path / "a.lif")
