"""Checks and recorded options for new, resumed and repeated runs."""

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
from keras_unet.training.initial import starts_trained
from keras_unet.training.options import ResolvedOptions
from keras_unet.training.provenance import differences, provenance
from keras_unet.training.schedule import Schedule

_log = logging.getLogger(__name__)


def check_unused(folder: Path) -> None:
    """Checks that a folder can take a new run.

    It must be missing or empty, or hold a run that ended before its first validation.

    Raises:
        OSError: If the folder holds a run or other files, or cannot be written to.
    """
    names = visible(folder)
    if RECORD not in names or not _is_run(folder):
        check_new(folder, "the run")
    elif {BEST, LAST, CHECKPOINT}.intersection(names):
        raise FileExistsError(
            f"{folder}: expected a new folder for the run. Received one that holds a run; choose "
            "another, or resume it with --resume"
        )
    else:
        check_writable(folder)


def _is_run(folder: Path) -> bool:
    try:
        return bool(Run.load(folder))
    except ValueError:  # another program's file of the same name
        return False


def is_resumable(folder: Path) -> bool:
    """Returns whether a folder holds a run with a checkpoint."""
    return (folder / RECORD).is_file() and (folder / CHECKPOINT).is_file()


def load_interrupted(folder: Path) -> Run:
    """Loads a run to resume, which may be complete.

    Raises:
        ValueError: If the record cannot be read.
        OSError: If the folder is not a run, has no checkpoint, or cannot be written to.
    """
    run = Run.load(folder)
    check_writable(folder)
    if not (folder / CHECKPOINT).is_file():
        raise FileNotFoundError(
            f"{folder}: expected a run with {CHECKPOINT} to resume from. Received one that was "
            "interrupted before its first validation; start it anew, without resume"
        )
    return run


def is_complete(run: Run) -> bool:
    """Returns whether the training of a run is complete."""
    return bool(run.record.get("outcome", {}).get("complete"))


def options_of(run: Run) -> ResolvedOptions:
    """Returns the options that a run was started with.

    Raises:
        ValueError: If the record lacks some of them.
    """
    try:
        return ResolvedOptions.from_dict(run.record["options"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run.folder / RECORD}: expected the options that the run was started with. Received "
            f"a record that lacks some of them ({error}); start a new run"
        ) from error


def schedule_of(run: Run, pixels: int) -> Schedule:
    """Returns the schedule of a run.

    Args:
        run: The run.
        pixels: Number of pixels of all training images.
    """
    options, network = options_of(run), run.architecture
    schedule = options.schedule(pixels / network.output_size(options.tile) ** 2)
    return replace(schedule, validates_start=starts_trained(run))


def check_same_data(run: Run, digests: Mapping[str, str], data: str) -> None:
    """Checks that images and labels are those that a run was started with.

    Args:
        run: The run.
        digests: Current digest of each sample, by name.
        data: Source of the samples, for the message.

    Raises:
        ValueError: If a sample is missing, new or changed.
    """
    recorded = run.record.get("data", {}).get("digests", {})
    changes = {
        "missing": recorded.keys() - digests.keys(),
        "new": digests.keys() - recorded.keys(),
        "changed": {name for name, value in recorded.items() if digests.get(name, value) != value},
    }
    if any(changes.values()):
        listed = "; ".join(
            f"{word}: {', '.join(sorted(names))}" for word, names in changes.items() if names
        )
        raise ValueError(
            f"{data}: expected the images and labels that {run.folder} was started with. "
            f"Received others ({listed}); put them back, or start a new run"
        )


def load_template(folder: Path) -> Run:
    """Loads a run to repeat.

    Raises:
        OSError: If the folder is not a run.
        ValueError: If the record cannot be read, or the training is not complete.
    """
    run = Run.load(folder)
    if not is_complete(run):
        raise ValueError(
            f"{folder}: expected a run that was trained to its end, to repeat it. Received one "
            "that was interrupted; resume it with --resume"
        )
    return run


def repeated_options(run: Run) -> ResolvedOptions:
    """Returns options that repeat a run: its number of steps, precision and images held out.

    Raises:
        ValueError: If the run's record lacks some of them.
    """
    options = options_of(run)
    if options.max_minutes is not None:
        steps = run.record["outcome"]["steps"]
        _log.warning(
            f"{run.folder} was limited in minutes; its {steps} steps are repeated without a time "
            "limit, so the learning rate and the weights may differ"
        )
        options = replace(options, steps=steps, epochs=None, max_minutes=None)
    held_out = tuple(run.record["data"]["validation"])
    return replace(options, precision=run.precision, validation=held_out)


def warn_of_differences(run: Run) -> None:
    """Logs the differences in software and hardware since a run was trained, if any."""
    changes = differences(run.record, provenance())
    if changes:
        _log.warning(f"{run.folder} was trained with {'; '.join(changes)}: results may differ")


def check_same_augmentation(run: Run, augmentation: Variation) -> None:
    """Checks that a resumed or repeated run keeps its augmentation.

    Raises:
        ValueError: If the augmentation differs.
    """
    recorded, given = run.record.get("augmentation", "options"), describe_augmentation(augmentation)
    if recorded != given:
        raise ValueError(
            f"augmentation must be the one that {run.folder} was started with, {recorded}. "
            f"Received: {given}"
        )


def describe_augmentation(augmentation: Variation) -> str:
    """Returns a description of the augmentation, for the record of a run."""
    if augmentation is None or isinstance(augmentation, str | Augmentation):
        return str(augmentation)
    return f"function {getattr(augmentation, '__name__', type(augmentation).__name__)}"
