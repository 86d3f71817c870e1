"""Comparison with other libraries: `python -m benchmarks [NAME ...]`.

Each contender runs in its own process with the same number of threads. Both get the same weights
and images; their results are compared, then they are timed alternately. The result is the median of
at least five ratios, the time of this package divided by that of the other, since absolute times
vary on shared machines. Each comparison is printed and written to `benchmarks/results/peers/` as
soon as it is done.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.comparing import measure
from benchmarks.comparisons import QUICK, Sizes, comparisons
from benchmarks.growth import QUICK as QUICK_RANGE
from benchmarks.growth import Range, growth
from benchmarks.memory import memory, trainings
from benchmarks.memory import quick as quick_trainings
from benchmarks.record import RESULTS, ROOT, origin
from benchmarks.timing import PAIRS
from keras_unet.files import make_folder, write_json
from keras_unet.system import Machine, installed_version

GROWTH, MEMORY = "growth", "memory"
NAMES = [*comparisons(QUICK, "cpu"), GROWTH, MEMORY]
PACKAGES = (
    "tensorflow",
    "keras",
    "torch",
    "onnxruntime",
    "numpy",
    "scipy",
    "elasticdeform",
    "albumentations",
    "edt",
    "click",
)


@click.command(epilog=f"Names: {', '.join(NAMES)}.")
@click.argument("names", metavar="[NAME ...]", nargs=-1, type=click.Choice(NAMES))
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--pairs", type=click.IntRange(1), default=PAIRS, show_default=True)
@click.option("--quick", is_flag=True, help="Small sizes, to test that all comparisons run.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write [default: benchmarks/results/peers; with --quick, none]",
)
def main(names: tuple[str, ...], device: str, pairs: int, quick: bool, out: Path | None) -> None:
    """Compare this package with other libraries; all comparisons, or those named."""
    threads = Machine.here(ROOT).cores
    os.environ |= _environment(threads, device)  # workers start with it
    folder = out or (None if quick else RESULTS / "peers")
    failed = []
    for name in names or NAMES:
        found = _measured(name, device, pairs, quick)
        failed += [name for one in found.values() if "failed" in one]
        if folder:
            about = {
                "benchmark": f"python -m benchmarks {' '.join(sys.argv[1:])}".rstrip(),
                **origin(),
                "pairs": pairs,
                "threads": threads,
                "device": device,
                "quick": quick,
                "versions": _versions(),
            }
            write_json(make_folder(folder) / f"{name}.json", {**about, name: found})
    if failed:
        raise SystemExit(f"failed: {', '.join(dict.fromkeys(failed))}")


def _measured(name: str, device: str, pairs: int, quick: bool) -> dict[str, Any]:
    if name == MEMORY:
        return memory(quick_trainings() if quick else trainings(), click.echo)
    if name != GROWTH:
        sizes = QUICK if quick else Sizes()
        return measure(comparisons(sizes, device)[name], pairs, click.echo)
    found = growth(QUICK_RANGE if quick else Range(), device, calls=1 if quick else 3)
    for what, one in found.items():
        click.echo(f"{what}: {one.get('slope', one.get('slopes'))}, goal {one.get('goal', 'none')}")
    return found


def _environment(threads: int, device: str) -> dict[str, str]:
    """Returns environment variables: threads of all frameworks, and no GPU for the device "cpu"."""
    names = "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
    settings = {name: str(threads) for name in names}
    settings |= {"TF_CPP_MIN_LOG_LEVEL": "3", "NO_ALBUMENTATIONS_UPDATE": "1"}
    return settings if device == "gpu" else settings | {"CUDA_VISIBLE_DEVICES": "-1"}


def _versions() -> dict[str, str | None]:
    python = {"python": platform.python_version()}
    return python | {name: installed_version(name) for name in PACKAGES}


if __name__ == "__main__":
    main()
