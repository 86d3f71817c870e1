"""Differences in storage between label files: reported once, or refused if labels change."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_unet.data.samples import read_samples

HEIGHT, WIDTH = 20, 26


def cells(shift, high=1):
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[3 + shift : 9 + shift, 4:10] = high
    found[12:17, 14 + shift : 20 + shift] = high
    return found


def by_tifffile(dtype="uint8", **options):
    return ".tif", lambda path, mask: tifffile.imwrite(path, mask.astype(dtype), **options)


def by_pillow(mode, ending=".png", **options):
    def written(path, mask):
        picture = Image.fromarray(mask > 0 if mode == "1" else mask)
        if mode == "P":
            picture = picture.convert("P")
            picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(path, **options)

    return ending, written


def white_first(path, mask):
    tifffile.imwrite(path, 255 - 255 * mask, photometric="miniswhite")


def black_first(path, mask):
    tifffile.imwrite(path, 255 * mask)


TYPES = "label files: number types differ, with the same meaning of the numbers: "
PALETTE = "label files: some have a palette, others none: "
WHITE = "label files: some store white as 0, and each is read as displayed: "

DIFFERENCES = {
    "alike": ([by_tifffile(), by_tifffile()], ()),
    "two depths": (
        [by_tifffile(), by_tifffile("uint16"), by_tifffile()],
        (f"{TYPES}uint8 in labels/0.tif, uint16 in labels/1.tif",),
    ),
    "three types": (
        [by_tifffile(), by_tifffile("float32"), by_pillow("1")],
        (f"{TYPES}uint8 in labels/0.tif, float32 in labels/1.tif, bool in labels/2.png",),
    ),
    "a palette in some": (
        [by_pillow("L"), by_pillow("P"), by_pillow("L")],
        (f"{PALETTE}no palette in labels/0.png, a palette in labels/1.png",),
    ),
    "0 is white in some": (
        [(".tif", black_first), (".tif", white_first)],
        (f"{WHITE}0 is black in labels/0.tif, 0 is white in labels/1.tif",),
    ),
}


def write(folder, files, masks):
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number, ((ending, written), mask) in enumerate(zip(files, masks, strict=True)):
        image = np.uint8(30 + 90 * (mask > 0) + np.arange(WIDTH) % 7)
        Image.fromarray(image).save(folder / f"images/{number}.png")
        written(folder / f"labels/{number}{ending}", mask)


@pytest.mark.parametrize(("files", "lines"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_harmless_differences_are_reported_once(tmp_path, files, lines):
    masks = [cells(number) for number in range(len(files))]
    write(tmp_path, files, masks)
    samples = read_samples(tmp_path)
    assert tuple(note for note in samples.notes if note.startswith("label files:")) == lines
    assert all(line in samples.describe().splitlines() for line in lines)
    for sample, mask in zip(samples.samples, masks, strict=True):
        np.testing.assert_array_equal(sample.classes, mask)


SCALES = {
    "1 bit and 255": ([by_pillow("1"), (".tif", black_first)], "0 and 1 in it, 0 and 255 in .*1"),
    "a palette and 255": ([by_pillow("P"), (".tif", black_first)], "0 and 1 in it, 0 and 255"),
}


@pytest.mark.parametrize(("files", "message"), SCALES.values(), ids=SCALES)
def test_differences_that_change_labels_are_refused(tmp_path, files, message):
    write(tmp_path, files, [cells(0), cells(1)])
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path)


def test_the_same_classes_spread_to_white_are_refused(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 9:17], mask[:, 17:] = 1, 2
    spread = np.uint8([0, 127, 255])[mask]
    write(tmp_path, [by_tifffile(), by_tifffile()], [mask, spread])
    message = r"0\.tif: .*0, 1 and 2 in it, 0, 127 and 255 in .*1\.tif.*set --labels classes"
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path)
    assert read_samples(tmp_path, labels="classes").encoding.values == (0, 1, 2, 127, 255)


def test_one_number_in_two_colors_is_refused(tmp_path):
    def colored(*color):
        def written(path, mask):
            picture = Image.fromarray(mask).convert("P")
            picture.putpalette([0, 0, 0, *color, 0, 0, 255])
            picture.save(path)

        return ".png", written

    write(tmp_path, [colored(255, 0, 0), colored(0, 255, 0)], [cells(0), cells(1)])
    message = r"1\.png: expected the palette of 0\.png, in which number 1 .*\(255, 0, 0\)"
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path)


def greys(path, mask):
    """Saves the numbers 1 and 2 by a palette in which they are greys."""
    picture = Image.fromarray(mask).convert("P")
    picture.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180])
    picture.save(path)


def test_numbers_that_are_the_greys_of_another_palette_are_refused(tmp_path):
    mask = cells(0)
    mask[12:17, 14:20] = 2
    write(tmp_path, [(".png", greys), by_tifffile()], [mask, 90 * mask])
    message = r"1\.tif: expected the numbers of 0\.png, whose palette shows 1 as the grey 90"
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path)
    tifffile.imwrite(tmp_path / "labels/1.tif", mask)
    assert read_samples(tmp_path, labels="classes").encoding.values == (0, 1, 2)
