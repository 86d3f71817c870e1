"""Classes of objects: label images of instances, each of which has a class.

The classes are stated in one of these forms:

- A table `classes.csv` in the folder of the label images, with the columns `file`, `number` and
  `class` and, for stacks, `plane`, from 1. A file is named with any extension, by the name of its
  label image or that without its affix: `a.tif` for `a_mask.png`.
- A label file of two channels, or of two planes for an image of one: first the instances, then the
  class of each pixel as a number from 1; 0 is background in both. Class 2 is named `class 2`.
- Annotations of other programs, see `keras_unet.data.annotations`.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import some
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import stem_of
from keras_unet.data.names import strip_label_affix
from keras_unet.files import atomic

CLASSES = "classes.csv"
"""Name of the table of the classes of objects."""

StatedClasses = Mapping[int, tuple[str, ...]]
"""Classes that are stated for each number of a plane; an empty text stands for no class."""

_NUMBERED = re.compile(r"class ([1-9]\d*)")
_COLUMNS = ("file", "number", "class")
_LISTED = 3


class ObjectClass(NamedTuple):
    """Row of the table of classes.

    Attributes:
        file: Name of the image or its label file.
        plane: Plane of a stack, from 1; None for all planes.
        number: Number of the object.
        name: Name of its class; empty for none.
    """

    file: str
    plane: int | None
    number: int
    name: str


def read_table(path: Path) -> list[ObjectClass]:
    """Reads a table of classes.

    Raises:
        ValueError: If it is no table of this form.
        OSError: If it cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            rows, columns = list(reader), list(reader.fieldnames or ())
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected CSV in UTF-8. Received: {error}") from error
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise ValueError(
            f"{path}: expected the columns {', '.join(_COLUMNS)} and, for stacks, plane. Received "
            f"{', '.join(columns) or 'an empty file'}; add {', '.join(missing)}"
        )
    return [_row(path, line, row) for line, row in enumerate(rows, 2)]


def _row(path: Path, line: int, row: Mapping[str, str | None]) -> ObjectClass:
    plane, number = ((row.get(name) or "").strip() for name in ("plane", "number"))
    if not all(text.isdecimal() and int(text) for text in (number, plane or "1")):
        raise ValueError(
            f"{path}: expected whole numbers from 1 in the columns number and plane. Received "
            f"{number!r} and {plane!r} in line {line}"
        )
    name = (row["class"] or "").strip()
    return ObjectClass(row["file"] or "", int(plane) if plane else None, int(number), name)


def write_table(path: Path, rows: Sequence[ObjectClass]) -> None:
    """Writes a table of classes, with the column `plane` if a row has a plane.

    Args:
        path: Path of the file; its folder exists.
        rows: The rows.
    """
    has_planes = any(row.plane is not None for row in rows)
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *(["plane"] if has_planes else []), "number", "class"])
        for row in rows:
            writer.writerow([row.file, *([row.plane] if has_planes else []), row.number, row.name])


def update_table(path: Path, files: Collection[str], rows: Sequence[ObjectClass]) -> bool:
    """Replaces the rows of some files in a table, which is removed if none is left.

    Args:
        path: Path of the table; it may be missing.
        files: Names of the files whose rows are replaced; those of the same stem are, too.
        rows: The new rows.

    Returns:
        Whether there is a table now.

    Raises:
        ValueError: If the table cannot be read.
    """
    replaced = {_stem(name) for name in files}
    rows_before = read_table(path) if path.exists() else []
    kept = [row for row in rows_before if _stem(row.file) not in replaced]
    if kept or rows:
        write_table(path, [*kept, *rows])
        return True
    path.unlink(missing_ok=True)
    return False


