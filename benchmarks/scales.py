"""Effect of random scaling in training: `python -m benchmarks.scales --steps N`.

Networks trained with different `--zoom` predict a held-out image at several scales, so that its
cells are smaller or larger than those in training. The image is one of the training images of the
other benchmarks, whose held-out images are not used. Results go to `benchmarks/results/scales.json`
and are not computed again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray
from skimage.transform import resize

from benchmarks.experiment import TASKS, Experiment
from benchmarks.record import RESULTS
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.files import make_folder, write_json

TASK = replace(TASKS["usiigaci"], held_out=1, unused=TASKS["usiigaci"].held_out)
ZOOMS = 0.0, 0.25, 0.35
FACTORS = 0.5, 0.65, 0.8, 1.0, 1.3


@click.command()
@click.option("--steps", type=int, default=1200, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(steps: int, seed: int, work: Path) -> None:
    """Trains a network for each zoom, and prints the scores at each scale."""
    path = make_folder(RESULTS) / "scales.json"
    benchmark = f"python -m benchmarks.scales --steps {steps} --seed {seed}"
    done = json.loads(path.read_text()) if path.exists() else {}
    runs = done["runs"] if done.get("benchmark") == benchmark else {}
    for zoom in ZOOMS:
        title = f"zoom {zoom:g}"
        if title not in runs:
            train = ("--seed", str(seed), "--steps", str(steps), "--zoom", f"{zoom:g}")
            experiment = Experiment(TASK, work / f"scales-{zoom:g}", train, predict=((),))
            runs[title] = experiment.result() | {"sizes": _at_sizes(experiment)}
            write_json(path, {"benchmark": benchmark, "table": _table(runs), "runs": runs})
    click.echo(json.dumps(_table(runs), indent=2))


def _at_sizes(experiment: Experiment) -> dict[str, Any]:
    scores = {}
    for factor in FACTORS:
        folder = f"sized-{factor:g}"
        _resize(experiment.work / "held_out", experiment.work / folder, factor)
        predictions, file = f"predictions-{factor:g}", f"scores-{factor:g}.json"
        experiment.run(["predict", "run", f"{folder}/images", "--out", predictions])
        score = ["--metrics", TASK.metrics, "--json", file]
        experiment.run(["evaluate", predictions, f"{folder}/labels", *score])
        scores[f"{factor:g}"] = json.loads((experiment.work / file).read_text())["overall"]
    return scores


def _resize(source: Path, target: Path, factor: float) -> None:
    """Writes resized images, smoothed before downscaling, and labels."""
    for path in (source / "images").iterdir():
        write_tiff(_new(target / "images", path), _sized(path, factor, order=1), axes="YX")
    for path in (source / "labels").iterdir():
        write_tiff(_new(target / "labels", path), _sized(path, factor, order=0), axes="YX")


def _sized(path: Path, factor: float, order: int) -> NDArray[Any]:
    plane = read_planes(path)[0, ..., 0]
    size = [round(factor * length) for length in plane.shape]
    smooth = factor < 1 and order > 0
    sized = resize(plane, size, order=order, anti_aliasing=smooth, preserve_range=True)
    return sized.round().astype(plane.dtype)


def _new(folder: Path, path: Path) -> Path:
    return make_folder(folder) / f"{path.stem}.tif"


def _table(runs: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        title: {
            f"at {factor} of the size": f"SEG {one['seg']:.3f}, AP {one['matching'][0]['ap']:.3f}"
            for factor, one in run["sizes"].items()
        }
        for title, run in runs.items()
    }


if __name__ == "__main__":
    main()
