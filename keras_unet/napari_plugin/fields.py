"""Input fields of the widgets: layers, paths and optional values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, Label, LineEdit, PushButton
from napari.layers import Image, Labels
from qtpy.QtWidgets import QFileDialog

from keras_unet import shipped
from keras_unet.napari_plugin.layers import Snapshot

_NO_MARGINS = 0, 0, 0, 0


def image_choice(viewer: Any, label: str = "image") -> ComboBox:
    """Returns a combo box of the open image layers."""
    return _layer_choice(viewer, Image, label, "The image layer: 2D, or a stack of 2D planes.")


def labels_choice(viewer: Any, label: str = "labels", *, nullable: bool = False) -> ComboBox:
    """Returns a combo box of the open labels layers and, if `nullable`, of none."""
    tooltip = "The labels layer: one number per cell, or per class."
    return _layer_choice(viewer, Labels, label, tooltip, nullable=nullable)


def snapshot(choice: ComboBox) -> Snapshot:
    """Returns a snapshot of the chosen layer.

    Raises:
        ValueError: If none is chosen.
    """
    if choice.value is None:
        raise ValueError(
            f"{choice.label} must be chosen. Received: none; open or add a layer of that kind"
        )
    return Snapshot.of(choice.value)


class Pairs:
    """Rows of an image and its labels.

    Attributes:
        widget: Widget of the rows and their buttons.
    """

    def __init__(self, viewer: Any) -> None:
        """Adds one pair."""
        self.viewer = viewer
        add, remove = PushButton(text="Add a pair"), PushButton(text="Remove the last")
        add.changed.connect(self.add)
        remove.changed.connect(self.remove)
        self.rows: Container[Any] = Container(labels=False)
        buttons = _in_a_row(add, remove)
        title = Label(value="images and their labels")
        self.widget = Container(widgets=[title, self.rows, buttons], labels=False)
        self.rows.margins = self.widget.margins = _NO_MARGINS
        self.add()

    def add(self) -> None:
        """Adds a row with the next layers."""
        row = _in_a_row(image_choice(self.viewer), labels_choice(self.viewer))
        number = len(self.rows)
        for choice in row:
            choice.reset_choices()
            if number < len(choice.choices):
                choice.value = choice.choices[number]
        self.rows.append(row)

    def remove(self) -> None:
        """Removes the last row, unless it is the only one."""
        if len(self.rows) > 1:
            self.rows.pop()

    def snapshots(self) -> list[tuple[Snapshot, Snapshot]]:
        """Returns snapshots of the chosen layers.

        Raises:
            ValueError: If a layer is not chosen.
        """
        return [(snapshot(row[0]), snapshot(row[1])) for row in self.rows]


class PathField:
    """Path that is typed or chosen in a dialog.

    Attributes:
        widget: Widget of the field and its buttons.
    """

    def __init__(self, label: str, hint: str, *, file: str | None = None) -> None:
        """Builds the field.

        Args:
            label: Label of the field.
            hint: Description of the expected path.
            file: Qt's filter of files; None for folders only.
        """
        self.line = LineEdit(name="path", tooltip=hint)
        self.line.native.setPlaceholderText(hint)
        folder = PushButton(text="Folder…")
        folder.changed.connect(lambda: self._set(QFileDialog.getExistingDirectory(None, hint)))
        parts: list[Any] = [self.line, folder]
        if file is not None:
            choose = PushButton(text="File…")
            choose.changed.connect(
                lambda: self._set(QFileDialog.getOpenFileName(None, hint, "", file)[0])
            )
            parts.append(choose)
        self.widget = _in_a_row(*parts)
        self.widget.name, self.widget.label = "model", label

    @property
    def value(self) -> Path:
        """The path; `Path()` if the field is empty."""
        return Path(self.line.value.strip()).expanduser()

    def _set(self, path: str) -> None:
        if path:
            self.line.value = path


def model_field(label: str, kinds: str, *, file: str | None = None) -> PathField:
    """Returns a field for a model of some kinds, or the name of a model of the package.

    Args:
        label: Label of the field.
        kinds: The kinds, such as "run or ensemble".
        file: Qt's filter of files; None for folders only.
    """
    hint = f"A {kinds}{''.join(f', or {name}' for name in shipped.names())}"
    return PathField(label, hint, file=file)


class OptionalValues:
    """Optional values, shown by a check box.

    Attributes:
        widget: Widget of the check box and the fields.
    """

    def __init__(self, title: str, kinds: Mapping[str, tuple[Callable[[str], Any], str]]) -> None:
        """Builds the fields.

        Args:
            title: Text of the check box.
            kinds: Parser, and description of the default, by the name of each value.
        """
        self.kinds = kinds
        self.lines = {name: _line(name, default) for name, (_, default) in kinds.items()}
        self.inner = Container(widgets=list(self.lines.values()), visible=False)
        box = CheckBox(text=title, value=False)
        box.changed.connect(self._show)
        self.widget = Container(widgets=[box, self.inner], labels=False)
        self.inner.margins = self.widget.margins = _NO_MARGINS

    def values(self) -> dict[str, Any]:
        """Returns the values that were typed.

        Raises:
            ValueError: If a text cannot be parsed.
        """
        texts = {name: line.value.strip() for name, line in self.lines.items()}
        return {
            name: _parse(name, self.kinds[name][0], text) for name, text in texts.items() if text
        }

    def _show(self, shown: bool) -> None:
        self.inner.visible = shown


def _layer_choice(
    viewer: Any, kind: type, label: str, tooltip: str, *, nullable: bool = False
) -> ComboBox:
    def choices(_: object) -> list[Any]:
        return [layer for layer in viewer.layers if isinstance(layer, kind)]

    return ComboBox(label=label, choices=choices, tooltip=tooltip, nullable=nullable)


def _in_a_row(*widgets: Any) -> Container[Any]:
    row = Container(widgets=widgets, layout="horizontal", labels=False)
    row.margins = _NO_MARGINS
    return row


def _line(name: str, default: str) -> LineEdit:
    line = LineEdit(name=name, label=name.replace("_", " "))
    line.native.setPlaceholderText(default)
    return line


def _parse(name: str, kind: Callable[[str], Any], text: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        if kind not in (int, float):
            raise
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(
            f"{name.replace('_', ' ')} must be {expected}. Received: {text!r}"
        ) from error
