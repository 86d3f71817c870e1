"""The numbers of an image with a palette are intensities or stand for colors."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_unet.data.colors import color_table
from keras_unet.data.images import read_image
from keras_unet.data.lazy import open_large
from keras_unet.data.tiffs import PALETTE

RAMP = np.arange(256, dtype=np.uint8)
NONE = np.zeros_like(RAMP)
FEW = np.zeros((256, 3), np.uint8)
FEW[:4] = [[0, 0, 0], [200, 30, 90], [20, 180, 40], [250, 240, 230]]

NOT_APPLIED = "its palette is not applied"

TABLES = {
    "green of a microscope": (np.stack([NONE, RAMP, NONE], -1), None),
    "fire": (np.stack([np.minimum(2 * RAMP.astype(int), 255), RAMP, RAMP // 2], -1), None),
    "grey": (np.stack([RAMP] * 3, -1), None),
    "grey, 0 is white": (np.stack([RAMP[::-1]] * 3, -1), RAMP[::-1, None]),
    "few colors": (FEW, FEW),
}


@pytest.mark.parametrize(("colors", "table"), TABLES.values(), ids=TABLES)
def test_a_palette_is_followed_unless_it_colors_intensities(tmp_path, colors, table):
    found = color_table(colors.astype(np.uint8))
    assert (found is None) == (table is None)
    numbers = np.random.default_rng(0).integers(0, 4, (20, 26)).astype(np.uint8)
    colormap = 257 * colors.T.astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", numbers, photometric="palette", colormap=colormap)
    expected = numbers[..., None] if table is None else table[numbers]
    read = read_image(tmp_path / "a.tif", palette="colors")
    np.testing.assert_array_equal(read.planes[0], expected)
    (note,) = read.notes or ("",)
    is_grey = (colors == RAMP[:, None]).all()
    assert note.startswith(PALETTE if table is not None else "" if is_grey else NOT_APPLIED)
    with open_large(tmp_path / "a.tif") as image:
        assert (image.shape, image.notes) == ((1, *expected.shape), read.notes)
        (plane,) = image
        np.testing.assert_array_equal(plane[slice(0, 20), slice(3, 9)], expected[:, 3:9])
    labels = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(labels.planes[0, ..., 0], numbers)


def test_no_palette_is_no_table():
    assert color_table(None) is None


def test_alpha_beside_a_palette_is_left_out(tmp_path):
    picture = Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (20, 5)))
    picture.putpalette(FEW[:4].ravel().tolist())
    picture = picture.convert("PA")
    picture.putalpha(Image.fromarray(np.full((20, 20), 200, np.uint8)))
    picture.save(tmp_path / "a.tif")
    expected = FEW[np.asarray(picture)[..., 0]]
    read = read_image(tmp_path / "a.tif", palette="colors")
    np.testing.assert_array_equal(read.planes[0], expected)
    with open_large(tmp_path / "a.tif") as image:
        (plane,) = image
        np.testing.assert_array_equal(plane[slice(0, 20), slice(0, 20)], expected)
