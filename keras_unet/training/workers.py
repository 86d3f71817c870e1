"""Workers other than the chief in a distributed training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from keras_unet.files import make_folder
from keras_unet.prediction.networks import new_network
from keras_unet.runs import RECORD, Run
from keras_unet.training.dataset import Images, TrainingData, Variation, weight_maps
from keras_unet.training.distribute import Cluster
from keras_unet.training.loop import fit
from keras_unet.training.resume import (
    check_same_augmentation,
    check_same_data,
    options_of,
    schedule_of,
)


def broadcast_run(cluster: Cluster, run: Run) -> None:
    """Sends the saved record of the chief's run to the other workers."""
    cluster.broadcast_text((run.folder / RECORD).read_text(encoding="utf-8"))


def train_as_worker(
    data: Images | TrainingData,
    run_folder: Path,
    cluster: Cluster,
    augmentation: Variation = "options",
) -> Run:
    """Trains with the chief's options; writes to a temporary folder alone.

    Args:
        data: This worker's copy of the samples, or the folder that all workers share.
        run_folder: The run's folder, for messages.
        cluster: Devices and processes that train together.
        augmentation: Augmentation of the tiles, as on the chief.

    Returns:
        The run that the chief has begun or resumed.

    Raises:
        ValueError: If the samples or the augmentation differ from those of the chief.
        ConnectionError: If another worker was lost.
    """
    with TemporaryDirectory() as temporary:
        run = _receive_run(Path(temporary), cluster)
        check_same_augmentation(replace(run, folder=run_folder), augmentation)
        _train(run, data, run_folder, cluster, augmentation)
        return replace(run, folder=run_folder)


def _receive_run(folder: Path, cluster: Cluster) -> Run:
    (folder / RECORD).write_text(cluster.broadcast_text(""), encoding="utf-8")
    return Run.load(folder)


def _train(
    run: Run,
    data: Images | TrainingData,
    run_folder: Path,
    cluster: Cluster,
    augmentation: Variation,
) -> None:
    options = options_of(run)
    data = data if isinstance(data, TrainingData) else TrainingData.of(data, None, options)
    check_same_data(replace(run, folder=run_folder), data.digests, data.source)
    split = data.split_of(run)
    targets = data.targets(split.training)
    folder = make_folder(run.folder / "weight_maps")
    weights = weight_maps(folder, targets, run.architecture.classes, options)
    batches = partial(
        data.batches,
        run,
        weights=weights,
        options=options,
        part=(cluster.worker, cluster.workers),
        augmentation=augmentation,
    )
    held_out = data.targets(split.validation)
    fit(
        new_network(run, options.seed),
        batches(targets),
        schedule_of(run, split.pixels),
        folder=run.folder,
        cluster=cluster,
        final_batches=batches([*targets, *held_out]) if options.final_share else None,
    )
