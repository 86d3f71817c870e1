"""Probabilities of an image larger than memory: a Zarr store on disk, a chunk a tile.

A plane is predicted in stages, one for each network and each of the symmetric versions that it is
given. A stage adds its probabilities to those of the stages before, so that the last one holds
their mean and no more than three arrays of a plane are on disk at a time. A chunk depends on
the earlier stages alone, is written whole or not at all, and has a checksum. So whatever
interrupts a prediction, and wherever its tiles are predicted, a chunk that is there is done.

PREDICTIONS/
└── .<stem>.<digest>.zarr/    the digest is that of all that the probabilities depend on
    ├── plane0-stage0/        float32 (height, width, classes), turned as its network sees the plane
    ├── ...
    └── cells0/, ..., draft/  int32 (height, width), where cells are numbered
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
from keras_unet.data.normalization import Normalization
from keras_unet.files import locked, make_folder, printable
from keras_unet.prediction.predict import SYMMETRIES, TransformedView, predict_tiles
from keras_unet.tiling import Tile, Tiling, mirror

_log = logging.getLogger(__name__)

Window = tuple[slice, slice]

FORMAT = 2

_CHUNK = (256, 2048)  # of label images, which are written in bands of rows
_DIGITS = 12
_ENDING = ".zarr"
_STAGE = re.compile(r"plane\d+-stage\d+")


@dataclass(frozen=True)
class TilePlan:
    """The tiles over one symmetric version of a plane, in the order of the plane's rows.

    Attributes:
        size: Height and width of the plane in pixels.
        architecture: The network.
        tile_size: Height and width of the tiles, each None to choose, see `Tiling.covering`.
        version: Number of the version, see `SYMMETRIES`.

    Example:
        >>> plan = TilePlan((50, 30), Architecture(depth=1), (60, 60))
        >>> [plan.place(tile) for tile in plan.tiles]
        [(slice(0, 44, None), slice(0, 30, None)), (slice(44, 50, None), slice(0, 30, None))]
        >>> plan.chunks
        (44, 30)
    """

    size: tuple[int, int]
    architecture: Architecture
    tile_size: tuple[int | None, int | None]
    version: int = 0

    @property
    def turned_size(self) -> tuple[int, int]:
        """Height and width of the version."""
        height, width = self.turned(np.broadcast_to(np.uint8(0), self.size)).shape
        return height, width

    @cached_property
    def tiling(self) -> Tiling:
        """The tiling of the version."""
        return Tiling.covering(self.turned_size, self.architecture, self.tile_size)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles, in order."""

        def rows_first(tile: Tile) -> tuple[int, int]:
            rows, columns = self.place(tile)
            return rows.start, columns.start

        return tuple(sorted(self.tiling, key=rows_first))

    @cached_property
    def chunks(self) -> tuple[int, int]:
        """Height and width of the window that a tile fills, but for those at the end."""
        rows, columns = next(iter(self.tiling)).write
        return rows.stop, columns.stop

    def chunk(self, number: int) -> tuple[int, int]:
        """Returns the place of a tile in the grid of chunks."""
        rows, columns = self.tiles[number].write
        height, width = self.chunks
        return rows.start // height, columns.start // width

    def neighbors(self, numbers: Iterable[int], most: int) -> Iterator[tuple[int, ...]]:
        """Groups tiles that lie in the same rows of the plane.

        Args:
            numbers: Numbers of some of the tiles, in order.
            most: Tiles of a group, at most.
        """
        for _, same in groupby(numbers, key=lambda number: self.place(self.tiles[number])[0].start):
            row = tuple(same)
            for first in range(0, len(row), most):
                yield row[first : first + most]

    def turned(self, plane: Any) -> TransformedView:
        """Returns the version of a plane, or of what is read by windows as one is."""
        return TransformedView(plane, *SYMMETRIES[self.version])

    def place(self, tile: Tile) -> Window:
        """Returns the window of the plane that a tile fills."""
        return self._place(tile.write)

    def reads(self, tiles: Sequence[Tile]) -> Window:
        """Returns the window of the plane that holds all that tiles read."""
        windows = [self._place(self._within(tile.read)) for tile in tiles]
        rows, columns = (
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*windows, strict=True)
        )
        return rows, columns

    def _place(self, window: Window) -> Window:
        return self.turned(np.broadcast_to(np.uint8(0), self.size)).place(window)

    def _within(self, window: Window) -> Window:
        """Returns the pixels of the version that a window takes, which may reach beyond it."""
        rows, columns = (
            slice(int(places.min()), int(places.max()) + 1)
            for places in (
                mirror(np.arange(part.start, part.stop), size)
                for part, size in zip(window, self.turned_size, strict=True)
            )
        )
        return rows, columns


