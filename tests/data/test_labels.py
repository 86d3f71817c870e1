from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage as ndi
from numpy.typing import NDArray
from PIL import Image

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes
from keras_unet.data.labels import check_labels, detect_encoding, histogram_line

INSTANCES = LabelEncoding("instances", (0, 1))
HERE = Path("a.png")


def cells(rows: int, columns: int, *, side: int = 12, gap: int = 3) -> NDArray[np.int32]:
    """Squares in a grid, numbered from 1."""
    numbers = np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns)
    cell = np.zeros((side, side), np.int32)
    cell[gap:, gap:] = 1
    return np.kron(numbers, cell).astype(np.int32)


def disc(radius: int = 14) -> NDArray[np.bool_]:
    row, column = np.mgrid[:64, :64]
    return np.hypot(row - 31.3, column - 29.8) < radius


def by_jpeg(labels: NDArray[Any], quality: int) -> NDArray[np.int32]:
    buffer = io.BytesIO()
    Image.fromarray(labels.astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer)).astype(np.int32)


def detect(*labels: NDArray[Any], **options: Any) -> LabelEncoding:
    return detect_encoding([(f"{i}.png", each) for i, each in enumerate(labels)], **options)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (1, 2), (7, 40_000)])
def test_two_values_are_classes(low: int, high: int) -> None:
    assert detect(np.where(disc(), high, low)) == LabelEncoding("classes", (low, high))


def test_two_values_may_lie_in_two_files() -> None:
    assert detect(np.zeros((4, 4), int), np.full((4, 4), 255)).values == (0, 255)


def test_bool_is_two_classes() -> None:
    assert detect(disc()) == LabelEncoding("classes", (0, 1))


@pytest.mark.parametrize("count", [2, 5, 14])
def test_numbered_cells_are_instances(count: int) -> None:
    assert detect(cells(count, count)) == INSTANCES


def test_a_cell_of_a_few_pixels_at_high_numbers_is_an_instance() -> None:
    labels = np.zeros((20, 20), int)
    labels[:10, :10], labels[19, 18:], labels[0, 15:17] = 250, 255, 252
    assert detect(labels) == INSTANCES


def test_cells_of_one_pixel_are_instances() -> None:
    assert detect(cells(12, 12, side=3, gap=2)) == INSTANCES


def test_stray_pixels_do_not_break_an_instance() -> None:
    labels = cells(3, 3, side=24)
    labels[::24, ::24] = labels[12::24, 12::24]
    assert detect(labels) == INSTANCES


def test_the_rule_counts_nine_in_ten_whole_regions() -> None:
    whole = cells(3, 3)
    for broken, kind in ((1, "instances"), (2, "classes")):
        parts = np.zeros((12, 24 * broken), np.int32)
        for i in range(broken):
            parts[3:9, 24 * i + 3 : 24 * i + 9] = i + 1
            parts[3:9, 24 * i + 15 : 24 * i + 21] = i + 1
        assert detect(whole, parts).kind == kind


def test_few_values_in_many_pieces_are_classes() -> None:
    labels = cells(6, 6) % 5
    assert detect(labels) == LabelEncoding("classes", (0, 1, 2, 3, 4))
    assert detect(10 * labels).values == (0, 10, 20, 30, 40)


def test_classes_with_a_thin_border_and_a_void_value_are_classes() -> None:
    inside = cells(4, 4) > 0
    border = inside ^ ndi.binary_dilation(inside)
    assert detect(inside + 2 * border).values == (0, 1, 2)
    void = np.where(border, 255, inside)
    assert detect(void, kind="classes").values == (0, 1, 255)
    assert detect(void, ignore=255).values == (0, 1)


def test_a_class_of_dots_is_a_class() -> None:
    labels = np.where(disc(), 128, 0)
    labels[::7, ::5] = 255
    assert detect(labels).values == (0, 128, 255)


def test_ignored_value_is_taken_out_first() -> None:
    labels = np.where(disc(), 255, 0)
    labels[5:9] = 100
    assert detect(labels, ignore=100) == LabelEncoding("classes", (0, 255), 100)
    numbered = cells(4, 4)
    numbered[20:24] = 999
    assert detect(numbered, ignore=999) == LabelEncoding("instances", (0, 1), 999)


