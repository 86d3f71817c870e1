import json
import re

import numpy as np
import pytest
from logs import logged
from PIL import Image

from keras_unet.data.images import write_tiff
from keras_unet.evaluation.evaluate import evaluate_folders
from keras_unet.metrics.isbi2012 import isbi2012

TWO_CELLS = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2]])
ONE_AND_A_HALF = np.array([[1, 1, 0, 0, 2], [1, 1, 0, 0, 2]])
PIXELS = {"iou": 1, "dice": 1, "pixel_error": 0, "pixel_error_threshold": 0, "seg": 1}
PERFECT = PIXELS | {"ap_mean": 1}


def write(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        values = np.asarray(array)
        is_soft = name.endswith("_probabilities")
        axes = ("CYX" if values.ndim == 3 else "ZCYX") if is_soft else "ZYX"[-values.ndim :]
        write_tiff(
            folder / f"{name}.tif", values.astype(np.float32 if is_soft else np.uint16), axes=axes
        )
    return folder


def probabilities(cell):
    cell = np.asarray(cell, np.float32)
    return np.stack([1 - cell, cell], axis=-3)


def test_scores_of_two_images_by_hand(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS, b=TWO_CELLS)
    predictions = write(tmp_path / "predictions", a=TWO_CELLS, b=ONE_AND_A_HALF)
    found = evaluate_folders(predictions, labels)
    assert found.rows["a"].values == PERFECT
    # b: 6 of 8 pixels; the first cell whole, the second half, which does not count for SEG
    assert found.rows["b"].values == pytest.approx(
        PERFECT
        | {"iou": 6 / 8, "dice": 12 / 14, "pixel_error": 1 - 12 / 14, "seg": 1 / 2}
        | {"ap_mean": (1 + 9 / 3) / 10}  # both are matched at 0.5, one of them above
    )
    assert found.overall.values == pytest.approx(
        PERFECT
        | {"iou": 7 / 8, "dice": 13 / 14, "pixel_error": 1 - 28 / 30, "seg": 3 / 4}
        | {"ap_mean": (1 + 9 * 3 / 5) / 10}
    )
    # but an IoU of 0.5 is a match at 0.5
    half, more, *_ = found.overall.matching
    assert half.to_dict() == {
        "threshold": 0.5, "tp": 4, "fp": 0, "fn": 0, "ap": 1, "f1": 1, "pq": 3.5 / 4
    }  # fmt: skip
    assert more.to_dict() == {
        "threshold": 0.6, "tp": 3, "fp": 1, "fn": 1, "ap": 3 / 5, "f1": 3 / 4, "pq": 3 / 4
    }  # fmt: skip
    assert [row.threshold for row in found.rows["b"].matching] == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert [row.tp for row in found.rows["b"].matching] == [2, 1, 1, 1, 1]
    assert found.metrics == ("pixels", "ctc", "matching")
    assert found.missing == []
    assert not found.from_probabilities


def test_probabilities_are_read_where_every_image_has_them(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS, b=TWO_CELLS)
    confident = np.where(TWO_CELLS > 0, 0.35, 0.25)
    predictions = write(
        tmp_path / "predictions",
        a=ONE_AND_A_HALF,
        b=ONE_AND_A_HALF,
        a_probabilities=probabilities(confident),
    )
    assert not evaluate_folders(predictions, labels).from_probabilities
    write(predictions, b_probabilities=probabilities(confident))
    found = evaluate_folders(predictions, labels)
    assert found.from_probabilities
    values = found.overall.values
    assert (values["pixel_error"], values["pixel_error_threshold"]) == (0, 0.3)
    assert values["iou"] == 6 / 8  # of the label images


def test_all_classes_but_the_background_are_cell(tmp_path):
    labels = write(tmp_path / "labels", a=[[0, 0, 1, 1, 2, 2, 1, 2, 1]] * 2)
    three = np.stack([np.full((2, 9), 0.4)] + [np.full((2, 9), 0.3)] * 2)
    predictions = write(
        tmp_path / "predictions", a=[[0, 0, 2, 2, 1, 1, 1, 1, 1]] * 2, a_probabilities=three
    )
    found = evaluate_folders(predictions, labels, kind="classes")
    assert found.overall.values["iou"] == 1
    assert found.overall.values["pixel_error_threshold"] == 0  # all pixels are cell with 0.6


@pytest.mark.parametrize(
    ("labels", "prediction"),
    [
        (255 * (TWO_CELLS > 0), 255 * (TWO_CELLS > 0)),
        (255 * (TWO_CELLS > 0), TWO_CELLS),
        (255 * (TWO_CELLS > 0), TWO_CELLS > 0),
        (TWO_CELLS, TWO_CELLS > 0),
        (TWO_CELLS, 255 * (TWO_CELLS > 0)),
        (TWO_CELLS, 7 * TWO_CELLS),
    ],
    ids=["classes", "ids", "mask", "mask for ids", "255 for ids", "other ids"],
)
def test_predictions_are_read_as_what_they_hold(tmp_path, labels, prediction):
    found = evaluate_folders(
        write(tmp_path / "predictions", a=prediction),
        write(tmp_path / "labels", a=labels),
        metrics=("pixels", "ctc"),
    )
    assert found.overall.values == PIXELS


def test_background_need_not_be_zero(tmp_path):
    labels = write(tmp_path / "labels", a=np.where(TWO_CELLS > 0, 9, 5))
    found = evaluate_folders(labels, labels, metrics=("pixels", "ctc"))
    assert found.overall.values == PIXELS


THREE = np.array([[0, 0, 0, 0, 127, 127, 127, 255, 9]] * 2)
FOUND_THREE = np.array([[0, 0, 0, 127, 127, 127, 255, 255, 255]] * 2)


def test_classes_by_hand_over_the_pixels_of_all_images(tmp_path):
    """Class 255 is rare in `a` and missing in `b`, and a pixel of `a` is ignored."""
    labels = write(tmp_path / "labels", a=THREE, b=[[0, 127]])
    found = evaluate_folders(
        write(tmp_path / "predictions", a=FOUND_THREE, b=[[0, 0]]),
        labels,
        kind="classes",
        ignore=9,
    )
    overall = {row.label: (row.iou, row.dice) for row in found.overall.classes}
    assert overall == {
        0: (7 / 10, 14 / 17), 127: (4 / 9, 8 / 13), 255: (2 / 4, 4 / 6)
    }  # fmt: skip
    assert found.overall.values["mean_iou"] == pytest.approx((7 / 10 + 4 / 9 + 2 / 4) / 3)
    assert found.overall.values["mean_dice"] == pytest.approx((14 / 17 + 8 / 13 + 4 / 6) / 3)
    assert found.rows["b"].values["mean_iou"] == pytest.approx((1 / 2 + 0) / 2)
    assert [row.label for row in found.rows["b"].classes] == [0, 127, 255]
    assert np.isnan(found.rows["b"].classes[2].iou)
    assert found.to_dict()["overall"]["classes"][2] == {"label": 255, "iou": 2 / 4, "dice": 4 / 6}
    table = found.tables[1]
    assert (table.rows[0], table.total) == (
        ["label 0", "0.7000", "0.8235"], ["mean", "0.5481", "0.7019"]
    )  # fmt: skip
    assert found.tables[0].head[-1] == "mean IoU"


def test_mean_iou_equals_brute_force(tmp_path):
    rng = np.random.default_rng(3)
    pairs = [rng.choice([0, 40, 80, 120], (2, 3, 17, 19), p=[0.6, 0.3, 0.08, 0.02])] * 2
    pairs[1] = np.where(rng.random(pairs[1].shape) < 0.3, rng.permutation(pairs[1].T).T, pairs[1])
    truth, result = (pair.transpose(1, 0, 2, 3) for pair in pairs)
    found = evaluate_folders(
        write(tmp_path / "predictions", a=result[:, 0], b=result[:, 1]),
        write(tmp_path / "labels", a=truth[:, 0], b=truth[:, 1]),
        report=tmp_path / "report.html",
    )
    pixels = list(zip(truth.ravel().tolist(), result.ravel().tolist(), strict=True))
    expected = [
        sum(left == right == value for left, right in pixels)
        / sum(value in pair for pair in pixels)
        for value in (0, 40, 80, 120)
    ]
    assert [row.iou for row in found.overall.classes] == pytest.approx(expected)
    assert found.overall.values["mean_iou"] == pytest.approx(sum(expected) / 4)
    assert "mean IoU" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("labels", "prediction"),
    [(TWO_CELLS, TWO_CELLS), (255 * (TWO_CELLS > 0), 255 * (TWO_CELLS > 0)), (THREE, THREE > 0)],
    ids=["instances", "two classes", "a mask for classes"],
)
def test_without_several_classes_there_is_no_score_by_class(tmp_path, labels, prediction):
    found = evaluate_folders(
        write(tmp_path / "predictions", a=7 * (prediction > 0)),
        write(tmp_path / "labels", a=labels),
    )
    assert "mean_iou" not in found.overall.values
    assert "classes" not in found.overall.to_dict()


