"""Processes killed at a given moment, forked from one that has imported TensorFlow."""

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
PAUSE = 5e-4  # seconds between two checks of a folder


@dataclass(frozen=True)
class Moment:
    """Moment at which to kill a process: as soon as all conditions hold; by default never.

    Attributes:
        seconds: Seconds since the first checkpoint was written.
        early: Whether seconds are counted from the start of the process instead.
        writing: Whether to wait until a file is half written.
        path: File that must be in the folder, or None.
    """

    seconds: float = inf
    early: bool = False
    writing: bool = False
    path: str | None = None

    def has_come(self, folder: Path, trial: Trial, before: set[Path]) -> bool:
        """Returns whether all conditions hold; temporary files from before do not count."""
        seconds = trial.seconds if self.early else trial.since_checkpoint
        if seconds < self.seconds or (self.path and not (folder / self.path).exists()):
            return False
        return not self.writing or any(path not in before for path in leftovers(folder))

    @property
    def kind(self) -> str:
        """Name of the kind of moment."""
        if self.path:
            return "around a fold"
        if self.early:
            return "since the start"
        return "while a file is written" if self.writing else "since a checkpoint"


@dataclass(frozen=True)
class Trial:
    """State of a process.

    Attributes:
        seconds: Seconds since its start.
        since_checkpoint: Seconds since its first checkpoint; negative before.
        killed: Whether it was killed.
    """

    seconds: float = 0.0
    since_checkpoint: float = -1.0
    killed: bool = False


def run(job: Job, folder: Path, moment: Moment = Moment()) -> Trial:
    """Runs a job in its own process, and kills it at a given moment.

    Args:
        job: A function at module level, so that it can be pickled.
        folder: Folder that the job writes to.
        moment: When to kill it.

    Raises:
        RuntimeError: If the job fails by itself.
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
    """Returns the checkpoints of a folder with their modification times."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob(CHECKPOINT)}


def _quietly(job: Job, folder: Path) -> None:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    job(folder)
