"""The demo with and without the border weights of equation 2: `python -m benchmarks.demo`.

Each seed draws other cells and initializes another network. The scores of the held-out images go to
`benchmarks/results/demo.json`, with the seconds that each demo took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, origin
from keras_unet.evaluation.evaluate import evaluate_folders
from keras_unet.files import make_folder, write_json
from keras_unet.prediction.folder import predict_files

SEEDS = (0, 1, 2)
BORDER_WEIGHTS = (10, 0)  # as in the paper, and off


def main() -> None:
    """Runs the demos one after the other, and writes their scores."""
    runs = [demo(seed, weight) for seed in SEEDS for weight in BORDER_WEIGHTS]
    result = {"benchmark": "python -m benchmarks.demo", **origin(), "demos": runs}
    write_json(make_folder(RESULTS) / "demo.json", result)
    print(json.dumps(result, indent=2))


def demo(seed: int, border_weight: float) -> dict[str, Any]:
    """Runs one demo in its own process, by the command line."""
    options = ["--seed", str(seed), "--border-weight", str(border_weight)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "keras_unet", "demo", *options, "--out", "demo"]
        started = time.monotonic()
        subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - the command of this line
        seconds = time.monotonic() - started
        scores = json.loads((Path(folder) / "demo" / "scores.json").read_text())["overall"]
        plain = _components(Path(folder) / "demo")
    return {
        "command": " ".join(["keras-unet demo", *options]),
        "seconds": round(seconds),
        "scores": scores,
        "seg_of_plain_components": plain["seg"],
    }


def _components(demo: Path) -> Mapping[str, float]:
    """Scores the connected components of the probabilities."""
    plain = {"threshold": 0.5, "markers": "components", "minimum_size": 0}
    predict_files(demo / "run", demo / "held_out" / "images", demo / "components", instances=plain)
    return evaluate_folders(demo / "components", demo / "held_out" / "labels").overall.values


if __name__ == "__main__":
    main()
