from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes
from keras_unet.data.pairs import find_pairs
from keras_unet.files import is_own
from keras_unet.measurement.table import write_table
from keras_unet.metrics.tracking import Track
from keras_unet.napari_plugin.layers import (
    Snapshot,
    result_layers,
    tracks_layer,
    write_image,
    write_pairs,
)
from keras_unet.prediction.tracks import table_of_tracks

CELLS = LabelEncoding("instances", (0, 1))


def layer(data, **attributes):
    """What a layer of napari shows of itself, an image unless rgb is missing."""
    return SimpleNamespace(**({"name": "a", "data": data, "multiscale": False} | attributes))


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "rgb", "planes"),
    [
        ((4, 5), False, (1, 4, 5, 1)),
        ((2, 4, 5), False, (2, 4, 5, 1)),
        ((3, 2, 4, 5), False, (6, 4, 5, 1)),
        ((4, 5, 3), True, (1, 4, 5, 3)),
        ((2, 4, 5, 4), True, (2, 4, 5, 3)),
    ],
)
def test_planes_of_layers_come_back_from_their_file(tmp_path, shape, rgb, planes):
    image = Snapshot.of(layer(numbers(*shape), rgb=rgb))
    assert image.planes.shape == planes
    np.testing.assert_array_equal(read_planes(write_image(image, tmp_path)), image.planes)


def test_of_several_scales_the_finest_is_taken():
    scales = [numbers(8, 8), numbers(4, 4)]
    assert Snapshot.of(layer(scales, multiscale=True, rgb=False)).shape == (8, 8)


def test_labels_are_copied_and_images_are_not():
    data = numbers(4, 5)
    labels, image = Snapshot.of(layer(data)), Snapshot.of(layer(data, rgb=False))
    data[0, 0] = 99
    assert labels.planes[0, 0, 0, 0] == 0
    assert image.planes[0, 0, 0, 0] == 99


@pytest.mark.parametrize("shape", [(5,), (0, 5)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"a: expected a layer of 2D images.* Received .*\d,"):
        _ = Snapshot("a", np.zeros(shape)).shape


def test_only_planes_with_labels_are_written_under_their_numbers(tmp_path):
    labels = np.zeros((3, 4, 5), np.int64)
    labels[2, 0, 0] = 300
    image = Snapshot("my cells", numbers(3, 4, 5))
    assert write_pairs([(image, Snapshot("b", labels))], tmp_path) == 1
    (pair,) = find_pairs(tmp_path).pairs
    assert pair.name == "my_cells_002"
    np.testing.assert_array_equal(tifffile.imread(pair.image), image.data[2])
    np.testing.assert_array_equal(tifffile.imread(pair.labels), labels[2])


def test_what_a_person_has_painted_is_not_for_this_program_to_replace(tmp_path):
    image = Snapshot("a", np.zeros((3, 4), np.uint8))
    write_pairs([(image, Snapshot("b", np.ones((3, 4), int)))], tmp_path)
    assert [is_own(path) for path in tmp_path.rglob("*.tif")] == [False, False]


def test_planes_without_labels_are_written_if_they_are_background(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1] = 1
    pair = Snapshot("a", numbers(3, 4, 5)), Snapshot("b", labels)
    assert write_pairs([pair], tmp_path, empty=True) == 3


def test_pairs_of_one_name_do_not_meet(tmp_path):
    pair = Snapshot("a", numbers(4, 5, 3), rgb=True), Snapshot("b", np.ones((4, 5), np.uint8))
    assert write_pairs([pair, pair], tmp_path) == 2
    assert [one.name for one in find_pairs(tmp_path).pairs] == ["1_a", "2_a"]


def test_pairs_that_cannot_be_learned_from_are_refused(tmp_path):
    image = Snapshot("a", numbers(4, 5))
    with pytest.raises(ValueError, match=r"image and labels must be chosen.* Received none"):
        write_pairs([], tmp_path)
    with pytest.raises(ValueError, match=r"b: expected labels of shape \(4, 5\), like a\. Rec"):
        write_pairs([(image, Snapshot("b", np.ones((5, 4), np.uint8)))], tmp_path)
    with pytest.raises(ValueError, match=r"b: expected labels of at least one cell. Received back"):
        write_pairs([(image, Snapshot("b", np.zeros((4, 5), np.uint8)))], tmp_path)
    assert not list(tmp_path.iterdir())


def test_results_lie_where_the_image_does(tmp_path):
    image = Snapshot("a", numbers(2, 3, 4, 5), transform={"scale": (1, 1, 2, 2)})
    classes = LabelEncoding("classes", (0, 7, 9))
    tifffile.imwrite(tmp_path / "a.tif", numbers(6, 4, 5), metadata={"axes": "ZYX"})
    scores = numbers(6, 3, 4, 5).astype(np.float32)
    tifffile.imwrite(
        tmp_path / "p.tif", scores, photometric="minisblack", metadata={"axes": "ZCYX"}
    )
    made = result_layers(image, classes, [tmp_path / "a.tif", tmp_path / "p.tif"])
    assert [kind for _, _, kind in made] == ["labels", "image", "image"]
    names = ["a labels", "a probability of 7", "a probability of 9"]
    assert [shown["name"] for _, shown, _ in made] == names
    assert all(shown["scale"] == (1, 1, 2, 2) for _, shown, _ in made)
    assert all(data.shape == image.shape for data, _, _ in made)
    np.testing.assert_array_equal(made[2][0].reshape(6, 4, 5), scores[:, 2])


def test_tracks_are_points_with_divisions(tmp_path):
    labels = np.zeros((2, 4, 9), np.int32)
    labels[0, 1:3, 3:6] = 1
    labels[1, 1:3, 1:3] = 2
    labels[1, 1:3, 6:8] = 3
    tracks = [Track(1, 0, 0), Track(2, 1, 1, 1), Track(3, 1, 1, 1)]
    write_table(tmp_path / "tracks.csv", [table_of_tracks("a.tif", tracks)])
    image = Snapshot("a", labels, transform={"scale": (1, 2, 2)})
    data, shown, kind = tracks_layer(image, labels, tmp_path / "tracks.csv")
    assert kind == "tracks"
    assert data.tolist() == [[1, 0, 1.5, 4], [2, 1, 1.5, 1.5], [3, 1, 1.5, 6.5]]
    assert shown == {"name": "a tracks", "graph": {2: [1], 3: [1]}, "scale": (1, 2, 2)}


def test_instances_have_the_probability_of_cells(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers(4, 5))
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((2, 4, 5)), metadata={"axes": "CYX"})
    files = [tmp_path / "a.tif", tmp_path / "p.tif"]
    _, (_, shown, _) = result_layers(Snapshot("a", numbers(4, 5)), CELLS, files)
    assert shown["name"] == "a probability of cells"
