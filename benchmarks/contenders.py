"""Contenders: each works in a process of its own, so that no two frameworks share one.

Processes stay, and are told to do one piece of work at a time. What they compute is asked for
before anything is timed.
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
    """One way of doing a work.

    Attributes:
        name: What it is called.
        factory: `module.function` in `benchmarks.peers`, which makes the work of the options.
        options: The factory's arguments.
        calls: How many of what is counted (steps, pixels) one call is.
    """

    name: str
    factory: str
    options: dict[str, Any] = field(default_factory=dict)
    calls: float = 1


@contextmanager
def ready(contender: Contender) -> Iterator[Worker]:
    """Starts a contender's process and has it make its work.

    Raises:
        RuntimeError: If it cannot, or fails later on.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent) as pool:
        pool.submit(_prepare, contender.factory, contender.options).result()
        yield Worker(pool)


@dataclass(frozen=True)
class Worker:
    """A process that has made its work and waits to be told to do it."""

    pool: ProcessPoolExecutor

    def run(self) -> None:
        """Has the work done; only that it is done comes back."""
        self.pool.submit(_work).result()

    def answer(self) -> Answer:
        """Has the work done; what it computed comes back."""
        answer: Answer = self.pool.submit(_answer).result()
        return answer

    def most_memory(self) -> float:
        """Returns the most memory that was resident at a time, in megabytes."""
        return self.pool.submit(_most_memory).result()


_prepared: list[Work] = []
"""The work of this process, where it is a worker's."""


def _end_with_parent() -> None:
    """Ends this process where the one that began it has been killed."""

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
    """Makes of whatever a framework raises what every process can read."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - frameworks have errors of their own
        line = " ".join(str(error).split())[:300]
        raise RuntimeError(f"{type(error).__name__}: {line}") from None
