from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.samples import (
    Sample,
    common_pixel_size,
    read_samples,
    samples_of_arrays,
    split,
)


def write(path: Path, array: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb" if array.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def grey(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(sum(shape)).integers(0, 200, shape).astype(dtype)


def mask(height: int = 20, width: int = 24, *, value: int = 255) -> NDArray[np.uint8]:
    labels = np.zeros((height, width), np.uint8)
    labels[3:9, 4:12] = value
    return labels


def write_pair(folder: Path, name: str, image: NDArray[Any], labels: NDArray[Any]) -> None:
    write(folder / "images" / f"{name}.tif", image)
    write(folder / "labels" / f"{name}.png", labels)


def write_annotated_plane(folder: Path, plane: int) -> None:
    write(folder / "02" / "t0007.tif", grey(4, 20, 24))
    write(folder / "02_GT" / "SEG" / f"man_seg_0007_{plane:03d}.tif", mask())


def test_the_annotated_plane_of_a_stack_is_read(tmp_path: Path) -> None:
    write_annotated_plane(tmp_path, 2)
    (sample,) = read_samples(tmp_path).samples
    assert sample.name == "02_t0007_002"
    np.testing.assert_array_equal(sample.image[..., 0], grey(4, 20, 24)[2])


def test_a_plane_beyond_the_stack_is_refused(tmp_path: Path) -> None:
    write_annotated_plane(tmp_path, 4)
    with pytest.raises(ValueError, match=r"has 4 planes\. Received the name of plane 4"):
        read_samples(tmp_path)


def test_a_sample_holds_what_the_files_hold(tmp_path: Path) -> None:
    image, labels = grey(20, 24, dtype="uint16"), mask()
    labels[0, 0], labels[12:15, 2:5] = 100, 255
    write_pair(tmp_path, "a", image, labels)
    data = read_samples(tmp_path, ignore=100)
    (sample,) = data.samples
    assert data.encoding == LabelEncoding("classes", (0, 255), 100)
    assert (data.channels, data.dtype, sample.name) == (1, "uint16", "a")
    assert sample.image.dtype == np.float32
    np.testing.assert_array_equal(sample.image, image[..., np.newaxis])
    np.testing.assert_array_equal(sample.classes, labels == 255)
    np.testing.assert_array_equal(sample.ignored, labels == 100)
    assert np.unique(sample.instances).tolist() == [0, 1, 2]


def test_each_plane_of_a_stack_is_a_sample(tmp_path: Path) -> None:
    stack = grey(3, 20, 24)
    write(tmp_path / "images" / "a.tif", stack)
    write(tmp_path / "labels" / "a.tif", np.stack([mask(value=i) for i in (5, 6, 7)]))
    data = read_samples(tmp_path)
    assert [sample.name for sample in data.samples] == ["a_000", "a_001", "a_002"]
    assert data.encoding.kind == "instances"
    for i, sample in enumerate(data.samples):
        np.testing.assert_array_equal(sample.image[..., 0], stack[i])
        assert sample.instances.max() == 5 + i


def test_planes_that_differ_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", grey(4, 20, 24))
    write(tmp_path / "labels" / "a.tif", np.stack([mask()] * 2))
    with pytest.raises(ValueError, match=r"labels/a\.tif: expected 4 planes as in .*, received 2"):
        read_samples(tmp_path)


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask(24, 20))
    message = r"labels/a\.png: expected 20 x 24 pixels .*images/a\.tif, received 24 x 20\. Save "
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path)


def test_one_name_for_two_samples_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", grey(2, 20, 24))
    write(tmp_path / "labels" / "a.tif", np.stack([mask()] * 2))
    write_pair(tmp_path, "a_001", grey(20, 24), mask())
    with pytest.raises(
        ValueError, match=r"a different name for every sample, received a_001 twice"
    ):
        read_samples(tmp_path)


def test_grey_colors_become_one_channel_only_if_all_are_grey(tmp_path: Path) -> None:
    image = grey(20, 24)
    write_pair(tmp_path, "a", np.stack([image] * 3, axis=-1), mask())
    assert read_samples(tmp_path).channels == 1
    write_pair(tmp_path, "b", grey(20, 24), mask())
    assert read_samples(tmp_path).channels == 1
    write_pair(tmp_path, "b", grey(20, 24, 3), mask())
    data = read_samples(tmp_path)
    assert data.channels == 3
    np.testing.assert_array_equal(data.samples[0].image, np.stack([image] * 3, axis=-1))


