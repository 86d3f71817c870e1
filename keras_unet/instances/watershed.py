"""The basins of a landscape, and which of them belong together: a watershed without a free choice.

Water that runs uphill from every pixel gathers on the summits; the pixels of one summit are its
basin. Two basins meet at a pass, the highest place where they touch. A summit that rises little
above the pass is a ripple, and its basin is joined to the other:

    height   2 4 6 5 6 4 1 3 5 4
    basins   1 1 1 1 2 2 2 3 3 3
    cells    1 1 1 1 1 1 1 2 2 2     the pass of 5 is high beside summits of 6, that of 1 is low

Summits are judged by the ratio of heights, so that large and small cells have one rule. Passes are
taken from the highest down; two summits that are apart stay apart (in image analysis: h-maxima, h
being relative).
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
class Landscape:
    """The basins of a landscape and the passes between them.

    Attributes:
        basins: Basin of each pixel, 1 ... n, `(height, width)`; 0 outside of the landscape.
        summits: Highest place of each basin, `(n + 1,)`; the first entry stands for the outside.
        sizes: Pixels of each basin, `(n + 1,)`.
        places: Where in the image, read row by row, each summit begins, `(n + 1,)`; rising, but for
            the outside's, which is that of no pixel.
        passes: Two basins that touch, `(passes, 2)`, the pair with the highest pass first.
        heights: Height of each pass, `(passes,)`, falling.
    """

    basins: NDArray[np.int32]
    summits: NDArray[np.float32]
    sizes: NDArray[np.intp]
    places: NDArray[np.intp]
    passes: NDArray[np.int32]
    heights: NDArray[np.float32]

    @classmethod
    def of(cls, heights: NDArray[np.floating], inside: NDArray[np.bool_]) -> Landscape:
        """Finds the basins. Pixels are neighbours over their edges.

        What becomes of a piece of the landscape does not depend on what else is in the image.

        Args:
            heights: The landscape, `(height, width)`, above 0 inside.
            inside: Which pixels belong to it, `(height, width)`.

        Example:
            >>> row = np.array([[2, 4, 6, 5, 6, 4, 1, 3, 5, 4]])
            >>> landscape = Landscape.of(row, row > 0)
            >>> landscape.basins.tolist(), landscape.passes.tolist(), landscape.heights.tolist()
            ([[1, 1, 1, 1, 2, 2, 2, 3, 3, 3]], [[1, 2], [2, 3]], [5.0, 1.0])
        """
        land = np.where(inside, heights, 0).astype(np.float32)
        summits, _ = ndimage.label(_summits(land) & inside)
        flooded = watershed(-_in_turn(land, summits > 0), summits, mask=inside)
        basins = np.asarray(flooded, np.int32)
        sizes = np.bincount(basins.ravel())
        tops = np.zeros(len(sizes), np.float32)
        np.maximum.at(tops, basins[summits > 0], land[summits > 0])
        return cls(basins, tops, sizes, _places(summits), *_passes(basins, land))

    def cells(self, neck: float, minimum_size: int) -> NDArray[np.int32]:
        """Joins basins to cells.

        Args:
            neck: Two basins belong together if the pass is at least this share of the lower summit;
                0 joins all that touch.
            minimum_size: A cell of fewer pixels is joined to the one over its highest pass; if it
                touches none, it is no cell.

        Returns:
            The cell of each basin, 1 ... cells, `(n + 1,)`; 0 for none. `cells[basins]` is the
            label image.

        Example:
            >>> row = np.array([[2, 4, 6, 5, 6, 4, 1, 3, 5, 4]])
            >>> landscape = Landscape.of(row, row > 0)
            >>> landscape.cells(neck=0.5, minimum_size=3).tolist()
            [0, 1, 1, 2]
            >>> landscape.cells(neck=0.5, minimum_size=4).tolist()
            [0, 1, 1, 1]
        """
        groups = DisjointSet(range(len(self.sizes)))
        summits, sizes = self.summits.tolist(), self.sizes.tolist()

        def join(one: int, other: int) -> None:
            groups.merge(one, other)
            joined = groups[one]
            summits[joined] = max(summits[one], summits[other])
            sizes[joined] = sizes[one] + sizes[other]

        for one, other, height in self._separate_pairs(groups):
            if height >= neck * min(summits[one], summits[other]):
                join(one, other)
        for one, other, _ in self._separate_pairs(groups):
            if min(sizes[one], sizes[other]) < minimum_size:
                join(one, other)
        numbers = np.zeros(len(sizes), np.int32)
        found = (members for members in groups.subsets() if 0 not in members)
        large = (members for members in found if sizes[groups[min(members)]] >= minimum_size)
        for number, members in enumerate(sorted(large, key=min), start=1):
            numbers[list(members)] = number
        return numbers

    def coarser(self, neck: float) -> Landscape:
        """Returns the landscape with its ripples joined: basins of one cell become one basin.

        What `cells` makes of it by a `neck` no larger is the same, but for passes of one height
        that may change places; it is faster where there are many ripples.

        Args:
            neck: As in `cells`.
        """
        cells = self.cells(neck, 0)
        summits = np.zeros(cells.max(initial=0) + 1, np.float32)
        np.maximum.at(summits, cells, self.summits)
        sizes = np.zeros(len(summits), np.intp)
        np.add.at(sizes, cells, self.sizes)
        places = self.places_of(cells)
        pairs = np.sort(cells[self.passes], axis=1)
        apart = pairs[:, 0] != pairs[:, 1]
        passes = _highest(pairs[apart], self.heights[apart])
        return Landscape(np.asarray(cells[self.basins]), summits, sizes, places, *passes)

    def places_of(self, cells: NDArray[np.int32]) -> NDArray[np.intp]:
        """Returns where in the image, read row by row, the first summit of each cell begins.

        Args:
            cells: What `cells` returned; in this order it numbers them.
        """
        places = np.full(cells.max(initial=0) + 1, self.basins.size, np.intp)
        np.minimum.at(places, cells, self.places)
        return places

    def _separate_pairs(self, groups: DisjointSet) -> Iterator[tuple[int, int, float]]:
        """Yields the roots of groups that meet at a pass, from the highest pass down."""
        for (one, other), height in zip(self.passes.tolist(), self.heights.tolist(), strict=True):
            first, second = groups[one], groups[other]
            if first != second:
                yield first, second, height


def _summits(land: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Marks the pixels, and level areas, that rise above all around them, image border or not."""
    padded = np.pad(land, 1, constant_values=-1)
    return np.asarray(local_maxima(padded, connectivity=1)[1:-1, 1:-1], np.bool_)


