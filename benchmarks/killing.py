"""Processes that are killed at a chosen moment, forked from one that has imported TensorFlow."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from keras_unet.files import leftovers
from keras_unet.training.checkpoint import CHECKPOINT

Job = Callable[[Path], None]
PAUSE = 5e-4  # seconds between two looks at a folder


@dataclass(frozen=True)
class Moment:
    """When to kill a process: never, or as soon as all of these hold.

    Attributes:
        seconds: So many have passed since it has written its first checkpoint.
        early: They are counted from its start.
        writing: A file is half written.
        path: This is in its folder.
    """

    seconds: float = inf
    early: bool = False
    writing: bool = False
    path: str | None = None

    def has_come(self, folder: Path, trial: Trial, before: set[Path]) -> bool:
        """Tells whether they hold; temporary files from before do not count."""
        seconds = trial.seconds if self.early else trial.since_checkpoint
        if seconds < self.seconds or (self.path and not (folder / self.path).exists()):
            return False
        return not self.writing or any(path not in before for path in leftovers(folder))

    @property
    def kind(self) -> str:
        """By what it is chosen, in words."""
        if self.path:
            return "around a fold"
        if self.early:
            return "since the start"
        return "while a file is written" if self.writing else "since a checkpoint"


@dataclass(frozen=True)
class Trial:
    """A process.

    Attributes:
        seconds: Since its start.
        since_checkpoint: Seconds since it has written a checkpoint for the first time; negative
            before.
        killed: Whether it was killed.
    """

    seconds: float = 0.0
    since_checkpoint: float = -1.0
    killed: bool = False


def run(job: Job, folder: Path, moment: Moment = Moment()) -> Trial:
    """Has a job done on a folder in a process of its own, and kills it when the moment comes.

    Args:
        job: A function of a module, so that the process finds it.
        folder: What it is given and writes to.
        moment: When to kill it.

    Raises:
        RuntimeError: The job has failed by itself.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_unet.training.folds"])
    process = context.Process(target=_quietly, args=(job, folder))
    before, checkpoints = set(leftovers(folder)), _checkpoints(folder)
    process.start()
    started, written, trial = time.monotonic(), inf, Trial()
    while process.is_alive():
        if written == inf and _checkpoints(folder) != checkpoints:
            written = time.monotonic()
        trial = Trial(time.monotonic() - started, max(time.monotonic() - written, -1.0))
        if moment.has_come(folder, trial, before):
            process.kill()
            break
        time.sleep(PAUSE)
    process.join()
    if process.exitcode is None or process.exitcode > 0:
        raise RuntimeError(f"{folder}: expected a job that ends or is killed. It has failed")
    return replace(trial, killed=process.exitcode < 0)


def _checkpoints(folder: Path) -> dict[Path, int]:
    """Returns the checkpoints of a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob(CHECKPOINT)}


def _quietly(job: Job, folder: Path) -> None:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    job(folder)
