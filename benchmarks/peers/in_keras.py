"""Network, training and deformation of this package, and plain TensorFlow operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.contenders import Work
from benchmarks.peers import inputs
from keras_unet.architecture import Architecture
from keras_unet.backend import Precision, precision_policy, tf
from keras_unet.data.augmentation import displacement_field, warp
from keras_unet.data.distances import separate_touching
from keras_unet.data.pipeline import build_dataset
from keras_unet.data.synthetic import draw_cells
from keras_unet.data.tiles import TrainingImage
from keras_unet.data.weight_maps import weight_map
from keras_unet.export.onnx import to_onnx, with_constant_weights
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.tiling import mirrored_window
from keras_unet.training.loop import training_step as step_of
from keras_unet.training.schedule import Schedule

_TYPES = {"float32": tf.float32, "bfloat16": tf.bfloat16}
_WAITING = 2  # tiles that the pipeline prefetches


def training_step(
    network: Architecture, tile: int, precision: Precision, rate: float, device: str
) -> Work:
    """Training step on one batch."""
    step = step_of(_model(network, precision, device), Schedule())
    image, y_true = (tf.constant(part) for part in inputs.training_batch(network, tile))
    return lambda: [np.float32(step(image, y_true, rate)[0])]


def fed_steps(
    network: Architecture,
    tile: int,
    precision: Precision,
    rate: float,
    device: str,
    steps: int,
    cached: bool,
) -> Work:
    """Training steps on tiles of the pipeline, or on one of its tiles repeatedly.

    Tiles prefetched during other measurements are discarded, so that one tile a step is computed.
    """
    step = step_of(_model(network, precision, device), Schedule())
    batches = iter(build_dataset(_training_images(tile), network, tile_size=tile))
    first = [next(batches) for _ in range(_WAITING + 1)][-1]

    def from_tile() -> list[Any]:
        losses = [step(*first, rate)[0] for _ in range(steps)]
        return [np.float32(losses[0])]

    def from_pipeline() -> list[Any]:
        taken = [next(source) for _ in range(_WAITING + 1)][-1]
        losses = [step(*(next(source) if number else taken), rate)[0] for number in range(steps)]
        return [np.float32(losses[0])]

    source = iter(build_dataset(_training_images(tile), network, tile_size=tile))
    return from_tile if cached else from_pipeline


def prediction(
    network: Architecture, side: int, tile: int | None, precision: Precision, device: str
) -> Work:
    """Prediction of an image by overlapping tiles."""
    model, image = _model(network, precision, device), inputs.normalized_image(side)
    return lambda: [predict_image(model, image, tile_size=tile)]


def one_shot(network: Architecture, side: int, precision: Precision, device: str) -> Work:
    """Prediction of a whole image with mirrored borders, in one call of the network."""
    model, image = _model(network, precision, device), inputs.normalized_image(side)
    size = network.fitting_size(side + 2 * network.margin)
    window = slice(-network.margin, size - network.margin)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def score(whole: Any) -> Any:
        return tf.nn.softmax(model(whole, training=False)[0, :side, :side])

    return lambda: [score(tf.constant(mirrored_window(image, window, window)[None])).numpy()]


def product(size: int, precision: Precision, device: str) -> Work:
    """Product of square matrices."""
    check_device(device)
    random = np.random.default_rng(0)
    one, other = (
        tf.cast(random.standard_normal((size, size), np.float32), _TYPES[precision])
        for _ in range(2)
    )
    multiply = tf.function(tf.linalg.matmul)
    return lambda: [multiply(one, other)[0, 0].numpy().astype(np.float32)]


def deformation(side: int, amplitude: float, times: int, device: str) -> Work:
    """Elastic deformation in the graph: image and weights (linear), labels (nearest).

    They are columns of one array with a row a pixel, as labels and weights in the pipeline.
    """
    check_device(device)
    images, grids = inputs.deformable(side, amplitude, times)
    pixels = tf.constant(np.stack([one.ravel() for one in images], axis=-1, dtype=np.float32))

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def places(grid: Any) -> tuple[Any, Any]:
        pixel = tf.range(side, dtype=tf.float32)
        field = displacement_field(grid, (side, side))
        return pixel[:, None] + field[0], pixel + field[1]

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def read(rows: Any, columns: Any) -> Any:
        return warp(pixels, (0, side, side), rows, columns, nearest=(False, True, False))

    def deform(grid: Any) -> list[Any]:
        image, labels, weighed = np.moveaxis(np.asarray(read(*places(tf.constant(grid)))), -1, 0)
        return [image, labels.astype(np.uint8), weighed]

    return lambda: [deform(grid) for grid in grids][-1]


def onnx_file(network: Architecture, path: Path) -> Work:
    """Writes the network, from tiles to probabilities, as an .onnx file."""
    score = with_constant_weights(_model(network, "float32", "cpu"))

    def write() -> list[Any]:
        graph = to_onnx(lambda tile: {"probabilities": tf.nn.softmax(score(tile))}, 1)
        onnx.save(graph, path)
        return []

    return write


def check_device(device: str) -> None:
    """Checks that the device is available.

    Raises:
        ValueError: If TensorFlow sees no GPU.
    """
    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise ValueError('--device gpu needs one, and TensorFlow sees none; pip install ".[gpu]"')


def _model(network: Architecture, precision: Precision, device: str) -> Any:
    check_device(device)
    with precision_policy(precision):
        model = unet_of(network)
    model.jit_compile = False  # as `predict` does
    for name, drawn in inputs.weights(network).items():
        model.get_layer(name).set_weights(drawn)
    return model


def _training_images(tile: int) -> list[TrainingImage]:
    """Draws four images, about as large as a tile, with the weights of equation 2."""
    side = max(64, tile)
    drawn = [draw_cells(seed, size=(side, side), cells=side**2 // 2500 + 1) for seed in range(4)]
    return [
        TrainingImage(
            ((image - image.mean()) / image.std()).astype(np.float32)[..., None],
            (classes := (separate_touching(instances) > 0).astype(np.uint8)),
            weight_map(classes, instances),
        )
        for image, instances in drawn
    ]
