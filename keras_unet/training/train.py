"""From images and labels to a trained model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keras_unet.backend import choose_precision, keras, tf
from keras_unet.data.findings import check_dataset
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.normalization import Normalization
from keras_unet.files import PathLike, locked, make_folder, remove_leftovers
from keras_unet.instances.selection import default_options
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_network, new_network
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.report.page import write_page
from keras_unet.report.pictures import write_png
from keras_unet.runs import DATASET, REPORT, ModelInfo, Run
from keras_unet.training.autoconfig import autoconfigure
from keras_unet.training.checkpoint import Logged
from keras_unet.training.dataset import Images, Labels, Split, TrainingData, Variation, weight_maps
from keras_unet.training.distribute import SINGLE, Cluster
from keras_unet.training.initial import Initial
from keras_unet.training.loop import fit
from keras_unet.training.options import ResolvedOptions, TrainingOptions
from keras_unet.training.provenance import provenance
from keras_unet.training.report import page_of_run
from keras_unet.training.resume import (
    check_same_augmentation,
    check_same_data,
    check_unused,
    is_complete,
    load_interrupted,
    load_template,
    name_of,
    options_of,
    repeated_options,
    warn_of_differences,
)
from keras_unet.training.schedule import Progress, Schedule
from keras_unet.training.validation import Validator
from keras_unet.training.workers import assist, tell_workers

_log = logging.getLogger(__name__)

_MOST_PICTURES = 8
_MOST_NAMES = 20


def train(
    images: Images | tf.data.Dataset,
    labels: Labels = None,
    *,
    run: PathLike | None = None,
    options: TrainingOptions | None = None,
    initial: Segmenter | PathLike | None = None,
    augmentation: Variation = "options",
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **choices: Any,
) -> Segmenter:
    """Trains a U-Net on images and labels.

    Args:
        images: Images as measured, each `(height, width)` or `(height, width, channels)`, whose
            sizes may differ; or a folder with `images/` and `labels/`, or in the Cell Tracking
            Challenge's layout; or a `tf.data.Dataset` of batches as `tile_dataset` gives them, with
            `initial` for the network and the normalization.
        labels: Label images of the arrays, each `(height, width)`: one number a cell, or one a
            class.
        run: Folder to write, a new one unless `resume`; None keeps nothing on disk.
        options: Options of the training; what is not chosen is set by the data
            (`keras_unet.training.autoconfig`) or is the paper's, `TrainingOptions` names the
            exceptions.
        initial: Model whose weights training starts from: a segmenter, the folder of a run, or a
            .keras file of a network of `build_unet`. Its network is taken; where the classes
            differ, the last layer is drawn anew.
        augmentation: How tiles are varied: "options" by the amplitude and zoom of the options; an
            `Augmentation`; None for plain tiles; or a function from a tile `(tile, tile,
            channels)`, normalized, and its labels `(tile, tile)` to both, of the same shapes.
        resume: Whether to continue a training in the folder `run` that was interrupted, with the
            options and from the weights that are recorded there; not of a data set.
        callbacks: Keras callbacks. A batch is a step, an epoch what lies between two validations.
        choices: Fields of `TrainingOptions`, by name, in place of `options`.

    Returns:
        The segmenter, of the weights with the best score on the images held out. Its
        `info.record["outcome"]` tells the score, and whether training was interrupted.

    Raises:
        ValueError: If an option is out of range or of no effect, the data cannot be learned from,
            or the initial model is for other channels.
        TypeError: If a selection is unknown.
        OSError: If a file cannot be read, or the run folder holds files or cannot be written.

    Example:
        segmenter = keras_unet.train(images, labels, steps=2000)
        cells = segmenter.segment(new_image)
    """
    if resume and (run is None or options is not None or choices or initial is not None):
        raise ValueError(
            "resume continues the training in the folder run as it was started, so options and "
            f"initial must be left out. Received: run={run}, options={options or choices}, "
            f"initial={initial}"
        )
    asked = options_of_call(options, choices)
    with ExitStack() as exits:
        folder = Path(run or Path(exits.enter_context(TemporaryDirectory())) / "model")
        if isinstance(images, tf.data.Dataset):
            if labels is not None or resume or augmentation != "options":
                raise ValueError(
                    "labels, resume and augmentation are not for a tf.data.Dataset, which holds "
                    "labels and varies tiles itself. Received one of them; leave it out"
                )
            train_on_dataset(images, folder, asked, initial, callbacks)
        else:
            reading = options_of(load_interrupted(folder)) if resume else asked
            data = images if labels is None else TrainingData.of(images, labels, reading)
            train_folder(
                data,
                folder,
                asked,
                resume=resume,
                initial=initial,
                augmentation=augmentation,
                callbacks=callbacks,
            )
        segmenter = load(folder)
        return segmenter if run is not None else segmenter.in_memory()


def options_of_call(options: TrainingOptions | None, choices: Mapping[str, Any]) -> TrainingOptions:
    """Returns the options of a call, given whole or by name.

    Args:
        options: The options; None where they are given by name.
        choices: Fields of `TrainingOptions`, by name.

    Raises:
        ValueError: If both are given, or an option is out of range.
        TypeError: If a name is unknown.
    """
    if options is not None and choices:
        raise ValueError(
            "options must be None where they are given by name. Received: options and "
            f"{', '.join(choices)}"
        )
    return options or TrainingOptions(**choices)


def train_folder(
    data: Images | TrainingData,
    run_folder: PathLike,
    options: TrainingOptions | None = None,
    *,
    resume: bool = False,
    repeat: PathLike | None = None,
    initial: Initial | Segmenter | PathLike | None = None,
    augmentation: Variation = "options",
    cluster: Cluster | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Trains a U-Net, and writes its run.

    Args:
        data: Folder of images and labels; or the data, read already.
        run_folder: Folder to write; a new one unless `resume`.
        options: As `train`.
        resume: Goes on with a run that was interrupted, with the options it has recorded instead
            of these.
        repeat: A run to repeat, with the options it has recorded instead of these.
        initial: As `train`.
        augmentation: As `train`.
        cluster: What trains together; None for this process alone.
            In options, `batch_size` is of each replica; what is
            recorded is that of all, which a resumed or repeated run keeps. Workers other than the
            chief take part and write nothing.
        callbacks: As `train`.

    Returns:
        The run. Its record's `outcome` tells whether training is complete, or was interrupted.

    Raises:
        ValueError: As `train`; or if it is not the data that a resumed or repeated run was started
            with, or a batch cannot be dealt out to the replicas.
        ConnectionError: If another worker is gone.
        OSError: As `train`, or if there is nothing to resume or to repeat.
    """
    run_folder = Path(run_folder)
    cluster = cluster or SINGLE
    if not cluster.is_chief:
        return assist(data, run_folder, cluster, augmentation)
    before = load_interrupted(run_folder) if resume else None
    if before is None:
        check_unused(run_folder)
    elif is_complete(before):
        _log.info(f"{run_folder}: this run is complete; there is nothing to resume")
        return before
    else:
        check_same_augmentation(before, augmentation)
    pattern = load_template(Path(repeat)) if repeat else None
    if pattern is not None:
        check_same_augmentation(pattern, augmentation)
    start = _initial(initial, pattern)
    asked = _asked(options, before, pattern, cluster)
    asked = start.options(asked) if start and before is None else asked
    cluster.check(asked.batch_size, choose_precision(asked.precision))
    data = data if isinstance(data, TrainingData) else TrainingData.of(data, None, asked)
    _log.info(data.samples.describe())
    for known in filter(None, (before, pattern)):
        check_same_data(known, data.digests, data.source)
    if before is not None:
        resolved = options_of(before)
        training = Training(data, data.split(resolved), resolved, augmentation, None)
        return _train(before, training, True, cluster, callbacks)
    if pattern is not None:
        warn_of_differences(pattern)
    if start is not None:
        start.check_channels(data.samples.channels)
    parts = data.split(asked)
    seen = Fingerprint.of(parts.training)
    resolved = autoconfigure(asked, seen)
    amiss = check_dataset(data.samples, seen, parts.names["validation"])
    for line in amiss:
        _log.warning(line)
    training = Training(data, parts, resolved, augmentation, start)
    facts = {"fingerprint": asdict(seen), "warnings": amiss, "notes": data.samples.notes}
    run = _new_run(run_folder, training, facts, repeat)
    return _train(run, training, False, cluster, callbacks)