def test_ignored_pixels_do_not_count(tmp_path):
    truth = TWO_CELLS.copy()
    truth[:, 3] = 99
    found = evaluate_folders(
        write(tmp_path / "predictions", a=ONE_AND_A_HALF, b=[[0, 7]]),
        write(tmp_path / "labels", a=truth, b=[[99, 99]]),
        kind="instances",
        ignore=99,
    )
    assert found.rows["a"].values == PERFECT
    assert np.isnan(list(found.rows["b"].values.values())).all()
    assert all(np.isnan(row.ap) for row in found.rows["b"].matching)
    assert found.overall == found.rows["a"]


def test_one_plane_of_a_stack(tmp_path):
    labels = write(tmp_path / "01_GT" / "SEG", man_seg_004_001=TWO_CELLS)
    predictions = write(
        tmp_path / "predictions",
        t004=[0 * TWO_CELLS, TWO_CELLS],
        t004_probabilities=np.stack(
            [probabilities(part > 0) for part in (0 * TWO_CELLS, TWO_CELLS)]
        ),
    )
    found = evaluate_folders(predictions, labels)
    assert found.rows["man_seg_004_001"].values == PERFECT


def test_labels_without_a_prediction_are_named(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS, b=TWO_CELLS)
    with logged() as said:
        found = evaluate_folders(write(tmp_path / "predictions", a=TWO_CELLS), labels)
    assert (list(found.rows), found.missing) == (["a"], ["b.tif"])
    assert "Warning: no prediction for b.tif" in said


