"""The part in a training of those workers that are not its chief: to take their tiles, no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from keras_unet.files import make_folder
from keras_unet.prediction.networks import new_network
from keras_unet.runs import RECORD, Run
from keras_unet.training.dataset import Images, TrainingData, Variation, weight_maps
from keras_unet.training.distribute import Cluster
from keras_unet.training.loop import fit
from keras_unet.training.resume import check_same_augmentation, check_same_data, options_of


def tell_workers(cluster: Cluster, run: Run) -> None:
    """Lets the other workers know what is trained; the run's record is written."""
    cluster.broadcast_text((run.folder / RECORD).read_text(encoding="utf-8"))


def assist(
    data: Images | TrainingData,
    run_folder: Path,
    cluster: Cluster,
    augmentation: Variation = "options",
) -> Run:
    """Trains with the chief, as it says; nothing is written but to a temporary folder.

    Args:
        data: This worker's copy of the samples, or the folder that all share.
        run_folder: The run's folder, for messages.
        cluster: What trains together.
        augmentation: How tiles are varied, as on the chief.

    Returns:
        The run, as the chief has begun or gone on with it.

    Raises:
        ValueError: If the samples or the augmentation are not those of the chief.
        ConnectionError: If another worker is gone.
    """
    with TemporaryDirectory() as scratch:
        run = _broadcast_run(Path(scratch), cluster)
        check_same_augmentation(replace(run, folder=run_folder), augmentation)
        _train(run, data, run_folder, cluster, augmentation)
        return replace(run, folder=run_folder)


def _broadcast_run(folder: Path, cluster: Cluster) -> Run:
    (folder / RECORD).write_text(cluster.broadcast_text(""), encoding="utf-8")
    return Run.load(folder)


def _train(
    run: Run,
    data: Images | TrainingData,
    run_folder: Path,
    cluster: Cluster,
    augmentation: Variation,
) -> None:
    options, network = options_of(run), run.architecture
    data = data if isinstance(data, TrainingData) else TrainingData.of(data, None, options)
    check_same_data(replace(run, folder=run_folder), data.digests, data.source)
    parts = data.split(options)
    targets = data.targets(parts.training)
    folder = make_folder(run.folder / "weight_maps")
    weights = weight_maps(folder, targets, network.classes, options)
    part = (cluster.worker, cluster.workers)
    fit(
        new_network(run, options.seed),
        data.batches(run, targets, weights, options, part=part, augmentation=augmentation),
        options.plan(parts.pixels / network.output_size(options.tile) ** 2),
        folder=run.folder,
        cluster=cluster,
    )
