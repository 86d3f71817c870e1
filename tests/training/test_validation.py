from dataclasses import replace

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.data.samples import Sample
from keras_unet.instances.label import InstanceOptions
from keras_unet.runs import Run
from keras_unet.training.targets import Target
from keras_unet.training.validation import Validator, single_class_warning


def run(tmp_path, classes=2, encoding=None):
    return Run(
        folder=tmp_path,
        architecture=Architecture(depth=1, base_filters=1, classes=classes),
        encoding=encoding or LabelEncoding("classes", tuple(range(classes))),
        normalization=Normalization("image"),
        precision="float32",
        record={},
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


def a_validator(run, training, held_out, *options):
    """Looks at samples held out."""
    targets = [Target.of(one, run.encoding) for one in held_out]
    return Validator.of(run, training, targets, *options)


def constant(classes, favourite):
    """A network that finds one class everywhere."""

    def model(batch):
        shape = (len(batch), batch.shape[1] - 16, batch.shape[2] - 16, classes)
        return np.broadcast_to(10.0 * (np.arange(classes) == favourite), shape)

    return model


HALF = [[0, 0, 1, 1]] * 4


def test_score_is_the_mean_iou_of_the_classes_over_all_held_out_images(tmp_path):
    validator = a_validator(run(tmp_path), [], [sample(HALF), sample([[0, 0, 0, 0]] * 4)])
    # class 0: 24 of 32 pixels; class 1: none of 8
    assert validator(constant(2, 0)).score == pytest.approx((24 / 32 + 0) / 2)


def test_a_class_that_occurs_nowhere_does_not_count(tmp_path):
    validator = a_validator(run(tmp_path, classes=3), [], [sample([[1, 1], [1, 1]])])
    assert validator(constant(3, 1)).score == 1


def test_ignored_pixels_do_not_count(tmp_path):
    ignored = [[False, False, True, True]] * 4
    validator = a_validator(run(tmp_path), [], [sample(HALF, ignored)])
    seen = validator(constant(2, 0))
    assert (seen.score, seen.warning) == (1, None)


def test_without_a_pixel_that_counts_there_is_no_score(tmp_path):
    validator = a_validator(run(tmp_path), [], [sample(HALF, [[True] * 4] * 4)])
    assert validator(constant(2, 0)).score is None


def test_a_training_image_is_checked_for_a_single_class_alone(tmp_path):
    held_out = a_validator(run(tmp_path), [], [sample(HALF)])
    validator = a_validator(run(tmp_path), held_out.targets * 2, [])
    seen = validator(constant(2, 1))
    assert len(validator.targets) == 1
    assert seen.score is None
    assert seen.warning == single_class_warning(
        np.array([0, 1], np.uint8), np.array([1, 1], np.uint8)
    )


def test_a_single_class_is_warned_of():
    truth = np.array([0, 1, 2], np.uint8)
    warning = single_class_warning(truth, np.full(3, 1, np.uint8))
    assert warning is not None
    assert warning.startswith("the network has collapsed to one class")
    assert "class 1, but the labels hold 3 classes" in warning
    assert "--learning-rate" in warning
    assert "\n" not in warning


@pytest.mark.parametrize(("truth", "result"), [([0, 1], [0, 1]), ([0, 0], [0, 0]), ([], [])])
def test_no_collapse(truth, result):
    assert single_class_warning(np.array(truth, np.uint8), np.array(result, np.uint8)) is None


def test_instances_are_scored_by_seg_and_ap(tmp_path):
    cells = run(tmp_path, encoding=LabelEncoding("instances", (0, 1)))
    half, all_of_it = sample(HALF), sample([[1, 1, 1, 1]] * 4)
    validator = a_validator(cells, [], [half, all_of_it, sample([[0, 0, 0, 0]] * 4)])
    seen = validator(
        constant(2, 1)
    )  # one piece everywhere: IoU 1/2 with the first cell, 1 the second
    seg, ap = (1 / 2 + 1) / 2, 2 / 3  # a false cell in the third image
    assert seen.score == pytest.approx((seg + ap) / 2)
    assert validator.score_name == "mean of SEG and AP"
    ignoring = a_validator(cells, [], [sample(HALF, [[True, True, False, False]] * 4)])
    assert ignoring(constant(2, 1)).score == 1
    assert a_validator(cells, [], [sample([[0, 0]] * 2)])(constant(2, 1)).score is None


def bright():
    """A network that finds cells where the image is bright, by the logit of the grey value."""

    def model(batch):
        kept = batch[:, 8:-8, 8:-8, 0]
        return np.stack([np.zeros_like(kept), kept], axis=-1)

    return model


def dumbbells(options, tmp_path):
    """Images of two cells that a bridge joins, as a validator sees them."""
    instances = np.zeros((15, 30), np.int32)
    instances[2:13, 2:13], instances[2:13, 16:27] = 1, 2
    image = np.where(instances > 0, 5.0, -5.0)
    image[6:9, 13:16] = 5
    sample = Sample(
        name="pair",
        image=image[..., np.newaxis].astype(np.float32),
        classes=(instances > 0).astype(np.uint8),
        instances=instances,
        ignored=np.zeros(instances.shape, bool),
    )
    cells = replace(run(tmp_path, encoding=LabelEncoding("instances", (0, 1))), instances=options)
    return a_validator(cells, [], [sample] * 9)


def test_instances_are_made_by_the_options_of_the_run(tmp_path):
    plain, parting = InstanceOptions(gap=0), InstanceOptions(markers="distance", gap=0)
    assert dumbbells(plain, tmp_path)(bright()).score < 0.5
    seen = dumbbells(parting, tmp_path)(bright())
    assert seen.score > 0.8
    assert (seen.picture != dumbbells(plain, tmp_path)(bright()).picture).any()


def test_options_are_selected_on_the_images_held_out(tmp_path):
    validator = dumbbells(InstanceOptions(gap=0), tmp_path)
    selection = validator.select_options(bright())
    assert selection.options.markers == "distance"
    assert (
        replace(validator, run=replace(validator.run, instances=selection.options))(bright()).score
        > 0.8
    )
    assert (selection.cells, selection.score_before < 0.3) == (18, True)


def test_ignored_pixels_do_not_count_in_the_choice(tmp_path):
    validator = dumbbells(InstanceOptions(gap=0), tmp_path)
    ignored = np.zeros((15, 30), bool)
    ignored[:, 13:16] = True
    held_out = [replace(target.sample, ignored=ignored) for target in validator.targets]
    selection = a_validator(validator.run, [], held_out).select_options(bright())
    assert selection.score_before == 1


def test_without_held_out_images_no_options_are_selected(tmp_path):
    validator = a_validator(
        run(tmp_path), [Target.of(sample(HALF), LabelEncoding("classes", (0, 1)))], []
    )
    assert validator.select_options(bright()) is None


def test_picture_shows_the_first_image(tmp_path):
    picture = a_validator(run(tmp_path), [], [sample(HALF)])(constant(2, 0)).picture
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


def test_picture_shows_the_middle_of_three_images_with_the_probability(tmp_path):
    scene = sample([[0] * 300 + [1] * 300] * 600)
    one, three, four = (
        a_validator(run(tmp_path), [], [scene] * number)(constant(2, 1)).picture
        for number in (1, 3, 4)
    )
    sides, between = 512, 8
    assert one.shape[1] == 5 * sides + 6 * between
    assert three.shape[0] - one.shape[0] == 2 * (sides + between)
    assert four.shape == three.shape
    first = 3 * between + 2 * sides  # of the probability's columns
    probability = one[-between - sides : -between, first : first + sides]
    assert (probability == int(255 / (1 + np.exp(-10.0)))).all()


@pytest.mark.parametrize(("tile", "size"), [(None, 66), (10, 18), (30, 30), (31, 32)])
def test_tiles_are_no_larger_than_asked_for_but_reach_the_next(tmp_path, tile, size):
    sizes = []

    def model(batch):
        sizes.append(batch.shape[1])
        return constant(2, 0)(batch)

    a_validator(run(tmp_path), [], [sample([[0] * 50] * 50)], tile).predictions(model)
    assert max(sizes) == size


def test_cells_in_part_are_scored_as_a_whole(tmp_path):
    labels = np.zeros((40, 40), np.int32)
    labels[10:20, 10:20] = 1
    one = replace(sample(labels > 0, ignored=labels == 0), instances=labels)
    # The network finds one cell everywhere, of which a sixteenth is labelled
    for unlabelled, seg in ((None, 1), (9, 100 / 1600)):
        encoding = LabelEncoding("instances", (0, 1), unlabelled=unlabelled)
        validator = a_validator(run(tmp_path, encoding=encoding), [], [one])
        ap = 0.0 if unlabelled else 1.0  # less than half of the union is no match for AP
        selection = validator.select_options(constant(2, 1))
        assert validator(constant(2, 1)).score == pytest.approx((seg + ap) / 2)
        assert selection.score_before == pytest.approx((seg + ap) / 2)


def test_no_instance_options_are_selected_from_strokes(tmp_path):
    encoding = LabelEncoding("classes", (1, 2), unlabelled=0)
    validator = a_validator(run(tmp_path, encoding=encoding), [], [sample(HALF)])
    assert validator.select_options(constant(2, 1)) is None
