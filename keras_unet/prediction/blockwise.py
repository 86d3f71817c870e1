"""Blockwise prediction of images larger than memory.

Images are read, predicted, labeled and written by windows; the outputs equal those of
`predict_files` for an image in memory. Probabilities and labels are kept on disk until the outputs
are written, see `Store`, so that an interrupted prediction can be resumed.
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
from keras_unet.data.channels import Selection
from keras_unet.data.images import as_channels, pixels_of, smallest_unsigned, stem_of
from keras_unet.data.lazy import OpenPlane, open_large
from keras_unet.data.normalization import ROWS, Moments, Normalization
from keras_unet.data.object_classes import ObjectClass
from keras_unet.data.stacks import axes_of_stack
from keras_unet.data.tiled import LazyImage, write_ome_zarr, write_tiled_tiff
from keras_unet.files import printable
from keras_unet.instances.affinities import MergedAffinities, SeparatedProbabilities
from keras_unet.instances.blockwise import LARGEST_PIECE, BlockwiseLabeler
from keras_unet.instances.label import cell_probability
from keras_unet.instances.link import Links, link_objects
from keras_unet.measurement.objects import ImageObjects
from keras_unet.prediction.outputs import OutputPlan, Prediction, Result, write_outlines
from keras_unet.prediction.predict import SYMMETRIES, as_network_input
from keras_unet.prediction.resampling import ResampledLabels, resample, scaled_size
from keras_unet.prediction.store import (
    Probabilities,
    Stage,
    Store,
    Task,
    TilePlan,
    Window,
    bytes_of_labels,
)
from keras_unet.runs import ModelInfo
from keras_unet.system import DISTRIBUTION, free_memory, installed_version

_log = logging.getLogger(__name__)

Predict = Callable[[Iterable[Sequence[Task]]], Iterator[int]]
"""Predicts batches of tasks of one image, and yields the number of further tiles predicted.

A batch may depend on the one before, and is requested after it is finished.
"""

_BAND = 2**22
"""Approximate number of pixels that are read at a time to measure an image."""

_WINDOW = 1024
"""Height and width in pixels of the windows in which the classes of an image are collected."""

_COMPONENT_BYTES = 100
"""Memory per pixel to split a connected component into cells: 60 bytes if the probability is
smooth, more if it is noisy."""

_COMPONENT_SHARE = 0.75
"""Share of the free memory that a connected component may take."""

_WRITERS: Mapping[str, Callable[[Path, LazyImage], None]] = {
    "tiff": write_tiled_tiff,
    "ome-zarr": write_ome_zarr,
}


@dataclass(frozen=True, eq=False)
class Measured:
    """Shape, statistics and checksum of an image.

    Attributes:
        shape: Numbers of planes, rows, columns and channels.
        moments: Moments of the grey values of each plane.
        checksum: SHA-256 of the grey values.
    """

    shape: tuple[int, int, int, int]
    moments: list[Moments]
    checksum: str


def measure(
    info: ModelInfo, path: Path, axes: str | None = None, channels: Selection | None = None
) -> Measured:
    """Reads an image once, to check and measure its grey values.

    Args:
        info: Metadata of the model.
        path: Path of the image.
        axes: Axes of the image, if its file does not state them correctly.
        channels: Channels to read; None for all.

    Raises:
        ValueError: If the image cannot be read, has other channels than the model, or a pixel that
            is not finite.
    """
    digest = sha256()

    def read_bands(plane: OpenPlane) -> Iterator[NDArray[np.float32]]:
        height, width, _ = plane.shape
        bands = list(_bands(height, width))
        for rows in track(bands, f"reading {path.name}"):
            pixels = grey_values(plane, (rows, slice(0, width)), info.architecture.channels)
            digest.update(pixels.tobytes())
            yield pixels

    with open_large(path, axes, channels) as image:
        moments = [Moments.of(read_bands(plane)) for plane in image]
        return Measured(image.shape, moments, digest.hexdigest())


@dataclass(frozen=True)
class Plan:
    """Networks whose probabilities are averaged, and options of their prediction.

    Attributes:
        infos: Metadata of the networks.
        tile_sizes: Height and width in pixels of each network's input tiles; None for the default.
        tta: Whether to use test-time augmentation.
        axes: Axes of the images, if their files do not state them correctly.
        precision: Precision to predict in; None for that of each network's training.
        checksums: SHA-256 of each network's weights; None if they are unknown, so that an
            interrupted prediction cannot be resumed.
        channels: Channels of the images to read; None for all.
    """

    infos: tuple[ModelInfo, ...]
    tile_sizes: tuple[tuple[int | None, int | None], ...]
    tta: bool = False
    axes: str | None = None
    precision: str | None = None
    checksums: tuple[str, ...] | None = None
    channels: Selection | None = None

    def stages(self, size: tuple[int, int]) -> tuple[Stage, ...]:
        """Returns the stages of the prediction of a plane, one for each network and view.

        Args:
            size: Height and width of the plane in pixels.

        Raises:
            ValueError: If a tile size does not fit.
        """
        members, views = len(self.infos), len(SYMMETRIES) if self.tta else 1
        stages = []
        for member, view in product(range(members), range(views)):
            network, tile_size = self.infos[member].architecture, self.tile_sizes[member]
            tiles = TilePlan(size, network, tile_size, view)
            stages.append(Stage.of(member, tiles, members, views))
        return tuple(stages)

    def provenance(self, image: Measured, size: tuple[int, int]) -> dict[str, Any]:
        """Returns everything that the probabilities of an image depend on, for JSON.

        Args:
            image: Measurements of the image.
            size: Height and width that it is resampled to.
        """
        runs = [
            info.architecture.to_dict()
            | {"normalization": info.normalization.to_dict(), "precision": info.precision}
            for info in self.infos
        ]
        return {
            "image": {"axes": self.axes, "shape": image.shape, "sha256": image.checksum},
            "size": size,
            "networks": {"sha256": self.checksums or uuid4().hex, "runs": runs},
            "precision": self.precision,
            "tile_sizes": self.tile_sizes,
            "tta": self.tta,
            "packages": {name: installed_version(name) for name in (DISTRIBUTION, "tensorflow")},
        }


@dataclass(frozen=True, eq=False)
class Normalized:
    """Normalized plane of an image, read by windows.

    Attributes:
        architecture: Architecture of the network.
        normalization: Normalization with the statistics of this plane.
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
        return as_network_input(self.normalization.apply(raw), self.architecture)


