"""Which files of a folder belong together: images and label files.

Two layouts are known. Either `images/` and `labels/` (or `masks/`) hold files that are paired by
name, whatever their endings: `images/a.tif` with `labels/a.png`. Or the folder is laid out as in
the Cell Tracking Challenge: `01/t000.tif` with `01_GT/SEG/man_seg000.tif`, or with
`01_GT/SEG/man_seg_000_003.tif` for plane 3 of a stack; frames without annotation are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_unet.data.images import image_files, stem_of

_FRAME = re.compile(r"t(\d+)\.tiff?", re.IGNORECASE)
_ANNOTATION = re.compile(r"man_seg_?(\d+)(?:_(\d+))?\.tiff?", re.IGNORECASE)


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


def plane_name(name: str, plane: int) -> str:
    """Names a plane, counted from 0, of the stack of that name.

    Examples:
        >>> plane_name("01_t007", 3)
        '01_t007_003'
    """
    return f"{name}_{plane:03d}"


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
    names = images.keys() & labels.keys()
    lonely = [files[name] for files in (images, labels) for name in files if name not in names]
    pairs = tuple(Pair(name, images[name], labels[name]) for name in sorted(names))
    return Pairs(pairs, tuple(lonely))


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
        name = name if plane is None else plane_name(name, plane)
        pairs.append(Pair(name, frames[number], path, plane))
    return Pairs(tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(orphans))


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
    raise ValueError(
        f"{folder}: expected images/ and labels/ (or masks/), or sequences of the Cell Tracking "
        "Challenge such as 01/ and 01_GT/SEG/. Received "
        f"{f'a folder with {shown}' if entries else 'an empty folder'}."
    )
