"""Runs that are begun, resumed, or repeated with the options of another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from keras_unet.data.augmentation import Augmentation
from keras_unet.files import check_new, check_writable, visible
from keras_unet.runs import BEST, RECORD, Run
from keras_unet.training.checkpoint import CHECKPOINT, LAST
from keras_unet.training.dataset import Variation
from keras_unet.training.options import ResolvedOptions
from keras_unet.training.provenance import differences, provenance


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


def options_of(run: Run) -> ResolvedOptions:
    """Reads the options that a run was started with.

    Raises:
        ValueError: The record lacks some of them.
    """
    try:
        return ResolvedOptions.from_dict(run.record["options"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run.folder / RECORD}: expected the options that the run was started with. Received "
            f"a record that lacks some of them ({error}); start a new run"
        ) from error


def check_same_data(run: Run, digests: Mapping[str, str], data: str) -> None:
    """Refuses to go on with other images or labels than a run was started with.

    Args:
        run: The run.
        digests: Digest of each sample there is now, by name.
        data: Folder of the samples, or what they are, for the message.

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


_log = logging.getLogger(__name__)


def load_template(folder: Path) -> Run:
    """Loads a run to repeat.

    Raises:
        OSError: The folder is no run.
        ValueError: The record cannot be read, or training has not come to its end.
    """
    run = Run.load(folder)
    if not is_complete(run):
        raise ValueError(
            f"{folder}: expected a run that was trained to its end, to be repeated. Received one "
            "that was interrupted; go on with it by --resume"
        )
    return run


def repeated_options(run: Run) -> ResolvedOptions:
    """Returns the options by which a training goes as a run has gone.

    Nothing in them is left to the data, the clock or the machine.

    Args:
        run: The run.

    Raises:
        ValueError: The run's record lacks some of them.
    """
    options = options_of(run)
    if options.max_minutes is not None:
        steps = run.record["outcome"]["steps"]
        _log.warning(
            f"{run.folder} had a limit of minutes; its {steps} steps are taken without, "
            "so the learning rate may go another way, and weights differ"
        )
        options = replace(options, steps=steps, epochs=None, max_minutes=None)
    held_out = tuple(run.record["data"]["validation"])
    return replace(options, precision=run.precision, validation=held_out)


def warn_of_differences(run: Run) -> None:
    """Says in one line what is not as it was when a run was trained, if anything."""
    found = differences(run.record, provenance())
    if found:
        _log.warning(
            f"{run.folder} was trained with {'; '.join(found)}: numbers may differ from its own"
        )


def check_same_augmentation(run: Run, augmentation: Variation) -> None:
    """Refuses to go on with a run, or to repeat it, with tiles that are varied otherwise.

    Raises:
        ValueError: They are.
    """
    recorded, given = run.record.get("augmentation", "options"), name_of(augmentation)
    if recorded != given:
        raise ValueError(
            f"augmentation must be that which {run.folder} was started with, {recorded}. "
            f"Received: {given}"
        )


def name_of(augmentation: Variation) -> str:
    """Describes how tiles are varied, for the record."""
    if augmentation is None or isinstance(augmentation, str | Augmentation):
        return str(augmentation)
    return f"function {getattr(augmentation, '__name__', type(augmentation).__name__)}"
