"""Pairs of images and label files in a folder.

Three layouts are known. Either `images/` and `labels/` (or `masks/` and others) hold files that are
paired by name, whatever their endings: `images/a.tif` with `labels/a.png` or `labels/a_mask.png`,
see `data.names`. Or the folder is laid out as in the Cell Tracking Challenge: `01/t000.tif` with
`01_GT/SEG/man_seg000.tif`, or with `01_GT/SEG/man_seg_000_003.tif` for plane 3 of a stack; frames
without annotation are passed over. Or one folder holds all: `a.tif` beside `a_mask.png`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_unet.console import counted, some
from keras_unet.data.images import image_files, is_hidden, stem_of
from keras_unet.data.lazy import is_zarr
from keras_unet.data.names import Ambiguous, image_of, labels_of, matched
from keras_unet.files import check_name, printable

_IMAGE_FOLDERS = ("images", "image", "imgs")
_LABEL_FOLDERS = ("labels", "label", "masks", "mask", "annotations", "gt")
_OTHER_IMAGE_FOLDERS = ("img", "raw", "inputs", "input")
_OTHER_LABEL_FOLDERS = (
    *("seg", "segmentation", "segmentations", "annotation", "ground_truth", "groundtruth"),
    *("ground-truth", "targets", "target"),
)
_OUTLINES = "not an image; if it holds outlines, draw them into a label image"
_NOT_READ = "a kind of image that is not read; save it as TIFF or PNG"
_REASONS = {
    **dict.fromkeys((".geojson", ".json", ".roi", ".xml", ".zip"), _OUTLINES),
    **dict.fromkeys((".avif", ".czi", ".dcm", ".h5", ".heic", ".ims", ".j2k", ".jp2"), _NOT_READ),
    **dict.fromkeys((".lif", ".mrc", ".nd2", ".nii", ".npy", ".npz", ".oib", ".oif"), _NOT_READ),
    **dict.fromkeys((".svg", ".vsi", ".webp"), _NOT_READ),
    ".gz": "packed; unpack it",
}
_FRAME = re.compile(r"t(\d+)\.(?:tiff?|btf|tf[28])", re.IGNORECASE)
_ANNOTATION = re.compile(r"man_seg_?(\d+)(?:_(\d+))?\.(?:tiff?|btf|tf[28])", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """An image and its labels.

    Attributes:
        name: Name of the sample; unique in its folder.
        image: The image file.
        labels: The label file.
        plane: Plane of the image that the labels belong to, from 0, or None for all planes.
        film: Name of the sequence of the Cell Tracking Challenge that it is of, or None.
    """

    name: str
    image: Path
    labels: Path
    plane: int | None = None
    film: str | None = None


@dataclass(frozen=True)
class Unused:
    """A file that is not used, or a folder.

    Attributes:
        path: The file.
        reason: Why, in a few words.
        usual: Whether that is as it should be, and nobody need be warned of it.
    """

    path: Path
    reason: str
    usual: bool = False

    @property
    def name(self) -> str:
        """The name with that of its folder, in which bytes that are not UTF-8 are escaped."""
        return printable(f"{self.path.parent.name}/{self.path.name}")

    def __str__(self) -> str:
        """Returns the name without its folder, and the reason."""
        return f"{printable(self.path.name)} ({self.reason})"


@dataclass(frozen=True)
class Pairs:
    """Result of `find_pairs`.

    Attributes:
        pairs: The pairs, by name, frames of a film in time.
        orphans: What of the folders is not used, and why; hidden files aside.
    """

    pairs: tuple[Pair, ...]
    orphans: tuple[Unused, ...]


def find_pairs(folder: Path) -> Pairs:
    """Finds the images and their label files, in any layout of this module.

    Args:
        folder: Folder that holds `images/` and `labels/` (or `masks/`), or, at any depth,
            sequences of the Cell Tracking Challenge, or images beside their labels.

    Returns:
        The pairs, by name, and what is not used.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: It is a file.
        ValueError: The folder has no such layout, nothing in it goes together, two files lay claim
            to the same name or partner, or a name is not UTF-8.
    """
    _refuse_no_folder(folder)
    found = _find(folder)
    for pair in found.pairs:
        check_name(pair.image)
        check_name(pair.labels)
    if not found.pairs:
        examples = ", ".join(one.name for one in found.orphans[:3])
        raise ValueError(
            f"{folder}: no image goes together with a label file. Expected the same name in both, "
            "for example images/a.tif and labels/a.png, or 01/t000.tif and "
            f"01_GT/SEG/man_seg000.tif. Received {examples or 'no image file'}."
        )
    return found


def files_by_stem(folder: Path) -> dict[str, Path]:
    """Finds the image files of a folder by their names without endings.

    Raises:
        ValueError: Two files lay claim to the same name, or a name is not UTF-8.
    """
    found: dict[str, Path] = {}
    for path in image_files(folder):
        check_name(path)
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


def plane_name(name: str, plane: int) -> str:
    """Names a plane, counted from 0, of the stack of that name.

    Examples:
        >>> plane_name("01_t007", 3)
        '01_t007_003'
    """
    return f"{name}_{plane:03d}"


def unused_in(folder: Path, used: Collection[Path]) -> Iterator[Unused]:
    """Says of what is in a folder why it is not used; hidden files are left out.

    Args:
        folder: The folder.
        used: Those of its files that are used.
    """
    images = set(image_files(folder))
    for path in sorted(set(folder.iterdir()) - set(used)):
        if not is_hidden(path):
            yield Unused(path, "no partner" if path in images else _why_no_image(path))


def label_folder(folder: Path) -> Path | None:
    """Finds `labels/`, `masks/` or the like in a folder; None where there is none.

    Raises:
        ValueError: There are two.
    """
    return _folder_called(folder, _LABEL_FOLDERS)


def called_labels(files: Iterable[Path]) -> dict[Path, Path]:
    """Finds files whose names call them labels of other files among them, whatever the case.

    Returns:
        For each of them the file that it is called the labels of.

    Example:
        >>> called_labels([Path("x.tif"), Path("X_mask.png"), Path("y_mask.png"), Path("mask.tif")])
        {...Path('X_mask.png'): ...Path('x.tif')}
    """
    stems = {path: stem_of(path) for path in sorted(files)}
    named = {of.casefold(): path for path, stem in stems.items() if (of := image_of(stem))}
    named |= {stem.casefold(): path for path, stem in stems.items()}
    called = {path: of.casefold() for path, stem in stems.items() if (of := labels_of(stem))}
    return {path: named[of] for path, of in called.items() if of in named}


def matched_files(
    folder: Path, images: Mapping[str, Path], labels: Mapping[str, Path]
) -> dict[str, str]:
    """Finds the labels of each image by their stems, as `data.names` does.

    Args:
        folder: The folder, for the message.
        images: Files of images by their stems.
        labels: Files of labels by their stems.

    Raises:
        ValueError: Two images or two labels lay claim to one another with equal right.
    """
    try:
        return matched(images, labels)
    except Ambiguous as error:
        raise ValueError(
            f"{folder}: expected one label file for one image, received "
            f"{_listed(images[stem] for stem in error.images)} with "
            f"{_listed(labels[stem] for stem in error.labels)}. Remove or rename what is too many."
        ) from None


def parted(files: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Parts images from labels that lie beside them, by the affixes of the latter's stems."""
    labels = {stem: path for stem, path in files.items() if labels_of(stem)}
    return {stem: path for stem, path in files.items() if stem not in labels}, labels


