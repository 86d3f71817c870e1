"""Meaning of the numbers in label files.

A label file holds *classes* (0 membrane, 255 cell) or *instances* (0 background, one number a
cell). `detect_encoding` tells them apart by this rule, over all files together, after the value to
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

Where the rule is not sure, it asks for `kind`: the same numbers stand in every image, and one
encloses another, or all touch, or they are no more than three in three or more images, as in a cell
with its nucleus, in layers, and in strokes; or one number covers most of every image, as the
background does. Also refused are files of two conventions, such as the same classes in two scales
(0 and 1 in some and 0 and 255 in others, or 0, 1, 2 and 0, 127, 255), or cells numbered in some and
marked alike in others; and 255 beside small numbers, which may be a class, a cell, or what is not
to count. See `data.label_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.encoding import MOST_CLASSES, Kind, LabelEncoding
from keras_unet.data.images import is_grey, read_image, seen
from keras_unet.data.label_checks import MOST_CLASSES_DETECTED, check_meaning, kind_of
from keras_unet.data.regions import Regions
from keras_unet.data.tiffs import WHITE_IS_0

_VALUES_IN_HISTOGRAM = 4
_WHITE, _RGB = 255, 3


def detect_encoding(
    labels: Sequence[tuple[str, NDArray[Any]]],
    *,
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
) -> LabelEncoding:
    """Finds out what the numbers in a data set's label files mean, by the rule of this module.

    Args:
        labels: Name of the file and integers from 0 `(height, width)`, for each image.
        kind: `"auto"` follows the rule. `"classes"` and `"instances"` override rules 3 to 6;
            `"classes"` still refuses smeared values, as 2, and more than 256 values.
        ignore: Value of pixels that are not to count, or None.

    Returns:
        The encoding that fits all files.

    Raises:
        ValueError: The files hold no labels: one value, smeared values, grey values.

    Examples:
        >>> cells = np.zeros((9, 9), int)
        >>> cells[1:4, 1:4], cells[5:8, 5:8] = 1, 2
        >>> detect_encoding([("a.png", cells)])
        LabelEncoding(kind='instances', values=(0, 1), ignore=None)
        >>> detect_encoding([("a.png", 255 * (cells > 0))])
        LabelEncoding(kind='classes', values=(0, 255), ignore=None)
    """
    if kind not in ("auto", "classes", "instances"):
        raise ValueError(f"kind must be 'auto', 'classes' or 'instances'. Received {kind!r}.")
    files = [Regions.of(name, array, ignore) for name, array in labels]
    values = sorted(set().union(*(file.values.tolist() for file in files)))
    _refuse_single_value(files, values)
    for file in files:
        _refuse_lossy(file, kind)
    if kind == "auto":
        arrays = [array for _, array in labels]
        check_meaning(list(zip(files, arrays, strict=True)), values, ignore)
    if (kind_of(files, values) if kind == "auto" else kind) == "instances":
        return _instance_encoding(files, values, ignore)
    most = MOST_CLASSES if kind == "classes" else MOST_CLASSES_DETECTED
    if len(values) > most:
        _refuse_grey_values(files, values, most)
    return LabelEncoding("classes", tuple(values), ignore)


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Content of a label file.

    Attributes:
        labels: Integers `(planes, height, width)`.
        stack: Letter and size of each axis that counts planes, see `ImageFile`.
        notes: What was read otherwise than stored, for a person.
        colours: Colour of each number, where the file has a palette of more than black and white.
        dtype: Type of the numbers in the file.
        has_palette: Whether the file has a palette.
        white: The number that is black where the file calls 0 white, see `ImageFile`.
    """

    labels: NDArray[np.int32]
    stack: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    colours: Mapping[int, tuple[int, ...]]
    dtype: str
    has_palette: bool = False
    white: int | None = None


