"""From a folder of images and labels to a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from keras_unet.backend import keras, tf
from keras_unet.console import track
from keras_unet.data.findings import find_amiss
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.samples import Samples, read_samples
from keras_unet.data.standardisation import Standardisation
from keras_unet.files import PathLike, claimed, make_folder, remove_leftovers
from keras_unet.instances.selection import first_rule
from keras_unet.precision import choose_precision
from keras_unet.prediction.networks import load_network, new_network
from keras_unet.report.page import write_page
from keras_unet.report.pictures import write_png
from keras_unet.runs import REPORT, Run
from keras_unet.training.assisting import assist, tell_workers
from keras_unet.training.autoconfig import settle
from keras_unet.training.checkpoint import Logged
from keras_unet.training.dataset import Parts, training_batches, training_image, weight_maps
from keras_unet.training.distribute import ALONE, Cluster
from keras_unet.training.loop import train
from keras_unet.training.options import SettledOptions, TrainingOptions
from keras_unet.training.provenance import provenance
from keras_unet.training.report import page_of_run
from keras_unet.training.resume import (
    check_same_data,
    check_unused,
    is_complete,
    load_interrupted,
    load_pattern,
    options_of,
    repeated_options,
    warn_of_differences,
)
from keras_unet.training.schedule import Progress, TrainingPlan
from keras_unet.training.targets import Target, sample_digest
from keras_unet.training.validation import Watch

_log = logging.getLogger(__name__)

_MOST_PICTURES = 8
_MOST_NAMES = 20


def train_folder(
    data: PathLike,
    run_folder: PathLike,
    options: TrainingOptions | None = None,
    *,
    resume: bool = False,
    like: PathLike | None = None,
    cluster: Cluster | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Trains a U-Net on a folder of images with labels.

    Args:
        data: Folder with `images/` and `labels/`, or in the Cell Tracking Challenge's layout.
        run_folder: Folder to write; a new one unless `resume`.
        options: What to choose; what is not chosen is left to the data
            (`keras_unet.training.recipe`) or is the paper's, TrainingOptions names the exceptions.
        resume: Goes on with a run that was interrupted, with the options it has recorded instead
            of these.
        like: A run to repeat, with the options it has recorded instead of these.
        cluster: What trains together; None for this process alone.
            In options, `batch_size` is of each replica; what is
            recorded is that of all, which a resumed or repeated run keeps. Workers other than the
            chief take part and write nothing.
        callbacks: Keras callbacks, see `keras_unet.train`.

    Returns:
        The run. Its record's `outcome` tells whether training is complete, or was interrupted.

    Raises:
        ValueError: If an option is out of range, the data cannot be learned from, or it is not the
            data that a resumed or repeated run was started with, or a batch cannot be dealt out to
            the replicas.
        ConnectionError: If another worker is gone.
        OSError: If a file cannot be read, the run folder holds a run already, is being written to
            or cannot be, or there is nothing to resume or to repeat.
    """
    data, run_folder = Path(data), Path(run_folder)
    like = None if like is None else Path(like)
    cluster = cluster or ALONE
    if not cluster.is_chief:
        return assist(data, run_folder, cluster)
    before = load_interrupted(run_folder) if resume else None
    if before is None:
        check_unused(run_folder)
    elif is_complete(before):
        _log.info(f"{run_folder}: this run is complete; there is nothing to resume")
        return before
    pattern = load_pattern(like) if like else None
    asked = _asked(options, before, pattern, cluster)
    cluster.check(asked.batch_size, choose_precision(asked.precision))
    samples = read_samples(
        data,
        labels=asked.labels,
        ignore=asked.ignore,
        allow_empty=asked.allow_empty,
        axes=asked.axes,
    )
    _log.info(samples.describe())
    summing = track(samples.samples, "taking checksums")
    digests = {sample.name: sample_digest(sample) for sample in summing}
    for one in filter(None, (before, pattern)):
        check_same_data(one, digests, data)
    if before is not None:
        settled = options_of(before)
        parts = Parts.of(samples, settled)
        return _train(before, parts, settled, True, cluster, callbacks)
    if pattern is not None:
        warn_of_differences(pattern)
    parts = Parts.of(samples, asked)
    seen = Fingerprint.of(parts.training)
    settled = settle(asked, seen)
    amiss = find_amiss(samples, seen, parts.names["validation"])
    for line in amiss:
        _log.warning(line)
    record = {"folder": str(data), "dtype": samples.dtype, **parts.names, "digests": digests}
    record |= {"fingerprint": asdict(seen), "warnings": amiss, "notes": samples.notes}
    run = _new_run(run_folder, samples, parts, settled, record, like)
    return _train(run, parts, settled, False, cluster, callbacks)


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
    parts: Parts,
    options: SettledOptions,
    resume: bool,
    cluster: Cluster,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    with claimed(make_folder(run.folder)):
        if not resume:
            check_unused(run.folder)  # again: another training may have been quicker
        remove_leftovers(run.folder)
        return _train_alone(run, parts, options, resume, cluster, callbacks)


