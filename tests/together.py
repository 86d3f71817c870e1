"""Trains on two devices of a process of its own, or as one of several workers, and tells of it.

`python together.py devices FILE` writes what test_distribution.py looks at;
`python together.py worker FILE ARGUMENTS...` runs keras-unet and writes the weights it ends with.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
from logs import logged

STEPS = 6
SPOILT = 3


def devices():
    """Trains alone and on two devices, which see the same tiles."""
    from keras_unet.backend import tf
    from keras_unet.training.distribute import SINGLE, join

    (processor,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, two)
    with logged() as said:
        cluster = join("mirrored")
    return {
        "said": said,
        "cluster": cluster.to_dict(),
        "alone": trained(SINGLE),
        "together": trained(cluster),
        "alone, adam": trained(SINGLE, optimizer="adam"),
        "together, adam": trained(cluster, optimizer="adam"),
        "begun together": trained(cluster, SINGLE),
        "dropouts": dropouts(cluster),
        "statistics": statistics(cluster),
    }


def trained(first, second=None, **options):
    """Trains on a cluster, or until half-way and then on another: losses and weights."""
    from keras_unet.backend import keras
    from keras_unet.training.loop import fit
    from keras_unet.training.schedule import Schedule

    schedule = Schedule(steps=STEPS, validations=STEPS, learning_rate=0.1, momentum=0.9, **options)

    def interrupt(batch, **_):
        if batch + 1 == STEPS // 2:
            raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with tempfile.TemporaryDirectory() as folder:
        run = {"batches": batches, "schedule": schedule, "folder": Path(folder)}
        model = network(dropout=0.0)
        if second is None:
            progress = fit(model, cluster=first, **run).progress
        else:
            fit(network(dropout=0.0), cluster=first, callbacks=[stop], **run)
            progress = fit(model, cluster=second, resume=True, **run).progress
    return {
        "losses": [row["loss"] for row in progress.rows],
        "skipped": progress.skipped,
        "weights": [one.tolist() for one in model.get_weights()],
    }


def network(**options):
    """Builds a tiny network, the same each time."""
    from keras_unet.backend import keras
    from keras_unet.model import build_unet

    keras.utils.set_random_seed(0)
    return build_unet((None, None, 1), depth=1, base_filters=2, **options)


def batches(first):
    """Batches of two tiles; the second tile of one of them has a pixel that is no number."""
    for number in count(first):
        random = np.random.default_rng(number)
        image = random.standard_normal((2, 28, 28, 1)).astype(np.float32)
        labels, weights = random.integers(0, 2, (2, 12, 12)), random.uniform(0, 9, (2, 12, 12))
        if number == SPOILT:
            image[1, 5, 5] = np.nan
        yield image, np.stack([labels, weights], axis=-1).astype(np.float32)


def dropouts(cluster):
    """What the replicas make of one tile, with dropout."""
    from keras_unet.training.distribute import reseed_dropout

    model = cluster.replicated(network(dropout=0.5))
    reseed_dropout(cluster, model)
    tile = next(batches(0))[0][:1]
    return on_each(cluster, lambda: model(tile, training=True))


def statistics(cluster):
    """The statistics of a batch normalization after each replica has seen a tile of its own."""
    from keras_unet.backend import tf

    model = cluster.replicated(network(norm_layer="batch"))
    kept = model.non_trainable_weights
    tiles = tf.constant(next(batches(0))[0])

    def look(average):
        model(cluster.shard(tiles), training=True)
        if average:
            cluster.average(kept)
        return tf.convert_to_tensor(kept[0])

    apart = on_each(cluster, lambda: look(False))
    for one in kept:
        one.assign(tf.zeros_like(one))
    return {"apart": apart, "averaged": on_each(cluster, lambda: look(True))}


def on_each(cluster, function):
    """Runs a function on every replica: one list of numbers each."""
    from keras_unet.backend import tf

    results = tf.function(lambda: cluster.strategy.run(function))()
    return [one.numpy().tolist() for one in cluster.strategy.experimental_local_results(results)]


def worker(arguments):
    """Runs keras-unet as one of several workers: the weights it ends with, of whichever worker."""
    from keras_unet.cli import main
    from keras_unet.console import quiet_tensorflow

    with quiet_tensorflow():
        from keras_unet.training import train, workers

    models = []
    for module in (workers, train):
        module.new_network = remembered(module.new_network, models)
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            raise
    return [one.tolist() for one in models[0].get_weights()]


def remembered(build, models):
    """Keeps the models that are built."""

    def build_and_keep(*given):
        models.append(build(*given))
        return models[-1]

    return build_and_keep


if __name__ == "__main__":
    what, file, *rest = sys.argv[1:]
    found = devices() if what == "devices" else worker(rest)
    Path(file).write_text(json.dumps(found))
