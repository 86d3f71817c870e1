"""Contenders, each in its own process, so that no two frameworks share one.

A process is kept and runs one task at a time. Its results are compared before the timing.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import quiet_stderr

Answer = list[NDArray[Any]]
Work = Callable[[], Answer]


@dataclass(frozen=True)
class Contender:
    """One implementation of a task.

    Attributes:
        name: Name in the table.
        factory: `module.function` in `benchmarks.peers`, which returns the task for the options.
        options: Arguments of the factory.
        calls: Number of units (steps, pixels) in one call.
    """

    name: str
    factory: str
    options: dict[str, Any] = field(default_factory=dict)
    calls: float = 1


@contextmanager
def ready(contender: Contender) -> Iterator[Worker]:
    """Starts the process of a contender and prepares its task.

    Raises:
        RuntimeError: If the task cannot be prepared, or fails.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent) as pool:
        pool.submit(_prepare, contender.factory, contender.options).result()
        yield Worker(pool)


@dataclass(frozen=True)
class Worker:
    """A process with a prepared task."""

    pool: ProcessPoolExecutor

    def run(self) -> None:
        """Runs the task, without returning its results."""
        self.pool.submit(_work).result()

    def answer(self) -> Answer:
        """Runs the task, and returns its results."""
        answer: Answer = self.pool.submit(_answer).result()
        return answer

    def most_memory(self) -> float:
        """Returns the peak resident memory in megabytes."""
        return self.pool.submit(_most_memory).result()


_prepared: list[Work] = []
"""Task of this process, in a worker."""


def _end_with_parent() -> None:
    """Ends this process if its parent has been killed."""

    def wait() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def _prepare(factory: str, options: dict[str, Any]) -> None:
    module, function = factory.split(".")
    with quiet_stderr(), _one_line_errors():
        _prepared.append(getattr(import_module(f"benchmarks.peers.{module}"), function)(**options))


def _work() -> None:
    with _one_line_errors():
        _prepared[0]()


def _answer() -> Answer:
    with _one_line_errors():
        return [np.asarray(part) for part in _prepared[0]()]


def _most_memory() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Converts any error of a framework to a RuntimeError, which every process can unpickle."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - frameworks have errors of their own
        line = " ".join(str(error).split())[:300]
        raise RuntimeError(f"{type(error).__name__}: {line}") from None
