"""Distributed prediction: Dask workers predict tiles, and this process writes the outputs.

This process measures the images. Workers write the probabilities of tiles to a `Store`, a hidden
folder in that of the outputs, which all of them must be able to access. This process reads them,
and labels and writes as in a local prediction. The tiles are the same, so the outputs are too.
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
from keras_unet.data.channels import Channels, Selection
from keras_unet.data.lazy import OpenPlane, open_large
from keras_unet.instances.blockwise import WindowBuffer
from keras_unet.instances.link import Along
from keras_unet.prediction.blockwise import (
    Blockwise,
    Measured,
    Normalized,
    Plan,
    measure,
)
from keras_unet.prediction.folder import check_linkable, choice_for, log_choice
from keras_unet.prediction.inputs import describe_unread
from keras_unet.prediction.load import TFLITE, load
from keras_unet.prediction.outputs import Form, OutputPlan
from keras_unet.prediction.predict import tile_size_of
from keras_unet.prediction.resampling import resample
from keras_unet.prediction.scale import Scale
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.prediction.store import Task
from keras_unet.runs import locate
from keras_unet.system import require

_log = logging.getLogger(__name__)

TILES = 8
"""Largest number of tiles that a worker predicts at a time, all in the same rows."""

SECONDS = 60
"""Time limit in seconds for the scheduler to respond, and then for its first worker."""

_LOOPBACK = "127.0.0.1"

_NETWORK_LOCK = Lock()  # Keras does not guarantee that several threads can call a network


@dataclass(frozen=True)
class Cluster:
    """Dask workers: of a running scheduler, or to start on this machine.

    Attributes:
        address: Address of a running Dask scheduler, such as tcp://HOST:8786.
        workers: Number of processes to start on this machine instead; they listen on its loopback
            interface only.

    Raises:
        ValueError: If both or none are given, or the number of workers is below 1.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        if (self.address is None) == (self.workers is None):
            raise ValueError(
                "dask and workers: expected one of them, the address of a scheduler or a number of "
                f"processes. Received: dask={self.address}, workers={self.workers}"
            )
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1. Received: {self.workers}")

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Connects to the workers, started first if needed, and yields a `distributed.Client`.

        Raises:
            ModuleNotFoundError: If Dask is missing.
            OSError: If no scheduler or no worker responds.
        """
        require("dask", "distributed")
        with ExitStack() as stack:
            with status("waiting for workers"):
                address = self.address or stack.enter_context(_local_cluster(self.workers or 1))
                client = stack.enter_context(_client(address))
            _log.info(f"Dask dashboard: {client.dashboard_link}")
            yield client


@contextmanager
def _local_cluster(workers: int) -> Iterator[str]:
    """Starts workers with an equal share of the cores and no memory limit."""
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

    # The error that is raised repeats these messages.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"{address}: expected the address of a Dask scheduler, such as tcp://HOST:8786. "
            f"Received no response from one ({error}); start one by: dask scheduler"
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


def predict_files_distributed(  # noqa: PLR0913 - as predict_files
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
    link: Along | None = None,
    scale: Scale = "off",
    form: Form | None = None,
    axes: str | None = None,
    channels: Channels | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Predicts image files by Dask workers, with the outputs of `predict_files`, bit by bit.

    Reads TIFF and Zarr only. All workers need this package, and access to the run, the files and
    the folder of the outputs at the same paths. If a worker is lost, others take over its tiles.
    After an interruption, the same call resumes the prediction.

    A script that calls this with workers on this machine must do so under `if __name__ ==
    "__main__":`, as Python requires to start processes.

    Args:
        run_folder: Run, ensemble, .tflite file, or name of a model of the package.
        files: See `predict_files`.
        out: See `predict_files`.
        cluster: The workers.
        save: See `predict_files`.
        tile_size: See `predict_files`.
        precision: See `predict_files`; "auto" chooses the fast one of this machine.
        tta: See `predict_files`.
        instances: See `predict_files`.
        link: See `predict_files`.
        scale: See `predict_files`; objects are looked at in this process.
        form: File format, "tiff" or "ome-zarr"; None for that of each image.
        axes: See `predict_files`.
        channels: See `predict_files`.
        overwrite: See `predict_files`.

    Returns:
        The files written.

    Raises:
        ModuleNotFoundError: If Dask or Zarr is missing.
        ValueError: See `predict_files`; or if a worker reads other files.
        OSError: See `predict_files`; or if no scheduler or worker responds, or several workers die
            in the same task.
    """
    require("dask", "distributed")
    require("large", "zarr")
    model = locate(run_folder).absolute()
    segmenter = load(model, precision=precision)
    factor = segmenter.check_scale(scale)
    paths = [path.absolute() for path in files]
    output_plan = OutputPlan.of(
        segmenter.info,
        paths,
        out.absolute(),
        save,
        instances,
        form,
        link=link,
        overwrite=overwrite,
    )
    segmenter = replace(segmenter, info=output_plan.info)
    for message in describe_unread(paths, output_plan.repeated):
        _log.warning(message)
    plan, networks = _plan(segmenter, model, precision, tile_size, tta, axes)
    plan = replace(plan, channels=Selection.of(channels) or segmenter.info.selection)
    images = track(output_plan.images, "checking images")
    measured = {path: _measure(plan, path) for path in images}
    choices = {}
    for path in measured:
        with open_large(path, plan.axes, plan.channels) as image:
            check_linkable(link, path, image.stack)
            choice = choice_for(factor, segmenter.info, path, image.spacing.pixel_size)
            choices[path] = choice or segmenter.choose_scale(
                OpenPlane(image, image.shape[0] // 2), path, tile_size=tile_size
            )
        log_choice(path, choices[path])
    with cluster.connected() as client:
        predict = partial(predict_on_workers, client, networks)
        blockwise = Blockwise(
            output_plan, plan, predict, tiles_per_task=TILES, planes_together=True
        )
        return output_plan.write_all(
            lambda path: blockwise.predict_image(path, measured[path], choices[path].factor),
            compared=scale == "off",
        )


def _plan(
    segmenter: Segmenter,
    folder: Path,
    precision: str | None,
    tile_size: int | None,
    tta: bool,
    axes: str | None,
) -> tuple[Plan, Networks]:
    """Returns the plan of the prediction, and the networks for the workers to load."""
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
    with open_large(path, plan.axes, plan.channels) as image:
        for stage in plan.stages(image.shape[1:3]):
            _ = stage.tiles.tiling  # raises if the tile size does not fit
    return measure(plan.infos[0], path, plan.axes, plan.channels)


@dataclass(frozen=True)
class Networks:
    """Networks for a worker to load.

    Attributes:
        folder: Run, ensemble or .tflite file.
        precision: Precision to predict in; None for that of each network's training.
        checksums: SHA-256 of each network's weights.
    """

    folder: Path
    precision: str | None
    checksums: tuple[str, ...]


def predict_on_workers(
    client: Any, networks: Networks, batches: Iterable[Sequence[Task]]
) -> Iterator[int]:
    """Predicts tiles on workers, see `Predict`; tasks of lost workers go to others.

    Args:
        client: A `distributed.Client`.
        networks: The networks.
        batches: Batches of tasks of one image.

    Yields:
        The number of tiles of each finished task.

    Raises:
        ValueError: If a worker reads another image or other weights.
        OSError: If several workers die in the same task, or the scheduler is lost.
    """
    for tasks in batches:
        with _explain_worker_loss(tasks[0].image):
            yield from _predict(client, networks, tasks)


def _predict(client: Any, networks: Networks, tasks: Sequence[Task]) -> Iterator[int]:
    from distributed import as_completed

    tasks = [_without_cache(task) for task in tasks]
    futures = client.map(partial(predict_task, networks), tasks, pure=False)
    for future, result in as_completed(futures, loop=client.loop, with_results=True):
        if isinstance(result, BaseException):  # cancelled futures return the error
            raise result
        future.release()  # otherwise Dask would repeat the task if its worker were lost later
        yield result


def _without_cache(task: Task) -> Task:
    # The cached tiles of a plan are large to send and fast to compute.
    return replace(task, stage=replace(task.stage, tiles=replace(task.stage.tiles)))


@contextmanager
def _explain_worker_loss(path: Path) -> Iterator[None]:
    from distributed import KilledWorker

    way_out = "The same command resumes the prediction"
    try:
        yield
    except KilledWorker as error:
        raise OSError(
            f"{path}: expected workers that complete a task. Received several that died in the "
            "same one, probably out of memory; choose a smaller --tile, or start fewer workers on "
            f"each machine. {way_out}"
        ) from error
    except CancelledError as error:
        raise OSError(
            f"{path}: expected a Dask scheduler until all tiles are predicted. Received a "
            f"scheduler that has gone; start it again. {way_out}"
        ) from error


def predict_task(networks: Networks, task: Task) -> int:
    """Predicts tiles in a worker process, which opens image, networks and store itself.

    Args:
        networks: The networks; they stay loaded until a task needs others.
        task: The tiles.

    Returns:
        The number of tiles.

    Raises:
        ValueError: If image or networks cannot be read, or differ from those of the task.
        OSError: If a chunk cannot be written.
    """
    with _NETWORK_LOCK, open_large(task.image, task.axes, task.channels) as image:
        if image.shape != task.shape:
            raise ValueError(
                f"{task.image}: expected the image of {task.shape} (planes, height, width, "
                f"channels) that was measured. Received {image.shape}; all workers must read the "
                "same files"
            )
        member = _load(networks).members[task.stage.member]
        plane = OpenPlane(image, task.plane)
        network = member.info.architecture
        normalized = Normalized(network, task.normalization, plane)
        pixels = WindowBuffer.of(resample(normalized, task.stage.tiles.size), task.read_window)
        return sum(1 for _ in task.predict(member.network, pixels))


def dask_setup(worker: object) -> None:  # noqa: ARG001 - signature of Dask's preload hook
    """Ignores Ctrl-C in a local worker; the process that started it handles it.

    Args:
        worker: The worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@lru_cache(maxsize=1)
def _load(networks: Networks) -> Segmenter:
    segmenter = load(networks.folder, precision=networks.precision)
    if tuple(member.checksum for member in segmenter.members) != networks.checksums:
        raise ValueError(
            f"{networks.folder}: expected the weights that the prediction was started with. "
            "Received others; all workers must read the same files, and the run must not be "
            "trained meanwhile"
        )
    return segmenter
