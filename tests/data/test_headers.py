"""Headers of files that are no images; those of images are in test_forms.py."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from keras_unet.data.headers import read_header


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"", "the file is empty"),
        ("a.png", b"no image", "cannot be read as an image"),
        (
            "a.png",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 8 * b"\x7f" + b"\x08\0",
            "it states 2139062143",
        ),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_header(tmp_path / name)


def test_a_tiff_that_is_cut_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((40, 50), np.uint8))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a.tif: cannot be read as an image"):
        read_header(tmp_path / "a.tif")


def test_what_is_missing_or_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_header(tmp_path / "nowhere.tif")
    with pytest.raises(ValueError, match="it is a folder"):
        read_header(tmp_path)


def test_axes_are_those_that_are_given(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 40, 50), np.uint8), photometric="minisblack")
    assert read_header(tmp_path / "a.tif").shape == (3, 40, 50, 1)
    assert read_header(tmp_path / "a.tif", axes="CYX").shape == (1, 40, 50, 3)
