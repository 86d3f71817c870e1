"""Probe of the environment report: TensorFlow's devices, and the speed of a small network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_unet.architecture import Architecture
from keras_unet.backend import Precision, fast_precision, keras, precision_policy, tf
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.training.loop import training_step
from keras_unet.training.schedule import Schedule

NETWORK = Architecture(depth=3, base_filters=16)
TILE = 348
"""Height and width of the input tile in pixels, of which 260 are useful."""

_SECONDS = 1.0  # for training and for prediction

STAGES = "devices", "precision", "benchmark"


def benchmark(
    precision: Precision,
    *,
    network: Architecture = NETWORK,
    tile_size: int = TILE,
    seconds: float = _SECONDS,
) -> dict[str, Any]:
    """Measures the speed of training steps and of predictions, without the first, which compiles.

    Args:
        precision: Precision to compute in.
        network: Architecture of the network.
        tile_size: Height and width of the input tile in pixels.
        seconds: Shortest duration of each measurement.

    Returns:
        Description of the network, useful pixels per second of training and prediction, and whether
        all losses and probabilities were finite.
    """
    with precision_policy(precision):
        model = unet_of(network)
    model.jit_compile = False  # as in a prediction
    useful = network.output_size(tile_size)
    random = np.random.default_rng(0)
    image = random.standard_normal((1, tile_size, tile_size, 1)).astype(np.float32)
    classes = random.integers(0, network.classes, (1, useful, useful))
    y_true = np.stack([classes, np.ones_like(classes)], axis=-1).astype(np.float32)
    step, tensors = training_step(model, Schedule()), (tf.constant(image), tf.constant(y_true))
    whole = image[0, :useful, :useful]
    values: list[float] = []
    training = _calls_per_second(lambda: values.append(step(*tensors, 1e-3)[0]), seconds)
    predicting = _calls_per_second(
        lambda: values.append(float(predict_image(model, whole, tile_size=tile_size).sum())),
        seconds,
    )
    return {
        "network": f"depth {network.depth}, {network.base_filters} base features, tiles of "
        f"{tile_size} x {tile_size} pixels, {useful} out, {precision}",
        "training": useful**2 * training,
        "prediction": useful**2 * predicting,
        "finite": bool(np.isfinite(values).all()),
    }


def _calls_per_second(call: Callable[[], Any], seconds: float) -> float:
    """Returns the rate of calls by the median duration, after a first call that does not count."""
    call()
    durations: list[float] = []
    while sum(durations) < seconds:
        before = time.perf_counter()
        call()
        durations.append(time.perf_counter() - before)
    return 1 / float(np.median(durations))


def probe() -> Iterator[dict[str, Any]]:
    """Yields the result of each of `STAGES`."""
    gpus = tf.config.list_physical_devices("GPU")
    build = tf.sysconfig.get_build_info()
    yield {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "gpus": [_name(gpu) for gpu in gpus],
        "with_cuda": bool(tf.test.is_built_with_cuda()),
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
    }
    precision, reason = fast_precision()
    yield {"auto": precision, "why": reason}
    yield benchmark(precision)


def _name(gpu: Any) -> str:
    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))


if __name__ == "__main__":
    for stage, result in zip(STAGES, probe(), strict=True):
        print(json.dumps({stage: result}), flush=True)  # noqa: T201 - a program
