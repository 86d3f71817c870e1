"""Cross-validation: as many networks as folds, each trained without its part of the images.

Every image is held out once, so that what is chosen by the images held out is chosen by all; and
the networks predict together better than one of them alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.files import PathLike, check_new, locked, make_folder, remove_leftovers
from keras_unet.instances.selection import Selection, default_options, select_options, spread
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import RECORD, Ensemble, Run, is_ensemble
from keras_unet.training.autoconfig import autoconfigure
from keras_unet.training.dataset import Images, Labels, TrainingData
from keras_unet.training.initial import Initial
from keras_unet.training.options import SEEDS, ResolvedOptions, TrainingOptions
from keras_unet.training.report import report_run
from keras_unet.training.resume import (
    check_same_data,
    is_complete,
    is_resumable,
    load_template,
    options_of,
    warn_of_differences,
)
from keras_unet.training.train import options_of_call, train_folder
from keras_unet.training.validation import Validator

_log = logging.getLogger(__name__)


def cross_validate(
    images: Images,
    labels: Labels = None,
    *,
    folds: int = 5,
    run: PathLike | None = None,
    options: TrainingOptions | None = None,
    initial: Segmenter | PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **choices: Any,
) -> Segmenter:
    """Trains a network for each fold of a cross-validation, which predict together.

    Every image is held out once, from one network, and the options for instances are chosen on all.

    Args:
        images: As `keras_unet.train`, but no data set.
        labels: As `keras_unet.train`.
        folds: Number of folds, from 2 to the number of images.
        run: Folder of the ensemble to write, a new one; None keeps nothing on disk.
        options: As `keras_unet.train`; `validation` has no effect. `max_minutes` is the time of all
            folds together, `steps` and `epochs` are the length of each.
        initial: As `keras_unet.train`, of each fold.
        callbacks: As `keras_unet.train`, of each fold in turn.
        choices: Fields of `TrainingOptions`, by name, in place of `options`.

    Returns:
        The segmenter of all networks, whose probabilities are averaged.

    Raises:
        ValueError: As `keras_unet.train`, or if the number of folds does not suit the images.
        TypeError: If a selection is unknown.
        OSError: As `keras_unet.train`.
        FileNotFoundError: If the training was interrupted.
    """
    asked = options_of_call(options, choices)
    with ExitStack() as exits:
        folder = Path(run or Path(exits.enter_context(TemporaryDirectory())) / "model")
        data = TrainingData.of(images, labels, asked)
        train_folds(data, folder, asked, folds, initial=initial, callbacks=callbacks)
        segmenter = load(folder)
        return segmenter if run is not None else segmenter.in_memory()


def train_folds(
    data: Images | TrainingData,
    folder: Path,
    options: TrainingOptions,
    folds: int,
    *,
    initial: Segmenter | PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[Run]:
    """Trains a network a fold, one after the other.

    What is left to the data is resolved once, from all images, so that the folds have one recipe.
    Each has a seed of its own, the options' seed plus the number of the fold.

    Args:
        data: As `train_folder`.
        folder: Folder to write; a new one.
        options: As `cross_validate`.
        folds: Number of folds, from 2 to the number of images.
        initial: As `train_folder`, of each fold.
        callbacks: Keras callbacks, see `keras_unet.train`, of each fold in turn.

    Returns:
        The runs. After an interruption the last one is incomplete and those after it are missing.

    Raises:
        ValueError: As `train_folder`, and if the number of folds does not suit the images.
        OSError: As `train_folder`.
    """
    _check_unused(folder)
    start = None if initial is None else Initial.of(initial)
    options = options if start is None else start.options(options)
    data = data if isinstance(data, TrainingData) else TrainingData.of(data, None, options)
    samples = data.samples.samples
    names, stacks = ([getattr(one, field) for one in samples] for field in ("name", "stack"))
    held_out = draw_folds(names, folds, options.seed, stacks)
    resolved = autoconfigure(options, Fingerprint.of(samples))
    if resolved.max_minutes is not None:
        resolved = replace(resolved, max_minutes=resolved.max_minutes / folds)
    recorded = None if start is None else start.to_dict()
    ensemble = Ensemble(folder, held_out, resolved.to_dict(), initial=recorded)
    return _begin(data, ensemble, start, callbacks)


def repeat_folds(
    data: Images,
    folder: Path,
    repeat: Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[Run]:
    """Trains an ensemble as another was trained.

    Args:
        data: Folder that the other was trained on.
        folder: Folder to write; a new one.
        repeat: The other ensemble's folder.
        callbacks: Keras callbacks, see `keras_unet.train`, of each fold in turn.

    Returns:
        As `train_folds`.

    Raises:
        ValueError: If the other was not trained to its end, or by the clock, or the data are not
            the same.
        OSError: As `train_folds`, or if `repeat` is no ensemble.
    """
    _check_unused(folder)
    other = Ensemble.load(repeat)
    patterns = [load_template(fold) for fold in other.folds]
    options = ResolvedOptions.from_dict(other.options)
    if options.max_minutes is not None:
        raise ValueError(
            f"{repeat}: expected an ensemble whose length was given in steps or epochs, to be "
            f"repeated. Received one of minutes; repeat its folds, --repeat {other.folds[0]}"
        )
    read = TrainingData.of(data, None, options)
    check_same_data(patterns[0], read.digests, read.source)
    warn_of_differences(patterns[0])
    options = replace(options, precision=patterns[0].precision)
    ensemble = Ensemble(folder, other.held_out, options.to_dict(), initial=other.initial)
    return _begin(read, ensemble, _recorded(ensemble), callbacks)


def resume_folds(
    data: Images,
    folder: Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[Run]:
    """Trains the folds of an ensemble that are missing or were interrupted.

    Args:
        data: Folder that the ensemble was started with.
        folder: The ensemble's folder.
        callbacks: Keras callbacks, see `keras_unet.train`, of each fold in turn.

    Returns:
        As `train_folds`.

    Raises:
        ValueError: As `train_folder` with `resume`, or if the ensemble's record cannot be read.
        OSError: As `train_folder` with `resume`.
    """
    with locked(folder):
        remove_leftovers(folder)
        ensemble = Ensemble.load(folder)
        read = TrainingData.of(data, None, ResolvedOptions.from_dict(ensemble.options))
        if (ensemble.folds[0] / RECORD).is_file():
            check_same_data(Run.load(ensemble.folds[0]), read.digests, read.source)
        return _train_missing(read, ensemble, _recorded(ensemble), callbacks)


def _recorded(ensemble: Ensemble) -> Initial | None:
    """Loads the model that the folds of an ensemble start from."""
    return Initial.of_record(ensemble.initial) if ensemble.initial else None


def _begin(
    data: TrainingData,
    ensemble: Ensemble,
    initial: Initial | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[Run]:
    with locked(make_folder(ensemble.folder)):
        _check_unused(ensemble.folder)  # again: another training may have been quicker
        ensemble.save()
        return _train_missing(data, ensemble, initial, callbacks)


def _train_missing(
    data: TrainingData,
    ensemble: Ensemble,
    initial: Initial | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[Run]:
    options = ResolvedOptions.from_dict(ensemble.options)
    runs = []
    for number, (fold, names) in enumerate(zip(ensemble.folds, ensemble.held_out, strict=True), 1):
        _log.info(f"fold {number} of {len(ensemble.folds)}")
        run = train_folder(
            data,
            fold,
            replace(options, validation=names, seed=(options.seed + number) % SEEDS),
            resume=is_resumable(fold),
            initial=initial,
            callbacks=callbacks,
        )
        runs.append(run)
        if not is_complete(run):
            return runs
    selection = _select_options(runs, data)
    _log.info(selection.describe() if selection else runs[0].instances.describe())
    replace(ensemble, instances=selection.options if selection else runs[0].instances).save()
    _log.info(f"report: {report_run(ensemble.folder, data=data)}")
    return runs


def _select_options(runs: Sequence[Run], data: TrainingData) -> Selection | None:
    """Chooses the rule by images of all folds, each as the network sees it that has not before."""
    samples = data.samples.samples
    run_of = {name: run for run in runs for name in run.record["data"]["validation"]}
    chosen = spread(samples, [sample.classes.size for sample in samples])
    probabilities: list[NDArray[np.float32]] = []
    references: list[NDArray[np.int32]] = []
    for run in runs:
        unseen = [sample for sample in chosen if run_of[sample.name] is run]
        validator = Validator(run, data.targets(unseen), tile=options_of(run).validation_tile)
        seen, true = validator.cells(load_network(run))
        probabilities += seen
        references += true
    start = default_options(runs[0].encoding.kind, [sample.instances for sample in samples])
    return select_options(start, probabilities, references)


def _check_unused(folder: Path) -> None:
    if is_ensemble(folder):
        raise FileExistsError(
            f"{folder}: expected a new folder for the ensemble. Received one that holds an "
            "ensemble; choose another, or go on with it by --resume"
        )
    check_new(folder, "the ensemble")


def draw_folds(
    names: Sequence[str], folds: int, seed: int, stacks: Sequence[str | None] = ()
) -> tuple[tuple[str, ...], ...]:
    """Parts images into folds of equal size, give or take one; stacks of planes are kept together.

    Planes of a stack are neighbours that run_images alike. Where there are at least as many stacks and
    single images as folds, none is in two folds; else the images are cut in their order.

    Args:
        names: Names of the images.
        folds: Number of folds.
        seed: Seed of the draw.
        stacks: Name of the stack that each is a plane of, or None; empty if all are single images.

    Returns:
        The names of each fold, in their own order; every name is in one fold.

    Raises:
        ValueError: If there are fewer than two folds, or fewer images than folds.

    Example:
        >>> [len(fold) for fold in draw_folds(["a", "b", "c", "d", "e"], folds=2, seed=0)]
        [3, 2]
    """
    if not 2 <= folds <= len(names):
        raise ValueError(
            "folds must be at least 2, and at most the number of images. "
            f"Received: folds={folds} for {len(names)}"
        )
    groups: dict[object, list[int]] = {}
    for place, stack in enumerate(stacks or [None] * len(names)):
        groups.setdefault(place if stack is None else stack, []).append(place)
    if len(groups) < folds:
        parts = np.array_split(np.arange(len(names)), folds)
        return tuple(tuple(names[i] for i in part) for part in parts)
    drawn: list[list[int]] = [[] for _ in range(folds)]
    every = list(groups.values())
    order = np.random.default_rng(seed).permutation(len(groups))
    for number in sorted(order, key=lambda one: -len(every[one])):  # the largest first; stable
        min(drawn, key=len).extend(every[number])
    return tuple(tuple(names[i] for i in sorted(part)) for part in drawn)