def classes_beside(labels: Path, planes: int) -> tuple[StatedClasses, ...]:
    """Returns the classes that the table beside a label file states for it.

    Args:
        labels: The label file.
        planes: Number of its planes.

    Returns:
        The classes of each plane; an empty tuple if there is no table.

    Raises:
        ValueError: If the table cannot be read.
    """
    table = labels.parent / CLASSES
    if not table.is_file():
        return ()
    state = table.stat()
    by_stem = _rows_by_stem(table, state.st_mtime_ns, state.st_size)
    stem = stem_of(labels)
    names = (stem, strip_label_affix(stem) or stem)
    rows = next((by_stem[name] for name in names if name in by_stem), ())
    found: list[dict[int, tuple[str, ...]]] = [{} for _ in range(planes)]
    for row in rows:
        chosen = range(planes) if row.plane is None else [row.plane - 1]
        for plane in chosen:
            if plane >= planes:
                raise ValueError(
                    f"{table}: expected planes 1 to {planes} of {labels.name}. Received plane "
                    f"{row.plane} for object {row.number}; correct the table"
                )
            stated = found[plane].get(row.number, ())
            found[plane][row.number] = tuple(dict.fromkeys((*stated, row.name)))
    return tuple(found)


@lru_cache(maxsize=4)
def _rows_by_stem(table: Path, modified: int, size: int) -> Mapping[str, Sequence[ObjectClass]]:  # noqa: ARG001 - to notice changes
    rows: dict[str, list[ObjectClass]] = defaultdict(list)
    for row in read_table(table):
        rows[_stem(row.file)].append(row)
    return rows


def _stem(name: str) -> str:
    return stem_of(Path(name))


def classes_of_pixels(instances: NDArray[np.int32], values: NDArray[np.int32]) -> StatedClasses:
    """Returns the classes of the pixels of each object.

    Args:
        instances: Label image `(height, width)`, 0 is background.
        values: Number of the class of each pixel, `(height, width)`, 0 for none.

    Example:
        >>> classes_of_pixels(np.array([[0, 7, 7, 9]]), np.array([[0, 2, 2, 0]]))
        {7: ('class 2',), 9: ('',)}
    """
    base = int(values.max(initial=0)) + 1
    found: dict[int, tuple[str, ...]] = {}
    for pair in np.unique(instances.astype(np.int64) * base + values).tolist():
        number, value = divmod(pair, base)
        if number or value:
            name = f"class {value}" if value else ""
            found[number] = (*found.get(number, ()), name)
    return found


def stated_classes(planes: Iterable[Mapping[int, str]]) -> tuple[StatedClasses, ...]:
    """Returns the stated classes of planes whose objects have at most one."""
    return tuple({number: (name,) for number, name in plane.items()} for plane in planes)


def class_of_objects(
    place: str,
    labels: NDArray[np.integer],
    stated: StatedClasses,
    others: Collection[int] = (0,),
    *,
    complete: bool = True,
) -> dict[int, str]:
    """Returns the class of each object of a plane, after checks.

    Args:
        place: Name of the label file and the plane, for messages.
        labels: Label image, or the numbers of its objects.
        stated: Classes that are stated for its numbers.
        others: Values that are no objects, such as that of background.
        complete: Whether classes and objects must belong together; otherwise, objects without a
            class get an empty text, and classes without an object are left out, except those of
            background.

    Raises:
        ValueError: If an object has no class or several, or a class has no object.

    Example:
        >>> class_of_objects("a.tif", np.array([[0, 7, 7, 9]]), {7: ("round",), 9: ("long",)})
        {7: 'round', 9: 'long'}
    """
    numbers = [number for number in np.unique(labels).tolist() if number not in others]
    without = [number for number in numbers if stated.get(number, ("",)) == ("",)]
    if without and complete:
        raise ValueError(
            f"{place}: expected a class for each object, as for others. Received none for object "
            f"{_list(without)}; state it in {CLASSES} or the file of the object, or set the kind "
            "of the labels to instances, which leaves out all classes"
        )
    for number in numbers:
        if len(stated.get(number, ())) > 1:
            received = " and ".join(name or "no class" for name in stated[number])
            raise ValueError(
                f"{place}: expected one class for each object. Received {received} for object "
                f"{number}; correct its class, or give parts of different classes different numbers"
            )
    alone = sorted(stated.keys() - set(numbers) - (set(others) - {0}))
    if alone[:1] == [0] or (alone and complete):
        what = f"object {_list(alone)}, which the labels do not hold" if alone[0] else "background"
        raise ValueError(
            f"{place}: expected classes of objects alone. Received {stated[alone[0]][0] or 'none'} "
            f"for {what}; remove the class, or add the object"
        )
    return {number: stated.get(number, ("",))[0] for number in numbers}