def test_json_holds_all_of_it(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS, b=TWO_CELLS, c=0 * TWO_CELLS)
    predictions = write(tmp_path / "predictions", a=TWO_CELLS, c=0 * TWO_CELLS)
    path = tmp_path / "new" / "scores.json"
    found = evaluate_folders(predictions, labels, json=path)
    text = path.read_text()
    found_two = [
        {"threshold": threshold, "tp": 2, "fp": 0, "fn": 0, "ap": 1, "f1": 1, "pq": 1}
        for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)
    ]
    none = {"tp": 0, "ap": None, "f1": None, "pq": None}
    assert json.loads(text) == {
        "software": "keras_unet",
        "metrics": ["pixels", "ctc", "matching"],
        "images": {
            "a": PERFECT | {"matching": found_two},
            "c": {
                **PERFECT,
                "iou": None,
                "dice": None,
                "seg": None,
                "ap_mean": None,
                "matching": [row | none for row in found_two],
            },
        },
        "overall": PERFECT | {"matching": found_two},
        "pixel_error_from_probabilities": False,
        "missing": ["b.tif"],
        "left_out": [],
    }
    assert "NaN" not in text
    assert found.overall.values["seg"] == 1


@pytest.mark.parametrize(
    ("labels", "metrics"),
    [(TWO_CELLS, ("pixels", "ctc", "matching")), (255 * (TWO_CELLS > 0), ("pixels",))],
    ids=["instances", "classes"],
)
def test_what_is_scored_depends_on_the_labels(tmp_path, labels, metrics):
    folder = write(tmp_path / "labels", a=labels)
    assert evaluate_folders(folder, folder).metrics == metrics