@dataclass(frozen=True)
class Stage:
    """One network's prediction of one symmetric version of a plane, added to those before.

    Attributes:
        number: Its place among the stages, from 0 on.
        member: Number of the network.
        tiles: The tiles.
        sums: What is done to the probabilities, in turn: the stage whose array is added, None for
            none, and by how many the sum is divided.
    """

    number: int
    member: int
    tiles: TilePlan
    sums: tuple[tuple[int | None, int], ...]

    @classmethod
    def of(cls, member: int, tiles: TilePlan, members: int, versions: int) -> Stage:
        """Sums up the versions of a network, and with the last of them the networks.

        Args:
            member: Number of the network.
            tiles: The tiles of the version.
            members: Number of networks.
            versions: Number of versions that each of them is given.
        """
        version, first = tiles.version, member * versions
        is_last = version == versions - 1
        sums = [(first + version - 1 if version else None, versions if is_last else 1)]
        if is_last:
            sums.append((first - 1 if member else None, members if member == members - 1 else 1))
        return cls(first + version, member, tiles, tuple(sums))

    @property
    def needs(self) -> set[int]:
        """The stages whose arrays it and those after it add."""
        first = self.number - self.tiles.version
        return {number for number in (self.number - 1, first - 1) if number >= 0}


@dataclass(frozen=True)
class Task:
    """Tiles of one stage of a plane, for any process that sees the image and the store.

    Attributes:
        store: Folder of the store.
        image: The image file.
        axes: Its axes where it states none, or others.
        shape: Planes, height, width and channels of it.
        plane: Number of the plane.
        normalization: With the numbers that hold for this plane.
        stage: The stage.
        numbers: Which of its tiles.
    """

    store: Path
    image: Path
    axes: str | None
    shape: tuple[int, int, int, int]
    plane: int
    normalization: Normalization
    stage: Stage
    numbers: tuple[int, ...]

    @property
    def reads(self) -> Window:
        """The window of the plane that holds all that the tiles read."""
        plan = self.stage.tiles
        return plan.reads([plan.tiles[number] for number in self.numbers])

    def predict(self, model: Any, pixels: Any) -> Iterator[None]:
        """Predicts the tiles and writes their chunks, and yields after each.

        Args:
            model: See `predict_image`.
            pixels: The plane, normalized, read by windows as an array is.

        Raises:
            ValueError: See `predict_tiles`.
            OSError: A chunk cannot be written, or one of an earlier stage is missing or damaged.
        """
        plan = self.stage.tiles
        output = _open(self.store / _name(self.plane, self.stage.number), "r+")
        earlier = {
            number: plan.turned(Probabilities.open(self.store, self.plane, number))
            for number, _ in self.stage.sums
            if number is not None
        }
        tiles = [plan.tiles[number] for number in self.numbers]
        for window, values in predict_tiles(model, plan.turned(pixels), plan.tiling, tiles=tiles):
            mean = values
            for number, divisor in self.stage.sums:
                total = mean if number is None else earlier[number][window] + mean
                mean = total / np.float32(divisor) if divisor > 1 else total
            output[window] = mean
            yield


