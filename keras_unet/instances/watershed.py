"""Watershed regions of a height image, and how they merge into cells.

Each pixel belongs to the maximum it climbs to; the pixels of one maximum are its region. Two
regions meet at a saddle, the highest place where they touch. A maximum that rises little above the
saddle is noise, and its region is merged with the other:

    height   2 4 6 5 6 4 1 3 5 4
    region   1 1 1 1 2 2 2 3 3 3
    cell     1 1 1 1 1 1 1 2 2 2     the saddle of 5 is high beside maxima of 6, that of 1 is low

Maxima are compared by the ratio of heights, so that large and small cells follow one threshold.
Saddles are taken from the highest down; two maxima that are separate stay separate (the h-maxima
transform, with h relative to the height).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.hierarchy import DisjointSet
from skimage.morphology import local_maxima
from skimage.segmentation import watershed


@dataclass(frozen=True, eq=False)
class WatershedRegions:
    """Watershed regions and the saddles between them.

    Attributes:
        labels: Region of each pixel, 1 ... n, `(height, width)`; 0 outside.
        maxima: Largest height of each region, `(n + 1,)`; the first entry is the outside's.
        sizes: Pixels of each region, `(n + 1,)`.
        positions: Flat index of the first pixel of each maximum, `(n + 1,)`, rising; the first
            entry, the outside's, is the number of pixels.
        pairs: Two regions that touch, `(pairs, 2)`, the pair with the highest saddle first.
        saddle_heights: Height of each pair's saddle, `(pairs,)`, falling.
    """

    labels: NDArray[np.int32]
    maxima: NDArray[np.float32]
    sizes: NDArray[np.intp]
    positions: NDArray[np.intp]
    pairs: NDArray[np.int32]
    saddle_heights: NDArray[np.float32]

    @classmethod
    def of(cls, heights: NDArray[np.floating], inside: NDArray[np.bool_]) -> WatershedRegions:
        """Computes the regions, with edge-connected neighbors.

        The regions of a connected component do not depend on the rest of the image.

        Args:
            heights: Height image, `(height, width)`, above 0 inside.
            inside: Foreground mask, `(height, width)`.

        Example:
            >>> row = np.array([[2, 4, 6, 5, 6, 4, 1, 3, 5, 4]])
            >>> regions = WatershedRegions.of(row, row > 0)
            >>> regions.labels.tolist(), regions.pairs.tolist(), regions.saddle_heights.tolist()
            ([[1, 1, 1, 1, 2, 2, 2, 3, 3, 3]], [[1, 2], [2, 3]], [5.0, 1.0])
        """
        surface = np.where(inside, heights, 0).astype(np.float32)
        maxima, _ = ndimage.label(_maxima(surface) & inside)
        flooded = watershed(-_break_ties(surface, maxima > 0), maxima, mask=inside)
        labels = np.asarray(flooded, np.int32)
        sizes = np.bincount(labels.ravel())
        tops = np.zeros(len(sizes), np.float32)
        np.maximum.at(tops, labels[maxima > 0], surface[maxima > 0])
        return cls(labels, tops, sizes, _positions(maxima), *_saddles(labels, surface))

    def cells(self, merge_threshold: float, minimum_size: int) -> NDArray[np.int32]:
        """Merges regions into cells.

        Args:
            merge_threshold: Two regions are merged if their saddle is at least this fraction of the
                lower maximum; 0 merges all that touch.
            minimum_size: A cell of fewer pixels is merged with the neighbor over its highest
                saddle; without a neighbor it is removed.

        Returns:
            The cell of each region, 1 ... cells, `(n + 1,)`; 0 for none. `cells[labels]` is the
            label image.

        Example:
            >>> row = np.array([[2, 4, 6, 5, 6, 4, 1, 3, 5, 4]])
            >>> regions = WatershedRegions.of(row, row > 0)
            >>> regions.cells(merge_threshold=0.5, minimum_size=3).tolist()
            [0, 1, 1, 2]
            >>> regions.cells(merge_threshold=0.5, minimum_size=4).tolist()
            [0, 1, 1, 1]
        """
        groups = DisjointSet(range(len(self.sizes)))
        maxima, sizes = self.maxima.tolist(), self.sizes.tolist()

        def merge(first: int, second: int) -> None:
            groups.merge(first, second)
            root = groups[first]
            maxima[root] = max(maxima[first], maxima[second])
            sizes[root] = sizes[first] + sizes[second]

        for first, second, height in self._separate_pairs(groups):
            if height >= merge_threshold * min(maxima[first], maxima[second]):
                merge(first, second)
        for first, second, _ in self._separate_pairs(groups):
            if min(sizes[first], sizes[second]) < minimum_size:
                merge(first, second)
        cells = np.zeros(len(sizes), np.int32)
        merged = (regions for regions in groups.subsets() if 0 not in regions)
        large = (regions for regions in merged if sizes[groups[min(regions)]] >= minimum_size)
        for cell, regions in enumerate(sorted(large, key=min), start=1):
            cells[list(regions)] = cell
        return cells

    def simplify(self, merge_threshold: float) -> WatershedRegions:
        """Merges the regions of each cell into one region.

        Afterwards `cells` is faster where there were many small maxima, and returns the same for a
        `merge_threshold` no larger, except that saddles of equal height may change their order.

        Args:
            merge_threshold: As in `cells`.
        """
        cells = self.cells(merge_threshold, 0)
        maxima = np.zeros(cells.max(initial=0) + 1, np.float32)
        np.maximum.at(maxima, cells, self.maxima)
        sizes = np.zeros(len(maxima), np.intp)
        np.add.at(sizes, cells, self.sizes)
        positions = self.positions_of(cells)
        pairs = np.sort(cells[self.pairs], axis=1)
        apart = pairs[:, 0] != pairs[:, 1]
        saddles = _highest(pairs[apart], self.saddle_heights[apart])
        return WatershedRegions(np.asarray(cells[self.labels]), maxima, sizes, positions, *saddles)

    def positions_of(self, cells: NDArray[np.int32]) -> NDArray[np.intp]:
        """Returns the flat index of the first maximum of each cell.

        Args:
            cells: Returned by `cells`, which numbers the cells in this order.
        """
        positions = np.full(cells.max(initial=0) + 1, self.labels.size, np.intp)
        np.minimum.at(positions, cells, self.positions)
        return positions

    def _separate_pairs(self, groups: DisjointSet) -> Iterator[tuple[int, int, float]]:
        """Yields the roots of groups that meet at a saddle, from the highest saddle down."""
        saddle_heights = self.saddle_heights.tolist()
        for (left, right), height in zip(self.pairs.tolist(), saddle_heights, strict=True):
            first, second = groups[left], groups[right]
            if first != second:
                yield first, second, height


def _maxima(heights: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Marks local maxima, plateaus included, also at the image border."""
    padded = np.pad(heights, 1, constant_values=-1)
    return np.asarray(local_maxima(padded, connectivity=1)[1:-1, 1:-1], np.bool_)


