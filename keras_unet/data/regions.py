"""The regions of a label image: what is known of each of its numbers.

A *region* is the set of pixels of one value in one image, a *piece* a part of it that holds
together over edges or corners. A region is *whole* when one piece holds nine tenths of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

_WHOLE = 0.9
_CRUMB_PIXELS = 8
_IGNORED = -1


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one label image: one entry for each of its values, ignored pixels apart.

    Attributes:
        name: Name of the file.
        values: The values, ascending.
        pieces: In how many pieces each value's pixels lie, joined over edges and corners.
        pixels: How many pixels each value has.
        largest: How many pixels each value's largest piece has.
    """

    name: str
    values: NDArray[np.int64]
    pieces: NDArray[np.int64]
    pixels: NDArray[np.int64]
    largest: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, labels: NDArray[Any], ignore: int | None) -> Regions:
        """Measures the label image `(height, width)` of a file."""
        wide = labels.astype(np.int64)
        kept = wide if ignore is None else np.where(wide == ignore, _IGNORED, wide)
        components = label(kept, connectivity=2, background=_IGNORED)
        areas = np.bincount(components.ravel())[1:]
        value_of = np.zeros(areas.size + 1, np.int64)
        value_of[components.ravel()] = kept.ravel()
        values, region = np.unique(value_of[1:], return_inverse=True)
        largest = np.zeros(values.size, np.int64)
        np.maximum.at(largest, region, areas)
        pixels = np.bincount(region, areas, values.size).astype(np.int64)
        return cls(name, values, np.bincount(region, minlength=values.size), pixels, largest)

    @property
    def whole(self) -> NDArray[np.bool_]:
        """For each region of a value other than 0, whether one piece holds most of it."""
        return np.compress(self.values != 0, self.largest >= _WHOLE * self.pixels)

    @property
    def smeared(self) -> bool:
        """Tells whether values are smeared, by the rule of this module."""
        order = np.argsort(self.pixels, kind="stable")
        levels, others = self.values[order[-2:]], order[:-2]
        if not others.size or mostly(self.whole):
            return False
        crumbs = self.values[others[self.pixels[others] < _CRUMB_PIXELS * self.pieces[others]]]
        distance = np.abs(crumbs[:, np.newaxis] - levels).min(axis=1)
        are_close = bool((10 * distance <= np.ptp(self.values)).all())
        return 2 * crumbs.size >= others.size and (crumbs.size > 3 or are_close)

    @property
    def is_jpeg(self) -> bool:
        """Tells whether the file is a JPEG, by name, whose values cannot be exact."""
        return PurePath(self.name).suffix.lower() in (".jpg", ".jpeg") and self.values.size > 2


def mostly(flags: NDArray[np.bool_]) -> bool:
    """Tells whether at least nine in ten are true."""
    return bool(10 * np.count_nonzero(flags) >= 9 * flags.size)
