import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.data.samples import Sample
from keras_unet.data.schemes import LabelScheme
from keras_unet.data.standardisation import Standardisation
from keras_unet.jobs.watch import Watch, collapse
from keras_unet.runs import Run


def run(tmp_path, classes=2, scheme=None):
    return Run(
        tmp_path,
        Architecture(depth=1, base_filters=1, classes=classes),
        scheme or LabelScheme("classes", tuple(range(classes))),
        Standardisation("image"),
        "float32",
        {},
    )


def sample(classes, ignored=None):
    classes = np.array(classes, np.uint8)
    return Sample(
        name="a",
        image=np.random.default_rng(0).normal(size=(*classes.shape, 1)).astype(np.float32),
        classes=classes,
        instances=(classes > 0).astype(np.int32),
        ignored=np.zeros(classes.shape, bool) if ignored is None else np.array(ignored),
    )


def constant(classes, favourite):
    """A network that finds one class everywhere."""

    def model(batch):
        shape = (len(batch), batch.shape[1] - 16, batch.shape[2] - 16, classes)
        return np.broadcast_to(10.0 * (np.arange(classes) == favourite), shape)

    return model


HALF = [[0, 0, 1, 1]] * 4


def test_score_is_the_mean_iou_of_the_classes_over_all_held_out_images(tmp_path):
    watch = Watch.of(run(tmp_path), [], [sample(HALF), sample([[0, 0, 0, 0]] * 4)])
    # class 0: 24 of 32 pixels; class 1: none of 8
    assert watch(constant(2, 0)).score == pytest.approx((24 / 32 + 0) / 2)


def test_a_class_that_occurs_nowhere_does_not_count(tmp_path):
    watch = Watch.of(run(tmp_path, classes=3), [], [sample([[1, 1], [1, 1]])])
    assert watch(constant(3, 1)).score == 1


def test_ignored_pixels_do_not_count(tmp_path):
    ignored = [[False, False, True, True]] * 4
    watch = Watch.of(run(tmp_path), [], [sample(HALF, ignored)])
    seen = watch(constant(2, 0))
    assert (seen.score, seen.warning) == (1, None)


def test_without_a_pixel_that_counts_there_is_no_score(tmp_path):
    watch = Watch.of(run(tmp_path), [], [sample(HALF, [[True] * 4] * 4)])
    assert watch(constant(2, 0)).score is None


def test_a_training_image_is_watched_for_collapse_alone(tmp_path):
    held_out = Watch.of(run(tmp_path), [], [sample(HALF)])
    watch = Watch.of(run(tmp_path), held_out.targets * 2, [])
    seen = watch(constant(2, 1))
    assert len(watch.targets) == 1
    assert seen.score is None
    assert seen.warning == collapse(np.array([0, 1], np.uint8), np.array([1, 1], np.uint8))


def test_collapse_is_said_in_words():
    truth = np.array([0, 1, 2], np.uint8)
    said = collapse(truth, np.full(3, 1, np.uint8))
    assert said is not None
    assert said.startswith("Warning: the network has collapsed to one class")
    assert "class 1, but the labels hold 3 classes" in said
    assert "--learning-rate" in said
    assert "\n" not in said


@pytest.mark.parametrize(("truth", "result"), [([0, 1], [0, 1]), ([0, 0], [0, 0]), ([], [])])
def test_no_collapse(truth, result):
    assert collapse(np.array(truth, np.uint8), np.array(result, np.uint8)) is None


def test_instances_are_scored_by_seg(tmp_path):
    cells = run(tmp_path, scheme=LabelScheme("instances", (0, 1)))
    half, all_of_it = sample(HALF), sample([[1, 1, 1, 1]] * 4)
    watch = Watch.of(cells, [], [half, all_of_it, sample([[0, 0, 0, 0]] * 4)])
    seen = watch(constant(2, 1))  # one piece everywhere: IoU 1/2 with the first cell, 1 the second
    assert (seen.score, watch.score_name) == ((1 / 2 + 1) / 2, "SEG")
    ignoring = Watch.of(cells, [], [sample(HALF, [[True, True, False, False]] * 4)])
    assert ignoring(constant(2, 1)).score == 1
    assert Watch.of(cells, [], [sample([[0, 0]] * 2)])(constant(2, 1)).score is None


def test_picture_shows_the_first_image(tmp_path):
    picture = Watch.of(run(tmp_path), [], [sample(HALF)])(constant(2, 0)).picture
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
