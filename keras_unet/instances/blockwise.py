"""Instance labels of images larger than memory, computed in bands of rows.

The result equals that of `label_instances`, label by label:

- Cells: the cells of a connected component do not depend on other components. A component that lies
  within one band is split into cells there. Components that cross bands are merged at the edges of
  the bands, and each is then split in a window of its own.
- Order: labels follow the positions of the cells' first maxima, which are recorded.
- Gaps: they depend on pixels a few rows away, so bands are read with a margin.
- Holes: components of the background are merged across bands like those of the foreground, with
  the labels of the cells that they touch.
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
    enclosing_label,
    gap_margin,
    watershed_regions,
)

Window = tuple[slice, slice]

BAND = 2**22
"""Approximate number of pixels of a band; each takes some hundred bytes of memory."""

LARGEST_PIECE = 2**24
"""Pixels of the largest window in which a component of the foreground is split into cells."""


_Component = tuple[NDArray[np.intp], Window]
"""Numbers of the pieces of a component, and its window."""


@dataclass(frozen=True, eq=False)
class WindowBuffer:
    """Window of an image in memory, indexed by the coordinates of the image.

    Attributes:
        shape: Shape of the image.
        window: Rows and columns.
        pixels: Pixels of the window.

    Example:
        >>> buffer = WindowBuffer.of(np.arange(12).reshape(3, 4), (slice(1, 3), slice(2, 4)))
        >>> buffer[2:3, 2:4].tolist()
        [[10, 11]]
    """

    shape: tuple[int, ...]
    window: Window
    pixels: NDArray[Any]

    @classmethod
    def of(cls, image: Any, window: Window) -> WindowBuffer:
        """Reads a window of an array or array-like image."""
        return cls(image.shape, window, np.array(image[window]))

    def __getitem__(self, window: Window) -> NDArray[Any]:
        """Returns a window of the image that lies within this one."""
        return self.pixels[self._relative(window)]

    def __setitem__(self, window: Window, values: NDArray[Any]) -> None:
        """Replaces pixels in memory."""
        self.pixels[self._relative(window)] = values

    def _relative(self, window: Window) -> Window:
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(window, self.window, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class BlockwiseLabeler:
    """Labels the cells of an image in bands of rows.

    Attributes:
        options: Instance options.
        band: Approximate number of pixels of a band.
        largest_piece: Pixels of the largest window in which a component is split into cells.

    Example:
        >>> cells = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 0]], np.float32)
        >>> labels, provisional = np.zeros((2, 3, 3), np.int32)
        >>> BlockwiseLabeler(InstanceOptions(gap=0), band=3).label(cells, labels, provisional)
        2
        >>> labels.tolist()
        [[0, 1, 1], [0, 0, 1], [2, 0, 0]]
    """

    options: InstanceOptions
    band: int = BAND
    largest_piece: int = LARGEST_PIECE

    def label(self, probability: Any, labels: Any, provisional: Any) -> int:
        """Computes the label image, equal to that of `label_instances`.

        Args:
            probability: Cell probability, `(height, width)`: an array, or an object that is read by
                windows of rows and columns like one.
            labels: Output, int32 of the same size: an array, or an object that is read and written
                by windows like one.
            provisional: Buffer for intermediate results, like `labels`.

        Returns:
            The number of cells.

        Raises:
            ValueError: If a component of the foreground, or a gap, is too large for a window.
        """
        height, width = probability.shape
        margin = gap_margin(self.options.gap)
        self._check_margin(margin, width)
        cells = self._label_provisionally(probability, provisional)
        labels_of_numbers = cells.final_labels()
        bands = list(_bands((height, width), max(self.band, margin * width)))
        for rows in track(bands, "labeling cells"):
            around = slice(max(rows.start - margin, 0), min(rows.stop + margin, height))
            label_image = cells.read((around, slice(0, width)), labels_of_numbers)
            if self.options.gap:
                label_image = close_gaps(label_image, self.options.gap)
            labels[rows, :] = label_image[rows.start - around.start :][: rows.stop - rows.start]
        if self.options.fill_holes:
            fill_holes(labels, self.band)
        return len(cells.positions)

    def _check_margin(self, margin: int, width: int) -> None:
        widest = 3 * margin * width
        if widest > max(2 * self.largest_piece, 3 * self.band):
            raise ValueError(
                "gap must be narrower for an image larger than memory with "
                f"{width} columns; training leaves gaps of 2 pixels. "
                f"Received: gap={self.options.gap:g}"
            )

    def _label_provisionally(self, probability: Any, image: Any) -> _ProvisionalLabels:
        cells = _ProvisionalLabels(image, self.options)
        for rows in track(list(_bands(probability.shape, self.band)), "finding cells"):
            cells.add_band(rows, np.asarray(probability[rows, :]))
        components = track(cells.open_components(), "splitting cells")
        if self.options.markers == "components":
            for pieces, _ in components:
                cells.add_single_cell(pieces)
        else:
            self._split_components(components, cells, probability)
        return cells

    def _split_components(
        self, components: Iterable[_Component], cells: _ProvisionalLabels, probability: Any
    ) -> None:
        """Splits components into cells, many in one window to save reads."""
        for around, group in _group_by_window(components, self.band):
            for _, window in group:
                self._check_window(window)
            heights = WindowBuffer.of(probability, around)
            image = WindowBuffer.of(cells.image, around)
            for pieces, window in group:
                cells.split_component(pieces, window, heights, image)
            cells.image[around] = image.pixels

    def _check_window(self, window: Window) -> None:
        height, width = (axis.stop - axis.start for axis in window)
        if height * width > self.largest_piece:
            raise ValueError(
                "markers must be components for an image with a connected foreground of "
                f"{height} x {width} pixels, more than the {self.largest_piece:,} that fit in "
                f"memory, from row {window[0].start} and column {window[1].start}. "
                f"Received: markers={self.options.markers}. Otherwise raise the threshold of "
                f"{self.options.threshold:g} to disconnect it, or use a machine with more memory"
            )


@dataclass
class _ProvisionalLabels:
    """Cells with provisional labels, and open components: those that cross bands, in pieces.

    Attributes:
        image: Provisional label of a cell, 1, 2, ..., or the negative number of a piece.
        options: Instance options.
        positions: Flat index of the first maximum of each cell; its label is the index plus 1.
        pieces: Pieces of open components, one or more in each band.
        touching: Pairs of pieces that touch across bands.
        cell_of_piece: Provisional label of the cell of a piece that was not split.
    """

    image: Any
    options: InstanceOptions
    positions: list[int] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)
    touching: list[NDArray[np.int64]] = field(default_factory=list)
    cell_of_piece: dict[int, int] = field(default_factory=dict)
    _last_row: NDArray[np.int32] | None = None

    def add_band(self, rows: slice, probability: NDArray[np.floating]) -> None:
        """Labels the components that lie within a band, and records the pieces of the others."""
        height, width = self.image.shape
        components, number = ndimage.label(probability > self.options.threshold)
        is_open = np.zeros(number + 1, bool)
        is_open[components[0]] |= rows.start > 0
        is_open[components[-1]] |= rows.stop < height
        is_open[0] = False
        open_pixels = is_open[components]
        first = rows.start * width
        labels = self._split(
            np.where(open_pixels, 0, probability), lambda positions: positions + first
        )
        pieces = np.where(open_pixels, -(len(self.pieces) + is_open.cumsum()[components]), 0)
        labels += pieces.astype(np.int32)
        self._add_pieces(components, is_open, rows.start, width)
        self._pair_with_last_row(labels)
        self.image[rows, :] = labels

    def _split(
        self, probability: NDArray[np.floating], to_image: Callable[[NDArray[np.intp]], Any]
    ) -> NDArray[np.int32]:
        """Splits foreground into cells with new labels; `to_image` converts their positions."""
        regions = watershed_regions(probability, self.options.threshold, self.options.markers)
        cells = regions.cells(self.options.merge_threshold, self.options.minimum_size)
        offset = np.int32(len(self.positions))
        self.positions += to_image(regions.positions_of(cells)[1:]).tolist()
        return np.where(cells > 0, cells + offset, 0).astype(np.int32)[regions.labels]

    def _add_pieces(
        self, components: NDArray[np.integer], is_open: NDArray[np.bool_], top: int, width: int
    ) -> None:
        pixels = np.flatnonzero(is_open[components])
        numbers, first = np.unique(components.ravel()[pixels], return_index=True)
        sizes = np.bincount(components.ravel()[pixels], minlength=len(is_open))
        boxes = ndimage.find_objects(components)
        for number, position in zip(numbers.tolist(), pixels[first].tolist(), strict=True):
            down, right = boxes[number - 1]
            box = (top + down.start, top + down.stop, right.start, right.stop)
            self.pieces.append(_Piece(top * width + position, int(sizes[number]), box))

    def _pair_with_last_row(self, labels: NDArray[np.int32]) -> None:
        if self._last_row is not None:
            pairs = np.stack([self._last_row, labels[0]])
            self.touching.append(-pairs[:, (pairs < 0).all(axis=0)])
        self._last_row = labels[-1].copy()

    def open_components(self) -> Iterator[_Component]:
        """Yields the pieces of each open component, and its window with a margin of one pixel."""
        boxes = np.array([piece.box for piece in self.pieces], np.intp).reshape(-1, 4)
        for pieces in _connected(len(self.pieces), self.touching):
            top, _, left, _ = boxes[pieces - 1].min(axis=0)
            _, bottom, _, right = boxes[pieces - 1].max(axis=0)
            height, width = self.image.shape
            rows = slice(max(top - 1, 0), min(bottom + 1, height))
            yield pieces, (rows, slice(max(left - 1, 0), min(right + 1, width)))

    def add_single_cell(self, numbers: NDArray[np.intp]) -> None:
        """Records a component as one cell, if it is large enough."""
        pieces = [self.pieces[number - 1] for number in numbers]
        if sum(piece.size for piece in pieces) >= self.options.minimum_size:
            self.positions.append(min(piece.position for piece in pieces))
            self.cell_of_piece |= dict.fromkeys(numbers.tolist(), len(self.positions))

    def split_component(
        self,
        pieces: NDArray[np.intp],
        window: Window,
        probability: WindowBuffer,
        image: WindowBuffer,
    ) -> None:
        """Splits a component into cells within its window."""
        labels = np.array(image[window])
        inside = np.isin(-labels, pieces)
        rows, columns = window
        (_, width), window_width = self.image.shape, columns.stop - columns.start

        def to_image(positions: NDArray[np.intp]) -> NDArray[np.intp]:
            down, right = np.divmod(positions, window_width)
            return np.asarray((down + rows.start) * width + right + columns.start, np.intp)

        cells = self._split(np.where(inside, probability[window], 0), to_image)
        image[window] = np.where(inside, cells, labels)

    def final_labels(self) -> NDArray[np.int32]:
        """Returns the final labels of pieces, from the last to the first, of 0, and of cells."""
        cells = np.zeros(len(self.positions) + 1, np.int32)
        cells[1 + np.argsort(self.positions)] = np.arange(1, len(cells))
        numbers = range(len(self.pieces), 0, -1)
        pieces = [self.cell_of_piece.get(number, 0) for number in numbers]
        return np.concatenate([cells[np.array(pieces, np.intp)], cells])

    def read(self, window: Window, final_labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Reads a window with final labels."""
        provisional = np.asarray(self.image[window], np.int32)
        return final_labels[provisional + len(self.pieces)]


