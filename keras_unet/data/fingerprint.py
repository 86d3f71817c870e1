"""Statistics of the training images: sizes, classes, cells, the gaps between them, greys.

`keras_unet.training.autoconfig` sets the numbers of a training by it. Labels that hold classes count
too: their cells are the pieces of the foreground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.console import counted, track
from keras_unet.data.distances import separate_touching
from keras_unet.data.encoding import MOST_CLASSES
from keras_unet.data.samples import Sample

_DIAMETERS = 10, 50, 90  # percentiles
_GREYS = 1, 50, 99
_GREYS_AN_IMAGE = 2**16  # pixels; more would not change the percentiles
_GAP_WINDOW = 1024  # height and width in pixels of an image's middle, where gaps are measured
_GAP_PIXELS = 2**24  # of all images together, which takes a few seconds
_ROUNDED = 100  # grey values from here on are shown without a fraction
_NEIGHBORS = (np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])


class Percentiles(NamedTuple):
    """A low percentile, the median and a high percentile."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Statistics of the training images. Lengths are in pixels.

    Attributes:
        images: Number of images.
        pixels: Pixels of all images.
        median_side: Median over the images of the longer of height and width.
        longest_side: The longest of all.
        shares: Share of the pixels of each class, background first; ignored pixels do not count.
        cells: Number of cells.
        diameters: 10th, 50th and 90th percentile of the diameters that discs of the cells' areas
            have; cells cut by the image border do not count unless all are. None without cells.
        touching: Share of the cells that touch another, over an edge or a corner.
        gap: Width of the background between neighboring cells that do not touch, the median along
            all such gaps that are no wider than the median cell. None where there are none.
        greys: 1st, 50th and 99th percentile of the grey values.
        grey_between: Standard deviation of the images' mean grey values.
        grey_within: Mean of the images' standard deviations.
    """

    images: int
    pixels: int
    median_side: float
    longest_side: int
    shares: tuple[float, ...]
    cells: int
    diameters: Percentiles | None
    touching: float
    gap: float | None
    greys: Percentiles
    grey_between: float
    grey_within: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Fingerprint:
        """Looks at training images.

        Args:
            samples: The images and their labels, at least one.

        Raises:
            ValueError: There is no sample.

        Example:
            >>> labels = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 2, 2, 0]], np.int32)
            >>> image = np.zeros((*labels.shape, 1), np.float32)
            >>> classes = (labels > 0).astype(np.uint8)
            >>> seen = Fingerprint.of([Sample("a", image, classes, labels, labels < 0)])
            >>> seen.cells, seen.gap, [round(share, 2) for share in seen.shares]
            (2, 1.0, [0.71, 0.29])
        """
        if not samples:
            raise ValueError("samples must hold at least one image. Received none; hold out fewer.")
        sides = [max(sample.classes.shape) for sample in samples]
        areas, cut, touching = _cells(samples)
        diameters = _diameters(areas if cut.all() else areas[~cut])
        greys, between, within = _greys(samples)
        return cls(
            images=len(samples),
            pixels=sum(sample.classes.size for sample in samples),
            median_side=float(np.median(sides)),
            longest_side=max(sides),
            shares=_shares(samples),
            cells=len(areas),
            diameters=diameters,
            touching=float(touching.mean()) if len(areas) else 0.0,
            gap=_gap(samples, diameters.median) if diameters else None,
            greys=greys,
            grey_between=between,
            grey_within=within,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Rebuilds a fingerprint from its fields, also after a way through JSON."""
        tuples = {
            name: Percentiles(*values[name])
            for name in ("diameters", "greys")
            if values[name] is not None
        }
        return cls(**{**values, **tuples, "shares": tuple(values["shares"])})

    @property
    def foreground(self) -> float:
        """Share of the pixels that are not background."""
        return 1 - self.shares[0]

    def describe(self) -> str:
        """Describes to a person what was seen, in a few lines."""
        return f"{self._images()}\n{self._cells()}\n{self._grey_values()}"

    def _images(self) -> str:
        return (
            f"seen in {counted(self.images, 'training image')} with sides of "
            f"{self.median_side:.0f} pixels in the median, {self.longest_side} at most: "
            f"{100 * self.foreground:.0f} % of the pixels are foreground"
        )

    def _cells(self) -> str:
        if self.diameters is None:
            return "cells: none"
        low, median, high = self.diameters
        gap = "" if self.gap is None else f"; gaps between neighbors: {self.gap:.1f} pixels"
        return (
            f"cells: {self.cells:,}, {median:.0f} pixels wide in the median, 80 % of them "
            f"{low:.0f} to {high:.0f}; {100 * self.touching:.0f} % touch another{gap}"
        )

    def _grey_values(self) -> str:
        low, median, high, between, within = (
            f"{value:,.0f}" if abs(value) >= _ROUNDED else f"{value:.3g}"
            for value in (*self.greys, self.grey_between, self.grey_within)
        )
        return (
            f"grey values: {low} to {high}, median {median}; "
            f"standard deviation {between} between images, {within} within"
        )