def test_kind_overrides_the_rule() -> None:
    assert detect(cells(2, 2), kind="classes").values == (0, 1, 2, 3, 4)
    assert detect(disc(), kind="instances") == INSTANCES
    assert detect(cells(14, 14), kind="classes").classes == 197


@pytest.mark.parametrize("quality", [30, 75, 90, 95, 98, 100])
@pytest.mark.parametrize("kind", ["auto", "classes"])
def test_jpeg_masks_are_refused_with_histogram(quality: int, kind: str) -> None:
    good, bad = 255 * disc(), by_jpeg(255 * disc(), quality)
    assert len(np.unique(bad)) > 2
    message = r"^1\.png: expected exact label values, .* as from JPEG.*: 0: \d+\.\d %, 255: .*PNG"
    with pytest.raises(ValueError, match=message):
        detect(good, bad, kind=kind)


@pytest.mark.parametrize("kind", ["auto", "instances", "classes"])
def test_a_jpeg_by_name_is_refused_at_three_values(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"^masks/a\.JPG: expected exact label values"):
        detect_encoding([("masks/a.JPG", cells(2, 1))], kind=kind)
    assert detect_encoding([("masks/a.jpg", disc())]).kind == "classes"


def test_smoothed_and_resized_masks_are_refused() -> None:
    image = Image.fromarray(np.uint8(255 * disc()))
    for size in (40, 100):
        smooth = np.array(image.resize((size, size), Image.Resampling.BILINEAR))
        with pytest.raises(ValueError, match=r"0\.png: expected exact label values"):
            detect(smooth)


def test_jpeg_of_numbered_cells_is_refused() -> None:
    for quality in (50, 90):
        with pytest.raises(ValueError, match=r"expected .*JPEG"):
            detect(by_jpeg(cells(9, 9), quality))


def test_a_grey_image_is_refused() -> None:
    noise = np.random.default_rng(0).normal(100, 20, (64, 64)).clip(0, 255).astype(int)
    with pytest.raises(ValueError, match=r"resizing or a grey image: .* values\)"):
        detect(noise)


def test_many_values_in_large_pieces_are_refused_naming_the_worst_file() -> None:
    many = np.kron(np.tile(np.arange(20), (4, 1)), np.ones((6, 6), int))
    many = np.concatenate([many, np.flip(many, axis=1)], axis=0)
    message = r"^1\.png: expected at most 16 class values, .* Received 20 values .*\(20 values\)"
    with pytest.raises(ValueError, match=message):
        detect(cells(1, 1), many)
    assert detect(cells(1, 1), many, kind="classes").classes == 20


def test_more_than_256_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected at most 256 class values.*Received 290 val"):
        detect(cells(17, 17), kind="classes")


def test_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^0\.png: .* received the value 3 alone in 2 of them"):
        detect(np.full((4, 4), 3), np.full((4, 4), 3))
    with pytest.raises(ValueError, match=r"received ignored pixels alone in 1 of them: there is"):
        detect(np.full((4, 4), 3), ignore=3)
    with pytest.raises(ValueError, match=r"^labels: expected at least two values"):
        detect()


def test_instances_need_background() -> None:
    tiled = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((6, 6), int))
    with pytest.raises(ValueError, match=r"look like instances, but no .* values from 1 to 16"):
        detect(tiled)
    with pytest.raises(ValueError, match=r"no label file holds the value 0"):
        detect(cells(3, 3), ignore=0)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be 'auto', .*Received: kind='semantic'"):
        detect(disc(), kind="semantic")


def test_a_thousand_cells_take_well_under_a_second() -> None:
    labels = cells(32, 32, side=32)
    start = time.perf_counter()
    assert detect(labels) == INSTANCES
    assert time.perf_counter() - start < 1


def test_real_labels_are_known(shared_data: Path) -> None:
    kinds = {"isbi2012": "classes", "usiigaci": "instances", "dsb2018": "instances"}
    for folder, kind in kinds.items():
        paths = sorted((shared_data / folder / "labels").iterdir())[:15]
        labels = [(path.name, check_labels(path, read_planes(path))[0]) for path in paths]
        assert detect_encoding(labels).kind == kind


