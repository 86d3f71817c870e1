"""A plain U-Net in Keras, as popular tutorials build it.

Convolutions with padding "same", 32 to 512 features, dropout, Adam, cross-entropy, random crops of
256 x 256 with flips, grey values scaled to [0, 1] by minimum and maximum. As in the tutorials, the
weights of the best validation loss are kept, and the learning rate is reduced on a plateau. Cells
are the connected components of the pixels whose probability of foreground is above 0.5. The option
`learning_rate` is that of Adam; tutorials use 1e-3 or 1e-4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from benchmarks.rivals.epochs import TRIAL, Timer, patience
from benchmarks.rivals.job import Clock, Job, Prediction, Trained, grey, run, split
from keras_unet.data.samples import Sample
from keras_unet.instances.label import InstanceOptions, label_instances

SIZE = 256
BATCH = 4
FEATURES = (32, 64, 128, 256, 512)
MOST_EPOCHS = 100
VALIDATION_CROPS = 16
COMPONENTS = InstanceOptions(gap=0, fill_holes=False)

Image = NDArray[np.float32]
Pair = tuple[Image, NDArray[np.uint8]]


def train(job: Job, samples: Sequence[Sample], clock: Clock) -> Trained:
    """Trains for the minutes, with the loss of crops of the validation images."""
    keras.utils.set_random_seed(job.seed)
    training, held = ([_pair(one, job) for one in part] for part in split(samples, job.seed))
    classes = 1 + int(max(target.max() for _, target in training))
    model = build(classes, job.options["learning_rate"])
    crops = _crops(held, np.random.default_rng(job.seed))
    validation = [np.stack(part) for part in zip(*_take(crops, VALIDATION_CROPS), strict=True)]
    timer = Timer(clock)
    best = str(job.work / "best.weights.h5")
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5)
    checkpoint = keras.callbacks.ModelCheckpoint(best, save_best_only=True, save_weights_only=True)
    options = {
        "validation_data": tuple(validation),
        "validation_batch_size": BATCH,
        "callbacks": [timer, plateau, checkpoint],
        "verbose": 2,
    }
    batches = _batches(training, job.seed)
    clock.start()
    model.fit(batches, epochs=1, steps_per_epoch=TRIAL, **options)
    epochs, steps = timer.length(MOST_EPOCHS)
    plateau.patience = patience(epochs)
    if epochs:
        model.fit(batches, epochs=epochs, steps_per_epoch=steps, **options)
    seconds = clock.seconds
    model.load_weights(best)
    about = {
        "epochs": epochs,
        "steps_per_epoch": steps,
        "batch_size": BATCH,
        "learning_rate_at_end": float(model.optimizer.learning_rate.numpy()),
    }
    return Trained(lambda image: _predict(model, image, job), timer.steps, seconds, about)


def build(classes: int, learning_rate: float) -> keras.Model:
    """Returns the compiled network, for images of any size that is a multiple of 16."""
    inputs = features = keras.Input((None, None, 1))
    skips = []
    for filters in FEATURES[:-1]:
        features = _convolutions(features, filters)
        skips.append(features)
        features = layers.MaxPooling2D()(features)
    features = layers.Dropout(0.5)(_convolutions(features, FEATURES[-1]))
    for filters, skip in zip(FEATURES[-2::-1], reversed(skips), strict=True):
        features = layers.Conv2DTranspose(filters, 2, strides=2, padding="same")(features)
        features = _convolutions(layers.Concatenate()([skip, features]), filters)
    model = keras.Model(inputs, layers.Conv2D(classes, 1, activation="softmax")(features))
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    return model


def _convolutions(features: Any, filters: int) -> Any:
    for _ in range(2):
        features = layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal"
        )(features)
    return features


def _pair(sample: Sample, job: Job) -> Pair:
    """Returns image and classes, at least as large as a crop."""
    target = sample.classes if job.kind == "classes" else (sample.instances > 0).astype(np.uint8)
    missing = [(0, max(0, SIZE - side)) for side in target.shape]
    image = _scaled(grey(sample.image))
    return np.pad(image, missing, "symmetric"), np.pad(target, missing, "symmetric")


def _scaled(image: Image) -> Image:
    low, high = image.min(), image.max()
    scaled: Image = (image - low) / max(high - low, 1e-6)
    return scaled


def _batches(pairs: Sequence[Pair], seed: int) -> tf.data.Dataset:
    random = np.random.default_rng(seed)
    shapes = (SIZE, SIZE, 1), (SIZE, SIZE)
    signature = tuple(
        tf.TensorSpec(shape, dtype)
        for shape, dtype in zip(shapes, (tf.float32, tf.uint8), strict=True)
    )
    crops = tf.data.Dataset.from_generator(
        lambda: _crops(pairs, random), output_signature=signature
    )
    return crops.batch(BATCH).prefetch(2)


def _crops(pairs: Sequence[Pair], random: np.random.Generator) -> Iterator[Pair]:
    """Yields crops of images drawn at random, `(SIZE, SIZE, 1)`, flipped and turned."""
    while True:
        image, target = pairs[random.integers(len(pairs))]
        top, left = (random.integers(side - SIZE + 1) for side in target.shape)
        window = slice(top, top + SIZE), slice(left, left + SIZE)
        turns, is_flipped = random.integers(4), random.random() < 0.5
        crop, classes = (np.rot90(one[window], turns) for one in (image, target))
        if is_flipped:
            crop, classes = crop[:, ::-1], classes[:, ::-1]
        yield crop[..., None], classes


def _take(pairs: Iterator[Pair], number: int) -> list[Pair]:
    return [next(pairs) for _ in range(number)]


def _predict(model: keras.Model, image: Image, job: Job) -> Prediction:
    height, width = image.shape
    step = 2 ** (len(FEATURES) - 1)
    padded = np.pad(_scaled(image), [(0, -side % step) for side in image.shape], "reflect")
    found = model.predict_on_batch(padded[None, ..., None])[0, :height, :width]
    probabilities = np.moveaxis(found, -1, 0).clip(0, 1)
    if job.kind == "classes":
        return Prediction(probabilities.argmax(axis=0), probabilities)
    return Prediction(label_instances(1 - probabilities[0], COMPONENTS), probabilities)


if __name__ == "__main__":
    run(train, ("tensorflow", "keras"))
