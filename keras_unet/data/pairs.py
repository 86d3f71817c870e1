"""Pairs of images and label files in a folder.

Three layouts are supported:

- `images/` and `labels/` (or `masks/` and others), with files paired by name without ending:
  `images/a.tif` with `labels/a.png` or `labels/a_mask.png`, see `data.names`.
- The Cell Tracking Challenge: `01/t000.tif` with `01_GT/SEG/man_seg000.tif`, or with
  `01_GT/SEG/man_seg_000_003.tif` for plane 3 of a stack. Frames without annotation are skipped.
- One folder: `a.tif` beside `a_mask.png`.

In the first and the last, outlines of other programs (`data.annotations`) take the place of label
images that are missing: `a.tif` with `a.geojson`.
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_unet.console import counted, some
from keras_unet.data.images import image_files, is_hidden, stem_of
from keras_unet.data.lazy import is_zarr
from keras_unet.data.names import (
    AmbiguousNamesError,
    match_names,
    strip_image_affix,
    strip_label_affix,
)
from keras_unet.data.object_classes import CLASSES
from keras_unet.data.scenes import file_of
from keras_unet.files import check_name, printable

_IMAGE_FOLDERS = ("images", "image", "imgs")
_LABEL_FOLDERS = ("labels", "label", "masks", "mask", "annotations", "gt")
_OTHER_IMAGE_FOLDERS = ("img", "raw", "inputs", "input")
_OTHER_LABEL_FOLDERS = (
    *("seg", "segmentation", "segmentations", "annotation", "ground_truth", "groundtruth"),
    *("ground-truth", "targets", "target"),
)
_OUTLINES = "without outlines that can be read: ROIs of ImageJ, GeoJSON, LabelMe"
_UNSUPPORTED = "an unsupported image format; save it as TIFF or PNG"
_REASONS = {
    **dict.fromkeys((".geojson", ".json", ".roi", ".zip"), _OUTLINES),
    ".xml": "not an image; convert outlines to a label image, or to GeoJSON",
    **dict.fromkeys((".avif", ".dcm", ".h5", ".heic", ".ims", ".j2k", ".jp2"), _UNSUPPORTED),
    **dict.fromkeys((".mrc", ".nii", ".npy", ".npz", ".oib", ".oif"), _UNSUPPORTED),
    **dict.fromkeys((".svg", ".vsi", ".webp"), _UNSUPPORTED),
    ".gz": "a compressed file; decompress it",
}
_WORDS_OF_JSON = (b'"shapes"', b'"geometry"', b'"segmentation"')
_FRAME = re.compile(r"t(\d+)\.(?:tiff?|btf|tf[28])", re.IGNORECASE)
_ANNOTATION = re.compile(r"man_seg_?(\d+)(?:_(\d+))?\.(?:tiff?|btf|tf[28])", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """Image file and label file.

    Attributes:
        name: Name of the sample; unique in its folder.
        image: Path of the image file.
        labels: Path of the label file.
        plane: Plane of the image that the labels belong to, from 0, or None for all planes.
        sequence: Name of the Cell Tracking Challenge sequence of the image, or None.
    """

    name: str
    image: Path
    labels: Path
    plane: int | None = None
    sequence: str | None = None


@dataclass(frozen=True)
class Unused:
    """File or folder that is not used.

    Attributes:
        path: Path of the file.
        reason: Reason in a few words.
        is_expected: Whether the file is unused by design, so that no warning is needed.
    """

    path: Path
    reason: str
    is_expected: bool = False

    @property
    def name(self) -> str:
        """Name of the folder and the file, with bytes that are not UTF-8 escaped."""
        return printable(f"{self.path.parent.name}/{self.path.name}")

    def __str__(self) -> str:
        """Returns the name of the file and the reason."""
        return f"{printable(self.path.name)} ({self.reason})"


@dataclass(frozen=True)
class Pairs:
    """Result of `find_pairs`.

    Attributes:
        pairs: The pairs, sorted by name, frames of a sequence by time.
        unused: Unused files except hidden ones, with reasons.
    """

    pairs: tuple[Pair, ...]
    unused: tuple[Unused, ...]


def find_pairs(folder: Path) -> Pairs:
    """Finds images and their label files in any layout of this module.

    Args:
        folder: Folder with `images/` and `labels/` (or `masks/`), with sequences of the Cell
            Tracking Challenge at any depth, or with images beside their labels.

    Returns:
        The pairs, sorted by name, and the unused files.

    Raises:
        FileNotFoundError: If there is no such folder.
        NotADirectoryError: If `folder` is a file.
        ValueError: If the folder has no such layout or no pair, two files have the same name or
            partner, or a name is not UTF-8.
    """
    _refuse_no_folder(folder)
    found = _find(folder)
    for pair in found.pairs:
        check_name(pair.image)
        check_name(pair.labels)
    if not found.pairs:
        examples = ", ".join(file.name for file in found.unused[:3])
        raise ValueError(
            f"{folder}: no image matches a label file. Expected the same name for both, for "
            "example images/a.tif and labels/a.png, or 01/t000.tif and "
            f"01_GT/SEG/man_seg000.tif. Received {examples or 'no image file'}."
        )
    return found


def files_by_stem(folder: Path) -> dict[str, Path]:
    """Returns the image files of a folder by their names without endings.

    Raises:
        ValueError: If two files have the same name without ending, or a name is not UTF-8.
    """
    files: dict[str, Path] = {}
    for path in image_files(folder):
        check_name(path)
        other = files.setdefault(stem_of(path), path)
        if other is not path:
            raise ValueError(
                f"{folder}: expected names that differ without ending, received {other.name} and "
                f"{path.name}. Remove or rename one of them."
            )
    return files


def annotation_files(folder: Path) -> dict[str, Path]:
    """Returns the files of annotations of a folder by their stems, see `data.annotations`.

    Of several files of one stem, the first one counts.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_hidden(path) and is_annotation(path):
            files.setdefault(path.stem, path)
    return files


