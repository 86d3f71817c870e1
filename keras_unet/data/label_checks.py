"""Label files that may be meant otherwise than they would be read: refused, with what to say.

Each check refuses a set of label files whose numbers may be meant otherwise than they would be
taken; whoever says what they hold (`kind`, `ignore`) is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.encoding import Kind
from keras_unet.data.regions import Regions, mostly

MOST_CLASSES_DETECTED = 16
"""Values above which numbers are not taken for classes unless that is said."""

_FEW_VALUES = 3
_FEW_FILES = 3
_FEW_PIECES = 3
_FEW_LEVELS = 5
_HALF = 0.5
_FULL_SCALES = (255, 65_535)
_SAY = "say --labels classes or --labels instances (evaluate: --labels-hold)"


def check_meaning(
    labels: Sequence[tuple[Regions, NDArray[Any]]], values: Sequence[int], ignore: int | None
) -> None:
    """Refuses label files whose numbers may be meant otherwise than they would be taken.

    Args:
        labels: Regions of each label image, and its integers `(height, width)`.
        values: All values in them, ascending, the ignored apart.
        ignore: Value of pixels that are not to count, or None.

    Raises:
        ValueError: The message names a file, what is doubtful, and what to say.
    """
    labels = [one for one in labels if one[0].values.size]
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
    """Tells classes from instances, by rules 3 to 5 of `data.labels`."""
    if len(values) <= 2:
        return "classes"
    return "instances" if mostly(np.concatenate([file.whole for file in files])) else "classes"


def _refuse_two_scales(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses the same classes saved as 0, 1, ... in some files and up to 255 in others."""
    scales = _scales_of(values)
    found = [[scale for scale in scales if scale & _values(file)] for file in files]
    if not scales or any(len(one) > 1 for one in found):
        return
    first, other = (
        next(file for file, one in zip(files, found, strict=True) if scale in one)
        for scale in (scales[0], scales[-1])
    )
    raise ValueError(
        f"{first.name}: expected one convention in all label files. Received {_listed(scales[0])} "
        f"in it, {_listed(scales[-1])} in {other.name}, most likely one structure saved in two "
        "ways. Save all masks alike; if all these numbers are different classes, say --labels "
        "classes"
    )


def _scales_of(values: Sequence[int]) -> list[set[int]]:
    """Splits values into the scales that they are of, 0 apart; none where they are of one."""
    half, marks = len(values) // 2, set(values[1:])
    if values[0] == 0 and len(marks) > 1 and marks <= {1, *_FULL_SCALES}:
        return [{mark} for mark in sorted(marks)]
    return [set(values[1 : half + 1]), set(values[half + 1 :])] if _is_spread(values) else []


def _is_spread(values: Sequence[int]) -> bool:
    """Tells whether values are 0, 1 to some number, and as many spread up to white."""
    half, white = len(values) // 2, values[-1]
    if white not in _FULL_SCALES or len(values) != 2 * half + 1:
        return False
    is_counted = list(values[: half + 1]) == list(range(half + 1))
    return is_counted and all(
        abs(value - white * number / half) <= 1
        for number, value in enumerate(values[half + 1 :], start=1)
    )


def _values(file: Regions) -> set[int]:
    return set(file.values.tolist())


def _listed(numbers: set[int]) -> str:
    *others, last = map(str, sorted({0, *numbers}))
    return f"{', '.join(others)} and {last}"


def _refuse_two_backgrounds(files: Sequence[Regions]) -> None:
    """Refuses masks of two values whose background is one number in some and another in others."""
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
        f"{second.name}: expected one convention in all label files. Received {_both(second)} in "
        f"it, {_both(first)} in {first.name}, most likely one structure saved in two ways. Save "
        "all masks alike; if each number is a class, say --labels classes"
    )


def _both(file: Regions) -> str:
    return " and ".join(map(str, file.values.tolist()))


