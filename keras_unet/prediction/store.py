"""On-disk probabilities of an image larger than memory: a Zarr store with one chunk per tile.

A plane is predicted in stages, one for each network and each transformed view of the plane. A stage
adds its probabilities to those of earlier stages, so that the last one holds their mean and at most
three arrays of a plane are on disk at a time. A chunk depends on earlier stages only, is written
whole or not at all, and has a checksum: whatever interrupts a prediction, and whichever process
predicts a tile, a chunk that exists is finished.

PREDICTIONS/
└── .<stem>.<digest>.zarr/    digest of everything that the probabilities depend on
    ├── plane0-stage0/        float32 (height, width, classes), in the orientation of the view
    ├── ...
    └── cells0/, ..., draft/  int32 (height, width), labels of cells
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.data.channels import Selection
from keras_unet.data.normalization import Normalization
from keras_unet.files import locked, make_folder, printable
from keras_unet.prediction.predict import SYMMETRIES, TransformedView, of_view, predict_tiles
from keras_unet.tiling import Tile, Tiling, mirror

_log = logging.getLogger(__name__)

Window = tuple[slice, slice]

FORMAT = 3

_CHUNK = (256, 2048)  # of label images, which are written in bands of rows; in pixels
_DIGITS = 12
_ENDING = ".zarr"
_STAGE = re.compile(r"plane\d+-stage\d+")


@dataclass(frozen=True)
class TilePlan:
    """Tiles of one transformed view of a plane, in the order of the plane's rows.

    Attributes:
        size: Height and width of the plane in pixels.
        architecture: Architecture of the network.
        tile_size: Height and width of the input tiles in pixels; None for the default, see
            `Tiling.covering`.
        view: Index of the view in `SYMMETRIES`.

    Example:
        >>> plan = TilePlan((50, 30), Architecture(depth=1), (60, 60))
        >>> [plan.source_window(tile) for tile in plan.tiles]
        [(slice(0, 44, None), slice(0, 30, None)), (slice(44, 50, None), slice(0, 30, None))]
        >>> plan.chunk_size
        (44, 30)
    """

    size: tuple[int, int]
    architecture: Architecture
    tile_size: tuple[int | None, int | None]
    view: int = 0

    @property
    def view_size(self) -> tuple[int, int]:
        """Height and width of the view in pixels."""
        height, width = self.view_of(np.broadcast_to(np.uint8(0), self.size)).shape
        return height, width

    @cached_property
    def tiling(self) -> Tiling:
        """Tiling of the view."""
        return Tiling.covering(self.view_size, self.architecture, self.tile_size)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """Tiles in the order of the plane's rows."""

        def row_and_column(tile: Tile) -> tuple[int, int]:
            rows, columns = self.source_window(tile)
            return rows.start, columns.start

        return tuple(sorted(self.tiling, key=row_and_column))

    @cached_property
    def chunk_size(self) -> tuple[int, int]:
        """Height and width in pixels of the window that a tile writes; smaller at the end."""
        rows, columns = next(iter(self.tiling)).write
        return rows.stop, columns.stop

    def chunk_index(self, number: int) -> tuple[int, int]:
        """Returns row and column of a tile in the grid of chunks."""
        rows, columns = self.tiles[number].write
        height, width = self.chunk_size
        return rows.start // height, columns.start // width

    def row_groups(self, numbers: Iterable[int], limit: int) -> Iterator[tuple[int, ...]]:
        """Groups tiles that lie in the same rows of the plane.

        Args:
            numbers: Numbers of some of the tiles, in order.
            limit: Largest number of tiles of a group.

        Yields:
            Numbers of the tiles of a group.
        """

        def first_row(number: int) -> int:
            return int(self.source_window(self.tiles[number])[0].start)

        for _, group in groupby(numbers, key=first_row):
            row = tuple(group)
            for first in range(0, len(row), limit):
                yield row[first : first + limit]

    def view_of(self, plane: Any) -> TransformedView:
        """Returns the transformed view of a plane that is read by windows."""
        return TransformedView(plane, *SYMMETRIES[self.view])

    def source_window(self, tile: Tile) -> Window:
        """Returns the window of the plane that a tile writes."""
        return self._source_window(tile.write)

    def read_window(self, tiles: Sequence[Tile]) -> Window:
        """Returns the smallest window of the plane with all pixels that tiles read."""
        windows = [self._source_window(self._mirrored_inside(tile.read)) for tile in tiles]
        rows, columns = (
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*windows, strict=True)
        )
        return rows, columns

    def _source_window(self, window: Window) -> Window:
        return self.view_of(np.broadcast_to(np.uint8(0), self.size)).source_window(window)

    def _mirrored_inside(self, window: Window) -> Window:
        """Returns the window inside the view whose mirrored pixels fill a window."""
        rows, columns = (
            slice(int(positions.min()), int(positions.max()) + 1)
            for positions in (
                mirror(np.arange(part.start, part.stop), size)
                for part, size in zip(window, self.view_size, strict=True)
            )
        )
        return rows, columns


