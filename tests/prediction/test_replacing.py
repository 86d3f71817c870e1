"""A file that this program has not written is not replaced, nor written beside, by a slip."""

import os

import numpy as np
import pytest
import tifffile

from keras_unet.data.images import write_tiff
from keras_unet.prediction.replacing import check_outputs
from keras_unet.report.pictures import write_png

PIXELS = np.zeros((4, 5), np.uint8)


def own(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tiff(path, PIXELS, axes="YX")
    return path


def foreign(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, PIXELS)
    return path


def check(out, *names, image="quite/elsewhere/a.png"):
    check_outputs(out, [out / name for name in names], [out.parent / image])


@pytest.mark.parametrize("folder", ["out", "new/and/deep", "labels", "SEG"])
def test_a_folder_that_is_new_or_holds_own_files_is_written_to(tmp_path, folder):
    out = tmp_path / folder
    check(out, "a.tif")
    own(out / "a.tif")
    own(out / "a_probabilities.tif")
    (out / "scores.json").touch()
    (out / ".hidden.tif").touch()
    check(out, "a.tif", "b.tif")


def test_a_target_of_others_is_named(tmp_path):
    own(tmp_path / "out" / "a.tif")
    foreign(tmp_path / "out" / "b.tif")
    with pytest.raises(ValueError, match=r"b.tif: expected no file.*choose another --out, or re"):
        check(tmp_path / "out", "a.tif", "b.tif")


@pytest.mark.parametrize("name", ["c.tif", "c.png", "c.JPG"])
def test_a_folder_with_images_of_others_is_refused(tmp_path, name):
    own(tmp_path / "out" / "a.tif")
    (tmp_path / "out" / name).touch()
    with pytest.raises(ValueError, match=rf"out: expected a folder for pred.*with {name}, which"):
        check(tmp_path / "out", "a.tif")


def test_what_is_to_learn_from_is_of_others(tmp_path):
    (tmp_path / "out").mkdir()
    write_tiff(tmp_path / "out" / "a.tif", PIXELS, axes="YX", is_data=True)
    with pytest.raises(ValueError, match=r"a.tif: expected no file, or one that keras-unet has"):
        check(tmp_path / "out", "a.tif")
    with pytest.raises(ValueError, match=r"with a.tif, which keras-unet has not written"):
        check(tmp_path / "out", "b.tif")


def test_a_target_of_another_kind_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    write_png(tmp_path / "out" / "a.tif", np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a.tif: expected no file, or one that"):
        check(tmp_path / "out", "a.tif")


def test_a_hidden_zarr_is_no_image(tmp_path):
    """An interrupted prediction leaves one."""
    store = tmp_path / "out" / ".a.0123456789ab.zarr"
    store.mkdir(parents=True)
    (store / "zarr.json").write_text("{}")
    check(tmp_path / "out", "a.tif")


def test_zarr_of_others_is_an_image(tmp_path):
    (tmp_path / "out" / "c.zarr").mkdir(parents=True)
    check(tmp_path / "out", "a.tif")
    (tmp_path / "out" / "c.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ValueError, match=r"with c.zarr, which keras-unet has not written"):
        check(tmp_path / "out", "a.tif")


@pytest.mark.parametrize(
    ("out", "beside"),
    [
        ("labels", "images"),
        ("Masks", "images"),
        ("images", "labels"),
        ("images", "MASKS"),
        ("01_GT/SEG", "01"),
        ("02_ST/SEG", "02"),
    ],
)
def test_a_part_of_a_data_set_is_refused_even_if_new(tmp_path, out, beside):
    (tmp_path / beside).mkdir()
    with pytest.raises(ValueError, match=rf"beside {beside}, as in a data set; choose"):
        check(tmp_path / out, "a.tif")


@pytest.mark.parametrize("image", ["pictures/a.png", "a.png"])
@pytest.mark.parametrize("out", ["labels", "Masks", "link"])
def test_a_folder_of_labels_beside_the_images_is_refused_even_if_new(tmp_path, out, image):
    (tmp_path / image).parent.mkdir(exist_ok=True)
    if out == "link":
        (tmp_path / "labels").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "labels")
    with pytest.raises(ValueError, match=rf"beside {(tmp_path / image).parent.name}, as in a da"):
        check(tmp_path / out, "a.tif", image=image)


def test_the_folder_of_an_image_is_refused_by_whatever_name(tmp_path, monkeypatch):
    own(tmp_path / "out" / "a.tif")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    for out in (tmp_path / "out", tmp_path / "link", tmp_path / "out" / ".." / "out"):
        with pytest.raises(ValueError, match="one that holds an image to predict"):
            check(out, "b.tif", image=tmp_path / "out" / "a.tif")
    with pytest.raises(ValueError, match=r"^\.: expected .*holds an image to predict"):
        check_outputs(type(tmp_path)(), [], [tmp_path / "out" / "a.tif"])


def test_each_file_is_looked_at_once(tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = own(out / "i0.tif")
    for number in range(1, 2000):
        os.link(first, out / f"i{number}.tif")
    seen = []
    for name, found in (("is_own", True), ("own_kind", "tiff")):
        monkeypatch.setattr(
            f"keras_unet.prediction.replacing.{name}",
            lambda path, one=found: seen.append(path) or one,
        )
    check(out, *(f"i{number}.tif" for number in range(1000)))
    assert len(seen) == len(set(seen)) == 2000
