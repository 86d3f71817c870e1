"""Prediction of an image larger than memory: read, predicted, labelled and written by windows.

What comes out is what `predict_files` makes of the image in memory, pixel by pixel. Probabilities
and labels wait in files without a name in the folder of the outputs, some 4 bytes a pixel and class
and 8 more for instances, until the outputs are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import track
from keras_unet.data.calibration import Spacing
from keras_unet.data.images import smallest_unsigned
from keras_unet.data.large import LargePlane, open_large
from keras_unet.data.parts import Parts, write_ome_zarr, write_tiled_tiff
from keras_unet.data.stacks import axes_of_stack
from keras_unet.data.standardisation import ROWS, Moments
from keras_unet.files import printable
from keras_unet.instances.blockwise import LARGEST_PIECE, Stitcher
from keras_unet.instances.label import cell_probability
from keras_unet.prediction.labelling import Made, Order, Plane
from keras_unet.prediction.scratch import Scratch, scratches
from keras_unet.prediction.sweeps import Predict, Source, Window, grey_values
from keras_unet.runs import ModelInfo
from keras_unet.system import free_memory

_log = logging.getLogger(__name__)

_BAND = 2**22
"""Pixels that are read at a time where no tile asks for others, about."""

_PIECE_BYTES = 100
"""Memory that a pixel of a piece of foreground takes while it is cut into cells: 60 where the
probability is smooth, more where it is noise."""

_PIECE_SHARE = 0.75
"""Share of the free memory that a piece may take."""

_WRITERS: Mapping[str, Callable[[Path, Parts], None]] = {
    "tiff": write_tiled_tiff,
    "ome-zarr": write_ome_zarr,
}


def measure(
    run: ModelInfo,
    path: Path,
    see: Callable[[NDArray[np.float32]], object] = lambda _: None,
    axes: str | None = None,
) -> list[Moments]:
    """Reads an image once, to see whether it suits a run, and measures its planes.

    Args:
        run: The run.
        path: The image.
        see: Called with all pixels, some rows at a time.
        axes: Axes of an image that states none, or others.

    Raises:
        ValueError: If it cannot be read or does not suit.
    """

    def rows_of(plane: LargePlane) -> Iterator[NDArray[np.float32]]:
        height, width, _ = plane.shape
        bands = list(_bands(height, width, multiple_of=ROWS))
        for rows in track(bands, f"reading {path.name}"):
            pixels = grey_values(plane, (rows, slice(0, width)), run.architecture.channels)
            see(pixels)
            yield pixels

    with open_large(path, axes) as image:
        return [Moments.of(rows_of(plane)) for plane in image]


@dataclass(frozen=True, eq=False)
class Streaming:
    """Predicts an image by windows.

    Attributes:
        order: What is to be made.
        source: What predicts; the probabilities of its members and versions are averaged.
    """

    order: Order
    source: Source

    def make(self, path: Path, moments: Sequence[Moments]) -> Made:
        """Predicts an image and writes its outputs.

        Args:
            path: The image.
            moments: What was measured of its planes.

        Raises:
            ValueError: If memory does not hold a piece of foreground to be cut into cells.
            OSError: If there is no room to work in.
        """
        with open_large(path, self.source.axes) as image:
            planes, height, width, _ = image.shape
            spacing, stack = image.spacing, image.stack
        _log.info(f"{printable(path.name)}: read, predicted and written by parts")
        self._say_what_has_no_place(path, spacing, stack)
        with ExitStack() as exits:
            room = _Room.of(exits, self.order, self.source.members, planes, (height, width))
            predict = exits.enter_context(self.source.opened(path, moments))
            found: set[int] = set()
            numbers = [0]
            for plane in range(planes):
                scores = room.scores[plane % len(room.scores)]
                self._predict(predict, plane, scores, room.member)
                found |= _classes(scores)
                if room.labels:
                    stitcher = Stitcher(self.order.info.rule, largest_piece=_largest_piece())
                    numbers.append(
                        stitcher.label(_Cells(scores), room.labels[plane], room.drafts[0])
                    )
            written = self._write(path, room, max(numbers), spacing, stack)
            return Made(tuple(written), frozenset(found))

    def _say_what_has_no_place(
        self, path: Path, spacing: Spacing, stack: Sequence[tuple[str, int]]
    ) -> None:
        letters, _ = axes_of_stack(stack)
        lost = spacing.not_in_zarr("YX" if "Q" in letters else f"{letters}YX")
        if lost and self.order.form_of(path) == "ome-zarr":
            _log.info(
                f"{printable(path.name)}: where its planes lie along {', '.join(lost)} is not "
                "written: OME-Zarr has one place for an image, in the unit of its pixels; TIFF "
                "keeps all"
            )

    def _predict(
        self, predict: Predict, plane: int, scores: Scratch, room: Sequence[Scratch]
    ) -> None:
        """Averages the networks, as np.mean does: one added to the other, then divided."""
        for member in range(self.source.members):
            own = room[0] if member else scores
            self._predict_one(predict, plane, member, own)
            if member:
                for window in _windows(scores):
                    scores[window] = scores[window] + own[window]
        _divide(scores, self.source.members)

    def _predict_one(self, predict: Predict, plane: int, member: int, scores: Scratch) -> None:
        """Averages what a network says of the versions, as `average_over_symmetries` does."""
        for version in range(self.source.versions):
            for place, upright in predict(plane, member, version):
                scores[place] = scores[place] + upright if version else upright
        _divide(scores, self.source.versions)

    def _write(
        self,
        path: Path,
        room: _Room,
        cells: int,
        spacing: Spacing,
        stack: Sequence[tuple[str, int]],
    ) -> Iterator[Path]:
        form = self.order.form_of(path)
        for output in self.order.outputs:
            target = self.order.target(path, output)
            parts = self._parts(room, output, form, cells, stack, spacing)
            _WRITERS[form](target, parts)
            yield target

    def _parts(
        self,
        room: _Room,
        output: str,
        form: str,
        cells: int,
        stack: Sequence[tuple[str, int]],
        spacing: Spacing,
    ) -> Parts:
        run = self.order.info
        if output == "instances":
            dtype = smallest_unsigned(np.array([cells])).dtype

            def read(plane: int, window: Window) -> NDArray[Any]:
                return room.labels[plane][window].astype(dtype)

            return _parts(run, output, form, room.labels, dtype, read, stack, spacing)

        def rendered(plane: int, window: Window) -> NDArray[Any]:
            return Plane.of(room.scores[plane][window]).rendered(output, run.scheme)

        dtype = rendered(0, (slice(0, 1), slice(0, 1))).dtype
        return _parts(run, output, form, room.scores, dtype, rendered, stack, spacing)


@dataclass(frozen=True, eq=False)
class _Room:
    """The scratches of an image; a list is empty where there is no need for it."""

    scores: list[Scratch]
    member: list[Scratch]
    labels: list[Scratch]
    drafts: list[Scratch]

    @classmethod
    def of(
        cls, stack: ExitStack, order: Order, members: int, planes: int, size: tuple[int, int]
    ) -> _Room:
        def room(number: int, shape: tuple[int, ...], dtype: Any) -> list[Scratch]:
            if not number:
                return []
            return stack.enter_context(scratches(order.out, number, shape, dtype))

        shape = (*size, order.info.architecture.classes)
        has_instances = "instances" in order.outputs
        kept = 1 if order.outputs == ("instances",) else planes
        return cls(
            room(kept, shape, np.float32),
            room(int(members > 1), shape, np.float32),
            room(planes * has_instances, size, np.int32),
            room(int(has_instances), size, np.int32),
        )


@dataclass(frozen=True, eq=False)
class _Cells:
    """The probability of being cell, read by windows."""

    scores: Scratch

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.scores.shape[:2]
        return height, width

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        return cell_probability(self.scores[window])


def _largest_piece() -> int:
    """Returns how many pixels of one piece memory holds, or what is taken at least."""
    return max(LARGEST_PIECE, int(_PIECE_SHARE * free_memory()) // _PIECE_BYTES)


def _classes(scores: Scratch) -> set[int]:
    return {
        one
        for window in _windows(scores)
        for one in np.unique(Plane.of(scores[window]).classes).tolist()
    }


def _divide(scores: Scratch, divisor: int) -> None:
    if divisor > 1:
        for window in _windows(scores):
            scores[window] = scores[window] / np.float32(divisor)


def _parts(
    run: ModelInfo,
    output: str,
    form: str,
    planes: Sequence[Scratch],
    dtype: np.dtype[Any],
    read: Callable[[int, Window], NDArray[Any]],
    stack: Sequence[tuple[str, int]],
    spacing: Spacing,
) -> Parts:
    """Describes an output, with what TIFF and OME-Zarr want in another order."""
    letters, lengths = axes_of_stack(stack)
    if form == "ome-zarr" and "Q" in letters:  # which OME-Zarr does not have
        letters, lengths, spacing = "Z", (len(planes),), spacing.of_axes("YX")
    sizes = list(zip(letters, lengths, strict=True))
    if output == "probabilities":
        sizes.append(("C", run.architecture.classes))
    if form == "ome-zarr":
        sizes.sort(key=lambda size: "TCZ".index(size[0]))
    axes = "".join(axis for axis, _ in sizes)
    inside = range(len(letters)) if form == "tiff" else [axes.index(letter) for letter in letters]

    def window(place: tuple[int, ...], window: Window) -> NDArray[Any]:
        numbers = [place[axis] for axis in inside]
        pixels = read(int(np.ravel_multi_index(numbers, lengths)) if numbers else 0, window)
        return pixels[place[axes.index("C")]] if "C" in axes else pixels

    shape = (*(size for _, size in sizes), *planes[0].shape[:2])
    named = replace(spacing, channels=run.scheme.names)
    return Parts(shape, dtype, f"{axes}YX", window, named)


def _bands(height: int, width: int, multiple_of: int = 1) -> Iterator[slice]:
    rows = max(1, _BAND // width // multiple_of) * multiple_of
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def _windows(scores: Scratch) -> Iterator[Window]:
    height, width, classes = scores.shape
    for rows in _bands(height, width * classes):
        yield rows, slice(0, width)