def _refuse_full_scale(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses 255 beside small numbers, which often stands for pixels that are not to count."""
    full, others = values[-1], list(values[:-1])
    if full not in _FULL_SCALES or len(others) < 2 or others[-1] == full - 1:
        return
    holding = [file for file in files if full in file.values]
    in_pieces = sum(not _is_whole(file, full) for file in holding)
    is_one_by_one = others == list(range(others[0], others[-1] + 1)) and others[0] <= 1
    if not is_one_by_one and (2 * in_pieces < len(holding) or not _numbered(holding, full)):
        return
    raise ValueError(
        f"{holding[0].name}: the number {full} stands beside {others[0]} to {others[-1]}, as for "
        f"edges and for what is not to count: not sure what it means. Say --ignore {full} if it is "
        f"not to count; else {_SAY}"
    )


def _refuse_edges(labels: Sequence[tuple[Regions, NDArray[Any]]], ignore: int | None) -> None:
    """Refuses a number that lies in pieces between numbers of one piece each, as edges do."""
    found = [_edges_in(file, array, ignore) for file, array in labels]
    for number in sorted({one for one in found if one is not None}):
        holding = [file for file, _ in labels if number in file.values]
        if 2 * found.count(number) >= len(holding):
            raise ValueError(
                f"{holding[0].name}: the number {number} lies in pieces between numbers of one "
                "piece each, as the edges of cells do: not sure what it means. Say --ignore "
                f"{number} if it is not to count; else {_SAY}"
            )


def _edges_in(file: Regions, array: NDArray[Any], ignore: int | None) -> int | None:
    marks, pieces = file.values[file.values != 0], file.pieces[file.values != 0]
    broken = np.flatnonzero(~file.whole & (pieces >= _FEW_PIECES))
    if broken.size != 1 or file.whole.size <= _FEW_VALUES or np.count_nonzero(~file.whole) > 1:
        return None
    number = int(marks[broken[0]])
    touching = sum(number in pair for pair in _contacts(array, ignore))
    return number if 2 * touching >= marks.size - 1 else None


def _refuse_mostly_numbered(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses to take numbers for classes where most files number cells, as far as one can see."""
    numbering = [file for file in files if file.whole.size >= _FEW_VALUES and file.whole.all()]
    if kind_of(files, values) != "classes" or 2 * len(numbering) < len(files):
        return
    if len({file.whole.size for file in numbering}) < 2:
        return
    other = next(file for file in files if not file.whole.all())
    raise ValueError(
        f"{other.name}: one number stands for several pieces in it, as that of a class, but in "
        f"{len(numbering)} of {len(files)} label images, such as {numbering[0].name}, every number "
        f"is one piece, as that of a cell: not sure which. Number the cells in all, or {_SAY}"
    )


def _refuse_levels(
    labels: Sequence[tuple[Regions, NDArray[Any]]], values: Sequence[int], ignore: int | None
) -> None:
    """Refuses numbers that go up step by step from the edges of cells, as distances do."""
    if len(values) < _FEW_LEVELS or list(values) != list(range(len(values))):
        return
    if kind_of([file for file, _ in labels], values) != "classes":
        return
    pairs = [pair for _, array in labels for pair in _contacts(array, ignore)]
    steps = np.array([high - low for low, high in pairs])
    if not steps.size or not mostly(steps == 1):
        return
    raise ValueError(
        f"{labels[0][0].name}: the numbers 0 to {values[-1]} go up step by step, as in a map of "
        f"distances or of grey values: not sure that they are labels. Save labels, or {_SAY}"
    )


def _numbered(files: Sequence[Regions], besides: int) -> bool:
    """Tells whether most numbers are whole, as those of cells are, and some files have several."""
    wholes = [file.whole[file.values[file.values != 0] != besides] for file in files]
    return max(one.size for one in wholes) > 2 and mostly(np.concatenate(wholes))


def _is_whole(file: Regions, value: int) -> bool:
    return bool(file.whole[file.values[file.values != 0] == value].all())


def _refuse_mixture(files: Sequence[Regions]) -> None:
    """Refuses files that number cells among others that mark all cells alike.

    A cell may be in two pieces, and be the only one of its image.
    """
    marking = [file for file in files if _marks_alike(file)]
    numbering = [file for file in files if file.whole.size > 1 and file.whole.all()]
    others = sum(not file.whole.all() and not _marks_alike(file) for file in files)
    if others or not marking or max((file.whole.size for file in numbering), default=0) < 3:
        return
    most = max(numbering, key=lambda file: file.whole.size)
    raise ValueError(
        f"{marking[0].name}: expected one convention in all label files. Received one number for "
        f"{int(marking[0].pieces[-1])} pieces in it, and {most.whole.size} numbers of one piece "
        f"each in {most.name}: cells numbered in some, and marked alike in others. Number them in "
        "all; if the numbers are classes, say --labels classes"
    )


def _marks_alike(file: Regions) -> bool:
    is_mark = file.whole.size == 1 and int(file.values[-1]) in (1, *_FULL_SCALES)
    return is_mark and int(file.pieces[-1]) >= _FEW_PIECES and not file.whole.all()


def _refuse_large_number(files: Sequence[Regions], values: Sequence[int]) -> None:
    """Refuses instances of which one number covers most of every image, as the background does."""
    if kind_of(files, values) != "instances":
        return
    confluent = [file for file in files if file.values[0] != 0 and _share(file) > _HALF]
    if confluent and len(confluent) < len(files):
        file = confluent[0]
        raise ValueError(
            f"{file.name}: the number {int(file.values[file.pixels.argmax()])} covers "
            f"{100 * _share(file):.0f} % of it, and 0 nothing, unlike in other label images: most "
            f"likely its background has another number. Make it 0; else {_SAY}"
        )
    largest = {int(file.values[file.pixels.argmax()]) for file in files}
    share = min(map(_share, files))
    if len(largest) > 1 or 0 in largest or share <= _HALF:
        return
    (number,) = largest
    raise ValueError(
        f"{files[0].name}: the number {number} covers at least {100 * share:.0f} % of each label "
        "image, as the background does, which is to be 0: not sure what it means. Make the "
        f"background 0; else {_SAY}"
    )


def _share(file: Regions) -> float:
    """Returns the share of pixels of the most frequent number."""
    return float(file.pixels.max() / file.pixels.sum())


def _refuse_unclear(
    files: Sequence[Regions],
    values: Sequence[int],
    arrays: Sequence[NDArray[Any]],
    ignore: int | None,
) -> None:
    """Refuses to choose where numbers may be instances, classes or strokes alike."""
    sets = [set(file.values.tolist()) - {0} for file in files]
    most = max(map(len, sets), default=0)
    if not 2 <= most <= MOST_CLASSES_DETECTED or kind_of(files, values) != "instances":
        return
    if any(one != sets[0] for one in sets):
        return
    pairs = [_contacts(array, ignore) for array in arrays]
    numbers = ", ".join(map(str, sorted(sets[0])))
    where = f"in each of {len(files)} label images" if len(files) > 1 else "in its label image"
    if any(_encloses(array, ignore) for array in arrays[:1]) and all(
        _encloses(array, ignore) for array in arrays
    ):
        reason = "one encloses another, as a part lies in a whole"
    elif len(files) > 1 and _connected(set.intersection(*pairs), sets[0]):
        reason = "they touch each other in all of them, as layers do"
    elif len(files) >= _FEW_FILES and most <= _FEW_VALUES:
        reason = "cells are seldom as many in every image"
    else:
        return
    share = sum(np.count_nonzero(array != 0) for array in arrays) / sum(a.size for a in arrays)
    raise ValueError(
        f"{files[0].name}: the numbers {numbers} stand {where}, and {reason}: not sure whether "
        "they are classes or instances. Say --labels classes or --labels instances (evaluate: "
        f"--labels-hold); if they are strokes ({100 * share:.1f} % of the pixels are drawn) and 0 "
        "was not looked at, --labels classes --ignore 0"
    )


def _contacts(labels: NDArray[Any], ignore: int | None) -> set[tuple[int, int]]:
    """Lists the pairs of numbers, 0 and the ignored apart, that share an edge of a pixel."""
    found: set[tuple[int, int]] = set()
    for first, second in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        differs = first != second
        pairs = np.stack([first[differs], second[differs]], axis=-1).astype(np.int64)
        for low, high in np.unique(np.sort(pairs, axis=1), axis=0).tolist():
            if low != 0 and ignore not in (low, high):
                found.add((low, high))
    return found


def _encloses(labels: NDArray[Any], ignore: int | None) -> bool:
    """Tells whether one number lies within another: all its neighbours are of that other."""
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


def _connected(pairs: set[tuple[int, int]], numbers: set[int]) -> bool:
    """Tells whether the pairs join all numbers to one group."""
    group: set[int] = set()
    grown = {min(numbers)}
    while group != grown:
        group = set(grown)
        grown = group | {n for pair in pairs if set(pair) & group for n in pair}
    return group == numbers