@dataclass(frozen=True)
class _Piece:
    """Part of an open component in one band: flat index of its first pixel, pixels, box."""

    position: int
    size: int
    box: tuple[int, int, int, int]


def fill_holes(labels: Any, band: int = BAND) -> None:
    """Fills the holes of cells in place, see `label_instances`.

    Args:
        labels: Label image, `(height, width)`, int32: an array, or an object that is read and
            written by windows like one.
        band: Approximate number of pixels of a band.
    """
    bands = list(_bands(labels.shape, band))
    background = _BackgroundOfBands()
    for rows in bands:
        background.add(BackgroundComponents.of(_read_with_margin(labels, rows)))
    enclosing = background.enclosing_labels()
    for rows, first in zip(bands, background.firsts, strict=True):
        cells = np.asarray(labels[rows, :])
        components = BackgroundComponents.of(np.pad(cells, 1))
        of_band = enclosing[first : first + len(components.lowest)]
        labels[rows, :] = components.fill(cells, of_band)


@dataclass
class _BackgroundOfBands:
    """Background components of all bands, with an unused number in front of each band's."""

    firsts: list[int] = field(default_factory=list)
    lowest: list[NDArray[np.int32]] = field(default_factory=list)
    highest: list[NDArray[np.int32]] = field(default_factory=list)
    touching: list[NDArray[np.int64]] = field(default_factory=list)
    _last_row: NDArray[np.int64] | None = None

    def add(self, background: BackgroundComponents) -> None:
        """Adds the components of the next band."""
        first = self.firsts[-1] + len(self.lowest[-1]) if self.firsts else 0
        numbers = np.where(background.labels > 0, background.labels.astype(np.int64) + first, -1)
        if self._last_row is not None:
            self._pair(self._last_row, numbers[0])
        self._last_row = numbers[-1].copy()
        self.firsts.append(first)
        self.lowest.append(background.lowest)
        self.highest.append(background.highest)

    def _pair(self, above: NDArray[np.int64], below: NDArray[np.int64]) -> None:
        """Records components that touch across bands, over edges and corners."""
        neighbors = ((above, below), (above[1:], below[:-1]), (above[:-1], below[1:]))
        pairs = np.concatenate([np.stack(rows) for rows in neighbors], axis=1)
        self.touching.append(np.unique(pairs[:, (pairs >= 0).all(axis=0)], axis=1) + 1)

    def enclosing_labels(self) -> NDArray[np.int32]:
        """Returns the cell that encloses each component; 0 if it touches several or the outside."""
        lowest, highest = np.concatenate(self.lowest), np.concatenate(self.highest)
        group = _groups(len(lowest), self.touching)
        lowest_of_group = np.full(len(lowest), np.iinfo(np.int32).max, np.int32)
        highest_of_group = np.zeros(len(lowest), np.int32)
        np.minimum.at(lowest_of_group, group, lowest)
        np.maximum.at(highest_of_group, group, highest)
        return enclosing_label(lowest_of_group, highest_of_group)[group]