def read_labels(path: Path) -> LabelFile:
    """Reads a label file as a person sees it.

    Of a palette of black and white, black is 0 and white 1, whatever their indices; of any other
    palette, the indices are the numbers. Where 0 is white, a black and white mask is inverted, and
    numbers of more than two values are taken as stored. Where the colours are one value and the
    transparency is not, the mask is the transparency.

    Args:
        path: TIFF, PNG, JPEG, BMP or GIF.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or holds no labels, see `check_labels`.
    """
    image = read_image(path)
    planes, notes = image.planes, list(image.notes)
    dtype = planes.dtype.name
    if image.alpha is not None and np.ptp(planes) == 0 and np.ptp(image.alpha) > 0:
        planes, notes = image.alpha[..., np.newaxis], ["its mask is read from its alpha channel"]
    if image.white is not None and not set(np.unique(planes).tolist()) <= {0, image.white}:
        planes = seen(planes, image.white)
        others = [note for note in image.notes if note != WHITE_IS_0]
        notes = [*others, "0 is white in it, but its numbers are taken as stored"]
    named: dict[int, tuple[int, ...]] = {}
    if image.colours is not None:
        planes, named = _by_palette(planes, image.colours)
    labels, has_palette = check_labels(path, planes), image.colours is not None
    return LabelFile(labels, image.stack, tuple(notes), named, dtype, has_palette, image.white)


def _by_palette(
    planes: NDArray[Any], colours: NDArray[np.uint8]
) -> tuple[NDArray[Any], dict[int, tuple[int, ...]]]:
    """Turns black and white into 0 and 1; of any other palette, lists the colours used."""
    used = np.unique(planes).astype(int)
    if used[-1] >= len(colours):
        return planes, {}
    of_used = colours[used]
    if (of_used == used[:, np.newaxis]).all() or len(np.unique(of_used, axis=0)) < len(used):
        return planes, {}  # the indices are the greys, or one colour stands for several numbers
    if set(map(tuple, of_used.tolist())) <= {(0, 0, 0), (_WHITE, _WHITE, _WHITE)}:
        return colours[planes, 0] == _WHITE, {}
    return planes, dict(zip(used.tolist(), map(tuple, of_used.tolist()), strict=True))


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
    if not is_grey(planes) and planes.shape[-1] != _RGB:
        raise ValueError(
            f"{path}: expected one number for each pixel, received {planes.shape[-1]} channels. "
            "Save the channel that holds the labels in a file of its own."
        )
    if not is_grey(planes):
        colours = len(np.unique(planes.reshape(-1, planes.shape[-1]), axis=0))
        raise ValueError(
            f"{path}: expected one number for each pixel, received a colour image with "
            f"{colours:,} distinct colours. Save the labels as a grey image, one number a class "
            "or cell."
        )
    labels = planes[..., 0]
    _refuse_fractions(path, labels)
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or high > np.iinfo(np.int32).max:
        void = "; if negative ones are not to count, give them a number, and say it by --ignore"
        raise ValueError(
            f"{path}: expected labels between 0 and {np.iinfo(np.int32).max}, received values from "
            f"{low:.10g} to {high:.10g}. Renumber the labels{void if low < 0 else ''}."
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


def _instance_encoding(
    files: Sequence[Regions], values: Sequence[int], ignore: int | None
) -> LabelEncoding:
    if values[0] != 0 or ignore == 0:
        raise ValueError(
            f"{files[0].name}: these look like instances, but no label file holds the value 0 for "
            f"background: nothing parts cells from background. Received values from {values[0]} "
            f"to {values[-1]}; label the background 0, or say that they are classes."
        )
    return LabelEncoding("instances", (0, 1), ignore)


def _refuse_single_value(files: Sequence[Regions], values: Sequence[int]) -> None:
    if len(values) >= 2:
        return
    where = files[0].name if files else "labels"
    found = f"the value {values[0]} alone" if values else "no pixel that counts"
    raise ValueError(
        f"{where}: expected at least two values in the label files, received {found} in "
        f"{len(files)} of them: there is nothing to learn. Check that these are the label files."
    )


def _refuse_lossy(file: Regions, kind: str) -> None:
    if not (file.is_jpeg or (file.smeared and kind != "instances")):
        return
    raise ValueError(
        f"{file.name}: expected exact label values, received smeared ones, as from JPEG, "
        f"smoothing, resizing or a grey image: {_histogram(file.values, file.pixels)}. Save the "
        "labels anew as PNG or TIFF, or round them to their true values."
    )


def _refuse_grey_values(files: Sequence[Regions], values: Sequence[int], most: int) -> None:
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
