"""Cells of an image larger than memory: what `label_instances` makes of it in one piece, by bands.

The image is read in bands of rows, from wherever it lies. Which steps look how far decides how each
is done; every pixel and every number is that of the one piece.

- Foreground and regions: a piece of the foreground does not know of the others. Pieces that end
  within a band are cut into cells there. Those that go on in the next are joined by what they have
  in common at its edge, and each is then cut in a window of its own.
- Numbers: cells are in the order in which their first summits are read; these positions are kept.
- Gaps: known from the pixels a few rows around, so bands are read with as many rows more.
- Holes: background that goes on in the next band is joined as the pieces are, together with what is
  known of the cells that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_unet.console import track
from keras_unet.instances.label import (
    OUTSIDE,
    BackgroundComponents,
    InstanceOptions,
    close_gaps,
    owners,
    reach_of_gaps,
    watershed_regions,
)

Window = tuple[slice, slice]

BAND = 2**22
"""Pixels of a band, about; each takes some hundred bytes while it is worked on."""

LARGEST_PIECE = 2**24
"""Pixels of the largest window in which a piece of foreground is cut into cells."""


_Joined = tuple[NDArray[np.intp], Window]
"""Numbers of pieces that are one, and their window."""


@dataclass(frozen=True, eq=False)
class Held:
    """A window of an image in memory, read and written by windows of the image that lie in it.

    Attributes:
        shape: Shape of the image.
        window: Rows and columns.
        pixels: The pixels of the window.

    Example:
        >>> held = Held.of(np.arange(12).reshape(3, 4), (slice(1, 3), slice(2, 4)))
        >>> held[2:3, 2:4].tolist()
        [[10, 11]]
    """

    shape: tuple[int, ...]
    window: Window
    pixels: NDArray[Any]

    @classmethod
    def of(cls, image: Any, window: Window) -> Held:
        """Reads a window of an array, or of what is read by windows as one is."""
        return cls(image.shape, window, np.array(image[window]))

    def __getitem__(self, window: Window) -> NDArray[Any]:
        """Returns a window of the image that lies in this one."""
        return self.pixels[self._within(window)]

    def __setitem__(self, window: Window, values: NDArray[Any]) -> None:
        """Replaces pixels in memory."""
        self.pixels[self._within(window)] = values

    def _within(self, window: Window) -> Window:
        rows, columns = (
            slice(part.start - held.start, part.stop - held.start)
            for part, held in zip(window, self.window, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class BlockwiseLabeler:
    """Labels an image by bands.

    Attributes:
        options: How cells are made of probabilities.
        band: Pixels of a band, about.
        largest_piece: Pixels of the largest window in which foreground is cut into cells.

    Example:
        >>> cells = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 0]], np.float32)
        >>> labels, drafts = np.zeros((2, 3, 3), np.int32)
        >>> BlockwiseLabeler(InstanceOptions(gap=0), band=3).label(cells, labels, drafts)
        2
        >>> labels.tolist()
        [[0, 1, 1], [0, 0, 1], [2, 0, 0]]
    """

    options: InstanceOptions
    band: int = BAND
    largest_piece: int = LARGEST_PIECE

    def label(self, probability: Any, labels: Any, drafts: Any) -> int:
        """Numbers the cells as `label_instances` does.

        Args:
            probability: Probability of being cell, `(height, width)`: an array, or what is read by
                windows of rows and columns as one is.
            labels: Where the label image is written, int32 of the same size: an array, or what is
                read and written as one is.
            drafts: Room to work in, of the same kind.

        Returns:
            The number of cells, 1 ... n.

        Raises:
            ValueError: If a piece of foreground, or a gap, is too wide for a window.
        """
        height, width = probability.shape
        reach = reach_of_gaps(self.options.gap)
        self._check_reach(reach, width)
        cells_of = self._drafts(probability, drafts)
        numbers = cells_of.numbers()
        bands = list(_bands((height, width), max(self.band, reach * width)))
        for rows in track(bands, "numbering cells"):
            around = slice(max(rows.start - reach, 0), min(rows.stop + reach, height))
            cells = cells_of.named((around, slice(0, width)), numbers)
            closed = close_gaps(cells, self.options.gap) if self.options.gap else cells
            labels[rows, :] = closed[rows.start - around.start :][: rows.stop - rows.start]
        if self.options.fill_holes:
            fill_holes(labels, self.band)
        return len(cells_of.positions)

    def _check_reach(self, reach: int, width: int) -> None:
        widest = 3 * reach * width
        if widest > max(2 * self.largest_piece, 3 * self.band):
            raise ValueError(
                f"gap must be narrower for an image larger than memory of {width} columns. "
                f"Received {self.options.gap:g}; 2 is what training leaves"
            )

    def _drafts(self, probability: Any, image: Any) -> _Provisional:
        """Cuts the foreground into cells, which get their numbers later."""
        drafts = _Provisional(image, self.options)
        for rows in track(list(_bands(probability.shape, self.band)), "cutting cells"):
            drafts.add_band(rows, np.asarray(probability[rows, :]))
        pieces = track(drafts.joined_pieces(), "parting cells")
        if self.options.markers == "components":
            for members, _ in pieces:
                drafts.add_whole(members)
        else:
            self._cut(pieces, drafts, probability)
        return drafts

    def _cut(self, pieces: Iterable[_Joined], drafts: _Provisional, probability: Any) -> None:
        """Cuts pieces into cells, many in one window: each read from disk takes its time."""
        for around, together in _gathered(pieces, self.band):
            for _, window in together:
                self._check_piece(window)
            held, image = Held.of(probability, around), Held.of(drafts.image, around)
            for members, window in together:
                drafts.add_piece(members, window, held, image)
            drafts.image[around] = image.pixels

    def _check_piece(self, window: Window) -> None:
        height, width = (axis.stop - axis.start for axis in window)
        if height * width > self.largest_piece:
            raise ValueError(
                f"markers must be components where a piece of foreground spans {height} x {width} "
                f"pixels, more than the {self.largest_piece:,} that memory holds, from row "
                f"{window[0].start} and column {window[1].start} on. Received markers="
                f"{self.options.markers}; or raise the threshold of {self.options.threshold:g}, so that "
                "the piece falls apart, or take a machine with more memory"
            )


@dataclass
class _Provisional:
    """Cells without their final numbers, and pieces of foreground that more than one band shares.

    Attributes:
        image: A cell's draft number, 1, 2, ..., or, below 0, that of a piece.
        options: How cells are made.
        positions: Where each cell's first summit begins, row by row; its draft number is one more.
        pieces: Of each piece the place of its first pixel, its pixels, and its box.
        meetings: Pairs of pieces that touch across bands.
        owner: Draft number of the cell that each piece as a whole belongs to, 0 for none.
    """

    image: Any
    options: InstanceOptions
    positions: list[int] = field(default_factory=list)
    pieces: list[_OpenComponent] = field(default_factory=list)
    meetings: list[NDArray[np.int64]] = field(default_factory=list)
    owner: dict[int, int] = field(default_factory=dict)
    _edge: NDArray[np.int32] | None = None

    def add_band(self, rows: slice, probability: NDArray[np.floating]) -> None:
        """Takes in a band: cells of what ends in it, pieces of what does not."""
        height, width = self.image.shape
        parts, number = ndimage.label(probability > self.options.threshold)
        is_open = np.zeros(number + 1, bool)
        is_open[parts[0]] |= rows.start > 0
        is_open[parts[-1]] |= rows.stop < height
        is_open[0] = False
        opened = is_open[parts]
        first = rows.start * width
        drafts = self._cells(np.where(opened, 0, probability), lambda place: place + first)
        pieces = np.where(opened, -(len(self.pieces) + is_open.cumsum()[parts]), 0)
        drafts += pieces.astype(np.int32)
        self._add_pieces(parts, is_open, rows.start, width)
        self._meet(drafts)
        self.image[rows, :] = drafts

    def _cells(
        self, probability: NDArray[np.floating], place: Callable[[NDArray[np.intp]], Any]
    ) -> NDArray[np.int32]:
        """Cuts foreground into cells of new draft numbers."""
        regions = watershed_regions(probability, self.options.threshold, self.options.markers)
        cells = regions.cells(self.options.merge_threshold, self.options.minimum_size)
        offset = np.int32(len(self.positions))
        self.positions += place(regions.positions_of(cells)[1:]).tolist()
        return np.where(cells > 0, cells + offset, 0).astype(np.int32)[regions.labels]

    def _add_pieces(
        self, parts: NDArray[np.integer], is_open: NDArray[np.bool_], top: int, width: int
    ) -> None:
        flat = np.flatnonzero(is_open[parts])
        numbers, first = np.unique(parts.ravel()[flat], return_index=True)
        sizes = np.bincount(parts.ravel()[flat], minlength=len(is_open))
        boxes = ndimage.find_objects(parts)
        for number, place in zip(numbers.tolist(), flat[first].tolist(), strict=True):
            down, right = boxes[number - 1]
            box = (top + down.start, top + down.stop, right.start, right.stop)
            self.pieces.append(_OpenComponent(top * width + place, int(sizes[number]), box))

    def _meet(self, drafts: NDArray[np.int32]) -> None:
        """Pairs the pieces at the upper edge with those above them."""
        if self._edge is not None:
            pairs = np.stack([self._edge, drafts[0]])
            self.meetings.append(-pairs[:, (pairs < 0).all(axis=0)])
        self._edge = drafts[-1].copy()

    def joined_pieces(self) -> Iterator[_Joined]:
        """Yields the numbers of pieces that are one, and their window with a pixel around."""
        boxes = np.array([piece.box for piece in self.pieces], np.intp).reshape(-1, 4)
        for members in _joined(len(self.pieces), self.meetings):
            top, _, left, _ = boxes[members - 1].min(axis=0)
            _, bottom, _, right = boxes[members - 1].max(axis=0)
            height, width = self.image.shape
            rows = slice(max(top - 1, 0), min(bottom + 1, height))
            yield members, (rows, slice(max(left - 1, 0), min(right + 1, width)))

    def add_whole(self, members: NDArray[np.intp]) -> None:
        """Takes pieces that are one as one cell, if it is large enough."""
        pieces = [self.pieces[member - 1] for member in members]
        if sum(piece.size for piece in pieces) >= self.options.minimum_size:
            self.positions.append(min(piece.place for piece in pieces))
            self.owner |= dict.fromkeys(members.tolist(), len(self.positions))

    def add_piece(
        self, members: NDArray[np.intp], window: Window, probability: Held, image: Held
    ) -> None:
        """Cuts pieces that are one into cells, in their window."""
        drafts = np.array(image[window])
        inside = np.isin(-drafts, members)
        rows, columns = window
        (_, width), across = self.image.shape, columns.stop - columns.start

        def place(positions: NDArray[np.intp]) -> NDArray[np.intp]:
            down, right = np.divmod(positions, across)
            return np.asarray((down + rows.start) * width + right + columns.start, np.intp)

        cells = self._cells(np.where(inside, probability[window], 0), place)
        image[window] = np.where(inside, cells, drafts)

    def numbers(self) -> NDArray[np.int32]:
        """Returns the final numbers of pieces, from the last to the first, of 0, and of cells."""
        cells = np.zeros(len(self.positions) + 1, np.int32)
        cells[1 + np.argsort(self.positions)] = np.arange(1, len(cells))
        pieces = [self.owner.get(number, 0) for number in range(len(self.pieces), 0, -1)]
        return np.concatenate([cells[np.array(pieces, np.intp)], cells])

    def named(self, window: Window, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Reads a window with final numbers."""
        drafts = np.asarray(self.image[window], np.int32)
        return numbers[drafts + len(self.pieces)]


