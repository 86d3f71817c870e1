"""Labels for the page: those of a prediction by the run, and their pictures."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_unet.prediction.load import load
from keras_unet.serving.cells import segment_file
from keras_unet.serving.models import Version


def picture(text):
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image), image.mode


def file_of(pixels, kind="PNG", **options):
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind, **options)
    return written.getvalue()


@pytest.fixture(scope="module")
def grey(cells):
    """A picture of cells, 8 bits."""
    image = tifffile.imread(cells / "images" / "c3.tif").astype(np.float64)
    return (255 * image / image.max()).astype(np.uint8)[:80]


def test_cells_are_those_of_the_run(loaded, trained, grey):
    found = segment_file(loaded.versions[1], file_of(grey))
    expected = load(trained).segment(grey)
    labels, mode = picture(found["labels"])
    assert mode.startswith("I")  # 16 bits
    assert np.mean(labels != expected) < 1e-3  # a pixel at the threshold
    assert found["cells"] == len(np.unique(labels)) - 1
    assert found["cells"] > 0
    assert (found["height"], found["width"]) == grey.shape
    assert found["classes"] == ["background", "cell"]


def test_classes_are_the_values_of_the_labels(loaded, run_of_classes, grey):
    found = segment_file(loaded.versions[2], file_of(grey))
    labels, _ = picture(found["labels"])
    assert np.mean(labels != load(run_of_classes).segment(grey)) < 1e-3
    assert set(np.unique(labels)) == {0, 255}
    assert found["cells"] is None


def test_the_overlay_is_transparent_where_no_label_is(loaded, grey):
    found = segment_file(loaded.versions[1], file_of(grey))
    overlay, mode = picture(found["overlay"])
    labels, _ = picture(found["labels"])
    assert mode == "RGBA"
    np.testing.assert_array_equal(overlay[..., 3] > 0, labels > 0)


def test_dark_images_of_16_bits_are_shown_with_contrast(loaded, grey):
    deep = 100 + grey.astype(np.uint16)  # of 65,535
    shown, _ = picture(segment_file(loaded.versions[1], file_of(deep))["image"])
    assert (shown.min(), shown.max()) == (0, 255)
    assert shown.shape == grey.shape


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "1"])
def test_images_of_all_modes_are_shown(loaded, grey, mode):
    written = io.BytesIO()
    image = Image.fromarray(grey)
    (image.convert("RGB").quantize() if mode == "P" else image.convert(mode)).save(written, "PNG")
    shown, _ = picture(segment_file(loaded.versions[1], written.getvalue())["image"])
    assert shown.shape[:2] == grey.shape
    assert np.corrcoef(shown.reshape(*grey.shape, -1)[..., 0].ravel(), grey.ravel())[0, 1] > 0.3


def test_the_image_lies_under_its_labels_also_if_a_camera_turned_it(loaded, grey):
    turned = Image.Exif()
    turned[0x0112] = 6
    found = segment_file(loaded.versions[1], file_of(grey, "JPEG", exif=turned))
    assert picture(found["image"])[0].shape == picture(found["labels"])[0].shape == grey.shape


def test_more_labels_than_16_bits_are_not_wrapped(loaded, monkeypatch, grey):
    labels = np.arange(1, 70_001).reshape(100, 700)
    monkeypatch.setattr("keras_unet.serving.cells._labels_of", lambda *_: labels)
    found = segment_file(loaded.versions[1], file_of(grey))
    assert (found["cells"], found["labels"]) == (70_000, None)


def test_a_model_that_the_page_cannot_use(loaded, grey):
    own = loaded.versions[1]
    for missing in ("about", "classify_bytes"):
        functions = {name: one for name, one in own.functions.items() if name != missing}
        version = Version(1, own.definitions, functions, own)
        with pytest.raises(ValueError, match=re.escape("signatures about and classify_bytes")):
            segment_file(version, file_of(grey))
