"""Whether a run may be begun in a folder, or gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_unet.files import check_new, check_writable, visible
from keras_unet.runs import BEST, RECORD, Run
from keras_unet.training.checkpoint import CHECKPOINT, LAST
from keras_unet.training.options import SettledOptions


def check_unused(folder: Path) -> None:
    """Makes sure that a folder is free for a new run.

    It is where it is missing or empty, or holds a run that ended before it had trained anything.

    Raises:
        OSError: The folder holds a run or other files, or cannot be written to.
    """
    names = visible(folder)
    if RECORD not in names or not _is_run(folder):
        check_new(folder, "the run")
    elif {BEST, LAST, CHECKPOINT}.intersection(names):
        raise FileExistsError(
            f"{folder}: expected a new folder for the run. Received one that holds a run; choose "
            "another, or go on with it by --resume"
        )
    else:
        check_writable(folder)


def _is_run(folder: Path) -> bool:
    try:
        return bool(Run.load(folder))
    except ValueError:  # another program's file of this name
        return False


def is_resumable(folder: Path) -> bool:
    """Tells whether a folder holds a run that has come far enough to be gone on with."""
    return (folder / RECORD).is_file() and (folder / CHECKPOINT).is_file()


def load_interrupted(folder: Path) -> Run:
    """Loads a run that is to be gone on with; it may be complete.

    Raises:
        ValueError: The record cannot be read.
        OSError: The folder is no run, has nothing to resume from, or cannot be written to.
    """
    run = Run.load(folder)
    check_writable(folder)
    if not (folder / CHECKPOINT).is_file():
        raise FileNotFoundError(
            f"{folder}: expected a run with {CHECKPOINT} to resume from. Received one that has not "
            "come to its first validation; start it anew, without resume"
        )
    return run


def is_complete(run: Run) -> bool:
    """Tells whether a run has been trained to its end, rather than interrupted."""
    return bool(run.record.get("outcome", {}).get("complete"))


def options_of(run: Run) -> SettledOptions:
    """Reads the options that a run was started with.

    Raises:
        ValueError: The record lacks some of them.
    """
    try:
        return SettledOptions.from_dict(run.record["options"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run.folder / RECORD}: expected the options that the run was started with. Received "
            f"a record that lacks some of them ({error}); start a new run"
        ) from error


def check_same_data(run: Run, digests: Mapping[str, str], data: Path) -> None:
    """Refuses to go on with other images or labels than a run was started with.

    Args:
        run: The run.
        digests: Digest of each sample there is now, by name.
        data: Folder of the samples, for the message.

    Raises:
        ValueError: A sample is missing, new or changed.
    """
    before = run.record.get("data", {}).get("digests", {})
    changes = {
        "missing": before.keys() - digests.keys(),
        "new": digests.keys() - before.keys(),
        "changed": {name for name in before if digests.get(name, before[name]) != before[name]},
    }
    if any(changes.values()):
        listed = "; ".join(
            f"{word}: {', '.join(sorted(names))}" for word, names in changes.items() if names
        )
        raise ValueError(
            f"{data}: expected the images and labels that {run.folder} was started with. "
            f"Received others ({listed}); put them back, or start a new run"
        )