@dataclass(frozen=True)
class _OpenComponent:
    """Known facts of a piece: its first pixel, its pixels, its box in the image."""

    place: int
    size: int
    box: tuple[int, int, int, int]


def fill_holes(labels: Any, band: int = BAND) -> None:
    """Gives cells the background that they alone surround, see `label_instances`, in place.

    Args:
        labels: Label image, `(height, width)`, int32: an array, or what is read and written by a
            window as one is.
        band: Pixels of a band, about.
    """
    bands = list(_bands(labels.shape, band))
    pockets = _BackgroundOfBands()
    for rows in bands:
        pockets.add(BackgroundComponents.of(_with_surroundings(labels, rows)))
    owner = pockets.owners()
    for rows, first in zip(bands, pockets.firsts, strict=True):
        cells = np.asarray(labels[rows, :])
        found = BackgroundComponents.of(np.pad(cells, 1))
        of_band = owner[first : first + len(found.lowest)]
        labels[rows, :] = found.filled(cells, of_band)


@dataclass
class _BackgroundOfBands:
    """The pockets of all bands, each band's after one of no number, and which of them are one."""

    firsts: list[int] = field(default_factory=list)
    lowest: list[NDArray[np.int32]] = field(default_factory=list)
    highest: list[NDArray[np.int32]] = field(default_factory=list)
    meetings: list[NDArray[np.int64]] = field(default_factory=list)
    _edge: NDArray[np.int64] | None = None

    def add(self, pockets: BackgroundComponents) -> None:
        """Takes in a band."""
        first = self.firsts[-1] + len(self.lowest[-1]) if self.firsts else 0
        numbers = np.where(pockets.numbers > 0, pockets.numbers.astype(np.int64) + first, -1)
        if self._edge is not None:
            self._meet(self._edge, numbers[0])
        self._edge = numbers[-1].copy()
        self.firsts.append(first)
        self.lowest.append(pockets.lowest)
        self.highest.append(pockets.highest)

    def _meet(self, above: NDArray[np.int64], below: NDArray[np.int64]) -> None:
        """Pairs pockets that touch across bands, over edges and corners."""
        neighbours = ((above, below), (above[1:], below[:-1]), (above[:-1], below[1:]))
        pairs = np.concatenate([np.stack(both) for both in neighbours], axis=1)
        self.meetings.append(np.unique(pairs[:, (pairs >= 0).all(axis=0)], axis=1) + 1)

    def owners(self) -> NDArray[np.int32]:
        """Returns the one cell that each pocket touches, 0 if it touches others or the outside."""
        lowest, highest = np.concatenate(self.lowest), np.concatenate(self.highest)
        group = _groups(len(lowest), self.meetings)
        least = np.full(len(lowest), np.iinfo(np.int32).max, np.int32)
        most = np.zeros(len(lowest), np.int32)
        np.minimum.at(least, group, lowest)
        np.maximum.at(most, group, highest)
        return owners(least, most)[group]


