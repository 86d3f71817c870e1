"""Prediction of an image larger than memory: read, predicted, labelled and written by windows.

What comes out is what `predict_files` makes of the image in memory, pixel by pixel. Probabilities
and labels wait in files without a name in the folder of the outputs, some 4 bytes a pixel and class
and 8 more for instances, until the outputs are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import as_channels, pixels_of, smallest_unsigned
from keras_unet.data.large import LargePlane, open_large
from keras_unet.data.parts import Parts, write_ome_zarr, write_tiled_tiff
from keras_unet.data.standardisation import ROWS, Moments
from keras_unet.instances import cell_probability
from keras_unet.jobs.labelling import Made, Order, Plane
from keras_unet.prediction import checked_pixels, predict_tiles, tile_size_of
from keras_unet.runs import Run
from keras_unet.scratch import Scratch, scratches
from keras_unet.stitching import Stitcher
from keras_unet.symmetries import SYMMETRIES, Turned, turned_back
from keras_unet.tiling import Tile, Tiling

Window = tuple[slice, slice]

_BAND = 2**22
"""Pixels that are read at a time where no tile asks for others, about."""

_WRITERS: Mapping[str, Callable[[Path, Parts], None]] = {
    "tiff": write_tiled_tiff,
    "ome-zarr": write_ome_zarr,
}


def measure(run: Run, path: Path) -> list[Moments]:
    """Reads an image once, to see whether it suits a run, and measures its planes.

    Raises:
        ValueError: If it cannot be read or does not suit.
    """
    with open_large(path) as image:
        return [Moments.of(_rows(run, plane)) for plane in image]


def _rows(run: Run, plane: LargePlane) -> Iterator[NDArray[np.float32]]:
    height, width, _ = plane.shape
    for rows in _bands(height, width, multiple_of=ROWS):
        yield _pixels(run, plane, (rows, slice(0, width)))


def _pixels(run: Run, plane: LargePlane, window: Window) -> NDArray[np.float32]:
    rows = window[0]
    where = f"{plane.image.path} (rows {rows.start} to {rows.stop - 1})"
    raw = plane[window]
    return pixels_of(as_channels(raw, run.architecture.channels, plane.image.path), where)


@dataclass(frozen=True, eq=False)
class Streaming:
    """Networks that predict an image by windows.

    Attributes:
        order: What is to be made.
        members: The runs, and their networks; the probabilities are averaged.
        tile_size: Height and width of the tiles, or None, see `tile_size_of`.
        symmetries: Whether to average over the eight symmetries of the square.
        say: Takes a line for a person.
    """

    order: Order
    members: Sequence[tuple[Run, Any]]
    tile_size: int | None
    symmetries: bool
    say: Callable[[str], None]

    def make(self, path: Path, moments: Sequence[Moments]) -> Made:
        """Predicts an image and writes its outputs.

        Args:
            path: The image.
            moments: What was measured of its planes.

        Raises:
            ValueError: If a piece of foreground is too large to be cut into cells.
            OSError: If there is no room to work in.
        """
        with open_large(path) as image, ExitStack() as stack:
            planes, height, width, _ = image.shape
            self.say(f"{path.name}: read, predicted and written by parts")
            room = _Room.of(stack, self.order, len(self.members), planes, (height, width))
            found: set[int] = set()
            numbers = [0]
            for plane, measured in zip(image, moments, strict=True):
                scores = room.scores[plane.number % len(room.scores)]
                self._predict(plane, measured, scores, room.member)
                found |= _classes(scores)
                if room.labels:
                    stitcher = Stitcher(self.order.run.rule)
                    labels = room.labels[plane.number]
                    numbers.append(stitcher.label(_Cells(scores), labels, room.drafts[0]))
            return Made(tuple(self._write(path, room, max(numbers))), frozenset(found))

    def _predict(
        self, plane: LargePlane, moments: Moments, scores: Scratch, member: Sequence[Scratch]
    ) -> None:
        """Averages the networks, as np.mean does: one added to the other, then divided."""
        for number, (run, model) in enumerate(self.members):
            settled = replace(run, standardisation=run.standardisation.settled(moments))
            own = member[0] if number else scores
            self._predict_one(_Standardised(settled, plane), model, own)
            if number:
                for window in _windows(scores):
                    scores[window] = scores[window] + own[window]
        _divide(scores, len(self.members))

    def _predict_one(self, pixels: _Standardised, model: Any, scores: Scratch) -> None:
        """Averages what a network says of the versions, as `average_over_symmetries` does."""
        versions = SYMMETRIES if self.symmetries else SYMMETRIES[:1]
        for number, version in enumerate(versions):
            turned = Turned(pixels, *version)
            tile_size = tile_size_of(model, self.tile_size)
            height, width = turned.shape[:2]
            tiling = Tiling.covering((height, width), pixels.run.architecture, tile_size)
            rows_first = partial(_rows_first, turned)
            for window, predicted in predict_tiles(model, turned, tiling, order=rows_first):
                place, upright = turned.place(window), turned_back(predicted, *version)
                scores[place] = scores[place] + upright if number else upright
        _divide(scores, len(versions))

    def _write(self, path: Path, room: _Room, cells: int) -> Iterator[Path]:
        form = self.order.form_of(path)
        for output in self.order.outputs:
            target = self.order.target(path, output)
            _WRITERS[form](target, self._parts(room, output, form, cells))
            yield target

    def _parts(self, room: _Room, output: str, form: str, cells: int) -> Parts:
        run = self.order.run
        if output == "instances":
            dtype = smallest_unsigned(np.array([cells])).dtype

            def read(plane: int, window: Window) -> NDArray[Any]:
                return room.labels[plane][window].astype(dtype)

            return _parts(run, output, form, room.labels, dtype, read)

        def rendered(plane: int, window: Window) -> NDArray[Any]:
            return Plane.of(room.scores[plane][window]).rendered(output, run.scheme)

        dtype = rendered(0, (slice(0, 1), slice(0, 1))).dtype
        return _parts(run, output, form, room.scores, dtype, rendered)


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

        shape = (*size, order.run.architecture.classes)
        has_instances = "instances" in order.outputs
        kept = 1 if order.outputs == ("instances",) else planes
        return cls(
            room(kept, shape, np.float32),
            room(int(members > 1), shape, np.float32),
            room(planes * has_instances, size, np.int32),
            room(int(has_instances), size, np.int32),
        )


@dataclass(frozen=True, eq=False)
class _Standardised:
    """A plane as a network takes it, read by windows."""

    run: Run
    plane: LargePlane

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.plane.shape[:2], self.run.architecture.channels)

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        raw = _pixels(self.run, self.plane, window)
        return checked_pixels(self.run.standardisation.apply(raw), self.run.architecture)


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


def _classes(scores: Scratch) -> set[int]:
    return {
        one
        for window in _windows(scores)
        for one in np.unique(Plane.of(scores[window]).classes).tolist()
    }


def _rows_first(turned: Turned, tile: Tile) -> tuple[int, int]:
    """Sorts tiles by the rows of the image itself, in which it is read."""
    rows, columns = turned.place(tile.write)
    return rows.start, columns.start


def _divide(scores: Scratch, divisor: int) -> None:
    if divisor > 1:
        for window in _windows(scores):
            scores[window] = scores[window] / np.float32(divisor)


def _parts(
    run: Run,
    output: str,
    form: str,
    planes: Sequence[Scratch],
    dtype: np.dtype[Any],
    read: Callable[[int, Window], NDArray[Any]],
) -> Parts:
    """Describes an output, with what TIFF and OME-Zarr want in another order."""
    sizes = {"Z": len(planes)} if len(planes) > 1 else {}
    if output == "probabilities":
        classes = {"C": run.architecture.classes}
        sizes = sizes | classes if form == "tiff" else classes | sizes

    def window(place: tuple[int, ...], window: Window) -> NDArray[Any]:
        number = dict(zip(sizes, place, strict=True))
        pixels = read(number.get("Z", 0), window)
        return pixels[number["C"]] if "C" in number else pixels

    shape = (*sizes.values(), *planes[0].shape[:2])
    return Parts(shape, dtype, "".join([*sizes, "YX"]), window)


def _bands(height: int, width: int, multiple_of: int = 1) -> Iterator[slice]:
    rows = max(1, _BAND // width // multiple_of) * multiple_of
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def _windows(scores: Scratch) -> Iterator[Window]:
    height, width, classes = scores.shape
    for rows in _bands(height, width * classes):
        yield rows, slice(0, width)