def _read_with_margin(labels: Any, rows: slice) -> NDArray[np.int32]:
    """Reads a band with a margin of one pixel, OUTSIDE beyond the image."""
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


def _groups(number: int, pairs: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
    """Returns the connected group of each of the nodes 1 ... number, joined by pairs."""
    first, second = np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1) - 1
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(number, number))
    _, groups = connected_components(graph, directed=False)
    return np.asarray(groups)


def _connected(number: int, pairs: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.intp]]:
    """Yields the nodes, 1 ... number, of each connected group."""
    groups = _groups(number, pairs)
    order = np.argsort(groups, kind="stable")
    for nodes in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(nodes):
            yield nodes + 1


def _group_by_window(
    components: Iterable[_Component], most: int
) -> Iterator[tuple[Window, list[_Component]]]:
    """Groups components in windows of at most `most` pixels; a larger one has its own window."""
    window, group = None, []
    for component in components:
        wider = component[1] if window is None else _bounding_window(window, component[1])
        if window is not None and _pixels(wider) > most:
            yield window, group
            wider, group = component[1], []
        window = wider
        group.append(component)
    if window is not None:
        yield window, group


def _bounding_window(*windows: Window) -> Window:
    rows, columns = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*windows, strict=True)
    )
    return rows, columns


def _pixels(window: Window) -> int:
    height, width = (axis.stop - axis.start for axis in window)
    return int(height * width)