def _with_surroundings(labels: Any, rows: slice) -> NDArray[np.int32]:
    """Reads a band with the rows beside it, and OUTSIDE around the image."""
    height, width = labels.shape
    around = slice(max(rows.start - 1, 0), min(rows.stop + 1, height))
    beyond = (around.start - rows.start + 1, rows.stop + 1 - around.stop)
    read = np.asarray(labels[around, slice(0, width)])
    return np.pad(read, (beyond, (1, 1)), constant_values=OUTSIDE)


def _bands(size: tuple[int, int], pixels: int) -> Iterator[slice]:
    height, width = size
    rows = max(1, ceil(pixels / width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def _groups(number: int, meetings: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
    """Returns the group of each of so many things, 1, 2, ..., of which pairs belong together."""
    one, other = np.concatenate([np.empty((2, 0), np.int64), *meetings], axis=1) - 1
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(number, number))
    _, groups = connected_components(graph, directed=False)
    return np.asarray(groups)


def _joined(number: int, meetings: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.intp]]:
    """Yields the numbers, 1, 2, ..., of things that belong together."""
    groups = _groups(number, meetings)
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(members):
            yield members + 1


def _gathered(pieces: Iterable[_Joined], most: int) -> Iterator[tuple[Window, list[_Joined]]]:
    """Gathers pieces in windows of so many pixels; one that is larger has its window alone."""
    around, together = None, []
    for piece in pieces:
        wider = piece[1] if around is None else _around(around, piece[1])
        if around is not None and _pixels(wider) > most:
            yield around, together
            wider, together = piece[1], []
        around = wider
        together.append(piece)
    if around is not None:
        yield around, together


def _around(*windows: Window) -> Window:
    rows, columns = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*windows, strict=True)
    )
    return rows, columns


def _pixels(window: Window) -> int:
    height, width = (part.stop - part.start for part in window)
    return int(height * width)