def test_real_masks_by_jpeg_are_refused(shared_data: Path) -> None:
    for path in sorted((shared_data / "isbi2012" / "labels").iterdir())[:3]:
        mask = check_labels(path, read_planes(path))[0]
        for quality in (30, 75, 95, 100):
            with pytest.raises(ValueError, match="as from JPEG"):
                detect(by_jpeg(mask, quality))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_whole_numbers_are_labels(dtype: str, channels: int) -> None:
    planes = np.repeat(disc()[np.newaxis, ..., np.newaxis], channels, axis=-1).astype(dtype)
    labels = check_labels(HERE, planes)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, disc()[np.newaxis])


def test_color_masks_are_refused() -> None:
    planes = np.zeros((1, 4, 4, 3), np.uint8)
    planes[0, 0, 0], planes[0, 1, 1] = (255, 0, 0), (0, 255, 0)
    with pytest.raises(ValueError, match=r"a\.png: .* color image with 3 distinct colors"):
        check_labels(HERE, planes)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"a\.png: expected whole numbers, received float64 with 1 of 4 .* for example 0\.5"),
        (np.nan, r"expected whole numbers, .*for example nan"),
        (np.inf, r"expected whole numbers, .*for example inf"),
        (1j, r"expected whole numbers, received complex128 with 4 of 4"),
        (-3, r"between 0 and 2147483647, received values from -3 to 0"),
        (-3.0, r"between 0 and 2147483647, received values from -3 to 0"),
        (2**31, r"between 0 and 2147483647, received values from 0 to 2147483648"),
    ],
)
def test_numbers_that_are_no_labels_are_refused(value: complex, message: str) -> None:
    planes = np.array([value, 0, 0, 0]).reshape(1, 2, 2, 1)
    with pytest.raises(ValueError, match=message):
        check_labels(HERE, planes)


def test_histogram_line_lists_all_of_four_values() -> None:
    labels = np.repeat([3, 9, 1, 0], [1, 2, 3, 4])
    assert histogram_line(labels) == "0: 40.0 %, 1: 30.0 %, 9: 20.0 %, 3: 10.0 %"


def in_part(unlabelled: int, background: int, number: int) -> NDArray[np.int32]:
    """Numbered squares and two strokes of background, the other pixels unlabelled."""
    labels = np.where(cells(3, 3) > 0, cells(3, 3) + background, unlabelled)
    labels[labels > number + background] = unlabelled
    labels[0, 5:20], labels[24, 5:20] = background, background
    return labels.astype(np.int32)


@pytest.mark.parametrize(("unlabelled", "background"), [(0, 1), (255, 0), (65_535, 0)])
def test_a_few_numbered_cells_are_instances(unlabelled: int, background: int) -> None:
    labels = [in_part(unlabelled, background, number) for number in (5, 6, 5)]
    found = detect(*labels, unlabelled=unlabelled)
    assert found == LabelEncoding("instances", (0, 1), unlabelled=unlabelled)


@pytest.mark.parametrize("values", [(1, 2), (1, 2, 5)])
def test_strokes_are_classes(values: tuple[int, ...]) -> None:
    labels = np.zeros((60, 60), np.int32)
    for row in range(0, 60, 6):
        labels[row, row % 4 : 30 + row % 5] = values[row // 6 % len(values)]
    found = detect(labels, labels.T, unlabelled=0)
    assert found == LabelEncoding("classes", values, unlabelled=0)


def test_the_same_few_whole_values_in_part_may_be_both() -> None:
    labels = in_part(0, 1, 2)
    with pytest.raises(ValueError, match=r"0\.png: expected strokes.*: 1, 2, 3; set --labels cl"):
        detect(labels, labels.T, unlabelled=0)
    assert detect(labels, labels.T, unlabelled=0, kind="classes").values == (1, 2, 3)
    assert detect(labels, labels.T, unlabelled=0, kind="instances").kind == "instances"


def test_instances_in_part_need_some_background() -> None:
    labels = np.where(cells(3, 3) > 0, cells(3, 3), 255)
    with pytest.raises(ValueError, match=r"holds the value 0 for background.*strokes of it in a f"):
        detect(labels, unlabelled=255)