def _list(numbers: Sequence[int]) -> str:
    return some([f"{number}" for number in numbers], _LISTED)


def uses_classes(
    planes: Iterable[tuple[str, StatedClasses | None]], kind: Kind | Literal["auto"]
) -> bool:
    """Returns whether objects have classes that are used: those of the kind "auto".

    Args:
        planes: Name of the label file for messages, and stated classes of each plane, if any.
        kind: Kind of the labels that was asked for.

    Raises:
        ValueError: If label images are to hold classes, and objects have some.
    """
    stated = next((place for place, classes in planes if classes is not None), None)
    if stated is not None and kind == "classes":
        raise ValueError(
            f"{stated}: expected numbers of classes, as kind is classes. Received objects that "
            "have classes; leave the kind of the labels out"
        )
    return stated is not None and kind == "auto"


def encode_objects(
    planes: Sequence[tuple[str, NDArray[np.int32], StatedClasses | None]], encoding: LabelEncoding
) -> tuple[LabelEncoding, list[NDArray[np.int32]]]:
    """Combines the instances of all planes with the classes that are stated for them.

    If all classes are named `class 2` and the like, these numbers are their values; otherwise they
    are numbered from 1 in alphabetical order.

    Args:
        planes: Name of the label file for messages, label image and stated classes of each plane.
        encoding: Encoding of the instances.

    Returns:
        The encoding with the names of the classes, and labels `(height, width, 2)`: instances and
        values of classes.

    Raises:
        ValueError: If a class or an object lacks the other, an object has several, or there are too
            many classes.
    """
    objects = [
        class_of_objects(place, labels, stated or {}, encoding.others)
        for place, labels, stated in planes
    ]
    values = number_classes({name for found in objects for name in found.values()})
    named = replace(encoding, values=(0, *values.values()), class_names=tuple(values))
    encoded = [
        np.stack([labels, values_of_objects(labels, found, values)], axis=-1)
        for (_, labels, _), found in zip(planes, objects, strict=True)
    ]
    return named, encoded


def number_classes(names: Iterable[str]) -> dict[str, int]:
    """Returns the value of each class, in ascending order.

    Example:
        >>> number_classes(["round", "long"]), number_classes(["class 10", "class 2"])
        ({'long': 1, 'round': 2}, {'class 2': 2, 'class 10': 10})
    """
    matches = {name: _NUMBERED.fullmatch(name) for name in sorted(names)}
    numbers = {name: int(match[1]) for name, match in matches.items() if match}
    if len(numbers) < len(matches):
        return {name: number for number, name in enumerate(matches, 1)}
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def values_of_objects(
    labels: NDArray[np.integer], classes: Mapping[int, str], values: Mapping[str, int]
) -> NDArray[np.int32]:
    """Returns an image of the value of the class of each object, 0 elsewhere.

    Args:
        labels: Label image.
        classes: Class of each object; others are left out.
        values: Value of each class.
    """
    numbers, places = np.unique(labels, return_inverse=True)
    of_number = [values[classes[number]] if number in classes else 0 for number in numbers.tolist()]
    image: NDArray[Any] = np.array(of_number, np.int32)[places]
    return image.reshape(labels.shape)
