"""Label files: reading, and detection of the label encoding.

A label file holds *classes* (0 membrane, 255 cell) or *instances* (0 background, one number per
cell). `detect_encoding` applies these rules to all files together, without ignored pixels. A
*region* is the set of pixels of one value in one image, a *piece* a component of it, connected over
edges or corners.

1. One value in all files: refused, there is nothing to learn.
2. A file with smeared values: refused, see below.
3. Two values: classes; the smaller is background.
4. At least nine tenths of the regions of values other than 0 are whole: instances; 0 is background.
   A region is whole if one piece has nine tenths of its pixels, which tolerates stray pixels of a
   manual annotation.
5. At most 16 values: classes; the smallest is background.
6. Otherwise: refused as grey values.

In images that are labelled in part, the values are those without the unlabelled pixels. Instances
have the background 0, or 1 if 0 is unlabelled.

Values are smeared, as by lossy compression (JPEG), smoothing or resizing, if fewer than nine tenths
of the regions of the file are whole, and at least half of its values besides the two most frequent
are scattered: in pieces of fewer than 8 pixels on average. Since a class may consist of dots, this
applies only if more than three values are scattered, or each of them differs from one of the two
most frequent values by at most a tenth of the range of values, as 254 from 255. A file named `.jpg`
or `.jpeg` with more than two values is always refused: JPEG cannot store labels.

Ambiguous labels are refused with a request for `kind`, see `data.label_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.calibration import Spacing
from keras_unet.data.encoding import (
    MOST_CLASSES,
    Kind,
    LabelEncoding,
    background_of_instances,
)
from keras_unet.data.images import invert_white, is_grey, read_image
from keras_unet.data.label_checks import (
    MOST_CLASSES_DETECTED,
    check_meaning,
    kind_in_part,
    kind_of,
)
from keras_unet.data.object_classes import StatedClasses, classes_beside, classes_of_pixels
from keras_unet.data.regions import Regions
from keras_unet.data.tiffs import WHITE_IS_0

_VALUES_IN_HISTOGRAM = 4
_WHITE, _RGB = 255, 3
_INSTANCES_AND_CLASSES = 2  # channels, or planes


def detect_encoding(
    labels: Sequence[tuple[str, NDArray[Any]]],
    *,
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    unlabelled: int | None = None,
) -> LabelEncoding:
    """Detects the label encoding of a data set by the rules of this module.

    Args:
        labels: Name of the file and integers from 0, `(height, width)`, for each image.
        kind: `"auto"` applies the rules. `"classes"` and `"instances"` override rules 3 to 6;
            `"classes"` still refuses smeared values and more than 256 values.
        ignore: Value of ignored pixels, or None.
        unlabelled: Value of the pixels that nobody has labelled, for images labelled in part, or
            None.

    Returns:
        The common encoding of all files.

    Raises:
        ValueError: If the files have one value, smeared values or grey values, or are ambiguous.

    Examples:
        >>> cells = np.zeros((9, 9), int)
        >>> cells[1:4, 1:4], cells[5:8, 5:8] = 1, 2
        >>> detect_encoding([("a.png", cells)]).kind
        'instances'
        >>> detect_encoding([("a.png", 255 * (cells > 0))]).values
        (0, 255)
    """
    if kind not in ("auto", "classes", "instances"):
        raise ValueError(f"kind must be 'auto', 'classes' or 'instances'. Received: kind={kind!r}")
    masked = [value for value in (ignore, unlabelled) if value is not None]
    files = [Regions.of(name, array, masked) for name, array in labels]
    values = sorted(set().union(*(file.values.tolist() for file in files)))
    _refuse_single_value(files, values)
    for file in files:
        _refuse_lossy(file, kind)
    most = MOST_CLASSES_DETECTED if kind == "auto" else MOST_CLASSES
    if kind == "auto" and unlabelled is not None:
        kind = kind_in_part(files, values, background_of_instances(unlabelled))
    elif kind == "auto":
        arrays = [array for _, array in labels]
        check_meaning(list(zip(files, arrays, strict=True)), values, ignore)
        kind = kind_of(files, values)
    if kind == "instances":
        return _instance_encoding(files, values, ignore, unlabelled)
    if len(values) > most:
        _refuse_grey_values(files, values, most)
    return LabelEncoding("classes", tuple(values), ignore, unlabelled=unlabelled)


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Content of a label file.

    Attributes:
        labels: Integers `(planes, height, width)`.
        stack: Letter and size of each plane axis, see `ImageFile`.
        notes: Notes on content that was converted while reading.
        colors: Color of each number, for a palette of more than black and white.
        dtype: Type of the numbers in the file.
        has_palette: Whether the file has a palette.
        white: Number that is black if the file stores white as 0, see `ImageFile`.
        spacing: Distances between pixels, as far as the file states them.
        classes: Classes of the objects of each plane, see `keras_unet.data.object_classes`; empty
            if none are stated.
    """

    labels: NDArray[np.int32]
    stack: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    colors: Mapping[int, tuple[int, ...]]
    dtype: str
    has_palette: bool = False
    white: int | None = None
    spacing: Spacing = field(default_factory=Spacing)
    classes: tuple[StatedClasses, ...] = ()


