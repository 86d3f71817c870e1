"""Memory of trainings, measured and as estimated by `Architecture.training_memory`.

Each training runs a few steps of the training loop, with the files of two validations, in its own
process. Measured is the peak resident memory above that after the first TensorFlow operation. Other
programs do not affect it.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from keras_unet.architecture import Architecture
from keras_unet.console import quiet_stderr

GOAL = "0.85 to 1.15"
IMAGE = 512  # height and width in pixels


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training to measure.

    Attributes:
        network: The network.
        tile: Height and width of the input tile in pixels.
        batch_size: Tiles a batch.
        precision: "float32" or "bfloat16".
        steps: Number of steps.
    """

    network: Architecture = field(default_factory=Architecture)
    tile: int = 572
    batch_size: int = 1
    precision: str = "float32"
    steps: int = 6

    @property
    def predicted(self) -> int:
        """Estimated bytes."""
        return self.network.training_memory(
            self.tile, batch_size=self.batch_size, precision=self.precision
        )

    def __str__(self) -> str:
        network = self.network
        kind = f" {network.norm_layer}" if network.norm_layer else ""
        return (
            f"depth {network.depth}, {network.base_filters} features, {network.padding}{kind}, "
            f"{self.batch_size} x {self.tile}, {self.precision}"
        )


def trainings() -> list[Training]:
    """Lists the trainings; the estimate was fitted to others, except that of the paper."""
    cases: list[tuple[dict[str, Any], int, int]] = [  # network, tile, tiles a batch
        ({"base_filters": 8}, 252, 1),
        ({"base_filters": 24}, 508, 1),
        ({"base_filters": 48}, 380, 1),
        ({"base_filters": 64}, 572, 1),
        ({"base_filters": 16}, 508, 2),
        ({"depth": 2, "base_filters": 16}, 412, 1),
        ({"depth": 2, "base_filters": 48}, 500, 1),
        ({"depth": 3, "base_filters": 24}, 436, 2),
        ({"depth": 3, "base_filters": 64}, 500, 1),
        ({"depth": 5, "base_filters": 8}, 508, 1),
        ({"depth": 5, "base_filters": 24}, 444, 1),
        ({"padding": "same", "base_filters": 24}, 320, 1),
        ({"padding": "same", "depth": 2, "base_filters": 32}, 448, 1),
        ({"base_filters": 24, "norm_layer": "batch"}, 508, 1),
        ({"base_filters": 24, "norm_layer": "group"}, 508, 1),
        ({"base_filters": 24, "channels": 3, "classes": 4}, 444, 1),
    ]
    return [
        Training(network=Architecture(**given), tile=tile, batch_size=batch, precision=precision)
        for given, tile, batch in cases
        for precision in ("float32", "bfloat16")
    ]


def quick() -> list[Training]:
    """Lists one training that takes seconds."""
    return [Training(network=Architecture(depth=2, base_filters=2), tile=76, steps=2)]


def memory(
    measured: Sequence[Training], say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measures trainings, one after the other.

    Args:
        measured: The trainings.
        say: Prints a line for each.
    """
    found = []
    for one in measured:
        taken = _in_a_process_of_its_own(one)
        ratio = one.predicted / taken
        say(
            f"{one}: predicted {one.predicted / 1e6:,.0f} MB, measured {taken / 1e6:,.0f} MB, "
            f"ratio {ratio:.3f}"
        )
        megabytes = {
            "megabytes_predicted": round(one.predicted / 1e6, 1),
            "megabytes": round(taken / 1e6, 1),
            "ratio": round(ratio, 3),
        }
        found.append(asdict(one) | megabytes)
    ratios = [one["ratio"] for one in found]
    lowest, highest = min(ratios), max(ratios)
    say(f"ratios from {lowest} to {highest}, goal {GOAL}")
    return {
        "training_memory": {
            "ratio_lowest": lowest,
            "ratio_highest": highest,
            "goal": GOAL,
            "met": lowest >= 0.85 and highest <= 1.15,
            "measured": found,
        }
    }


def _in_a_process_of_its_own(one: Training) -> int:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_taken, one).result()


def _taken(one: Training) -> int:
    """Trains, and returns the peak resident bytes above those at the start."""
    with quiet_stderr():
        from keras_unet.backend import choose_precision, precision_policy, tf
        from keras_unet.data.pipeline import build_dataset
        from keras_unet.data.tiles import TrainingImage
        from keras_unet.model import unet_of
        from keras_unet.training.loop import fit
        from keras_unet.training.schedule import Schedule

        tf.constant(1.0) + 1
    network, random = one.network, np.random.default_rng(0)
    image = random.normal(size=(IMAGE, IMAGE, network.channels)).astype(np.float32)
    classes = random.integers(0, network.classes, (IMAGE, IMAGE)).astype(np.uint8)
    images = [TrainingImage(image, classes, np.ones((IMAGE, IMAGE), np.float32))]
    before: int = psutil.Process().memory_info().rss

    def batches(first: int) -> Any:
        return build_dataset(
            images, network, tile_size=one.tile, batch_size=one.batch_size, first=first
        )

    with tempfile.TemporaryDirectory() as folder:
        with precision_policy(choose_precision(one.precision)):
            model = unet_of(network)
        plan = Schedule(steps=one.steps, validations=2)
        fit(model, batches, plan, folder=Path(folder))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
