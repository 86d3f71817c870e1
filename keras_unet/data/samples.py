"""From a folder of images and label files to samples.

Two layouts are known. Either `images/` and `labels/` (or `masks/`) hold files that are paired by
name, whatever their endings: `images/a.tif` with `labels/a.png`. Or the folder is laid out as in
the Cell Tracking Challenge: `01/t000.tif` with `01_GT/SEG/man_seg000.tif`, or with
`01_GT/SEG/man_seg_000_003.tif` for plane 3 of a stack; frames without annotation are passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import (
    as_channels,
    image_files,
    is_grey,
    pixels_of,
    read_planes,
    stem_of,
)
from keras_unet.data.labels import (
    Kind,
    LabelScheme,
    check_labels,
    detect_scheme,
    histogram_line,
)

_FRAME = re.compile(r"t(\d+)\.tiff?", re.IGNORECASE)
_ANNOTATION = re.compile(r"man_seg_?(\d+)(?:_(\d+))?\.tiff?", re.IGNORECASE)
_SIZES_LISTED = 3


@dataclass(frozen=True)
class Pair:
    """An image and its labels.

    Attributes:
        name: Name of the sample; unique in its folder.
        image: The image file.
        labels: The label file.
        plane: Plane of the image that the labels belong to, from 0, or None for all planes.
    """

    name: str
    image: Path
    labels: Path
    plane: int | None = None


@dataclass(frozen=True)
class Pairs:
    """What `find_pairs` found.

    Attributes:
        pairs: The pairs, by name.
        orphans: Files without a partner.
    """

    pairs: tuple[Pair, ...]
    orphans: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated image.

    Attributes:
        name: Name, unique in the data set.
        image: Grey values as in the file, `(height, width, channels)`.
        classes: Semantic map `(height, width)`.
        instances: Label image `(height, width)`, 0 is background.
        ignored: Pixels that are not to count, `(height, width)`.
    """

    name: str
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class Samples:
    """A data set.

    Attributes:
        samples: The annotated images, by name.
        scheme: What the numbers in the label files mean.
        channels: Number of channels of every image.
        dtype: What the image files hold, for example `"uint16"`.
        orphans: Files that were passed over, having no partner.
    """

    samples: tuple[Sample, ...]
    scheme: LabelScheme
    channels: int
    dtype: str
    orphans: tuple[Path, ...]

    def describe(self) -> str:
        """Describes the data set to a person, in a few lines."""
        lines = (
            f"{_count(len(self.samples), 'image')} of {self._sizes()} pixels (height x width)",
            f"grey values: {self.dtype}, {_count(self.channels, 'channel')}",
            f"labels: {self._labels()}",
            f"share of pixels: {self._shares()}",
            f"instances: {sum(_instances_in(sample) for sample in self.samples):,} in total",
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
        ignore = "" if self.scheme.ignore is None else f"; {self.scheme.ignore} is ignored"
        if self.scheme.kind == "instances":
            return f"instances, one number a cell, 0 is background{ignore}"
        return f"classes with values {', '.join(map(str, self.scheme.values))}{ignore}"

    def _shares(self) -> str:
        counts = np.zeros(self.scheme.classes, int)
        for sample in self.samples:
            counts += np.bincount(sample.classes[~sample.ignored], minlength=counts.size)
        total = sum(sample.classes.size for sample in self.samples)
        shares = dict(zip(self._names(), counts.tolist(), strict=True))
        if counts.sum() < total:
            shares["ignored"] = total - counts.sum()
        return ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in shares.items())

    def _names(self) -> list[str]:
        if self.scheme.kind == "instances":
            return ["background", "cells"]
        return [f"value {value}" for value in self.scheme.values]

    def _orphans(self) -> list[str]:
        if not self.orphans:
            return []
        head = f"passed over, having no partner: {_count(len(self.orphans), 'file')}"
        return [head, *(f"  {path.parent.name}/{path.name}" for path in self.orphans)]


def find_pairs(folder: Path) -> Pairs:
    """Finds the images and their label files, in either layout of this module.

    Args:
        folder: Folder that holds `images/` and `labels/` (or `masks/`), or, at any depth,
            sequences of the Cell Tracking Challenge.

    Returns:
        The pairs, by name, and the files that have no partner.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: It is a file.
        ValueError: The folder has neither layout, nothing in it goes together, or two files lay
            claim to the same name.
    """
    _refuse_no_folder(folder)
    found = _find_by_name(folder) if _label_folders(folder) else _find_sequences(folder)
    if not found.pairs:
        examples = ", ".join(f"{path.parent.name}/{path.name}" for path in found.orphans[:3])
        raise ValueError(
            f"{folder}: no image goes together with a label file. Expected the same name in both, "
            "for example images/a.tif and labels/a.png, or 01/t000.tif and "
            f"01_GT/SEG/man_seg000.tif. Received {examples or 'no image file'}."
        )
    return found