def is_annotation(path: Path) -> bool:
    """Returns whether a file holds ROIs of ImageJ, GeoJSON, or JSON of COCO or LabelMe."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".roi", ".zip", ".geojson", ".json"):
        return False
    try:
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return any(name.lower().endswith(".roi") for name in archive.namelist())
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,  # may be large
        ):
            if suffix == ".roi":
                return content[:4] == b"Iout"
            return any(content.find(word) >= 0 for word in _WORDS_OF_JSON)
    except (OSError, ValueError, zipfile.BadZipFile):  # not readable, empty, or no archive
        return False


def annotated_frame(path: Path) -> tuple[int, int | None] | None:
    """Reads the annotated frame and plane from the name of a file.

    Returns:
        The numbers in the names `man_seg000.tif` (plane None) and `man_seg_000_003.tif` of the Cell
        Tracking Challenge; None for other names.

    Example:
        >>> annotated_frame(Path("man_seg007.tif")), annotated_frame(Path("man_seg_007_003.tif"))
        ((7, None), (7, 3))
    """
    match = _ANNOTATION.fullmatch(path.name)
    if match is None:
        return None
    return int(match[1]), None if match[2] is None else int(match[2])


def plane_name(name: str, plane: int) -> str:
    """Returns the name of a plane, counted from 0, of a stack.

    Examples:
        >>> plane_name("01_t007", 3)
        '01_t007_003'
    """
    return f"{name}_{plane:03d}"


def unused_in(folder: Path, used: Collection[Path]) -> Iterator[Unused]:
    """Yields the unused files of a folder with reasons, except hidden ones.

    Args:
        folder: The folder.
        used: Its files that are used.
    """
    images = set(image_files(folder))
    others = set(folder.iterdir()) - {file_of(path) for path in images}
    for path in sorted((others | images) - set(used)):
        if not is_hidden(path):
            is_alone = path in images or is_annotation(path)
            yield Unused(path, "no partner" if is_alone else _reason_unused(path))


def label_folder(folder: Path) -> Path | None:
    """Finds the subfolder `labels/`, `masks/` or similar; None if there is none.

    Raises:
        ValueError: If there are two.
    """
    return _find_folder(folder, _LABEL_FOLDERS)


def map_labels_to_images(files: Iterable[Path]) -> dict[Path, Path]:
    """Finds files that are labels of others by their names, ignoring case.

    Returns:
        For each label file, the file that it labels.

    Example:
        >>> files = map(Path, ("x.tif", "X_mask.png", "y_mask.png", "mask.tif"))
        >>> map_labels_to_images(files)
        {...Path('X_mask.png'): ...Path('x.tif')}
    """
    stems = {path: stem_of(path) for path in sorted(files)}
    images = {
        name.casefold(): path for path, stem in stems.items() if (name := strip_image_affix(stem))
    }
    images |= {stem.casefold(): path for path, stem in stems.items()}
    labels = {
        path: name.casefold() for path, stem in stems.items() if (name := strip_label_affix(stem))
    }
    return {path: images[name] for path, name in labels.items() if name in images}


def match_files(
    folder: Path, images: Mapping[str, Path], labels: Mapping[str, Path]
) -> dict[str, str]:
    """Finds the labels of each image by their stems, see `match_names`.

    Args:
        folder: The folder, for the message.
        images: Image files by stem.
        labels: Label files by stem.

    Returns:
        Stems of the labels of each image that has some.

    Raises:
        ValueError: If several images or labels match equally well.
    """
    try:
        return match_names(images, labels)
    except AmbiguousNamesError as error:
        raise ValueError(
            f"{folder}: expected one label file for one image, received "
            f"{_list_paths(images[stem] for stem in error.images)} with "
            f"{_list_paths(labels[stem] for stem in error.labels)}. Remove or rename the others."
        ) from None


def split_labels(files: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Splits the files of a folder into images and labels, by the affixes of their stems."""
    labels = {stem: path for stem, path in files.items() if strip_label_affix(stem)}
    return {stem: path for stem, path in files.items() if stem not in labels}, labels


