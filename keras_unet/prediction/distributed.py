"""Prediction on more machines: Dask's workers predict, and this process makes images of that.

The image is measured here. Workers write what they predict, part by part, to a hidden folder among
the outputs, which all of them must see; this process then averages, labels and writes as
`Streaming` does of its own predictions. Networks are given the very same tiles, so the outputs are
the same. The folder goes when an image is done; after an interruption it is gone on from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet import console
from keras_unet.data.images import stem_of
from keras_unet.data.large import open_large
from keras_unet.data.standardisation import Moments
from keras_unet.files import printable
from keras_unet.precision import choose_precision
from keras_unet.prediction.clusters import Cluster
from keras_unet.prediction.labelling import Order, unread
from keras_unet.prediction.ledger import Ledger
from keras_unet.prediction.networks import load_runs, tile_size_of_run, weights_of
from keras_unet.prediction.outputs import Form
from keras_unet.prediction.predict import SYMMETRIES
from keras_unet.prediction.streaming import Streaming, measure
from keras_unet.prediction.sweeps import Predict, Predicted, Sweep
from keras_unet.prediction.worker import Networks, Task, checksum_of_file, predict_part
from keras_unet.runs import Run
from keras_unet.system import DISTRIBUTION, installed_version, require

_log = logging.getLogger(__name__)

TILES = 8
"""Tiles that a worker predicts at a time, at most; they lie in the same rows."""


def spread_files(  # noqa: PLR0913 - as predict_files
    run_folder: Path,
    files: Sequence[Path],
    out: Path,
    cluster: Cluster,
    *,
    save: Sequence[str] = (),
    tile_size: int | None = None,
    precision: str | None = None,
    tta: bool = False,
    instances: Mapping[str, Any] | None = None,
    form: Form | None = None,
    axes: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Predicts image files as `predict_files` does, by workers of Dask, and bit by bit the same.

    TIFF and Zarr alone. All workers must have this package and see the run, the files and the
    folder of the outputs, at the same paths. A worker that is lost is replaced by the others. After
    an interruption the same call goes on, and makes anew what is missing or damaged.

    A script that calls this with workers on this machine must do so under `if __name__ ==
    "__main__":`, as Python asks of all that starts processes.

    Args:
        run_folder: As `predict_files`.
        files: As `predict_files`.
        out: As `predict_files`.
        cluster: Where the workers are.
        save: As `predict_files`.
        tile_size: As `predict_files`.
        precision: As `predict_files`; "auto" is what is fast in this process.
        tta: As `predict_files`.
        instances: As `predict_files`.
        form: "tiff" or "ome-zarr"; None for what the images are.
        axes: As `predict_files`.
        overwrite: As `predict_files`.

    Returns:
        The files written.

    Raises:
        ModuleNotFoundError: If Dask or Zarr is missing.
        ValueError: As `predict_files`; or a worker sees other files.
        OSError: As `predict_files`; or no scheduler or worker answers, or workers die again and
            again.
    """
    require("dask", "distributed")
    require("large", "zarr")
    runs = load_runs(run_folder.absolute())
    paths = [path.absolute() for path in files]
    order = Order.of(runs[0], paths, out.absolute(), save, instances, form, overwrite=overwrite)
    for line in unread(paths):
        _log.warning(line)
    precision = choose_precision(precision) if precision == "auto" else precision
    plan = _Plan.of(runs, run_folder.absolute(), precision, tile_size, tta, axes)
    images = console.track(order.images, "checking images")
    measured = {path: plan.measure(path) for path in images}
    with cluster.connected() as client:
        spread = Spread(plan, client, order.out, measured)
        streaming = Streaming(order, spread)
        return order.fulfil(lambda path: streaming.make(path, measured[path].moments))


@dataclass(frozen=True, eq=False)
class _Measured:
    """Measurements of an image: planes, height, width, channels; moments; its SHA-256."""

    shape: tuple[int, int, int, int]
    moments: list[Moments]
    checksum: str


@dataclass(frozen=True, eq=False)
class _Plan:
    """Runs that predict, and their options; `tile_sizes` are those of each of the networks.

    `axes` are those of images that state none, or others.
    """

    runs: tuple[Run, ...]
    networks: Networks
    tile_sizes: tuple[tuple[int | None, int | None], ...]
    symmetries: bool
    axes: str | None = None

    @classmethod
    def of(
        cls,
        runs: tuple[Run, ...],
        folder: Path,
        precision: str | None,
        tile_size: int | None,
        symmetries: bool,
        axes: str | None = None,
    ) -> _Plan:
        checksums = tuple(checksum_of_file(weights_of(run)) for run in runs)
        sizes = tuple(tile_size_of_run(run, tile_size) for run in runs)
        return cls(runs, Networks(folder, precision, checksums), sizes, symmetries, axes)

    @property
    def versions(self) -> int:
        return len(SYMMETRIES) if self.symmetries else 1

    def measure(self, path: Path) -> _Measured:
        """Makes sure that an image suits the networks, and measures it."""
        with open_large(path, self.axes) as image:
            shape = image.shape
        for member in range(len(self.runs)):
            _ = self.sweep(shape, member, 0).tiling
        digest = sha256()

        def see(pixels: NDArray[np.float32]) -> None:
            digest.update(pixels.tobytes())

        moments = measure(self.runs[0], path, see, self.axes)
        return _Measured(shape, moments, digest.hexdigest())

    def sweep(self, shape: tuple[int, int, int, int], member: int, version: int) -> Sweep:
        network = self.runs[member].architecture
        return Sweep(shape[1:3], network, self.tile_sizes[member], version)

    def described(self, image: _Measured) -> dict[str, Any]:
        """Lists all that the parts of an image depend on."""
        runs = [
            run.architecture.to_dict()
            | {"standardisation": run.standardisation.to_dict(), "precision": run.precision}
            for run in self.runs
        ]
        return {
            "image": {"axes": self.axes, "shape": image.shape, "sha256": image.checksum},
            "networks": {"sha256": self.networks.checksums, "runs": runs},
            "precision": self.networks.precision,
            "tile_sizes": self.tile_sizes,
            "tiles": TILES,
            "versions": self.versions,
            "packages": {name: installed_version(name) for name in (DISTRIBUTION, "tensorflow")},
        }


