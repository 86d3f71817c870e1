"""What the numbers in label files mean.

A label file holds *classes* (0 membrane, 255 cell) or *instances* (0 background, one number a
cell). `detect_scheme` tells them apart by this rule, over all files together, after the value to
ignore has been taken out. A *region* is the set of pixels of one value in one image, a *piece* a
part of it that holds together over edges or corners.

1. One value in all files: refused, there is nothing to learn.
2. A file with smeared values: refused, see below.
3. Two values, whatever they are: classes; the smaller is background.
4. At least nine in ten regions of other values than 0 are whole: instances; 0 is background. A
   region is whole when one piece holds nine tenths of its pixels, so that a stray pixel of a hand
   annotation does not count.
5. At most 16 values: classes; the smallest is background.
6. Otherwise refused: these look like grey values.

Values are smeared, as lossy compression (JPEG), smoothing or resizing leave them, when fewer than
nine in ten regions of the file are whole, and at least half of its values besides the two most
frequent are crumbs: pieces of fewer than 8 pixels on average. As a class may be made of dots, this
counts only where more than three values are crumbs, or each crumb value differs from one of the
two most frequent by no more than a tenth of the range of values, as 254 does from 255. A file named
`.jpg` or `.jpeg` with more than two values is refused without a look: JPEG cannot keep labels.

One cell and its nucleus a picture, labelled 1 and 2, obey rule 4 and pass for two instances. Where
the rule errs, `kind` overrides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from keras_unet.data.images import is_grey
from keras_unet.data.schemes import MOST_CLASSES, Kind, LabelScheme

_MOST_CLASSES_DETECTED = 16
_WHOLE = 0.9
_CRUMB_PIXELS = 8
_VALUES_IN_HISTOGRAM = 4
_IGNORED = -1


def detect_scheme(
    labels: Sequence[tuple[str, NDArray[Any]]],
    *,
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
) -> LabelScheme:
    """Finds out what the numbers in a data set's label files mean, by the rule of this module.

    Args:
        labels: Name of the file and integers from 0 `(height, width)`, for each image.
        kind: `"auto"` follows the rule. `"classes"` and `"instances"` override rules 3 to 6;
            `"classes"` still refuses smeared values, as 2, and more than 256 values.
        ignore: Value of pixels that are not to count, or None.

    Returns:
        The scheme that fits all files.

    Raises:
        ValueError: The files hold no labels: one value, smeared values, grey values.

    Examples:
        >>> cells = np.zeros((9, 9), int)
        >>> cells[1:4, 1:4], cells[5:8, 5:8] = 1, 2
        >>> detect_scheme([("a.png", cells)])
        LabelScheme(kind='instances', values=(0, 1), ignore=None)
        >>> detect_scheme([("a.png", 255 * (cells > 0))])
        LabelScheme(kind='classes', values=(0, 255), ignore=None)
    """
    if kind not in ("auto", "classes", "instances"):
        raise ValueError(f"kind must be 'auto', 'classes' or 'instances'. Received {kind!r}.")
    files = [_File.of(name, array, ignore) for name, array in labels]
    values = sorted(set().union(*(file.values.tolist() for file in files)))
    _refuse_single_value(files, values)
    for file in files:
        _refuse_lossy(file, kind)
    if (_kind_of(files, values) if kind == "auto" else kind) == "instances":
        return _instance_scheme(files, values, ignore)
    most = MOST_CLASSES if kind == "classes" else _MOST_CLASSES_DETECTED
    if len(values) > most:
        _refuse_grey_values(files, values, most)
    return LabelScheme("classes", tuple(values), ignore)


def check_labels(path: Path, planes: NDArray[Any]) -> NDArray[np.int32]:
    """Makes sure that what a file holds can be labels.

    Args:
        path: The file, for the messages.
        planes: Array `(planes, height, width, channels)`, as `read_planes` gives.

    Returns:
        Integers `(planes, height, width)`.

    Raises:
        ValueError: The file holds colours, fractions, NaN or numbers outside 0 to 2,147,483,647.
    """
    if not is_grey(planes):
        colours = len(np.unique(planes.reshape(-1, planes.shape[-1]), axis=0))
        raise ValueError(
            f"{path}: expected one number for each pixel, received a colour image with "
            f"{colours:,} distinct colours. Save the labels as a grey image, one number a class "
            "or cell."
        )
    labels = planes[..., 0]
    _refuse_fractions(path, labels)
    low, high = labels.min(), labels.max()
    if low < 0 or high > np.iinfo(np.int32).max:
        raise ValueError(
            f"{path}: expected labels between 0 and {np.iinfo(np.int32).max}, received values from "
            f"{low:.10g} to {high:.10g}. Renumber the labels."
        )
    return labels.astype(np.int32)


def histogram_line(labels: NDArray[Any]) -> str:
    """Describes the values of a label image in one line, the most frequent first.

    Args:
        labels: Integers of any shape.

    Examples:
        >>> histogram_line(np.array([[0, 0, 0, 255]]))
        '0: 75.0 %, 255: 25.0 %'
        >>> histogram_line(np.array([[0, 0, 0, 7, 7, 1, 2, 3]]))
        '0: 37.5 %, 7: 25.0 %, 1: 12.5 %, 2: 12.5 %, ... (5 values)'
    """
    values, counts = np.unique(labels, return_counts=True)
    return _histogram(values, counts)


@dataclass(frozen=True, eq=False)
class _File:
    """The regions of one label image: one entry for each of its values, ignored pixels apart.

    Attributes:
        name: Name of the file.
        values: The values, ascending.
        pieces: In how many pieces each value's pixels lie, joined over edges and corners.
        pixels: How many pixels each value has.
        largest: How many pixels each value's largest piece has.
    """

    name: str
    values: NDArray[np.int64]
    pieces: NDArray[np.int64]
    pixels: NDArray[np.int64]
    largest: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, labels: NDArray[Any], ignore: int | None) -> _File:
        wide = labels.astype(np.int64)
        kept = wide if ignore is None else np.where(wide == ignore, _IGNORED, wide)
        components = label(kept, connectivity=2, background=_IGNORED)
        areas = np.bincount(components.ravel())[1:]
        value_of = np.zeros(areas.size + 1, np.int64)
        value_of[components.ravel()] = kept.ravel()
        values, region = np.unique(value_of[1:], return_inverse=True)
        largest = np.zeros(values.size, np.int64)
        np.maximum.at(largest, region, areas)
        pixels = np.bincount(region, areas, values.size).astype(np.int64)
        return cls(name, values, np.bincount(region, minlength=values.size), pixels, largest)

    @property
    def whole(self) -> NDArray[np.bool_]:
        """For each region of a value other than 0, whether one piece holds most of it."""
        return np.compress(self.values != 0, self.largest >= _WHOLE * self.pixels)

    @property
    def smeared(self) -> bool:
        """Tells whether values are smeared, by the rule of this module."""
        order = np.argsort(self.pixels, kind="stable")
        levels, others = self.values[order[-2:]], order[:-2]
        if not others.size or _mostly(self.whole):
            return False
        crumbs = self.values[others[self.pixels[others] < _CRUMB_PIXELS * self.pieces[others]]]
        distance = np.abs(crumbs[:, np.newaxis] - levels).min(axis=1)
        are_close = bool((10 * distance <= np.ptp(self.values)).all())
        return 2 * crumbs.size >= others.size and (crumbs.size > 3 or are_close)

    @property
    def is_jpeg(self) -> bool:
        """Tells whether the file is a JPEG, by name, whose values cannot be exact."""
        return PurePath(self.name).suffix.lower() in (".jpg", ".jpeg") and self.values.size > 2


def _kind_of(files: Sequence[_File], values: Sequence[int]) -> Kind:
    if len(values) <= 2:
        return "classes"
    return "instances" if _mostly(np.concatenate([file.whole for file in files])) else "classes"


def _mostly(flags: NDArray[np.bool_]) -> bool:
    return bool(10 * np.count_nonzero(flags) >= 9 * flags.size)


def _instance_scheme(
    files: Sequence[_File], values: Sequence[int], ignore: int | None
) -> LabelScheme:
    if values[0] != 0 or ignore == 0:
        raise ValueError(
            f"{files[0].name}: these look like instances, but no label file holds the value 0 for "
            f"background: nothing parts cells from background. Received values from {values[0]} "
            f"to {values[-1]}; label the background 0, or say that they are classes."
        )
    return LabelScheme("instances", (0, 1), ignore)


def _refuse_single_value(files: Sequence[_File], values: Sequence[int]) -> None:
    if len(values) >= 2:
        return
    where = files[0].name if files else "labels"
    found = f"the value {values[0]} alone" if values else "no pixel that counts"
    raise ValueError(
        f"{where}: expected at least two values in the label files, received {found} in "
        f"{len(files)} of them: there is nothing to learn. Check that these are the label files."
    )


def _refuse_lossy(file: _File, kind: str) -> None:
    if not (file.is_jpeg or (file.smeared and kind != "instances")):
        return
    raise ValueError(
        f"{file.name}: expected exact label values, received smeared ones, as from JPEG, "
        f"smoothing, resizing or a grey image: {_histogram(file.values, file.pixels)}. Save the "
        "labels anew as PNG or TIFF, or round them to their true values."
    )


def _refuse_grey_values(files: Sequence[_File], values: Sequence[int], most: int) -> None:
    worst = max(files, key=lambda file: file.values.size)
    raise ValueError(
        f"{worst.name}: expected class values, at most {most}, or instances in one piece each. "
        f"Received {len(values)} values in all that look like grey values or lossy compression "
        f"(JPEG): {_histogram(worst.values, worst.pixels)}. Save the labels anew, or say whether "
        "they are classes or instances."
    )


def _refuse_fractions(path: Path, labels: NDArray[Any]) -> None:
    if labels.dtype.kind in "biu":
        return
    is_integer = (
        np.zeros(labels.shape, bool)
        if labels.dtype.kind == "c"
        else np.isfinite(labels) & (labels == np.round(labels))
    )
    if not is_integer.all():
        raise ValueError(
            f"{path}: expected whole numbers, received {labels.dtype} with "
            f"{np.count_nonzero(~is_integer):,} of {labels.size:,} pixels fractional, NaN or "
            f"infinite, for example {labels[~is_integer][0]:.6g}. Round or threshold the labels."
        )


def _histogram(values: NDArray[Any], counts: NDArray[Any]) -> str:
    shares = 100 * counts / max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")[:_VALUES_IN_HISTOGRAM]
    shown = ", ".join(f"{int(values[i])}: {shares[i]:.1f} %" for i in order)
    return shown + (f", ... ({values.size} values)" if values.size > order.size else "")
