"""The widgets of the plugin, pressed and filled in, with the work that they start."""

import importlib
import json
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_unet.napari_plugin import job as job_module
from keras_unet.napari_plugin.layers import Snapshot
from keras_unet.napari_plugin.tasks import compute_weight_map

pytestmark = [
    pytest.mark.usefixtures("qt"),
    pytest.mark.filterwarnings("ignore"),  # of what napari is made of
]
ROOT = Path(__file__).parents[2]
PLUGIN = "keras-unet-biomedical"
WIDGETS = "U-Net: train", "U-Net: predict", "U-Net: correct", "U-Net: weight map"
RECORD = "import json, sys\nopen('asked.json', 'w').write(sys.stdin.readline())\n"


def manifest():
    from npe2 import PluginManifest

    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    ((name, place),) = group["napari.manifest"].items()
    module, file = place.split(":")
    found = PluginManifest.from_file(ROOT / module.replace(".", "/") / file)
    assert found.name == name == PLUGIN
    return found


def opened(viewer, title):
    """Opens a widget by what the manifest says of it."""
    found = manifest().contributions
    (command,) = (one.command for one in found.widgets if one.display_name == title)
    (name,) = (one.python_name for one in found.commands if one.id == command)
    module, attribute = name.split(":")
    widget = getattr(importlib.import_module(module), attribute)(viewer)
    widget.reset_choices()
    return widget


def start_of(widget):
    """The button that starts the first job."""
    return next(iter(widget.panel.starts.values()))


@pytest.fixture
def child(monkeypatch):
    """Puts a program in the place of the process that does the work."""

    def replace(program):
        monkeypatch.setattr(job_module, "_COMMAND", [sys.executable, "-c", RECORD + program])

    return replace


def messages(notified):
    return [(str(one.severity), one.message) for one in notified]


def test_the_manifest_is_valid_and_names_what_exists(viewer):
    found = manifest()
    found.validate_imports()
    assert [one.display_name for one in found.contributions.widgets] == list(WIDGETS)
    assert [one.key for one in found.contributions.sample_data] == ["drawn-cells"]
    for title in WIDGETS:
        assert start_of(opened(viewer, title)).enabled


def test_from_training_to_labels(viewer, until, notified, tmp_path):
    train = opened(viewer, WIDGETS[0])
    ticks = []
    timer = ticking(ticks)
    train.run.line.value = str(tmp_path / "run")
    train.minutes.value, train.steps.value = 0, 100_000
    for name, text in {"depth": "1", "base_filters": "2", "tile": "60", "seed": "3"}.items():
        train.numbers.lines[name].value = text
    start_of(train).native.click()
    assert not start_of(train).enabled
    held_up = until(lambda: train.panel.text.value.startswith("training: step "))
    assert train.panel.bar.max > 0
    train.panel.stop.native.click()
    held_up = max(held_up, until(lambda: train.panel.job is None))
    timer.stop()
    assert len(ticks) > 20
    assert held_up < 5  # a training takes many times as long
    assert messages(notified)[-1][1].startswith("Stopped; the best model is kept: ")
    assert (tmp_path / "run" / "best.keras").is_file()
    assert "3 images of 96 x 96 pixels" in train.panel.lines.value

    predict = opened(viewer, WIDGETS[1])
    viewer.__dict__["window"] = SimpleNamespace(
        add_plugin_dock_widget=lambda *_, **__: (None, predict)
    )
    train.offer.native.click()
    assert predict.model.line.value == str(tmp_path / "run")
    predict.probabilities.value = True
    predict.instances.lines["threshold"].value = "0.25"
    start_of(predict).native.click()
    until(lambda: predict.panel.job is None)
    assert "cells: probability above 0.25" in predict.panel.lines.value
    labels, probability = viewer.layers["cells labels"], viewer.layers["cells probability of cells"]
    assert labels.data.shape == probability.data.shape == (3, 96, 96)
    assert 0 <= probability.data.min() < probability.data.max() <= 1
    assert labels.scale.tolist() == [1, 0.5, 0.5]
    assert probability.translate.tolist() == [0, 7, 9]

    predict.link.value = "t"
    start_of(predict).native.click()
    until(lambda: predict.panel.job is None)
    tracks = viewer.layers["cells tracks"]
    linked = viewer.layers["cells labels [1]"].data
    numbers, frames = tracks.data[:, 0].astype(int), tracks.data[:, 1].astype(int)
    assert set(zip(frames, numbers, strict=True)) == {
        (frame, number)
        for frame, plane in enumerate(linked)
        for number in set(np.unique(plane)) - {0}
    }
    assert tracks.scale.tolist() == [1, 0.5, 0.5]


def ticking(ticks):
    """Starts a timer of the window that ticks every 20 ms."""
    from qtpy.QtCore import QTimer

    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(20)
    return timer


