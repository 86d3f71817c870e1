from dataclasses import replace

import numpy as np
import pytest
from kinds import draw_kinds, with_values

from keras_unet.architecture import Architecture
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.data.samples import read_samples
from keras_unet.runs import ModelInfo
from keras_unet.training.dataset import TrainingData, tile_dataset, weight_maps
from keras_unet.training.options import ResolvedOptions

OPTIONS = ResolvedOptions(steps=2, depth=1, tile=60, validation=("c1",), precision="float32")


@pytest.fixture
def data(cells):
    return TrainingData.of(cells, None, OPTIONS)


def test_the_split_is_that_which_the_options_say(data):
    parts = data.split(OPTIONS)
    assert parts.names == {"training": ["c0", "c2", "c3"], "validation": ["c1"]}
    assert parts.pixels == 3 * 96**2


def test_a_recorded_split_is_kept_whatever_is_drawn_now(data):
    trained = new_run(data, validation=["c0", "c2"])
    assert data.split_of(trained).names == {
        "training": ["c1", "c3"],
        "validation": ["c0", "c2"],
    }
    assert not data.split_of(new_run(data, validation=[])).validation


def new_run(data, validation):
    return ModelInfo(
        architecture=Architecture(depth=1),
        encoding=data.samples.encoding,
        normalization=Normalization("image"),
        record={"data": {"validation": validation}},
    )


@pytest.mark.parametrize(
    ("groups", "kind", "names"),
    [
        ("none", "images", ()),
        ("(c)", "part of a group", ("c",)),
        ("c0|c[1-3]", "groups", ("c2",)),
        (["x", "y", "y", "y"], "groups", ("x",)),
    ],
)
def test_the_split_is_named_by_its_groups(cells, groups, kind, names):
    samples = read_samples(cells).samples
    arrays = [sample.image for sample in samples], [sample.instances for sample in samples]
    options = replace(OPTIONS, groups=groups, validation=0.25)
    given = (cells, None) if isinstance(groups, str) else arrays
    held_out = TrainingData.of(*given, options).split(options).held_out
    assert (held_out.kind, held_out.groups) == (kind, names)


def test_names_of_groups_do_not_suit_a_folder(cells):
    with pytest.raises(ValueError, match=r"groups must be \"auto\".*folder. Received: \['x'\]"):
        TrainingData.of(cells, None, replace(OPTIONS, groups=["x"]))


def test_patience_needs_images_held_out(data):
    alone = replace(data, samples=replace(data.samples, samples=data.samples.samples[:1]))
    with pytest.raises(ValueError, match=r"Received: 1 image in all, none of them held out"):
        alone.split(replace(OPTIONS, validation=0.2, patience=3))


def test_arrays_are_the_same_samples_as_their_files(data, cells):
    samples = read_samples(cells).samples
    arrays = TrainingData.of(
        [sample.image for sample in samples], [sample.instances for sample in samples], OPTIONS
    )
    assert list(arrays.digests) == ["0", "1", "2", "3"]
    for ours, theirs in zip(arrays.samples.samples, data.samples.samples, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.instances, theirs.instances)


def test_touching_cells_are_separated_once(data, monkeypatch):
    first = data.targets(data.samples.samples[:2])
    monkeypatch.setattr("keras_unet.training.targets.separate_touching", None)
    again = data.targets(data.samples.samples[:2])
    assert [ours is theirs for ours, theirs in zip(again, first, strict=True)] == [True, True]


@pytest.mark.parametrize("balance", [True, False])
def test_weights_follow_the_options(data, tmp_path, balance):
    targets = data.targets(data.samples.samples)
    options = replace(OPTIONS, class_balance=balance, border_weight=0.0)
    weights = weight_maps(tmp_path, targets, 2, options).of(targets[0])
    assert (len(np.unique(weights)) == 2) == balance


def batches(data, folder, training=OPTIONS, **options):
    targets = data.targets(data.samples.samples)
    weights = weight_maps(folder, targets, 2, OPTIONS)
    info = ModelInfo(
        architecture=Architecture(depth=1, base_filters=2, affinities=training.affinities),
        encoding=LabelEncoding("instances", (0, 1)),
        normalization=Normalization("image"),
    )
    return data.batches(info, targets, weights, training, **options)


def test_batches_go_on_where_they_are_asked_to(data, tmp_path):
    tiles = batches(data, tmp_path)
    third = list(tiles(0).take(3))[2]
    (later,) = tiles(2).take(1)
    np.testing.assert_array_equal(third[0], later[0])
    assert third[1].shape == (1, 44, 44, 2)


