from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from keras_unet.data.pairs import Pair, Unused, files_by_stem, find_pairs


def make(*parts: str | Path) -> Path:
    """Makes an empty file: its name alone counts."""
    path = Path(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def make_pair(folder: Path) -> None:
    make(folder, "images", "a.tif")
    make(folder, "labels", "a.png")


def names(pairs: tuple[Pair, ...]) -> list[str]:
    return [pair.name for pair in pairs]


def test_pairs_by_name_whatever_the_ending(tmp_path: Path) -> None:
    for image, labels in (("b.tif", "b.png"), ("a.PNG", "a.tif"), ("c.ome.tif", "c.tif")):
        make(tmp_path, "images", image)
        make(tmp_path, "masks", labels)
    for hidden in (".b.png", "._a.tif", "Thumbs.db"):
        make(tmp_path, "images", hidden)
    found = find_pairs(tmp_path)
    assert names(found.pairs) == ["a", "b", "c"]
    assert found.pairs[1] == Pair("b", tmp_path / "images/b.tif", tmp_path / "masks/b.png")
    assert found.unused == ()


def test_unused_files_have_a_reason(tmp_path: Path) -> None:
    make_pair(tmp_path)
    for ignored in ("notes.txt", "table.csv"):
        make(tmp_path, "images", ignored)
    (tmp_path / "images" / "folder.png").mkdir()
    make(tmp_path, "images", "big.ome.zarr", ".zgroup")
    make(tmp_path, "labels", "settings.ini")
    (tmp_path / "labels" / "gone.tif").symlink_to("nowhere.tif")
    assert [f"{one.name}: {one.reason}" for one in find_pairs(tmp_path).unused] == [
        "images/big.ome.zarr: Zarr, which training does not read; save it as TIFF",
        "images/folder.png: a folder",
        "images/notes.txt: not an image",
        "images/table.csv: not an image",
        "labels/gone.tif: a broken link",
        "labels/settings.ini: not an image",
    ]


AFFIXES = (
    *("x_mask", "x_masks", "x_label", "x_labels", "x_seg", "x_cp_masks", "x-mask", "x_gt"),
    *("x_instances", "x_MASK", "X_mask", "mask_x", "label_x", "seg_x", "Masks-x", "x_ground_truth"),
)


@pytest.mark.parametrize("labels", AFFIXES)
@pytest.mark.parametrize("image", ["x", "x_image", "x_img", "image_x", "IMG_x", "x-Img"])
@pytest.mark.parametrize("flat", [False, True])
def test_pairs_by_name_with_an_affix(tmp_path: Path, image: str, labels: str, flat: bool) -> None:
    parts = ((), ()) if flat else (("images",), ("labels",))
    first = make(tmp_path, *parts[0], f"{image}.tif")
    second = make(tmp_path, *parts[1], f"{labels}.png")
    assert find_pairs(tmp_path).pairs == (Pair(image, first, second),)


def test_an_affix_on_both_sides_belongs_to_the_name(tmp_path: Path) -> None:
    make(tmp_path, "images", "x_img.tif")
    make(tmp_path, "labels", "x_img_cp_masks.tif")
    assert names(find_pairs(tmp_path).pairs) == ["x_img"]


def test_equal_names_win_over_affixes(tmp_path: Path) -> None:
    make(tmp_path, "images", "x.tif")
    make(tmp_path, "labels", "x.png")
    other = make(tmp_path, "labels", "x_mask.png")
    found = find_pairs(tmp_path)
    assert [pair.labels.name for pair in found.pairs] == ["x.png"]
    assert found.unused == (Unused(other, "no partner"),)


def test_two_labels_of_one_image_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "images", "x.tif")
    make(tmp_path, "labels", "x_mask.png")
    make(tmp_path, "labels", "x_seg.png")
    message = r"received images/x\.tif with labels/x_mask\.png and labels/x_seg\.png\. Remove or"
    with pytest.raises(ValueError, match=message):
        find_pairs(tmp_path)


def test_names_that_differ_in_case_go_together_where_no_other_does(tmp_path: Path) -> None:
    make(tmp_path, "images", "A.tif")
    make(tmp_path, "labels", "a.png")
    assert names(find_pairs(tmp_path).pairs) == ["A"]


