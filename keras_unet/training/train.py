"""Training of a U-Net on a folder, on arrays or on a `tf.data.Dataset`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keras_unet.backend import choose_precision, keras, tf
from keras_unet.data.findings import check_dataset
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.groups import HeldOut
from keras_unet.data.normalization import Normalization
from keras_unet.data.samples import common_pixel_size
from keras_unet.files import PathLike, locked, make_folder, remove_leftovers
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import new_network
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import DATASET, ModelInfo, Run
from keras_unet.training.autoconfig import autoconfigure
from keras_unet.training.checkpoint import Logged
from keras_unet.training.dataset import Images, Labels, Split, TrainingData, Variation, weight_maps
from keras_unet.training.distribute import SINGLE, Cluster
from keras_unet.training.initial import Initial, default_instances, starts_trained
from keras_unet.training.loop import fit
from keras_unet.training.options import ResolvedOptions, TrainingOptions, learning_rate_of
from keras_unet.training.outcome import finish, outcome_of, restore_best, score_start
from keras_unet.training.provenance import now, provenance
from keras_unet.training.resume import (
    check_same_augmentation,
    check_same_data,
    check_unused,
    describe_augmentation,
    is_complete,
    load_interrupted,
    load_template,
    options_of,
    repeated_options,
    schedule_of,
    warn_of_differences,
)
from keras_unet.training.validation import Validator
from keras_unet.training.workers import broadcast_run, train_as_worker

_log = logging.getLogger(__name__)

_MAX_NAMES = 20


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
            Challenge's layout; or a `tf.data.Dataset` of batches as `tile_dataset` returns them,
            with `initial` for the network and the normalization.
        labels: Label images of the arrays, each `(height, width)`: one number per cell,
            or one per class.
        run: Folder to write, a new one unless `resume`; None keeps nothing on disk.
        options: Options of the training. Numbers that are None are set from the data
            (`keras_unet.training.autoconfig`).
        initial: Model whose weights training starts from: a segmenter, the folder of a run, or a
            .keras file of a network of `build_unet`. Its architecture is kept; if the number of
            classes differs, the last layer is initialized at random.
        augmentation: Augmentation of the tiles: "options" for the amplitude and zoom of the
            options; an `Augmentation`; None for none; or a function that maps a normalized tile
            `(tile, tile, channels)` and its labels `(tile, tile)` to both, in the same shapes.
        resume: Whether to continue an interrupted training in the folder `run`, with the options
            and weights recorded there. Not available for a `tf.data.Dataset`.
        callbacks: Keras callbacks. A batch is a step; an epoch lasts from one validation to the
            next.
        choices: Fields of `TrainingOptions`, by name, in place of `options`.

    Returns:
        The segmenter with the weights that scored best on the images held out. Its
        `info.record["outcome"]` holds the score, and whether the training is complete.

    Raises:
        ValueError: If an option is out of range or has no effect, the data are not suitable for
            training, or the initial model has another number of channels.
        TypeError: If an option is unknown.
        OSError: If a file cannot be read, or the run folder holds files or cannot be written.

    Example:
        segmenter = keras_unet.train(images, labels, steps=2000)
        cells = segmenter.segment(new_image)
    """
    if resume and (run is None or options is not None or choices or initial is not None):
        raise ValueError(
            "resume continues the training in the folder run with its recorded options, so options "
            f"and initial must be left out. Received: run={run}, options={options or choices}, "
            f"initial={initial}"
        )
    requested = options_from_call(options, choices)
    with ExitStack() as exits:
        folder = Path(run or Path(exits.enter_context(TemporaryDirectory())) / "model")
        if isinstance(images, tf.data.Dataset):
            if labels is not None or resume or augmentation != "options":
                raise ValueError(
                    "labels, resume and augmentation must be left out for a tf.data.Dataset, which "
                    "yields labels and augmented tiles itself. Received: "
                    f"labels={'None' if labels is None else 'given'}, resume={resume}, "
                    f"augmentation={augmentation}"
                )
            train_on_dataset(images, folder, requested, initial, callbacks)
        else:
            start = None if initial is None else Initial.of(initial)
            requested = start.options(requested, choices) if start else requested
            recorded = options_of(load_interrupted(folder)) if resume else requested
            data = images if labels is None else TrainingData.of(images, labels, recorded)
            train_folder(
                data,
                folder,
                requested,
                resume=resume,
                initial=start,
                augmentation=augmentation,
                callbacks=callbacks,
            )
        segmenter = load(folder)
        return segmenter if run is not None else segmenter.in_memory()