@dataclass(frozen=True)
class Stage:
    """Prediction of one transformed view of a plane by one network, added to earlier stages.

    Attributes:
        number: Number of the stage, from 0 on.
        member: Number of the network.
        tiles: Tiles of the view.
        sums: Steps of the average, in order: the earlier stage to add, None for none, and the
            divisor of the sum.
        views: Number of views of each network.
    """

    number: int
    member: int
    tiles: TilePlan
    sums: tuple[tuple[int | None, int], ...]
    views: int = 1

    @classmethod
    def of(cls, member: int, tiles: TilePlan, members: int, views: int) -> Stage:
        """Returns a stage that averages the views of a network and, after the last, the networks.

        Args:
            member: Number of the network.
            tiles: Tiles of the view.
            members: Number of networks.
            views: Number of views that each network predicts.
        """
        view, first = tiles.view, member * views
        is_last = view == views - 1
        sums = [(first + view - 1 if view else None, views if is_last else 1)]
        if is_last:
            sums.append((first - 1 if member else None, members if member == members - 1 else 1))
        return cls(first + view, member, tiles, tuple(sums), views)

    @property
    def outputs(self) -> int:
        """Number of values of each pixel; the mean over views has affinities on both sides."""
        network = self.tiles.architecture
        return network.outputs + (self.views > 1) * (network.outputs - network.classes)

    @property
    def size(self) -> int:
        """Size of its array on disk in bytes, in whole chunks."""
        chunk = math.prod(self.tiles.chunk_size) * self.outputs * np.dtype(np.float32).itemsize
        return len(self.tiles.tiling) * chunk

    @property
    def needs(self) -> set[int]:
        """Numbers of the earlier stages that this stage and later ones add."""
        first = self.number - self.tiles.view
        return {number for number in (self.number - 1, first - 1) if number >= 0}


@dataclass(frozen=True)
class Task:
    """Tiles of one stage of a plane, for any process with access to the image and the store.

    Attributes:
        store: Folder of the store.
        image: Path of the image file.
        axes: Axes of the image, if its file does not state them correctly.
        shape: Numbers of planes, rows, columns and channels of the image.
        plane: Number of the plane.
        normalization: Normalization with the statistics of this plane.
        stage: The stage.
        numbers: Numbers of the tiles.
        channels: Channels to read; None for all.
    """

    store: Path
    image: Path
    axes: str | None
    shape: tuple[int, int, int, int]
    plane: int
    normalization: Normalization
    stage: Stage
    numbers: tuple[int, ...]
    channels: Selection | None = None

    @property
    def read_window(self) -> Window:
        """Smallest window of the plane with all pixels that the tiles read."""
        plan = self.stage.tiles
        return plan.read_window([plan.tiles[number] for number in self.numbers])

    def predict(self, model: Any, pixels: Any) -> Iterator[None]:
        """Predicts the tiles and writes their chunks.

        Args:
            model: See `predict_image`.
            pixels: Normalized plane, read by windows like an array.

        Yields:
            None after each tile.

        Raises:
            ValueError: See `predict_tiles`.
            OSError: If a chunk cannot be written, or one of an earlier stage is missing or damaged.
        """
        plan = self.stage.tiles
        output = _open(self.store / _name(self.plane, self.stage.number), "r+")
        earlier = {
            number: plan.view_of(Probabilities.open(self.store, self.plane, number))
            for number, _ in self.stage.sums
            if number is not None
        }
        tiles = [plan.tiles[number] for number in self.numbers]
        for window, values in predict_tiles(model, plan.view_of(pixels), plan.tiling, tiles=tiles):
            mean = values
            if self.stage.views > 1:
                mean = of_view(values, plan.view, plan.architecture.classes)
            for number, divisor in self.stage.sums:
                total = mean if number is None else earlier[number][window] + mean
                mean = total / np.float32(divisor) if divisor > 1 else total
            output[window] = mean
            yield


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Array of a stage in the orientation of the image, read by windows of rows and columns.

    Attributes:
        path: Folder of the array.
        array: Zarr array.
    """

    path: Path
    array: Any

    @classmethod
    def open(cls, store: Path, plane: int, number: int) -> Probabilities:
        """Opens the array of a stage.

        Args:
            store: Folder of the store.
            plane: Number of the plane.
            number: Number of the stage.
        """
        path = store / _name(plane, number)
        return cls(path, _open(path, "r"))

    @cached_property
    def _upright(self) -> TransformedView:
        mirrored, turns = SYMMETRIES[self.array.attrs["version"]]
        return TransformedView(self.array, mirrored, turns if mirrored else -turns % 4)

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, outputs."""
        return self._upright.shape

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        """Reads a window.

        Raises:
            OSError: If a chunk of it is missing or damaged.
        """
        rows, columns = (
            slice(*part.indices(size)[:2])
            for part, size in zip(window, self.shape[:2], strict=True)
        )
        reason = "one that is missing"
        try:
            values: NDArray[np.float32] = np.asarray(self._upright[rows, columns])
        except ValueError as error:
            reason, values = f"a damaged one ({error})", np.array(np.nan, np.float32)
        if np.isnan(values).any():  # the fill value of missing chunks
            raise OSError(
                f"{self.path}: expected every chunk that was written. Received {reason}; run "
                "the same command again to predict it again"
            )
        return values


