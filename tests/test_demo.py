import shutil

import numpy as np
import pytest
import tifffile
from logs import logged
from PIL import Image

from keras_unet.demo import (
    HELD_OUT_IMAGES,
    TRAINING_IMAGES,
    next_steps,
    run_demo,
    run_model_demo,
)
from keras_unet.files import is_own
from keras_unet.prediction.folder import predict_files
from keras_unet.runs import Run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    with logged() as said:
        evaluation = run_demo(out, steps=2)
    return out, evaluation, said


def pictures(folder):
    return {path.stem: tifffile.imread(path) for path in (folder / "images").iterdir()}


def test_held_out_pictures_are_others_than_those_of_the_training(demo):
    training, held_out = pictures(demo[0] / "data"), pictures(demo[0] / "held_out")
    assert (len(training), len(held_out)) == (TRAINING_IMAGES, HELD_OUT_IMAGES)
    assert not training.keys() & held_out.keys()
    assert not any(np.array_equal(a, b) for a in training.values() for b in held_out.values())


def test_training_and_its_validation_see_none_of_the_held_out_pictures(demo):
    seen = Run.load(demo[0] / "run").record["data"]
    assert {*seen["training"], *seen["validation"]} == pictures(demo[0] / "data").keys()


def test_held_out_pictures_alone_are_scored_and_all_of_them(demo):
    out, evaluation, _ = demo
    assert evaluation.rows.keys() == pictures(out / "held_out").keys()
    assert evaluation.missing == []
    assert {path.stem for path in (out / "predictions").iterdir()} == evaluation.rows.keys()


def test_all_that_is_promised_is_written(demo):
    out, _, said = demo
    promised = [
        line.split()[0]
        for line in next_steps(out).splitlines()
        if line.startswith("  ") and "-" not in line.split()[0]
    ]
    assert promised == ["demo.png", "run/", "predictions/", "scores.json"]
    assert all((out / name).exists() for name in promised)
    assert (out / "run" / "pictures" / "montage.png").is_file()
    with Image.open(out / "demo.png") as picture:
        assert min(picture.size) >= 4 * 256
    assert said[0].startswith(f"drew {TRAINING_IMAGES} images")


def test_what_comes_next_names_the_folder_and_the_three_commands(tmp_path):
    shown = next_steps(tmp_path / "my demo")
    assert f"'{tmp_path}/my demo'/held_out/images" in shown
    assert all(f"keras-unet {name} " in shown for name in ("train", "predict", "evaluate"))


def test_a_second_demo_needs_another_folder(demo):
    with pytest.raises(FileExistsError, match="empty folder for the demo"):
        run_demo(demo[0], steps=2)


def test_truth_is_not_replaced_by_predictions(demo, tmp_path):
    out, _, _ = demo
    truth = shutil.copytree(out / "held_out" / "labels", tmp_path / "truth")
    for folder in (truth, out / "held_out" / "labels", out / "held_out" / "images"):
        with pytest.raises(ValueError, match=r"expected (no file|a folder for|an output that)"):
            predict_files(out / "run", [out / "held_out" / "images"], folder)
    assert not any(is_own(path) for path in (out / "data").rglob("*.tif"))


def test_nothing_is_drawn_if_a_number_is_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="steps must be greater than 0"):
        run_demo(tmp_path / "out", steps=0)
    assert not (tmp_path / "out").exists()


def test_another_seed_draws_other_pictures_throughout(demo, tmp_path, monkeypatch):
    class EnoughError(Exception):
        """Ends the demo when all is drawn."""

    def stop(*_, **__):
        raise EnoughError

    monkeypatch.setattr("keras_unet.demo.train_folder", stop)
    with pytest.raises(EnoughError):
        run_demo(tmp_path / "out", seed=1)
    before = pictures(demo[0] / "data").keys() | pictures(demo[0] / "held_out").keys()
    after = (
        pictures(tmp_path / "out" / "data").keys() | pictures(tmp_path / "out" / "held_out").keys()
    )
    assert not before & after


def test_a_model_segments_an_image_that_comes_with_scikit_image(tmp_path):
    found = run_model_demo("nuclei", tmp_path / "out")
    labels = tifffile.imread(tmp_path / "out" / "predictions" / "image.tif")
    image = tifffile.imread(tmp_path / "out" / "image.tif")
    assert found == labels.max() > 300
    assert image[labels > 0].mean() > 1.5 * image[labels == 0].mean()
    with Image.open(tmp_path / "out" / "demo.png") as picture:
        assert picture.width > 3 * 512


def test_a_model_without_an_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_unet.demo._MODEL", "others")
    with pytest.raises(ValueError, match=r"image for the model others. Received: 'nuclei'; pred"):
        run_model_demo("nuclei", tmp_path / "out")
    with pytest.raises(ValueError, match=r"name must be one of .*nuclei"):
        run_model_demo("nucleus", tmp_path / "out")
    assert not (tmp_path / "out").exists()
