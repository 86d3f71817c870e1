"""What the fresh process says of a package that fails, without a package."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from keras_unet.export import check_bioimageio as asking

SIZES = SimpleNamespace(min=6, step=2)


class Pipeline:
    """Gives back what it gets; by blocks, something is added."""

    def __init__(self, added):
        self.added, self.parameters = added, []

    def predict_sample_without_blocking(self, sample, *, skip_input_padding, skip_output_cropping):
        assert skip_input_padding
        assert skip_output_cropping
        return answered(sample, 0)

    def predict_sample_with_blocking(self, sample, *, ns):
        self.parameters.append((ns, sample.members["image"].data.shape))
        return answered(sample, self.added)


def answered(sample, added):
    return SimpleNamespace(members={"probabilities": sample.members["image"] + added})


def test_blocks_that_give_the_whole_are_passed():
    pipeline = Pipeline(0)
    asking._check_blocks(pipeline, SIZES, np.zeros((15, 11, 1), np.float32))
    assert pipeline.parameters == [(1, (1, 14, 10, 1))]


@pytest.mark.parametrize(("added", "number"), [(0.25, "2.5e-01"), (float("nan"), "nan")])
def test_blocks_that_give_something_else_end_the_program(added, number):
    with pytest.raises(SystemExit, match=f"differs from that of the whole image by {number}"):
        asking._check_blocks(Pipeline(added), SIZES, np.zeros((15, 11, 1), np.float32))


def test_an_image_smaller_than_a_block_is_not_laid_out():
    pipeline = Pipeline(0.25)
    asking._check_blocks(pipeline, SIZES, np.zeros((15, 5, 1), np.float32))
    assert pipeline.parameters == []


def test_a_failed_test_ends_the_program_with_all_reasons(monkeypatch, tmp_path):
    errors = [SimpleNamespace(msg="one\n reason"), SimpleNamespace(msg="another")]
    details = [SimpleNamespace(name="weights", errors=errors), SimpleNamespace(name="", errors=[])]
    monkeypatch.setattr(asking, "run_test", lambda _: summary("failed", details))
    with pytest.raises(SystemExit, match=r"^weights: one reason; weights: another$"):
        asking._check_package(tmp_path)
    monkeypatch.setattr(asking, "run_test", lambda _: summary("valid-format", []))
    with pytest.raises(SystemExit, match=r"^valid-format$"):
        asking._check_package(tmp_path)
    monkeypatch.setattr(asking, "run_test", lambda _: summary("passed", []))
    asking._check_package(tmp_path)


def summary(status, details):
    return SimpleNamespace(status=status, details=details)
