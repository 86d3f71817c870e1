"""Which samples of a TIFF's pixels are channels, and which is alpha; refusals are forms."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from keras_unet.data.images import read_image
from keras_unet.data.lazy import open_large

HEIGHT, WIDTH = 20, 26


@pytest.mark.parametrize(
    ("samples", "options", "alpha"),
    [
        (3, {"photometric": "minisblack", "extrasamples": ["unspecified", "unassalpha"]}, 2),
        (5, {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}, 3),
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}, 3),
        (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}, None),
        (2, {"photometric": "minisblack", "extrasamples": ["unspecified"]}, None),
        (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}, 1),
    ],
)
def test_the_sample_that_is_called_alpha_is_left_out(tmp_path, samples, options, alpha):
    pixels = np.random.default_rng(0).integers(0, 250, (HEIGHT, WIDTH, samples)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, planarconfig="contig", **options)
    expected = pixels if alpha is None else np.delete(pixels, alpha, -1)
    read = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read.planes[0], expected)
    with open_large(tmp_path / "a.tif") as image:
        (plane,) = image
        np.testing.assert_array_equal(plane[slice(0, HEIGHT), slice(0, WIDTH)], expected)
        assert len(image.notes) == len(read.notes) == (alpha is not None)
