"""Checks for ambiguous label files.

Each check refuses a set of label files whose numbers have more than one likely meaning, and names
the option that settles it. The checks are skipped where `kind` is given. Ambiguous are:

- the same few numbers in every image, of which one encloses another (a nucleus in a cell), or all
  touch (layers), or there are at most three in three or more images (strokes);
- one number that covers most of every image, as the background does;
- two conventions, such as the same classes in two scales (0 and 1 in some files and 0 and 255 in
  others, or 0, 1, 2 and 0, 127, 255), or cells numbered in some files and all alike in others;
- 255 beside small numbers, which may be a class, a cell, or pixels to ignore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.encoding import Kind
from keras_unet.data.regions import Regions, mostly

MOST_CLASSES_DETECTED = 16
"""Largest number of values that are detected as classes."""

_FEW_VALUES = 3
_FEW_FILES = 3
_FEW_PIECES = 3
_FEW_LEVELS = 5
_HALF = 0.5
_FULL_SCALES = (255, 65_535)
_HINT = "set --labels classes or --labels instances (evaluate: --labels-hold)"


def check_meaning(
    labels: Sequence[tuple[Regions, NDArray[Any]]], values: Sequence[int], ignore: int | None
) -> None:
    """Refuses ambiguous label files.

    Args:
        labels: Regions of each label image, and its integers `(height, width)`.
        values: All values in the images, ascending, without the value to ignore.
        ignore: Value of ignored pixels, or None.

    Raises:
        ValueError: If the labels are ambiguous; the message names a file, the reason and the
            option to set.
    """
    labels = [(regions, array) for regions, array in labels if regions.values.size]
    files = [regions for regions, _ in labels]
    _refuse_two_scales(files, values)
    _refuse_two_backgrounds(files)
    _refuse_mixture(files)
    _refuse_large_number(files, values)
    _refuse_full_scale(files, values)
    _refuse_edges(labels, ignore)
    _refuse_mostly_numbered(files, values)
    _refuse_levels(labels, values, ignore)
    _refuse_unclear(files, values, [array for _, array in labels], ignore)


def kind_of(files: Sequence[Regions], values: Sequence[int]) -> Kind:
    """Returns the kind of labels by rules 3 to 5 of `data.labels`."""
    if len(values) <= 2:
        return "classes"
    return "instances" if mostly(np.concatenate([file.whole for file in files])) else "classes"


def kind_in_part(files: Sequence[Regions], values: Sequence[int], background: int) -> Kind:
    """Returns the kind of labels of images that are labelled in part.

    The strokes of a class are in several pieces; an object is in one, as in images that are
    labelled completely.

    Args:
        files: Regions of each label image, without unlabelled pixels.
        values: All values in the images, ascending.
        background: Value of the background if the labels hold instances.

    Raises:
        ValueError: If the same few values, each in one piece, occur in every image.
    """
    whole = np.concatenate([file.whole_besides(background) for file in files])
    if len(values) <= 2 or not mostly(whole):
        return "classes"
    drawn = [set(file.values.tolist()) - {background} for file in files if file.values.size]
    if len(drawn[0]) <= _FEW_VALUES and all(numbers == drawn[0] for numbers in drawn):
        raise ValueError(
            f"{files[0].name}: expected strokes of classes or numbered cells, which labels in part "
            "do not always tell apart. Received the same few values in every label image: "
            f"{', '.join(map(str, values))}; {_HINT}"
        )
    return "instances"


def _refuse_two_scales(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses the same classes saved as 0, 1, ... in some files and up to 255 in others."""
    scales = _split_scales(values)
    scales_of_files = [[scale for scale in scales if scale & _values(file)] for file in files]
    if not scales or any(len(of_file) > 1 for of_file in scales_of_files):
        return
    first, second = (
        next(file for file, of_file in zip(files, scales_of_files, strict=True) if scale in of_file)
        for scale in (scales[0], scales[-1])
    )
    raise ValueError(
        f"{first.name}: expected one convention in all label files. Received values "
        f"{_list_values(scales[0])} in it, {_list_values(scales[-1])} in {second.name}, most "
        "likely the same structure saved in two ways. Save all masks alike; if all these numbers "
        "are different classes, set --labels classes"
    )