def read_labels(path: Path) -> LabelFile:
    """Reads a label file as it is displayed.

    In a palette of black and white, black becomes 0 and white 1, whatever their indices; of any
    other palette the indices are the labels. If the file stores white as 0, a black and white mask
    is inverted, and more than two values are read as stored. If the colors are constant and the
    transparency is not, the transparency is the mask. Classes of objects are read from the table
    beside the file, or from its second channel.

    Args:
        path: TIFF, PNG, JPEG, BMP or GIF file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or holds no labels, see `check_labels`.
    """
    image = read_image(path)
    planes, notes = image.planes, list(image.notes)
    dtype = planes.dtype.name
    if image.alpha is not None and np.ptp(planes) == 0 and np.ptp(image.alpha) > 0:
        planes, notes = image.alpha[..., np.newaxis], ["the mask is read from the alpha channel"]
    if image.white is not None and not set(np.unique(planes).tolist()) <= {0, image.white}:
        planes = invert_white(planes, image.white)
        others = [note for note in image.notes if note != WHITE_IS_0]
        notes = [*others, "white is stored as 0, but the numbers are read as stored"]
    color_of_number: dict[int, tuple[int, ...]] = {}
    if image.colors is not None:
        planes, color_of_number = _apply_palette(planes, image.colors)
    labels, classes = separate_classes(path, planes)
    has_palette = image.colors is not None
    return LabelFile(
        labels,
        image.stack,
        tuple(notes),
        color_of_number,
        dtype,
        has_palette,
        image.white,
        image.spacing,
        classes or classes_beside(path, len(labels)),
    )


def separate_classes(
    path: Path, planes: NDArray[Any]
) -> tuple[NDArray[np.int32], tuple[StatedClasses, ...]]:
    """Separates instances from the classes of their pixels, which are a second channel.

    Args:
        path: The file, for the messages.
        planes: Array `(planes, height, width, channels)`.

    Returns:
        Integers `(planes, height, width)`, and the classes of the objects of each plane; empty if
        there is no second channel.

    Raises:
        ValueError: See `check_labels`.
    """
    if planes.shape[-1] != _INSTANCES_AND_CLASSES:
        return check_labels(path, planes), ()
    instances, values = (check_labels(path, planes[..., [channel]]) for channel in (0, 1))
    return instances, tuple(map(classes_of_pixels, instances, values))


def labels_of_planes(file: LabelFile, planes: int) -> LabelFile:
    """Returns a label file, whose second plane is that of the classes if the image has only one.

    Args:
        file: Content of the label file.
        planes: Number of planes of the image.
    """
    if planes != 1 or len(file.labels) != _INSTANCES_AND_CLASSES:
        return file
    instances, values = file.labels
    return replace(
        file, labels=instances[None], stack=(), classes=(classes_of_pixels(instances, values),)
    )


