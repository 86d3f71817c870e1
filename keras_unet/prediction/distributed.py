"""Prediction on more machines: Dask's workers predict tiles, and this process writes the outputs.

The image is measured here. Workers write the probabilities of tiles to the store that this process
reads, a hidden folder among the outputs, which all of them must see; this process labels and writes
as it does of its own predictions. Networks are given the very same tiles, so the outputs are the
same.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

from keras_unet.console import quiet_tensorflow, status, track
from keras_unet.data.lazy import OpenPlane, open_large
from keras_unet.instances.blockwise import WindowBuffer
from keras_unet.prediction.blockwise import (
    Blockwise,
    Measured,
    Normalized,
    Plan,
    measure,
)
from keras_unet.prediction.load import TFLITE, load
from keras_unet.prediction.outputs import Form, OutputPlan, unread
from keras_unet.prediction.predict import tile_size_of
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.prediction.store import Task
from keras_unet.system import require

_log = logging.getLogger(__name__)

TILES = 8
"""Tiles that a worker predicts at a time, at most; they lie in the same rows."""

SECONDS = 60
"""Seconds that a scheduler, and after it the first of its workers, may take to answer."""

_LOOPBACK = "127.0.0.1"

_ONE_AT_A_TIME = Lock()
"""Keras does not promise that a network can be called by several threads."""


@dataclass(frozen=True)
class Cluster:
    """Address of the workers, or their number.

    Attributes:
        address: Of a Dask scheduler that runs, such as tcp://HOST:8786.
        workers: Processes to start on this machine instead. They listen on its loopback alone.

    Raises:
        ValueError: If not exactly one is given, or there is to be no worker.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Checks that it is one of the two."""
        if (self.address is None) == (self.workers is None):
            raise ValueError(
                "dask and workers: expected one of them, the address of a scheduler or a number of "
                f"processes. Received: dask={self.address}, workers={self.workers}"
            )
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1. Received: {self.workers}")

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Starts workers, if none are there, and yields a `distributed.Client`.

        Raises:
            ModuleNotFoundError: If Dask is missing.
            OSError: If no scheduler or no worker answers.
        """
        require("dask", "distributed")
        with ExitStack() as stack:
            with status("waiting for workers"):
                address = self.address or stack.enter_context(_started(self.workers or 1))
                client = stack.enter_context(_client(address))
            _log.info(f"Dask dashboard: {client.dashboard_link}")
            yield client


@contextmanager
def _started(workers: int) -> Iterator[str]:
    """Starts workers here. Each computes with its share of the cores, and may take all memory."""
    from distributed import LocalCluster

    threads = max(1, (os.cpu_count() or 1) // workers)
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host=_LOOPBACK,
        dashboard_address=f"{_LOOPBACK}:0",
        memory_limit=0,
        preload=["keras_unet.prediction.distributed"],
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": str(threads)},
    ) as cluster:
        yield cluster.scheduler_address


@contextmanager
def _client(address: str) -> Iterator[Any]:
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # the error itself says it
    try:
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"{address}: expected the address of a Dask scheduler, such as tcp://HOST:8786. "
            f"Received no answer from one ({error}); start one by: dask scheduler"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError as error:
            raise OSError(
                f"{address}: expected a Dask scheduler with workers. Received one without any for "
                f"{SECONDS} seconds; start some by: dask worker {address} --nthreads 1"
            ) from error
        yield client


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
    an interruption the same call goes on, and predicts anew what is missing or damaged.

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
    segmenter = load(run_folder.absolute(), precision=precision)
    paths = [path.absolute() for path in files]
    output_plan = OutputPlan.of(
        segmenter.info, paths, out.absolute(), save, instances, form, overwrite=overwrite
    )
    for line in unread(paths, output_plan.repeated):
        _log.warning(line)
    plan, networks = _plan(segmenter, run_folder.absolute(), precision, tile_size, tta, axes)
    images = track(output_plan.images, "checking images")
    measured = {path: _measure(plan, path) for path in images}
    with cluster.connected() as client:
        predict = partial(predict_on_workers, client, networks)
        blockwise = Blockwise(output_plan, plan, predict, tiles_a_task=TILES, planes_together=True)
        return output_plan.write_all(lambda path: blockwise.make(path, measured[path]))


def _plan(
    segmenter: Segmenter,
    folder: Path,
    precision: str | None,
    tile_size: int | None,
    tta: bool,
    axes: str | None,
) -> tuple[Plan, Networks]:
    """Describes the networks, which the workers load, and how they predict."""
    with quiet_tensorflow():
        from keras_unet.backend import choose_precision

    chosen = choose_precision(precision) if precision == "auto" else precision
    members = segmenter.members
    is_exported = folder.suffix == TFLITE
    sizes = [tile_size_of(member.network if is_exported else None, tile_size) for member in members]
    infos, checksums = zip(*((member.info, member.checksum) for member in members), strict=True)
    plan = Plan(infos, tuple(sizes), tta, axes, chosen, checksums)
    return plan, Networks(folder, chosen, checksums)


