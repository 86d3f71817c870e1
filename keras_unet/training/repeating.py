"""A run that another is to be like: its options, its length, and what is different by now."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from keras_unet.runs import Run
from keras_unet.training.options import SettledOptions
from keras_unet.training.provenance import differences, provenance
from keras_unet.training.resume import is_complete, options_of

_log = logging.getLogger(__name__)


def load_pattern(folder: Path) -> Run:
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


def repeated_options(run: Run) -> SettledOptions:
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
