"""Gain of each instance option: `python -m benchmarks.instances NAME RUN DATA`.

RUN is a run or an ensemble, DATA a folder with images/ and labels/; its training images are
skipped. Options are added one after the other, from connected components at a probability of 0.5 to
the instance options of the run, without and with test-time augmentation. SEG, AP at an IoU of 0.5
and the counts go to `benchmarks/results/instances-NAME.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from benchmarks.record import RESULTS, origin
from keras_unet.data.samples import Sample, read_samples
from keras_unet.files import make_folder, write_json
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances
from keras_unet.metrics import matching, seg
from keras_unet.prediction.load import load
from keras_unet.prediction.segmenter import Segmenter

_PATH = click.Path(path_type=Path)
PLAIN = InstanceOptions(gap=0, fill_holes=False)
STEPS = {
    "plain connected components": (),
    "+ threshold": ("threshold",),
    "+ minimum size": ("minimum_size",),
    "+ markers and watershed": ("markers", "merge_threshold"),
    "+ gap closed": ("gap",),
    "+ holes filled": ("fill_holes",),
}


@click.command()
@click.argument("name")
@click.argument("run_folder", metavar="RUN", type=_PATH)
@click.argument("data", type=_PATH)
def main(name: str, run_folder: Path, data: Path) -> None:
    """Scores each step, and writes the results."""
    segmenter = load(run_folder)
    records = [member.info.record["data"] for member in segmenter.members]
    samples = _unseen(segmenter, data)
    references = [sample.instances for sample in samples]
    result = {
        "benchmark": f"python -m benchmarks.instances {' '.join(sys.argv[1:])}",
        **origin(),
        "images": [sample.name for sample in samples],
        "options_selected_on": sorted({name for one in records for name in one["validation"]}),
        "options": segmenter.info.instances.to_dict(),
        "prediction": _measured(segmenter, samples, references, tta=False),
        "tta": _measured(segmenter, samples, references, tta=True),
    }
    write_json(make_folder(RESULTS) / f"instances-{name}.json", result)
    print(json.dumps(result, indent=2))


def _unseen(segmenter: Segmenter, data: Path) -> list[Sample]:
    encoding = segmenter.info.encoding
    records = [member.info.record["data"] for member in segmenter.members]
    seen = {name for record in records for name in record["training"]}
    samples = read_samples(data, labels=encoding.kind, ignore=encoding.ignore).samples
    return [sample for sample in samples if sample.name not in seen]


def _measured(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    references: Sequence[NDArray[Any]],
    tta: bool,
) -> dict[str, Any]:
    started = time.monotonic()
    probabilities = [
        cell_probability(segmenter.predict(sample.image, tta=tta)) * ~sample.ignored
        for sample in samples
    ]
    seconds = round(time.monotonic() - started, 1)
    steps = {
        step: _scores(references, [label_instances(one, rule) for one in probabilities])
        for step, rule in _rules(segmenter.info.instances)
    }
    return {"seconds_to_predict": seconds, "steps": steps}


def _rules(chosen: InstanceOptions) -> Iterator[tuple[str, InstanceOptions]]:
    rule = PLAIN
    for step, names in STEPS.items():
        numbers: dict[str, Any] = {name: getattr(chosen, name) for name in names}
        rule = replace(rule, **numbers)
        yield step, rule


def _scores(references: Sequence[NDArray[Any]], results: Sequence[NDArray[Any]]) -> dict[str, Any]:
    (matched,) = matching(references, results, [0.5])
    return {
        "seg": round(seg(references, results), 4),
        "ap": round(matched.ap, 4),
        "tp": matched.tp,
        "fp": matched.fp,
        "fn": matched.fn,
    }


if __name__ == "__main__":
    main()
