"""Prediction of images larger than memory: read, predicted, labeled and written by windows.

The outputs are those of `predict_files` for the image in memory, pixel by pixel. Probabilities and
labels lie in a store on disk until the outputs are written, see `Store`; a prediction that was
interrupted goes on with the chunks that are there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import file_digest, sha256
from itertools import groupby, product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.console import Task as Progress
from keras_unet.console import track
from keras_unet.data.calibration import Spacing
from keras_unet.data.images import as_channels, pixels_of, smallest_unsigned, stem_of
from keras_unet.data.lazy import OpenPlane, open_large
from keras_unet.data.normalization import ROWS, Moments, Normalization
from keras_unet.data.stacks import axes_of_stack
from keras_unet.data.tiled import LazyImage, write_ome_zarr, write_tiled_tiff
from keras_unet.files import printable
from keras_unet.instances.blockwise import LARGEST_PIECE, BlockwiseLabeler
from keras_unet.instances.label import cell_probability
from keras_unet.prediction.outputs import OutputPlan, Prediction, Result
from keras_unet.prediction.predict import SYMMETRIES, checked_pixels
from keras_unet.prediction.store import (
    Probabilities,
    Stage,
    Store,
    Task,
    TilePlan,
    Window,
    bytes_of,
    bytes_of_labels,
)
from keras_unet.runs import ModelInfo
from keras_unet.system import DISTRIBUTION, free_memory, installed_version

_log = logging.getLogger(__name__)

Predict = Callable[[Iterable[Sequence[Task]]], Iterator[int]]
"""Predicts the tiles of tasks of one image, and yields now and then how many more are done.

