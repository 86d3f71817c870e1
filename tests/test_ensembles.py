import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_unet.ensembles import Ensemble, draw_folds, is_ensemble
from keras_unet.instances.label import InstanceRule


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


@pytest.mark.parametrize("rule", [None, InstanceRule(threshold=0.7)])
def test_the_record_is_read_as_it_was_written(tmp_path, rule):
    ensemble = Ensemble(tmp_path, (("a", "b"), ("c",)), {"seed": 3}, rule)
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


def test_stacks_are_kept_together() -> None:
    names = [f"{stack}_{plane}" for stack in "abcd" for plane in range(3)] + ["e"]
    stacks = [*(stack for stack in "abcd" for _ in range(3)), None]
    for seed in range(5):
        drawn = draw_folds(names, 2, seed, stacks)
        assert sorted(len(fold) for fold in drawn) == [6, 7]
        assert sorted(sum(drawn, ())) == sorted(names)
        for fold in drawn:
            assert all(sum(name[0] == stack for name in fold) in (0, 3) for stack in "abcd")


def test_a_single_stack_is_cut_in_its_order() -> None:
    names = [f"a_{plane}" for plane in range(5)]
    assert draw_folds(names, 2, 0, ["a"] * 5) == (("a_0", "a_1", "a_2"), ("a_3", "a_4"))
