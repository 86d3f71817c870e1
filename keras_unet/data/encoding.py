"""Label encodings: conversion between label values and classes or instances.

`keras_unet.data.labels` detects the encoding of a data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from keras_unet.data.images import smallest_unsigned

Kind = Literal["classes", "instances"]

MOST_CLASSES = 256


@dataclass(frozen=True)
class LabelEncoding:
    """Conversion of the values in label files to classes and instances.

    Attributes:
        kind: `"classes"` or `"instances"`.
        values: For classes, the label values in ascending order, background first; the position of
            a value is its class. For instances (0, 1), background and cell; for instances that have
            classes, 0 and the values of these.
        ignore: Value of ignored pixels, or None.
        unlabelled: Value of pixels that nobody has labelled, for images labelled in part, or None.
            If it is 0, the background of instances is 1.
        class_names: For instances that have classes, the names of these, without the background;
            else empty. Labels are then `(height, width, 2)`: instances and values of classes.

    Raises:
        ValueError: If the fields contradict each other.

    Examples:
        >>> encoding = LabelEncoding("classes", (0, 255))
        >>> encoding.to_classes(np.array([[0, 255, 255]])).tolist()
        [[0, 1, 1]]
        >>> encoding.to_instances(np.array([[255, 0, 255]])).tolist()
        [[1, 0, 2]]
        >>> encoding.from_classes(np.array([[0, 1, 1]])).tolist()
        [[0, 255, 255]]
        >>> in_part = LabelEncoding("instances", (0, 1), unlabelled=0)
        >>> labels = np.array([[0, 1, 2]])
        >>> in_part.to_instances(labels).tolist(), in_part.ignored(labels).tolist()
        ([[0, 0, 2]], [[True, False, False]])
    """

    kind: Kind
    values: tuple[int, ...]
    ignore: int | None = None
    class_names: tuple[str, ...] = ()
    unlabelled: int | None = None

    def __post_init__(self) -> None:
        """Checks the fields."""
        if self.kind not in ("classes", "instances"):
            raise ValueError(f"kind must be 'classes' or 'instances'. Received: kind={self.kind!r}")
        if self.ignore is not None and self.ignore == self.unlabelled:
            raise ValueError(
                "ignore and unlabelled must be different values: ignored pixels are not scored, "
                f"and a cell ends there. Received: {self.ignore} for both; give one of them"
            )
        if self.class_names:
            self._check_class_names()
        elif self.kind == "instances" and (self.values != (0, 1) or self.ignore == self.background):
            raise ValueError(
                "values must be (0, 1) for kind 'instances', and ignore must not be the background "
                f"{self.background}. Received: values={self.values}, ignore={self.ignore}"
            )
        if self.kind == "classes" and not self._has_valid_classes:
            raise ValueError(
                f"values must be 2 to {MOST_CLASSES} ascending numbers, 0 or more, without the "
                f"value to ignore. Received: values={self.values}, ignore={self.ignore}"
            )

    def _check_class_names(self) -> None:
        names, values = self.class_names, self.values
        is_paired = values[:1] == (0,) and len(values) == len(names) + 1 < MOST_CLASSES
        is_valid = is_paired and list(values) == sorted(set(values)) and all(names)
        if (
            self.kind != "instances"
            or self.ignore == self.background
            or not is_valid
            or len(set(names)) < len(names)
        ):
            raise ValueError(
                f"class_names must be at most {MOST_CLASSES - 2} different names of classes of "
                "instances, one for each of the ascending values after 0, and ignore must not be "
                f"0. Received: kind={self.kind!r}, ignore={self.ignore}, "
                f"{len(names)} names ({', '.join(names[:8])}), values={values[:8]}"
            )

    @property
    def _has_valid_classes(self) -> bool:
        ascends = list(self.values) == sorted(set(self.values) - {self.ignore, self.unlabelled})
        return ascends and 2 <= self.classes <= MOST_CLASSES and self.values[0] >= 0

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, background first.

        >>> LabelEncoding("instances", (0, 1)).names, LabelEncoding("classes", (0, 255)).names
        (('background', 'cell'), ('label 0', 'label 255'))
        >>> LabelEncoding("instances", (0, 1, 2), class_names=("long", "round")).names
        ('background', 'long', 'round')
        """
        if self.class_names:
            return "background", *self.class_names
        if self.kind == "instances":
            return "background", "cell"
        return tuple(f"label {value}" for value in self.values)

    @property
    def background(self) -> int:
        """Label value of the background."""
        if self.kind == "instances":
            return background_of_instances(self.unlabelled)
        return self.values[0]

    @property
    def others(self) -> frozenset[int]:
        """Label values that are no objects: of background, ignored and unlabelled pixels."""
        values = {self.background, self.ignore, self.unlabelled}
        return frozenset(value for value in values if value is not None)

    @property
    def holds_strokes(self) -> bool:
        """True if the labels are strokes of classes, whose pieces are parts of objects."""
        return self.kind == "classes" and self.unlabelled is not None

    def ignored(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Returns the mask of ignored and unlabelled pixels, `(height, width)`."""
        numbers = labels[..., 0] if self.class_names else labels
        masked = np.zeros(numbers.shape, bool)
        for value in (self.ignore, self.unlabelled):
            if value is not None:
                masked |= numbers == value
        return masked

    def to_classes(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """Converts label values to classes.

        Args:
            labels: Integers `(height, width)`, or `(height, width, 2)` with `class_names`.

        Returns:
            Classes `(height, width)`; 0 at ignored and unlabelled pixels.

        Raises:
            ValueError: If a value is neither a class nor the value to ignore.
        """
        ignored = self.ignored(labels)
        if self.class_names:
            ignored, labels = ignored | (labels[..., 0] == self.background), labels[..., 1]
        elif self.kind == "instances":
            return np.asarray((labels != self.background) & ~ignored, np.uint8)
        values = np.array(self.values)
        classes = np.minimum(np.searchsorted(values, labels), len(values) - 1)
        unknown = labels[(values[classes] != labels) & ~ignored]
        if unknown.size:
            raise ValueError(
                f"labels must be {_list_values(self.values)}"
                f"{'' if self.ignore is None else f', or {self.ignore} to ignore'}. "
                f"Received {_list_values(np.unique(unknown).tolist())} in {unknown.size:,} pixels; "
                "correct the labels, or set the value to ignore."
            )
        return np.where(ignored, 0, classes).astype(np.uint8)

    def to_instances(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """Converts label values to instances.

        Args:
            labels: Integers `(height, width)`, or `(height, width, 2)` with `class_names`.

        Returns:
            Instances `(height, width)`, 0 for background, ignored and unlabelled pixels: the values
            themselves, or, for classes, the edge-connected components of the foreground.

        Raises:
            ValueError: If a value is neither a class nor the value to ignore.
        """
        if self.kind == "instances":
            numbers = labels[..., 0] if self.class_names else labels
            is_object = (numbers != self.background) & ~self.ignored(labels)
            return np.where(is_object, numbers, 0).astype(np.int32)
        components = label(self.to_classes(labels) > 0, connectivity=1, background=0)
        return np.asarray(components, np.int32)

    def from_classes(self, class_map: NDArray[Any]) -> NDArray[Any]:
        """Converts classes to label values, in the smallest unsigned dtype."""
        return np.take(smallest_unsigned(np.array(self.values)), class_map)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON object."""
        fields = {"kind": self.kind, "values": list(self.values), "ignore": self.ignore}
        names = {"class_names": list(self.class_names)} if self.class_names else {}
        unlabelled = {} if self.unlabelled is None else {"unlabelled": self.unlabelled}
        return fields | unlabelled | names

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LabelEncoding:
        """Creates an encoding from the result of `to_dict`, older ones without names included."""
        return cls(
            fields["kind"],
            tuple(fields["values"]),
            fields["ignore"],
            tuple(map(str, fields.get("class_names", ()))),
            fields.get("unlabelled"),
        )


def background_of_instances(unlabelled: int | None) -> int:
    """Returns the label value of the background of instances: 0, or 1 if 0 is unlabelled."""
    return 1 if unlabelled == 0 else 0


def _list_values(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return shown + (f", ... ({len(values)} values)" if len(values) > 8 else "")
