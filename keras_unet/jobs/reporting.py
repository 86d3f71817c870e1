"""The report of a run: one HTML file on its data, network, training, scores and images."""

from __future__ import annotations

import csv
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_unet.checkpoint import HISTORY
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.samples import Samples, read_samples
from keras_unet.data.wording import counted
from keras_unet.html.curves import curve_svg
from keras_unet.html.diagram import network_svg
from keras_unet.html.page import Page, write_page
from keras_unet.jobs.comparing import Comparison
from keras_unet.jobs.folders import check_writable
from keras_unet.jobs.networks import load_network, load_single_run
from keras_unet.jobs.options import SettledOptions, TrainingOptions
from keras_unet.jobs.preparing import weight_maps
from keras_unet.jobs.scoring import DEFAULT_METRICS
from keras_unet.jobs.showing import Shown, cells, scored, slider, tables
from keras_unet.jobs.starting import options_of
from keras_unet.jobs.targets import Target, WeightMaps, sample_digest
from keras_unet.jobs.watch import View, Watch
from keras_unet.runs import REPORT, Run


def report_run(
    run_folder: Path,
    out: Path | None = None,
    *,
    data: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Writes the report of a run.

    Args:
        run_folder: The run.
        out: File to write; None for `report.html` in the run's folder. An older one is replaced.
        data: The training images, if they have moved since. Where they are not found, the report
            says so and shows no images.
        say: Takes a line for a person.

    Returns:
        The file.

    Raises:
        ValueError: If the record cannot be read, or the images are others than those of the run.
        OSError: If the run or `data` is missing, the run is an ensemble or not trained yet, or the
            file cannot be written.
    """
    run = load_single_run(run_folder, "report on")
    path = out or run.folder / REPORT
    check_writable(path.parent)
    samples = _samples(run, data)
    if samples is None:
        folder = run.record["data"]["folder"]
        say(f"Warning: {folder}: the images of the run are not there; --data names their folder")
        return write_page(
            path, _page(run, missing=f"the images are missing: {folder} is not there")
        )
    options, names = options_of(run), set(run.record["data"]["training"])
    training = [Target.of(one, run.scheme) for one in samples.samples if one.name in names]
    held_out = [one for one in samples.samples if one.name in run.record["data"]["validation"]]
    watch = Watch.of(run, training, held_out)
    views = watch.views(load_network(run))
    with tempfile.TemporaryDirectory() as folder:
        weights = weight_maps(Path(folder), training, run.architecture.classes, options)
        return write_page(path, page_of_run(watch, views, weights))


def page_of_run(watch: Watch, views: Sequence[View], weights: WeightMaps) -> Page:
    """Makes the page of a run and what its network makes of the images held out.

    Args:
        watch: The run and its images; where none is held out, one of the training.
        views: What the network makes of these.
        weights: The weight maps of the run.
    """
    page = _page(watch.run)
    kind = watch.run.scheme.kind
    shown = [Shown(_comparison(watch, view), view.target.sample.image) for view in views]
    targets = {view.target.sample.name: view.target for view in views}
    rows, overall = scored(shown, DEFAULT_METRICS[kind])
    images = slider(shown, rows, lambda name: weights.of(targets[name]))
    worst, best = cells(shown) if kind == "instances" else ([], [])
    held_out = (
        "held out: training has not learned from them"
        if watch.held_out
        else ("of the training itself, as none was held out: new images may come out worse")
    )
    return replace(
        page,
        images=images,
        images_words=f"{counted(len(images), 'image')} of {len(shown)} {held_out}."
        f"{' The one found worst comes first.' if len(images) > 1 else ''}",
        worst=worst,
        best=best,
        tables=tables(rows, overall),
        scores_words=_words_on_scores(watch, overall.values),
    )


def command_of(run: Run) -> str:
    """Returns the command that makes a run again, with all numbers that its data have set."""
    options, usual = options_of(run), TrainingOptions()
    words = ["keras-unet", "train", str(run.record["data"]["folder"]), "--run", "RUN"]
    for name, value in options.to_dict().items():
        if value is not None and value != getattr(usual, name):
            words += _words(name, value)
    return shlex.join(words)


def _words(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list | tuple):
        return [f"--{flag}", ",".join(value)]
    return [f"--{flag}", f"{value}"]


def _samples(run: Run, data: Path | None) -> Samples | None:
    """Reads the images of a run; None where they are not where they were and no folder is named."""
    folder = data or Path(run.record["data"]["folder"])
    if data is None and not folder.is_dir():
        return None
    options = options_of(run)
    samples = read_samples(
        folder, labels=options.labels, ignore=options.ignore, allow_empty=options.allow_empty
    )
    digests = {sample.name: sample_digest(sample) for sample in samples.samples}
    if digests != run.record["data"].get("digests"):
        raise ValueError(
            f"{folder}: expected the images and labels that {run.folder} was trained on. Received "
            "others; name their folder by --data"
        )
    return samples


def _page(run: Run, missing: str | None = None) -> Page:
    """Makes of a page what needs no image."""
    record, options, network = run.record, options_of(run), run.architecture
    data = record["data"]
    warnings = [*data.get("warnings", ()), *([missing] if missing else [])]
    return Page(
        title=f"Run {run.folder.resolve().name}",
        summary=_summary(run),
        data=_words_on_data(run),
        warnings=warnings,
        network=network_svg(network, options.tile),
        network_words=f"Depth {network.depth}, {network.base_filters} base features, padding "
        f'"{network.padding}": {options.tile} x {options.tile} pixels in, '
        f"{network.output_size(options.tile)} x {network.output_size(options.tile)} out. Numbers "
        "above a box are its channels, those below its height and width.",
        curves=_curves(run),
        command=command_of(run),
        made=_made(run, options),
        further=_further(run),
    )


def _summary(run: Run) -> str:
    data, outcome = run.record["data"], run.record.get("outcome")
    images = counted(len(data["training"]), "image")
    if outcome is None:
        return f"A U-Net in training on {images} of {data['folder']}."
    score = outcome["best_score"]
    best = (
        ""
        if score is None
        else f" Its best {outcome['score_name']} on images held out: {score:.4f}."
    )
    state = "" if outcome["complete"] else " It was interrupted and can be gone on with."
    return (
        f"A U-Net trained on {images} of {data['folder']} in {outcome['seconds'] / 60:.1f} minutes."
        f"{best}{state}"
    )


def _words_on_data(run: Run) -> list[str]:
    data = run.record["data"]
    held_out = len(data["validation"])
    labels = "one number a cell" if run.scheme.kind == "instances" else "classes"
    images = counted(len(data["training"]) + held_out, "image")
    lines = [f"{images} ({data['dtype']}) with labels ({labels}), {held_out} held out."]
    if "fingerprint" in data:
        lines += Fingerprint.from_dict(data["fingerprint"]).describe().splitlines()
    return [f"{line[:1].upper()}{line[1:]}" for line in lines]


def _curves(run: Run) -> list[str]:
    path = run.folder / HISTORY
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = [int(row["step"]) for row in rows]
    loss, score = (
        [float(row[name]) if row[name] else None for row in rows] for name in ("loss", "score")
    )
    name = run.record.get("outcome", {}).get("score_name", "score")
    drawn = [curve_svg("loss", steps, loss)] if any(loss) else []
    if any(value is not None for value in score):
        drawn.append(curve_svg(f"{name}, images held out", steps, score, highest=True))
    return drawn


def _made(run: Run, options: SettledOptions) -> dict[str, str]:
    record, versions = run.record, run.record.get("versions", {})
    outcome: Mapping[str, Any] = record.get("outcome", {})
    made = {
        "seed": str(options.seed),
        "precision": run.precision,
        "steps": f"{outcome['steps']:,}" if outcome else "-",
        "started": record.get("started", "-"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "rule for cells": run.rule.describe(),
    }
    skipped = outcome.get("skipped_updates")
    return made | (
        {"updates not applied": f"{skipped}, their gradient not finite"} if skipped else {}
    )


def _further(run: Run) -> dict[str, str]:
    folder = shlex.quote(str(run.folder))
    data = shlex.quote(str(run.record["data"]["folder"]))
    interrupted = not run.record.get("outcome", {}).get("complete")
    resume = {"Go on training": f"keras-unet train {data} --run {folder} --resume"}
    return (resume if interrupted else {}) | {
        "Predict other images": f"keras-unet predict {folder} IMAGES --out PREDICTIONS",
        "Score predictions of images with labels": "keras-unet evaluate PREDICTIONS LABELS",
        "Export it, for a server or any program with TensorFlow": (
            f"keras-unet export {folder} MODEL/cells --format saved_model"
        ),
        "Serve it (export/README.md says how), and ask the server": (
            "keras-unet predict --server grpc://localhost:8500/cells IMAGES --out PREDICTIONS"
        ),
    }


def _comparison(watch: Watch, view: View) -> Comparison:
    """Puts truth and prediction into the terms of scoring, one plane each."""
    counted_pixels = view.target.counted
    return Comparison(
        view.target.sample.name,
        view.target.sample.instances[None] * counted_pixels[None],
        (watch.instances(view) * counted_pixels)[None],
        view.probability[None],
        counted_pixels[None],
    )


def _words_on_scores(watch: Watch, values: Mapping[str, float]) -> str:
    whose = "Images held out" if watch.held_out else "An image of the training itself"
    return (
        f"{whose}, cells made by the rule of the run ({watch.run.rule.describe()}). The pixel "
        f"error is that of probabilities above {values['pixel_error_threshold']:.1f}. The rule was "
        "chosen on these images, so new ones may come out a little worse."
    )
