from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.findings import check_dataset
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.pairs import Unused
from keras_unet.data.samples import Sample, Samples

INSTANCES, CLASSES = (
    LabelEncoding("instances", (0, 1), None),
    LabelEncoding("classes", (0, 255), None),
)


def sample(name, seed=0, size=(40, 40), instances=None, image=None):
    """An image of noise with one square cell."""
    if instances is None:
        instances = np.zeros(size, np.int32)
        instances[5:15, 5:15] = 1
    if image is None:
        image = np.random.default_rng(seed).normal(size=(*instances.shape, 1))
    return Sample(
        name=name,
        image=image.astype(np.float32),
        classes=(instances > 0).astype(np.uint8),
        instances=instances,
        ignored=np.zeros(instances.shape, bool),
    )


def warnings_of(*samples, encoding=INSTANCES, dtype="uint8", unused=(), held_out=()):
    data = Samples(samples, encoding, 1, dtype, tuple(unused))
    return check_dataset(data, Fingerprint.of(samples), held_out)


def only(*samples, **given):
    (line,) = warnings_of(*samples, **given)
    assert "\n" not in line
    return line


def squares(*sides):
    """Cells of these widths beside each other."""
    labels = np.zeros((max(sides) + 4, sum(sides) + 3 * len(sides)), np.int32)
    left = 1
    for number, side in enumerate(sides, 1):
        labels[2 : 2 + side, left : left + side] = number
        left += side + 3
    return labels


def test_good_images_have_no_warnings():
    assert warnings_of(sample("a", 0), sample("b", 1)) == []


def test_files_without_a_partner_are_named():
    unused = [Unused(Path(f"x/images/{n}.tif"), "no partner") for n in "abcd"]
    line = only(sample("a"), unused=[*unused, Unused(Path("x/images/n.txt"), "not an image")])
    assert line == (
        "5 files not used (images/a.tif: no partner, images/b.tif: no partner, images/c.tif: no "
        "partner and 2 more): give an image and its labels the same name, and keep other files "
        "elsewhere"
    )


def test_frames_without_annotation_have_no_warnings():
    missing = Unused(Path("x/01"), "2 frames of 01 have no annotation", is_expected=True)
    assert warnings_of(sample("a"), unused=[missing]) == []


def test_blank_images_are_named():
    blank = np.full((40, 40, 1), 7)
    assert only(sample("a", image=blank), sample("b")).startswith(
        "1 image holds a single grey value (a)"
    )


def test_labels_of_one_class_are_named():
    full = np.ones((40, 40), np.int32)
    line = only(sample("a", 0, instances=full), sample("b", 1), encoding=CLASSES)
    assert line.startswith("the labels of 1 image hold a single class (a): make sure")


def test_ignored_pixels_are_of_no_class():
    image = sample("a")
    image.ignored[:20] = True
    assert "hold a single class (a)" in only(image)


@pytest.mark.parametrize(("held_out", "is_leak"), [((), False), (("a",), True), ("ab", False)])
def test_copies_are_named_and_whether_they_raise_scores(held_out, is_leak):
    line = only(sample("a"), sample("b"), sample("c", 1), held_out=held_out)
    assert line.startswith("images occur more than once (a = b)")
    assert ("scores too high" in line) == is_leak


def test_images_of_equal_bytes_and_another_shape_are_no_copies():
    tall, wide = sample("a", size=(40, 20)), sample("b", size=(20, 40))
    assert tall.image.tobytes() == wide.image.tobytes()
    assert warnings_of(tall, wide) == []


def test_several_types_of_numbers():
    assert "several types (uint16, uint8)" in only(sample("a"), dtype="uint16, uint8")


def test_images_of_very_different_sizes():
    small, large = sample("a"), sample("b", size=(40, 161))
    assert "from 40 (a) to 161 pixels (b)" in only(small, large)
    assert warnings_of(small, sample("b", size=(40, 160))) == []


def test_saturated_images_are_named():
    noise = np.random.default_rng(0).normal(100, 50, (40, 40, 1)).round()
    assert only(sample("a", image=noise.clip(0, 150))).startswith(
        "1 image saturated (a): more than"
    )
    assert warnings_of(sample("a", image=noise.clip(0, 250))) == []
    assert warnings_of(sample("a", image=(noise > 100) * 3)) == []  # black and white by nature


def test_specks_are_counted():
    labels = squares(10, 2, 1, 10)
    line = warnings_of(sample("a", instances=labels))[0]
    assert line.startswith("2 cells of less than 5 pixels (a): remove them")


def test_cells_of_very_different_sizes():
    line = only(sample("a", instances=squares(*[6] * 5, *[40] * 5)))
    assert "a tenth are narrower than 7 pixels and a tenth wider than 45" in line
    assert warnings_of(sample("a", instances=squares(*[20] * 5, *[40] * 5))) == []


def test_pieces_that_may_be_cells_that_touch():
    labels = squares(*[10] * 7, *[40] * 3)
    line = only(sample("a", instances=labels), encoding=CLASSES)
    assert line.startswith("pieces of the foreground differ in size: the median is 11 pixels")
    assert warnings_of(sample("a", instances=squares(*[10] * 7, *[18] * 3)), encoding=CLASSES) == []


IN_PART = LabelEncoding("instances", (0, 1), unlabelled=0)


def in_part(name, seed, *, background=True, cells=True):
    """A sample of which a cell, and some of the background, are labelled."""
    one = sample(name, seed)
    instances = one.instances * cells
    labelled = (instances > 0) | (background & (np.indices(instances.shape)[0] > 35))
    classes = (instances > 0).astype(np.uint8)
    return replace(one, instances=instances, classes=classes, ignored=~labelled)


def test_images_without_background_or_cells_are_named():
    complete = [in_part("a", 0), in_part("b", 1)]
    assert not any("is marked" in line for line in warnings_of(*complete, encoding=IN_PART))
    lacking = [in_part("c", 2, background=False), in_part("d", 3, cells=False)]
    found = [line for line in warnings_of(*complete, *lacking, encoding=IN_PART) if "mark" in line]
    assert found == [
        "no background is marked in 1 image (c): mark some, of value 1, also close to objects",
        "no cell is marked in 1 image (d): mark some if it is there",
    ]


def test_strokes_are_neither_outlines_nor_specks():
    labels = np.zeros((40, 40), np.int32)
    labels[5, 5:30] = labels[30, 5:30] = labels[5:31, 5] = labels[5:31, 29] = 1  # a closed line
    labels[20, 20] = 2
    strokes = LabelEncoding("classes", (1, 2), unlabelled=0)
    drawn = [replace(sample(name, seed, instances=labels)) for seed, name in enumerate("abc")]
    for encoding, expected in ((strokes, False), (CLASSES, True)):
        lines = warnings_of(*drawn, encoding=encoding)
        assert any("thin lines" in line for line in lines) is expected
        assert any("less than 5 pixels" in line for line in lines) is expected
