"""Pairing of predictions with label files by name.

Names are matched as in training (`keras_unet.data.names`): `a.tif`, `a_mask.tif` and the like match
the prediction `a`. Files in the label folder whose names are not those of labels are left out.
Label files of the Cell Tracking Challenge, `man_seg000.tif`, match the prediction of their frame:
`t000.tif`, `01_t000.tif` as in training, `mask000.tif` as in the challenge's results, or
`man_seg000.tif` itself. If several sequences are scored at once, the names of predictions must
begin with the sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_unet.data.images import image_files
from keras_unet.data.names import strip_label_affix
from keras_unet.data.pairs import (
    Unused,
    annotated_frame,
    files_by_stem,
    label_folder,
    map_labels_to_images,
    match_files,
    split_labels,
)
from keras_unet.files import is_own
from keras_unet.prediction.outputs import owner_of

_FRAME = re.compile(r"(?P<sequence>.*?)(?:t|mask|man_seg_?)(?P<number>\d+)", re.IGNORECASE)
_LISTED = 3


@dataclass(frozen=True)
class LabelImage:
    """A label file and the possible names of its prediction.

    Attributes:
        name: Name of the image in the scores.
        labels: Path of the label file.
        frame: Stems of the prediction of a frame, without leading zeros, in order of preference;
            empty for labels that are matched by name.
        plane: Plane of the prediction that is labeled, from 0; None for all.
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
        left_out: Files in the folder whose names are not those of labels, with the reason.
    """

    files: tuple[LabelImage, ...]
    left_out: tuple[Unused, ...] = ()


@dataclass(frozen=True)
class FilePair:
    """A label file with its prediction.

    Attributes:
        reference: The label file.
        result: Path of the predicted label image.
        probabilities: Path of the predicted probabilities, or None.
    """

    reference: LabelImage
    result: Path
    probabilities: Path | None


def find_label_images(folder: Path) -> LabelImages:
    """Finds the label files in a folder, in its `labels/` or `masks/`, or in its sequences.

    Args:
        folder: Folder of label files, a data folder, or one of the Cell Tracking Challenge:
            `01_GT/SEG`, `01_GT`, or the folder of all sequences.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no label file, or two of one name.
    """
    _check_folder(folder, "label images")
    inner = label_folder(folder)
    sequences = [] if inner else _annotated(folder)
    frames = [frame for path in sequences for frame in _frames(path, is_single=len(sequences) == 1)]
    if frames:
        return LabelImages(tuple(frames))
    files = files_by_stem(inner or folder)
    outputs = _outputs_in(files)
    others = {stem: path for stem, path in files.items() if stem not in outputs}
    left_out = outputs | ({} if inner else _images_in(others))
    named = tuple(LabelImage(stem, files[stem]) for stem in files if stem not in left_out)
    if not named:
        raise ValueError(f"{folder}: expected a folder of label images. Received one without any")
    return LabelImages(
        named, tuple(Unused(files[stem], reason) for stem, reason in left_out.items())
    )


def pair_files(
    references: Sequence[LabelImage], predictions: Path, content: str = "predictions"
) -> list[FilePair]:
    """Finds the predictions of label files; label files without a prediction are left out.

    Args:
        references: The label files.
        predictions: Folder that `predict_files` wrote, or of other files of the same names.
        content: Content of the folder, for messages.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no prediction of any label file, two files of one name, or the
            pairing is ambiguous.
    """
    _check_folder(predictions, content)
    files = files_by_stem(predictions)
    results = {stem: path for stem, path in files.items() if owner_of(stem) not in files}
    stems = _match_frames(references, results) | _match_names(references, results, predictions)
    if not stems:
        raise ValueError(
            f"{predictions}: expected {content} named like the labels, for example "
            f"{_example(references[0])}.tif for {references[0].labels}. "
            f"Received {', '.join(sorted(results)[:_LISTED]) or 'no image file'}"
        )
    return [
        FilePair(label, results[stems[label]], files.get(f"{stems[label]}_probabilities"))
        for label in references
        if label in stems
    ]


def _match_frames(
    references: Iterable[LabelImage], results: Mapping[str, Path]
) -> dict[LabelImage, str]:
    by_key: dict[str, list[str]] = {}
    for stem in results:
        by_key.setdefault(_frame_key(stem), []).append(stem)
    matches = {label: [by_key[key] for key in label.frame if key in by_key] for label in references}
    return {label: _single(stems[0], label, results) for label, stems in matches.items() if stems}


def _single(stems: Sequence[str], reference: LabelImage, results: Mapping[str, Path]) -> str:
    if len(stems) > 1:
        raise ValueError(
            f"{reference.labels}: expected one prediction of this frame. Received "
            f"{' and '.join(str(results[stem]) for stem in stems)}; remove all but one"
        )
    return stems[0]


def _match_names(
    references: Iterable[LabelImage], results: Mapping[str, Path], folder: Path
) -> dict[LabelImage, str]:
    named = {label.name: label for label in references if not label.frame}
    labels = {stem: label.labels for stem, label in named.items()}
    return {named[label]: stem for stem, label in match_files(folder, results, labels).items()}


def _example(reference: LabelImage) -> str:
    return (reference.frame or (strip_label_affix(reference.name) or reference.name,))[-1]


def _outputs_in(files: Mapping[str, Path]) -> dict[str, str]:
    """Returns the reasons to leave out outputs of keras-unet that are not label images, by stem."""
    owners = {stem: files.get(owner_of(stem) or "") for stem in files}
    return {
        stem: f"an output that belongs to {owner.name}"
        for stem, owner in owners.items()
        if owner is not None and is_own(owner) and is_own(files[stem])
    }


def _images_in(files: Mapping[str, Path]) -> dict[str, str]:
    """Returns the reasons to leave out images in a folder of images and labels, by stem."""
    images, _ = split_labels(files)
    labels_of_image = {image: path for path, image in map_labels_to_images(files.values()).items()}
    if labels_of_image.keys().isdisjoint(images.values()):
        return {}
    return {stem: _reason(labels_of_image.get(path)) for stem, path in images.items()}


def _reason(labels: Path | None) -> str:
    return (
        "its name is not that of a label file" if labels is None else f"the image of {labels.name}"
    )


def _annotated(folder: Path) -> list[Path]:
    """Finds the folders with annotations of the Cell Tracking Challenge."""
    folders = [
        path for path in (folder, folder / "SEG") if path.is_dir() and _has_annotations(path)
    ]
    return folders or sorted(path for path in folder.rglob("*_GT/SEG") if _has_annotations(path))


def _has_annotations(folder: Path) -> bool:
    return any(annotated_frame(path) for path in image_files(folder))


def _frames(folder: Path, *, is_single: bool) -> list[LabelImage]:
    sequence = folder.resolve().parent.name.removesuffix("_GT")
    labels = []
    for path in image_files(folder):
        if (numbers := annotated_frame(path)) is not None:
            frame, plane = numbers
            stems = (f"{sequence}_t{frame}", *([f"t{frame}"] if is_single else []))
            name = path.stem if is_single else f"{sequence}_{path.stem}"
            labels.append(LabelImage(name, path, stems, plane))
    return labels


def _frame_key(stem: str) -> str:
    """Returns the stem as in `LabelImage.frame`: `01_t7` for `01_t007`, `t7` for `mask007`."""
    match = _FRAME.fullmatch(stem)
    return stem if match is None else f"{match['sequence']}t{int(match['number'])}"


def _check_folder(folder: Path, content: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of {content}. Received none there")