def _find(folder: Path) -> Pairs:
    images = _folder_called(folder, _IMAGE_FOLDERS, _OTHER_IMAGE_FOLDERS)
    labels = _folder_called(folder, _LABEL_FOLDERS, _OTHER_LABEL_FOLDERS)
    if images is not None and labels is not None:
        return _find_by_name(images, labels)
    if annotated := sorted(path for path in folder.rglob("*_GT/SEG") if path.is_dir()):
        return _find_sequences(folder, annotated)
    if images is not None or not any(labels_of(stem_of(path)) for path in image_files(folder)):
        _refuse_layout(folder)
    return _find_beside(folder)


def _folder_called(folder: Path, names: Sequence[str], others: Sequence[str] = ()) -> Path | None:
    """The folder of one of these names, in any case; of one of the others where there is none."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    found = [path for path in folders if path.name.lower() in names]
    found = found or [path for path in folders if path.name.lower() in others]
    if len(found) > 1:
        received = " and ".join(f"{path.name}/" for path in found)
        raise ValueError(
            f"{folder}: expected one folder of {names[0]}, received {received}. "
            "Move one of them elsewhere."
        )
    return found[0] if found else None


def _find_by_name(image_folder: Path, label_folder: Path) -> Pairs:
    images, labels = files_by_stem(image_folder), files_by_stem(label_folder)
    pairs = _paired(image_folder.parent, images, labels)
    orphans = [
        *unused_in(image_folder, [pair.image for pair in pairs]),
        *unused_in(label_folder, [pair.labels for pair in pairs]),
    ]
    return Pairs(pairs, tuple(orphans))


def _find_beside(folder: Path) -> Pairs:
    pairs = _paired(folder, *parted(files_by_stem(folder)))
    used = [path for pair in pairs for path in (pair.image, pair.labels)]
    return Pairs(pairs, tuple(unused_in(folder, used)))


def _paired(
    folder: Path, images: Mapping[str, Path], labels: Mapping[str, Path]
) -> tuple[Pair, ...]:
    partners = matched_files(folder, images, labels)
    return tuple(Pair(stem, images[stem], labels[partners[stem]]) for stem in sorted(partners))


def _listed(paths: Iterable[Path]) -> str:
    return " and ".join(f"{path.parent.name}/{path.name}" for path in paths)


def _has_both(folder: Path) -> bool:
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    return bool(names & set(_IMAGE_FOLDERS)) and bool(names & set(_LABEL_FOLDERS))


def _why_no_image(path: Path) -> str:
    if is_zarr(path):
        return "Zarr, which is not read in training; save it as TIFF"
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "a link that leads nowhere"
    return _REASONS.get(path.suffix.lower(), "not an image")


def _find_sequences(folder: Path, annotated: Iterable[Path]) -> Pairs:
    found = [_find_frames(folder, path) for path in annotated]
    return Pairs(
        tuple(pair for part in found for pair in part.pairs),
        tuple(one for part in found for one in part.orphans),
    )


def _find_frames(folder: Path, annotated: Path) -> Pairs:
    """Pairs the annotations in `<sequence>_GT/SEG` with the frames in `<sequence>`."""
    ground_truth = annotated.parent
    sequence = ground_truth.with_name(ground_truth.name.removesuffix("_GT"))
    prefix = "_".join(sequence.relative_to(folder).parts)
    frames = _frames_in(sequence) if sequence.is_dir() else {}
    pairs = []
    for number, plane, path in _annotations_in(annotated):
        if number in frames:
            name = f"{prefix}_{frames[number].stem}"
            name = name if plane is None else plane_name(name, plane)
            pairs.append(Pair(name, frames[number], path, plane, film=prefix))
    orphans = (*_frames_unused(sequence, frames, pairs), *_annotations_unused(annotated, pairs))
    return Pairs(tuple(pairs), orphans)


def _annotations_in(annotated: Path) -> list[tuple[int, int | None, Path]]:
    """Frame, plane and file of each annotation, in time."""
    named = ((annotated_frame(path), path) for path in sorted(annotated.iterdir()))
    found = [(*numbers, path) for numbers, path in named if numbers is not None]
    return sorted(found, key=lambda one: (one[0], -1 if one[1] is None else one[1]))


def _frames_unused(
    sequence: Path, frames: Mapping[int, Path], pairs: Iterable[Pair]
) -> Iterator[Unused]:
    """Counts frames without annotation, and names what is no frame."""
    number = len(set(frames.values()) - {pair.image for pair in pairs})
    if number:
        have = "has" if number == 1 else "have"
        reason = f"{counted(number, 'frame')} of {sequence.name} {have} no annotation"
        yield Unused(sequence, reason, usual=True)
    if sequence.is_dir():
        for one in unused_in(sequence, frames.values()):
            yield _renamed(one, "expected a name such as t000.tif")


def _annotations_unused(annotated: Path, pairs: Iterable[Pair]) -> Iterator[Unused]:
    for one in unused_in(annotated, [pair.labels for pair in pairs]):
        is_named = annotated_frame(one.path) is not None
        yield one if is_named else _renamed(one, "expected a name such as man_seg000.tif")


def _renamed(one: Unused, reason: str) -> Unused:
    """Says of an image what is wrong with its name, and leaves what is none."""
    return Unused(one.path, reason) if one.reason == "no partner" else one


def _frames_in(sequence: Path) -> Mapping[int, Path]:
    files = ((path, _FRAME.fullmatch(path.name)) for path in sorted(sequence.iterdir()))
    return {int(match[1]): path for path, match in files if match}


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
    inside = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and _has_both(path)]
    hint = f". Such folders are in {some([f'{name}/' for name in inside])}" if inside else ""
    raise ValueError(
        f"{folder}: expected images/ and labels/ (or masks/), or sequences of the Cell Tracking "
        "Challenge such as 01/ and 01_GT/SEG/, or a.tif beside a_mask.png. Received "
        f"{f'a folder with {shown}' if entries else 'an empty folder'}{hint}."
    )
