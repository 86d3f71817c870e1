"""Which prediction belongs to which label file.

Names go by file stem; `a_mask.tif` and the like (`data.names`) also belong to the prediction `a`.
Label files of the Cell Tracking Challenge, `man_seg000.tif`, belong to the prediction of their
frame: `t000.tif`, also called `01_t000.tif` as in training, `mask000.tif` as in the challenge's
results, or `man_seg000.tif` itself. Where several sequences are scored at once,
predictions need the sequence in front of their names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_unet.data.images import image_files
from keras_unet.data.names import image_of, labels_of
from keras_unet.data.pairs import annotated_frame, files_by_stem, label_folder, labels_beside
from keras_unet.jobs.outputs import owner_of

_FRAME = re.compile(r"(?P<sequence>.*?)(?:t|mask|man_seg_?)(?P<number>\d+)")
_LISTED = 3


@dataclass(frozen=True)
class Reference:
    """A label file, and what its prediction may be called.

    Attributes:
        name: Name of the image, in the scores.
        labels: The label file.
        keys: Stems of the prediction, frames without leading zeros; the first that exists counts.
        plane: Plane of the prediction that the labels belong to, from 0, or None for all.
    """

    name: str
    labels: Path
    keys: tuple[str, ...]
    plane: int | None = None


@dataclass(frozen=True)
class Scored:
    """A label file with its prediction.

    Attributes:
        reference: The label file.
        result: File of the label image.
        probabilities: File of the probabilities, or None where there is none.
    """

    reference: Reference
    result: Path
    probabilities: Path | None


def find_references(folder: Path) -> list[Reference]:
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
    found = [one for path in sequences for one in _frames(path, alone=len(sequences) == 1)]
    found = found or _named(_label_files(inner or folder))
    if not found:
        raise ValueError(f"{folder}: expected a folder of label images. Received one without any")
    return found


def pair(references: Sequence[Reference], predictions: Path) -> list[Scored]:
    """Finds the predictions of label files; those without one are left out.

    Args:
        references: The label files.
        predictions: Folder that `predict_files` wrote.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no prediction of any, or two files of one name.
    """
    _refuse_no_folder(predictions, "predictions")
    files = files_by_stem(predictions)
    results = {stem: path for stem, path in files.items() if owner_of(stem) not in files}
    by_key = _by_image(results, {one.keys[0] for one in references})
    by_key |= {_key(stem): stem for stem in results} | {stem: stem for stem in results}
    pairs = [
        Scored(one, results[stem], files.get(f"{stem}_probabilities"))
        for one in references
        for stem in [by_key[key] for key in one.keys if key in by_key][:1]
    ]
    if not pairs:
        raise ValueError(
            f"{predictions}: expected predictions named like the labels, for example "
            f"{references[0].keys[-1]}.tif for {references[0].labels}. "
            f"Received {', '.join(sorted(results)[:_LISTED]) or 'no image file'}"
        )
    return pairs


def _by_image(results: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Predictions of images such as `a_img` by what these show, where one alone may be meant."""
    shown = {stem: of for stem in results if stem not in taken and (of := image_of(stem))}
    times = Counter(shown.values())
    return {of: stem for stem, of in shown.items() if times[of] == 1}


def _label_files(folder: Path) -> dict[str, Path]:
    """Label files of a folder; those beside their images alone, unless outputs lie there."""
    files = files_by_stem(folder)
    if any(owner_of(stem) in files for stem in files):
        return files
    return labels_beside(folder, files) or files


def _named(files: Mapping[str, Path]) -> list[Reference]:
    """Label files that go by name: `a_mask` is also that of the prediction `a`."""
    bare = {stem: labels_of(stem) for stem in files}
    times = Counter(bare.values())
    return [
        Reference(stem, path, (stem, *([of] if of and of not in files and times[of] == 1 else [])))
        for (stem, path), of in zip(files.items(), bare.values(), strict=True)
    ]


def _annotated(folder: Path) -> list[Path]:
    """Finds the folders with annotations of the Cell Tracking Challenge, in sequence."""
    here = [path for path in (folder, folder / "SEG") if path.is_dir() and _has_annotations(path)]
    return here or sorted(path for path in folder.rglob("*_GT/SEG") if _has_annotations(path))


def _has_annotations(folder: Path) -> bool:
    return any(annotated_frame(path) for path in image_files(folder))


def _frames(folder: Path, *, alone: bool) -> list[Reference]:
    sequence = folder.resolve().parent.name.removesuffix("_GT")
    found = []
    for path in image_files(folder):
        if (numbers := annotated_frame(path)) is not None:
            frame, plane = numbers
            keys = (f"{sequence}_t{frame}", f"t{frame}") if alone else (f"{sequence}_t{frame}",)
            name = path.stem if alone else f"{sequence}_{path.stem}"
            found.append(Reference(name, path, keys, plane))
    return found


def _key(stem: str) -> str:
    """Returns how a reference asks for a frame: `01_t7` for `01_t007`, `t7` for `mask007`."""
    match = _FRAME.fullmatch(stem)
    return stem if match is None else f"{match['sequence']}t{int(match['number'])}"


def _refuse_no_folder(folder: Path, content: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of {content}. Received none there")