@pytest.mark.parametrize("metric", ["pixels", "ctc", "matching"])
def test_one_metric_alone(tmp_path, metric):
    labels = write(tmp_path / "labels", a=TWO_CELLS)
    alone = evaluate_folders(labels, labels, metrics=[metric])
    among = evaluate_folders(labels, labels, metrics=["matching", "ctc", "pixels"])
    assert alone.metrics == (metric,)
    assert alone.overall.values.items() <= among.overall.values.items()
    assert alone.overall.matching == (among.overall.matching if metric == "matching" else ())
    assert len(alone.overall.to_dict()) == {"pixels": 4, "ctc": 1, "matching": 2}[metric]


def test_metrics_are_taken_once_and_in_one_order(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS)
    found = evaluate_folders(labels, labels, metrics=["ctc", "pixels", "ctc"])
    assert found.metrics == ("pixels", "ctc")


def test_a_metric_that_there_is_not(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"metrics must be of pixels, isbi2012, ctc, matching\. Received: seg, iou",
    ):
        evaluate_folders(tmp_path, tmp_path, metrics=["seg", "pixels", "iou"])


def membranes(folder, rng):
    """Two slices in one file and one in another, with probabilities of some use."""
    truths = rng.random((3, 12, 14)) > 0.3
    soft = np.clip(np.where(truths, 0.7, 0.3) + rng.normal(0, 0.25, truths.shape), 0, 1)
    soft = soft.astype(np.float32)
    labels = write(folder / "labels", a=255 * truths[:2], b=255 * truths[2])
    both = np.stack([1 - soft, soft], axis=1)
    predictions = write(
        folder / "predictions",
        a=255 * (soft[:2] > 0.5),
        b=255 * (soft[2] > 0.5),
        a_probabilities=both[:2],
        b_probabilities=both[2],
    )
    return predictions, labels, truths, 1 - both[:, 0]


def test_slices_of_all_files_are_one_stack_for_isbi2012(tmp_path):
    predictions, labels, truths, soft = membranes(tmp_path, np.random.default_rng(0))
    found = evaluate_folders(predictions, labels, metrics=["isbi2012"])
    assert found.overall.values == isbi2012(truths, soft)
    assert found.from_probabilities
    assert [row.to_dict() for row in found.rows.values()] == [{}, {}]


def test_the_pixel_error_of_isbi2012_is_that_of_pixels(tmp_path):
    predictions, labels, *_ = membranes(tmp_path, np.random.default_rng(1))
    stack = evaluate_folders(predictions, labels, metrics=["isbi2012"]).overall.values
    pixels = evaluate_folders(predictions, labels, metrics=["pixels"]).overall.values
    both = evaluate_folders(predictions, labels, metrics=["pixels", "isbi2012"]).overall.values
    shared = stack.keys() & pixels.keys()
    assert shared == {"pixel_error", "pixel_error_threshold"}
    assert [stack[name] for name in shared] == [pixels[name] for name in shared]
    assert both == {**pixels, **stack}


