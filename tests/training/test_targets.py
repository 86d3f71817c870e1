from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.samples import Sample
from keras_unet.data.synthetic import draw_cells
from keras_unet.training import targets
from keras_unet.training.targets import Target, WeightMaps, digest, sample_digest

INSTANCES = LabelEncoding("instances", (0, 1))
CLASSES = LabelEncoding("classes", (0, 255))


def sample(instances, name="a", ignored=None):
    labels = np.array(instances, np.int32)
    return Sample(
        name=name,
        image=np.zeros((*labels.shape, 1), np.float32),
        classes=(labels > 0).astype(np.uint8),
        instances=labels,
        ignored=np.zeros(labels.shape, bool) if ignored is None else np.array(ignored),
    )


def weight_maps(folder, some, **changes):
    return WeightMaps.balanced(folder, some, 2, **{"w0": 10.0, "sigma": 5.0} | changes)


@pytest.fixture
def computed(monkeypatch):
    """Counts the weight maps that are computed."""
    calls = []
    compute = targets.weight_map
    monkeypatch.setattr(targets, "weight_map", lambda *a, **k: calls.append(a) or compute(*a, **k))
    return calls


def test_touching_cells_are_parted_but_classes_are_not():
    touching = sample([[1, 1, 1, 2, 2, 2]])
    assert Target.of(touching, INSTANCES).classes.tolist() == [[1, 1, 0, 0, 1, 1]]
    assert Target.of(touching, CLASSES).classes.tolist() == [[1, 1, 1, 1, 1, 1]]


def test_touching_cells_of_different_classes_are_parted_and_keep_their_classes():
    named = LabelEncoding("instances", (0, 4, 9), class_names=("long", "round"))
    touching = replace(
        sample([[1, 1, 1, 2, 2, 2]]), classes=np.array([[2, 2, 2, 1, 1, 1]], np.uint8)
    )
    target = Target.of(touching, named)
    assert target.classes.tolist() == [[2, 2, 0, 0, 1, 1]]
    maps = WeightMaps.unbalanced(None, 3, w0=10.0, sigma=5.0)
    pairs = np.array([[[1, 9], [1, 9], [1, 9], [2, 4], [2, 4], [2, 4]]])
    classes, weights, instances = maps.of_labels(pairs, named)
    np.testing.assert_array_equal(classes, target.classes)
    np.testing.assert_array_equal(instances, touching.instances)
    np.testing.assert_array_equal(weights, maps.of(target))
    plain = Target.of(sample([[1, 1, 1, 2, 2, 2]]), INSTANCES)
    np.testing.assert_array_equal(weights, maps.of(plain))  # whatever the classes are


def test_ignored_pixels_do_not_count():
    target = Target.of(sample([[1, 0, 2]], ignored=[[False, True, False]]), INSTANCES)
    assert target.counted.tolist() == [[True, False, True]]


def test_a_weight_map_is_computed_once(tmp_path, computed):
    target = Target.of(sample([[1, 0, 2, 0]]), INSTANCES)
    first = weight_maps(tmp_path, [target]).of(target)
    again = weight_maps(tmp_path, [target]).of(target)
    assert len(computed) == 1
    assert again.dtype == first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert first[0, 1] == pytest.approx(1.0 + 10 * np.exp(-4 / 50), rel=1e-5)


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        (sample([[1, 0, 2, 2]]), {}),
        (sample([[1], [0], [2], [0]]), {}),
        (sample([[1, 0, 2, 0]], ignored=[[True, False, False, False]]), {}),
        (sample([[1, 0, 2, 0]]), {"w0": 9.0}),
        (sample([[1, 0, 2, 0]]), {"sigma": 4.0}),
    ],
    ids=["labels", "shape", "ignored", "w0", "sigma"],
)
def test_a_weight_map_of_other_labels_or_numbers_is_another(tmp_path, computed, other, changes):
    target = Target.of(sample([[1, 0, 2, 0]]), INSTANCES)
    weight_maps(tmp_path, [target]).of(target)
    changed = Target.of(other, INSTANCES)
    weights = weight_maps(tmp_path, [target], **changes).of(changed)
    assert len(computed) == 2
    assert weights.shape == changed.classes.shape


def test_without_balance_every_class_weighs_one(tmp_path):
    target = Target.of(sample([[1, 0, 0, 0, 0, 0]], ignored=[[False] * 5 + [True]]), INSTANCES)
    weights = WeightMaps.unbalanced(tmp_path, 2, w0=10.0, sigma=5.0).of(target)
    assert weights.tolist() == [[1, 1, 1, 1, 1, 0]]
    assert weight_maps(tmp_path, [target]).of(target)[0, 0] == 2.5  # 5 pixels, 2 classes, 1 cell


def test_names_of_samples_become_names_of_files(tmp_path):
    one, other = (Target.of(sample([[1, 0]], name), INSTANCES) for name in ("x/y: 1", "z" * 300))
    for target in (one, other):
        weight_maps(tmp_path, [one]).of(target)
    assert sorted(path.name[:6] for path in tmp_path.iterdir()) == ["x_y__1", "zzzzzz"]


def test_digest_tells_shapes_types_and_values_apart():
    arrays = [
        np.array([[1, 2]], np.uint8),
        np.array([[1], [2]], np.uint8),
        np.array([[1, 2]], np.int8),
        np.array([[1, 3]], np.uint8),
    ]
    assert len({digest(array) for array in arrays}) == len(arrays)
    assert digest(arrays[0]) == digest(np.array([[1, 9, 2, 9]], np.uint8)[:, ::2])


def test_a_sample_s_digest_tells_its_content_not_its_name():
    one, same, other = (
        sample([[0, 1]]),
        sample([[0, 1]], name="b"),
        sample([[0, 2]]),
    )
    assert sample_digest(one) == sample_digest(same) != sample_digest(other)
    assert len(sample_digest(one)) == 16


def test_pixels_around_a_cell_in_part_are_background_as_in_complete_labels():
    _, complete = draw_cells(3, size=(80, 90), cells=8)
    chosen = complete * (complete % 2)
    in_part = LabelEncoding("instances", (0, 1), unlabelled=9)
    full = Target.of(sample(complete), INSTANCES)
    part = Target.of(sample(chosen, ignored=chosen == 0), in_part)
    around = ndimage.binary_dilation(chosen > 0, np.ones((3, 3))) & (chosen == 0)
    np.testing.assert_array_equal(part.counted, (chosen > 0) | around)
    assert around.sum() > 100
    assert (part.classes[around] == 0).all()
    np.testing.assert_array_equal(part.classes[around], full.classes[around])
    labels = np.where(chosen > 0, chosen, 9)
    for weights in (weight_maps(None, [part]), weight_maps(None, [part], w0=0.0)):
        classes, map_of_labels, _ = weights.of_labels(labels, in_part)
        np.testing.assert_array_equal(map_of_labels > 0, part.counted)
        np.testing.assert_array_equal(map_of_labels, weights.of(part))
        np.testing.assert_array_equal(classes, part.classes)


def test_ignored_pixels_stay_ignored_beside_cells_in_part():
    cells = sample([[0, 1, 1, 0, 0, 0]], ignored=[[1, 0, 0, 1, 1, 0]])
    encoding = LabelEncoding("instances", (0, 1), 255, unlabelled=9)
    np.testing.assert_array_equal(Target.of(cells, encoding).counted, ~cells.ignored)