def options_from_call(
    options: TrainingOptions | None, choices: Mapping[str, Any]
) -> TrainingOptions:
    """Returns the options of a call that takes an object or keyword arguments.

    Args:
        options: The options; None if they are given by name.
        choices: Fields of `TrainingOptions`, by name.

    Raises:
        ValueError: If both are given, or an option is out of range.
        TypeError: If a name is unknown.
    """
    if options is not None and choices:
        raise ValueError(
            "options must be None if they are given by name. Received: options and "
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
    """Trains a U-Net and writes its run folder.

    Args:
        data: Folder of images and labels; or the data, already read.
        run_folder: Folder to write; a new one unless `resume`.
        options: As `train`.
        resume: Whether to continue an interrupted run, with its recorded options in place of
            `options`.
        repeat: Run to repeat, with its recorded options in place of `options`.
        initial: As `train`.
        augmentation: As `train`.
        cluster: Devices and processes that train together; None for one device. `batch_size` of
            the options is per replica; the run records the sum over all replicas, which a resumed
            or repeated run keeps. Workers other than the chief write nothing.
        callbacks: As `train`.

    Returns:
        The run. The entry `outcome` of its record states whether the training is complete.

    Raises:
        ValueError: As `train`; or if the data differ from those of the resumed or repeated run, or
            a batch cannot be divided equally among the replicas.
        ConnectionError: If another worker was lost.
        OSError: As `train`, or if there is no run to resume or to repeat.
    """
    run_folder = Path(run_folder)
    cluster = cluster or SINGLE
    if not cluster.is_chief:
        return train_as_worker(data, run_folder, cluster, augmentation)
    interrupted = load_interrupted(run_folder) if resume else None
    if interrupted is None:
        check_unused(run_folder)
    elif is_complete(interrupted):
        _log.info(f"{run_folder}: this run is complete; there is nothing to resume")
        return interrupted
    else:
        check_same_augmentation(interrupted, augmentation)
    template = load_template(Path(repeat)) if repeat else None
    if template is not None:
        check_same_augmentation(template, augmentation)
    initial_model = _load_initial(initial, template)
    requested = _requested_options(options, interrupted, template, cluster)
    requested = initial_model.options(requested) if initial_model and not interrupted else requested
    cluster.check(requested.batch_size, choose_precision(requested.precision))
    data = data if isinstance(data, TrainingData) else TrainingData.of(data, None, requested)
    _log.info(data.samples.describe())
    for earlier in filter(None, (interrupted, template)):
        check_same_data(earlier, data.digests, data.source)
    if interrupted is not None:
        resolved = options_of(interrupted)
        training = Training(data, data.split_of(interrupted), resolved, augmentation, None)
        return _train(interrupted, training, True, cluster, callbacks)
    if template is not None:
        warn_of_differences(template)
    if initial_model is not None:
        initial_model.check_channels(data.samples.channels)
    split = data.split(requested)
    strokes = data.samples.encoding.holds_strokes
    fingerprint = Fingerprint.of(split.training, holds_strokes=strokes)
    resolved = autoconfigure(
        requested,
        fingerprint,
        data.samples.encoding.kind,
        fine_tuning=initial_model is not None and initial_model.is_trained,
    )
    warnings = check_dataset(data.samples, fingerprint, split.names["validation"])
    for warning in warnings:
        _log.warning(warning)
    training = Training(data, split, resolved, augmentation, initial_model)
    findings = {"warnings": warnings, "notes": data.samples.notes}
    run = _new_run(run_folder, training, fingerprint, findings, repeat)
    return _train(run, training, False, cluster, callbacks)


@dataclass(frozen=True, eq=False)
class Training:
    """Inputs of a training: data, split, options, augmentation and initial weights."""

    data: TrainingData
    split: Split
    options: ResolvedOptions
    augmentation: Variation
    initial: Initial | None


def _load_initial(
    initial: Initial | Segmenter | PathLike | None, template: Run | None
) -> Initial | None:
    """Loads the initial model of the call, else that of the run to repeat."""
    if initial is not None:
        return Initial.of(initial)
    recorded = template.record.get("initial") if template else None
    return Initial.of_record(recorded) if recorded else None


def _requested_options(
    options: TrainingOptions | None,
    interrupted: Run | None,
    template: Run | None,
    cluster: Cluster,
) -> TrainingOptions:
    if interrupted is not None:
        return options_of(interrupted)
    if template is not None:
        return repeated_options(template)
    options = options or TrainingOptions()
    return replace(options, batch_size=options.batch_size * cluster.replicas)


def _train(
    run: Run,
    training: Training,
    resume: bool,
    cluster: Cluster,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    with locked(make_folder(run.folder)):
        if not resume:
            check_unused(run.folder)  # again, in case another training has begun meanwhile
        remove_leftovers(run.folder)
        return _train_locked(run, training, resume, cluster, callbacks)


def _train_locked(
    run: Run,
    training: Training,
    resume: bool,
    cluster: Cluster,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    network, options, split = run.architecture, training.options, training.split
    schedule = schedule_of(run, split.pixels)
    targets = training.data.targets(split.training)
    strokes = run.encoding.holds_strokes
    references = [] if strokes else [sample.instances for sample in split.training]
    defaults = default_instances(run, references, affinities=network.affinities)
    run = replace(run, instances=defaults, record={**run.record, "cluster": cluster.to_dict()})
    held_out = training.data.targets(split.validation)
    validator = Validator.of(run, targets, held_out, options.validation_tile)
    _log.info(_description(run, split, options.tile, validator.score_name))
    run.save()
    broadcast_run(cluster, run)
    folder = make_folder(run.folder / "weight_maps")
    weights = weight_maps(folder, targets, network.classes, options)
    batches = partial(
        training.data.batches,
        run,
        weights=weights,
        options=options,
        part=(0, cluster.workers),
        augmentation=training.augmentation,
    )
    model = new_network(run, options.seed)
    if training.initial is not None:
        training.initial.copy_weights(model, run.encoding)
    if training.initial is not None and starts_trained(run):
        run = score_start(validator, model)
        run.save()
    if resume:
        restore_best(run.folder)
    history = fit(
        model,
        batches(targets),
        schedule,
        folder=run.folder,
        validate=validator,
        callbacks=callbacks,
        resume=resume,
        cluster=cluster,
        logged=Logged(options.histograms, options.hyperparameters | {"precision": run.precision}),
        final_batches=batches([*targets, *held_out]) if options.final_share else None,
    )
    finished = replace(validator, run=run)
    return finish(finished, model, schedule, history.progress, split.held_out, weights)


def train_on_dataset(
    dataset: tf.data.Dataset,
    folder: Path,
    options: TrainingOptions,
    initial: Initial | Segmenter | PathLike | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    """Trains a model on the batches of a `tf.data.Dataset`, without validation.

    Args:
        dataset: Batches `(image, y_true)` or `(image, y_true, sample_weight)`, as `tile_dataset`
            returns them; a finite data set is repeated.
        folder: Folder of the run to write, a new one.
        options: Options, of which the length in steps or minutes and the learning rate have an
            effect.
        initial: The model, as `train`.
        callbacks: As `train`.

    Raises:
        ValueError: If there is no initial model, no length, or an option contradicts the model.
        OSError: If the folder holds files or cannot be written.
    """
    if options.final_share:
        raise ValueError(
            "final_share must be left out for a tf.data.Dataset, of which nothing is held out. "
            f"Received: {options.final_share}"
        )
    if initial is None or options.steps is options.max_minutes is None:
        raise ValueError(
            "a tf.data.Dataset needs initial, the model with its normalization, such as "
            "Segmenter.from_model(build_unet(...)), and a length, steps or max_minutes. Received: "
            f"initial={initial}, options={options}"
        )
    initial_model = Initial.of(initial)
    options = initial_model.options(options)
    if options.learning_rate is None:
        rate = learning_rate_of(options.optimizer, fine_tuning=initial_model.is_trained)
        options = replace(options, learning_rate=rate)
    schedule = options.schedule_of_steps()
    precision = choose_precision(options.precision)
    unknown: dict[str, Any] = {"pixel_size": None, "diameters": None, "record": {}}
    info = replace(initial_model.segmenter.info, precision=precision, **unknown)
    check_unused(folder)
    with locked(make_folder(folder)):
        values = {field.name: getattr(info, field.name) for field in fields(ModelInfo)}
        record: dict[str, Any] = {
            "options": options.to_dict(),
            "data": {"folder": DATASET, "training": [], "validation": []},
        }
        record |= {**provenance(), "initial": initial_model.to_dict(), "started": now()}
        run = Run(**values | {"record": record}, folder=folder)
        run.save()
        model = new_network(run, options.seed)
        initial_model.copy_weights(model, run.encoding)
        batches = dataset.repeat().map(_with_weight_channel)
        history = fit(model, batches.skip, schedule, folder=folder, callbacks=callbacks)
        outcome = outcome_of(schedule, history.progress, "none", HeldOut.of((), ()))
        finished = replace(run, record={**run.record, "outcome": outcome})
        finished.save()
        return finished


def _with_weight_channel(image: Any, y_true: Any, weights: Any = None) -> tuple[Any, Any]:
    """Stacks the sample weights as a second channel of y_true, as WeightedCrossEntropy expects."""
    if weights is None:
        return image, y_true
    labels = tf.cast(y_true, tf.float32)
    return image, tf.stack([tf.reshape(labels, tf.shape(weights)), weights], axis=-1)


def _new_run(
    folder: Path,
    training: Training,
    fingerprint: Fingerprint,
    findings: Mapping[str, Any],
    repeat: PathLike | None,
) -> Run:
    data, options, initial = training.data, training.options, training.initial
    samples = data.samples
    origin = {"folder": data.source, "dtype": samples.dtype, **training.split.names}
    record = {
        "options": options.to_dict(),
        "data": {
            **origin,
            "digests": data.digests,
            "fingerprint": asdict(fingerprint),
            **({"objects": samples.objects} if samples.objects else {}),
            **findings,
        },
        **provenance(),
        "repeat": None if repeat is None else str(repeat),
        "initial": initial and initial.to_dict(),
        "augmentation": describe_augmentation(training.augmentation),
        "started": now(),
    }
    images = [sample.image for sample in training.split.training]
    return Run(
        folder=folder,
        architecture=options.architecture(
            channels=samples.channels,
            classes=samples.encoding.classes,
            kind=samples.encoding.kind,
        ),
        encoding=samples.encoding,
        normalization=(
            initial.segmenter.info.normalization
            if initial
            else Normalization.of(images, options.normalization)
        ),
        precision=choose_precision(options.precision),
        channels=None if options.channels is None else tuple(options.channels),
        pixel_size=common_pixel_size(training.split.training),
        diameters=fingerprint.diameters if samples.encoding.kind == "instances" else None,
        record=record,
    )


def _description(run: Run, split: Split, tile_size: int, score_name: str) -> str:
    network = run.architecture
    names = split.names["validation"]
    held_out = ", ".join(names[:_MAX_NAMES]) + ", ..." * (len(names) > _MAX_NAMES)
    relation = f", on {split.held_out.describe()}" if split.held_out.groups else ""
    validation = f"{held_out}; their score is {score_name}{relation}" if held_out else "none"
    affinities = "affinities, " if network.affinities else ""
    return (
        f"training on {len(split.training)}, held out for validation: {validation}\n"
        f"network: depth {network.depth}, {network.base_filters} base features, "
        f'padding "{network.padding}", {affinities}{run.precision} on the {_device()}; '
        f"tiles of {tile_size} x {tile_size} pixels, {network.output_size(tile_size)} out"
    )


def _device() -> str:
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