@dataclass(frozen=True, eq=False)
class Spread:
    """Networks in the processes of workers, see `Source`.

    Attributes:
        plan: What predicts, and how.
        client: A `distributed.Client`.
        out: Folder of the outputs.
        images: What was measured of each image.
    """

    plan: _Plan
    client: Any
    out: Path
    images: Mapping[Path, _Measured]

    @property
    def members(self) -> int:
        """Number of networks that predict together."""
        return len(self.plan.runs)

    @property
    def versions(self) -> int:
        """Number of versions of an image that each of them is given."""
        return self.plan.versions

    @property
    def axes(self) -> str | None:
        """Axes of images that state none, or others."""
        return self.plan.axes

    @contextmanager
    def opened(self, path: Path, moments: Sequence[Moments]) -> Iterator[Predict]:
        """Has all parts of an image made that are missing, and removes them after the body."""
        image = self.images[path]
        ledger = Ledger.open(self.out, stem_of(path), self.plan.described(image))
        tasks = list(self._tasks(path, image, moments, ledger.folder))
        self._say_what_is_kept(path, ledger, len(tasks))
        with _one_line(path):
            self._make(path, tasks, ledger)

        def predict(plane: int, member: int, version: int) -> Predicted:
            sweep = self.plan.sweep(image.shape, member, version)
            classes = self.plan.runs[member].architecture.classes
            for numbers in sweep.parts(TILES):
                content = ledger.read(_name(plane, member, version, numbers))
                yield from _windows(sweep, numbers, content, classes)

        yield predict
        ledger.remove()

    def _tasks(
        self, path: Path, image: _Measured, moments: Sequence[Moments], folder: Path
    ) -> Iterator[Task]:
        """Yields all parts of an image."""
        every = product(range(len(moments)), range(self.members), range(self.versions))
        for plane, member, version in every:
            standardisation = self.plan.runs[member].standardisation.settled(moments[plane])
            sweep = self.plan.sweep(image.shape, member, version)
            for numbers in sweep.parts(TILES):
                yield Task(
                    self.plan.networks,
                    member,
                    path,
                    self.plan.axes,
                    image.shape,
                    plane,
                    standardisation,
                    replace(sweep),  # without its tiles, which the worker knows how to lay
                    numbers,
                    folder / _name(plane, member, version, numbers),
                )

    def _say_what_is_kept(self, path: Path, ledger: Ledger, total: int) -> None:
        if ledger.checksums or ledger.damaged:
            damaged = f", {len(ledger.damaged)} damaged" if ledger.damaged else ""
            _log.info(
                f"{printable(path.name)}: {len(ledger.checksums)} of {total} parts are kept of an "
                f"earlier prediction{damaged}"
            )

    def _make(self, path: Path, tasks: Sequence[Task], ledger: Ledger) -> None:
        """Has workers make what is missing; one that is lost is made anew by another."""
        from distributed import as_completed

        tiles = {task.part.name: len(task.numbers) for task in tasks}
        total, done = sum(tiles.values()), sum(tiles[name] for name in ledger.checksums)
        missing = [task for task in tasks if task.part.name not in ledger.checksums]
        made = as_completed(
            self.client.map(predict_part, missing, pure=False),
            loop=self.client.loop,
            with_results=True,
        )
        with console.Task(path.name, total, completed=done, counts="tile {:,} of {:,}") as task:
            for future, result in made:
                if isinstance(result, BaseException):  # given, not raised, of what was cancelled
                    raise result
                future.release()  # or it would be made anew, were its worker lost later
                name, checksum = result
                ledger.enter(name, checksum)
                task.advance(tiles[name])


def _name(plane: int, member: int, version: int, numbers: range) -> str:
    return f"plane{plane}-network{member}-version{version}-tile{numbers.start}.f32"


def _windows(sweep: Sweep, numbers: range, content: bytes, classes: int) -> Predicted:
    """Cuts a part into the windows that its tiles fill."""
    values = np.frombuffer(content, np.float32)
    for number in numbers:
        rows, columns = sweep.place(sweep.tiles[number])
        shape = (rows.stop - rows.start, columns.stop - columns.start, classes)
        window, values = np.split(values, [math.prod(shape)])
        yield (rows, columns), window.reshape(shape)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Says what has become of workers, and that the work goes on."""
    from distributed import KilledWorker

    goes_on = "The same command goes on where this one ends"
    try:
        yield
    except KilledWorker as error:
        raise OSError(
            f"{path}: expected workers that live through a part. Received several "
            "that died over the same one, perhaps for want of memory; take a smaller --tile, "
            f"or fewer workers a machine. {goes_on}"
        ) from error
    except CancelledError as error:
        raise OSError(
            f"{path}: expected a Dask scheduler until all parts are made. Received none any more; "
            f"start it again. {goes_on}"
        ) from error
