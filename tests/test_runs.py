import json
from pathlib import Path

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.fingerprint import Percentiles
from keras_unet.data.normalization import Normalization
from keras_unet.instances.label import InstanceOptions
from keras_unet.runs import (
    RECORD,
    Ensemble,
    ModelInfo,
    Run,
    describe_score,
    held_out_of,
    is_ensemble,
)


@pytest.fixture
def run(tmp_path):
    return Run(
        folder=tmp_path,
        architecture=Architecture(channels=2, classes=3, depth=1, base_filters=4, padding="same"),
        encoding=LabelEncoding("classes", (0, 7, 255), ignore=9),
        normalization=Normalization("dataset", mean=(10.0, 20.0), std=(2.0, 4.0)),
        precision="bfloat16",
        channels=(2, "DAPI"),
        pixel_size=(0.5, 0.25),
        diameters=Percentiles(10.0, 20.5, 31.0),
        record={"options": {"steps": 5, "validation": ["a", "b"]}, "outcome": {"best_score": None}},
        instances=InstanceOptions(
            threshold=0.7, markers="distance", merge_threshold=0.5, minimum_size=12
        ),
    )


def test_a_run_comes_back_as_it_was_saved(run):
    run.save()
    assert Run.load(run.folder) == run


@pytest.mark.parametrize(
    ("kind", "measured", "expected"),
    [
        ("instances", [4.0, 5.0, 6.0], Percentiles(4.0, 5.0, 6.0)),
        ("instances", None, None),
        ("classes", [4.0, 5.0, 6.0], None),
    ],
)
def test_older_records_state_diameters_in_the_data_and_no_pixel_size_and_channels(
    kind, measured, expected
):
    values = ModelInfo(
        architecture=Architecture(),
        encoding=LabelEncoding(kind, (0, 1)),
        normalization=Normalization("image"),
        record={"data": {"fingerprint": {"diameters": measured}}},
    ).to_dict()
    del values["pixel_size"], values["diameters"], values["channels"]
    info = ModelInfo.from_dict(values)
    assert (info.channels, info.selection) == (None, None)
    assert (info.pixel_size, info.diameters) == (None, expected)


def test_a_run_may_be_given_as_text(run):
    run.save()
    assert Run.load(str(run.folder)).folder == run.folder


def test_saving_leaves_the_record_alone(run):
    run.save()
    assert [path.name for path in run.folder.iterdir()] == [RECORD]


def test_images_are_normalized_as_in_training(run):
    image = np.array([[[12.0, 16.0], [10.0, 20.0]]])
    assert run.normalize(image, Path("a.tif")).tolist() == [[[1.0, -1.0], [0.0, 0.0]]]


def test_an_image_of_other_channels_is_refused_by_name(run):
    with pytest.raises(ValueError, match=r"a\.tif: expected 2 channels, received 3"):
        run.normalize(np.zeros((4, 4, 3)), Path("a.tif"))


def test_an_image_with_nan_is_refused_by_name(run):
    with pytest.raises(ValueError, match=r"a\.tif: 1 of 8 pixels are NaN"):
        run.normalize(np.array([[[np.nan, 0]] + [[0, 0]] * 3]), Path("a.tif"))


def test_a_score_is_named_by_the_images_it_is_of():
    outcome = {"score_name": "SEG", "best_score": 0.86}
    assert describe_score(outcome) == "SEG 0.8600 on images held out"  # of an older run
    assert held_out_of(outcome) is None
    outcome["validation"] = {"kind": "part of a group", "groups": ["01"], "images": 5}
    assert describe_score(outcome) == (
        "SEG 0.8600 on 5 images of the same film, stack or slide as the training (01); another may "
        "score lower"
    )
    assert describe_score({**outcome, "score": 0.88}).startswith("SEG 0.8800 on 5 images")
    assert describe_score({"best_score": None}) is None


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a run.*Received a folder without"):
        Run.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected a run.*Received a path without"):
        Run.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-20], "JSONDecodeError"),
        (lambda _: "[]", "TypeError"),
        (lambda _: "{}", "KeyError: 'format'"),
        (lambda text: text.replace('"format": 2', '"format": 99'), "format 99"),
        (lambda text: text.replace('"depth": 1', '"depth": -1'), "depth must be a whole number"),
        (lambda text: text.replace('"kind": "classes"', '"kind": "?"'), "kind must be"),
        (lambda text: text.replace('"mean"', '"average"'), "KeyError: 'mean'"),
        (
            lambda text: json.dumps({**json.loads(text), "record": None}),
            "record is not a dictionary",
        ),
        (lambda text: text.replace('"threshold": 0.7', '"threshold": 7'), "threshold must be"),
        (lambda text: text.replace('"threshold": 0.7', '"level": 0.7'), "TypeError.*level"),
        (lambda text: text.replace("0.25\n", "0.25, 0.25\n"), "TypeError.*arguments"),
    ],
    ids=[
        "cut",
        "list",
        "empty",
        "future",
        "network",
        "labels",
        "grey values",
        "record",
        "options",
        "number",
        "pixel size",
    ],
)
def test_a_damaged_record_is_refused_in_one_line(run, change, reason):
    run.save()
    path = run.folder / RECORD
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=f"{RECORD}: expected the record.*{reason}") as caught:
        Run.load(run.folder)
    assert "\n" not in str(caught.value)


def test_a_record_that_is_no_text_is_refused(run):
    (run.folder / RECORD).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="UnicodeDecodeError"):
        Run.load(run.folder)


@pytest.mark.parametrize("options", [None, InstanceOptions(threshold=0.7)])
def test_the_record_is_read_as_it_was_written(tmp_path, options):
    ensemble = Ensemble(tmp_path, (("a", "b"), ("c",)), {"seed": 3}, options)
    assert not is_ensemble(tmp_path)
    ensemble.save()
    assert is_ensemble(tmp_path)
    assert Ensemble.load(tmp_path) == ensemble
    assert ensemble.folds == (tmp_path / "fold-1", tmp_path / "fold-2")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({"format": 2, "held_out": [], "options": {}})]
)
def test_a_record_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(ValueError, match=r"ensemble.json: expected the record of an ensemble"):
        Ensemble.load(tmp_path)