@dataclass(frozen=True, eq=False)
class _GreyValues:
    """Raw grey values of a plane, read by windows."""

    plane: OpenPlane
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.plane.shape[:2], self.channels)

    def __getitem__(self, window: Window) -> NDArray[Any]:
        return as_channels(self.plane[window], self.channels, self.plane.image.path)


def grey_values(plane: OpenPlane, window: Window, channels: int) -> NDArray[np.float32]:
    """Reads raw grey values of a window.

    Args:
        plane: Plane of an image.
        window: Rows and columns to read.
        channels: Number of channels that the network takes.

    Returns:
        Grey values `(rows, columns, channels)`.

    Raises:
        ValueError: If the window cannot be read, the image has another number of channels, or a
            pixel is not finite.
    """
    rows = window[0]
    location = f"{plane.image.path} (rows {rows.start} to {rows.stop - 1})"
    return pixels_of(as_channels(plane[window], channels, plane.image.path), location)


def predict_locally(models: Sequence[Any], batches: Iterable[Sequence[Task]]) -> Iterator[int]:
    """Predicts tiles in this process, see `Predict`.

    Args:
        models: The networks.
        batches: Batches of tasks of one image.

    Yields:
        1 for each tile.
    """
    image = None
    with ExitStack() as stack:
        for tasks in batches:
            image = image or stack.enter_context(
                open_large(tasks[0].image, tasks[0].axes, tasks[0].channels)
            )
            for number, tasks_of_plane in groupby(tasks, key=lambda task: task.plane):
                plane = OpenPlane(image, number)
                for task in tasks_of_plane:
                    network = task.stage.tiles.architecture
                    pixels = Normalized(network, task.normalization, plane)
                    resampled = resample(pixels, task.stage.tiles.size)
                    for _ in task.predict(models[task.stage.member], resampled):
                        yield 1


