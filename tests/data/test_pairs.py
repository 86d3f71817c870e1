from __future__ import annotations

from pathlib import Path

import pytest

from keras_unet.data.pairs import Pair, find_pairs


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
    for ignored in (".b.png", "notes.txt", "Thumbs.db"):
        make(tmp_path, "images", ignored)
    (tmp_path / "images" / "folder.png").mkdir()
    found = find_pairs(tmp_path)
    assert names(found.pairs) == ["a", "b", "c"]
    assert found.pairs[1] == Pair("b", tmp_path / "images/b.tif", tmp_path / "masks/b.png")
    assert found.orphans == ()


def test_orphans_of_both_sides(tmp_path: Path) -> None:
    make_pair(tmp_path)
    image = make(tmp_path, "images", "b.png")
    labels = make(tmp_path, "labels", "c.png")
    found = find_pairs(tmp_path)
    assert names(found.pairs) == ["a"]
    assert found.orphans == (image, labels)


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    make(tmp_path, "images", "a.png")
    with pytest.raises(ValueError, match=r"images: expected one .* received a\.png and a\.tif\."):
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
    assert [path.name for path in found.orphans] == ["man_seg009.tif"]


def test_cell_tracking_challenge_below(tmp_path: Path) -> None:
    write_challenge(tmp_path / "PhC")
    assert names(find_pairs(tmp_path).pairs)[0] == "PhC_01_t001"


def test_annotations_without_sequence_do_not_go_together(tmp_path: Path) -> None:
    make(tmp_path, "01_GT", "SEG", "man_seg001.tif")
    message = r"no image goes together with a label file\. .* Received SEG/man_seg001\.tif\."
    with pytest.raises(ValueError, match=message):
        find_pairs(tmp_path)


def test_names_that_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match=r"goes together .* Received no image file\."):
        find_pairs(tmp_path)
    make(tmp_path, "images", "a.png")
    make(tmp_path, "labels", "a_mask.png")
    with pytest.raises(ValueError, match=r"Received images/a\.png, labels/a_mask\.png\."):
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
