"""Consistency of the label files of a data set: palettes, number types, meaning of white."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from keras_unet.data.labels import LabelFile

_DIFFERENCES: dict[str, Callable[[LabelFile], str]] = {
    "number types differ, with the same meaning of the numbers": lambda file: file.dtype,
    "some have a palette, others none": lambda file: (
        "a palette" if file.has_palette else "no palette"
    ),
    "some store white as 0, and each is read as displayed": lambda file: (
        "0 is black" if file.white is None else "0 is white"
    ),
}


def check_same_conventions(files: Sequence[tuple[Path, LabelFile]]) -> None:
    """Checks that all label files of a set use compatible palettes.

    Args:
        files: All label files of the set.

    Raises:
        ValueError: If two files have different colors for one number, or a grey file holds the
            greys of another file's palette as numbers.
    """
    first_of_number: dict[int, tuple[tuple[int, ...], Path]] = {}
    for path, file in files:
        for number, color in file.colors.items():
            expected, other = first_of_number.setdefault(number, (color, path))
            if expected != color:
                raise ValueError(
                    f"{path}: expected the palette of {other.name}, in which number {number} has "
                    f"the color {expected}. Received {color}, which suggests another meaning. "
                    "Save all labels with one palette, or as grey images"
                )

    _refuse_greys(files)


def _refuse_greys(files: Sequence[tuple[Path, LabelFile]]) -> None:
    """Refuses grey files whose numbers are the greys of a palette for other numbers."""
    greys = _greys_of_palettes(files)
    for path, file in files:
        numbers = set() if file.has_palette or not greys else _numbers(file)
        if not numbers or not numbers <= set(greys):
            continue
        differing = [grey for grey in sorted(numbers) if greys[grey][0] != grey]
        if differing:
            grey = differing[0]
            number, other = greys[grey]
            raise ValueError(
                f"{path}: expected the numbers of {other.name}, whose palette shows {number} as "
                f"the grey {grey}. Received {grey} itself: most likely the same structure saved in "
                "two ways. Save all labels with one palette, or as grey images"
            )


def _greys_of_palettes(files: Sequence[tuple[Path, LabelFile]]) -> dict[int, tuple[int, Path]]:
    """Returns the number and a file for each grey of the palettes except black."""
    return {
        color[0]: (number, path)
        for path, file in files
        for number, color in file.colors.items()
        if len(set(color)) == 1 and color[0]
    }


def _numbers(file: LabelFile) -> set[int]:
    return set(np.unique(file.labels).tolist()) - {0}


def differing_conventions(files: Sequence[tuple[Path, LabelFile]]) -> tuple[str, ...]:
    """Lists differences in storage between label files of a set that do not change the labels.

    Args:
        files: All label files of the set.

    Returns:
        One line for each difference, with one file of each form.
    """
    return tuple(
        line
        for difference, form_of in _DIFFERENCES.items()
        if (line := _describe(difference, [(form_of(file), path) for path, file in files]))
    )


def _describe(difference: str, forms: Sequence[tuple[str, Path]]) -> str:
    """Names the first file of each form in one line; empty if there is only one form."""
    first: dict[str, Path] = {}
    for form, path in forms:
        first.setdefault(form, path)
    shown = ", ".join(f"{form} in {path.parent.name}/{path.name}" for form, path in first.items())
    return f"label files: {difference}: {shown}" if len(first) > 1 else ""
