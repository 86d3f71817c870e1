"""From pairs of files to samples: images and labels read, checked and described, and split.

An image and its labels become one sample, a stack one sample a plane. What the labels mean is
found out over the whole folder.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, some, track
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import as_channels, is_grey, pixels_of, read_image
from keras_unet.data.label_consistency import check_same_conventions, differing_conventions
from keras_unet.data.labels import (
    LabelFile,
    check_labels,
    detect_encoding,
    histogram_line,
    read_labels,
)
from keras_unet.data.pairs import Pair, Pairs, Unused, find_pairs, plane_name
from keras_unet.data.stacks import axes_in_words, in_order_of
from keras_unet.data.tiff_planes import files_of_set, repeated_in
from keras_unet.files import PathLike

_SIZES_LISTED = 3
_ORPHANS_LISTED = 20
_NAMES_LISTED = 20
_SEVERAL = 3  # stacks


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated image.

    Attributes:
        name: Name, unique in the data set.
        image: Grey values as in the file, `(height, width, channels)`.
        classes: Semantic map `(height, width)`.
        instances: Label image `(height, width)`, 0 is background.
        ignored: Pixels that are not to count, `(height, width)`.
        stack: Name of the stack that it is a plane of, or of the film that it is of; else None.
    """

    name: str
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32]
    ignored: NDArray[np.bool_]
    stack: str | None = None


