"""Objects with classes are matched within their class, beside the overall scores."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kinds import draw_kinds, with_values, write_classes
from logs import logged

from keras_unet.cli import main
from keras_unet.data.images import write_tiff
from keras_unet.evaluation.comparison import LabelPair, score
from keras_unet.evaluation.evaluate import evaluate_folders
from keras_unet.evaluation.figures import split_planes
from keras_unet.metrics.objects import matching

TRUTH = np.array([[1, 1, 0, 2, 2, 0, 3, 3], [1, 1, 0, 2, 2, 0, 3, 3]])
CLASS_OF = {1: "round", 2: "long", 3: "round"}


def write(folder, classes=None, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        axes = "ZYX"[-np.ndim(array) :]
        write_tiff(folder / f"{name}.tif", np.asarray(array, np.uint16), axes=axes)
    if classes is not None:
        write_classes(folder, classes)
    return folder


def test_scores_by_hand(tmp_path):
    """Object 2 is found with another class, object 3 by a half, and a long one is invented."""
    found = np.array([[7, 7, 0, 5, 5, 0, 9, 0], [7, 7, 0, 5, 5, 0, 9, 4]])
    labels = write(tmp_path / "labels", {"a": CLASS_OF}, a=TRUTH)
    classes = {7: "round", 5: "round", 9: "round", 4: "long"}
    predictions = write(tmp_path / "predictions", {"a": classes}, a=found)
    evaluation = evaluate_folders(
        predictions, labels, json=tmp_path / "s.json", report=tmp_path / "s.html"
    )
    overall = evaluation.overall
    assert [(row.tp, row.fp, row.fn) for row in overall.matching][:2] == [(3, 1, 0), (2, 2, 1)]
    assert list(overall.matching_of_class) == ["long", "round"]
    for name, at_half, above in (
        ("round", (2, 1, 0), (1, 2, 1)),
        ("long", (0, 1, 1), (0, 1, 1)),
    ):
        rows = overall.matching_of_class[name]
        assert [(row.tp, row.fp, row.fn) for row in rows][:2] == [at_half, above]
    assert overall.matching_of_class["round"][0].ap == 2 / 3
    assert overall.values["seg"] == pytest.approx((1 + 1 + 0) / 3)  # whatever the classes are
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["overall"]["matching_of_class"]["round"][0] == {
        "threshold": 0.5, "tp": 2, "fp": 1, "fn": 0, "ap": 2 / 3, "f1": 4 / 5, "pq": 1.5 / 2.5
    }  # fmt: skip
    assert written["images"]["a"]["matching_of_class"]["long"][0]["fn"] == 1
    (table,) = [table for table in evaluation.tables if "within each class" in table.title]
    assert table.head[:4] == ["class", "in the labels", "predicted", "AP@0.5"]
    assert [row[:4] for row in table.rows] == [
        ["long", "1", "1", "0.0000"],
        ["round", "2", "3", "0.6667"],
    ]
    page = (tmp_path / "s.html").read_text()
    assert "Cells matched within each class" in page
    assert "predicted are 1 long, 3 round" in page


def test_without_classes_of_both_there_is_no_score_by_class(tmp_path):
    with_classes, without = (
        write(tmp_path / name, classes, a=TRUTH)
        for name, classes in (("a", {"a": CLASS_OF}), ("b", None))
    )
    with logged() as said:
        evaluation = evaluate_folders(without, with_classes)
    assert any("the predictions none: no classes.csv lies beside them" in line for line in said)
    assert not evaluation.overall.matching_of_class
    assert evaluation.overall.values["ap_mean"] == 1
    with logged() as said:
        evaluation = evaluate_folders(with_classes, without)
    assert not evaluation.overall.matching_of_class
    assert not evaluation.warnings
    evaluation = evaluate_folders(with_classes, with_classes, kind="instances")
    assert not evaluation.overall.matching_of_class
    with pytest.raises(ValueError, match="expected numbers of classes, as kind is classes"):
        evaluate_folders(with_classes, with_classes, kind="classes")


@pytest.mark.parametrize("place", ["labels", "predictions"])
def test_an_object_without_a_class_is_refused(tmp_path, place):
    for name in ("labels", "predictions"):
        classes = {1: "round", 2: "long"} if name == place else CLASS_OF
        write(tmp_path / name, {"a": classes}, a=TRUTH)
    arguments = ["evaluate", str(tmp_path / "predictions"), str(tmp_path / "labels")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"{place}/a.tif: expected a class for each object" in line
    assert "none for object 3;" in line


@pytest.mark.parametrize("form", ["channels", "planes"])
def test_label_files_of_instances_and_classes(tmp_path, form):
    _, labels, classes = draw_kinds(0)
    pair = np.moveaxis(with_values(labels, classes), -1, 0).astype(np.uint16)
    axes = "CYX" if form == "channels" else "ZYX"
    (tmp_path / "labels").mkdir()
    write_tiff(tmp_path / "labels" / "a.tif", pair, axes=axes)
    named = {number: f"class {pair[1][labels == number][0]}" for number in classes}
    predictions = write(tmp_path / "predictions", {"a": named}, a=labels)
    overall = evaluate_folders(predictions, tmp_path / "labels").overall
    assert list(overall.matching_of_class) == ["class 1", "class 2"]
    assert {rows[0].ap for rows in overall.matching_of_class.values()} == {1.0}
    swapped = evaluate_folders(tmp_path / "labels", predictions).overall
    assert swapped.to_dict() == overall.to_dict()


@pytest.mark.parametrize("kind", ["auto", "instances"])
@pytest.mark.parametrize("place", ["labels", "predictions"])
def test_two_planes_of_objects_are_not_scored_as_one(tmp_path, kind, place):
    planes = np.stack([draw_kinds(seed)[1] for seed in range(2)])
    for name in ("labels", "predictions"):
        write(tmp_path / name, a=planes if name == place else planes[0])
    with pytest.raises(ValueError, match=r"a\.tif: expected (one class for each|the size of)"):
        evaluate_folders(tmp_path / "predictions", tmp_path / "labels", kind=kind)


NUMBERS = st.dictionaries(st.integers(1, 4), st.sampled_from("abc"), min_size=4)
IMAGES = hnp.arrays(np.int32, (2, 4, 5), elements=st.integers(0, 4))


@settings(deadline=None, max_examples=40)
@given(IMAGES, IMAGES, NUMBERS, NUMBERS)
def test_the_matching_within_a_class_is_that_of_its_objects_alone(
    truth, result, of_truth, of_result
):
    present = [
        [{n: classes[n] for n in np.unique(plane).tolist() if n} for plane in planes]
        for planes, classes in ((truth, of_truth), (result, of_result))
    ]
    pair = LabelPair(
        "a", truth, result, (result > 0).astype(np.float32), np.ones(truth.shape, bool),
        class_names="abc", reference_classes=present[0], result_classes=present[1],
    )  # fmt: skip
    found = score([pair], ["matching"]).matching_of_class
    for name in "abc":
        alone = [
            [np.select([plane == n for n in of if of[n] == name] or [plane < 0],
                       [n for n in of if of[n] == name] or [0], 0) for plane in planes]
            for planes, of in ((truth, of_truth), (result, of_result))
        ]  # fmt: skip
        assert found[name] == matching(*alone)
    first, second = (plane.labels for plane in split_planes([pair]))
    halves = [score([plane], ["matching"]).matching_of_class["a"][0] for plane in (first, second)]
    assert sum(half.tp for half in halves) == found["a"][0].tp
    assert replace(first, name="b").class_names == "abc"
