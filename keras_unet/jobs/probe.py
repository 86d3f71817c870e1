"""What TensorFlow finds here: `python -m keras_unet.jobs.probe` prints it, a line of JSON a stage.

It runs in a process of its own, for a TensorFlow that does not suit the machine may take its
process with it. The stages that came through stand in the output all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from keras_unet.backend import keras, tf
from keras_unet.jobs.benchmark import benchmark
from keras_unet.precision import fast_precision

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
