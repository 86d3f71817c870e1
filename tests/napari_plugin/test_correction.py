"""The correction loop of the plugin: proposals, corrections, further training."""

import numpy as np
import pytest

from keras_unet.napari_plugin import tasks
from keras_unet.prediction.load import load
from keras_unet.runs import Run

pytestmark = [
    pytest.mark.usefixtures("qt"),
    pytest.mark.filterwarnings("ignore"),  # of what napari is made of
]


@pytest.fixture
def widget(viewer, trained, tmp_path):
    """The widget with a model, and a layer of three planes without labels."""
    from keras_unet.napari_plugin.correction import CorrectionWidget

    viewer.layers.remove("truth")
    made = CorrectionWidget(viewer)
    made.reset_choices()
    made.model.line.value = str(trained)
    made.rounds.line.value = str(tmp_path / "rounds")
    return made


def press(widget, title):
    widget.panel.starts[title].native.click()


def proposed(plane):
    """A job that proposes a plane, of one object."""

    def propose(job, image, model, corrected):  # noqa: ARG001
        yield {"text": "at work"}
        labels = np.zeros(image.shape[-2:], np.int32)
        labels[4:9, 4:9] = plane + 1
        return plane, labels

    return propose


def test_from_a_proposal_to_the_model_of_the_next_round(viewer, widget, until, trained, tmp_path):
    press(widget, "Propose an image")
    held_up = until(lambda: widget.panel.job is None)
    image, labels = viewer.layers["cells"], viewer.layers["cells labels"]
    segmenter = load(trained)
    disagreements = [segmenter.disagreement(plane) for plane in image.data]
    first = int(np.argmax(disagreements))
    np.testing.assert_array_equal(labels.data[first], segmenter.segment(image.data[first]))
    assert [bool(plane.any()) for plane in labels.data] == [n == first for n in range(3)]
    assert viewer.dims.current_step[0] == first
    assert labels.scale.tolist() == image.scale.tolist()
    assert f"plane {first}: disagreement {disagreements[first]:.4f}" in widget.panel.lines.value

    labels.data[first][:] = 0
    labels.data[first][10:30, 10:30] = 1
    labels.data[first][30:50, 10:30] = 2
    widget.mark.native.click()
    assert widget.state.value == f"corrected planes: {first}"
    press(widget, "Propose an image")
    until(lambda: widget.panel.job is None)
    second = viewer.dims.current_step[0]
    others = {n: value for n, value in enumerate(disagreements) if n != first}
    assert second == max(others, key=others.get)
    assert labels.data[first].max() == 2  # not predicted again
    widget.mark.native.click()

    widget.minutes.value = 0.1
    press(widget, "Train further")
    held_up = max(held_up, until(lambda: widget.panel.job is None))
    assert held_up < 5
    run = Run.load(tmp_path / "rounds" / "round-1")
    assert widget.model.value == run.folder
    assert run.record["initial"]["path"] == str(trained)
    data = run.record["data"]
    names = sorted([*data["training"], *data["validation"]])
    assert names == sorted(f"cells_{n:03}" for n in (first, second))
    assert widget.panel.text.value.startswith("round-1: ")

    press(widget, "Train further")
    until(lambda: widget.panel.job is None)
    second_run = Run.load(tmp_path / "rounds" / "round-2")
    assert second_run.record["initial"]["path"] == str(run.folder)


def test_labels_that_no_model_has_proposed_are_kept(viewer, widget, until, monkeypatch):
    labels = viewer.add_labels(np.zeros((3, 96, 96), np.uint8), name="drawn")
    labels.data[2, :5, :5] = 7
    widget.reset_choices()
    widget.labels_layer.value = labels
    for plane in (2, 1):
        monkeypatch.setattr(tasks, "propose", proposed(plane))
        press(widget, "Propose an image")
        until(lambda: widget.panel.job is None)
    assert labels.data[2].max() == 7
    assert labels.data[1].max() == 2
    assert "drawn" not in widget.panel.lines.value
    labels.data[1][:] = labels.data[1][::-1]  # corrected, but not marked
    before = labels.data[1].copy()
    press(widget, "Propose an image")
    until(lambda: widget.panel.job is None)
    np.testing.assert_array_equal(labels.data[1], before)
    assert "plane 1 keeps its labels, which no model has proposed" in widget.panel.lines.value


def test_proposals_of_more_objects_than_the_type_holds(viewer, widget, until, monkeypatch):
    labels = viewer.add_labels(np.zeros((3, 96, 96), np.uint8), name="drawn")
    widget.reset_choices()
    widget.labels_layer.value = labels

    def many(job, image, model, corrected):  # noqa: ARG001
        yield {"text": "at work"}
        return 0, np.arange(96 * 96, dtype=np.int32).reshape(96, 96)

    monkeypatch.setattr(tasks, "propose", many)
    press(widget, "Propose an image")
    until(lambda: widget.panel.job is None)
    assert labels.data[0].max() == 96 * 96 - 1


def test_a_mark_is_taken_back_and_belongs_to_the_plane_shown(viewer, widget, until, monkeypatch):
    monkeypatch.setattr(tasks, "propose", proposed(2))
    press(widget, "Propose an image")
    until(lambda: widget.panel.job is None)
    widget.mark.native.click()
    viewer.dims.set_current_step(0, 0)
    widget.mark.native.click()
    assert widget.state.value == "corrected planes: 0, 2"
    widget.mark.native.click()
    assert widget.state.value == "corrected planes: 2"


def test_a_single_image_and_a_stack_of_stacks(viewer, until, widget, monkeypatch):
    for shape, plane, index in (((96, 96), 0, ()), ((2, 3, 96, 96), 4, (1, 1))):
        viewer.layers.clear()
        image = viewer.add_image(np.zeros(shape), name="others")
        widget.reset_choices()
        widget.image.value = image
        monkeypatch.setattr(tasks, "propose", proposed(plane))
        press(widget, "Propose an image")
        until(lambda: widget.panel.job is None)
        labels = viewer.layers["others labels"]
        assert labels.data[index].max() == plane + 1
        assert viewer.dims.current_step[: len(index)] == index
        widget.mark.native.click()
        assert widget.state.value == f"corrected planes: {plane}"


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda _: None, "corrected planes must be marked"),
        (lambda widget: widget.mark.native.click(), "rounds must be a folder"),
    ],
)
def test_what_is_missing_is_said_before_a_training(
    widget, until, notified, monkeypatch, prepare, expected
):
    monkeypatch.setattr(tasks, "propose", proposed(1))
    press(widget, "Propose an image")
    until(lambda: widget.panel.job is None)
    prepare(widget)
    widget.rounds.line.value = ""
    press(widget, "Train further")
    assert notified[-1].message.startswith(expected)


def test_labels_of_another_shape_are_refused(viewer, widget, notified):
    other = viewer.add_labels(np.zeros((5, 5), int), name="other")
    widget.reset_choices()
    widget.labels_layer.value = other
    press(widget, "Propose an image")
    assert notified[-1].message.startswith("labels must be of shape (3, 96, 96), like cells.")


def test_labels_of_another_image_are_refused(viewer, widget, until, notified, monkeypatch):
    monkeypatch.setattr(tasks, "propose", proposed(1))
    press(widget, "Propose an image")
    until(lambda: widget.panel.job is None)
    other = viewer.add_image(np.zeros((3, 96, 96)), name="other")
    widget.image.reset_choices()
    widget.image.value = other
    press(widget, "Propose an image")
    assert notified[-1].message.startswith("labels must be those of other. Received: cells labels")