def _in_turn(land: NDArray[np.float32], summits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Raises the summits by less than float32 can tell, the first of them the most.

    Equal ones are then flooded row by row. They would else be in the order of the watershed's
    queue, in which the pixels of the whole image stand.
    """
    heights = land.astype(np.float64)
    steps = heights[summits].view(np.int64) + np.arange(np.count_nonzero(summits), 0, -1)
    heights[summits] = steps.view(np.float64)
    return heights


def _places(summits: NDArray[np.integer]) -> NDArray[np.intp]:
    """Finds the first pixel of each summit, row by row."""
    places = np.flatnonzero(summits)
    _, first = np.unique(summits[summits > 0], return_index=True)
    return np.concatenate([[summits.size], places[first]])


def _passes(
    basins: NDArray[np.int32], land: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Finds the highest place where two basins touch, for all pairs that do."""
    meetings = [_meetings(basins.T, land.T), _meetings(basins, land)]
    pairs, heights = (np.concatenate(parts) for parts in zip(*meetings, strict=True))
    return _highest(pairs, heights)


def _highest(
    pairs: NDArray[np.int32], heights: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Keeps the highest of the places where the same two basins touch, the highest pass first."""
    falling = np.argsort(-heights, kind="stable")
    key = pairs[:, 0].astype(np.int64) * (pairs.max(initial=0) + 1) + pairs[:, 1]
    _, first = np.unique(key[falling], return_index=True)
    highest = falling[np.sort(first)]
    return pairs[highest], heights[highest]


def _meetings(
    basins: NDArray[np.int32], land: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Lists neighbours above one another in different basins: the basins and the lower height."""
    above, below = basins[:-1], basins[1:]
    touching = (above != below) & (above > 0) & (below > 0)
    pairs = np.stack([above[touching], below[touching]], axis=1)
    return np.sort(pairs, axis=1), np.minimum(land[:-1], land[1:])[touching]
