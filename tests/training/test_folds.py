import html
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from keras.callbacks import Callback, LambdaCallback

from keras_unet.cli import main
from keras_unet.prediction.folder import predict_files
from keras_unet.runs import Ensemble, Run, runs_of
from keras_unet.training.folds import draw_folds, resume_folds, train_folds
from keras_unet.training.options import TrainingOptions

TINY = {"depth": 1, "base_filters": 2, "tile": 60, "precision": "float32"}


@pytest.fixture(scope="module")
def ensemble(cells, tmp_path_factory):
    """Two folds of two images each; not to be written to."""
    folder = tmp_path_factory.mktemp("folds") / "ensemble"
    train_folds(cells, folder, TrainingOptions(steps=2, **TINY), 2)
    return folder


def test_every_image_is_held_out_once(ensemble):
    record = Ensemble.load(ensemble)
    parts = [Run.load(fold).record["data"] for fold in record.folds]
    assert sorted(name for part in parts for name in part["validation"]) == ["c0", "c1", "c2", "c3"]
    for part, names in zip(parts, record.held_out, strict=True):
        assert part["validation"] == list(names)
        assert sorted(part["training"] + part["validation"]) == ["c0", "c1", "c2", "c3"]


def test_folds_have_the_same_options(ensemble):
    recorded = [Run.load(fold).record["options"] for fold in Ensemble.load(ensemble).folds]
    first, second = ({**options, "validation": None, "seed": None} for options in recorded)
    assert first == second
    assert [options["seed"] for options in recorded] == [1, 2]
    assert first["sigma"] is not None


def test_minutes_are_those_of_all_folds(cells, tmp_path):
    class Stop(Callback):
        def on_train_begin(self, *_):
            raise EnoughError(self.params["schedule"].max_minutes)

    options = TrainingOptions(max_minutes=3, **TINY)
    with pytest.raises(EnoughError, match=r"1\.0"):
        train_folds(cells, tmp_path / "new", options, 3, callbacks=[Stop()])


class EnoughError(Exception):
    """Ends the job when the schedule is known."""


def test_interrupted_folds_are_gone_on_with(cells, ensemble, tmp_path):
    steps = []

    def stop(step, **_):
        steps.append(step)
        if len(steps) == 3:  # the first of the second fold
            raise KeyboardInterrupt

    folder = tmp_path / "ensemble"
    options = TrainingOptions(steps=2, **TINY)
    runs = train_folds(
        cells, folder, options, 2, callbacks=[LambdaCallback(on_train_batch_end=stop)]
    )
    assert [run.record["outcome"]["complete"] for run in runs] == [True, False]
    runs = resume_folds(cells, folder)
    assert [run.record["outcome"]["steps"] for run in runs] == [2, 2]
    for one, other in zip(Ensemble.load(folder).folds, Ensemble.load(ensemble).folds, strict=True):
        assert (one / "last.keras").stat().st_size == (other / "last.keras").stat().st_size
        assert (one / "history.csv").read_text().count("\n") > 1


def test_the_instance_options_are_selected_when_all_folds_are_trained(ensemble):
    record = Ensemble.load(ensemble)
    assert record.instances is not None
    assert [run.instances for run in runs_of(record)] == [record.instances] * 2


