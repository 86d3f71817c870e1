"""The part in a training of those workers that are not its chief: to take their tiles, no more."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from keras_unet.console import track
from keras_unet.data.samples import read_samples
from keras_unet.files import make_folder
from keras_unet.prediction.networks import new_network
from keras_unet.runs import RECORD, Run
from keras_unet.training.dataset import Parts, training_batches, training_image, weight_maps
from keras_unet.training.distribute import Cluster
from keras_unet.training.loop import train
from keras_unet.training.resume import check_same_data, options_of
from keras_unet.training.targets import Target, sample_digest


def tell_workers(cluster: Cluster, run: Run) -> None:
    """Lets the other workers know what is trained; the run's record is written."""
    cluster.told_text((run.folder / RECORD).read_text(encoding="utf-8"))


def assist(data: Path, run_folder: Path, cluster: Cluster) -> Run:
    """Trains with the chief, as it says; nothing is written but to a temporary folder.

    Args:
        data: This worker's copy of the samples, or the folder that all share.
        run_folder: The run's folder, for messages.
        cluster: What trains together.

    Returns:
        The run, as the chief has begun or gone on with it.

    Raises:
        ValueError: If the samples are not those of the chief.
        ConnectionError: If another worker is gone.
    """
    with TemporaryDirectory() as scratch:
        run = _told_run(Path(scratch), cluster)
        _train(run, data, run_folder, cluster)
        return replace(run, folder=run_folder)


def _told_run(folder: Path, cluster: Cluster) -> Run:
    (folder / RECORD).write_text(cluster.told_text(""), encoding="utf-8")
    return Run.load(folder)


def _train(run: Run, data: Path, run_folder: Path, cluster: Cluster) -> None:
    options, network = options_of(run), run.architecture
    samples = read_samples(
        data,
        labels=options.labels,
        ignore=options.ignore,
        allow_empty=options.allow_empty,
        axes=options.axes,
    )
    digests = {sample.name: sample_digest(sample) for sample in samples.samples}
    check_same_data(replace(run, folder=run_folder), digests, data)
    parts = Parts.of(samples, options)
    parting = track(parts.training, "parting cells that touch")
    targets = [Target.of(sample, run.scheme) for sample in parting]
    folder = make_folder(run.folder / "weight_maps")
    weights = weight_maps(folder, targets, network.classes, options)
    weighing = track(targets, "computing weight maps")
    images = [training_image(target, run.standardisation, weights) for target in weighing]
    part = (cluster.worker, cluster.workers)
    train(
        new_network(run, options.seed),
        partial(training_batches, images, network, options, part=part),
        options.plan(parts.pixels / network.output_size(options.tile) ** 2),
        folder=run.folder,
        cluster=cluster,
    )