def _shares(samples: Sequence[Sample]) -> tuple[float, ...]:
    counts = np.zeros(MOST_CLASSES, np.int64)
    for sample in samples:
        counts += np.bincount(sample.classes[~sample.ignored], minlength=MOST_CLASSES)
    classes = max(counts.nonzero()[0], default=0) + 1
    shares: list[float] = (counts[:classes] / max(counts.sum(), 1)).tolist()
    return tuple(shares)


def _cells(
    samples: Sequence[Sample],
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Lists the cells: pixels of each, whether the border cuts it, whether it touches another."""
    measured = [_cells_of(one.instances) for one in track(samples, "measuring cells")]
    areas, cut, touching = zip(*measured, strict=True)
    return np.concatenate(areas), np.concatenate(cut), np.concatenate(touching)


def _cells_of(
    instances: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    ids, areas = np.unique(instances[instances > 0], return_counts=True)
    border = (instances[0], instances[-1], instances[:, 0], instances[:, -1])
    in_contact = instances[separate_touching(instances) != instances]
    cut = np.isin(ids, np.concatenate(border))
    return areas, cut, np.isin(ids, in_contact)


def _diameters(areas: NDArray[np.int64]) -> Percentiles | None:
    if not len(areas):
        return None
    return Percentiles(*np.percentile(2 * np.sqrt(areas / np.pi), _DIAMETERS).tolist())


def _gap(samples: Sequence[Sample], widest: float) -> float | None:
    """Takes the median width of the gaps up to the widest, in images evenly chosen."""
    pixels = sum(min(sample.classes.size, _GAP_WINDOW**2) for sample in samples)
    chosen = samples[:: max(1, ceil(pixels / _GAP_PIXELS))]
    widths = np.concatenate([_gap_widths(sample) for sample in chosen])
    narrow = widths[widths <= widest]
    return float(np.median(narrow)) if len(narrow) else None


def _gap_widths(sample: Sample) -> NDArray[np.float64]:
    """Measures the background between cells, once for each pixel along the middle of each gap.

    Every pixel belongs to the nearest cell. Of two neighboring pixels that belong to different
    cells, the distances to the cells add up to the width of the gap, d1 + d2 - 1 in its middle: n,
    where n pixels of background lie between upright edges, and within a pixel of the width between
    slanted ones. Where cells touch it is 0; these are left out. One distance transform serves for
    all cells, however many.
    """
    middle = tuple(_middle(side) for side in sample.instances.shape)
    instances, ignored = sample.instances[middle], sample.ignored[middle]
    if not instances.any():
        return np.empty(0)
    distance, places = ndimage.distance_transform_edt(instances == 0, return_indices=True)
    nearest = instances[tuple(places)]
    widths = np.concatenate(
        [
            (distance[a] + distance[b])[(nearest[a] != nearest[b]) & ~ignored[a] & ~ignored[b]]
            for a, b in _NEIGHBORS
        ]
    )
    return widths[widths > 0]


def _middle(side: int) -> slice:
    first = max(0, (side - _GAP_WINDOW) // 2)
    return slice(first, first + _GAP_WINDOW)


def _greys(samples: Sequence[Sample]) -> tuple[Percentiles, float, float]:
    """Returns percentiles of the grey values, their spread between images and that within."""
    values = [_some_pixels(sample) for sample in samples]
    means = np.array([pixels.mean(axis=0, dtype=np.float64) for pixels in values])
    deviations = np.array([pixels.std(axis=0, dtype=np.float64) for pixels in values])
    percentiles = np.percentile(np.concatenate(values), _GREYS).tolist()
    return Percentiles(*percentiles), float(means.std(axis=0).mean()), float(deviations.mean())


def _some_pixels(sample: Sample) -> NDArray[np.float32]:
    """Takes pixels at even distances, `(pixels, channels)`."""
    pixels = sample.image.reshape(-1, sample.image.shape[-1])
    return pixels[:: ceil(len(pixels) / _GREYS_AN_IMAGE)]