def files_by_stem(folder: Path) -> dict[str, Path]:
    """Finds the image files of a folder by their names without endings.

    Raises:
        ValueError: Two files lay claim to the same name.
    """
    found: dict[str, Path] = {}
    for path in image_files(folder):
        other = found.setdefault(stem_of(path), path)
        if other is not path:
            raise ValueError(
                f"{folder}: expected one file a name, received {other.name} and {path.name}. "
                "Remove or rename one of them."
            )
    return found


def annotated_frame(path: Path) -> tuple[int, int | None] | None:
    """Tells which frame, and which plane of it, a file annotates.

    Returns:
        The numbers in the name `man_seg000.tif` or `man_seg_000_003.tif` of the Cell Tracking
        Challenge, None for the plane where it names none; None for any other name.

    Example:
        >>> annotated_frame(Path("man_seg007.tif")), annotated_frame(Path("man_seg_007_003.tif"))
        ((7, None), (7, 3))
    """
    match = _ANNOTATION.fullmatch(path.name)
    if match is None:
        return None
    return int(match[1]), None if match[2] is None else int(match[2])


def read_samples(
    folder: Path,
    *,
    labels: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    allow_empty: bool = False,
) -> Samples:
    """Reads all images of a folder and their labels. Nothing is scaled or resized.

    Each plane of a stack becomes a sample. Where all images are grey, one channel is kept.

    Args:
        folder: Folder as `find_pairs` knows it.
        labels: What the label files hold: `"classes"`, `"instances"`, or `"auto"` to find out.
        ignore: Value in the label files of pixels that are not to count, or None.
        allow_empty: Whether labels may be background throughout.

    Returns:
        The data set, by name.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: It is a file.
        ValueError: Files do not go together, cannot be read, or hold no images and labels.
    """
    found = find_pairs(folder)
    raw = [plane for pair in found.pairs for plane in _read_pair(pair)]
    _refuse_same_names([plane.name for plane in raw], folder)
    channels = _common_channels(raw)
    scheme = detect_scheme(
        [(str(plane.pair.labels), plane.labels) for plane in raw], kind=labels, ignore=ignore
    )
    samples = tuple(_sample(plane, scheme, channels) for plane in raw)
    if not allow_empty:
        for plane, sample in zip(raw, samples, strict=True):
            _refuse_empty(plane, sample)
    dtype = ", ".join(sorted({plane.image.dtype.name for plane in raw}))
    return Samples(samples, scheme, channels, dtype, found.orphans)


