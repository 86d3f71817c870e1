import json

import numpy as np
import pytest

from keras_unet.data.images import write_tiff
from keras_unet.jobs.evaluate import evaluate_folders

TWO_CELLS = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2]])
ONE_AND_A_HALF = np.array([[1, 1, 0, 0, 2], [1, 1, 0, 0, 2]])


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
    assert found.rows["a"] == {"iou": 1, "dice": 1, "pixel_error": 0, "seg": 1}
    # b: 6 of 8 pixels; the first cell whole, the second half, which does not count as found
    assert found.rows["b"] == pytest.approx(
        {"iou": 6 / 8, "dice": 12 / 14, "pixel_error": 1 - 12 / 14, "seg": 1 / 2}
    )
    assert found.overall == pytest.approx(
        {"iou": 7 / 8, "dice": 13 / 14, "pixel_error": 1 - 28 / 30, "seg": 3 / 4}
    )
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
    assert (found.overall["pixel_error"], found.threshold) == (0, 0.3)
    assert found.overall["iou"] == 6 / 8  # of the label images


def test_all_classes_but_the_background_are_cell(tmp_path):
    labels = write(tmp_path / "labels", a=[[0, 0, 1, 1, 2, 2, 1, 2, 1]] * 2)
    three = np.stack([np.full((2, 9), 0.4)] + [np.full((2, 9), 0.3)] * 2)
    predictions = write(
        tmp_path / "predictions", a=[[0, 0, 2, 2, 1, 1, 1, 1, 1]] * 2, a_probabilities=three
    )
    found = evaluate_folders(predictions, labels, kind="classes")
    assert found.overall["iou"] == 1
    assert found.threshold == 0  # all pixels are cell with 0.6


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
        write(tmp_path / "predictions", a=prediction), write(tmp_path / "labels", a=labels)
    )
    assert found.overall == {"iou": 1, "dice": 1, "pixel_error": 0, "seg": 1}


def test_background_need_not_be_zero(tmp_path):
    labels = write(tmp_path / "labels", a=np.where(TWO_CELLS > 0, 9, 5))
    found = evaluate_folders(labels, labels)
    assert found.overall["seg"] == found.overall["iou"] == 1


def test_ignored_pixels_do_not_count(tmp_path):
    truth = TWO_CELLS.copy()
    truth[:, 3] = 99
    found = evaluate_folders(
        write(tmp_path / "predictions", a=ONE_AND_A_HALF, b=[[0, 7]]),
        write(tmp_path / "labels", a=truth, b=[[99, 99]]),
        kind="instances",
        ignore=99,
    )
    assert found.rows["a"] == {"iou": 1, "dice": 1, "pixel_error": 0, "seg": 1}
    assert np.isnan(list(found.rows["b"].values())).all()
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
    assert found.rows["man_seg_004_001"] == {"iou": 1, "dice": 1, "pixel_error": 0, "seg": 1}


def test_labels_without_a_prediction_are_named(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS, b=TWO_CELLS)
    found = evaluate_folders(write(tmp_path / "predictions", a=TWO_CELLS), labels)
    assert (list(found.rows), found.missing) == (["a"], ["b.tif"])


def test_json_holds_all_of_it(tmp_path):
    labels = write(tmp_path / "labels", a=TWO_CELLS, b=TWO_CELLS, c=0 * TWO_CELLS)
    predictions = write(tmp_path / "predictions", a=TWO_CELLS, c=0 * TWO_CELLS)
    path = tmp_path / "new" / "scores.json"
    found = evaluate_folders(predictions, labels, json=path)
    written = json.loads(path.read_text())
    assert written == {
        "images": {
            "a": {"iou": 1, "dice": 1, "pixel_error": 0, "seg": 1},
            "c": {"iou": None, "dice": None, "pixel_error": 0, "seg": None},
        },
        "overall": {"iou": 1, "dice": 1, "pixel_error": 0, "seg": 1},
        "pixel_error_threshold": 0,
        "pixel_error_from_probabilities": False,
        "missing": ["b.tif"],
    }
    assert found.overall["seg"] == 1


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
