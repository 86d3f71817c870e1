"""Dask's workers: those of a scheduler that runs somewhere, or processes started here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from keras_unet.console import status
from keras_unet.system import require

_log = logging.getLogger(__name__)

SECONDS = 60
"""Seconds that a scheduler, and after it the first of its workers, may take to answer."""

_LOOPBACK = "127.0.0.1"


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
        preload=["keras_unet.prediction.worker"],
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