@dataclass(frozen=True, eq=False)
class Training:
    """Ingredients of a training: data and split, options, augmentation, initial weights."""

    data: TrainingData
    split: Split
    options: ResolvedOptions
    augmentation: Variation
    initial: Initial | None


def _initial(initial: Initial | Segmenter | PathLike | None, pattern: Run | None) -> Initial | None:
    """Loads the model to start from: that asked for, or that of the run that is repeated."""
    if initial is not None:
        return initial if isinstance(initial, Initial) else Initial.of(initial)
    recorded = pattern.record.get("initial") if pattern else None
    return Initial.of_record(recorded) if recorded else None


def _asked(
    options: TrainingOptions | None,
    before: Run | None,
    pattern: Run | None,
    cluster: Cluster,
) -> TrainingOptions:
    if before is not None:
        return options_of(before)
    if pattern is not None:
        return repeated_options(pattern)
    asked = options or TrainingOptions()
    return replace(asked, batch_size=asked.batch_size * cluster.replicas)


def _train(
    run: Run,
    training: Training,
    resume: bool,
    cluster: Cluster,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    with locked(make_folder(run.folder)):
        if not resume:
            check_unused(run.folder)  # again: another training may have been quicker
        remove_leftovers(run.folder)
        return _train_alone(run, training, resume, cluster, callbacks)


def _train_alone(
    run: Run,
    training: Training,
    resume: bool,
    cluster: Cluster,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    network, options, parts = run.architecture, training.options, training.split
    plan = options.plan(parts.pixels / network.output_size(options.tile) ** 2)
    targets = training.data.targets(parts.training)
    rule = default_options(run.encoding.kind, [sample.instances for sample in parts.training])
    run = replace(run, instances=rule, record={**run.record, "cluster": cluster.to_dict()})
    validator = Validator.of(
        run, targets, training.data.targets(parts.validation), options.validation_tile
    )
    _log.info(_description(run, parts, options.tile, validator.score_name))
    run.save()
    tell_workers(cluster, run)
    folder = make_folder(run.folder / "weight_maps")
    weights = weight_maps(folder, targets, network.classes, options)
    batches = training.data.batches(
        run,
        targets,
        weights,
        options,
        part=(0, cluster.workers),
        augmentation=training.augmentation,
    )
    model = new_network(run, options.seed)
    if training.initial is not None:
        training.initial.copy_weights(model)
    history = fit(
        model,
        batches,
        plan,
        folder=run.folder,
        validate=validator,
        callbacks=callbacks,
        resume=resume,
        cluster=cluster,
        logged=Logged(options.histograms, options.hyperparameters | {"precision": run.precision}),
    )
    model = load_network(run)
    selection = validator.select_options(model)
    _log.info(selection.describe() if selection else rule.describe())
    outcome = _outcome(plan, history.progress, validator.score_name)
    finished = replace(
        run,
        instances=selection.options if selection else rule,
        record={**run.record, "outcome": outcome},
    )
    validator = replace(validator, run=finished)
    predictions = validator.predictions(model)
    picture = validator.pictures(predictions[:_MOST_PICTURES], weights)
    write_png(make_folder(run.folder / "pictures") / "montage.png", picture)
    write_page(run.folder / REPORT, page_of_run(validator, predictions, weights))
    finished.save()  # last, for a run that is complete is not gone on with
    return finished


def train_on_dataset(
    dataset: tf.data.Dataset,
    folder: Path,
    options: TrainingOptions,
    initial: Segmenter | PathLike | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    """Trains a model on batches of one's own, without images held out.

    Args:
        dataset: Batches `(image, y_true)` or `(image, y_true, sample_weight)`, as `tile_dataset`
            gives them; a finite one is repeated.
        folder: Folder of the run to write, a new one.
        options: Options; the length in steps or minutes, and the rate.
        initial: The model, as `train` takes it.
        callbacks: As `train`.

    Raises:
        ValueError: If there is no initial model, no length, or an option contradicts the model.
        OSError: If the folder holds files or cannot be written.
    """
    if initial is None or options.steps is options.max_minutes is None:
        raise ValueError(
            "a tf.data.Dataset needs initial, the model with its normalization, such as "
            "Segmenter.from_model(build_unet(...)), and a length, steps or max_minutes. Received: "
            f"initial={initial}, options={options}"
        )
    start = Initial.of(initial)
    options = start.options(options)
    plan = options.schedule_of_steps()
    info = replace(start.segmenter.info, precision=choose_precision(options.precision), record={})
    check_unused(folder)
    with locked(make_folder(folder)):
        known = {one.name: getattr(info, one.name) for one in fields(ModelInfo)}
        record: dict[str, Any] = {
            "options": options.to_dict(),
            "data": {"folder": DATASET, "training": [], "validation": []},
        }
        record |= {**provenance(), "initial": start.to_dict(), "started": _now()}
        run = Run(**known | {"record": record}, folder=folder)
        run.save()
        model = new_network(run, options.seed)
        start.copy_weights(model)
        batches = dataset.repeat().map(_with_channel_of_weights)
        history = fit(model, batches.skip, plan, folder=folder, callbacks=callbacks)
        outcome = _outcome(plan, history.progress, "none")
        finished = replace(run, record={**run.record, "outcome": outcome})
        finished.save()
        return finished


def _with_channel_of_weights(image: Any, y_true: Any, weights: Any = None) -> tuple[Any, Any]:
    """Brings a batch into the form that the loss of the loop reads."""
    if weights is None:
        return image, y_true
    labels = tf.cast(y_true, tf.float32)
    return image, tf.stack([tf.reshape(labels, tf.shape(weights)), weights], axis=-1)


def _new_run(
    folder: Path, training: Training, facts: Mapping[str, Any], repeat: PathLike | None
) -> Run:
    data, options, initial = training.data, training.options, training.initial
    samples = data.samples
    found = {"folder": data.source, "dtype": samples.dtype, **training.split.names}
    record = {
        "options": options.to_dict(),
        "data": {**found, "digests": data.digests, **facts},
        **provenance(),
        "repeat": None if repeat is None else str(repeat),
        "initial": initial and initial.to_dict(),
        "augmentation": name_of(training.augmentation),
        "started": _now(),
    }
    images = [sample.image for sample in training.split.training]
    return Run(
        folder=folder,
        architecture=options.architecture(
            channels=samples.channels, classes=samples.encoding.classes
        ),
        encoding=samples.encoding,
        normalization=Normalization.of(images, options.normalization),
        precision=choose_precision(options.precision),
        record=record,
    )


def _description(run: Run, parts: Split, tile_size: int, score_name: str) -> str:
    network = run.architecture
    names = parts.names["validation"]
    held_out = ", ".join(names[:_MOST_NAMES]) + ", ..." * (len(names) > _MOST_NAMES)
    validation = f"{held_out}; their score is {score_name}" if held_out else "none"
    return (
        f"training on {len(parts.training)}, held out for validation: {validation}\n"
        f"network: depth {network.depth}, {network.base_filters} base features, "
        f'padding "{network.padding}", {run.precision} on the {_device()}; '
        f"tiles of {tile_size} x {tile_size} pixels, {network.output_size(tile_size)} out"
    )


def _device() -> str:
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def _outcome(plan: Schedule, progress: Progress, score_name: str) -> dict[str, Any]:
    return {
        "complete": plan.is_over(progress),
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "skipped_updates": progress.skipped,
        "score_name": score_name,
        "best_score": progress.best_score,
        "finished": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