def _apply_palette(
    planes: NDArray[Any], colors: NDArray[np.uint8]
) -> tuple[NDArray[Any], dict[int, tuple[int, ...]]]:
    """Converts black and white to 0 and 1; lists the used colors of any other palette."""
    used = np.unique(planes).astype(int)
    if used[-1] >= len(colors):
        return planes, {}
    used_colors = colors[used]
    is_identity = (used_colors == used[:, np.newaxis]).all()
    if is_identity or len(np.unique(used_colors, axis=0)) < len(used):
        return planes, {}  # the indices are the greys, or several numbers have one color
    if set(map(tuple, used_colors.tolist())) <= {(0, 0, 0), (_WHITE, _WHITE, _WHITE)}:
        return colors[planes, 0] == _WHITE, {}
    return planes, dict(zip(used.tolist(), map(tuple, used_colors.tolist()), strict=True))


def check_labels(path: Path, planes: NDArray[Any]) -> NDArray[np.int32]:
    """Converts the content of a label file to integers.

    Args:
        path: The file, for the messages.
        planes: Array `(planes, height, width, channels)`, from `read_planes`.

    Returns:
        Integers `(planes, height, width)`.

    Raises:
        ValueError: If the file holds colors, fractions, NaN or numbers outside 0 to 2,147,483,647.
    """
    if not is_grey(planes) and planes.shape[-1] != _RGB:
        raise ValueError(
            f"{path}: expected one number for each pixel, received {planes.shape[-1]} channels. "
            "Save the channel with the labels in a separate file."
        )
    if not is_grey(planes):
        colors = len(np.unique(planes.reshape(-1, planes.shape[-1]), axis=0))
        raise ValueError(
            f"{path}: expected one number for each pixel, received a color image with "
            f"{colors:,} distinct colors. Save the labels as a grey image, with one number for "
            "each class or cell."
        )
    labels = planes[..., 0]
    _refuse_fractions(path, labels)
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or high > np.iinfo(np.int32).max:
        void = "; to ignore the negative ones, replace them by another number and set --ignore"
        raise ValueError(
            f"{path}: expected labels between 0 and {np.iinfo(np.int32).max}, received values from "
            f"{low:.10g} to {high:.10g}. Renumber the labels{void if low < 0 else ''}."
        )
    return labels.astype(np.int32)


def histogram_line(labels: NDArray[Any]) -> str:
    """Returns the frequencies of label values in one line, the most frequent first.

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
    files: Sequence[Regions], values: Sequence[int], ignore: int | None, unlabelled: int | None
) -> LabelEncoding:
    background = background_of_instances(unlabelled)
    if values[0] != background or ignore == background:
        in_part = "" if unlabelled is None else "; strokes of it in a few images are enough"
        raise ValueError(
            f"{files[0].name}: the labels look like instances, but no label file holds the value "
            f"{background} for background. Received values from {values[0]} to {values[-1]}; label "
            f"the background {background}, or set --labels classes{in_part}."
        )
    return LabelEncoding("instances", (0, 1), ignore, unlabelled=unlabelled)


def _refuse_single_value(files: Sequence[Regions], values: Sequence[int]) -> None:
    if len(values) >= 2:
        return
    where = files[0].name if files else "labels"
    received = f"the value {values[0]} alone" if values else "ignored pixels alone"
    raise ValueError(
        f"{where}: expected at least two values in the label files, received {received} in "
        f"{len(files)} of them: there is nothing to learn. Check that these are the label files."
    )


def _refuse_lossy(file: Regions, kind: str) -> None:
    if not (file.is_jpeg or (file.smeared and kind != "instances")):
        return
    raise ValueError(
        f"{file.name}: expected exact label values, received blurred ones, as from JPEG, "
        f"smoothing, resizing or a grey image: {_histogram(file.values, file.pixels)}. Save the "
        "labels again as PNG or TIFF, or round them to their true values."
    )


def _refuse_grey_values(files: Sequence[Regions], values: Sequence[int], most: int) -> None:
    worst = max(files, key=lambda file: file.values.size)
    raise ValueError(
        f"{worst.name}: expected at most {most} class values, or instances in one piece each. "
        f"Received {len(values)} values in total, which look like grey values or lossy compression "
        f"(JPEG): {_histogram(worst.values, worst.pixels)}. Save the labels again, or set --labels "
        "classes or --labels instances."
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
