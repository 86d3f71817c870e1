"""Widgets of the manifest: train, predict, weight map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, PushButton, SpinBox
from napari.layers import Layer
from napari.utils.notifications import show_info

from keras_unet.cli_options import fraction_or_names, parse_bytes
from keras_unet.napari_plugin import tasks
from keras_unet.napari_plugin.fields import (
    OptionalValues,
    Pairs,
    PathField,
    image_choice,
    labels_choice,
    model_field,
    snapshot,
)
from keras_unet.napari_plugin.layers import LayerData
from keras_unet.napari_plugin.panel import Panel
from keras_unet.runs import describe_score

PLUGIN, PREDICT = "keras-unet-biomedical", "U-Net: predict"

_LINKS = [("anew in each plane", ""), ("through z", "z"), ("over time, with tracks", "t")]
_Kinds = Mapping[str, tuple[Callable[[str], Any], str]]

_FROM_DATA = "from the data"
_AS_TRAINED = "as chosen in training"
_TRAINING_OPTIONS: _Kinds = {
    "tile": (int, _FROM_DATA),
    "depth": (int, _FROM_DATA),
    "base_filters": (int, "16"),
    "validation": (fraction_or_names, "0.2 of the images"),
    "border_weight": (float, "10"),
    "sigma": (float, _FROM_DATA),
    "learning_rate": (float, "by optimizer"),
    "patience": (int, "no early stopping"),
    "memory_limit": (parse_bytes, "none; such as 8GB"),
    "seed": (int, "0"),
}
_INSTANCE_OPTIONS: _Kinds = {
    "threshold": (float, _AS_TRAINED),
    "minimum_size": (int, _AS_TRAINED),
    "merge_threshold": (float, _AS_TRAINED),
}


class TrainWidget(Container[Any]):
    """Trains on open layers."""

    def __init__(self, napari_viewer: Any) -> None:
        """Builds the widget for a viewer."""
        self.viewer = napari_viewer
        self.pairs = Pairs(napari_viewer)
        self.initial = model_field("start from", "run or .keras file", file="Keras (*.keras)")
        self.run = PathField("run", "A new folder for the run")
        self.minutes = FloatSpinBox(label="minutes", value=15, min=0, max=1e5, step=5)
        self.steps = SpinBox(label="steps", value=0, min=0, max=10**9)
        self.kind = ComboBox(label="labels hold", choices=["auto", "instances", "classes"])
        self.empty = CheckBox(text="Planes without labels are background")
        self.resume = CheckBox(text="Resume a stopped training")
        self.numbers = OptionalValues("More options", _TRAINING_OPTIONS)
        self.panel = Panel({"Train": self._start})
        self.trained = Path()
        self.offer = PushButton(text="Predict with this run", visible=False)
        super().__init__(
            widgets=[
                self.pairs.widget,
                Container(
                    widgets=[
                        *(self.initial.widget, self.run.widget),
                        *(self.minutes, self.steps, self.kind),
                    ]
                ),
                self.empty,
                self.resume,
                self.numbers.widget,
                self.panel.widget,
                self.offer,
            ],
            labels=False,
        )
        self[1].margins = (0, 0, 0, 0)
        self.panel.stop_with(self)
        self.offer.changed.connect(self._open_prediction)
        self._set_tooltips()

    def _set_tooltips(self) -> None:
        self.minutes.native.setSpecialValueText("no limit")
        self.steps.native.setSpecialValueText("from the minutes or the data")
        self.initial.widget.tooltip = "Nothing for random initial weights."
        self.empty.tooltip = "Otherwise they are skipped, as not annotated yet."
        self.resume.tooltip = "It continues with its own layers and options."

    def _start(self) -> None:
        resume = bool(self.resume.value)
        pairs = [] if resume else self.pairs.snapshots()
        options = self.numbers.values() | {"kind": self.kind.value}
        options |= {"max_minutes": self.minutes.value or None, "steps": self.steps.value or None}
        run, initial = self.run.value, self.initial.value
        task = partial(
            tasks.train,
            pairs=pairs,
            run=run,
            options=options,
            empty=bool(self.empty.value),
            initial=initial if initial.name and not resume else None,
            resume=resume,
        )
        self.offer.visible = False
        self.panel.run(task, partial(self._finish, run))

    def _finish(self, run: Path, outcome: dict[str, Any]) -> None:
        score = describe_score(outcome)
        best = "" if score is None else f", {score}"
        ended = "Trained" if outcome["complete"] else "Stopped; the best model is kept"
        self.panel.add_line(f"report: {run / 'report.html'}")
        self.panel.text.value = f"{outcome['steps']} steps{best}"
        self.trained, self.offer.visible = run, True
        show_info(f"{ended}: {outcome['steps']} steps{best}.")

    def _open_prediction(self) -> None:
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, PREDICT, tabify=True)
        widget.model.line.value = str(self.trained)


class PredictWidget(Container[Any]):
    """Predicts the chosen layer."""

    def __init__(self, napari_viewer: Any) -> None:
        """Builds the widget for a viewer."""
        self.viewer = napari_viewer
        self.image = image_choice(napari_viewer)
        self.model = model_field("run", "run, ensemble or .tflite file", file="TFLite (*.tflite)")
        self.probabilities = CheckBox(text="Probabilities as image layers")
        self.tta = CheckBox(text="Test-time augmentation (tta)")
        self.tta.tooltip = (
            "Average over 8 rotations and reflections: a little better, 8 times slower."
        )
        self.link = ComboBox(label="numbers", choices=_LINKS, nullable=False)
        self.link.tooltip = "In a stack, the same number for a cell in all planes, or anew in each."
        self.instances = OptionalValues("Instance options", _INSTANCE_OPTIONS)
        self.panel = Panel({"Predict": self._start})
        super().__init__(
            widgets=[
                Container(widgets=[self.image, self.model.widget, self.link]),
                self.probabilities,
                self.tta,
                self.instances.widget,
                self.panel.widget,
            ],
            labels=False,
        )
        self[0].margins = (0, 0, 0, 0)
        self.panel.stop_with(self)

    def _start(self) -> None:
        task = partial(
            tasks.predict,
            image=snapshot(self.image),
            model=self.model.value,
            probabilities=bool(self.probabilities.value),
            tta=bool(self.tta.value),
            instances=self.instances.values(),
            link=self.link.value or None,
        )
        self.panel.run(task, partial(_add_layers, self.viewer))


class WeightMapWidget(Container[Any]):
    """Computes the weight map of labels."""

    def __init__(self, napari_viewer: Any) -> None:
        """Builds the widget for a viewer."""
        self.viewer = napari_viewer
        self.labels_layer = labels_choice(napari_viewer)
        self.w0 = FloatSpinBox(label="w0", value=10, min=0, max=1e4)
        self.sigma = FloatSpinBox(label="sigma (pixels)", value=5, min=0.5, max=1e3, step=0.5)
        self.balanced = CheckBox(text="Balance the classes", value=True)
        self.panel = Panel({"Compute": self._start})
        super().__init__(
            widgets=[
                Container(widgets=[self.labels_layer, self.w0, self.sigma]),
                self.balanced,
                self.panel.widget,
            ],
            labels=False,
        )
        self[0].margins = (0, 0, 0, 0)
        self.panel.stop_with(self)

    def _start(self) -> None:
        task = partial(
            tasks.compute_weight_map,
            labels=snapshot(self.labels_layer),
            w0=self.w0.value,
            sigma=self.sigma.value,
            balanced=bool(self.balanced.value),
        )
        self.panel.run(task, partial(_add_layers, self.viewer))


def _add_layers(viewer: Any, layers: list[LayerData]) -> None:
    for data, attributes, kind in layers:
        viewer.add_layer(Layer.create(data, attributes, kind))
