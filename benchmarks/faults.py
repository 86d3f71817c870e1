"""Trainings killed at random and resumed: `python -m benchmarks.faults --kills 50`.

A tiny network and an ensemble of two are trained on synthetic cells. The training is then repeated,
killed by SIGKILL up to three times and resumed. Most kills come after the first checkpoint, at a
random time; some wait until a file is half written, which temporary files in the folder show; in
the ensemble, some come around the end of a fold. After each kill, all files of the run are read:
record, checkpoint, models, history. At the end, history, weights, momentum, scores, outcome and
instance options are compared with those of an uninterrupted training. With one thread they must be
equal; with more, numbers may differ by TOLERANCE. Processes are forked from one that has imported
TensorFlow. The results are printed and written to `benchmarks/results/faults.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.killing import Job, Moment, Trial, run
from benchmarks.record import RESULTS, origin
from benchmarks.trained import distance, unreadable
from keras_unet.data.synthetic import draw_cells
from keras_unet.files import leftovers, make_folder, write_json
from keras_unet.runs import is_ensemble
from keras_unet.training.checkpoint import CHECKPOINT
from keras_unet.training.folds import resume_folds, train_folds
from keras_unet.training.options import TrainingOptions
from keras_unet.training.resume import is_resumable
from keras_unet.training.train import train_folder

IMAGES, SIDE, CELLS = 4, 96, 8  # synthetic images, pixels a side, cells in each
FOLDS = 2
EACH = TrainingOptions(  # a rate so high that scores go up and down
    steps=40,
    depth=1,
    base_filters=4,
    tile=60,
    precision="float32",
    learning_rate=0.3,
    momentum=0.9,
)
SINGLE = replace(EACH, steps=80, validation=("c3",))
AROUND_FOLDS = ("ensemble.json", "fold-1/report.html", "fold-2", "fold-2/best.keras")
IN_A_ROW = 3  # most kills of one training
SHARE_AROUND, SHARE_EARLY, SHARE_WRITING = 0.5, 0.2, 0.6  # each of the remaining moments
TOLERANCE = 1e-3


def main() -> None:
    """Kills trainings of both kinds, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="kills of the network")
    parser.add_argument("--kills-of-folds", type=int, default=10, help="kills of the ensemble")
    parser.add_argument("--threads", type=int, default=1, help="threads of TensorFlow")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    given = parser.parse_args()
    os.environ |= environment(given.threads)  # processes start with it
    tolerance = 0.0 if given.threads == 1 else TOLERANCE
    with tempfile.TemporaryDirectory() as folder:
        draw_data(data := Path(folder) / "data")
        bench = Bench(Path(folder), np.random.default_rng(given.seed))
        alone = bench.kill("network", partial(train_alone, data), given.kills)
        folds = bench.kill(
            "ensemble", partial(train_both, data), given.kills_of_folds, AROUND_FOLDS
        )
    result = {
        "benchmark": " ".join(["python -m benchmarks.faults", *sys.argv[1:]]),
        **origin(),
        "threads": given.threads,
        "tolerance": tolerance,
        "network": alone.to_dict(),
        "ensemble": folds.to_dict(),
    }
    write_json(make_folder(RESULTS) / "faults.json", result)
    print(json.dumps(result, indent=2))
    if not (alone.is_well(tolerance) and folds.is_well(tolerance)):
        raise SystemExit("a file was damaged, or a training had another result")


def environment(threads: int) -> dict[str, str]:
    """Returns environment variables for TensorFlow: threads, no GPU, few messages."""
    names = "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return {name: str(threads) for name in names} | quiet


def draw_data(folder: Path) -> None:
    """Draws the training images."""
    for seed in range(IMAGES):
        image, instances = draw_cells(seed, size=(SIDE, SIDE), cells=CELLS)
        for name, pixels in (("images", image), ("labels", instances.astype(np.uint16))):
            tifffile.imwrite(make_folder(folder / name) / f"c{seed}.tif", pixels)


def train_alone(data: Path, folder: Path) -> None:
    """Trains or resumes the network."""
    resume = is_resumable(folder)
    train_folder(data, folder, None if resume else SINGLE, resume=resume)