def test_isbi2012_needs_probabilities(tmp_path):
    predictions, labels, *_ = membranes(tmp_path, np.random.default_rng(2))
    (predictions / "b_probabilities.tif").unlink()
    with pytest.raises(
        ValueError,
        match=r"predictions: isbi2012 needs .* Received none for b\.tif; .* --save classes,prob",
    ):
        evaluate_folders(predictions, labels, metrics=["isbi2012"])
    (predictions / "a_probabilities.tif").unlink()
    with pytest.raises(ValueError, match=r"Received none for a\.tif and 1 more; predict"):
        evaluate_folders(predictions, labels, metrics=["isbi2012"])


def test_isbi2012_needs_slices_of_one_size(tmp_path):
    predictions, labels, truths, soft = membranes(tmp_path, np.random.default_rng(3))
    write(labels, b=255 * truths[2, :10])
    write(predictions, b=255 * truths[2, :10], b_probabilities=probabilities(soft[2, :10]))
    with pytest.raises(
        ValueError, match=r"one size, as one stack\. Received a of 12 x 14 and b of 10 x 14 pixels;"
    ):
        evaluate_folders(predictions, labels, metrics=["isbi2012"])
    assert evaluate_folders(predictions, labels).metrics == ("pixels",)


def test_isbi2012_counts_every_pixel(tmp_path):
    predictions, labels, truths, _ = membranes(tmp_path, np.random.default_rng(4))
    partly = 255 * truths[2]
    partly[0, :3] = 7
    write(labels, b=partly)
    with pytest.raises(
        ValueError, match=r"counts every pixel\. Received labels of b with 3 pixels to ignore; use"
    ):
        evaluate_folders(predictions, labels, metrics=["isbi2012"], ignore=7)
    assert evaluate_folders(predictions, labels, ignore=7).metrics == ("pixels",)


def test_probabilities_that_no_metric_asks_for_are_not_read(tmp_path):
    predictions, labels, *_ = membranes(tmp_path, np.random.default_rng(5))
    (predictions / "a_probabilities.tif").write_text("no image")
    assert not evaluate_folders(predictions, labels, metrics=["ctc"]).from_probabilities


def test_a_prediction_of_another_size_is_refused(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS)
    predictions = write(tmp_path / "predictions", a=TWO_CELLS[:1])
    with pytest.raises(
        ValueError, match=r"predictions/a\.tif: expected the size of .*labels/a\.tif"
    ):
        evaluate_folders(predictions, labels)
    write(predictions, a=TWO_CELLS, a_probabilities=probabilities(TWO_CELLS[:1] > 0))
    with pytest.raises(
        ValueError, match=r"a_probabilities\.tif: expected the size.*Received 1 plane of 1 x 5"
    ):
        evaluate_folders(predictions, labels)


def test_a_plane_that_a_stack_lacks_is_refused(tmp_path):
    labels = write(tmp_path / "01_GT" / "SEG", man_seg_004_007=TWO_CELLS)
    predictions = write(tmp_path / "predictions", t004=[TWO_CELLS, TWO_CELLS])
    with pytest.raises(ValueError, match=r"t004\.tif: expected the size.*Received 2 planes of"):
        evaluate_folders(predictions, labels)


def test_scores_that_cannot_be_written_are_refused_first(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS)
    with pytest.raises(OSError, match=r"a\.tif: expected a writable folder"):
        evaluate_folders(labels, labels, json=labels / "a.tif" / "scores.json")


def test_labels_of_a_single_value_are_refused(tmp_path):
    labels = write(tmp_path / "labels", a=0 * TWO_CELLS)
    with pytest.raises(ValueError, match=r"a\.tif: expected at least two values"):
        evaluate_folders(labels, labels)


def test_smeared_labels_are_refused_by_name(tmp_path):
    rng = np.random.default_rng(0)
    smeared = rng.integers(0, 256, (64, 64))
    labels = write(tmp_path / "labels", a=smeared)
    with pytest.raises(ValueError, match=r"labels/a\.tif: expected"):
        evaluate_folders(labels, labels)