@pytest.mark.skipif(sys.platform != "linux", reason="names differ in more than case")
def test_names_that_differ_in_case_are_refused_where_two_do(tmp_path: Path) -> None:
    for name in ("Ab.tif", "aB.tif"):
        make(tmp_path, "images", name)
    make(tmp_path, "labels", "ab.png")
    with pytest.raises(ValueError, match=r"images/Ab\.tif and images/aB\.tif with labels/ab\.png"):
        find_pairs(tmp_path)
    make(tmp_path, "labels", "Ab.png")  # goes with its equal, and leaves the others one another
    assert names(find_pairs(tmp_path).pairs) == ["Ab", "aB"]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        *(("Images", "Labels"), ("image", "mask"), ("imgs", "GT"), ("IMAGES", "annotations")),
        *(("img", "mask"), ("raw", "gt"), ("images", "segmentation"), ("input", "target")),
    ],
)
def test_folders_of_other_names(tmp_path: Path, images: str, labels: str) -> None:
    make(tmp_path, images, "a.tif")
    make(tmp_path, labels, "a.png")
    assert names(find_pairs(tmp_path).pairs) == ["a"]


def test_usual_names_of_folders_win_over_others(tmp_path: Path) -> None:
    make(tmp_path, "raw", "a.tif")
    make(tmp_path, "seg", "a.tif")
    assert find_pairs(tmp_path).pairs[0].image == tmp_path / "raw/a.tif"
    make_pair(tmp_path)
    (pair,) = find_pairs(tmp_path).pairs
    assert (pair.image.parent.name, pair.labels.parent.name) == ("images", "labels")


def test_folders_one_level_below_are_named(tmp_path: Path) -> None:
    for part in ("train", "test"):
        make_pair(tmp_path / part)
    with pytest.raises(ValueError, match=r"Such folders are in test/, train/\.$"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("b.roi", "without outlines that can be read: ROIs of ImageJ, GeoJSON, LabelMe"),
        ("b.zip", "without outlines that can be read: ROIs of ImageJ, GeoJSON, LabelMe"),
        ("b.xml", "not an image; convert outlines to a label image, or to GeoJSON"),
        ("b.tif.gz", "a compressed file; decompress it"),
        ("b.WEBP", "an unsupported image format; save it as TIFF or PNG"),
        ("b.npy", "an unsupported image format; save it as TIFF or PNG"),
        ("b.csv", "not an image"),
    ],
)
def test_the_reason_names_the_remedy(tmp_path: Path, name: str, reason: str) -> None:
    make_pair(tmp_path)
    make(tmp_path, "labels", name)
    assert [one.reason for one in find_pairs(tmp_path).unused] == [reason]


def test_two_folders_of_images_are_refused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    make(tmp_path, "imgs", "a.png")
    with pytest.raises(ValueError, match=r"one folder of images, received images/ and imgs/\."):
        find_pairs(tmp_path)


def test_one_folder_for_all(tmp_path: Path) -> None:
    for name in ("a.tif", "a_mask.png", "img_b.tif", "mask_b.tif", "c.tif", "notes.txt"):
        make(tmp_path, name)
    (tmp_path / "run").mkdir()
    found = find_pairs(tmp_path)
    assert names(found.pairs) == ["a", "img_b"]
    assert [str(one) for one in found.unused] == [
        "c.tif (no partner)",
        "notes.txt (not an image)",
        "run (a folder)",
    ]


def check_endings(folder: Path) -> None:
    found = find_pairs(folder)
    assert names(found.pairs) == ["im0", "im1", "im2", "im3"]
    assert found.unused == ()


def test_endings_of_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number, ending in enumerate((".tif", ".btf", ".tf8", ".OME.TIF")):
        path = tmp_path / "images" / f"im{number}{ending}"
        tifffile.imwrite(path, np.zeros((4, 4), np.uint8), bigtiff=ending in (".btf", ".tf8"))
        make(tmp_path, "labels", f"im{number}.tif")
    check_endings(tmp_path)