def checksum_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Blockwise:
    """Blockwise prediction of images.

    Attributes:
        output_plan: Outputs to write.
        plan: Networks, and options of their prediction.
        predict: Predicts tiles, in this process or in others.
        tiles_per_task: Largest number of tiles of a task, all in the same rows; None for all tiles
            of a stage.
        planes_together: Whether all planes finish a stage before the next one starts. Takes more
            disk space, but keeps all processes busy.
    """

    output_plan: OutputPlan
    plan: Plan
    predict: Predict
    tiles_per_task: int | None = None
    planes_together: bool = False

    def predict_image(self, path: Path, image: Measured, scale: float = 1.0) -> Result:
        """Predicts an image and writes its outputs.

        Args:
            path: Path of the image.
            image: Measurements of the image.
            scale: Factor by which the image is resampled before the prediction, and probabilities
                and labels back after it.

        Raises:
            ValueError: If memory is too small to split a connected component into cells.
            OSError: If the disk is full, or a file cannot be read or written.
        """
        _log.info(f"{printable(path.name)}: read, predicted and written in parts")
        with open_large(path, self.plan.axes, self.plan.channels) as opened:
            outputs = _Outputs(self.output_plan, path, opened.spacing, opened.stack)
        outputs.log_lost_positions()
        size = scaled_size(image.shape[1:3], scale)
        provenance, is_kept = self.plan.provenance(image, size), self.plan.checksums is not None
        out, stem = self.output_plan.out, stem_of(path)
        with Store.opened(out, stem, provenance, is_kept=is_kept) as store:
            job = _Job(self, path, image, size, store)
            store.check_room(job.room)
            job.predict()
            planes: list[Any] = [job.probabilities(plane) for plane in range(image.shape[0])]
            info = self.output_plan.info
            if info.architecture.affinities and info.instances.affinities:
                outputs_of = MergedAffinities if self.plan.tta else lambda plane: plane
                planes = [SeparatedProbabilities(outputs_of(plane)) for plane in planes]
            elif info.architecture.affinities:
                planes = [_Classes(plane, info.architecture.classes) for plane in planes]
            found, cells = job.label(planes)
            own = image.shape[1:3]
            planes = [resample(plane, own) for plane in planes]
            labels = [plane if size == own else ResampledLabels(plane, own) for plane in found]
            classes = {number for plane in planes for number in _classes(plane)}
            sizes = self.output_plan.sizes(outputs.spacing.pixel_size, labels)
            links, unlinked = None, labels
            if self.output_plan.link is not None:
                links = link_objects((plane[:, :] for plane in labels), self.output_plan.link)
                labels = [_Linked(links, *plane) for plane in enumerate(labels)]
                cells = len(links.tracks)
            files = [*outputs.write(planes, labels, cells)]
            objects = self._measure(path, outputs, planes, labels)
            files += write_outlines(out, objects, self.output_plan.objects)
            films = (plane[:, :] for plane in unlinked)
            files += self.output_plan.write_film(path, links, films)
            tables = self.output_plan.table_of(objects), self.output_plan.tracks_of(path, links)
            rows = self._rows(path, planes, unlinked, links)
            return Result(tuple(files), frozenset(classes), sizes, *tables, rows)

    def _rows(
        self, path: Path, planes: Sequence[Any], labels: Sequence[Any], links: Links | None
    ) -> list[ObjectClass]:
        """Returns the class of each object, if objects have classes and are written."""
        if not self.output_plan.has_object_classes:
            return []
        classes_of = self.output_plan.classes_of
        found = [classes_of(*pair) for pair in zip(labels, planes, strict=True)]
        return self.output_plan.rows_of(path, found, links)

    def _measure(
        self, path: Path, outputs: _Outputs, planes: Sequence[Any], labels: Sequence[Any]
    ) -> ImageObjects:
        """Measures the objects of an image, if requested."""
        info, objects = self.output_plan.info, []
        if self.output_plan.objects:
            with open_large(path, self.plan.axes, self.plan.channels) as opened:
                objects = [
                    self.output_plan.measure(
                        labeled,
                        _GreyValues(raw, info.architecture.channels),
                        probabilities,
                        outputs.spacing.pixel_size,
                    )
                    for raw, probabilities, labeled in zip(opened, planes, labels, strict=True)
                ]
        return ImageObjects(path, objects, outputs.stack, info.encoding.names)


