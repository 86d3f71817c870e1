"""Promised and true score: `python -m benchmarks.promise [CASE ...] --minutes N`.

A network is trained on several groups of images: films, sources or fields. The promised score is
that which the training prints, of the images that it holds out. The true score is that of a group
that was not among them. If images of one group alone are trained on, the promise is called that of
the same film, and may be too high.

    case               groups                                                 scored
    psc-blocks         6 blocks of the field in each of 2 films               a block of each film
    nuclei-SOURCE      BBBC039, and DSB 2018 by the size of its images        a source
    phase              fields                                                 6 fields
    psc-films          one film                                               the other film

Each case is written to `benchmarks/results/promise.json` as soon as it is done.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks.experiment import DATA, TASKS, Experiment, Frames, ImageSet, Task
from benchmarks.recipes import numbers
from benchmarks.record import RESULTS
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.files import make_folder, write_json
from keras_unet.runs import describe_score

LARGEST = 0.05  # difference of promised and true score, if groups were held out


@dataclass(frozen=True)
class Blocks:
    """Blocks of the frames of films; a block of a film is a group.

    Attributes:
        folder: Folder in DATA, in the layout of the Cell Tracking Challenge.
        films: Frames of each film.
        rows: Blocks below each other.
        columns: Blocks beside each other.
        scored: Number of the block of each film that is scored, in the order of the films.
        save: Outputs of `keras-unet predict`.
        metrics: Metrics of `keras-unet evaluate`, with `ctc` and `matching`.
    """

    folder: str
    films: tuple[Frames, ...]
    rows: int
    columns: int
    scored: tuple[int, ...]
    save: str = "instances,probabilities"
    metrics: str = "pixels,ctc,matching"

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Writes the blocks of both parts, and returns their names."""
        names: tuple[list[str], list[str]] = ([], [])
        for film, scored in zip(self.films, self.scored, strict=True):
            for _, image, label in film.files(DATA / self.folder):
                for number, arrays in enumerate(self._blocks(image, label)):
                    name = f"film{film.sequence}-block{number}_{image.stem}"
                    is_scored = number == scored
                    folder = held_out if is_scored else training
                    for part, array in zip(("images", "labels"), arrays, strict=True):
                        write_tiff(make_folder(folder / part) / f"{name}.tif", array, axes="YX")
                    names[is_scored].append(name)
        return names

    def _blocks(self, image: Path, label: Path) -> Iterator[list[Any]]:
        planes = [read_planes(path)[0, ..., 0] for path in (image, label)]
        for band in zip(*(np.array_split(plane, self.rows) for plane in planes), strict=True):
            cut = [np.array_split(plane, self.columns, axis=1) for plane in band]
            yield from map(list, zip(*cut, strict=True))


@dataclass(frozen=True)
class Sources:
    """Nuclei by source: BBBC039, and those of DSB 2018 by the size of the image.

    Attributes:
        scored: Name of the source that is scored.
        most: Number of images of a source, the first by name.
        save: Outputs of `keras-unet predict`.
        metrics: Metrics of `keras-unet evaluate`.
    """

    scored: str
    most: int = 40
    save: str = "instances,probabilities"
    metrics: str = "pixels,ctc,matching"

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Copies the images of both parts, and returns their names."""
        names: tuple[list[str], list[str]] = ([], [])
        numbers: dict[str, int] = defaultdict(int)
        for image in sorted((DATA / "nuclei" / "images").iterdir()):
            source = _source(image)
            numbers[source] += 1
            if numbers[source] <= self.most:
                name, is_scored = f"{source}_{numbers[source]:03}", source == self.scored
                folder = held_out if is_scored else training
                for part in ("images", "labels"):
                    original = DATA / "nuclei" / part / image.name
                    shutil.copy(original, make_folder(folder / part) / f"{name}.png")
                names[is_scored].append(name)
        return names


def _source(path: Path) -> str:
    collection = path.stem.rsplit("_", 1)[0]
    with Image.open(path) as image:
        size = f"{image.height}x{image.width}"
    if collection != "dsb":
        return collection
    return f"dsb{size}" if size in ("256x256", "360x360", "520x696") else "dsb-other"


FILMS = Frames("01", "01_GT/SEG"), Frames("02", "02_GT/SEG")
SOURCES = "bbbc039", "dsb256x256", "dsb360x360", "dsb520x696"
BY_SOURCE = "--groups", r"(\S+)_\d+", "--allow-empty"
CASES: Mapping[str, tuple[ImageSet, tuple[str, ...]]] = {  # images, options of keras-unet train
    "psc-blocks": (Blocks("films/PhC-C2DL-PSC", FILMS, 2, 3, scored=(1, 5)), ()),
    **{f"nuclei-{source}": (Sources(source), BY_SOURCE) for source in SOURCES},
    "phase": (Task("phase", 6), ()),
    "psc-films": (TASKS["psc"], ()),
}
DEFAULT = "psc-blocks", "nuclei-bbbc039", "phase", "psc-films"


@click.command()
@click.argument("cases", nargs=-1, metavar="[CASE ...]", type=click.Choice(list(CASES)))
@click.option("--steps", type=int, help="Training steps of each.")
@click.option("--minutes", type=float, help="Training minutes of each.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--option", "options", multiple=True, help="Passed on to keras-unet train.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS / "promise.json")
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(
    cases: Sequence[str],
    steps: int | None,
    minutes: float | None,
    seed: int,
    options: tuple[str, ...],
    out: Path,
    work: Path,
) -> None:
    """Train and score each case, and print promised and true score."""
    if (steps is None) == (minutes is None):
        raise click.UsageError("expected either --steps or --minutes")
    length = ("--steps", f"{steps}") if minutes is None else ("--max-minutes", f"{minutes:g}")
    given = (*length, "--seed", f"{seed}", *options)
    rows = json.loads(out.read_text())["rows"] if out.exists() else {}
    for case in cases or DEFAULT:
        images, grouping = CASES[case]
        result = Experiment(images, work / "promise", (*given, *grouping), ((),)).result()
        rows[case] = _promise(result) | result
        write_json(make_folder(out.parent) / out.name, {"table": table(rows), "rows": rows})
        click.echo("\n".join(table(rows)))


def _promise(result: Mapping[str, Any]) -> dict[str, Any]:
    """Compares the score that the training printed with that of the images that it did not see."""
    (training,) = result["trainings"]
    scores = numbers(result["scores"]["overall"])
    promised, true = training["score"], (scores["seg"] + scores["ap_50"]) / 2
    return {
        "promised": promised,
        "called": describe_score(training),
        "kind": training["validation"]["kind"],
        "true": true,
        "difference": None if promised is None else promised - true,
    }


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a Markdown table, with a row for each case."""
    head = f"| case | promised | true | difference (goal for groups: {LARGEST}) |"
    lines = [head, "|" + " --- |" * 4]
    for case, row in rows.items():
        difference = "" if row["difference"] is None else f"{row['difference']:+.4f}"
        lines.append(f"| {case} | {row['called']} | {row['true']:.4f} | {difference} |")
    return lines


if __name__ == "__main__":
    main()
