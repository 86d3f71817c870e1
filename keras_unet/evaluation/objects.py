"""Section of a report on the objects found: histograms, a table, and its file."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_unet.evaluation.figures import ImagePair
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.measurement.properties import Columns
from keras_unet.measurement.table import table_text
from keras_unet.report.charts import histogram_svg
from keras_unet.report.page import Objects
from keras_unet.report.tables import Table

_LISTED = 100  # rows of the table on the page; its file has all
_HEAD: Mapping[str, str] = {
    "file": "image",
    "number": "number",
    "class": "class",
    "area": "area",
    "circularity": "circularity",
    "solidity": "solidity",
    "intensity_mean": "mean intensity",
    "touches_border": "at the border",
}


def measured_objects(images: Sequence[ImagePair]) -> Objects | None:
    """Measures the predicted objects of images, beside those of the labels.

    Lengths are in micrometers if all images state their pixel size.

    Args:
        images: The images, with labels and prediction.

    Returns:
        The section; None without predicted objects.
    """
    in_micrometers = all(image.pixel_size is not None for image in images)
    unit = ("um2", "µm²") if in_micrometers else ("px", "pixels")
    predicted, labels = (
        [_table(image, result=result, in_micrometers=in_micrometers) for image in images]
        for result in (True, False)
    )
    number = sum(len(table["number"]) for table in predicted)
    if not number:
        return None
    intensity = next(
        (name for name in predicted[0] if name.startswith("intensity_mean")), "intensity_mean"
    )
    shown = {f"area_{unit[0]}": f"area ({unit[1]})", intensity: "mean intensity"}
    charts = [
        histogram_svg(
            title, {"labels": _column(labels, name), "prediction": _column(predicted, name)}
        )
        for name, title in shown.items()
        if name in predicted[0]
    ]
    columns = {"area": f"area_{unit[0]}", "intensity_mean": intensity}
    content = base64.b64encode(table_text(predicted).encode("utf-8")).decode("ascii")
    return Objects(
        text=f"{number:,} predicted objects, {sum(len(table['number']) for table in labels):,} in "
        f"the labels{_by_class(predicted)}. Areas in {unit[1]}.",
        charts=charts,
        table=_shown_table(predicted, columns),
        download=f"data:text/csv;base64,{content}",
    )


def _table(image: ImagePair, *, result: bool, in_micrometers: bool) -> Columns:
    """Measures an image, which is named by its name alone."""
    labels = (image.labels.result if result else image.labels.reference)[0]
    classes = image.labels.result_classes if result else image.labels.reference_classes
    size = image.pixel_size if in_micrometers else None
    objects = PlaneObjects.of(labels, image.image, outlined=False, pixel_size=size)
    objects = objects.of_classes(classes[0]) if classes else objects
    return ImageObjects(Path(image.labels.name), [objects]).table


def _by_class(tables: Sequence[Columns]) -> str:
    """Lists the number of objects of each class, if they have classes."""
    counts = Counter(name for table in tables for name in table["class"].tolist() if name)
    listed = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
    return f"; predicted are {listed}" if listed else ""


def _column(tables: Sequence[Columns], name: str) -> Sequence[float]:
    found: list[float] = np.concatenate([table[name] for table in tables]).astype(float).tolist()
    return found


def _shown_table(tables: Sequence[Columns], columns: Mapping[str, str]) -> Table:
    names = {columns.get(name, name): title for name, title in _HEAD.items()}
    has_classes = any(table["class"].any() for table in tables)
    left_out = set() if has_classes else {"class"}
    names = {name: names[name] for name in names if name in tables[0].keys() - left_out}
    rows = [
        [_text(table[name][row]) for name in names]
        for table in tables
        for row in range(len(table["number"]))
    ]
    note = f"The first {_LISTED} of {len(rows):,}; the file has all." if len(rows) > _LISTED else ""
    return Table("Predicted objects", list(names.values()), rows[:_LISTED], note=note)


def _text(value: np.generic) -> str:
    if isinstance(value, np.bool_):
        return "yes" if value else "no"
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else f"{value:.4g}"
    return f"{value}"