def test_a_report_shows_scores_truth_and_prediction(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS, stack=np.stack([TWO_CELLS] * 2), c=TWO_CELLS)
    predictions = write(tmp_path / "predictions", a=TWO_CELLS, stack=np.stack([ONE_AND_A_HALF] * 2))
    path = tmp_path / "new" / "report.html"
    evaluate_folders(predictions, labels, kind="instances", report=path)
    text = path.read_text(encoding="utf-8")
    names = re.findall(r"<option[^>]*>(.*)</option>", text)
    assert names == ["stack_000", "stack_001", "a"]
    sections = re.findall(r'<section id="(\w+)">', text)
    assert sections == ["images", "cells", "scores", "objects", "data"]
    assert "no prediction for c.tif" in text
    assert "pixel error from label images, as there are no probabilities" in text


def test_a_report_of_classes_and_of_a_challenge(tmp_path):
    truth = np.kron(np.eye(8, dtype=int), np.ones((4, 4), int))
    labels = write(tmp_path / "labels", a=truth)
    soft = probabilities(truth * 0.8 + 0.1)
    predictions = write(tmp_path / "predictions", a=truth, a_probabilities=soft)
    path = tmp_path / "report.html"
    evaluate_folders(predictions, labels, metrics=["isbi2012"], report=path)
    text = path.read_text(encoding="utf-8")
    assert '<th scope="row">V_Rand: F of pairs, borders thinned</th><td>1.0000</td>' in text
    assert 'id="cells"' not in text
    assert "thresholds of the cell probability" in text


@pytest.mark.parametrize("option", ["json", "report"])
def test_a_file_of_others_is_not_replaced_unless_asked(tmp_path, option):
    labels, path = write(tmp_path / "labels", a=TWO_CELLS), tmp_path / "mine"
    path.write_text("mine")
    with pytest.raises(
        ValueError, match=r"mine: expected no file, or a .* that keras-unet has wri"
    ):
        evaluate_folders(labels, labels, **{option: path})
    assert path.read_text() == "mine"
    evaluate_folders(labels, labels, **{option: path}, overwrite=True)
    evaluate_folders(labels, labels, **{option: path})  # its own
    assert "keras_unet" in path.read_text()


@pytest.mark.parametrize("option", ["json", "report"])
def test_predictions_are_not_replaced_by_scores(tmp_path, option):
    labels, path = write(tmp_path / "labels", a=TWO_CELLS), tmp_path / "a.tif"
    write_tiff(path, TWO_CELLS, axes="YX")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Received a TIFF image that it has written"):
        evaluate_folders(labels, labels, **{option: path})
    assert path.read_bytes() == before


def test_scores_and_report_are_two_files(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS)
    with pytest.raises(ValueError, match="Received one for both"):
        evaluate_folders(labels, labels, json=tmp_path / "a", report=tmp_path / "b" / ".." / "a")


def write_tzyx(path, planes, order):
    """Writes planes `(T, Z, height, width)`, perhaps with the first two exchanged."""
    path.parent.mkdir(exist_ok=True)
    swapped = {"TZ": planes, "ZT": planes.swapaxes(0, 1)}[order]
    axes = f"{order}CYX" if planes.ndim == 5 else f"{order}YX"
    write_tiff(path, swapped, axes=axes)


@pytest.mark.parametrize("order", ["TZ", "ZT"])
def test_planes_go_together_by_axes(tmp_path, order):
    rng = np.random.default_rng(0)
    cells = (rng.random((2, 3, 16, 18)) > 0.5).astype(np.uint8)
    write_tzyx(tmp_path / "labels" / "a.tif", cells, "ZT")
    write_tzyx(tmp_path / "predictions" / "a.tif", cells, order)
    soft = np.stack([1 - cells, cells], axis=2).astype(np.float32)
    write_tzyx(tmp_path / "predictions" / "a_probabilities.tif", soft, order)
    found = evaluate_folders(tmp_path / "predictions", tmp_path / "labels", kind="classes")
    assert [found.overall.values[name] for name in ("iou", "dice", "pixel_error")] == [1, 1, 0]
    assert found.from_probabilities


