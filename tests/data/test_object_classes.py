"""Objects have classes, however these are stated."""

import json
import os

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kinds import draw_kinds, with_values, write_classes

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.importing import import_annotations
from keras_unet.data.labels import read_labels
from keras_unet.data.object_classes import (
    CLASSES,
    ObjectClass,
    class_of_objects,
    classes_of_pixels,
    read_table,
    update_table,
    write_table,
)
from keras_unet.data.samples import read_samples, samples_of_arrays

ROWS = [ObjectClass("a.png", None, 1, "long"), ObjectClass("a.png", None, 2, 'with "quotes", é')]


@pytest.fixture
def data(tmp_path):
    """Two images with label images, and the class of each object."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    classes = {}
    for seed, name in enumerate("ab"):
        image, labels, classes[name] = draw_kinds(seed)
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", labels.astype(np.uint16))
    write_classes(tmp_path / "labels", classes)
    return tmp_path


def check(samples, names):
    """Checks samples against the drawn objects, one by one."""
    assert samples.encoding.kind == "instances"
    assert samples.encoding.class_names == names
    for seed, sample in enumerate(samples.samples):
        _, labels, classes = draw_kinds(seed)
        np.testing.assert_array_equal(sample.instances, labels)
        for number, name in classes.items():
            expected = {"bright": 1, "dark": 2}[name]
            assert set(sample.classes[labels == number].tolist()) == {expected}
        assert not sample.classes[labels == 0].any()


def test_a_table_beside_the_labels_is_read(data):
    samples = read_samples(data)
    check(samples, ("bright", "dark"))
    assert not samples.unused
    kinds = [name for seed in (0, 1) for name in draw_kinds(seed)[2].values()]
    counts = {name: kinds.count(name) for name in ("bright", "dark")}
    assert samples.objects == counts
    described = samples.describe()
    assert "labels: instances of the classes bright, dark, one number per cell" in described
    assert f"{len(kinds)} in total: {counts['bright']} bright, {counts['dark']} dark" in described


@pytest.mark.parametrize("form", ["channels", "planes"])
def test_a_second_channel_or_plane_holds_the_classes(data, form):
    (data / "labels" / CLASSES).unlink()
    for seed, name in enumerate("ab"):
        _, labels, classes = draw_kinds(seed)
        pair = np.moveaxis(with_values(labels, classes), -1, 0).astype(np.uint16)
        metadata = {"axes": "CYX"} if form == "channels" else {}
        tifffile.imwrite(
            data / "labels" / f"{name}.tif", pair, photometric="minisblack", metadata=metadata
        )
    check(read_samples(data), ("class 1", "class 2"))


@pytest.mark.parametrize("kind", ["auto", "instances"])
def test_two_planes_of_objects_are_no_labels_of_one_plane(data, kind):
    (data / "labels" / CLASSES).unlink()
    planes = np.stack([draw_kinds(seed)[1] for seed in range(2)]).astype(np.uint16)
    tifffile.imwrite(data / "labels" / "a.tif", planes)
    with pytest.raises(ValueError, match=r"a\.tif: expected one class for each object\. Received"):
        read_samples(data, labels=kind)


def write_stack(data):
    """Replaces the images by a stack of two planes, and returns these."""
    stack = [draw_kinds(seed) for seed in range(2)]
    for folder, part in (("images", 0), ("labels", 1)):
        for name in "ab":
            (data / folder / f"{name}.tif").unlink()
        planes = np.stack([drawn[part] for drawn in stack]).astype(np.uint16)
        tifffile.imwrite(data / folder / "s.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    return stack


def test_two_planes_of_a_stack_of_two_are_labels_of_both(data):
    (data / "labels" / CLASSES).unlink()
    write_stack(data)
    samples = read_samples(data)
    assert samples.encoding == LabelEncoding("instances", (0, 1))
    assert len(samples.samples) == 2


def test_objects_of_one_number_in_planes_of_a_stack_have_classes_of_their_own(data):
    stack = write_stack(data)
    swapped = {"bright": "dark", "dark": "bright"}
    rows = [
        ObjectClass("s.tif", plane, number, swapped[name] if plane == 2 else name)
        for plane, (_, _, classes) in enumerate(stack, 1)
        for number, name in classes.items()
    ]
    write_table(data / "labels" / CLASSES, rows)
    first, second = read_samples(data).samples
    assert set(first.classes[first.instances == 1].tolist()) == {2}
    assert set(second.classes[second.instances == 1].tolist()) == {1}
    write_table(data / "labels" / CLASSES, [*rows, ObjectClass("s.tif", 3, 1, "dark")])
    with pytest.raises(ValueError, match=r"expected planes 1 to 2 of s\.tif\. Received plane 3"):
        read_samples(data)


def test_arrays_have_the_classes_as_second_channel():
    drawn = [draw_kinds(seed) for seed in range(2)]
    images = [image for image, _, _ in drawn]
    check(
        samples_of_arrays(images, [with_values(*pair) for _, *pair in drawn]),
        ("class 1", "class 2"),
    )
    with pytest.raises(ValueError, match=r"or \(height, width, 2\) for instances and their"):
        samples_of_arrays(images[:1], [np.zeros((96, 96, 3), np.uint8)])


def test_values_of_classes_are_kept_and_ignored_pixels_have_none():
    image, labels, classes = draw_kinds(0)
    pair = with_values(labels, classes)
    pair[..., 1] = np.array([0, 3, 12])[pair[..., 1]]
    pair[:5] = 999, 7
    samples = samples_of_arrays([image], [pair], ignore=999)
    assert samples.encoding.values == (0, 3, 12)
    assert samples.encoding.class_names == ("class 3", "class 12")
    (sample,) = samples.samples
    assert sample.ignored[:5].all()
    assert not sample.classes[:5].any()
    np.testing.assert_array_equal(samples.encoding.from_classes(sample.classes)[5:], pair[5:, :, 1])


def test_outlines_have_the_classes_of_their_file(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", draw_kinds(0)[0])
    content = {"shapes": [shape("round", 2), shape("long", 30), shape("round", 60)]}
    path = tmp_path / "labels" / "a.json"
    path.write_text(json.dumps(content))
    samples = read_samples(tmp_path)
    assert samples.objects == {"long": 1, "round": 2}
    content["shapes"][1]["label"] = ""
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.json: expected a class .* none for object 2;"):
        read_samples(tmp_path)
    assert not read_samples(tmp_path, labels="instances").encoding.class_names
    assert list(
        read_samples(tmp_path, labels="instances").samples[0].classes[[3, 31], [3, 31]]
    ) == [
        1,
        1,
    ]


def shape(name, start, side=9):
    ends = start, start + side
    points = [[ends[0], ends[0]], [ends[1], ends[0]], [ends[1], ends[1]], [ends[0], ends[1]]]
    return {"label": name, "shape_type": "polygon", "points": points}


def test_what_is_imported_is_read_with_classes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", draw_kinds(0)[0])
    covered = shape("lost", 31, 2)
    content = {"shapes": [shape("round", 2), covered, covered, shape("long", 30)]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    import_annotations(tmp_path / "a.json", tmp_path / "a.tif", tmp_path / "data")
    samples = read_samples(tmp_path / "data")
    assert samples.objects == {"long": 1, "lost": 1, "round": 1}
    assert not samples.unused


CHANGES = {
    "without": (lambda rows: rows[1:], r"a\.tif: expected a class .* none for object 1; state it"),
    "two": (
        lambda rows: [*rows, ObjectClass("a.png", None, 3, "odd")],
        r"a\.tif: expected one class for each object\. Received dark and odd for object 3;",
    ),
    "none": (
        lambda rows: [*rows, ObjectClass("a.tif", None, 999, "dark")],
        r"a\.tif: expected classes of objects alone\. Received dark for object 999, which",
    ),
    "other file": (
        lambda rows: [row._replace(file="z.tif") if row.file == "b.tif" else row for row in rows],
        r"b\.tif: expected a class for each object",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_stated_wrongly_is_refused(data, change):
    path, (change_rows, message) = data / "labels" / CLASSES, CHANGES[change]
    rows = read_table(path)
    write_table(path, change_rows(rows))
    with pytest.raises(ValueError, match=message):
        read_samples(data)


def test_pixels_of_two_classes_are_refused():
    image, labels, classes = draw_kinds(0)
    pair = with_values(labels, classes)
    row, column = np.argwhere(labels == 2)[0]
    for value, message in (
        (2, "Received class 1 and class 2 for object 2;"),
        (0, "Received no class and class 1 for object 2;"),
    ):
        wrong = pair.copy()
        wrong[row, column, 1] = value
        with pytest.raises(ValueError, match=message):
            samples_of_arrays([image], [wrong])
    wrong = np.where(labels[..., None] == 0, [0, 5], pair)
    with pytest.raises(ValueError, match="Received class 5 for background; remove the class"):
        samples_of_arrays([image], [wrong])
    wrong = np.where(labels[..., None] == 2, [2, 0], pair)
    with pytest.raises(ValueError, match="Received none for object 2;"):
        samples_of_arrays([image], [wrong])


def test_kinds_of_labels_without_classes_of_objects(data):
    plain = read_samples(data, labels="instances")
    assert plain.encoding == LabelEncoding("instances", (0, 1))
    assert plain.objects == {}
    with pytest.raises(ValueError, match=r"a\.tif: expected numbers of classes, as kind is classe"):
        read_samples(data, labels="classes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,number\na.tif,1\n", r"classes\.csv: expected the columns file, number, class"),
        ("", "Received an empty file; add file, number, class"),
        ("file,number,class\na.tif,x,dark\n", "Received 'x' and '' in line 2"),
        ("file,number,class\na.tif,0,dark\n", "Received '0' and '' in line 2"),
        ("file,plane,number,class\na.tif,-1,1,dark\n", "Received '1' and '-1' in line 2"),
        (b"\xff\xfe\x00", "expected CSV in UTF-8"),
    ],
)
def test_other_tables_are_refused(data, content, message):
    path = data / "labels" / CLASSES
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_samples(data)


def test_a_table_goes_there_and_back(tmp_path):
    path = tmp_path / CLASSES
    write_table(path, ROWS)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "file,number,class"
    assert read_table(path) == ROWS
    stack = [*ROWS, ObjectClass("b.tif", 2, 1, "")]
    write_table(path, stack)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "file,plane,number,class"
    assert read_table(path) == stack


def test_rows_of_other_files_are_kept(tmp_path):
    path = tmp_path / CLASSES
    assert not update_table(path, ["a.tif"], [])
    assert update_table(path, ["a.tif"], ROWS)
    other = ObjectClass("b.tif", None, 1, "long")
    assert update_table(path, ["b.png"], [other])
    assert read_table(path) == [*ROWS, other]
    assert update_table(path, ["a.ome.tif"], [])
    assert read_table(path) == [other]
    assert not update_table(path, ["b.tif"], [])
    assert not path.exists()


def test_names_with_an_affix_match_a_name_without(tmp_path):
    labels = np.zeros((9, 9), np.uint8)
    labels[2:5, 2:5] = 4
    tifffile.imwrite(tmp_path / "a_mask.tif", labels)
    table = tmp_path / CLASSES
    for number, (file, expected) in enumerate(
        (("a.png", {4: ("round",)}), ("a_mask.tif", {4: ("round",)}), ("b.png", {}))
    ):
        write_table(table, [ObjectClass(file, None, 4, "round")])
        os.utime(table, ns=(number, number))  # as if written later
        assert read_labels(tmp_path / "a_mask.tif").classes == (expected,)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 4)), st.data())
def test_classes_of_pixels_are_those_of_each_object(labels, data):
    of_number = data.draw(hnp.arrays(np.int32, 5, elements=st.integers(1, 3)))
    of_number[0] = 0
    stated = classes_of_pixels(labels, of_number[labels])
    expected = {
        number: f"class {of_number[number]}" for number in np.unique(labels[labels > 0]).tolist()
    }
    assert class_of_objects("a.tif", labels, stated) == expected
