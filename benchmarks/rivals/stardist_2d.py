"""StarDist 2D, trained from scratch as in its example notebooks.

Defaults of `Config2D`, with the grid of (2, 2) of the example on DSB 2018. Of the examples are also
the normalization by percentiles, flips, rotations by 90 degrees, changes of intensity and noise,
and the thresholds, which are optimized on the validation images. The weights of the best validation
loss are kept. The default of 400 epochs of 100 steps, with half the learning rate after 40 epochs
without a better loss, is fitted to the minutes, see `epochs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from csbdeep.utils import normalize
from numpy.typing import NDArray
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

from benchmarks.rivals.epochs import TRIAL, Timer, patience
from benchmarks.rivals.job import Clock, Job, Prediction, Trained, grey, run, split
from keras_unet.data.samples import Sample

PERCENTILES = 1, 99.8  # grey values that become 0 and 1
MOST_EPOCHS = 400  # the default

Image = NDArray[np.float32]
Labels = NDArray[Any]


def train(job: Job, samples: Sequence[Sample], clock: Clock) -> Trained:
    """Trains for the minutes, then optimizes the thresholds on the validation images."""
    keras.utils.set_random_seed(job.seed)
    (images, labels), validation = (_prepared(part) for part in split(samples, job.seed))
    config = Config2D(grid=(2, 2), n_channel_in=1, train_tensorboard=False)
    model = StarDist2D(config, name="stardist", basedir=str(job.work))
    model.prepare_for_training()
    timer = Timer(clock)
    model.callbacks.append(timer)
    options = {"validation_data": validation, "augmenter": _augmenter(job.seed), "seed": job.seed}
    clock.start()
    model.train(images, labels, epochs=1, steps_per_epoch=TRIAL, **options)
    epochs, steps = timer.length(MOST_EPOCHS)
    for callback in model.callbacks:
        if isinstance(callback, keras.callbacks.ReduceLROnPlateau):
            callback.patience = patience(epochs)
    if epochs:
        model.train(images, labels, epochs=epochs, steps_per_epoch=steps, **options)
    seconds = clock.seconds
    thresholds = model.optimize_thresholds(*validation)

    def predict(image: Image) -> Prediction:
        return Prediction(model.predict_instances(_scaled(image))[0])

    about = {
        "epochs": epochs,
        "steps_per_epoch": steps,
        "batch_size": config.train_batch_size,
        "learning_rate_at_end": float(model.keras_model.optimizer.learning_rate.numpy()),
        "thresholds": thresholds,
    }
    return Trained(predict, timer.steps, seconds, about)


def _prepared(samples: Sequence[Sample]) -> tuple[list[Image], list[Labels]]:
    images = [_scaled(grey(sample.image)) for sample in samples]
    return images, [fill_label_holes(sample.instances) for sample in samples]


def _scaled(image: Image) -> Image:
    scaled: Image = normalize(image, *PERCENTILES, axis=(0, 1))
    return scaled


def _augmenter(seed: int) -> Callable[[Image, Labels], tuple[Image, Labels]]:
    """Returns the augmentation with the ranges of StarDist's examples."""
    random = np.random.default_rng(seed)

    def augment(image: Image, labels: Labels) -> tuple[Image, Labels]:
        turns, is_flipped = random.integers(4), random.random() < 0.5
        image, labels = (np.rot90(one, turns) for one in (image, labels))
        if is_flipped:
            image, labels = image[:, ::-1], labels[:, ::-1]
        image = image * random.uniform(0.6, 2) + random.uniform(-0.2, 0.2)
        noise = random.normal(size=image.shape) * 0.02 * random.uniform()
        return (image + noise).astype(np.float32), labels

    return augment


if __name__ == "__main__":
    run(train, ("stardist", "csbdeep", "tensorflow", "keras", "numba"))