def _split_scales(values: Sequence[int]) -> list[set[int]]:
    """Splits values without 0 into two scales; none if they have one scale."""
    half, marks = len(values) // 2, set(values[1:])
    if values[0] == 0 and len(marks) > 1 and marks <= {1, *_FULL_SCALES}:
        return [{mark} for mark in sorted(marks)]
    return [set(values[1 : half + 1]), set(values[half + 1 :])] if _has_two_scales(values) else []


def _has_two_scales(values: Sequence[int]) -> bool:
    """Returns whether values are 0, 1 ... n and n values evenly spaced up to white."""
    half, white = len(values) // 2, values[-1]
    if white not in _FULL_SCALES or len(values) != 2 * half + 1:
        return False
    is_consecutive = list(values[: half + 1]) == list(range(half + 1))
    return is_consecutive and all(
        abs(value - white * number / half) <= 1
        for number, value in enumerate(values[half + 1 :], start=1)
    )


def _values(file: Regions) -> set[int]:
    return set(file.values.tolist())


def _list_values(numbers: set[int]) -> str:
    *others, last = map(str, sorted({0, *numbers}))
    return f"{', '.join(others)} and {last}"


def _refuse_two_backgrounds(files: Sequence[Regions]) -> None:
    """Refuses masks of two values with different values for the background."""
    if any(file.values.size > 2 for file in files):
        return
    lowest: dict[int, Regions] = {}
    for file in files:
        if file.values.size == 2:
            lowest.setdefault(int(file.values[0]), file)
    if len(lowest) < 2:
        return
    first, second = (lowest[value] for value in sorted(lowest)[:2])
    raise ValueError(
        f"{second.name}: expected one convention in all label files. Received values "
        f"{_two_values(second)} in it, {_two_values(first)} in {first.name}, most likely the same "
        "structure saved in two ways. Save all masks alike; if each number is a class, set "
        "--labels classes"
    )


def _two_values(file: Regions) -> str:
    return " and ".join(map(str, file.values.tolist()))


