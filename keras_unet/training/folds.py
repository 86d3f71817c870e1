"""Cross-validation: one network per fold, trained on the images of the other folds.

Every image is held out once, so the instance options are selected on all images. The networks form
an ensemble, which predicts better than one of them alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.groups import Group, members_of
from keras_unet.files import PathLike, check_new, locked, make_folder, remove_leftovers
from keras_unet.instances.label import InstanceOptions
from keras_unet.instances.selection import (
    Cells,
    Selection,
    select_predicted,
    subsample,
)
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import RECORD, Ensemble, Run, is_ensemble
from keras_unet.training.autoconfig import autoconfigure
from keras_unet.training.dataset import Images, Labels, TrainingData
from keras_unet.training.initial import Initial, default_instances
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
from keras_unet.training.train import options_from_call, train_folder
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
    """Trains an ensemble by cross-validation, one network per fold.

    Every image is held out from one network, so the instance options are selected on all images.

    Args:
        images: As `keras_unet.train`, except for a `tf.data.Dataset`.
        labels: As `keras_unet.train`.
        folds: Number of folds, from 2 to the number of images.
        run: Folder of the ensemble to write, a new one; None keeps nothing on disk.
        options: As `keras_unet.train`; `validation` has no effect. `max_minutes` is the time of all
            folds together, `steps` and `epochs` are the length of each.
        initial: As `keras_unet.train`, for each fold.
        callbacks: As `keras_unet.train`, for each fold in turn.
        choices: Fields of `TrainingOptions`, by name, in place of `options`.

    Returns:
        The segmenter, which averages the probabilities of all networks.

    Raises:
        ValueError: As `keras_unet.train`, or if the number of folds is out of range.
        TypeError: If an option is unknown.
        OSError: As `keras_unet.train`.
        FileNotFoundError: If the training was interrupted.
    """
    requested = options_from_call(options, choices)
    start = None if initial is None else Initial.of(initial)
    requested = start.options(requested, choices) if start else requested
    with ExitStack() as exits:
        folder = Path(run or Path(exits.enter_context(TemporaryDirectory())) / "model")
        data = TrainingData.of(images, labels, requested)
        train_folds(data, folder, requested, folds, initial=start, callbacks=callbacks)
        segmenter = load(folder)
        return segmenter if run is not None else segmenter.in_memory()


def train_folds(
    data: Images | TrainingData,
    folder: Path,
    options: TrainingOptions,
    folds: int,
    *,
    initial: Initial | Segmenter | PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[Run]:
    """Trains one network per fold, in turn.

    Options that are None are set once, from all images, so that the folds share them. The seed of
    a fold is the options' seed plus the number of the fold.

    Args:
        data: As `train_folder`.
        folder: Folder of the ensemble to write; a new one.
        options: As `cross_validate`.
        folds: Number of folds, from 2 to the number of images.
        initial: As `train_folder`, for each fold.
        callbacks: Keras callbacks, see `keras_unet.train`, for each fold in turn.

    Returns:
        The runs. After an interruption the last one is incomplete and those after it are missing.

    Raises:
        ValueError: As `train_folder`, or if the number of folds is out of range.
        OSError: As `train_folder`.
    """
    _check_unused(folder)
    if options.final_share:
        raise ValueError(
            "final_share must be 0 for cross-validation, in which each image is predicted by the "
            f"network that has not seen it. Received: {options.final_share}"
        )
    initial_model = None if initial is None else Initial.of(initial)
    options = options if initial_model is None else initial_model.options(options)
    data = data if isinstance(data, TrainingData) else TrainingData.of(data, None, options)
    samples = data.samples.samples
    names, groups = [sample.name for sample in samples], [sample.group for sample in samples]
    held_out = draw_folds(names, folds, options.seed, groups)
    resolved = autoconfigure(
        options,
        Fingerprint.of(samples, holds_strokes=data.samples.encoding.holds_strokes),
        data.samples.encoding.kind,
        fine_tuning=initial_model is not None and initial_model.is_trained,
    )
    if resolved.max_minutes is not None:
        resolved = replace(resolved, max_minutes=resolved.max_minutes / folds)
    recorded = None if initial_model is None else initial_model.to_dict()
    ensemble = Ensemble(folder, held_out, resolved.to_dict(), initial=recorded)
    return _begin(data, ensemble, initial_model, callbacks)


def repeat_folds(
    data: Images,
    folder: Path,
    repeat: Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[Run]:
    """Repeats the training of an ensemble.

    Args:
        data: Folder that the ensemble was trained on.
        folder: Folder of the ensemble to write; a new one.
        repeat: Folder of the ensemble to repeat.
        callbacks: Keras callbacks, see `keras_unet.train`, for each fold in turn.

    Returns:
        As `train_folds`.

    Raises:
        ValueError: If the ensemble to repeat is not complete, or its length was given in minutes,
            or the data differ.
        OSError: As `train_folds`, or if `repeat` is not an ensemble.
    """
    _check_unused(folder)
    template = Ensemble.load(repeat)
    runs = [load_template(fold) for fold in template.folds]
    options = ResolvedOptions.from_dict(template.options)
    if options.max_minutes is not None:
        raise ValueError(
            f"{repeat}: expected an ensemble whose length was given in steps or epochs, to repeat "
            f"it. Received one of minutes; repeat its folds, --repeat {template.folds[0]}"
        )
    training_data = TrainingData.of(data, None, options)
    check_same_data(runs[0], training_data.digests, training_data.source)
    warn_of_differences(runs[0])
    options = replace(options, precision=runs[0].precision)
    ensemble = Ensemble(folder, template.held_out, options.to_dict(), initial=template.initial)
    return _begin(training_data, ensemble, _load_initial(ensemble), callbacks)


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
        callbacks: Keras callbacks, see `keras_unet.train`, for each fold in turn.

    Returns:
        As `train_folds`.

    Raises:
        ValueError: As `train_folder` with `resume`, or if the ensemble's record cannot be read.
        OSError: As `train_folder` with `resume`.
    """
    with locked(folder):
        remove_leftovers(folder)
        ensemble = Ensemble.load(folder)
        options = ResolvedOptions.from_dict(ensemble.options)
        training_data = TrainingData.of(data, None, options)
        if (ensemble.folds[0] / RECORD).is_file():
            run = Run.load(ensemble.folds[0])
            check_same_data(run, training_data.digests, training_data.source)
        return _train_missing(training_data, ensemble, _load_initial(ensemble), callbacks)