@dataclass(frozen=True, eq=False)
class _Job:
    """Prediction of one image."""

    blockwise: Blockwise
    path: Path
    image: Measured
    size: tuple[int, int]
    store: Store

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return self.blockwise.plan.stages(self.size)

    @property
    def room(self) -> int:
        """Largest size of the store in bytes."""
        planes = self.image.shape[0]
        array = max(stage.size for stage in self.stages)
        together = planes if self.blockwise.planes_together else 1
        earlier = max(len(stage.needs) for stage in self.stages)
        labels = planes + 1 if self.blockwise.output_plan.needs_instances else 0
        return (planes + earlier * together) * array + labels * bytes_of_labels(self.size)

    def predict(self) -> None:
        """Predicts all missing tiles."""
        planes = range(self.image.shape[0])
        starts = {plane: self.store.next_stage(plane, self.stages) for plane in planes}
        total, done = self._count_tiles(starts)
        counts = "tile {:,} of {:,}"
        with Progress(self.path.name, total, completed=done, counts=counts) as progress:
            for tiles in self.blockwise.predict(self._batches(starts)):
                progress.advance(tiles)

    def _batches(self, starts: Mapping[int, int]) -> Iterator[list[Task]]:
        """Yields tasks, stage by stage, and removes arrays that later stages do not need."""
        planes = list(starts)
        groups = [planes] if self.blockwise.planes_together else [[plane] for plane in planes]
        for group in groups:
            for stage in self.stages:
                unfinished = [plane for plane in group if starts[plane] <= stage.number]
                tasks = self._tasks(unfinished, stage)
                if tasks:
                    yield tasks
                for plane in unfinished:
                    self.store.keep(plane, self._needed_after(stage))

    def _needed_after(self, stage: Stage) -> set[int]:
        following = self.stages[stage.number + 1 :][:1]
        return {stage.number}.union(*(later.needs for later in following))

    def _count_tiles(self, starts: Mapping[int, int]) -> tuple[int, int]:
        """Returns the number of all tiles, and of those of an interrupted prediction."""
        tiles = [len(stage.tiles.tiling) for stage in self.stages]
        done = 0
        for plane, start in starts.items():
            done += sum(tiles[:start])
            for stage in self.stages[start : start + 1]:
                done += tiles[start] - len(self.store.missing(plane, stage))
        total, damaged = len(starts) * sum(tiles), self.store.damaged
        if done or damaged:
            _log.info(
                f"{printable(self.path.name)}: resuming with {done} of {total} tiles of an earlier "
                f"prediction{f', {damaged} damaged' if damaged else ''}"
            )
        return total, done

    def _tasks(self, planes: Sequence[int], stage: Stage) -> list[Task]:
        """Returns tasks for the missing tiles of a stage, and creates its arrays."""
        plan = self.blockwise.plan
        tasks = []
        for plane in planes:
            self.store.create(plane, stage)
            missing = self.store.missing(plane, stage)
            limit = self.blockwise.tiles_per_task
            normalization = plan.infos[stage.member].normalization
            fitted = normalization.with_moments(self.image.moments[plane])
            for numbers in stage.tiles.row_groups(missing, limit) if limit else [tuple(missing)]:
                source = (self.path, plan.axes, self.image.shape, plane)
                tasks.append(
                    Task(self.store.folder, *source, fitted, stage, numbers, plan.channels)
                )
        return [task for task in tasks if task.numbers]

    def probabilities(self, plane: int) -> Probabilities:
        """Opens the mean probabilities of all networks and views."""
        return self.store.probabilities(plane, self.stages[-1])

    def label(
        self, planes: Sequence[Probabilities | SeparatedProbabilities]
    ) -> tuple[list[Any], int]:
        """Labels the cells if requested; returns the label images and the largest label."""
        if not self.blockwise.output_plan.needs_instances:
            return [], 0
        draft = self.store.labels("draft", self.size)
        labels = [self.store.labels(f"cells{plane}", self.size) for plane in range(len(planes))]
        labeler = BlockwiseLabeler(
            self.blockwise.output_plan.info.instances, largest_piece=_largest_component()
        )
        numbers = [
            labeler.label(_CellProbability(plane), image, draft)
            for plane, image in zip(planes, labels, strict=True)
        ]
        return labels, max(numbers)


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Output files of an image."""

    output_plan: OutputPlan
    path: Path
    spacing: Spacing
    stack: Sequence[tuple[str, int]]

    def log_lost_positions(self) -> None:
        """Logs the positions of the planes that OME-Zarr does not store."""
        letters, _ = axes_of_stack(self.stack)
        lost = self.spacing.not_in_zarr("YX" if "Q" in letters else f"{letters}YX")
        if lost and self.output_plan.form_of(self.path) == "ome-zarr":
            _log.info(
                f"{printable(self.path.name)}: the positions of its planes along "
                f"{', '.join(lost)} are not written: OME-Zarr stores one position of an image, in "
                "the unit of its pixel size; TIFF keeps all"
            )

    def write(self, planes: Sequence[Any], labels: Sequence[Any], cells: int) -> Iterator[Path]:
        """Writes every output, and yields its path."""
        for output in self.output_plan.outputs:
            target = self.output_plan.target(self.path, output)
            read = self._reader(output, planes, labels, cells)
            dtype = read(0, (slice(0, 1), slice(0, 1))).dtype
            image = self._lazy_image(output, len(planes), planes[0].shape[:2], dtype, read)
            _WRITERS[self.output_plan.form_of(self.path)](target, image)
            yield target

    def _reader(
        self, output: str, planes: Sequence[Any], labels: Sequence[Any], cells: int
    ) -> Callable[[int, Window], NDArray[Any]]:
        """Returns the function that reads a window of a plane of an output."""
        dtype, encoding = smallest_unsigned(np.array([cells])).dtype, self.output_plan.info.encoding

        def read_labels(plane: int, window: Window) -> NDArray[Any]:
            return np.asarray(labels[plane][window]).astype(dtype)

        def read_prediction(plane: int, window: Window) -> NDArray[Any]:
            return Prediction.of(planes[plane][window]).as_output(output, encoding)

        return read_labels if output == "instances" else read_prediction

    def _lazy_image(
        self,
        output: str,
        planes: int,
        size: tuple[int, ...],
        dtype: np.dtype[Any],
        read: Callable[[int, Window], NDArray[Any]],
    ) -> LazyImage:
        """Returns an output with its axes, which TIFF and OME-Zarr order differently."""
        info, form = self.output_plan.info, self.output_plan.form_of(self.path)
        spacing = self.spacing
        letters, lengths = axes_of_stack(self.stack)
        if form == "ome-zarr" and "Q" in letters:  # OME-Zarr has no axis of unknown meaning
            letters, lengths, spacing = "Z", (planes,), spacing.of_axes("YX")
        sizes = list(zip(letters, lengths, strict=True))
        if output == "probabilities":
            sizes.append(("C", info.architecture.classes))
        if form == "ome-zarr":
            sizes.sort(key=lambda size: "TCZ".index(size[0]))
        axes = "".join(axis for axis, _ in sizes)
        stack = range(len(letters)) if form == "tiff" else [axes.index(axis) for axis in letters]

        def read_window(index: tuple[int, ...], window: Window) -> NDArray[Any]:
            numbers = [index[axis] for axis in stack]
            pixels = read(int(np.ravel_multi_index(numbers, lengths)) if numbers else 0, window)
            return pixels[index[axes.index("C")]] if "C" in axes else pixels

        shape = (*(size for _, size in sizes), *size)
        named = replace(spacing, channels=info.encoding.names)
        return LazyImage(shape, dtype, f"{axes}YX", read_window, named)


@dataclass(frozen=True, eq=False)
class _Classes:
    """Class probabilities of a network with affinities, read by windows."""

    outputs: Probabilities
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, _ = self.outputs.shape
        return height, width, self.classes

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        return self.outputs[window][..., : self.classes]


@dataclass(frozen=True, eq=False)
class _Linked:
    """Label image with the numbers of tracks, read by windows."""

    links: Links
    index: int
    labels: Any

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.labels.shape
        return height, width

    def __getitem__(self, window: Window) -> NDArray[Any]:
        return self.links.relabel(self.index, np.asarray(self.labels[window]))


@dataclass(frozen=True, eq=False)
class _CellProbability:
    """Probability of a cell, read by windows."""

    probabilities: Probabilities | SeparatedProbabilities

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.probabilities.shape[:2]
        return height, width

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        return cell_probability(self.probabilities[window])


def _largest_component() -> int:
    """Returns the pixels of the largest connected component to split, at least `LARGEST_PIECE`."""
    return max(LARGEST_PIECE, int(_COMPONENT_SHARE * free_memory()) // _COMPONENT_BYTES)


def _classes(probabilities: Any) -> set[int]:
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