def _train_alone(
    run: Run,
    parts: Parts,
    options: SettledOptions,
    resume: bool,
    cluster: Cluster,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    network = run.architecture
    plan = options.plan(parts.pixels / network.output_size(options.tile) ** 2)
    parting = track(parts.training, "parting cells that touch")
    targets = [Target.of(sample, run.scheme) for sample in parting]
    rule = first_rule(run.scheme.kind, [sample.instances for sample in parts.training])
    run = replace(run, rule=rule, record={**run.record, "cluster": cluster.to_dict()})
    watch = Watch.of(run, targets, parts.validation, options.watch_tile)
    _log.info(_description(run, parts, options.tile, watch.score_name))
    run.save()
    tell_workers(cluster, run)
    folder = make_folder(run.folder / "weight_maps")
    weights = weight_maps(folder, targets, network.classes, options)
    weighing = track(targets, "computing weight maps")
    images = [training_image(target, run.standardisation, weights) for target in weighing]
    history = train(
        new_network(run, options.seed),
        partial(training_batches, images, network, options, part=(0, cluster.workers)),
        plan,
        folder=run.folder,
        validate=watch,
        callbacks=callbacks,
        resume=resume,
        cluster=cluster,
        logged=Logged(options.histograms, options.hyperparameters | {"precision": run.precision}),
    )
    model = load_network(run)
    choice = watch.chosen_rule(model)
    _log.info(choice.describe() if choice else rule.describe())
    outcome = _outcome(plan, history.progress, watch.score_name)
    finished = replace(
        run, rule=choice.rule if choice else rule, record={**run.record, "outcome": outcome}
    )
    watch = replace(watch, run=finished)
    views = watch.views(model)
    picture = watch.pictures(views[:_MOST_PICTURES], weights)
    write_png(make_folder(run.folder / "pictures") / "montage.png", picture)
    write_page(run.folder / REPORT, page_of_run(watch, views, weights))
    finished.save()  # last, for a run that is complete is not gone on with
    return finished


def _new_run(
    folder: Path,
    samples: Samples,
    parts: Parts,
    options: SettledOptions,
    data: Mapping[str, Any],
    like: Path | None,
) -> Run:
    record = {
        "options": options.to_dict(),
        "data": data,
        **provenance(),
        "like": None if like is None else str(like),
        "started": _now(),
    }
    images = [sample.image for sample in parts.training]
    return Run(
        folder=folder,
        architecture=options.architecture(
            channels=samples.channels, classes=samples.scheme.classes
        ),
        scheme=samples.scheme,
        standardisation=Standardisation.of(images, options.standardise),
        precision=choose_precision(options.precision),
        record=record,
    )


def _description(run: Run, parts: Parts, tile_size: int, score_name: str) -> str:
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


def _outcome(plan: TrainingPlan, progress: Progress, score_name: str) -> dict[str, Any]:
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