def _load_initial(ensemble: Ensemble) -> Initial | None:
    return Initial.of_record(ensemble.initial) if ensemble.initial else None


def _begin(
    data: TrainingData,
    ensemble: Ensemble,
    initial: Initial | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[Run]:
    with locked(make_folder(ensemble.folder)):
        _check_unused(ensemble.folder)  # again, in case another training has begun meanwhile
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
    """Selects instance options on predictions of images by the network of their own fold."""
    encoding, samples = data.samples.encoding, data.samples.samples
    if encoding.holds_strokes:
        return None
    run_of = {name: run for run in runs for name in run.record["data"]["validation"]}
    subset = subsample(samples, [sample.classes.size for sample in samples])

    def predict(options: InstanceOptions) -> Cells:
        probabilities: list[NDArray[np.floating]] = []
        references: list[NDArray[np.integer]] = []
        labelled: list[NDArray[np.bool_]] = []
        for run in runs:
            unseen = [sample for sample in subset if run_of[sample.name] is run]
            validator = Validator(run, data.targets(unseen), tile=options_of(run).validation_tile)
            predicted, labels, masks = validator.cells(load_network(run), options)
            probabilities += predicted
            references += labels
            labelled += masks or ()
        return probabilities, references, labelled or None

    references = [sample.instances for sample in samples]
    affinities = runs[0].architecture.affinities
    defaults = default_instances(runs[0], references, affinities=affinities)
    return select_predicted(defaults, predict, encoding.kind)


def _check_unused(folder: Path) -> None:
    if is_ensemble(folder):
        raise FileExistsError(
            f"{folder}: expected a new folder for the ensemble. Received one that holds an "
            "ensemble; choose another, or resume it with --resume"
        )
    check_new(folder, "the ensemble")


def draw_folds(
    names: Sequence[str], folds: int, seed: int, groups: Sequence[Group] = ()
) -> tuple[tuple[str, ...], ...]:
    """Divides images into folds of about equal size, keeping groups together.

    Images of a group look alike, so a group is in one fold if there are at least as many groups and
    images by themselves as folds. Otherwise the images are divided in the order of their groups.

    Args:
        names: Names of the images.
        folds: Number of folds.
        seed: Seed of the draw.
        groups: Group of each image, or None; empty if each image is by itself.

    Returns:
        The names of each fold, in their order; every name is in one fold.

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
    members = members_of(names, groups or [None] * len(names))
    if len(members) < folds:
        blocks = np.array_split(list(chain(*members)), folds)
        return tuple(tuple(names[i] for i in block) for block in blocks)
    drawn: list[list[int]] = [[] for _ in range(folds)]
    order = np.random.default_rng(seed).permutation(len(members))
    for group in sorted(order, key=lambda group: -len(members[group])):  # largest first; stable
        min(drawn, key=len).extend(members[group])
    return tuple(tuple(names[i] for i in sorted(fold)) for fold in drawn)
