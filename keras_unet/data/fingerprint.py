"""Statistics of the training images: sizes, classes, cells, gaps between cells, grey values.

`keras_unet.training.autoconfig` derives the training options from them. The cells of labels that
hold classes are the connected components of the foreground.
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
_GREY_PIXELS = 2**16  # per image; more would not change the percentiles
_GAP_WINDOW = 1024  # height and width in pixels of the window in which gaps are measured
_GAP_PIXELS = 2**24  # of all images together, which takes a few seconds
_ROUNDED = 100  # grey values from here on are shown without decimals
_NO_CELLS = np.zeros((1, 1), np.int32)
_NEIGHBORS = (np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])


class Percentiles(NamedTuple):
    """Low percentile, median and high percentile."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Statistics of the training images. Lengths are in pixels.

    Attributes:
        images: Number of images.
        pixels: Number of pixels of all images.
        median_side: Median over the images of the longer of height and width.
        longest_side: Largest height or width.
        shares: Fraction of the pixels of each class, background first, without ignored pixels.
        cells: Number of cells.
        diameters: 10th, 50th and 90th percentile of the equivalent diameters (of discs of the same
            area), without cells cut by the image border unless all are. None without cells.
        touching: Fraction of the cells that touch another, over an edge or a corner.
        gap: Median width of the background between neighboring cells that do not touch, along all
            gaps no wider than the median cell. None if there are none.
        greys: 1st, 50th and 99th percentile of the grey values.
        grey_between: Standard deviation of the mean grey values of the images.
        grey_within: Mean of the standard deviations of the images.
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
    def of(cls, samples: Sequence[Sample], *, holds_strokes: bool = False) -> Fingerprint:
        """Computes the statistics of training images.

        Args:
            samples: Images with labels, at least one.
            holds_strokes: Whether the labels are strokes of classes, whose pieces are no cells: the
                statistics then hold none.

        Raises:
            ValueError: If there is no sample.

        Example:
            >>> labels = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 2, 2, 0]], np.int32)
            >>> image = np.zeros((*labels.shape, 1), np.float32)
            >>> classes = (labels > 0).astype(np.uint8)
            >>> statistics = Fingerprint.of([Sample("a", image, classes, labels, labels < 0)])
            >>> statistics.cells, statistics.gap, [round(s, 2) for s in statistics.shares]
            (2, 1.0, [0.71, 0.29])
        """
        if not samples:
            raise ValueError(
                "samples must hold at least one image. Received none; use fewer for validation."
            )
        sides = [max(sample.classes.shape) for sample in samples]
        areas, cut, touching = _cells(() if holds_strokes else samples)
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
        """Creates a fingerprint from its fields, also from JSON."""
        tuples = {
            name: Percentiles(*values[name])
            for name in ("diameters", "greys")
            if values[name] is not None
        }
        return cls(**{**values, **tuples, "shares": tuple(values["shares"])})

    @property
    def foreground(self) -> float:
        """Fraction of the pixels that are not background."""
        return 1 - self.shares[0]

    def describe(self) -> str:
        """Returns a summary in three lines."""
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
    """Returns of each cell the area, whether the border cuts it, whether it touches another."""
    measured = [_cells_of(sample.instances) for sample in track(samples, "measuring cells")]
    areas, cut, touching = zip(*measured or [_cells_of(_NO_CELLS)], strict=True)
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
    """Returns the median width of the gaps up to the widest, in evenly spaced images."""
    pixels = sum(min(sample.classes.size, _GAP_WINDOW**2) for sample in samples)
    chosen = samples[:: max(1, ceil(pixels / _GAP_PIXELS))]
    widths = np.concatenate([_gap_widths(sample) for sample in chosen])
    narrow = widths[widths <= widest]
    return float(np.median(narrow)) if len(narrow) else None


def _gap_widths(sample: Sample) -> NDArray[np.float64]:
    """Measures the width of the background between cells at each pixel along each gap."""
    # Each pixel is assigned to the nearest cell. For two neighboring pixels of different cells, the
    # sum of the distances is the width of the gap: n for n pixels of background between straight
    # edges, and within a pixel of it between slanted ones. It is 0 where cells touch. A single
    # distance transform serves all cells.
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
    """Returns percentiles of the grey values, and their deviations between and within images."""
    values = [_subsample_pixels(sample) for sample in samples]
    means = np.array([pixels.mean(axis=0, dtype=np.float64) for pixels in values])
    deviations = np.array([pixels.std(axis=0, dtype=np.float64) for pixels in values])
    percentiles = np.percentile(np.concatenate(values), _GREYS).tolist()
    return Percentiles(*percentiles), float(means.std(axis=0).mean()), float(deviations.mean())


def _subsample_pixels(sample: Sample) -> NDArray[np.float32]:
    """Returns evenly spaced pixels, `(pixels, channels)`."""
    pixels = sample.image.reshape(-1, sample.image.shape[-1])
    return pixels[:: ceil(len(pixels) / _GREY_PIXELS)]