def test_channels_that_differ_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask())
    write_pair(tmp_path, "b", grey(20, 24, 3), mask())
    with pytest.raises(ValueError, match=r"b\.tif: expected 1 channel as in a\.tif, received 3\."):
        read_samples(tmp_path)


def test_a_palette_means_colors_in_images_and_numbers_in_labels(tmp_path: Path) -> None:
    labels = mask(value=2)
    labels[14:18, 3:9] = 1
    labels[14:18, 13:19] = 2
    labels[3:9, 14:20] = 1
    image = Image.fromarray(labels).convert("P")
    image.putpalette([10, 10, 10, 200, 200, 200, 90, 90, 90])
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "a.png")
    data = read_samples(tmp_path)
    assert data.encoding.values == (0, 1, 2)
    np.testing.assert_array_equal(data.samples[0].classes, labels)
    expected = np.array([10, 200, 90])[labels]
    np.testing.assert_array_equal(data.samples[0].image[..., 0], expected)


def test_background_alone_is_refused_unless_allowed(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask())
    write_pair(tmp_path, "b", grey(20, 24), 0 * mask())
    message = r"b\.png: .* in b, received background alone \(0: 100\.0 %\)\. .*allow_empty"
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path)
    assert len(read_samples(tmp_path, allow_empty=True).samples) == 2


def test_one_value_everywhere_is_refused_even_so(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), 0 * mask())
    with pytest.raises(ValueError, match=r"labels/a\.png: .*there is nothing to learn"):
        read_samples(tmp_path, allow_empty=True)


def test_jpeg_masks_are_refused_by_path(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask())
    write(tmp_path / "images" / "b.tif", grey(20, 24))
    write(tmp_path / "labels" / "b.jpg", mask())
    with pytest.raises(ValueError, match=r"labels/b\.jpg: expected exact .*0: \d+\.\d %, "):
        read_samples(tmp_path)


def test_nan_in_an_image_is_refused_by_path(tmp_path: Path) -> None:
    image = grey(20, 24).astype(np.float32)
    image[3, 4] = np.nan
    write_pair(tmp_path, "a", image, mask())
    with pytest.raises(ValueError, match=r"images/a\.tif: 1 of 480 pixels are NaN"):
        read_samples(tmp_path)


def test_the_kind_of_labels_can_be_given(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask())
    assert read_samples(tmp_path, labels="instances").samples[0].instances.max() == 255


def test_description_of_classes(tmp_path: Path) -> None:
    labels = np.repeat(np.uint8([[0], [255], [100]]), [12, 6, 2], axis=0).repeat(24, axis=1)
    write_pair(tmp_path, "a", grey(20, 24, dtype="uint16"), labels)
    write_pair(tmp_path, "b", grey(20, 24), labels)
    assert read_samples(tmp_path, ignore=100).describe().splitlines() == [
        "2 images of 20 x 24 pixels (height x width)",
        "grey values: uint16, uint8, 1 channel",
        "labels: classes with values 0, 255; 100 is ignored",
        "fractions of the pixels: value 0 60.0 %, value 255 30.0 %, ignored 10.0 %",
        "instances: 2 in total",
    ]


def test_description_lists_what_was_passed_over(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask())
    write(tmp_path / "images" / "b.png", grey(20, 24))
    write(tmp_path / "labels" / "c.png", mask())
    assert (
        read_samples(tmp_path)
        .describe()
        .endswith("not used: 2 files\n  images/b.png: no partner\n  labels/c.png: no partner")
    )


def test_description_lists_a_few_of_many_that_were_passed_over(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask())
    for number in range(25):
        (tmp_path / "labels" / f"x{number:02d}.png").touch()
    lines = read_samples(tmp_path).describe().splitlines()
    assert lines[-22] == "not used: 25 files"
    assert lines[-2:] == ["  labels/x19.png: no partner", "  and 5 more"]