def split(
    samples: Sequence[Sample], validation: float | Sequence[str], seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Holds samples out for validation.

    Args:
        samples: The samples; the order of each part is theirs.
        validation: Share to hold out, at least 0 and less than 1, drawn at random: at least one
            sample unless the share is 0, and never all. Or the names to hold out.
        seed: Seed of the draw. The same seed and samples give the same parts.

    Returns:
        Samples for training and samples for validation.

    Raises:
        ValueError: The share is out of range, a name is unknown, or none is left for training.
    """
    if isinstance(validation, int | float):
        check_share(validation)
        held_out = _drawn(len(samples), validation, seed)
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


def _label_folders(folder: Path) -> list[Path]:
    """The folders beside `images/` that may hold labels; none where there is no `images/`."""
    if not (folder / "images").is_dir():
        return []
    return [folder / name for name in ("labels", "masks") if (folder / name).is_dir()]


def _find_by_name(folder: Path) -> Pairs:
    label_folders = _label_folders(folder)
    if len(label_folders) > 1:
        raise ValueError(
            f"{folder}: expected one folder of labels, received labels/ and masks/. "
            "Move one of them elsewhere."
        )
    images, labels = files_by_stem(folder / "images"), files_by_stem(label_folders[0])
    names = sorted(images.keys() & labels.keys())
    lonely = [files[name] for files in (images, labels) for name in files if name not in names]
    return Pairs(tuple(Pair(name, images[name], labels[name]) for name in names), tuple(lonely))


def _find_sequences(folder: Path) -> Pairs:
    annotated = sorted(path for path in folder.rglob("*_GT/SEG") if path.is_dir())
    if not annotated:
        _refuse_layout(folder)
    found = [_find_frames(folder, path) for path in annotated]
    return Pairs(
        tuple(pair for part in found for pair in part.pairs),
        tuple(path for part in found for path in part.orphans),
    )


def _find_frames(folder: Path, annotated: Path) -> Pairs:
    """Pairs the annotations in `<sequence>_GT/SEG` with the frames in `<sequence>`."""
    ground_truth = annotated.parent
    sequence = ground_truth.with_name(ground_truth.name.removesuffix("_GT"))
    prefix = "_".join(sequence.relative_to(folder).parts)
    frames = _frames_in(sequence) if sequence.is_dir() else {}
    pairs, orphans = [], []
    for path in sorted(annotated.iterdir()):
        if (numbers := annotated_frame(path)) is None:
            continue
        number, plane = numbers
        if number not in frames:
            orphans.append(path)
            continue
        name = f"{prefix}_{frames[number].stem}"
        name = name if plane is None else _of(name, plane)
        pairs.append(Pair(name, frames[number], path, plane))
    return Pairs(tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(orphans))


def _frames_in(sequence: Path) -> Mapping[int, Path]:
    files = ((path, _FRAME.fullmatch(path.name)) for path in sorted(sequence.iterdir()))
    return {int(match[1]): path for path, match in files if match}


def _of(name: str, plane: int) -> str:
    return f"{name}_{plane:03d}"


def _read_pair(pair: Pair) -> Iterable[_Plane]:
    image = _annotated_planes(pair, read_planes(pair.image, palette="colours"))
    labels = check_labels(pair.labels, read_planes(pair.labels))
    _refuse_different_sizes(pair, image, labels)
    if len(image) == 1:
        return [_Plane(pair.name, pair, image[0], labels[0])]
    return [_Plane(_of(pair.name, i), pair, image[i], labels[i]) for i in range(len(image))]


def _annotated_planes(pair: Pair, image: NDArray[Any]) -> NDArray[Any]:
    if pair.plane is None:
        return image
    if pair.plane >= len(image):
        raise ValueError(
            f"{pair.labels}: labels plane {pair.plane}, counted from 0, but {pair.image} has "
            f"{_count(len(image), 'plane')}. Correct the name of the label file."
        )
    return image[pair.plane : pair.plane + 1]


def _common_channels(raw: Sequence[_Plane]) -> int:
    if all(is_grey(plane.image) for plane in raw):
        return 1
    expected = int(raw[0].image.shape[-1])
    for plane in raw:
        if plane.image.shape[-1] != expected:
            raise ValueError(
                f"{plane.pair.image}: expected {_count(expected, 'channel')} as in "
                f"{raw[0].pair.image.name}, received {plane.image.shape[-1]}. Convert the images "
                "so that all have the same channels."
            )
    return expected


def _sample(plane: _Plane, scheme: LabelScheme, channels: int) -> Sample:
    image = as_channels(plane.image, channels, plane.pair.image)
    return Sample(
        name=plane.name,
        image=pixels_of(image, plane.pair.image),
        classes=scheme.to_classes(plane.labels),
        instances=scheme.to_instances(plane.labels),
        ignored=scheme.ignored(plane.labels),
    )


def _drawn(total: int, share: float, seed: int) -> set[int]:
    if share == 0:
        return set()
    count = min(max(1, round(share * total)), total - 1)
    return set(np.random.default_rng(seed).permutation(total)[: max(count, 0)].tolist())


def _named(names: Sequence[str], wanted: Sequence[str]) -> set[int]:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ValueError(
            f"validation must name samples that exist. Received {', '.join(unknown)}; "
            f"there are {', '.join(names)}."
        )
    if set(names) <= set(wanted):
        raise ValueError(
            f"validation must leave samples to train on. Received all {len(names)}; name fewer."
        )
    return {i for i, name in enumerate(names) if name in wanted}


def _refuse_no_folder(folder: Path) -> None:
    if not folder.exists():
        raise FileNotFoundError(
            f"{folder}: no such folder. Expected one with images/ and labels/ in it."
        )
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{folder}: expected a folder with images/ and labels/ in it, received a file."
        )


def _refuse_layout(folder: Path) -> None:
    entries = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "")
    raise ValueError(
        f"{folder}: expected images/ and labels/ (or masks/), or sequences of the Cell Tracking "
        "Challenge such as 01/ and 01_GT/SEG/. Received "
        f"{f'a folder with {shown}' if entries else 'an empty folder'}."
    )


def _refuse_same_names(names: Sequence[str], folder: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"{folder}: expected every sample to have its own name, received {twice[0]} twice. "
            "Rename one of the files."
        )


def _refuse_different_sizes(pair: Pair, image: NDArray[Any], labels: NDArray[np.int32]) -> None:
    if len(image) != len(labels):
        raise ValueError(
            f"{pair.labels}: expected {_count(len(image), 'plane')} as in {pair.image}, received "
            f"{len(labels)}. Save one plane of labels for each plane of the image."
        )
    if image.shape[1:3] != labels.shape[1:3]:
        raise ValueError(
            f"{pair.labels}: expected {_size(image)} pixels (height x width) as in {pair.image}, "
            f"received {_size(labels)}. Nothing is resized; save the labels in the image's size."
        )


def _refuse_empty(plane: _Plane, sample: Sample) -> None:
    if not sample.classes.any():
        raise ValueError(
            f"{plane.pair.labels}: expected labels of at least one cell in {plane.name}, received "
            f"background alone ({histogram_line(plane.labels)}). Remove the image and its labels, "
            "or allow empty labels (allow_empty) if there truly is none."
        )


def _instances_in(sample: Sample) -> int:
    return int(np.count_nonzero(np.unique(sample.instances)))


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[2]}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