def test_the_weight_map_of_a_layer(viewer, until):
    widget = opened(viewer, WIDGETS[3])
    widget.w0.value, widget.sigma.value, widget.balanced.value = 7, 3, False
    start_of(widget).native.click()
    until(lambda: widget.panel.job is None)
    *_, expected = list_of(compute_weight_map, Snapshot.of(viewer.layers["truth"]), w0=7, sigma=3)
    np.testing.assert_array_equal(viewer.layers["truth weight map"].data, expected)


def list_of(work, labels, **numbers):
    made = work(job_module.Job(), labels, balanced=False, **numbers)
    while True:
        try:
            next(made)
        except StopIteration as end:
            return [end.value[0][0]]


def test_what_is_typed_is_what_is_asked_for(viewer, until, child, tmp_path):
    child("print(json.dumps({'error': 'enough'}))")
    train = opened(viewer, WIDGETS[0])
    train.run.line.value = str(tmp_path / "run")
    train.initial.line.value = str(tmp_path)
    train.kind.value = "instances"
    train.numbers.lines["validation"].value = "a, b"
    train.numbers.lines["memory_limit"].value = "8GB"
    train.numbers.lines["sigma"].value = "2.5"
    start_of(train).native.click()
    until(lambda: train.panel.job is None)
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert asked["initial"] == str(tmp_path)
    assert asked["options"] == {
        "kind": "instances",
        "max_minutes": 15,
        "steps": None,
        "validation": ["a", "b"],
        "memory_limit": 8_000_000_000,
        "sigma": 2.5,
    }


def test_an_error_of_the_work_is_one_line(viewer, until, child, notified, tmp_path):
    child("print(json.dumps({'error': 'tile too large; give --tile 60--70'}))")
    predict = opened(viewer, WIDGETS[1])
    predict.model.line.value = str(tmp_path)
    start_of(predict).native.click()
    until(lambda: predict.panel.job is None)
    assert messages(notified) == [("error", "tile too large; give tile 60--70")]
    assert start_of(predict).enabled
    assert not predict.panel.stop.enabled


def test_a_mistake_of_ours_is_one_line_too(viewer, until, monkeypatch, notified, caplog):
    def broken(*_, **__):
        yield {"text": "at work"}
        raise TypeError("no\nsuch thing")

    monkeypatch.setattr("keras_unet.napari_plugin.tasks.predict", broken)
    predict = opened(viewer, WIDGETS[1])
    start_of(predict).native.click()
    until(lambda: predict.panel.job is None)
    assert messages(notified) == [("error", "TypeError: no such thing")]
    assert caplog.records[-1].exc_info[0] is TypeError


def test_a_warning_is_shown(viewer, until, child, notified, tmp_path):
    child("print(json.dumps({'line': 'Warning: odd'}))\nprint(json.dumps({'error': 'end'}))")
    predict = opened(viewer, WIDGETS[1])
    predict.model.line.value = str(tmp_path)
    start_of(predict).native.click()
    until(lambda: predict.panel.job is None)
    assert messages(notified) == [("warning", "odd"), ("error", "end")]


def test_what_is_missing_is_said_before_any_work(viewer, notified):
    viewer.layers.clear()
    for title, missing in zip(WIDGETS, ("image", "image", "image", "labels"), strict=True):
        widget = opened(viewer, title)
        start_of(widget).native.click()
        assert widget.panel.job is None
        severity, message = messages(notified)[-1]
        assert severity == "error"
        assert message.startswith(f"{missing} must be chosen. Received: none")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("tile", "many", "tile must be a whole number. Received: 'many'"),
        ("sigma", "1,5", "sigma must be a number. Received: '1,5'"),
        ("memory_limit", "8", "memory-limit must be a number with its unit"),
    ],
)
def test_a_number_that_is_none_is_said_before_any_work(viewer, notified, name, text, expected):
    train = opened(viewer, WIDGETS[0])
    train.numbers.lines[name].value = text
    start_of(train).native.click()
    assert messages(notified)[-1][1].startswith(expected)


def test_pairs_are_added_with_the_next_layers_and_removed(viewer):
    viewer.add_image(np.zeros((8, 8)), name="second")
    viewer.add_labels(np.ones((8, 8), int), name="second truth")
    pairs = opened(viewer, WIDGETS[0]).pairs
    pairs.add()
    names = [(image.name, labels.name) for image, labels in pairs.snapshots()]
    assert names == [("cells", "truth"), ("second", "second truth")]
    pairs.remove()
    pairs.remove()
    assert len(pairs.snapshots()) == 1


def test_a_widget_that_is_closed_stops_its_work(viewer, until, child, tmp_path):
    from qtpy.QtWidgets import QDockWidget
    from superqt.utils import WorkerBase

    child("print(json.dumps({'text': 'at work'}), flush=True)\nsys.stdin.read()")
    predict = opened(viewer, WIDGETS[1])
    dock = QDockWidget()
    dock.setWidget(predict.native)
    predict.model.line.value = str(tmp_path)
    start_of(predict).native.click()
    until(lambda: predict.panel.text.value == "at work")
    job = predict.panel.job
    predict.native.setParent(None)  # as napari does when a person closes it
    assert job.stopped
    until(lambda: not WorkerBase._worker_set)