def test_description_counts_frames_without_annotation(tmp_path: Path) -> None:
    for frame in range(3):
        write(tmp_path / "01" / f"t{frame:03d}.tif", grey(20, 24))
    write(tmp_path / "01_GT" / "SEG" / "man_seg001.tif", mask())
    described = read_samples(tmp_path).describe()
    assert described.endswith("\nnot used: 2 frames of 01 have no annotation")


def test_labels_that_are_ignored_throughout_are_refused_as_such(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", grey(20, 24), mask())
    write_pair(tmp_path, "b", grey(20, 24), np.full_like(mask(), 9))
    with pytest.raises(ValueError, match=r"in b, received ignored pixels alone \(9: 100"):
        read_samples(tmp_path, ignore=9)


def test_names_to_hold_out_may_be_written_with_accents_apart() -> None:
    named = [replace(one, name="\u00e9") for one in samples(1)] + samples(1)
    training, validation = split(named, ["e\u0301"], 0)
    assert ([one.name for one in validation], len(training)) == (["\u00e9"], 1)


def test_of_many_names_a_few_are_listed() -> None:
    with pytest.raises(ValueError, match=r"Received x; the samples are s0, .*s19, \.\.\.$"):
        split(samples(30), ["x"], 0)


def test_description_of_instances_and_many_sizes(tmp_path: Path) -> None:
    for height in (20, 21, 22, 24):
        write_pair(tmp_path, f"a{height}", grey(height, 24), mask(height, value=height))
    lines = read_samples(tmp_path).describe().splitlines()
    assert lines[0] == "4 images of 20 x 24 to 24 x 24 pixels (height x width)"
    assert lines[2] == "labels: instances, one number per cell, 0 is background"
    assert lines[3] == "fractions of the pixels: background 90.8 %, cells 9.2 %"
    assert lines[4] == "instances: 4 in total"


def samples(count: int) -> list[Sample]:
    plane = np.zeros((2, 2))
    image, classes = plane[..., np.newaxis].astype(np.float32), plane.astype(np.uint8)
    instances, ignored = plane.astype(np.int32), plane.astype(bool)
    return [Sample(f"s{i}", image, classes, instances, ignored) for i in range(count)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32))
def test_split_parts_the_samples(count: int, share: float, seed: int) -> None:
    everything = samples(count)
    training, validation = split(everything, share, seed)
    assert training
    assert bool(validation) == (share > 0 and count > 1)
    assert abs(len(validation) - share * count) <= 1
    assert set(training) | set(validation) == set(everything)
    assert len(training) + len(validation) == count
    assert sorted(training, key=everything.index) == list(training)
    assert split(everything, share, seed) == (training, validation)


def test_split_depends_on_the_seed() -> None:
    everything = samples(20)
    drawn = {split(everything, 0.2, seed)[1] for seed in range(5)}
    assert len(drawn) > 1


def test_the_pixel_size_is_that_of_the_files_if_they_agree(tmp_path: Path) -> None:
    for name, size in {"a": 0.5, "b": 0.502, "c": 0.6}.items():
        write_pair(tmp_path, name, grey(20, 24), mask())
        metadata = {"unit": "um", "axes": "YX"}
        path, resolution = tmp_path / "images" / f"{name}.tif", (1 / size, 1 / size)
        tifffile.imwrite(path, grey(20, 24), imagej=True, resolution=resolution, metadata=metadata)
    write_pair(tmp_path, "d", grey(20, 24), mask())
    a, b, c, d = read_samples(tmp_path).samples
    assert common_pixel_size([a, b]) == pytest.approx((0.501, 0.501), rel=1e-6)
    assert common_pixel_size([a, b, c]) is None
    assert common_pixel_size([a, d]) is None
    assert common_pixel_size([]) is None


