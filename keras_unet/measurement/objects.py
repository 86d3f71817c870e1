"""Objects of an image file, plane by plane: measurements, and outlines for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.stacks import axes_of_stack
from keras_unet.files import printable
from keras_unet.measurement.outlines import Outline, outlines_of
from keras_unet.measurement.properties import Columns, measure_objects

_COLORS = (  # of Okabe and Ito, told apart by the color-blind as well
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


@dataclass(frozen=True, eq=False)
class PlaneObjects:
    """Objects of an image plane.

    Attributes:
        columns: Measurements, see `measure_objects`.
        outlines: Outline of each label, see `outlines_of`; empty if not requested.
    """

    columns: Columns
    outlines: dict[int, Outline]

    @classmethod
    def of(
        cls,
        labels: Any,
        image: Any = None,
        probabilities: Any = None,
        *,
        outlined: bool = True,
        **options: Any,
    ) -> PlaneObjects:
        """Measures the objects of a plane, and computes their outlines.

        Args:
            labels: See `measure_objects`.
            image: See `measure_objects`.
            probabilities: See `measure_objects`.
            outlined: Whether to compute outlines.
            options: Further arguments of `measure_objects`.
        """
        columns = measure_objects(labels, image, probabilities=probabilities, **options)
        return cls(columns, outlines_of(labels) if outlined else {})

    def of_classes(self, classes: Mapping[int, str]) -> PlaneObjects:
        """Returns the objects with the names of their classes, by their labels."""
        names = [classes[number] for number in self.columns["number"].tolist()]
        return replace(self, columns={**self.columns, "class": np.array(names, np.str_)})

    def renumbered(self, numbers: Mapping[int, int]) -> PlaneObjects:
        """Returns the objects with other labels, in ascending order.

        Args:
            numbers: New label of each label.
        """
        found = np.array([numbers[number] for number in self.columns["number"].tolist()], np.int64)
        order = np.argsort(found)
        columns = {name: column[order] for name, column in self.columns.items()}
        outlines = {numbers[number]: outline for number, outline in self.outlines.items()}
        return PlaneObjects({**columns, "number": found[order]}, outlines)


@dataclass(frozen=True)
class OutlinedObject:
    """An object, as other programs take it.

    Attributes:
        name: Its label; with several planes, number of the plane, a hyphen, and the label.
        outline: Its outline.
        plane: Letter of each axis of the stack, and position along it, from 0.
        category: Name of its class; empty if there is none.
        color: Red, green and blue of its class; None if all objects have the same class.
        measurements: Its measurements, by the names of their columns.
    """

    name: str
    outline: Outline
    plane: dict[str, int]
    category: str
    color: tuple[int, int, int] | None
    measurements: dict[str, float]


@dataclass(frozen=True, eq=False)
class ImageObjects:
    """Objects of an image file.

    Attributes:
        path: Path of the image.
        planes: Objects of each plane.
        stack: Letter and size of each plane axis, see `ImageFile`.
        classes: Names of the classes, background first; empty if they are unknown.
    """

    path: Path
    planes: Sequence[PlaneObjects]
    stack: Sequence[tuple[str, int]] = ()
    classes: Sequence[str] = field(default_factory=tuple)

    @property
    def table(self) -> Columns:
        """Measurements of all planes, after the columns `file` and `plane`, from 1."""
        counts = [len(plane.columns["number"]) for plane in self.planes]
        names = np.full(sum(counts), printable(self.path.name))
        numbers: NDArray[Any] = np.repeat(np.arange(1, len(counts) + 1), counts)
        columns = {
            name: np.concatenate([plane.columns[name] for plane in self.planes])
            for name in self.planes[0].columns
        }
        return {"file": names, "plane": numbers, **columns}

    def __iter__(self) -> Iterator[OutlinedObject]:
        """Yields the objects with their outlines."""
        letters, sizes = axes_of_stack(self.stack)
        for index, plane in enumerate(self.planes):
            positions = [int(place) for place in np.unravel_index(index, sizes)] if sizes else []
            prefix = f"{index + 1}-" if len(self.planes) > 1 else ""
            numbers = plane.columns["number"].tolist()
            for row, number in enumerate(numbers):
                category = str(plane.columns["class"][row])
                yield OutlinedObject(
                    f"{prefix}{number}",
                    plane.outlines[number],
                    dict(zip(letters, positions, strict=True)),
                    category,
                    self._color(category),
                    dict(_measurements(plane.columns, row)),
                )

    def _color(self, category: str) -> tuple[int, int, int] | None:
        foreground = list(self.classes[1:])
        if len(foreground) < 2 or category not in foreground:
            return None
        return _COLORS[foreground.index(category) % len(_COLORS)]


def _measurements(columns: Columns, row: int) -> Iterator[tuple[str, float]]:
    """Yields the numbers of a row that are finite, but for its label."""
    for name, column in columns.items():
        if name != "number" and column.dtype.kind in "biuf" and np.isfinite(column[row]):
            yield name, column[row].item()
