"""Contenders: how each is trained on a task, and what it needs.

Every contender trains, writes predictions of the held-out images, and is scored by the same
`keras-unet evaluate`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.experiment import Experiment
from benchmarks.record import ROOT
from benchmarks.rivals.job import Job
from keras_unet.files import make_folder
from keras_unet.system import installed_version

OURS = "keras-unet"
REQUIREMENTS = "benchmarks/requirements-rivals.txt"


@dataclass(frozen=True)
class Peer:
    """A contender besides this package.

    Attributes:
        module: Module of `benchmarks.rivals` with its training.
        package: Package that it needs, by the name of its import.
        sets: Data sets that it is compared on.
        options: Options of its job.
    """

    module: str
    package: str
    sets: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)


NUCLEI = ("dsb2018", "nuclei")
OTHERS = ("isbi2012", "usiigaci", "axons")
SETS = NUCLEI + OTHERS
PEERS: Mapping[str, Peer] = {
    "keras-tutorial": Peer("keras_tutorial", "keras", SETS, {"learning_rate": 1e-3}),
    "keras-tutorial-1e-4": Peer("keras_tutorial", "keras", SETS, {"learning_rate": 1e-4}),
    "stardist": Peer("stardist_2d", "stardist", NUCLEI),
    "nnunet": Peer("nnunet", "nnunetv2", OTHERS),
    "nnunet-batch-2": Peer("nnunet", "nnunetv2", OTHERS, {"batch_size": 2}),
}
CONTENDERS = (OURS, *PEERS)


def sets_of(contender: str) -> Sequence[str]:
    """Returns the data sets that a contender is compared on."""
    return SETS if contender == OURS else PEERS[contender].sets


def check_installed(contenders: Sequence[str], python: str) -> None:
    """Checks that an interpreter has the packages of the contenders.

    Raises:
        ModuleNotFoundError: If a package is missing.
    """
    for package in dict.fromkeys(PEERS[name].package for name in contenders if name != OURS):
        find = f"import importlib.util; raise SystemExit(not importlib.util.find_spec({package!r}))"
        if subprocess.run([python, "-c", find], check=False).returncode:  # noqa: S603 - find_spec alone
            raise ModuleNotFoundError(
                f"{package} is not installed for {python}: python -m venv rivals-env && "
                f"rivals-env/bin/pip install -r {REQUIREMENTS}, then --python rivals-env/bin/python"
            )


def train_and_predict(
    contender: str, experiment: Experiment, minutes: float, seed: int, python: str
) -> dict[str, Any]:
    """Trains a contender and predicts the held-out images.

    The folders `train` and `held_out` of the experiment hold the images. Predictions are written to
    the folder `predictions`, and those with test-time augmentation, if the contender has them as an
    option, to `predictions_tta`.

    Returns:
        Steps, seconds, versions and further numbers of the training.
    """
    if contender == OURS:
        return _ours(experiment, minutes, seed)
    return _peer(PEERS[contender], experiment, minutes, seed, python)


def _ours(experiment: Experiment, minutes: float, seed: int) -> dict[str, Any]:
    length = ("--max-minutes", f"{minutes:g}")
    training = _timed(experiment, ("train", "train", "--run", "run", "--seed", str(seed), *length))
    save = ("--save", experiment.task.save)
    predict = ("predict", "run", "held_out/images", *save)
    prediction = _timed(experiment, (*predict, "--out", "predictions"))
    _timed(experiment, (*predict, "--out", "predictions_tta", "--tta"))
    run = json.loads((experiment.work / "run" / "run.json").read_text())
    outcome = run["record"]["outcome"]
    return {
        "steps": outcome["steps"],
        "seconds": {
            "loop": round(outcome["seconds"], 1),
            "training": training,
            "prediction": prediction,
        },
        "about": {"best_score": outcome["score"]},
        "versions": {name: installed_version(name) for name in ("tensorflow", "keras")},
    }


def _timed(experiment: Experiment, command: Sequence[str]) -> float:
    began = time.monotonic()
    experiment.run(command)
    return round(time.monotonic() - began, 1)


def _peer(
    peer: Peer, experiment: Experiment, minutes: float, seed: int, python: str
) -> dict[str, Any]:
    work = experiment.work.resolve()
    job = Job(
        training=work / "train",
        images=work / "held_out" / "images",
        out=work / "predictions",
        record=work / "record.json",
        work=make_folder(work / "contender"),
        kind="classes" if experiment.task.save.startswith("classes") else "instances",
        minutes=minutes,
        seed=seed,
        started=time.time(),
        options=peer.options,
    )
    job.write(work / "job.json")
    subprocess.run(  # noqa: S603 - a module of this folder
        [python, "-m", f"benchmarks.rivals.{peer.module}", str(work / "job.json")],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    record: dict[str, Any] = json.loads(job.record.read_text())
    return record
