"""Subprocess of the environment report: TensorFlow's devices, and the speed of a small training."""

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

_SECONDS = 1.0  # for each of the two


def benchmark(
    precision: Precision,
    *,
    network: Architecture = NETWORK,
    tile_size: int = TILE,
    seconds: float = _SECONDS,
) -> dict[str, Any]:
    """Measures one training step after another, then one prediction after another.

    The first of each, which compiles, does not count.

    Args:
        precision: Precision to compute in.
        network: The network.
        tile_size: Height and width of the input tile in pixels.
        seconds: How long each of the two is measured, at least.

    Returns:
        The network in words, the useful pixels a second of both, and whether losses and
        probabilities were finite.
    """
    with precision_policy(precision):
        model = unet_of(network)
    model.jit_compile = False  # as `predict` does
    useful = network.output_size(tile_size)
    random = np.random.default_rng(0)
    image = random.standard_normal((1, tile_size, tile_size, 1)).astype(np.float32)
    classes = random.integers(0, network.classes, (1, useful, useful))
    y_true = np.stack([classes, np.ones_like(classes)], axis=-1).astype(np.float32)
    step, tensors = training_step(model, Schedule()), (tf.constant(image), tf.constant(y_true))
    whole = image[0, :useful, :useful]
    seen: list[float] = []
    training = _calls_a_second(lambda: seen.append(step(*tensors, 1e-3)[0]), seconds)
    predicting = _calls_a_second(
        lambda: seen.append(float(predict_image(model, whole, tile_size=tile_size).sum())), seconds
    )
    return {
        "network": f"depth {network.depth}, {network.base_filters} base features, tiles of "
        f"{tile_size} x {tile_size} pixels, {useful} out, {precision}",
        "training": useful**2 * training,
        "prediction": useful**2 * predicting,
        "finite": bool(np.isfinite(seen).all()),
    }


def _calls_a_second(call: Callable[[], Any], seconds: float) -> float:
    """Calls for so many seconds, after a call that does not count; by the median call."""
    call()
    durations: list[float] = []
    while sum(durations) < seconds:
        before = time.perf_counter()
        call()
        durations.append(time.perf_counter() - before)
    return 1 / float(np.median(durations))


STAGES = "devices", "precision", "benchmark"


def probe() -> Iterator[dict[str, Any]]:
    """Yields what was found, one of `STAGES` after the other."""
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
    precision, why = fast_precision()
    yield {"auto": precision, "why": why}
    yield benchmark(precision)


def _name(gpu: Any) -> str:
    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))


if __name__ == "__main__":
    for stage, found in zip(STAGES, probe(), strict=True):
        print(json.dumps({stage: found}), flush=True)  # noqa: T201 - it is a program
