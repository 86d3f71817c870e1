from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_unet.data.distances import separate_touching
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.data.pairs import find_pairs
from keras_unet.data.synthetic import draw_cells
from keras_unet.data.weight_maps import border_weight_map, class_balance, weight_map
from keras_unet.napari_plugin.job import Job, JobStopped
from keras_unet.napari_plugin.layers import Snapshot
from keras_unet.napari_plugin.tasks import (
    MOST_COMPARED,
    compute_weight_map,
    predict,
    propose,
    train,
)


def finish(work):
    """Returns what has come of work."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.fixture
def pair():
    image, instances = draw_cells(0, size=(64, 64), cells=4)
    return Snapshot("cells", image), Snapshot("truth", instances)


def fake_job(monkeypatch, answer):
    """A job whose child is asked nothing; `answer(request)` is what comes of it."""
    job = Job()

    def run_in_child(request, folder):
        yield {"text": "at work"}
        return answer(request, folder)

    monkeypatch.setattr(job, "run_in_child", run_in_child)
    return job


def fail(*_):
    raise ValueError("tile must be smaller")


def test_a_training_is_asked_for_as_the_command_line_does(monkeypatch, tmp_path, pair):
    job = fake_job(monkeypatch, lambda request, _: request)
    request = finish(train(job, [pair], tmp_path / "run", {"steps": 3}))
    assert request == {
        "job": "train",
        "resume": False,
        "data": str(tmp_path / "run-data"),
        "run": str(tmp_path / "run"),
        "options": {"steps": 3},
        "initial": None,
    }
    assert [one.name for one in find_pairs(tmp_path / "run-data").pairs] == ["cells"]


def test_a_training_starts_from_a_model_and_takes_the_planes_that_are_named(monkeypatch, tmp_path):
    image, truth = (np.stack([array] * 3) for array in draw_cells(0, size=(64, 64), cells=4))
    truth[2] = 0
    pair = Snapshot("cells", image), Snapshot("truth", truth)
    job = fake_job(monkeypatch, lambda request, _: request)
    (tmp_path / "model").mkdir()
    options = {"planes": [{0, 2}], "initial": tmp_path / "model"}
    request = finish(train(job, [pair], tmp_path / "run", {}, **options))
    assert request["initial"] == str(tmp_path / "model")
    assert [one.name for one in find_pairs(tmp_path / "run-data").pairs] == [
        "cells_000",
        "cells_002",
    ]


def test_a_model_that_is_missing_leaves_no_layers(tmp_path, pair):
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a run"):
        finish(train(Job(), [pair], tmp_path / "run", {}, initial=tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def test_planes_that_are_corrected_are_not_proposed(monkeypatch, tmp_path):
    image = Snapshot("cells", np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8))

    def answer(request, folder):
        planes = read_planes(folder / request["image"])[..., 0]
        np.testing.assert_array_equal(planes, image.data[[1, 3]])
        write_tiff(folder / request["out"], np.full((8, 8), 5, np.int32), axes="YX")
        return {"plane": 1, "disagreements": [0.1, 0.2]}

    job = fake_job(monkeypatch, answer)
    plane, labels = finish(propose(job, image, tmp_path, corrected={0, 2}))
    assert plane == 3
    assert (labels == 5).all()
    many = Snapshot("film", np.zeros((100, 4, 4), np.uint8))
    seen = []

    def count(request, folder):
        seen.extend(read_planes(folder / request["image"]))
        write_tiff(folder / request["out"], np.zeros((4, 4), np.int32), axes="YX")
        return {"plane": len(seen) - 1, "disagreements": []}

    assert finish(propose(fake_job(monkeypatch, count), many, tmp_path))[0] == 99
    assert len(seen) == MOST_COMPARED
    with pytest.raises(ValueError, match="cells: expected a plane that has not been corrected"):
        finish(propose(job, image, tmp_path, corrected=range(4)))
    with pytest.raises(ValueError, match=r"model must be a run, .* or a model of the package"):
        finish(propose(job, image, Path()))


def test_to_go_on_needs_no_layers(monkeypatch, tmp_path):
    job = fake_job(monkeypatch, lambda request, _: request)
    assert finish(train(job, [], tmp_path / "run", {}, resume=True))["resume"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [fail, lambda *_: (_ for _ in ()).throw(JobStopped)])
def test_a_training_of_which_nothing_comes_leaves_no_layers(monkeypatch, tmp_path, pair, error):
    with pytest.raises((ValueError, JobStopped)):
        finish(train(fake_job(monkeypatch, error), [pair], tmp_path / "run", {}))
    assert not list(tmp_path.iterdir())


def test_layers_stay_where_a_model_has_come_of_them(monkeypatch, tmp_path, pair):
    def die(*_):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "best.keras").touch()
        raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        finish(train(fake_job(monkeypatch, die), [pair], tmp_path / "run", {}))
    assert len(find_pairs(tmp_path / "run-data").pairs) == 1


def test_layers_of_another_run_are_not_replaced(tmp_path, pair):
    (tmp_path / "run-data").mkdir()
    (tmp_path / "run-data" / "images").touch()
    with pytest.raises(FileExistsError, match=r"run-data: expected a new or empty folder for the"):
        finish(train(Job(), [pair], tmp_path / "run", {}))
    assert (tmp_path / "run-data" / "images").is_file()


def test_a_folder_has_to_be_chosen(pair):
    with pytest.raises(ValueError, match=r"run must be a new folder for the run"):
        finish(train(Job(), [pair], Path(), {}))
    with pytest.raises(ValueError, match=r"run must be a run, .* or a model of the package. Rec"):
        finish(predict(Job(), pair[0], Path()))


def test_cells_are_linked_in_a_stack_along_one_axis(monkeypatch, tmp_path):
    for shape in ((40, 50), (1, 40, 50), (2, 3, 40, 50)):
        image = Snapshot("a", np.zeros(shape, np.uint8))
        with pytest.raises(ValueError, match="expected a stack of planes along one axis"):
            finish(predict(fake_job(monkeypatch, lambda *_: fail()), image, tmp_path, link="t"))


def test_nothing_stays_of_a_prediction_that_fails(monkeypatch, tmp_path, pair):
    seen = []

    def look(request, folder):
        seen.append(folder)
        assert (folder / request["image"]).is_file()
        fail()

    with pytest.raises(ValueError, match="tile must be smaller"):
        finish(predict(fake_job(monkeypatch, look), pair[0], tmp_path))
    assert not seen[0].exists()


def test_the_weight_map_is_equation_2_balanced_over_the_layer():
    planes = np.stack([draw_cells(seed, size=(64, 64), cells=4)[1] for seed in range(2)])
    labels = Snapshot("truth", planes, transform={"scale": (1, 2, 2)})
    ((found, shown, kind),) = finish(compute_weight_map(Job(), labels, w0=7, sigma=3))
    classes = [(separate_touching(plane) > 0).astype(np.uint8) for plane in planes]
    balance = class_balance(classes, 2)
    for number, plane in enumerate(planes):
        expected = weight_map(classes[number], plane, balance=balance, w0=7, sigma=3)
        np.testing.assert_array_equal(found[number], expected)
    assert (shown["name"], shown["scale"], kind) == ("truth weight map", (1, 2, 2), "image")


def test_without_balance_every_class_weighs_1(pair):
    ((found, _, _),) = finish(compute_weight_map(Job(), pair[1], balanced=False))
    border = border_weight_map(pair[1].data)
    np.testing.assert_allclose(found, 1 + border, rtol=1e-6)
    assert found.shape == (64, 64)


def test_labels_that_are_none_are_refused_by_the_name_of_the_layer():
    with pytest.raises(ValueError, match=r"truth: expected at least two values in the label files"):
        finish(compute_weight_map(Job(), Snapshot("truth", np.zeros((8, 8), np.uint8))))


def test_a_weight_map_is_stopped(pair):
    job = Job()
    job.stop()
    with pytest.raises(JobStopped):
        finish(compute_weight_map(job, pair[1]))


def test_drawn_cells_are_an_image_and_its_labels():
    from keras_unet.napari_plugin.layers import drawn_cells

    (image, _, first), (labels, _, second) = drawn_cells()
    assert (first, second) == ("image", "labels")
    assert image.shape == labels.shape
    made = [SimpleNamespace(name="a", data=one, multiscale=False) for one in (image, labels)]
    assert all(Snapshot.of(one).shape == image.shape for one in made)