def _measure(plan: Plan, path: Path) -> Measured:
    """Checks that an image suits the networks, and measures it."""
    with open_large(path, plan.axes) as image:
        for stage in plan.stages(image.shape[1:3]):
            _ = stage.tiles.tiling
    return measure(plan.infos[0], path, plan.axes)


@dataclass(frozen=True)
class Networks:
    """Networks for a worker to load.

    Attributes:
        folder: The run, ensemble or .tflite file.
        precision: Precision to predict in; None for those that they were trained in.
        checksums: SHA-256 of each one's weights.
    """

    folder: Path
    precision: str | None
    checksums: tuple[str, ...]


def predict_on_workers(
    client: Any, networks: Networks, batches: Iterable[Sequence[Task]]
) -> Iterator[int]:
    """Has workers predict tiles, see `Predict`; a task whose worker is lost goes to another.

    Args:
        client: A `distributed.Client`.
        networks: The networks.
        batches: The tiles.

    Raises:
        ValueError: If a worker sees another image or other weights.
        OSError: If workers die over the same task again and again, or the scheduler is lost.
    """
    for tasks in batches:
        with _worker_loss_in_one_line(tasks[0].image):
            yield from _predict(client, networks, tasks)


def _predict(client: Any, networks: Networks, tasks: Sequence[Task]) -> Iterator[int]:
    from distributed import as_completed

    sent = [_without_cache(task) for task in tasks]
    futures = client.map(partial(predict_task, networks), sent, pure=False)
    for future, result in as_completed(futures, loop=client.loop, with_results=True):
        if isinstance(result, BaseException):  # given, not raised, of what was cancelled
            raise result
        future.release()  # or it would be predicted anew, were its worker lost later
        yield result


def _without_cache(task: Task) -> Task:
    """Leaves out the tiles of a plan, which are many, and which a worker can lay."""
    return replace(task, stage=replace(task.stage, tiles=replace(task.stage.tiles)))


@contextmanager
def _worker_loss_in_one_line(path: Path) -> Iterator[None]:
    """Says what has become of workers, and that the same command goes on."""
    from distributed import KilledWorker

    goes_on = "The same command goes on where this one ends"
    try:
        yield
    except KilledWorker as error:
        raise OSError(
            f"{path}: expected workers that live through a task. Received several "
            "that died over the same one, perhaps for want of memory; take a smaller --tile, "
            f"or fewer workers a machine. {goes_on}"
        ) from error
    except CancelledError as error:
        raise OSError(
            f"{path}: expected a Dask scheduler until all tiles are predicted. Received none any "
            f"more; start it again. {goes_on}"
        ) from error


def predict_task(networks: Networks, task: Task) -> int:
    """Predicts tiles in a worker, which opens image, networks and store itself.

    The networks stay loaded until others are asked for.

    Args:
        networks: The networks.
        task: The tiles.

    Returns:
        The number of tiles.

    Raises:
        ValueError: If image or networks cannot be read, or differ from those of who asks.
        OSError: If a chunk cannot be written.
    """
    with _ONE_AT_A_TIME, open_large(task.image, task.axes) as image:
        if image.shape != task.shape:
            raise ValueError(
                f"{task.image}: expected the image of {task.shape} (planes, height, width, "
                f"channels) that was measured. Received {image.shape}; all workers must see the "
                "same files"
            )
        member = _loaded(networks).members[task.stage.member]
        plane = OpenPlane(image, task.plane)
        network = member.info.architecture
        pixels = WindowBuffer.of(Normalized(network, task.normalization, plane), task.reads)
        return sum(1 for _ in task.predict(member.network, pixels))


def dask_setup(worker: object) -> None:  # noqa: ARG001 - Dask calls it so in workers started here
    """Leaves Ctrl-C, which a terminal sends to workers as well, to the process that started them.

    Args:
        worker: The worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@lru_cache(maxsize=1)
def _loaded(networks: Networks) -> Segmenter:
    """Loads networks, and keeps them until others are asked for."""
    segmenter = load(networks.folder, precision=networks.precision)
    if tuple(member.checksum for member in segmenter.members) != networks.checksums:
        raise ValueError(
            f"{networks.folder}: expected the weights that the prediction was started with. "
            "Received others; all workers must see the same files, and nobody train meanwhile"
        )
    return segmenter