def test_an_ensemble_predicts_the_mean_of_its_folds(cells, ensemble, tmp_path):
    files, save = [cells / "images" / "c0.tif"], ["instances", "probabilities"]
    predict_files(ensemble, files, tmp_path / "all", save=save)
    folds = Ensemble.load(ensemble).folds
    for fold in folds:
        predict_files(fold, files, tmp_path / fold.name, save=save)
    together, *each = (
        tifffile.imread(tmp_path / name / "c0_probabilities.tif")
        for name in ("all", *(fold.name for fold in folds))
    )
    np.testing.assert_allclose(together, np.mean(each, axis=0), rtol=0, atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-4


def test_an_ensemble_that_is_not_trained_to_its_end_does_not_predict(cells, ensemble, tmp_path):
    replace(Ensemble.load(ensemble), folder=tmp_path, instances=None).save()
    with pytest.raises(FileNotFoundError, match="all 2 folds are trained"):
        predict_files(tmp_path, [cells / "images"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fold_that_was_never_begun_is_trained(cells, ensemble, tmp_path):
    folder = shutil.copytree(ensemble, tmp_path / "ensemble")
    shutil.rmtree(folder / "fold-2")
    runs = resume_folds(cells, folder)
    assert [run.folder.name for run in runs] == ["fold-1", "fold-2"]


def test_a_used_folder_is_refused(cells, ensemble):
    with pytest.raises(FileExistsError, match="expected a new folder for the ensemble"):
        train_folds(cells, ensemble, TrainingOptions(steps=2, **TINY), 2)


def test_a_number_of_folds_that_does_not_suit_leaves_nothing_behind(cells, tmp_path):
    with pytest.raises(ValueError, match="folds=5 for 4"):
        train_folds(cells, tmp_path / "new", TrainingOptions(steps=2, **TINY), 5)
    assert not (tmp_path / "new").exists()


def test_the_report_shows_each_image_as_the_fold_sees_it_that_has_not_learned_it(ensemble):
    text = (ensemble / "report.html").read_text(encoding="utf-8")
    assert "<h1>Ensemble ensemble</h1>" in text
    assert "2 U-Nets trained on 4 images" in text
    assert all(f"weight map of c{number}" in text for number in range(4))
    assert "each predicted by the network that was trained without it" in text
    assert "<dt>seeds</dt><dd>1, 2</dd>" in text
    options = Ensemble.load(ensemble).instances
    assert options.describe() in html.unescape(text)


def test_the_command_of_the_report_makes_the_same_folds_again(ensemble):
    text = html.unescape((ensemble / "report.html").read_text(encoding="utf-8"))
    words = re.sub(r"<[^>]+>", "", text[text.index('id="made"') :].split("<code>")[1]).split()
    command = words[: words.index("--folds") + 2]
    assert command[:2] == ["keras-unet", "train"]
    parsed = main.commands["train"].make_context("train", command[2:]).params
    options = Ensemble.load(ensemble).options
    assert parsed["folds"] == 2
    assert all(
        options[name] == parsed[name]
        for name in ("steps", "depth", "tile", "seed")
        if parsed[name] is not None
    )


@given(st.integers(2, 40), st.integers(0, 5), st.data())
def test_every_image_is_in_one_fold(images, seed, data):
    folds = data.draw(st.integers(2, images))
    names = [f"image{i}" for i in range(images)]
    drawn = draw_folds(names, folds, seed)
    assert sorted(name for fold in drawn for name in fold) == sorted(names)
    sizes = [len(fold) for fold in drawn]
    assert len(sizes) == folds
    assert max(sizes) - min(sizes) <= 1
    assert drawn == draw_folds(names, folds, seed)


def test_another_seed_draws_other_folds():
    names = [str(i) for i in range(20)]
    assert draw_folds(names, 4, 0) != draw_folds(names, 4, 1)


@pytest.mark.parametrize("folds", [-1, 0, 1, 4])
def test_a_number_of_folds_that_does_not_suit_is_refused(folds):
    with pytest.raises(ValueError, match=f"at most the number of images. Received: folds={folds}"):
        draw_folds(["a", "b", "c"], folds, 0)


def test_groups_are_kept_together() -> None:
    names = [f"{group}_{plane}" for group in "abcd" for plane in range(3)] + ["e"]
    groups = [*(group for group in "abcd" for _ in range(3)), None]
    for seed in range(5):
        drawn = draw_folds(names, 2, seed, groups)
        assert sorted(len(fold) for fold in drawn) == [6, 7]
        assert sorted(sum(drawn, ())) == sorted(names)
        for fold in drawn:
            assert all(sum(name[0] == group for name in fold) in (0, 3) for group in "abcd")


def test_a_single_group_is_cut_in_the_order_of_its_numbers() -> None:
    names = ["a_10", "a_11", "a_7", "a_8", "a_9"]
    assert draw_folds(names, 2, 0, ["a"] * 5) == (("a_7", "a_8", "a_9"), ("a_10", "a_11"))