def _refuse_full_scale(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses 255 beside small numbers, which often marks pixels to ignore."""
    full, others = values[-1], list(values[:-1])
    if full not in _FULL_SCALES or len(others) < 2 or others[-1] == full - 1:
        return
    with_full = [file for file in files if full in file.values]
    in_pieces = sum(not _is_whole(file, full) for file in with_full)
    is_consecutive = others == list(range(others[0], others[-1] + 1)) and others[0] <= 1
    is_edge = 2 * in_pieces >= len(with_full) and _numbers_cells(with_full, full)
    if not is_consecutive and not is_edge:
        return
    raise ValueError(
        f"{with_full[0].name}: its values are {others[0]} to {others[-1]} and {full}, which often "
        f"marks edges or pixels to ignore. Set --ignore {full} to ignore these pixels; otherwise "
        f"{_HINT}"
    )


def _refuse_edges(labels: Sequence[tuple[Regions, NDArray[Any]]], ignore: int | None) -> None:
    """Refuses a number in pieces between numbers of one piece each, as edges have."""
    edges = [_edge_number(file, array, ignore) for file, array in labels]
    for number in sorted({edge for edge in edges if edge is not None}):
        with_number = [file for file, _ in labels if number in file.values]
        if 2 * edges.count(number) >= len(with_number):
            raise ValueError(
                f"{with_number[0].name}: the number {number} lies in pieces between numbers of one "
                f"piece each, like the edges of cells. Set --ignore {number} to ignore these "
                f"pixels; otherwise {_HINT}"
            )


def _edge_number(file: Regions, array: NDArray[Any], ignore: int | None) -> int | None:
    marks, pieces = file.values[file.values != 0], file.pieces[file.values != 0]
    broken = np.flatnonzero(~file.whole & (pieces >= _FEW_PIECES))
    if broken.size != 1 or file.whole.size <= _FEW_VALUES or np.count_nonzero(~file.whole) > 1:
        return None
    number = int(marks[broken[0]])
    touching = sum(number in pair for pair in _contacts(array, ignore))
    return number if 2 * touching >= marks.size - 1 else None


def _refuse_mostly_numbered(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses numbers that would be classes, although they look like instances in most files."""
    numbering = [file for file in files if file.whole.size >= _FEW_VALUES and file.whole.all()]
    if kind_of(files, values) != "classes" or 2 * len(numbering) < len(files):
        return
    if len({file.whole.size for file in numbering}) < 2:
        return
    other = next(file for file in files if not file.whole.all())
    raise ValueError(
        f"{other.name}: a number marks several pieces in it, like a class, but in "
        f"{len(numbering)} of {len(files)} label images, such as {numbering[0].name}, each number "
        f"marks one piece, like a cell. Number the cells in all images, or {_HINT}"
    )


def _refuse_levels(
    labels: Sequence[tuple[Regions, NDArray[Any]]], values: Sequence[int], ignore: int | None
) -> None:
    """Refuses numbers that increase step by step from the edges of cells, as distances do."""
    if len(values) < _FEW_LEVELS or list(values) != list(range(len(values))):
        return
    if kind_of([file for file, _ in labels], values) != "classes":
        return
    pairs = [pair for _, array in labels for pair in _contacts(array, ignore)]
    steps = np.array([high - low for low, high in pairs])
    if not steps.size or not mostly(steps == 1):
        return
    raise ValueError(
        f"{labels[0][0].name}: the numbers 0 to {values[-1]} increase step by step, as in a map of "
        f"distances or grey values, which are no labels. Save labels, or {_HINT}"
    )


def _numbers_cells(files: Sequence[Regions], besides: int) -> bool:
    """Returns whether most numbers besides one are whole, and a file has more than two."""
    whole_of_files = [file.whole[file.values[file.values != 0] != besides] for file in files]
    most = max(whole.size for whole in whole_of_files)
    return most > 2 and mostly(np.concatenate(whole_of_files))


def _is_whole(file: Regions, value: int) -> bool:
    return bool(file.whole[file.values[file.values != 0] == value].all())


def _refuse_mixture(files: Sequence[Regions]) -> None:
    """Refuses sets in which some files number the cells and others mark all cells alike."""
    marking = [file for file in files if _marks_alike(file)]
    numbering = [file for file in files if file.whole.size > 1 and file.whole.all()]
    others = sum(not file.whole.all() and not _marks_alike(file) for file in files)
    if others or not marking or max((file.whole.size for file in numbering), default=0) < 3:
        return
    most = max(numbering, key=lambda file: file.whole.size)
    raise ValueError(
        f"{marking[0].name}: expected one convention in all label files. Received one number for "
        f"{int(marking[0].pieces[-1])} pieces in it, and {most.whole.size} numbers of one piece "
        f"each in {most.name}: cells are numbered in some files and all alike in others. Number "
        "them in all files; if the numbers are classes, set --labels classes"
    )


def _marks_alike(file: Regions) -> bool:
    # Three pieces or more: a single cell may be in two pieces.
    is_mark = file.whole.size == 1 and int(file.values[-1]) in (1, *_FULL_SCALES)
    return is_mark and int(file.pieces[-1]) >= _FEW_PIECES and not file.whole.all()


def _refuse_large_number(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses instances with a number that covers most of an image, like the background."""
    if kind_of(files, values) != "instances":
        return
    confluent = [file for file in files if file.values[0] != 0 and _share(file) > _HALF]
    if confluent and len(confluent) < len(files):
        file = confluent[0]
        raise ValueError(
            f"{file.name}: the number {int(file.values[file.pixels.argmax()])} covers "
            f"{100 * _share(file):.0f} % of it, and 0 no pixel, unlike in other label images: most "
            f"likely it is the background. Label the background 0; otherwise {_HINT}"
        )
    largest = {int(file.values[file.pixels.argmax()]) for file in files}
    share = min(map(_share, files))
    if len(largest) > 1 or 0 in largest or share <= _HALF:
        return
    (number,) = largest
    raise ValueError(
        f"{files[0].name}: the number {number} covers at least {100 * share:.0f} % of each label "
        "image, like the background, which must be 0. Label the background 0; otherwise "
        f"{_HINT}"
    )


def _share(file: Regions) -> float:
    """Returns the fraction of the pixels that have the most frequent number."""
    return float(file.pixels.max() / file.pixels.sum())


def _refuse_unclear(
    files: Sequence[Regions],
    values: Sequence[int],
    arrays: Sequence[NDArray[Any]],
    ignore: int | None,
) -> None:
    """Refuses the same few numbers in all images, which may be instances, classes or strokes."""
    sets = [set(file.values.tolist()) - {0} for file in files]
    most = max(map(len, sets), default=0)
    if not 2 <= most <= MOST_CLASSES_DETECTED or kind_of(files, values) != "instances":
        return
    if any(numbers_of_file != sets[0] for numbers_of_file in sets):
        return
    pairs = [_contacts(array, ignore) for array in arrays]
    numbers = ", ".join(map(str, sorted(sets[0])))
    where = f"in each of {len(files)} label images" if len(files) > 1 else "in its label image"
    if any(_encloses(array, ignore) for array in arrays[:1]) and all(
        _encloses(array, ignore) for array in arrays
    ):
        reason = "one encloses another, like a cell its nucleus"
    elif len(files) > 1 and _are_connected(set.intersection(*pairs), sets[0]):
        reason = "they touch in all images, like layers"
    elif len(files) >= _FEW_FILES and most <= _FEW_VALUES:
        reason = "the number of cells is seldom the same in all images"
    else:
        return
    share = sum(np.count_nonzero(array != 0) for array in arrays) / sum(a.size for a in arrays)
    raise ValueError(
        f"{files[0].name}: the numbers {numbers} occur {where}, and {reason}: they may be classes "
        "or instances. Set --labels classes or --labels instances (evaluate: --labels-hold); if "
        f"they are strokes ({100 * share:.1f} % of the pixels) and 0 is not annotated, --labels "
        "classes --unlabelled 0"
    )


def _contacts(labels: NDArray[Any], ignore: int | None) -> set[tuple[int, int]]:
    """Lists the pairs of touching numbers, without 0 and the value to ignore."""
    contacts: set[tuple[int, int]] = set()
    for first, second in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        differs = first != second
        pairs = np.stack([first[differs], second[differs]], axis=-1).astype(np.int64)
        for low, high in np.unique(np.sort(pairs, axis=1), axis=0).tolist():
            if low != 0 and ignore not in (low, high):
                contacts.add((low, high))
    return contacts


def _encloses(labels: NDArray[Any], ignore: int | None) -> bool:
    """Returns whether a number is surrounded by another: it touches no other, 0 or the border."""
    pairs = _contacts(labels, ignore)
    kept = labels if ignore is None else np.where(labels == ignore, 0, labels)
    numbers = {number for pair in pairs for number in pair}
    border = set(np.unique(np.concatenate([kept[0], kept[-1], kept[:, 0], kept[:, -1]])).tolist())
    beside_0 = {
        number
        for first, second in ((kept[:-1], kept[1:]), (kept[:, :-1], kept[:, 1:]))
        for number in np.unique(
            np.concatenate([first[(second == 0)], second[(first == 0)]])
        ).tolist()
    }
    return any(
        number not in border
        and number not in beside_0
        and sum(number in pair for pair in pairs) == 1
        for number in numbers
    )


def _are_connected(pairs: set[tuple[int, int]], numbers: set[int]) -> bool:
    """Returns whether the pairs connect all numbers."""
    group: set[int] = set()
    grown = {min(numbers)}
    while group != grown:
        group = set(grown)
        grown = group | {n for pair in pairs if set(pair) & group for n in pair}
    return group == numbers
