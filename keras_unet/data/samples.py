"""Samples of a data set: reading, checking, describing and splitting.

An image with its labels is one sample; each plane of a stack is a sample. The label encoding is
detected over the whole folder.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, some, track
from keras_unet.data.annotations import draw_labels, read_annotations
from keras_unet.data.channels import Channels, Selection, differing_names
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.groups import Group, Grouping, draw_held_out, group_images
from keras_unet.data.images import ImageFile, as_channels, is_grey, pixels_of, read_image
from keras_unet.data.label_consistency import check_same_conventions, differing_conventions
from keras_unet.data.labels import (
    LabelFile,
    detect_encoding,
    histogram_line,
    labels_of_planes,
    read_labels,
    separate_classes,
)
from keras_unet.data.object_classes import (
    StatedClasses,
    class_of_objects,
    encode_objects,
    stated_classes,
    uses_classes,
)
from keras_unet.data.pairs import Pair, Pairs, Unused, find_pairs, is_annotation, plane_name
from keras_unet.data.stacks import describe_axes, in_order_of
from keras_unet.data.tiff_planes import files_of_set, repeated_in
from keras_unet.files import PathLike

_SIZES_LISTED = 3
_UNUSED_LISTED = 20
_NAMES_LISTED = 20
_SAME_PIXEL_SIZE = 0.01  # relative difference of rounded numbers


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated image.

    Attributes:
        name: Name, unique in the data set.
        image: Grey values as in the file, `(height, width, channels)`.
        classes: Class of each pixel, `(height, width)`.
        instances: Label image `(height, width)`, 0 is background.
        ignored: Mask of ignored and unlabelled pixels, `(height, width)`.
        group: Name of the film, stack or slide that the image is a part of, see `data.groups`; None
            for an image by itself.
        pixel_size: Height and width of a pixel in micrometers, or None.
    """

    name: str
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32]
    ignored: NDArray[np.bool_]
    group: Group = None
    pixel_size: tuple[float, float] | None = None


