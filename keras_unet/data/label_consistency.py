"""Differences between the label files of a set in how they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from keras_unet.data.labels import LabelFile

_DIFFERENCES: dict[str, Callable[[LabelFile], str]] = {
    "number types differ, and the numbers count alike": lambda file: file.dtype,
    "some have a palette, others none": lambda file: (
        "a palette" if file.has_palette else "no palette"
    ),
    "0 is white in some, and each is read as it is seen": lambda file: (
        "0 is black" if file.white is None else "0 is white"
    ),
}


def check_same_conventions(files: Sequence[tuple[Path, LabelFile]]) -> None:
    """Makes sure that a colour stands for one number in all label files of a set.

    Args:
        files: All label files of the set.

    Raises:
        ValueError: Two files give one number two colours, or one holds as numbers the greys that
            another shows for its numbers; both are named.
    """
    seen_in: dict[int, tuple[tuple[int, ...], Path]] = {}
    for path, file in files:
        for number, colour in file.colours.items():
            before, other = seen_in.setdefault(number, (colour, path))
            if before != colour:
                raise ValueError(
                    f"{path}: expected the palette of {other.name}, in which number {number} is "
                    f"the colour {before}. Received {colour}: the same number means something else "
                    "there. Save all labels with one palette, or as grey images"
                )

    _refuse_greys(files)


def _refuse_greys(files: Sequence[tuple[Path, LabelFile]]) -> None:
    """Refuses grey files whose numbers are the greys of a palette for other numbers."""
    greys = _greys_of_palettes(files)
    for path, file in files:
        numbers = set() if file.has_palette or not greys else _numbers(file)
        if numbers and numbers <= set(greys) and any(greys[one][0] != one for one in numbers):
            one = next(one for one in sorted(numbers) if greys[one][0] != one)
            number, other = greys[one]
            raise ValueError(
                f"{path}: expected the numbers of {other.name}, whose palette shows {number} as "
                f"the grey {one}. Received {one} itself: most likely one structure saved in two "
                "ways. Save all labels with one palette, or as grey images"
            )


def _greys_of_palettes(files: Sequence[tuple[Path, LabelFile]]) -> dict[int, tuple[int, Path]]:
    """Finds for each grey of the palettes, black apart, the number it stands for, and a file."""
    return {
        colour[0]: (number, path)
        for path, file in files
        for number, colour in file.colours.items()
        if len(set(colour)) == 1 and colour[0]
    }


def _numbers(file: LabelFile) -> set[int]:
    return set(np.unique(file.labels).tolist()) - {0}


def differing_conventions(files: Sequence[tuple[Path, LabelFile]]) -> tuple[str, ...]:
    """Lists how label files of a set are stored differently, where that changes no label.

    Args:
        files: All label files of the set.

    Returns:
        One line for each difference, which names one file of each kind; none where all are alike.
    """
    return tuple(
        line
        for what, kind_of in _DIFFERENCES.items()
        if (line := _difference(what, [(kind_of(file), path) for path, file in files]))
    )


def _difference(what: str, kinds: Sequence[tuple[str, Path]]) -> str:
    """Names the first file of each kind, in one line; empty where there is one kind alone."""
    first: dict[str, Path] = {}
    for kind, path in kinds:
        first.setdefault(kind, path)
    shown = ", ".join(f"{kind} in {path.parent.name}/{path.name}" for kind, path in first.items())
    return f"label files: {what}: {shown}" if len(first) > 1 else ""
