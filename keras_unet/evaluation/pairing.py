"""Pairs of predictions and label files.

Names are matched as in training (`data.names`): `a.tif`, `a_mask.tif` and the like belong to the
prediction `a`. What lies among labels and is none by its name is left out. Label files of the Cell
Tracking Challenge, `man_seg000.tif`, belong to the prediction of their frame: `t000.tif`, also
called `01_t000.tif` as in training, `mask000.tif` as in the challenge's results, or
`man_seg000.tif` itself. Where several sequences are scored at once, predictions need the sequence
in front of their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_unet.data.images import image_files
from keras_unet.data.names import labels_of
from keras_unet.data.pairs import (
    Unused,
    annotated_frame,
    called_labels,
    files_by_stem,
    label_folder,
    matched_files,
    parted,
)
from keras_unet.files import is_own
from keras_unet.prediction.outputs import owner_of

_FRAME = re.compile(r"(?P<sequence>.*?)(?:t|mask|man_seg_?)(?P<number>\d+)", re.IGNORECASE)
_LISTED = 3


@dataclass(frozen=True)
class LabelImage:
    """A label file, and what its prediction may be called.

    Attributes:
        name: Name of the image, in the scores.
        labels: The label file.
        frame: Stems of the prediction of a frame, without leading zeros; the first that exists
            counts. Empty for labels that go by their name.
        plane: Plane of the prediction that the labels belong to, from 0, or None for all.
    """

    name: str
    labels: Path
    frame: tuple[str, ...] = ()
    plane: int | None = None


@dataclass(frozen=True)
class LabelImages:
    """Result of `find_label_images`.

    Attributes:
        files: The label files.
        left_out: Images that lie among them and are no labels by their names, and why.
    """

    files: tuple[LabelImage, ...]
    left_out: tuple[Unused, ...] = ()


@dataclass(frozen=True)
class FilePair:
    """A label file with its prediction.

    Attributes:
        reference: The label file.
        result: File of the label image.
        probabilities: File of the probabilities, or None where there is none.
    """

    reference: LabelImage
    result: Path
    probabilities: Path | None


def find_label_images(folder: Path) -> LabelImages:
    """Finds the label files in a folder, in its `labels/` or `masks/`, or of sequences in it.

    Args:
        folder: Folder of label files, a data folder, or one of the Cell Tracking Challenge:
            `01_GT/SEG`, `01_GT`, or the folder of all sequences.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no label file, or two of one name.
    """
    _refuse_no_folder(folder, "label images")
    inner = label_folder(folder)
    sequences = [] if inner else _annotated(folder)
    frames = [one for path in sequences for one in _frames(path, alone=len(sequences) == 1)]
    if frames:
        return LabelImages(tuple(frames))
    files = files_by_stem(inner or folder)
    outputs = _outputs_in(files)
    others = {stem: path for stem, path in files.items() if stem not in outputs}
    left_out = outputs | ({} if inner else _images_in(others))
    named = tuple(LabelImage(stem, files[stem]) for stem in files if stem not in left_out)
    if not named:
        raise ValueError(f"{folder}: expected a folder of label images. Received one without any")
    return LabelImages(named, tuple(Unused(files[stem], why) for stem, why in left_out.items()))


def pair(references: Sequence[LabelImage], predictions: Path) -> list[FilePair]:
    """Finds the predictions of label files; those without one are left out.

    Args:
        references: The label files.
        predictions: Folder that `predict_files` wrote.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no prediction of any, two files of one name, or two that lay claim to one
            label file, or the other way round.
    """
    _refuse_no_folder(predictions, "predictions")
    files = files_by_stem(predictions)
    results = {stem: path for stem, path in files.items() if owner_of(stem) not in files}
    found = _by_frame(references, results) | _by_name(references, results, predictions)
    if not found:
        raise ValueError(
            f"{predictions}: expected predictions named like the labels, for example "
            f"{_example(references[0])}.tif for {references[0].labels}. "
            f"Received {', '.join(sorted(results)[:_LISTED]) or 'no image file'}"
        )
    return [
        FilePair(one, results[found[one]], files.get(f"{found[one]}_probabilities"))
        for one in references
        if one in found
    ]


def _by_frame(
    references: Iterable[LabelImage], results: Mapping[str, Path]
) -> dict[LabelImage, str]:
    """Predictions of frames, by the number in their stems."""
    by_key: dict[str, list[str]] = {}
    for stem in results:
        by_key.setdefault(_key(stem), []).append(stem)
    found = {one: [by_key[key] for key in one.frame if key in by_key] for one in references}
    return {one: _only(stems[0], one, results) for one, stems in found.items() if stems}


def _only(stems: Sequence[str], reference: LabelImage, results: Mapping[str, Path]) -> str:
    if len(stems) > 1:
        raise ValueError(
            f"{reference.labels}: expected one prediction of this frame. Received "
            f"{' and '.join(str(results[stem]) for stem in stems)}; remove all but one"
        )
    return stems[0]


def _by_name(
    references: Iterable[LabelImage], results: Mapping[str, Path], folder: Path
) -> dict[LabelImage, str]:
    """Predictions of labels that go by their name, as training pairs images with these."""
    named = {one.name: one for one in references if not one.frame}
    labels = {stem: one.labels for stem, one in named.items()}
    return {named[label]: stem for stem, label in matched_files(folder, results, labels).items()}


def _example(reference: LabelImage) -> str:
    return (reference.frame or (labels_of(reference.name) or reference.name,))[-1]


def _outputs_in(files: Mapping[str, Path]) -> dict[str, str]:
    """Lists outputs of this program that are no labels, by their stems, with the reason."""
    owners = {stem: files.get(owner_of(stem) or "") for stem in files}
    return {
        stem: f"an output that belongs to {owner.name}"
        for stem, owner in owners.items()
        if owner is not None and is_own(owner) and is_own(files[stem])
    }


def _images_in(files: Mapping[str, Path]) -> dict[str, str]:
    """Lists images beside their labels that are no labels, by their stems, with the reason."""
    images, _ = parted(files)
    labels_of_image = {image: path for path, image in called_labels(files.values()).items()}
    if labels_of_image.keys().isdisjoint(images.values()):
        return {}
    return {stem: _why_no_labels(labels_of_image.get(path)) for stem, path in images.items()}


def _why_no_labels(labels: Path | None) -> str:
    return "no label file by its name" if labels is None else f"the image of {labels.name}"


def _annotated(folder: Path) -> list[Path]:
    """Finds the folders with annotations of the Cell Tracking Challenge, in sequence."""
    here = [path for path in (folder, folder / "SEG") if path.is_dir() and _has_annotations(path)]
    return here or sorted(path for path in folder.rglob("*_GT/SEG") if _has_annotations(path))


def _has_annotations(folder: Path) -> bool:
    return any(annotated_frame(path) for path in image_files(folder))


def _frames(folder: Path, *, alone: bool) -> list[LabelImage]:
    sequence = folder.resolve().parent.name.removesuffix("_GT")
    found = []
    for path in image_files(folder):
        if (numbers := annotated_frame(path)) is not None:
            frame, plane = numbers
            stems = (f"{sequence}_t{frame}", *([f"t{frame}"] if alone else []))
            name = path.stem if alone else f"{sequence}_{path.stem}"
            found.append(LabelImage(name, path, stems, plane))
    return found


def _key(stem: str) -> str:
    """Returns how a reference asks for a frame: `01_t7` for `01_t007`, `t7` for `mask007`."""
    match = _FRAME.fullmatch(stem)
    return stem if match is None else f"{match['sequence']}t{int(match['number'])}"


def _refuse_no_folder(folder: Path, content: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of {content}. Received none there")