def test_planes_of_which_axes_do_not_say_the_order_are_refused(tmp_path):
    cells = (np.random.default_rng(0).random((2, 3, 16, 18)) > 0.5).astype(np.uint8)
    write_tzyx(tmp_path / "predictions" / "a.tif", cells, "TZ")
    write(tmp_path / "labels", a=cells.reshape(6, 16, 18))
    with pytest.raises(
        ValueError, match=r"predictions/a\.tif: expected planes along Z = 6 as in .* not clear"
    ):
        evaluate_folders(tmp_path / "predictions", tmp_path / "labels", kind="classes")


def test_what_lies_among_labels_is_left_out_and_said(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, TWO_CELLS.shape)
    labels = write(tmp_path / "data", a=grey, a_mask=255 * (TWO_CELLS > 0))
    predictions = write(tmp_path / "predictions", a=TWO_CELLS)
    path = tmp_path / "report.html"
    with logged() as said:
        found = evaluate_folders(predictions, labels, report=path)
    left_out = "left out, as their names are not those of labels: a.tif (the image of a_mask.tif)"
    assert [line for line in said if "Warning" in line] == [f"Warning: {left_out}"]
    assert list(found.rows) == ["a_mask"]
    assert found.left_out == ["a.tif (the image of a_mask.tif)"]
    assert left_out in path.read_text(encoding="utf-8")


def test_palettes_that_contradict_each_other_are_refused(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    for name, colours in (("a", [0, 0, 0, 255, 0, 0]), ("b", [0, 0, 0, 0, 255, 0])):
        image = Image.fromarray((TWO_CELLS > 0).astype(np.uint8)).convert("P")
        image.putpalette(colours)
        image.save(folder / f"{name}.png")
    predictions = write(tmp_path / "predictions", a=TWO_CELLS, b=TWO_CELLS)
    with pytest.raises(ValueError, match=r"b\.png: expected the palette of a\.png"):
        evaluate_folders(predictions, folder)


def test_labels_in_part_score_what_is_labelled(tmp_path):
    truth = np.full((6, 12), 9)
    truth[:, :3], truth[:, 3:5] = 1, 0
    found = np.zeros((6, 12), int)
    found[:, :3], found[:, 6:9] = 1, 2  # the second lies where nobody has looked
    labels = write(tmp_path / "labels", a=truth)
    predictions = write(tmp_path / "predictions", a=found)
    overall = evaluate_folders(predictions, labels, kind="instances", unlabelled=9).overall
    assert overall.values == PERFECT
    assert (overall.matching[0].tp, overall.matching[0].fp) == (1, 0)
    wide = found.copy()
    wide[:, 3:9] = 1  # the cell, and as much as that again beyond the labels
    write(predictions, a=wide)
    overall = evaluate_folders(predictions, labels, kind="instances", unlabelled=9).overall
    assert overall.values["iou"] == 3 / 5
    assert overall.values["seg"] == 3 / 9


def test_strokes_are_scored_by_pixels_alone(tmp_path):
    strokes = np.zeros((6, 6), int)
    strokes[0], strokes[2], strokes[4] = 1, 2, 1
    labels = write(tmp_path / "labels", a=strokes)
    predictions = write(tmp_path / "predictions", a=np.where(strokes == 2, 2, 1))
    scores = evaluate_folders(predictions, labels, unlabelled=0).overall.values
    assert scores["iou"] == 1
    with pytest.raises(ValueError, match=r"need labels of whole cells.*; use --metrics pixels$"):
        evaluate_folders(predictions, labels, metrics=["ctc"], unlabelled=0)
    probable = probabilities(strokes == 2)
    write(predictions, a_probabilities=probable)
    with pytest.raises(ValueError, match=r"labels of a with 18 unlabelled pixels; use"):
        evaluate_folders(predictions, labels, metrics=["isbi2012"], unlabelled=0)