@dataclass(frozen=True, eq=False)
class Probabilities:
    """The array of a stage, upright, read by windows of rows and columns.

    Attributes:
        path: Folder of the array.
        array: The Zarr array.
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
        """Height, width, classes."""
        return self._upright.shape

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        """Reads a window.

        Raises:
            OSError: A chunk of it is missing or damaged.
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
        if np.isnan(values).any():  # which fills what was never written
            raise OSError(
                f"{self.path}: expected every chunk that was written. Received {reason}; give "
                "the same command again, which predicts it anew"
            )
        return values


@dataclass(frozen=True, eq=False)
class Store:
    """The arrays of one image that is predicted.

    Attributes:
        folder: The folder.
        found: The chunks that an earlier prediction has left, by the names of their arrays.
        damaged: How many more there were that do not have their checksums.
    """

    folder: Path
    found: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    damaged: int = 0

    @classmethod
    @contextmanager
    def opened(
        cls, out: Path, stem: str, basis: Mapping[str, Any], *, is_kept: bool = True
    ) -> Iterator[Store]:
        """Opens what an interrupted prediction has left, or makes a new store.

        It is removed after the body; if that fails, what was predicted is kept. Stores of the
        same image on another basis are removed before.

        Args:
            out: Folder of the outputs, which exists.
            stem: Stem of the image.
            basis: All that the probabilities depend on, as JSON knows it.
            is_kept: Whether to keep what was predicted if the body fails.

        Raises:
            BlockingIOError: Another prediction is writing there.
            OSError: If nothing can be written there.
        """
        text = json.dumps({"format": FORMAT, "basis": basis}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        folder = out / f".{stem}.{digest}{_ENDING}"
        for other in _stores(out, stem):
            if other != folder:
                with locked(other, "prediction"):
                    shutil.rmtree(other)
        make_folder(folder)
        with locked(folder, "prediction"), _one_chunk_at_a_time():
            store = _reopened(folder, json.loads(text))
            try:
                yield store
            except BaseException:
                kept = store.begun if is_kept else set()
                store.remove_all(but=kept)
                if kept:
                    _log.info(
                        f"{printable(folder)}: keeps what was predicted; the same command goes on "
                        "with it, and another one for this image removes it"
                    )
                raise
            shutil.rmtree(folder)

    @property
    def names(self) -> list[str]:
        """The names of its arrays."""
        return [path.name for path in self.folder.iterdir() if path.is_dir()]

    @property
    def begun(self) -> set[str]:
        """The names of the arrays of stages that have a chunk."""
        return {name for name in self.names if _STAGE.fullmatch(name) and self._has_chunk(name)}

    def _has_chunk(self, name: str) -> bool:
        return any(path.is_file() for path in (self.folder / name / "c").rglob("*"))

    @property
    def size(self) -> int:
        """The bytes that it takes on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def missing(self, plane: int, stage: Stage) -> list[int]:
        """Lists the numbers of the tiles that no earlier prediction has left."""
        done = self.found.get(_name(plane, stage.number), set())
        tiles = range(len(stage.tiles.tiles))
        return [number for number in tiles if stage.tiles.chunk(number) not in done]

    def next_stage(self, plane: int, stages: Sequence[Stage]) -> int:
        """Returns the number of the stage to go on with; that of all stages if none is left."""
        whole = {one.number for one in stages if not self.missing(plane, one)}
        if len(stages) - 1 in whole:
            return len(stages)
        return max(one.number for one in stages if one.needs <= whole)

    def make(self, plane: int, stage: Stage) -> None:
        """Makes the array of a stage where it is missing."""
        name, plan = _name(plane, stage.number), stage.tiles
        if name not in self.names:
            classes = plan.architecture.classes
            self._create(
                name,
                shape=(*plan.turned_size, classes),
                chunks=(*plan.chunks, classes),
                dtype=np.float32,
                fill_value=np.nan,
                attributes={"version": plan.version},
            )

    def probabilities(self, plane: int, stage: Stage) -> Probabilities:
        """Opens the array of a stage."""
        return Probabilities.open(self.folder, plane, stage.number)

    def labels(self, name: str, size: tuple[int, int]) -> Any:
        """Makes a label image, int32, all 0, read and written by windows as an array is."""
        chunks = tuple(min(side, most) for side, most in zip(size, _CHUNK, strict=True))
        return self._create(name, shape=size, chunks=chunks, dtype=np.int32, fill_value=0)

    def keep(self, plane: int, numbers: set[int]) -> None:
        """Removes the arrays of a plane but those of some stages."""
        kept = {_name(plane, number) for number in numbers}
        others = {name for name in self.names if not name.startswith(f"plane{plane}-")}
        self.remove_all(but=kept | others)

    def remove_all(self, but: set[str]) -> None:
        """Removes arrays but those of some names, and without these the store itself."""
        removed = [name for name in self.names if name not in but]
        for name in removed:
            self.found.pop(name, None)
        for path in [self.folder / name for name in removed] if but else [self.folder]:
            shutil.rmtree(path, ignore_errors=True)  # Zarr may still be writing after Ctrl-C

    def check_room(self, size: int) -> None:
        """Makes sure that the disk has room for a store of so many bytes.

        Raises:
            OSError: It has not.
        """
        left = size - self.size
        free = shutil.disk_usage(self.folder).free
        if free < left:
            raise OSError(
                f"{self.folder.parent}: expected a disk with room for {left / 1e9:,.1f} GB to work "
                f"in. Received {free / 1e9:,.1f} GB. Make room, or choose another folder."
            )

    def _create(self, name: str, **options: Any) -> Any:
        import zarr
        from zarr.codecs import Crc32cCodec

        return zarr.create_array(
            self.folder / name, filters=None, compressors=Crc32cCodec(), overwrite=True, **options
        )


@contextmanager
def _one_chunk_at_a_time() -> Iterator[None]:
    """Has Zarr hold one chunk in memory at a time, not ten: they are as large as tiles."""
    import zarr

    with zarr.config.set({"async.concurrency": 1}):
        yield


def bytes_of(plan: TilePlan) -> int:
    """Returns the bytes of an array of probabilities on disk, whose last chunks are whole."""
    chunk = math.prod(plan.chunks) * plan.architecture.classes * np.dtype(np.float32).itemsize
    return len(plan.tiling) * chunk


def bytes_of_labels(size: tuple[int, int]) -> int:
    """Returns the bytes of a label image on disk, whose last chunks are whole."""
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
    ours = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{{_DIGITS}}}{re.escape(_ENDING)}")
    return [path for path in out.iterdir() if ours.fullmatch(path.name)]


def _reopened(folder: Path, attributes: Mapping[str, Any]) -> Store:
    """Looks through all chunks, and removes what is damaged or is not gone on with."""
    import zarr

    if not (folder / "zarr.json").is_file():
        zarr.create_group(folder, attributes=dict(attributes))
    found: dict[str, set[tuple[int, int]]] = {}
    damaged = 0
    for path in [path for path in folder.iterdir() if path.is_dir()]:
        array = None
        if _STAGE.fullmatch(path.name):
            with suppress(Exception):  # Zarr raises what JSON does and more
                array = _open(path, "r")
        if array is None:
            shutil.rmtree(path)
            continue
        whole = {place: _is_whole(path, array, place) for place in _written(path, array)}
        found[path.name] = {place for place, is_whole in whole.items() if is_whole}
        damaged += len(whole) - len(found[path.name])
    return Store(folder, found, damaged)


def _written(path: Path, array: Any) -> Iterator[tuple[int, int]]:
    """Yields the places of the chunks that have a file."""
    for row, column in np.ndindex(*array.cdata_shape[:2]):
        if (path / array.metadata.encode_chunk_key((row, column, 0))).is_file():
            yield row, column


def _is_whole(path: Path, array: Any, place: tuple[int, int]) -> bool:
    """Tells whether a chunk has its checksum, and removes it where it has not."""
    with suppress(ValueError):
        if not np.isnan(array.blocks[place]).any():
            return True
    (path / array.metadata.encode_chunk_key((*place, 0))).unlink()
    return False