def test_split_by_name() -> None:
    training, validation = split(samples(4), ["s2", "s0"], 0)
    assert [sample.name for sample in validation] == ["s0", "s2"]
    assert [sample.name for sample in training] == ["s1", "s3"]
    assert split(samples(2), [], 0)[1] == ()


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (1.0, "validation must be a fraction of at least 0 and less than 1, or"),
        (-0.1, "Received: validation=-0.1"),
        (float("nan"), "Received: validation=nan"),
        (["s1", "x", "y"], "Received x, y; the samples are s0, s1."),
        (["s1", "s0"], "validation must leave samples for training. Received all 2;"),
    ],
)
def test_split_refuses(validation: float | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        split(samples(2), validation, 0)


def test_real_folders_are_read(shared_data: Path) -> None:
    for folder, count, dtype, kind in (
        ("isbi2012", 20, "uint8", "classes"),
        ("usiigaci", 6, "uint16", "instances"),
    ):
        data = read_samples(shared_data / folder)
        assert (len(data.samples), data.dtype, data.channels) == (count, dtype, 1)
        assert data.encoding.kind == kind
        assert data.unused == ()


def write_sequence(folder: Path, sequence: str, frames: int) -> None:
    for number in range(frames):
        write(folder / sequence / f"t{number}.tif", grey(20, 24))
        write(folder / f"{sequence}_GT" / "SEG" / f"man_seg{number}.tif", mask())


def test_the_end_of_a_sequence_is_held_out(tmp_path: Path) -> None:
    write_sequence(tmp_path, "01", 12)
    _, held_out = split(read_samples(tmp_path).samples, 0.25, seed=0)
    assert [sample.name for sample in held_out] == ["01_t9", "01_t10", "01_t11"]


def test_of_two_sequences_one_end_is_held_out_and_of_three_a_whole_sequence(tmp_path: Path) -> None:
    for sequence in ("01", "02"):
        write_sequence(tmp_path, sequence, 4)
    _, held_out = split(read_samples(tmp_path).samples, 0.25, seed=0)
    assert {sample.name[-2:] for sample in held_out} == {"t2", "t3"}
    assert len({sample.group for sample in held_out}) == 1
    write_sequence(tmp_path, "03", 4)
    training, held_out = split(read_samples(tmp_path).samples, 0.25, seed=0)
    assert {sample.group for sample in training}.isdisjoint(sample.group for sample in held_out)
    assert len(held_out) == 4


def labelled_in_part(folder: Path) -> Path:
    """Three images: two cells and background, background alone, nothing."""
    labels = np.zeros((3, 20, 24), np.uint8)
    labels[0, 3:9, 4:12], labels[0, 12:18, 4:12], labels[:2, :2] = 2, 3, 1
    for name, one in zip("abc", labels, strict=True):
        write_pair(folder, name, grey(20, 24), one)
    return folder


def test_images_without_any_label_are_left_out(tmp_path: Path) -> None:
    options: dict[str, Any] = {"labels": "instances", "unlabelled": 0}
    found = read_samples(labelled_in_part(tmp_path), **options)
    assert [sample.name for sample in found.samples] == ["a", "b"]
    first, second = found.samples
    assert np.unique(first.instances).tolist() == [0, 2, 3]
    assert first.ignored.sum() == 20 * 24 - 2 * 48 - 2 * 24
    assert not second.classes.any()
    text = found.describe()
    assert "0 is unlabelled" in text
    assert "1 is background" in text
    assert "not used: nothing is labelled in c" in text
    assert "fractions of the pixels: background 10.0 %, cells 10.0 %, unlabelled 80.0 %" in text


def test_strokes_are_counted_as_strokes(tmp_path: Path) -> None:
    found = read_samples(labelled_in_part(tmp_path), labels="classes", unlabelled=0)
    assert "strokes: 2 in total" in found.describe()
    assert found.encoding.values == (1, 2, 3)


@pytest.mark.parametrize(("unlabelled", "background"), [(0, 1), (9, 0)])
def test_objects_with_classes_may_be_labelled_in_part(unlabelled: int, background: int) -> None:
    numbers = np.full((20, 24), unlabelled)
    numbers[3:9, 4:12], numbers[12:18, 4:12], numbers[:2] = 2, 3, background
    classes = np.where(numbers == 2, 1, np.where(numbers == 3, 2, 0))
    found = samples_of_arrays(
        [grey(20, 24)], [np.stack([numbers, classes], axis=-1)], unlabelled=unlabelled
    )
    (sample,) = found.samples
    assert found.encoding.class_names == ("class 1", "class 2")
    assert found.objects == {"class 1": 1, "class 2": 1}
    np.testing.assert_array_equal(sample.instances, np.where(classes > 0, numbers, 0))
    np.testing.assert_array_equal(sample.classes, classes)
    np.testing.assert_array_equal(sample.ignored, numbers == unlabelled)
    assert LabelEncoding.from_dict(found.encoding.to_dict()) == found.encoding
