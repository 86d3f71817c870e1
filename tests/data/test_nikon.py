import nd2
import numpy as np
import pytest
from microscope_files import write_nd2

from keras_unet.data.images import image_files, read_image
from keras_unet.data.microscopes import scenes_of


def noise(shape):
    return np.random.default_rng(0).integers(0, 60_000, shape).astype(np.uint16)


def test_positions_planes_and_channels(tmp_path):
    pixels = noise((2, 3, 4, 2, 7, 9))
    known = {"pixel_size": 0.25, "distance": 1.5, "interval": 30.0}
    path = tmp_path / "a.nd2"
    write_nd2(path, pixels, names=("DAPI", "GFP"), positions=("A", "B", ""), **known)
    with nd2.ND2File(path) as oracle:
        assert dict(oracle.sizes) == {"T": 2, "P": 3, "Z": 4, "C": 2, "Y": 7, "X": 9}
        np.testing.assert_array_equal(oracle.asarray(), pixels)
    paths = image_files(tmp_path)
    assert [path.name for path in paths] == ["a_s000.nd2", "a_s001.nd2", "a_s002.nd2"]
    for position, path in enumerate(paths):
        image = read_image(path)
        expected = np.moveaxis(pixels[:, position], 2, -1).reshape(8, 7, 9, 2)
        np.testing.assert_array_equal(image.planes, expected)
        assert image.stack == (("T", 2), ("Z", 4))
        assert image.spacing.steps == {"X": 0.25, "Y": 0.25, "Z": 1.5, "T": 30.0}
        assert image.spacing.units == dict.fromkeys("XYZ", "micrometer") | {"T": "second"}
        assert image.spacing.channels == ("DAPI", "GFP")
        assert image.spacing.name == ("A", "B", "")[position]


def test_a_single_image_without_calibration(tmp_path):
    pixels = noise((1, 1, 1, 1, 7, 9))
    write_nd2(tmp_path / "a.nd2", pixels, names=("DAPI",))
    assert image_files(tmp_path) == [tmp_path / "a.nd2"]
    image = read_image(tmp_path / "a.nd2")
    np.testing.assert_array_equal(image.planes[..., 0], pixels[0, 0, 0])
    assert image.stack == ()
    assert image.spacing.steps == {}


def test_a_recording_that_was_stopped_is_refused(tmp_path):
    write_nd2(tmp_path / "a.nd2", noise((3, 1, 1, 1, 7, 9)), names=("DAPI",), stored=2)
    with pytest.raises(ValueError, match=r"a.nd2: .*it holds 2 of 3 frames: the recording was st"):
        scenes_of(tmp_path / "a.nd2")


def test_colors_of_unknown_order_are_refused(tmp_path):
    write_nd2(tmp_path / "a.nd2", noise((1, 1, 1, 3, 7, 9)), names=("Brightfield",))
    with pytest.raises(
        ValueError, match=r"it holds colors of a color camera, .*; .*save it as TIFF"
    ):
        scenes_of(tmp_path / "a.nd2")
