"""Outcome of a training: the weights and instance options that a run keeps, and their score.

Kept are the weights with the best score on the validation images; the last ones, if the training
ended on all images and they are not worse; or the initial ones, if nothing is better.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_unet.data.groups import HeldOut
from keras_unet.files import atomic, make_folder
from keras_unet.prediction.networks import load_network
from keras_unet.report.page import write_page
from keras_unet.report.pictures import write_png
from keras_unet.runs import BEST, REPORT, Run
from keras_unet.training.checkpoint import LAST, VALIDATED
from keras_unet.training.initial import INITIAL, initial_instances
from keras_unet.training.provenance import now
from keras_unet.training.report import page_of_run
from keras_unet.training.schedule import Progress, Schedule
from keras_unet.training.targets import WeightMaps
from keras_unet.training.validation import Validator

_log = logging.getLogger(__name__)

_MAX_PICTURES = 8


def finish(
    validator: Validator,
    last: Any,
    schedule: Schedule,
    progress: Progress,
    held_out: HeldOut,
    weights: WeightMaps,
) -> Run:
    """Selects weights and instance options, and writes picture, report and outcome of a run."""
    run = validator.run
    outcome = outcome_of(schedule, progress, validator.score_name, held_out)
    model = load_network(run)
    validator = _with_selected_instances(validator, model)
    predictions = validator.predictions(model)
    score, start_score = validator.score(predictions), _start_score(run)
    used = "initial" if progress.is_start_best else "best"
    if start_score is not None and (score is None or score < start_score):
        validator = _use_initial_weights(validator)
        predictions = validator.predictions(load_network(run))
        score, used = start_score, "initial"
    is_final = validator.held_out and schedule.is_final(progress) and outcome["complete"]
    if is_final and used == "best" and _use_last_weights(validator, last, score):
        used = "last"
    outcome |= {"score": score, "start_score": start_score, "weights": used}
    finished = replace(validator.run, record={**run.record, "outcome": outcome})
    validator = replace(validator, run=finished)
    picture = validator.pictures(predictions[:_MAX_PICTURES], weights)
    write_png(make_folder(run.folder / "pictures") / "montage.png", picture)
    write_page(run.folder / REPORT, page_of_run(validator, predictions, weights))
    finished.save()  # last, because a complete run cannot be resumed
    return finished


def _with_selected_instances(validator: Validator, model: Any) -> Validator:
    run, selection = validator.run, validator.select_options(model)
    _log.info(selection.describe() if selection else run.instances.describe())
    selected = replace(run, instances=selection.options if selection else run.instances)
    return replace(validator, run=selected)


def _start_score(run: Run) -> float | None:
    initial = run.record.get("initial") or {}
    score: float | None = initial.get("score")
    return score


def score_start(validator: Validator, model: Any) -> Run:
    """Writes the initial weights, and returns the run with their score.

    The score is that of the initial model as it is: with its instance options, if it has any.
    """
    run = validator.run
    with atomic(run.folder / INITIAL) as temporary:
        model.save(temporary)
    start = replace(validator, run=_with_initial_instances(run))
    score = start.score(start.predictions(model))
    return replace(run, record={**run.record, "initial": run.record["initial"] | {"score": score}})


def _with_initial_instances(run: Run) -> Run:
    return replace(run, instances=initial_instances(run) or run.instances)


def _use_initial_weights(validator: Validator) -> Validator:
    """Makes the initial weights those of the run, and returns a validator of them."""
    run, folder = validator.run, validator.run.folder
    _copy(folder / BEST, folder / VALIDATED)
    _copy(folder / INITIAL, folder / BEST)
    return replace(validator, run=_with_initial_instances(run))


def restore_best(folder: Path) -> None:
    """Restores the best validated weights, if others were used when the training ended."""
    validated = folder / VALIDATED
    if validated.exists():
        _copy(validated, folder / BEST)
        validated.unlink()


def _use_last_weights(validator: Validator, last: Any, score: float | None) -> bool:
    """Makes the last weights, trained on all images, those of the run, unless they are worse.

    Returns:
        Whether they are those of the run.
    """
    folder, name = validator.run.folder, validator.score_name
    last_score = validator.score(validator.predictions(last))
    if score is not None and (last_score is None or last_score < score):
        _log.warning(
            "the last weights are not used: although they were trained on all images, their "
            f"{name} on those held out is {last_score or 0:.4f}, and was {score:.4f} before"
        )
        return False
    _copy(folder / BEST, folder / VALIDATED)
    _copy(folder / LAST, folder / BEST)
    _log.info(
        f"the last weights, trained on all images, are used; {VALIDATED} holds those that were "
        "validated before"
    )
    return True


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def outcome_of(
    schedule: Schedule, progress: Progress, score_name: str, held_out: HeldOut
) -> dict[str, Any]:
    """Returns length, best score and validation images of a training, as values for JSON."""
    return {
        "complete": schedule.is_over(progress),
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "skipped_updates": progress.skipped,
        "score_name": score_name,
        "best_score": progress.best_score,
        "validation": held_out.to_dict(),
        "finished": now(),
    }
