"""Regions of a label image, for the detection of the label encoding.

A *region* is the set of pixels of one value in one image, a *piece* a component of it, connected
over edges or corners. A region is *whole* if one piece has nine tenths of its pixels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

_WHOLE = 0.9
_SCATTERED_PIXELS = 8
_IGNORED = -1


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of a label image: one entry for each value, without ignored pixels.

    Attributes:
        name: Name of the file.
        values: The values, ascending.
        pieces: Number of pieces of each region.
        pixels: Number of pixels of each region.
        largest: Number of pixels of the largest piece of each region.
    """

    name: str
    values: NDArray[np.int64]
    pieces: NDArray[np.int64]
    pixels: NDArray[np.int64]
    largest: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, labels: NDArray[Any], ignored: Collection[int] = ()) -> Regions:
        """Computes the regions of a label image, `(height, width)`, without ignored values."""
        wide = labels.astype(np.int64)
        kept = np.where(np.isin(wide, list(ignored)), _IGNORED, wide) if ignored else wide
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
        """True for each region of a value other than 0 that is whole."""
        return self.whole_besides(0)

    def whole_besides(self, background: int) -> NDArray[np.bool_]:
        """Returns for each region of a value other than the background whether it is whole."""
        return np.compress(self.values != background, self.largest >= _WHOLE * self.pixels)

    @property
    def smeared(self) -> bool:
        """True if the values are smeared, see `data.labels`."""
        order = np.argsort(self.pixels, kind="stable")
        levels, others = self.values[order[-2:]], order[:-2]
        if not others.size or mostly(self.whole):
            return False
        is_scattered = self.pixels[others] < _SCATTERED_PIXELS * self.pieces[others]
        scattered = self.values[others[is_scattered]]
        distance = np.abs(scattered[:, np.newaxis] - levels).min(axis=1)
        are_close = bool((10 * distance <= np.ptp(self.values)).all())
        return 2 * scattered.size >= others.size and (scattered.size > 3 or are_close)

    @property
    def is_jpeg(self) -> bool:
        """True for a JPEG, by its name, with more than two values, which are not exact."""
        return PurePath(self.name).suffix.lower() in (".jpg", ".jpeg") and self.values.size > 2


def mostly(flags: NDArray[np.bool_]) -> bool:
    """Returns whether at least nine tenths are true."""
    return bool(10 * np.count_nonzero(flags) >= 9 * flags.size)