@dataclass(frozen=True)
class Samples:
    """A data set.

    Attributes:
        samples: The annotated images, by name.
        encoding: What the numbers in the label files mean.
        channels: Number of channels of every image.
        dtype: What the image files hold, for example `"uint16"`.
        orphans: What of the folder is not used, and why.
        notes: Axes of stacks, and what was read otherwise than stored, one line each.
    """

    samples: tuple[Sample, ...]
    encoding: LabelEncoding
    channels: int
    dtype: str
    orphans: tuple[Unused, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Describes the data set to a person, in a few lines."""
        lines = (
            f"{counted(len(self.samples), 'image')} of {self._sizes()} pixels (height x width)",
            f"grey values: {self.dtype}, {counted(self.channels, 'channel')}",
            f"labels: {self._labels()}",
            f"share of pixels: {self._shares()}",
            f"instances: {sum(_instances_in(sample) for sample in self.samples):,} in total",
            *self.notes,
            *self._orphans(),
        )
        return "\n".join(lines)

    def _sizes(self) -> str:
        sizes = sorted({sample.classes.shape for sample in self.samples})
        shown = [f"{height} x {width}" for height, width in sizes]
        if len(sizes) <= _SIZES_LISTED:
            return ", ".join(shown)
        return f"{shown[0]} to {shown[-1]}"

    def _labels(self) -> str:
        ignore = "" if self.encoding.ignore is None else f"; {self.encoding.ignore} is ignored"
        if self.encoding.kind == "instances":
            return f"instances, one number a cell, 0 is background{ignore}"
        return f"classes with values {', '.join(map(str, self.encoding.values))}{ignore}"

    def _shares(self) -> str:
        counts = np.zeros(self.encoding.classes, int)
        for sample in self.samples:
            counts += np.bincount(sample.classes[~sample.ignored], minlength=counts.size)
        total = sum(sample.classes.size for sample in self.samples)
        shares = dict(zip(self._names(), counts.tolist(), strict=True))
        if counts.sum() < total:
            shares["ignored"] = total - counts.sum()
        return ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in shares.items())

    def _names(self) -> list[str]:
        if self.encoding.kind == "instances":
            return ["background", "cells"]
        return [f"value {value}" for value in self.encoding.values]

    def _orphans(self) -> list[str]:
        usual = [f"not used: {one.reason}" for one in self.orphans if one.usual]
        named = [f"  {one.name}: {one.reason}" for one in self.orphans if not one.usual]
        head = [f"not used: {counted(len(named), 'file')}"] if named else []
        return [*_some_lines(usual), *head, *_some_lines(named)]


def read_samples(
    folder: PathLike,
    *,
    labels: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    allow_empty: bool = False,
    axes: str | None = None,
) -> Samples:
    """Reads all images of a folder and their labels. Nothing is scaled or resized.

    Each plane of a stack becomes a sample. Where all images are grey, one channel is kept.

    Args:
        folder: Folder as `find_pairs` knows it.
        labels: What the label files hold: `"classes"`, `"instances"`, or `"auto"` to find out.
        ignore: Value in the label files of pixels that are not to count, or None.
        allow_empty: Whether labels may be background throughout.
        axes: Axes of image files that state none, or others, such as "YXC".

    Returns:
        The data set, by name.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: It is a file.
        ValueError: Files do not go together, cannot be read, or hold no images and labels.
    """
    folder = Path(folder)
    found = _each_once(find_pairs(folder))
    raw = [
        plane for pair in track(found.pairs, "reading images") for plane in _read_pair(pair, axes)
    ]
    files = list({plane.pair.labels: plane.file for plane in raw}.items())
    if labels != "instances":
        check_same_conventions(files)
    _refuse_same_names([plane.name for plane in raw], folder)
    notes = (*_notes(raw), *differing_conventions(files))
    return _samples(raw, labels, ignore, allow_empty, found.orphans, notes)


def samples_of_arrays(
    images: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    *,
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    allow_empty: bool = False,
) -> Samples:
    """Makes a data set of arrays, by the rules for files.

    Args:
        images: Grey values as measured, each `(height, width)` or `(height, width, channels)`.
        labels: Label images, whole numbers from 0, each `(height, width)`.
        kind: What the labels hold: `"classes"`, `"instances"`, or `"auto"` to find out.
        ignore: Value in the labels of pixels that are not to count, or None.
        allow_empty: Whether labels may be background throughout.

    Returns:
        The data set; samples are named by their places, "0", "1" and so on.

    Raises:
        ValueError: The arrays do not go together, or are no images and labels.
    """
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            "images and labels must be of equal number, at least one. Received: "
            f"{counted(len(images), 'image')} and {len(labels)} labels"
        )
    raw = [
        _plane_of(*arrays, number) for number, arrays in enumerate(zip(images, labels, strict=True))
    ]
    return _samples(raw, kind, ignore, allow_empty, (), ())


def _plane_of(image: NDArray[Any], labels: NDArray[Any], number: int) -> _Plane:
    pair = Pair(str(number), Path(f"images[{number}]"), Path(f"labels[{number}]"))
    pixels, truth = np.asarray(image), np.asarray(labels)
    pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    truth = truth[..., 0] if truth.ndim == 3 and truth.shape[-1] == 1 else truth
    if pixels.ndim != 3 or truth.ndim != 2 or not truth.size:
        raise ValueError(
            f"{pair.image} and {pair.labels} must be of shape (height, width) or (height, width, "
            "channels), and (height, width), with at least one pixel. Received: "
            f"{np.shape(image)} and {np.shape(labels)}"
        )
    _refuse_different_sizes(pair, pixels[np.newaxis], truth[np.newaxis])
    file = LabelFile(check_labels(pair.labels, truth[np.newaxis, ..., np.newaxis]), (), (), {}, "")
    return _Plane(pair.name, pair, pixels, file.labels[0], file, (), None)


def _samples(
    raw: Sequence[_Plane],
    labels: Kind | Literal["auto"],
    ignore: int | None,
    allow_empty: bool,
    orphans: tuple[Unused, ...],
    notes: tuple[str, ...],
) -> Samples:
    channels = _common_channels(raw)
    encoding = detect_encoding(
        [(str(plane.pair.labels), plane.labels) for plane in raw], kind=labels, ignore=ignore
    )
    samples = tuple(_sample(plane, encoding, channels) for plane in track(raw, "checking labels"))
    if not allow_empty:
        for plane, sample in zip(raw, samples, strict=True):
            _refuse_empty(plane, sample)
        if labels == "auto":
            _refuse_inverted(raw, samples, encoding)
    dtype = ", ".join(sorted({plane.image.dtype.name for plane in raw}))
    return Samples(samples, encoding, channels, dtype, orphans, notes)


def split(
    samples: Sequence[Sample], validation: float | Sequence[str], seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Holds samples out for validation.

    Args:
        samples: The samples; the order of each part is theirs.
        validation: Share to hold out, at least 0 and less than 1, drawn at random: at least one
            sample unless the share is 0, and never all. Planes of a stack and frames of a film are
            neighbors that look alike: whole stacks are held out where there are three or more, and
            planes at the end of one where there are fewer. Or the names to hold out.
        seed: Seed of the draw. The same seed and samples give the same parts.

    Returns:
        Samples for training and samples for validation.

    Raises:
        ValueError: The share is out of range, a name is unknown, or none is left for training.
    """
    if isinstance(validation, int | float):
        check_share(validation)
        held_out = _drawn([sample.stack for sample in samples], validation, seed)
    else:
        held_out = _named([sample.name for sample in samples], validation)
    training = tuple(sample for i, sample in enumerate(samples) if i not in held_out)
    return training, tuple(sample for i, sample in enumerate(samples) if i in held_out)


def check_share(validation: float) -> None:
    """Refuses what is no share of samples to hold out.

    Raises:
        ValueError: The share is not at least 0 and less than 1.
    """
    if not 0 <= validation < 1:
        raise ValueError(
            "validation must be a share of at least 0 and less than 1, or the names to hold out. "
            f"Received {validation}."
        )


@dataclass(frozen=True, eq=False)
class _Plane:
    """One plane as the files have it: image `(height, width, channels)`, labels."""

    name: str
    pair: Pair
    image: NDArray[Any]
    labels: NDArray[np.int32]
    file: LabelFile
    notes: tuple[str, ...]
    stack: str | None


def _each_once(found: Pairs) -> Pairs:
    """Leaves out images that are parts of an image of another pair, and says so."""
    repeated = repeated_in(pair.image for pair in found.pairs)
    kept = tuple(
        pair for pair in found.pairs if pair.image not in repeated or pair.plane is not None
    )
    left = [pair for pair in found.pairs if pair not in kept]
    orphans = [
        Unused(path, f"part of the image that begins in {repeated[pair.image].name}")
        for pair in left
        for path in (pair.image, pair.labels)
    ]
    return Pairs(kept, (*found.orphans, *orphans))


def _read_pair(pair: Pair, axes: str | None) -> Iterable[_Plane]:
    read, file = read_image(pair.image, palette="colors", axes=axes), read_labels(pair.labels)
    image = _annotated_planes(pair, read.planes)
    labels = file.labels
    if pair.plane is None and len(labels) == len(image):
        model, stored = (pair.image, read.stack), (pair.labels, file.stack)
        labels = in_order_of(model, stored, labels, "labels")
    _refuse_different_sizes(pair, image, labels)
    single = len(image) == 1
    stack = pair.film or (None if single else pair.name)
    axes_read = () if single else (f"read as planes along {axes_in_words(read.stack)}",)
    notes = (*axes_read, *read.notes)
    return [
        _Plane(
            pair.name if single else plane_name(pair.name, i),
            pair,
            image[i],
            labels[i],
            file,
            notes,
            stack,
        )
        for i in range(len(image))
    ]


def _notes(raw: Sequence[_Plane]) -> tuple[str, ...]:
    """Lists what was read otherwise than stored, files of one note together."""
    files: dict[str, dict[str, None]] = defaultdict(dict)
    for plane in raw:
        for path, notes in ((plane.pair.image, plane.notes), (plane.pair.labels, plane.file.notes)):
            for note in notes:
                files[note][f"{path.parent.name}/{path.name}"] = None
    return tuple(f"{some(list(names))}: {note}" for note, names in files.items())


def _refuse_inverted(
    raw: Sequence[_Plane], samples: Sequence[Sample], encoding: LabelEncoding
) -> None:
    """Refuses masks of two values in some of which the values have changed places.

    That is so where what is marked covers less than half of some images and is brighter there, and
    more than half of others and is darker there, or the other way round.
    """
    if encoding.kind != "classes" or encoding.classes != 2:
        return
    sides: dict[tuple[bool, bool], list[str]] = defaultdict(list)
    for plane, sample in zip(raw, samples, strict=True):
        marked, other = sample.classes == 1, (sample.classes == 0) & ~sample.ignored
        if marked.any() and other.any():
            is_brighter = sample.image[marked].mean() > sample.image[other].mean()
            sides[bool(marked.sum() > other.sum()), bool(is_brighter)].append(
                str(plane.pair.labels)
            )
    if len(sides) != 2:
        return
    (first, names), (second, others) = sides.items()
    if first[0] != second[0] and first[1] != second[1]:
        few, many = sorted((names, others), key=len)
        raise ValueError(
            f"{few[0]}: expected value {encoding.values[1]} to mark what it marks in {many[0]}. "
            f"Received the opposite in {counted(len(few), 'mask')} of {len(few) + len(many)}: the "
            "larger and darker part there is the smaller and brighter here. Invert these masks, or "
            "say --labels classes if they are right"
        )


def _annotated_planes(pair: Pair, image: NDArray[Any]) -> NDArray[Any]:
    if pair.plane is None:
        return image
    if pair.plane >= len(image):
        raise ValueError(
            f"{pair.labels}: labels plane {pair.plane}, counted from 0, but {pair.image} has "
            f"{counted(len(image), 'plane')}. Correct the name of the label file."
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


def _sample(plane: _Plane, encoding: LabelEncoding, channels: int) -> Sample:
    image = as_channels(plane.image, channels, plane.pair.image)
    return Sample(
        name=plane.name,
        image=pixels_of(image, plane.pair.image),
        classes=encoding.to_classes(plane.labels),
        instances=encoding.to_instances(plane.labels),
        ignored=encoding.ignored(plane.labels),
        stack=plane.stack,
    )


def _drawn(stacks: Sequence[str | None], share: float, seed: int) -> set[int]:
    """Draws images and whole stacks, by their places; of one or two stacks, planes at an end."""
    total = len(stacks)
    if share == 0 or total < 2:
        return set()
    count = min(max(1, round(share * total)), total - 1)
    groups: dict[object, list[int]] = defaultdict(list)
    for place, stack in enumerate(stacks):
        groups[place if stack is None else stack].append(place)
    if len(groups) == 1:
        return set(range(total - count, total))
    order = np.random.default_rng(seed).permutation(len(groups))
    drawn = [list(groups.values())[number] for number in order]
    held_out: list[int] = []
    for group in drawn:
        if len(held_out) + len(group) <= count:
            held_out += group
    if not held_out and len(groups) < _SEVERAL:  # a whole stack would be half of the images
        held_out = drawn[0][-count:]
    return set(held_out or min(drawn, key=len))


def _named(names: Sequence[str], wanted: Sequence[str]) -> set[int]:
    known, held_out = set(names), {unicodedata.normalize("NFC", name) for name in wanted}
    unknown = sorted(held_out - known)
    if unknown:
        raise ValueError(
            f"validation must name samples that exist. Received {', '.join(unknown)}; "
            f"there are {', '.join(names[:_NAMES_LISTED])}"
            f"{', ...' if len(names) > _NAMES_LISTED else '.'}"
        )
    if known <= held_out:
        raise ValueError(
            f"validation must leave samples to train on. Received all {len(names)}; name fewer."
        )
    return {i for i, name in enumerate(names) if name in held_out}


def _refuse_same_names(names: Sequence[str], folder: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"{folder}: expected every sample to have its own name, received {twice[0]} twice. "
            "Rename one of the files."
        )


def _refuse_different_sizes(pair: Pair, image: NDArray[Any], labels: NDArray[np.int32]) -> None:
    if len(image) != len(labels):
        files = len(files_of_set(pair.image))
        where = f" (an image in {files} files)" if files > 1 else ""
        ways = "; if its planes are channels, say --axes, for example CYX or YXC"
        raise ValueError(
            f"{pair.labels}: expected {counted(len(image), 'plane')} as in {pair.image}{where}, "
            f"received {len(labels)}. Save one plane of labels for each plane of the image"
            f"{ways if len(image) > len(labels) else ''}."
        )
    if image.shape[1:3] != labels.shape[1:3]:
        raise ValueError(
            f"{pair.labels}: expected {_size(image)} pixels (height x width) as in {pair.image}, "
            f"received {_size(labels)}. Nothing is resized; save the labels in the image's size."
        )


def _refuse_empty(plane: _Plane, sample: Sample) -> None:
    if not sample.classes.any():
        received = "nothing but ignored pixels" if sample.ignored.all() else "background alone"
        raise ValueError(
            f"{plane.pair.labels}: expected labels of at least one cell in {plane.name}, received "
            f"{received} ({histogram_line(plane.labels)}). Remove the image and its labels, "
            "or allow empty labels (allow_empty) if there truly is none."
        )


def _some_lines(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _ORPHANS_LISTED
    return [*lines[:_ORPHANS_LISTED], *([f"  and {more:,} more"] if more > 0 else [])]


def _instances_in(sample: Sample) -> int:
    return int(np.count_nonzero(np.unique(sample.instances)))


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[2]}"