It asks for the next tasks when those before are done, on which they may depend.
"""

_BAND = 2**22
"""Pixels that are read at a time to measure an image, about."""

_WINDOW = 1024
"""Height and width of the windows in which probabilities are looked through."""

_PIECE_BYTES = 100
"""Memory that a pixel of a piece of foreground takes while it is cut into cells: 60 where the
probability is smooth, more where it is noise."""

_PIECE_SHARE = 0.75
"""Share of the free memory that a piece may take."""

_WRITERS: Mapping[str, Callable[[Path, LazyImage], None]] = {
    "tiff": write_tiled_tiff,
    "ome-zarr": write_ome_zarr,
}


@dataclass(frozen=True, eq=False)
class Measured:
    """Measurements of an image.

    Attributes:
        shape: Planes, height, width, channels.
        moments: Of the grey values of each plane.
        checksum: SHA-256 of the grey values.
    """

    shape: tuple[int, int, int, int]
    moments: list[Moments]
    checksum: str


def measure(info: ModelInfo, path: Path, axes: str | None = None) -> Measured:
    """Reads an image once, checks that it suits a model, and measures it.

    Args:
        info: Facts of the model.
        path: The image.
        axes: Axes of an image that states none, or others.

    Raises:
        ValueError: If it cannot be read or does not suit.
    """
    digest = sha256()

    def rows_of(plane: OpenPlane) -> Iterator[NDArray[np.float32]]:
        height, width, _ = plane.shape
        bands = list(_bands(height, width))
        for rows in track(bands, f"reading {path.name}"):
            pixels = grey_values(plane, (rows, slice(0, width)), info.architecture.channels)
            digest.update(pixels.tobytes())
            yield pixels

    with open_large(path, axes) as image:
        moments = [Moments.of(rows_of(plane)) for plane in image]
        return Measured(image.shape, moments, digest.hexdigest())


@dataclass(frozen=True)
class Plan:
    """Networks that predict together, and how.

    Attributes:
        infos: Facts of the networks.
        tile_sizes: Height and width of the tiles of each, each None to choose.
        tta: Whether each predicts the eight symmetric versions of an image.
        axes: Axes of images that state none, or others.
        precision: Precision to predict in; None for those that the networks were trained in.
        checksums: SHA-256 of each network's weights; None where they lie in no file, so that no
            prediction goes on with what another has left.
    """

    infos: tuple[ModelInfo, ...]
    tile_sizes: tuple[tuple[int | None, int | None], ...]
    tta: bool = False
    axes: str | None = None
    precision: str | None = None
    checksums: tuple[str, ...] | None = None

    def stages(self, size: tuple[int, int]) -> tuple[Stage, ...]:
        """Returns the stages in which a plane is predicted.

        Args:
            size: Height and width of the plane in pixels.

        Raises:
            ValueError: If a tile size does not fit.
        """
        members, versions = len(self.infos), len(SYMMETRIES) if self.tta else 1
        stages = []
        for member, version in product(range(members), range(versions)):
            network, tile_size = self.infos[member].architecture, self.tile_sizes[member]
            tiles = TilePlan(size, network, tile_size, version)
            stages.append(Stage.of(member, tiles, members, versions))
        return tuple(stages)

    def described(self, image: Measured) -> dict[str, Any]:
        """Lists all that the probabilities of an image depend on."""
        runs = [
            info.architecture.to_dict()
            | {"normalization": info.normalization.to_dict(), "precision": info.precision}
            for info in self.infos
        ]
        return {
            "image": {"axes": self.axes, "shape": image.shape, "sha256": image.checksum},
            "networks": {"sha256": self.checksums or uuid4().hex, "runs": runs},
            "precision": self.precision,
            "tile_sizes": self.tile_sizes,
            "tta": self.tta,
            "packages": {name: installed_version(name) for name in (DISTRIBUTION, "tensorflow")},
        }


@dataclass(frozen=True, eq=False)
class Normalized:
    """A plane as a network takes it, read by windows.

    Attributes:
        architecture: The network.
        normalization: With the numbers that hold for this plane, see `Normalization.settled`.
        plane: The plane.
    """

    architecture: Architecture
    normalization: Normalization
    plane: OpenPlane

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return (*self.plane.shape[:2], self.architecture.channels)

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        """Reads a window."""
        raw = grey_values(self.plane, window, self.architecture.channels)
        return checked_pixels(self.normalization.apply(raw), self.architecture)


def grey_values(plane: OpenPlane, window: Window, channels: int) -> NDArray[np.float32]:
    """Reads a window, with as many channels as a network takes.

    Raises:
        ValueError: If it cannot be read, does not suit, or a pixel is not finite.
    """
    rows = window[0]
    where = f"{plane.image.path} (rows {rows.start} to {rows.stop - 1})"
    return pixels_of(as_channels(plane[window], channels, plane.image.path), where)


def predict_here(models: Sequence[Any], batches: Iterable[Sequence[Task]]) -> Iterator[int]:
    """Predicts tiles in this process, see `Predict`.

    Args:
        models: The networks.
        batches: The tiles.
    """
    image = None
    with ExitStack() as stack:
        for tasks in batches:
            image = image or stack.enter_context(open_large(tasks[0].image, tasks[0].axes))
            for number, same in groupby(tasks, key=lambda task: task.plane):
                plane = OpenPlane(image, number)
                for task in same:
                    network = task.stage.tiles.architecture
                    pixels = Normalized(network, task.normalization, plane)
                    for _ in task.predict(models[task.stage.member], pixels):
                        yield 1


def checksum_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Blockwise:
    """Predicts images by windows.

    Attributes:
        output_plan: What is to be made.
        plan: What predicts.
        predict: Predicts tiles, in this process or in others.
        tiles_a_task: Tiles that are predicted together, at most; they lie in the same rows. None
            for all of a stage.
        planes_together: Whether all planes go through a stage before the next begins, which takes
            more room, but leaves no process without work.
    """

    output_plan: OutputPlan
    plan: Plan
    predict: Predict
    tiles_a_task: int | None = None
    planes_together: bool = False

    def make(self, path: Path, image: Measured) -> Result:
        """Predicts an image and writes its outputs.

        Args:
            path: The image.
            image: What was measured of it.

        Raises:
            ValueError: If memory does not hold a piece of foreground to be cut into cells.
            OSError: If there is no room to work in, or a file cannot be read or written.
        """
        _log.info(f"{printable(path.name)}: read, predicted and written by parts")
        with open_large(path, self.plan.axes) as opened:
            written = _Outputs(self.output_plan, path, opened.spacing, opened.stack)
        written.say_what_has_no_place()
        basis, is_kept = self.plan.described(image), self.plan.checksums is not None
        with Store.opened(self.output_plan.out, stem_of(path), basis, is_kept=is_kept) as store:
            work = _Work(self, path, image, store)
            store.check_room(work.room)
            work.predict()
            planes = [work.probabilities(plane) for plane in range(image.shape[0])]
            found = {number for plane in planes for number in _classes(plane)}
            return Result(tuple(written.write(planes, *work.label(planes))), frozenset(found))


@dataclass(frozen=True, eq=False)
class _Work:
    """An image that is predicted."""

    blockwise: Blockwise
    path: Path
    image: Measured
    store: Store

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return self.blockwise.plan.stages(self.image.shape[1:3])

    @property
    def room(self) -> int:
        """The bytes that the store takes at most."""
        planes, height, width, _ = self.image.shape
        array = max(bytes_of(stage.tiles) for stage in self.stages)
        together = planes if self.blockwise.planes_together else 1
        earlier = max(len(stage.needs) for stage in self.stages)
        labels = planes + 1 if "instances" in self.blockwise.output_plan.outputs else 0
        return (planes + earlier * together) * array + labels * bytes_of_labels((height, width))

    def predict(self) -> None:
        """Predicts all tiles that are missing."""
        planes = range(self.image.shape[0])
        starts = {plane: self.store.next_stage(plane, self.stages) for plane in planes}
        total, done = self._say_what_is_kept(starts)
        counts = "tile {:,} of {:,}"
        with Progress(self.path.name, total, completed=done, counts=counts) as progress:
            for tiles in self.blockwise.predict(self._batches(starts)):
                progress.advance(tiles)

    def _batches(self, starts: Mapping[int, int]) -> Iterator[list[Task]]:
        """Yields tasks, stage by stage, and removes what later stages do not need."""
        planes = list(starts)
        for same in [planes] if self.blockwise.planes_together else [[one] for one in planes]:
            for stage in self.stages:
                behind = [plane for plane in same if starts[plane] <= stage.number]
                tasks = self._tasks(behind, stage)
                if tasks:
                    yield tasks
                for plane in behind:
                    self.store.keep(plane, self._needed_after(stage))

    def _needed_after(self, stage: Stage) -> set[int]:
        following = self.stages[stage.number + 1 :][:1]
        return {stage.number}.union(*(one.needs for one in following))

    def _say_what_is_kept(self, starts: Mapping[int, int]) -> tuple[int, int]:
        """Returns the number of all tiles, and of those that an earlier prediction has left."""
        tiles = [len(stage.tiles.tiling) for stage in self.stages]
        done = 0
        for plane, start in starts.items():
            done += sum(tiles[:start])
            for stage in self.stages[start : start + 1]:
                done += tiles[start] - len(self.store.missing(plane, stage))
        total, damaged = len(starts) * sum(tiles), self.store.damaged
        if done or damaged:
            _log.info(
                f"{printable(self.path.name)}: {done} of {total} tiles are kept of an earlier "
                f"prediction{f', {damaged} damaged' if damaged else ''}"
            )
        return total, done

    def _tasks(self, planes: Sequence[int], stage: Stage) -> list[Task]:
        """Lists the tiles of a stage that are missing, and makes room for them."""
        plan = self.blockwise.plan
        tasks = []
        for plane in planes:
            self.store.make(plane, stage)
            missing = self.store.missing(plane, stage)
            most = self.blockwise.tiles_a_task
            normalization = plan.infos[stage.member].normalization.with_moments(
                self.image.moments[plane]
            )
            for numbers in stage.tiles.neighbors(missing, most) if most else [tuple(missing)]:
                place = (self.path, plan.axes, self.image.shape, plane)
                tasks.append(Task(self.store.folder, *place, normalization, stage, numbers))
        return [task for task in tasks if task.numbers]

    def probabilities(self, plane: int) -> Probabilities:
        """Opens the mean of all networks and versions."""
        return self.store.probabilities(plane, self.stages[-1])

    def label(self, planes: Sequence[Probabilities]) -> tuple[list[Any], int]:
        """Numbers the cells of planes, if that is asked for; returns the largest number as well."""
        if "instances" not in self.blockwise.output_plan.outputs:
            return [], 0
        size = self.image.shape[1:3]
        draft = self.store.labels("draft", size)
        labels = [self.store.labels(f"cells{plane}", size) for plane in range(len(planes))]
        stitcher = BlockwiseLabeler(
            self.blockwise.output_plan.info.instances, largest_piece=_largest_piece()
        )
        numbers = [
            stitcher.label(_Cells(plane), image, draft)
            for plane, image in zip(planes, labels, strict=True)
        ]
        return labels, max(numbers)


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Outputs of an image."""

    output_plan: OutputPlan
    path: Path
    spacing: Spacing
    stack: Sequence[tuple[str, int]]

    def say_what_has_no_place(self) -> None:
        """Says what of the image's place is not written."""
        letters, _ = axes_of_stack(self.stack)
        lost = self.spacing.not_in_zarr("YX" if "Q" in letters else f"{letters}YX")
        if lost and self.output_plan.form_of(self.path) == "ome-zarr":
            _log.info(
                f"{printable(self.path.name)}: where its planes lie along {', '.join(lost)} is not "
                "written: OME-Zarr has one place for an image, in the unit of its pixels; TIFF "
                "keeps all"
            )

    def write(
        self, planes: Sequence[Probabilities], labels: Sequence[Any], cells: int
    ) -> Iterator[Path]:
        """Writes every output, and yields its path."""
        for output in self.output_plan.outputs:
            target = self.output_plan.target(self.path, output)
            read = self._reader(output, planes, labels, cells)
            dtype = read(0, (slice(0, 1), slice(0, 1))).dtype
            parts = self._parts(output, len(planes), planes[0].shape[:2], dtype, read)
            _WRITERS[self.output_plan.form_of(self.path)](target, parts)
            yield target

    def _reader(
        self, output: str, planes: Sequence[Probabilities], labels: Sequence[Any], cells: int
    ) -> Callable[[int, Window], NDArray[Any]]:
        """Returns what reads a window of a plane of an output."""
        dtype, encoding = smallest_unsigned(np.array([cells])).dtype, self.output_plan.info.encoding

        def numbered(plane: int, window: Window) -> NDArray[Any]:
            return np.asarray(labels[plane][window]).astype(dtype)

        def rendered(plane: int, window: Window) -> NDArray[Any]:
            return Prediction.of(planes[plane][window]).rendered(output, encoding)

        return numbered if output == "instances" else rendered

    def _parts(
        self,
        output: str,
        planes: int,
        size: tuple[int, ...],
        dtype: np.dtype[Any],
        read: Callable[[int, Window], NDArray[Any]],
    ) -> LazyImage:
        """Describes an output, with what TIFF and OME-Zarr want in another output_plan."""
        info, form, spacing = (
            self.output_plan.info,
            self.output_plan.form_of(self.path),
            self.spacing,
        )
        letters, lengths = axes_of_stack(self.stack)
        if form == "ome-zarr" and "Q" in letters:  # which OME-Zarr does not have
            letters, lengths, spacing = "Z", (planes,), spacing.of_axes("YX")
        sizes = list(zip(letters, lengths, strict=True))
        if output == "probabilities":
            sizes.append(("C", info.architecture.classes))
        if form == "ome-zarr":
            sizes.sort(key=lambda size: "TCZ".index(size[0]))
        axes = "".join(axis for axis, _ in sizes)
        inside = range(len(letters)) if form == "tiff" else [axes.index(one) for one in letters]

        def window(place: tuple[int, ...], window: Window) -> NDArray[Any]:
            numbers = [place[axis] for axis in inside]
            pixels = read(int(np.ravel_multi_index(numbers, lengths)) if numbers else 0, window)
            return pixels[place[axes.index("C")]] if "C" in axes else pixels

        shape = (*(size for _, size in sizes), *size)
        named = replace(spacing, channels=info.encoding.names)
        return LazyImage(shape, dtype, f"{axes}YX", window, named)


@dataclass(frozen=True, eq=False)
class _Cells:
    """The probability of being cell, read by windows."""

    probabilities: Probabilities

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.probabilities.shape[:2]
        return height, width

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        return cell_probability(self.probabilities[window])


def _largest_piece() -> int:
    """Returns how many pixels of one piece memory holds, or what is taken at least."""
    return max(LARGEST_PIECE, int(_PIECE_SHARE * free_memory()) // _PIECE_BYTES)


def _classes(probabilities: Probabilities) -> set[int]:
    rows, columns = (
        [slice(start, min(start + _WINDOW, size)) for start in range(0, size, _WINDOW)]
        for size in probabilities.shape[:2]
    )
    return {
        number
        for window in product(rows, columns)
        for number in np.unique(Prediction.of(probabilities[window]).classes).tolist()
    }


def _bands(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _BAND // width // ROWS) * ROWS
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))