def test_endings_as_others_write_them(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "endings"
    if not folder.is_dir():
        pytest.skip("the cases are not there")
    check_endings(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text")
def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    bad = Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/gr\xfcn.tif"))
    shutil.copy(tmp_path / "images" / "a.tif", bad)
    message = r"images/gr\\xfcn\.tif: the file's name is not UTF-8; rename it$"
    for refuse in (lambda: find_pairs(tmp_path), lambda: files_by_stem(tmp_path / "images")):
        with pytest.raises(ValueError, match=message):
            refuse()
    bad.rename(Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/gr\xfcn.txt")))
    assert [one.name for one in find_pairs(tmp_path).unused] == ["images/gr\\xfcn.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text")
def test_sequences_whose_names_are_not_utf8_are_refused(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn"))
    make(folder, "01", "t000.tif")
    make(folder, "01_GT", "SEG", "man_seg000.tif")
    with pytest.raises(ValueError, match=r"gr\\xfcn/01/t000\.tif: the file's name is not UTF-8"):
        find_pairs(folder)


def test_unused_files_of_both_sides(tmp_path: Path) -> None:
    make_pair(tmp_path)
    image = make(tmp_path, "images", "b.png")
    labels = make(tmp_path, "labels", "c.png")
    found = find_pairs(tmp_path)
    assert names(found.pairs) == ["a"]
    assert found.unused == (Unused(image, "no partner"), Unused(labels, "no partner"))


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    make(tmp_path, "images", "a.png")
    with pytest.raises(
        ValueError, match=r"images: expected names that .* received a\.png and a\.tif\."
    ):
        find_pairs(tmp_path)


def test_two_folders_of_labels_are_refused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    make(tmp_path, "masks", "a.png")
    with pytest.raises(ValueError, match=r"one folder of labels, received labels/ and masks/\."):
        find_pairs(tmp_path)


def write_challenge(folder: Path) -> None:
    for frame in range(4):
        make(folder, "01", f"t{frame:03d}.tif")
    make(folder, "02", "t0007.tif")
    make(folder, "01_GT", "SEG", "man_seg001.tif")
    make(folder, "01_GT", "SEG", "man_seg0003.tif")
    make(folder, "01_GT", "SEG", "man_seg009.tif")
    make(folder, "01_GT", "TRA", "man_track001.tif")
    make(folder, "02_GT", "SEG", "man_seg_0007_002.tif")
    make(folder, "01_GT", "SEG", "notes.txt")


def test_cell_tracking_challenge(tmp_path: Path) -> None:
    write_challenge(tmp_path)
    found = find_pairs(tmp_path)
    assert names(found.pairs) == ["01_t001", "01_t003", "02_t0007_002"]
    assert found.pairs[0].image == tmp_path / "01" / "t001.tif"
    assert found.pairs[0].labels == tmp_path / "01_GT" / "SEG" / "man_seg001.tif"
    assert [pair.plane for pair in found.pairs] == [None, None, 2]
    assert [(one.name, one.reason, one.is_expected) for one in found.unused] == [
        (f"{tmp_path.name}/01", "2 frames of 01 have no annotation", True),
        ("SEG/man_seg009.tif", "no partner", False),
        ("SEG/notes.txt", "not an image", False),
    ]


def test_wrong_names_in_the_cell_tracking_challenge(tmp_path: Path) -> None:
    write_challenge(tmp_path)
    make(tmp_path, "02", "frame.tif")
    make(tmp_path, "02_GT", "SEG", "seg7.tif")
    reasons = [(one.name, one.reason) for one in find_pairs(tmp_path).unused]
    assert reasons[-2:] == [
        ("02/frame.tif", "expected a name such as t000.tif"),
        ("SEG/seg7.tif", "expected a name such as man_seg000.tif"),
    ]


def test_cell_tracking_challenge_below(tmp_path: Path) -> None:
    write_challenge(tmp_path / "PhC")
    assert names(find_pairs(tmp_path).pairs)[0] == "PhC_01_t001"


def test_annotations_without_sequence_do_not_go_together(tmp_path: Path) -> None:
    make(tmp_path, "01_GT", "SEG", "man_seg001.tif")
    message = r"no image matches a label file\. .* Received SEG/man_seg001\.tif\."
    with pytest.raises(ValueError, match=message):
        find_pairs(tmp_path)


def test_names_that_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match=r"no image matches .* Received no image file\."):
        find_pairs(tmp_path)
    make(tmp_path, "images", "a.png")
    make(tmp_path, "labels", "b_mask.png")
    with pytest.raises(ValueError, match=r"Received images/a\.png, labels/b_mask\.png\."):
        find_pairs(tmp_path)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no: no such folder\. Expected one with images/"):
        find_pairs(tmp_path / "no")
    with pytest.raises(ValueError, match=r"expected images/ and labels/ .* Received an empty fol"):
        find_pairs(tmp_path)
    for i in range(9):
        make(tmp_path, f"{i}.txt")
    with pytest.raises(ValueError, match=r"Received a folder with 0\.txt, .*7\.txt, \.\.\.\."):
        find_pairs(tmp_path)
    with pytest.raises(NotADirectoryError, match=r"0\.txt: expected a folder .* received a file"):
        find_pairs(tmp_path / "0.txt")


def test_images_without_labels_are_no_layout(tmp_path: Path) -> None:
    make(tmp_path, "images", "a.png")
    with pytest.raises(ValueError, match=r"expected images/ and labels/ .*a folder with images\."):
        find_pairs(tmp_path)


def test_real_folders_are_paired(shared_data: Path) -> None:
    assert len(find_pairs(shared_data / "dsb2018").pairs) == 100