def _find(folder: Path) -> Pairs:
    images = _find_folder(folder, _IMAGE_FOLDERS, _OTHER_IMAGE_FOLDERS)
    labels = _find_folder(folder, _LABEL_FOLDERS, _OTHER_LABEL_FOLDERS)
    if images is not None and labels is not None:
        return _find_by_name(images, labels)
    if annotated := sorted(path for path in folder.rglob("*_GT/SEG") if path.is_dir()):
        return _find_sequences(folder, annotated)
    has_labels = any(strip_label_affix(stem_of(path)) for path in image_files(folder))
    if images is not None or not (has_labels or annotation_files(folder)):
        _refuse_layout(folder)
    return _find_beside(folder)


def _find_folder(folder: Path, names: Sequence[str], others: Sequence[str] = ()) -> Path | None:
    """Finds a subfolder by the first names or, if there is none, the others, ignoring case."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    found = [path for path in folders if path.name.lower() in names]
    found = found or [path for path in folders if path.name.lower() in others]
    if len(found) > 1:
        received = " and ".join(f"{path.name}/" for path in found)
        raise ValueError(
            f"{folder}: expected one folder of {names[0]}, received {received}. "
            "Move one of them out of the folder."
        )
    return found[0] if found else None


def _find_by_name(image_folder: Path, label_folder: Path) -> Pairs:
    images, labels = files_by_stem(image_folder), files_by_stem(label_folder)
    pairs = _pair_files(image_folder.parent, images, labels, annotation_files(label_folder))
    unused = [
        *unused_in(image_folder, [pair.image for pair in pairs]),
        *unused_in(label_folder, [label_folder / CLASSES, *(pair.labels for pair in pairs)]),
    ]
    return Pairs(pairs, tuple(unused))


def _find_beside(folder: Path) -> Pairs:
    files = split_labels(files_by_stem(folder))
    pairs = _pair_files(folder, *files, annotation_files(folder))
    used = [path for pair in pairs for path in (pair.image, pair.labels)]
    return Pairs(pairs, tuple(unused_in(folder, [folder / CLASSES, *used])))


def _pair_files(
    folder: Path,
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    annotations: Mapping[str, Path],
) -> tuple[Pair, ...]:
    """Pairs images with their label images, and those without with annotations."""
    partners = match_files(folder, images, labels)
    others = {stem: path for stem, path in images.items() if stem not in partners}
    outlined = match_files(folder, others, annotations)
    found = {stem: labels[partner] for stem, partner in partners.items()}
    found |= {stem: annotations[partner] for stem, partner in outlined.items()}
    return tuple(Pair(stem, images[stem], found[stem]) for stem in sorted(found))


def _list_paths(paths: Iterable[Path]) -> str:
    return " and ".join(f"{path.parent.name}/{path.name}" for path in paths)


def _is_data_folder(folder: Path) -> bool:
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    return bool(names & set(_IMAGE_FOLDERS)) and bool(names & set(_LABEL_FOLDERS))


def _reason_unused(path: Path) -> str:
    if is_zarr(path):
        return "Zarr, which training does not read; save it as TIFF"
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "a broken link"
    return _REASONS.get(path.suffix.lower(), "not an image")


def _find_sequences(folder: Path, annotated: Iterable[Path]) -> Pairs:
    sequences = [_find_frames(folder, path) for path in annotated]
    return Pairs(
        tuple(pair for sequence in sequences for pair in sequence.pairs),
        tuple(file for sequence in sequences for file in sequence.unused),
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
            pairs.append(Pair(name, frames[number], path, plane, sequence=prefix))
    unused = (*_unused_frames(sequence, frames, pairs), *_unused_annotations(annotated, pairs))
    return Pairs(tuple(pairs), unused)


def _annotations_in(annotated: Path) -> list[tuple[int, int | None, Path]]:
    """Lists frame, plane and file of each annotation, sorted by frame and plane."""
    files = ((annotated_frame(path), path) for path in sorted(annotated.iterdir()))
    annotations = [(*numbers, path) for numbers, path in files if numbers is not None]
    return sorted(annotations, key=lambda entry: (entry[0], -1 if entry[1] is None else entry[1]))


def _unused_frames(
    sequence: Path, frames: Mapping[int, Path], pairs: Iterable[Pair]
) -> Iterator[Unused]:
    """Yields the number of frames without annotation, and each file that is no frame."""
    number = len(set(frames.values()) - {pair.image for pair in pairs})
    if number:
        have = "has" if number == 1 else "have"
        reason = f"{counted(number, 'frame')} of {sequence.name} {have} no annotation"
        yield Unused(sequence, reason, is_expected=True)
    if sequence.is_dir():
        for file in unused_in(sequence, frames.values()):
            yield _with_name_reason(file, "expected a name such as t000.tif")


def _unused_annotations(annotated: Path, pairs: Iterable[Pair]) -> Iterator[Unused]:
    for file in unused_in(annotated, [annotated / CLASSES, *(pair.labels for pair in pairs)]):
        is_annotation = annotated_frame(file.path) is not None
        name_reason = "expected a name such as man_seg000.tif"
        yield file if is_annotation else _with_name_reason(file, name_reason)


def _with_name_reason(file: Unused, reason: str) -> Unused:
    """Replaces the reason if the file is an image."""
    return Unused(file.path, reason) if file.reason == "no partner" else file


def _frames_in(sequence: Path) -> Mapping[int, Path]:
    files = ((path, _FRAME.fullmatch(path.name)) for path in sorted(sequence.iterdir()))
    return {int(match[1]): path for path, match in files if match}


def _refuse_no_folder(folder: Path) -> None:
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder. Expected one with images/ and labels/.")
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{folder}: expected a folder with images/ and labels/, received a file."
        )


def _refuse_layout(folder: Path) -> None:
    entries = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "")
    subfolders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    inside = [f"{path.name}/" for path in subfolders if _is_data_folder(path)]
    hint = f". Such folders are in {some(inside)}" if inside else ""
    raise ValueError(
        f"{folder}: expected images/ and labels/ (or masks/), or sequences of the Cell Tracking "
        "Challenge such as 01/ and 01_GT/SEG/, or a.tif beside a_mask.png. Received "
        f"{f'a folder with {shown}' if entries else 'an empty folder'}{hint}."
    )