def train_both(data: Path, folder: Path) -> None:
    """Trains or resumes the ensemble."""
    if is_ensemble(folder):
        resume_folds(data, folder)
    else:
        train_folds(data, folder, EACH, FOLDS)


@dataclass
class Findings:
    """Results of trainings that were killed and resumed.

    Attributes:
        seconds: Duration of an uninterrupted training.
        kills: Number of kills, by kind of their moment.
        half_written: Number of files that kills left half written, by name.
        from_the_start: Number of kills before the first checkpoint.
        unreadable: Files that could not be read after a kill, and why.
        ends: Number of trainings that were completed after a kill.
        left_behind: Number of temporary files that were left at the end.
        largest_difference: Largest difference of any number at the end; infinite if texts differ.
    """

    seconds: float
    kills: Counter[str] = field(default_factory=Counter)
    half_written: Counter[str] = field(default_factory=Counter)
    from_the_start: int = 0
    unreadable: list[str] = field(default_factory=list)
    ends: int = 0
    left_behind: int = 0
    largest_difference: float = 0.0

    def see_kill(self, moment: Moment, folder: Path, whole: Path) -> None:
        """Records the files that a kill has left."""
        self.kills[moment.kind] += 1
        self.half_written.update(path.name.partition("-")[2] for path in leftovers(folder))
        self.from_the_start += not any(folder.rglob(CHECKPOINT))
        self.unreadable += [f"killed at {moment}: {one}" for one in unreadable(folder, whole)]

    def see_end(self, folder: Path, whole: Path) -> None:
        """Records the result of a training that was killed."""
        self.ends += 1
        self.left_behind += len(list(leftovers(folder)))
        self.largest_difference = max(self.largest_difference, distance(folder, whole))

    def is_well(self, tolerance: float) -> bool:
        """Returns whether nothing was lost."""
        lost = self.unreadable or self.left_behind
        return not lost and self.largest_difference <= tolerance

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        counted = {"kills": dict(self.kills), "half_written": dict(self.half_written)}
        seconds = round(self.seconds, 1)
        return {"killed": self.kills.total(), **vars(self), **counted, "seconds": seconds}


@dataclass(frozen=True)
class Bench:
    """Working folder, and random moments of the kills."""

    folder: Path
    rng: np.random.Generator

    def kill(self, name: str, job: Job, kills: int, around: tuple[str, ...] = ()) -> Findings:
        """Trains twice without kills, the first time as warm-up, then kills so many times."""
        whole, again = self.folder / name, self.folder / f"{name}-again"
        run(job, whole)
        usual = run(job, again)
        if distance(whole, again) > 0:
            print(f"{name}: two uninterrupted trainings differ by {distance(whole, again)}")
        found = Findings(usual.seconds)
        while (left := kills - found.kills.total()) > 0:
            folder = Path(tempfile.mkdtemp(dir=self.folder)) / name
            before = found.kills.total()
            for moment in islice(self._moments(folder, usual, around), left):
                if not run(job, folder, moment).killed:
                    break
                found.see_kill(moment, folder, whole)
            if found.kills.total() > before:
                run(job, folder)
                found.see_end(folder, whole)
            print(f"{name}: {found.kills.total()} kills of {kills}", flush=True)
        return found

    def _moments(self, folder: Path, usual: Trial, around: tuple[str, ...]) -> Iterator[Moment]:
        """Draws up to IN_A_ROW moments at which a training is killed."""
        for _ in range(self.rng.integers(1, IN_A_ROW, endpoint=True)):
            coming = [path for path in around if not (folder / path).exists()]
            if coming and self.rng.random() < SHARE_AROUND:
                yield Moment(0, early=True, path=str(self.rng.choice(coming)))
            elif self.rng.random() < SHARE_EARLY:
                yield Moment(self.rng.uniform(0, usual.seconds), early=True)
            else:
                seconds = self.rng.uniform(0, usual.since_checkpoint)
                yield Moment(seconds, writing=self.rng.random() < SHARE_WRITING)


if __name__ == "__main__":
    main()
