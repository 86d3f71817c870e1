"""Widget of the correction loop: propose an image, correct its labels, train further.

A model predicts the plane on which its eight symmetries disagree most. The user corrects these
labels and marks the plane as corrected; training goes on, from the model, on all corrected planes.
The run that is trained is the model of the next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.widgets import Container, FloatSpinBox, Label, PushButton
from napari.utils.notifications import show_info
from numpy.typing import NDArray

from keras_unet.napari_plugin import tasks
from keras_unet.napari_plugin.fields import (
    PathField,
    image_choice,
    labels_choice,
    model_field,
    snapshot,
)
from keras_unet.napari_plugin.layers import Snapshot
from keras_unet.napari_plugin.panel import Panel
from keras_unet.runs import describe_score

CORRECTIONS = "keras-unet corrections"
"""Key of the `Corrections` in the metadata of a labels layer."""

PROPOSE, TRAIN = "Propose an image", "Train further"


@dataclass
class Corrections:
    """State of a labels layer.

    Attributes:
        image: The image layer.
        corrected: Numbers of the corrected planes.
        proposed: Predicted labels of planes, as they were before corrections, by number.
    """

    image: Any
    corrected: set[int] = field(default_factory=set)
    proposed: dict[int, NDArray[Any]] = field(default_factory=dict)

    def may_replace(self, plane: int, labels: NDArray[Any]) -> bool:
        """Returns whether the labels of a plane are empty, or those that a model proposed."""
        return not labels.any() or np.array_equal(labels, self.proposed.get(plane, ()))


class CorrectionWidget(Container[Any]):
    """Proposes planes of an image layer, and trains further on those that are corrected."""

    def __init__(self, napari_viewer: Any) -> None:
        """Builds the widget for a viewer."""
        self.viewer = napari_viewer
        self.image = image_choice(napari_viewer)
        self.labels_layer = labels_choice(napari_viewer, nullable=True)
        self.model = model_field("model", "run")
        self.rounds = PathField("rounds", "A folder for the runs of all rounds")
        self.minutes = FloatSpinBox(label="minutes", value=5, min=0.1, max=1e5, step=1)
        self.mark = PushButton(text="Mark or unmark this plane as corrected")
        self.state = Label(value="")
        self.panel = Panel({PROPOSE: self._propose, TRAIN: self._train})
        fields = [
            *(self.image, self.labels_layer, self.model.widget, self.rounds.widget),
            self.minutes,
        ]
        super().__init__(
            widgets=[Container(widgets=fields), self.mark, self.state, self.panel.widget],
            labels=False,
        )
        self[0].margins = (0, 0, 0, 0)
        self.panel.stop_with(self)
        self.labels_layer.tooltip = "Labels to correct. A layer is added if none is chosen."
        self.minutes.tooltip = "Length of the training of a round."
        self.mark.changed.connect(self._on_mark)
        self.labels_layer.changed.connect(self._show_state)
        self._show_state()

    def _propose(self) -> None:
        image = snapshot(self.image)
        labels = self._labels_of(image)
        corrected = frozenset(self._corrections(labels).corrected)
        task = partial(tasks.propose, image=image, model=self.model.value, corrected=corrected)
        self.panel.run(task, partial(self._show_proposal, labels))

    def _show_proposal(self, labels: Any, proposal: tuple[int, NDArray[Any]]) -> None:
        plane, predicted = proposal
        corrections = self._corrections(labels)
        index = _index_of(labels, plane)
        if corrections.may_replace(plane, labels.data[index]):
            if predicted.max(initial=0) > np.iinfo(labels.data.dtype).max:
                labels.data = labels.data.astype(predicted.dtype)
            labels.data[index] = predicted
            corrections.proposed[plane] = predicted
            labels.refresh()
        else:
            self.panel.add_line(f"plane {plane} keeps its labels, which no model has proposed")
        point = labels.data_to_world((*index, 0, 0))
        for axis in range(len(index)):
            self.viewer.dims.set_point(self.viewer.dims.ndim - labels.ndim + axis, point[axis])
        self.viewer.layers.selection.active = labels
        self.panel.text.value = f"plane {plane}: correct its labels, then mark it as corrected"

    def _on_mark(self) -> None:
        labels = self.labels_layer.value
        if labels is None:
            self.panel.text.value = "choose the labels layer that holds the corrections"
            return
        plane = _plane_shown(labels, self.viewer.dims.point)
        self._corrections(labels).corrected ^= {plane}
        self._show_state()

    def _train(self) -> None:
        chosen = [
            (layer, corrections)
            for layer in self.viewer.layers
            if (corrections := layer.metadata.get(CORRECTIONS)) and corrections.corrected
        ]
        if not chosen:
            raise ValueError(
                "corrected planes must be marked before training further. Received none; correct "
                "the labels of a plane, and mark it"
            )
        run = self._next_run()
        task = partial(
            tasks.train,
            pairs=[
                (Snapshot.of(corrections.image), Snapshot.of(layer))
                for layer, corrections in chosen
            ],
            planes=[frozenset(corrections.corrected) for _, corrections in chosen],
            run=run,
            options={"max_minutes": self.minutes.value, **tasks.CORRECTION_OPTIONS},
            initial=self.model.value,
        )
        self.panel.run(task, partial(self._use, run))

    def _use(self, run: Path, outcome: Mapping[str, Any]) -> None:
        """Makes a trained run the model of the next round."""
        self.model.line.value = str(run)
        score = describe_score(outcome)
        said = f"{run.name}: {outcome['steps']} steps{'' if score is None else f', {score}'}"
        self.panel.add_line(f"report: {run / 'report.html'}")
        self.panel.text.value = said
        show_info(said)

    def _next_run(self) -> Path:
        folder = self.rounds.value
        if not folder.name:
            raise ValueError(
                "rounds must be a folder for the runs of all rounds. Received: nothing; choose one"
            )
        runs = (folder.absolute() / f"round-{number}" for number in count(1))
        return next(run for run in runs if not run.exists() and not tasks.data_folder(run).exists())

    def _labels_of(self, image: Snapshot) -> Any:
        """Returns the labels layer that is chosen, or a new one for the image."""
        labels = self.labels_layer.value
        if labels is None:
            labels = self.viewer.add_labels(
                np.zeros(image.shape, np.int32), name=f"{image.name} labels", **image.transform
            )
            self.labels_layer.reset_choices()
            self.labels_layer.value = labels
        if labels.data.shape != image.shape:
            raise ValueError(
                f"labels must be of shape {image.shape}, like {image.name}. Received: "
                f"{labels.name} of {labels.data.shape}; choose no layer to add one"
            )
        if self._corrections(labels).image is not self.image.value:
            raise ValueError(
                f"labels must be those of {image.name}. Received: {labels.name}, which holds "
                "corrections of another image; choose no layer to add one"
            )
        return labels

    def _corrections(self, labels: Any) -> Corrections:
        corrections: Corrections = labels.metadata.setdefault(
            CORRECTIONS, Corrections(self.image.value)
        )
        return corrections

    def _show_state(self) -> None:
        labels = self.labels_layer.value
        corrections = None if labels is None else labels.metadata.get(CORRECTIONS)
        planes = sorted(corrections.corrected) if corrections else []
        listed = ", ".join(map(str, planes)) or "none"
        self.state.value = f"corrected planes: {listed}"


def _index_of(layer: Any, plane: int) -> tuple[int, ...]:
    """Returns the index of a plane along the first axes of a layer."""
    stack = layer.data.shape[:-2]
    return tuple(int(at) for at in np.unravel_index(plane, stack)) if stack else ()


def _plane_shown(layer: Any, point: Any) -> int:
    """Returns the number of the plane of a layer at a point of the viewer."""
    stack = layer.data.shape[:-2]
    if not stack:
        return 0
    position = layer.world_to_data(point)[: len(stack)]
    index = [int(np.clip(round(at), 0, size - 1)) for at, size in zip(position, stack, strict=True)]
    return int(np.ravel_multi_index(index, stack))