@dataclass(frozen=True)
class Samples:
    """A data set.

    Attributes:
        samples: The annotated images, sorted by name.
        encoding: Encoding of the label files.
        channels: Number of channels of every image.
        dtype: Types of the numbers in the image files, for example `"uint16"`.
        unused: Unused files of the folder, with reasons.
        notes: Axes of stacks, and conversions while reading, one line each.
    """

    samples: tuple[Sample, ...]
    encoding: LabelEncoding
    channels: int
    dtype: str
    unused: tuple[Unused, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns a summary in a few lines."""
        objects = "strokes" if self.encoding.holds_strokes else "instances"
        lines = (
            f"{counted(len(self.samples), 'image')} of {self._sizes()} pixels (height x width)",
            f"grey values: {self.dtype}, {counted(self.channels, 'channel')}",
            f"labels: {self._labels()}",
            f"fractions of the pixels: {self._fractions()}",
            f"{objects}: {self._instances()}",
            *self.notes,
            *self._unused_lines(),
        )
        return "\n".join(lines)

    def _sizes(self) -> str:
        sizes = sorted({sample.classes.shape for sample in self.samples})
        shown = [f"{height} x {width}" for height, width in sizes]
        if len(sizes) <= _SIZES_LISTED:
            return ", ".join(shown)
        return f"{shown[0]} to {shown[-1]}"

    def _labels(self) -> str:
        values = {"ignored": self.encoding.ignore, "unlabelled": self.encoding.unlabelled}
        others = [f"; {value} is {name}" for name, value in values.items() if value is not None]
        if self.encoding.kind == "instances":
            named = self.encoding.class_names
            of_classes = f" of the classes {', '.join(named)}" if named else ""
            background = f"{self.encoding.background} is background"
            return f"instances{of_classes}, one number per cell, {background}{''.join(others)}"
        return f"classes with values {', '.join(map(str, self.encoding.values))}{''.join(others)}"

    def _fractions(self) -> str:
        counts = np.zeros(self.encoding.classes, int)
        for sample in self.samples:
            counts += np.bincount(sample.classes[~sample.ignored], minlength=counts.size)
        total = sum(sample.classes.size for sample in self.samples)
        pixels = dict(zip(self._class_names(), counts.tolist(), strict=True))
        if counts.sum() < total:
            is_complete = self.encoding.unlabelled is None
            pixels["ignored" if is_complete else "unlabelled"] = total - counts.sum()
        return ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in pixels.items())

    def _class_names(self) -> list[str]:
        if self.encoding.kind == "instances":
            return ["background", *(self.encoding.class_names or ("cells",))]
        return [f"value {value}" for value in self.encoding.values]

    @property
    def objects(self) -> dict[str, int]:
        """Number of objects of each class, by name; empty if objects have no classes."""
        names = self.encoding.class_names
        found = Counter(
            name
            for sample in (self.samples if names else ())
            for name in classes_in(sample, self.encoding).values()
        )
        return {name: found[name] for name in names}

    def _instances(self) -> str:
        total = sum(_count_instances(sample) for sample in self.samples)
        of_classes = ", ".join(f"{number:,} {name}" for name, number in self.objects.items())
        return f"{total:,} in total{f': {of_classes}' if of_classes else ''}"

    def _unused_lines(self) -> list[str]:
        expected = [f"not used: {file.reason}" for file in self.unused if file.is_expected]
        others = [f"  {file.name}: {file.reason}" for file in self.unused if not file.is_expected]
        head = [f"not used: {counted(len(others), 'file')}"] if others else []
        return [*_some_lines(expected), *head, *_some_lines(others)]


def classes_in(sample: Sample, encoding: LabelEncoding) -> dict[int, str]:
    """Returns the class of each object of a sample, of an encoding with names of classes."""
    numbers, first = np.unique(sample.instances, return_index=True)
    classes = sample.classes.ravel()[first]
    return {
        number: encoding.names[value]
        for number, value in zip(numbers.tolist(), classes.tolist(), strict=True)
        if number
    }


def read_samples(
    folder: PathLike,
    *,
    labels: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    unlabelled: int | None = None,
    allow_empty: bool = False,
    axes: str | None = None,
    channels: Channels | None = None,
    groups: Grouping = "auto",
) -> Samples:
    """Reads the images of a folder with their labels, without scaling or resizing.

    Each plane of a stack becomes a sample. If all images are grey, one channel is kept.

    Args:
        folder: Folder in a layout of `find_pairs`.
        labels: Kind of the labels: `"classes"`, `"instances"`, or `"auto"` to detect it.
            `"instances"` leaves out the classes of objects, see `data.object_classes`.
        ignore: Label value of ignored pixels, or None.
        unlabelled: Label value of the pixels that nobody has labelled, for images labelled in part,
            see `LabelEncoding`; None if all are complete. Images without any label are left out.
        allow_empty: Whether images without cells are allowed.
        axes: Axes of image files, if they state none or wrong ones, such as "YXC".
        channels: Numbers, from 0, or names of the channels to read; None for all.
        groups: Groups of images that belong together, see `data.groups.group_images`.

    Returns:
        The data set, sorted by name.

    Raises:
        FileNotFoundError: If there is no such folder.
        NotADirectoryError: If `folder` is a file.
        ValueError: If files do not match, cannot be read, or are no images and labels.
    """
    folder = Path(folder)
    found = _without_repeated_images(find_pairs(folder))
    selection = Selection.of(channels)
    raw = [
        plane
        for pair in track(found.pairs, "reading images")
        for plane in _read_pair(pair, axes, selection)
    ]
    files = list({plane.pair.labels: plane.file for plane in raw}.items())
    if labels != "instances" and not any(file.classes for _, file in files):
        check_same_conventions(files)
    _refuse_same_names([plane.name for plane in raw], folder)
    notes = (
        *_notes(raw),
        *differing_names((plane.pair.image, plane.channels) for plane in raw),
        *differing_conventions(files),
    )
    masked = ignore, unlabelled
    samples = _create_samples(raw, labels, masked, allow_empty, found.unused, notes)
    return _with_groups(samples, groups)


def samples_of_arrays(
    images: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    *,
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    unlabelled: int | None = None,
    allow_empty: bool = False,
    groups: Grouping = "auto",
) -> Samples:
    """Creates a data set from arrays, with the same checks as for files.

    Args:
        images: Raw grey values, each `(height, width)` or `(height, width, channels)`.
        labels: Label images, whole numbers from 0, each `(height, width)`; or
            `(height, width, 2)`, instances and the number of the class of each pixel, from 1.
        kind: Kind of the labels, see `read_samples`.
        ignore: Label value of ignored pixels, or None.
        unlabelled: Label value of the pixels that nobody has labelled, as `read_samples`.
        allow_empty: Whether images without cells are allowed.
        groups: Groups of images that belong together, see `data.groups.group_images`.

    Returns:
        The data set; the names of samples are their positions, "0", "1" and so on.

    Raises:
        ValueError: If the arrays do not match, or are no images and labels.
    """
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            "images and labels must be of equal number, at least one. Received: "
            f"{counted(len(images), 'image')} and {len(labels)} labels"
        )
    raw = [
        _plane_of_arrays(image, label_image, number)
        for number, (image, label_image) in enumerate(zip(images, labels, strict=True))
    ]
    masked = ignore, unlabelled
    return _with_groups(_create_samples(raw, kind, masked, allow_empty, (), ()), groups)


def _plane_of_arrays(image: NDArray[Any], labels: NDArray[Any], number: int) -> _Plane:
    pair = Pair(str(number), Path(f"images[{number}]"), Path(f"labels[{number}]"))
    pixels, label_image = np.asarray(image), np.asarray(labels)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if label_image.ndim == 2:
        label_image = label_image[..., np.newaxis]
    has_labels = label_image.ndim == 3 and label_image.shape[-1] in (1, 2) and label_image.size
    if pixels.ndim != 3 or not has_labels:
        raise ValueError(
            f"{pair.image} and {pair.labels} must be of shape (height, width) or (height, width, "
            "channels), and (height, width), or (height, width, 2) for instances and their "
            f"classes, with at least one pixel. Received: {np.shape(image)} and {np.shape(labels)}"
        )
    _refuse_different_sizes(pair, pixels[np.newaxis], label_image[np.newaxis])
    integers, classes = separate_classes(pair.labels, label_image[np.newaxis])
    file = LabelFile(integers, (), (), {}, "", classes=classes)
    stated = classes[0] if classes else None
    return _Plane(pair.name, pair, pixels, file.labels[0], file, (), None, classes=stated)


def _create_samples(
    raw: Sequence[_Plane],
    labels: Kind | Literal["auto"],
    masked: tuple[int | None, int | None],
    allow_empty: bool,
    unused: tuple[Unused, ...],
    notes: tuple[str, ...],
) -> Samples:
    ignore, unlabelled = masked
    channels = _common_channels(raw)
    has_classes = uses_classes(((plane.place, plane.classes) for plane in raw), labels)
    encoding = detect_encoding(
        [(str(plane.pair.labels), plane.labels) for plane in raw],
        kind="instances" if has_classes else labels,
        ignore=ignore,
        unlabelled=unlabelled,
    )
    if unlabelled is not None:
        raw, blank = _split_blank(raw, encoding)
        unused = (*unused, *blank)
    arrays = [plane.labels for plane in raw]
    for plane in raw:
        if plane.classes is not None and not has_classes:  # left out, but no other planes
            others = encoding.others
            class_of_objects(plane.place, plane.labels, plane.classes, others, complete=False)
    if has_classes:
        stated = [(plane.place, plane.labels, plane.classes) for plane in raw]
        encoding, arrays = encode_objects(stated, encoding)
    pairs = track(list(zip(raw, arrays, strict=True)), "checking labels")
    samples = tuple(_create_sample(*pair, encoding, channels) for pair in pairs)
    if not allow_empty and unlabelled is None:
        for plane, sample in zip(raw, samples, strict=True):
            _refuse_empty(plane, sample)
        if labels == "auto":
            _refuse_inverted(raw, samples, encoding)
    dtype = ", ".join(sorted({plane.image.dtype.name for plane in raw}))
    return Samples(samples, encoding, channels, dtype, unused, notes)


def _split_blank(
    raw: Sequence[_Plane], encoding: LabelEncoding
) -> tuple[list[_Plane], list[Unused]]:
    """Separates the images of which nothing is labelled."""
    is_blank = [bool(encoding.ignored(plane.labels).all()) for plane in raw]
    kept = [plane for plane, blank in zip(raw, is_blank, strict=True) if not blank]
    return kept, [
        Unused(plane.pair.labels, f"nothing is labelled in {plane.name}", is_expected=True)
        for plane, blank in zip(raw, is_blank, strict=True)
        if blank
    ]


def _with_groups(samples: Samples, groups: Grouping) -> Samples:
    names, known, images = zip(
        *((sample.name, sample.group, sample.image) for sample in samples.samples), strict=True
    )
    found, notes = group_images(names, known, images, groups)
    grouped = tuple(
        replace(sample, group=group) for sample, group in zip(samples.samples, found, strict=True)
    )
    return replace(samples, samples=grouped, notes=samples.notes + notes)


def split(
    samples: Sequence[Sample], validation: float | Sequence[str], seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Splits samples into training and validation data.

    Args:
        samples: The samples.
        validation: Fraction of the samples for validation, at least 0 and less than 1, drawn at
            random: at least one sample unless the fraction is 0, and never all. Samples of one
            group are similar, so whole groups are drawn where there are several, see
            `data.groups.draw_held_out`. Or the names of the samples for validation.
        seed: Random seed. The same seed and samples give the same split.

    Returns:
        Samples for training and samples for validation, in the order of `samples`.

    Raises:
        ValueError: If the fraction is out of range, a name is unknown, or no sample is left for
            training.
    """
    if isinstance(validation, int | float):
        check_fraction(validation)
        names, groups = zip(*((sample.name, sample.group) for sample in samples), strict=True)
        held_out = draw_held_out(names, groups, validation, seed)
    else:
        held_out = _find_names([sample.name for sample in samples], validation)
    training = tuple(sample for i, sample in enumerate(samples) if i not in held_out)
    return training, tuple(sample for i, sample in enumerate(samples) if i in held_out)


def common_pixel_size(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """Returns height and width of a pixel in micrometers, the mean over the samples.

    Returns:
        The size; None if a sample has none, or two differ by more than 1 %.
    """
    sizes = [sample.pixel_size for sample in samples if sample.pixel_size is not None]
    if len(sizes) < len(samples) or not sizes:
        return None
    if np.ptp(sizes, axis=0).max() > _SAME_PIXEL_SIZE * np.min(sizes):
        return None
    height, width = np.mean(sizes, axis=0).tolist()
    return height, width


def check_fraction(validation: float) -> None:
    """Checks the fraction of samples for validation.

    Raises:
        ValueError: If it is not at least 0 and less than 1.
    """
    if not 0 <= validation < 1:
        raise ValueError(
            "validation must be a fraction of at least 0 and less than 1, or names of samples. "
            f"Received: validation={validation}"
        )


@dataclass(frozen=True, eq=False)
class _Plane:
    """Plane as stored: image `(height, width, channels)`, labels `(height, width)`."""

    name: str
    pair: Pair
    image: NDArray[Any]
    labels: NDArray[np.int32]
    file: LabelFile
    notes: tuple[str, ...]
    group: Group
    pixel_size: tuple[float, float] | None = None
    channels: tuple[str, ...] = ()
    classes: StatedClasses | None = None

    @property
    def place(self) -> str:
        """Label file and, of a stack, name of the plane, for messages."""
        is_single = self.name == self.pair.name
        return f"{self.pair.labels}{'' if is_single else f', {self.name}'}"


def _without_repeated_images(found: Pairs) -> Pairs:
    """Moves images that are parts of another pair's image to the unused files."""
    repeated = repeated_in(pair.image for pair in found.pairs)
    kept = tuple(
        pair for pair in found.pairs if pair.image not in repeated or pair.plane is not None
    )
    repeats = [pair for pair in found.pairs if pair not in kept]
    unused = [
        Unused(path, f"part of the image that begins in {repeated[pair.image].name}")
        for pair in repeats
        for path in (pair.image, pair.labels)
    ]
    return Pairs(kept, (*found.unused, *unused))


def _read_pair(pair: Pair, axes: str | None, channels: Selection | None) -> Iterable[_Plane]:
    image_file = read_image(pair.image, palette="colors", axes=axes, channels=channels)
    label_file = _read_label_file(pair, image_file)
    image = _annotated_planes(pair, image_file.planes)
    label_file = labels_of_planes(label_file, len(image))
    labels, order = label_file.labels, np.arange(len(label_file.labels))
    if pair.plane is None and len(labels) == len(image):
        source, stored = (pair.image, image_file.stack), (pair.labels, label_file.stack)
        order = in_order_of(source, stored, order.reshape(-1, 1, 1), "labels").ravel()
        labels = labels[order]
    _refuse_different_sizes(pair, image, labels)
    is_single = len(image) == 1
    group = pair.sequence or (None if is_single else pair.name)
    axes_note = () if is_single else (f"read as planes along {describe_axes(image_file.stack)}",)
    notes = (*axes_note, *image_file.notes)
    return [
        _Plane(
            pair.name if is_single else plane_name(pair.name, number),
            pair,
            image[number],
            labels[number],
            label_file,
            notes,
            group,
            image_file.spacing.pixel_size,
            image_file.spacing.channels,
            label_file.classes[order[number]] if label_file.classes else None,
        )
        for number in range(len(image))
    ]


def _read_label_file(pair: Pair, image: ImageFile) -> LabelFile:
    """Reads a label image, or draws the outlines of other programs as instances."""
    if not is_annotation(pair.labels):
        return read_labels(pair.labels)
    content = read_annotations(pair.labels)
    if len(content.objects) != 1:
        raise ValueError(
            f"{pair.labels}: expected annotations of one image, {pair.image.name}. Received those "
            f"of {len(content.objects)}; run keras-unet data import, and train on the result"
        )
    (objects,) = content.objects.values()
    drawn = draw_labels(objects, image.planes.shape[:3], pair.image)
    notes = [f"left out, as it has no area: {kind}" for kind in sorted(content.left_out)]
    if drawn.covered:
        notes.append("where outlines overlap, the smaller object is on top")
    has_classes = any(one.category for one in objects)
    return LabelFile(
        drawn.labels,
        image.stack,
        tuple(notes),
        {},
        drawn.labels.dtype.name,
        classes=stated_classes(drawn.categories) if has_classes else (),
    )


def _notes(raw: Sequence[_Plane]) -> tuple[str, ...]:
    """Lists the notes on conversions, with the files of each note together."""
    files: dict[str, dict[str, None]] = defaultdict(dict)
    for plane in raw:
        for path, notes in ((plane.pair.image, plane.notes), (plane.pair.labels, plane.file.notes)):
            for note in notes:
                files[note][f"{path.parent.name}/{path.name}"] = None
    return tuple(f"{some(list(names))}: {note}" for note, names in files.items())


def _refuse_inverted(
    raw: Sequence[_Plane], samples: Sequence[Sample], encoding: LabelEncoding
) -> None:
    """Refuses masks of two values of which some are inverted."""
    # The foreground covers less than half of some images and is brighter than the rest there, and
    # covers more than half of the others and is darker there, or vice versa.
    if encoding.kind != "classes" or encoding.classes != 2:
        return
    groups: dict[tuple[bool, bool], list[str]] = defaultdict(list)
    for plane, sample in zip(raw, samples, strict=True):
        foreground, background = sample.classes == 1, (sample.classes == 0) & ~sample.ignored
        if foreground.any() and background.any():
            is_larger = foreground.sum() > background.sum()
            is_brighter = sample.image[foreground].mean() > sample.image[background].mean()
            groups[bool(is_larger), bool(is_brighter)].append(str(plane.pair.labels))
    if len(groups) != 2:
        return
    (first, names), (second, others) = groups.items()
    if first[0] != second[0] and first[1] != second[1]:
        few, many = sorted((names, others), key=len)
        raise ValueError(
            f"{few[0]}: expected value {encoding.values[1]} to mark the same as in {many[0]}. "
            f"Received the opposite in {counted(len(few), 'mask')} of {len(few) + len(many)}, "
            "judged by area and brightness. Invert these masks, or set --labels classes if they "
            "are right"
        )


def _annotated_planes(pair: Pair, image: NDArray[Any]) -> NDArray[Any]:
    if pair.plane is None:
        return image
    if pair.plane >= len(image):
        raise ValueError(
            f"{pair.labels}: expected labels of an existing plane, but {pair.image} has "
            f"{counted(len(image), 'plane')}. Received the name of plane {pair.plane}, counted "
            "from 0; correct the name of the label file."
        )
    return image[pair.plane : pair.plane + 1]


def _common_channels(raw: Sequence[_Plane]) -> int:
    if all(is_grey(plane.image) for plane in raw):
        return 1
    expected = int(raw[0].image.shape[-1])
    for plane in raw:
        if plane.image.shape[-1] != expected:
            raise ValueError(
                f"{plane.pair.image}: expected {counted(expected, 'channel')} as in "
                f"{raw[0].pair.image.name}, received {plane.image.shape[-1]}. Convert the images "
                "so that all have the same channels."
            )
    return expected


def _create_sample(
    plane: _Plane, labels: NDArray[np.int32], encoding: LabelEncoding, channels: int
) -> Sample:
    image = as_channels(plane.image, channels, plane.pair.image)
    return Sample(
        name=plane.name,
        image=pixels_of(image, plane.pair.image),
        classes=encoding.to_classes(labels),
        instances=encoding.to_instances(labels),
        ignored=encoding.ignored(labels),
        group=plane.group,
        pixel_size=plane.pixel_size,
    )


def _find_names(names: Sequence[str], selected: Sequence[str]) -> set[int]:
    known, held_out = set(names), {unicodedata.normalize("NFC", name) for name in selected}
    unknown = sorted(held_out - known)
    if unknown:
        raise ValueError(
            f"validation must name existing samples. Received {', '.join(unknown)}; "
            f"the samples are {', '.join(names[:_NAMES_LISTED])}"
            f"{', ...' if len(names) > _NAMES_LISTED else '.'}"
        )
    if known <= held_out:
        raise ValueError(
            f"validation must leave samples for training. Received all {len(names)}; name fewer."
        )
    return {i for i, name in enumerate(names) if name in held_out}


def _refuse_same_names(names: Sequence[str], folder: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{folder}: expected a different name for every sample, received {repeated[0]} twice. "
            "Rename one of the files."
        )


def _refuse_different_sizes(pair: Pair, image: NDArray[Any], labels: NDArray[np.int32]) -> None:
    if len(image) != len(labels):
        files = len(files_of_set(pair.image))
        where = f" (an image in {files} files)" if files > 1 else ""
        hint = "; if the planes are channels, set --axes, for example CYX or YXC"
        raise ValueError(
            f"{pair.labels}: expected {counted(len(image), 'plane')} as in {pair.image}{where}, "
            f"received {len(labels)}. Save one plane of labels for each plane of the image"
            f"{hint if len(image) > len(labels) else ''}."
        )
    if image.shape[1:3] != labels.shape[1:3]:
        raise ValueError(
            f"{pair.labels}: expected {_size(image)} pixels (height x width) as in {pair.image}, "
            f"received {_size(labels)}. Save the labels in the size of the image."
        )


def _refuse_empty(plane: _Plane, sample: Sample) -> None:
    if not sample.classes.any():
        received = "ignored pixels alone" if sample.ignored.all() else "background alone"
        raise ValueError(
            f"{plane.pair.labels}: expected labels of at least one cell in {plane.name}, received "
            f"{received} ({histogram_line(plane.labels)}). Remove the image and its labels, "
            "or allow empty labels (allow_empty) if it shows no cell."
        )


def _some_lines(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _UNUSED_LISTED
    return [*lines[:_UNUSED_LISTED], *([f"  and {more:,} more"] if more > 0 else [])]


def _count_instances(sample: Sample) -> int:
    return int(np.count_nonzero(np.unique(sample.instances)))


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[2]}"
