import numpy as np
import pytest
import tifffile

from keras_unet.prediction.inputs import describe_unread, list_images


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.tif", "b", ".c.tif", "._a.tif"):
        tifffile.imwrite(folder / name, np.zeros((2, 2), np.uint8))
    return folder


def test_of_images_and_hidden_files_nothing_is_said(images):
    (images / "Thumbs.db").touch()
    (images / "d.zarr").mkdir()
    (images / "d.zarr" / ".zgroup").touch()
    assert list(describe_unread([images, images / "a.tif", images / "d.zarr"])) == []


def test_what_is_not_read_is_counted_in_a_line(images):
    (images / "notes.txt").touch()
    assert list(describe_unread([images])) == [
        "1 file in images not read: notes.txt (not an image)"
    ]
    for number in range(6):
        (images / f"{number}").mkdir()
    (line,) = describe_unread([images])
    assert line.startswith("7 files in images not read: 0 (a folder), 1 (a folder), ")
    assert line.endswith("4 (a folder) and 2 more")


def test_masks_of_other_images_are_not_predicted_unless_named(images):
    for name in ("A_mask.png", "a_cp_masks.tif", "seg-b", "c_mask.tif", "x_img.tif", "x_gt.tif"):
        tifffile.imwrite(images / name, np.zeros((2, 2), np.uint8))
    assert [path.name for path in list_images([images])] == [
        "a.tif",
        "b",
        "c_mask.tif",
        "x_img.tif",
    ]
    listed, advice = describe_unread([images])
    assert listed == (
        "4 files in images not read: A_mask.png (by its name the mask of a.tif), "
        "a_cp_masks.tif (by its name the mask of a.tif), seg-b (by its name the mask of b), "
        "x_gt.tif (by its name the mask of x_img.tif)"
    )
    assert advice == "to predict a mask as well, pass the path of its file"
    assert list(list_images([images / "A_mask.png"])) == [images / "A_mask.png"]


def test_a_folder_of_formats_that_are_not_read_says_what_to_do(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004")
    with pytest.raises(
        ValueError, match=r"without any: .*a\.nrrd is NRRD, which is not read; save"
    ):
        list(list_images([tmp_path]))