def _break_ties(heights: NDArray[np.float32], maxima: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Raises the maxima by less than the resolution of float32, the first of them the most."""
    # Equal maxima are then flooded in row order. The order of the watershed's own queue depends on
    # the pixels of the whole image.
    raised = heights.astype(np.float64)
    steps = raised[maxima].view(np.int64) + np.arange(np.count_nonzero(maxima), 0, -1)
    raised[maxima] = steps.view(np.float64)
    return raised


def _positions(maxima: NDArray[np.integer]) -> NDArray[np.intp]:
    """Returns the flat index of the first pixel of each maximum."""
    positions = np.flatnonzero(maxima)
    _, first = np.unique(maxima[maxima > 0], return_index=True)
    return np.concatenate([[maxima.size], positions[first]])


def _saddles(
    labels: NDArray[np.int32], heights: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Finds the saddle of each pair of regions that touch."""
    contacts = [_contacts(labels.T, heights.T), _contacts(labels, heights)]
    return _highest(*(np.concatenate(parts) for parts in zip(*contacts, strict=True)))


def _highest(
    pairs: NDArray[np.int32], heights: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Keeps the highest contact of each pair of regions, and sorts the pairs, highest first."""
    falling = np.argsort(-heights, kind="stable")
    key = pairs[:, 0].astype(np.int64) * (pairs.max(initial=0) + 1) + pairs[:, 1]
    _, first = np.unique(key[falling], return_index=True)
    highest = falling[np.sort(first)]
    return pairs[highest], heights[highest]


def _contacts(
    labels: NDArray[np.int32], heights: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Lists vertical neighbors in different regions, with the lower of the two heights."""
    above, below = labels[:-1], labels[1:]
    touching = (above != below) & (above > 0) & (below > 0)
    pairs = np.stack([above[touching], below[touching]], axis=1)
    return np.sort(pairs, axis=1), np.minimum(heights[:-1], heights[1:])[touching]
