"""Runs that predict together: the folds of a cross-validation, each trained without its images.

ensemble/
├── ensemble.json      options, the images that each fold was trained without, the rule of cells
├── fold-1/            a run
├── fold-2/            a run
└── ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_unet.files import write_json
from keras_unet.instances.label import InstanceRule

RECORD = "ensemble.json"
FORMAT = 1


@dataclass(frozen=True)
class Ensemble:
    """Record of an ensemble.

    Attributes:
        folder: The ensemble's folder.
        held_out: Names of the images that each fold was trained without.
        options: Options of the training, as plain values; those of every fold but for the images.
        rule: How cells are made of probabilities, chosen on all images by the folds that were
            trained without them; None before all folds are trained.
    """

    folder: Path
    held_out: tuple[tuple[str, ...], ...]
    options: Mapping[str, Any]
    rule: InstanceRule | None = None

    @classmethod
    def load(cls, folder: Path) -> Ensemble:
        """Reads an ensemble's record.

        Raises:
            FileNotFoundError: If the folder is no ensemble.
            ValueError: If the record cannot be read.
        """
        path = folder / RECORD
        try:
            return cls._of(folder, json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected the record of an ensemble of format {FORMAT}. Received one that "
                f"cannot be read ({type(error).__name__}: {error}); copy it anew, or train again"
            ) from error

    @classmethod
    def _of(cls, folder: Path, values: dict[str, Any]) -> Ensemble:
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        held_out = tuple(tuple(names) for names in values["held_out"])
        rule = values["rule"] and InstanceRule.from_dict(values["rule"])
        return cls(folder, held_out, dict(values["options"]), rule)

    def save(self) -> None:
        """Writes the record, at once or not at all."""
        values = {
            "format": FORMAT,
            "held_out": self.held_out,
            "options": dict(self.options),
            "rule": self.rule and self.rule.to_dict(),
        }
        write_json(self.folder / RECORD, values)

    @property
    def folds(self) -> tuple[Path, ...]:
        """Folders of the runs, one a fold."""
        return tuple(self.folder / f"fold-{one}" for one in range(1, len(self.held_out) + 1))


def is_ensemble(folder: Path) -> bool:
    """Tells whether a folder holds an ensemble, rather than a run."""
    return (folder / RECORD).is_file()


def draw_folds(
    names: Sequence[str], folds: int, seed: int, stacks: Sequence[str | None] = ()
) -> tuple[tuple[str, ...], ...]:
    """Parts images into folds of equal size, give or take one; stacks of planes are kept together.

    Planes of a stack are neighbours that look alike. Where there are at least as many stacks and
    single images as folds, none is in two folds; else the images are cut in their order.

    Args:
        names: Names of the images.
        folds: Number of folds.
        seed: Seed of the draw.
        stacks: Name of the stack that each is a plane of, or None; empty if all are single images.

    Returns:
        The names of each fold, in their own order; every name is in one fold.

    Raises:
        ValueError: If there are fewer than two folds, or fewer images than folds.

    Example:
        >>> [len(fold) for fold in draw_folds(["a", "b", "c", "d", "e"], folds=2, seed=0)]
        [3, 2]
    """
    if not 2 <= folds <= len(names):
        raise ValueError(
            "folds must be at least 2, and at most the number of images. "
            f"Received: folds={folds} for {len(names)}"
        )
    groups: dict[object, list[int]] = {}
    for place, stack in enumerate(stacks or [None] * len(names)):
        groups.setdefault(place if stack is None else stack, []).append(place)
    if len(groups) < folds:
        parts = np.array_split(np.arange(len(names)), folds)
        return tuple(tuple(names[i] for i in part) for part in parts)
    drawn: list[list[int]] = [[] for _ in range(folds)]
    every = list(groups.values())
    order = np.random.default_rng(seed).permutation(len(groups))
    for number in sorted(order, key=lambda one: -len(every[one])):  # the largest first; stable
        min(drawn, key=len).extend(every[number])
    return tuple(tuple(names[i] for i in sorted(part)) for part in drawn)