def test_tiles_are_centered_at_cells_and_close_borders_where_the_options_say_so(data, tmp_path):
    cells, borders = [], []
    for sampling in ("uniform", "classes"):
        training = replace(OPTIONS, batch_size=200, sampling=sampling)
        ((_, y_true),) = batches(data, tmp_path, training, augmentation=None)(0).take(1)
        classes, weights = y_true[:, 22, 22, 0], y_true[:, 22, 22, 1]
        background = np.min(y_true[..., 1][y_true[..., 0] == 0])
        cells.append(np.mean(classes))
        borders.append(np.mean((classes == 0) & (weights > background + OPTIONS.border_weight / 4)))
    assert cells[1] == pytest.approx(0.25 + 0.5 * cells[0], abs=0.1)
    assert borders[1] == pytest.approx(0.25 + 0.5 * borders[0], abs=0.1)
    assert borders[1] > borders[0] + 0.15


@pytest.mark.parametrize("augmentation", [None, lambda *pair: pair])
def test_objects_are_targets_of_affinities(data, tmp_path, augmentation):
    training = replace(OPTIONS, affinities=True)
    ((_, y_true),) = batches(data, tmp_path, training, augmentation=augmentation)(0).take(1)
    assert y_true.shape == (1, 44, 44, 3)
    classes, objects = y_true[..., 0].numpy(), y_true[..., 2].numpy()
    assert (objects[classes > 0] > 0).all()
    assert len(np.unique(objects)) > 3


def test_affinities_need_the_weights_as_a_channel(data):
    images, labels = zip(*((one.image, one.instances) for one in data.samples.samples), strict=True)
    network = Architecture(depth=1, base_filters=2, affinities=True)
    options = {"tile_size": 60, "architecture": network, "kind": "instances"}
    with pytest.raises(
        ValueError, match=r'weights must be "channel" for a network with affinities'
    ):
        tile_dataset(images, labels, weights="sample_weight", **options)
    for augmentation in (None, lambda *pair: pair):
        tiles = tile_dataset(images, labels, augmentation=augmentation, **options).take(1)
        assert tiles.element_spec[1].shape[1:] == (44, 44, 3)


def test_a_function_that_changes_nothing_gives_plain_tiles(data, tmp_path):
    plain = batches(data, tmp_path, augmentation=None)(0).take(3)
    same = batches(data, tmp_path, augmentation=lambda *pair: pair)(0).take(3)
    for (image, y_true), (other, y_other) in zip(plain, same, strict=True):
        np.testing.assert_allclose(image, other, atol=1e-5)
        np.testing.assert_array_equal(y_true[..., 0], y_other[..., 0])
        np.testing.assert_allclose(y_true[..., 1], y_other[..., 1], atol=0.2)


@pytest.mark.parametrize("augmentation", [None, lambda *pair: pair])
def test_instances_with_classes_make_tiles_of_their_classes(augmentation):
    drawn = [draw_kinds(seed) for seed in range(2)]
    images, labels = zip(*((image, with_values(*pair)) for image, *pair in drawn), strict=True)
    options = {"tile_size": 60, "architecture": Architecture(classes=3, depth=1), "batch_size": 40}
    tiles = tile_dataset(images, labels, augmentation=augmentation, **options)
    ((tile, y_true),) = tiles.take(1)
    classes, weights = np.moveaxis(y_true.numpy(), -1, 0)
    assert np.unique(classes).tolist() == [0, 1, 2]
    grey = tile.numpy()[:, 8:-8, 8:-8, 0]
    assert grey[classes == 1].min() > grey[classes == 2].max()  # bright and dark
    for number in (1, 2):
        assert np.unique(weights[classes == number]).size == 1
    plain = tile_dataset(
        images,
        [pair[..., 0] for pair in labels],
        **options | {"augmentation": augmentation, "architecture": Architecture(depth=1)},
    )
    ((_, expected),) = plain.take(1)
    np.testing.assert_array_equal(classes > 0, expected[..., 0] > 0)


def test_tiles_are_centered_at_each_class_and_close_borders():
    image, *pair = draw_kinds(1)
    options = {
        "tile_size": 60,
        "architecture": Architecture(classes=3, depth=1),
        "sampling": "classes",
    }
    tiles = tile_dataset(
        [image], [with_values(*pair)], augmentation=None, batch_size=400, **options
    )
    ((_, y_true),) = tiles.take(1)
    classes = y_true[:, 22, 22, 0].numpy().astype(int)
    counts = np.bincount(np.ravel(y_true[..., 0]).astype(int)) / y_true[..., 0].numpy().size
    for number in (1, 2):  # half of the tiles, in equal parts: bright, dark, close borders
        assert np.mean(classes == number) == pytest.approx(0.5 / 3 + 0.5 * counts[number], abs=0.1)