@dataclass(frozen=True, eq=False)
class Store:
    """Arrays of one image during its prediction.

    Attributes:
        folder: Folder of the store.
        finished: Chunks of an interrupted prediction, by the name of their array.
        damaged: Number of its chunks that were removed, since their checksums were wrong.
    """

    folder: Path
    finished: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    damaged: int = 0

    @classmethod
    @contextmanager
    def opened(
        cls, out: Path, stem: str, basis: Mapping[str, Any], *, is_kept: bool = True
    ) -> Iterator[Store]:
        """Opens the store of an interrupted prediction, or creates a new one.

        The store is removed after the body, or kept if the body fails. Stores of the same image
        with another basis are removed first.

        Args:
            out: Folder of the outputs, which exists.
            stem: Stem of the image.
            basis: Everything that the probabilities depend on, for JSON.
            is_kept: Whether to keep the chunks if the body fails.

        Raises:
            BlockingIOError: If another prediction is writing to the store.
            OSError: If the folder cannot be written.
        """
        text = json.dumps({"format": FORMAT, "basis": basis}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        folder = out / f".{stem}.{digest}{_ENDING}"
        for path in _stores(out, stem):
            if path != folder:
                with locked(path, "prediction"):
                    shutil.rmtree(path)
        make_folder(folder)
        with locked(folder, "prediction"), _sequential_zarr():
            store = _reopen(folder, json.loads(text))
            try:
                yield store
            except BaseException:
                kept = store.started if is_kept else set()
                store.remove_all(but=kept)
                if kept:
                    _log.info(
                        f"{printable(folder)}: kept, to resume the prediction by the same "
                        "command; another command for this image removes it"
                    )
                raise
            shutil.rmtree(folder)

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return [path.name for path in self.folder.iterdir() if path.is_dir()]

    @property
    def started(self) -> set[str]:
        """Names of the arrays of stages with at least one chunk."""
        return {name for name in self.names if _STAGE.fullmatch(name) and self._has_chunk(name)}

    def _has_chunk(self, name: str) -> bool:
        return any(path.is_file() for path in (self.folder / name / "c").rglob("*"))

    @property
    def size(self) -> int:
        """Size on disk in bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def missing(self, plane: int, stage: Stage) -> list[int]:
        """Returns the numbers of the tiles without a finished chunk."""
        finished = self.finished.get(_name(plane, stage.number), set())
        tiles = range(len(stage.tiles.tiles))
        return [number for number in tiles if stage.tiles.chunk_index(number) not in finished]

    def next_stage(self, plane: int, stages: Sequence[Stage]) -> int:
        """Returns the number of the stage to resume with; `len(stages)` if all are finished."""
        finished = {stage.number for stage in stages if not self.missing(plane, stage)}
        if len(stages) - 1 in finished:
            return len(stages)
        return max(stage.number for stage in stages if stage.needs <= finished)

    def create(self, plane: int, stage: Stage) -> None:
        """Creates the array of a stage if it is missing."""
        name, plan = _name(plane, stage.number), stage.tiles
        if name not in self.names:
            self._create(
                name,
                shape=(*plan.view_size, stage.outputs),
                chunks=(*plan.chunk_size, stage.outputs),
                dtype=np.float32,
                fill_value=np.nan,
                attributes={"version": plan.view},
            )

    def probabilities(self, plane: int, stage: Stage) -> Probabilities:
        """Opens the array of a stage."""
        return Probabilities.open(self.folder, plane, stage.number)

    def labels(self, name: str, size: tuple[int, int]) -> Any:
        """Creates an int32 label image of zeros, read and written by windows like an array."""
        chunks = tuple(min(side, most) for side, most in zip(size, _CHUNK, strict=True))
        return self._create(name, shape=size, chunks=chunks, dtype=np.int32, fill_value=0)

    def keep(self, plane: int, numbers: set[int]) -> None:
        """Removes the arrays of a plane, except those of the stages of some numbers."""
        kept = {_name(plane, number) for number in numbers}
        others = {name for name in self.names if not name.startswith(f"plane{plane}-")}
        self.remove_all(but=kept | others)

    def remove_all(self, but: set[str]) -> None:
        """Removes all arrays except some, or the store itself if `but` is empty."""
        removed = [name for name in self.names if name not in but]
        for name in removed:
            self.finished.pop(name, None)
        for path in [self.folder / name for name in removed] if but else [self.folder]:
            shutil.rmtree(path, ignore_errors=True)  # Zarr may still be writing after Ctrl-C

    def check_room(self, size: int) -> None:
        """Checks that the disk has room for the store.

        Args:
            size: Final size of the store in bytes.

        Raises:
            OSError: If it does not.
        """
        needed = size - self.size
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                f"{self.folder.parent}: expected a disk with {needed / 1e9:,.1f} GB of free space "
                f"for temporary files. Received {free / 1e9:,.1f} GB; free some, or choose another "
                "folder"
            )

    def _create(self, name: str, **options: Any) -> Any:
        import zarr
        from zarr.codecs import Crc32cCodec

        return zarr.create_array(
            self.folder / name, filters=None, compressors=Crc32cCodec(), overwrite=True, **options
        )


@contextmanager
def _sequential_zarr() -> Iterator[None]:
    # Zarr would hold ten chunks in memory at a time, each as large as a tile.
    import zarr

    with zarr.config.set({"async.concurrency": 1}):
        yield


def bytes_of_labels(size: tuple[int, int]) -> int:
    """Returns the size in bytes of a label image on disk, in whole chunks."""
    sides = (
        math.ceil(side / min(side, most)) * min(side, most)
        for side, most in zip(size, _CHUNK, strict=True)
    )
    return math.prod(sides) * np.dtype(np.int32).itemsize


def _name(plane: int, number: int) -> str:
    return f"plane{plane}-stage{number}"


def _open(path: Path, mode: str) -> Any:
    import zarr

    return zarr.open_array(path, mode=mode)


def _stores(out: Path, stem: str) -> list[Path]:
    name = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{{_DIGITS}}}{re.escape(_ENDING)}")
    return [path for path in out.iterdir() if name.fullmatch(path.name)]


def _reopen(folder: Path, attributes: Mapping[str, Any]) -> Store:
    """Checks all chunks of stages, and removes damaged ones and all other arrays."""
    import zarr

    if not (folder / "zarr.json").is_file():
        zarr.create_group(folder, attributes=dict(attributes))
    finished: dict[str, set[tuple[int, int]]] = {}
    damaged = 0
    for path in [path for path in folder.iterdir() if path.is_dir()]:
        array = None
        if _STAGE.fullmatch(path.name):
            with suppress(Exception):  # Zarr raises the errors of JSON and others
                array = _open(path, "r")
        if array is None:
            shutil.rmtree(path)
            continue
        chunks = list(_chunks_on_disk(path, array))
        finished[path.name] = {index for index in chunks if _check_chunk(path, array, index)}
        damaged += len(chunks) - len(finished[path.name])
    return Store(folder, finished, damaged)


def _chunks_on_disk(path: Path, array: Any) -> Iterator[tuple[int, int]]:
    """Yields row and column of the chunks with a file."""
    for row, column in np.ndindex(*array.cdata_shape[:2]):
        if (path / array.metadata.encode_chunk_key((row, column, 0))).is_file():
            yield row, column


def _check_chunk(path: Path, array: Any, index: tuple[int, int]) -> bool:
    """Returns whether the checksum of a chunk is right; removes the chunk otherwise."""
    with suppress(ValueError):
        if not np.isnan(array.blocks[index]).any():
            return True
    (path / array.metadata.encode_chunk_key((*index, 0))).unlink()
    return False
