"""The report of a run or an ensemble: one HTML file on data, network, training and images."""

from __future__ import annotations

import csv
import logging
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.evaluation.comparison import DEFAULT_METRICS, Comparison
from keras_unet.evaluation.figures import Shown, cells, scored, slider
from keras_unet.evaluation.tables import score_tables
from keras_unet.files import check_replaceable, check_writable, make_folder
from keras_unet.prediction.networks import load_network, load_runs
from keras_unet.report.charts import Curve, curves_svg, network_svg
from keras_unet.report.page import Page, write_page
from keras_unet.runs import REPORT, Ensemble, Run, is_ensemble
from keras_unet.training.checkpoint import HISTORY
from keras_unet.training.dataset import ARRAYS, TrainingData, weight_maps
from keras_unet.training.options import SettledOptions, TrainingOptions
from keras_unet.training.resume import options_of
from keras_unet.training.targets import WeightMaps
from keras_unet.training.validation import View, Watch


def page_without_images(run: Run) -> Page:
    """Makes the page of a run."""
    record, options, network = run.record, options_of(run), run.architecture
    data = record["data"]
    return Page(
        title=_title("Run", run.folder),
        summary=_summary(run),
        data=_words_on_data(run, f"{len(data['validation'])} held out"),
        warnings=data.get("warnings", ()),
        network=network_svg(network, options.tile),
        network_words=f"Depth {network.depth}, {network.base_filters} base features, padding "
        f'"{network.padding}": {options.tile} x {options.tile} pixels in, '
        f"{network.output_size(options.tile)} x {network.output_size(options.tile)} out. Numbers "
        "above a box are its channels, those below its height and width.",
        curves=_curves({"": run}),
        command=command_of(run),
        made=_made(run, options),
        further=_resume(run) | _further(run.folder),
    )


def page_of_ensemble_without_images(ensemble: Ensemble, runs: Sequence[Run]) -> Page:
    """Makes the page of an ensemble, all folds of which are trained.

    Args:
        ensemble: The ensemble.
        runs: Its runs, with its rule.
    """
    first, folds = runs[0], len(runs)
    images = sum(len(run.record["data"]["validation"]) for run in runs)
    minutes = sum(run.record["outcome"]["seconds"] for run in runs) / 60
    return replace(
        page_without_images(first),
        title=_title("Ensemble", ensemble.folder),
        summary=f"{folds} U-Nets trained on {counted(images, 'image')} of "
        f"{first.record['data']['folder']} in {minutes:.1f} minutes, each without a part of them, "
        "which predict together.",
        data=_words_on_data(first, f"each held out from one of {folds} networks"),
        curves=_curves({f"{number}": run for number, run in enumerate(runs, 1)}),
        command=_command_of_ensemble(ensemble, runs),
        made=_made_of_ensemble(runs),
        further=_further(ensemble.folder),
    )


def command_of(run: Run) -> str:
    """Returns the command that makes a run again, with all numbers that its data have set."""
    return _command(run.record["data"]["folder"], options_of(run))


def _command_of_ensemble(ensemble: Ensemble, runs: Sequence[Run]) -> str:
    options, folds = SettledOptions.from_dict(ensemble.options), len(runs)
    if options.max_minutes is not None:
        options = replace(options, max_minutes=options.max_minutes * folds)
    folder = runs[0].record["data"]["folder"]
    return _command(folder, options, folds)


def _command(data: str, options: SettledOptions, folds: int | None = None) -> str:
    usual = TrainingOptions()
    chosen = {
        name: value
        for name, value in options.to_dict().items()
        if value is not None and value != getattr(usual, name)
    }
    chosen |= {} if folds is None else {"folds": folds}
    if data == ARRAYS:
        function = "train" if folds is None else "cross_validate"
        arguments = [f"{name}={value!r}" for name, value in chosen.items()]
        return f"keras_unet.{function}({', '.join(['images, labels', *arguments])})"
    words = ["keras-unet", "train", str(data), "--run", "RUN"]
    for name, value in chosen.items():
        words += _words(name, value)
    return shlex.join(words)


def _words(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list | tuple):
        return [f"--{flag}", ",".join(value)]
    return [f"--{flag}", f"{value}"]


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


def _title(kind: str, folder: Path) -> str:
    return f"{kind} {folder.resolve().name}"


def _words_on_data(run: Run, held_out: str) -> list[str]:
    data = run.record["data"]
    labels = "one number a cell" if run.scheme.kind == "instances" else "classes"
    images = counted(len(data["training"]) + len(data["validation"]), "image")
    lines = [f"{images} ({data['dtype']}) with labels ({labels}), {held_out}."]
    if "fingerprint" in data:
        lines += Fingerprint.from_dict(data["fingerprint"]).describe().splitlines()
    return [f"{line[:1].upper()}{line[1:]}" for line in lines] + list(data.get("notes", ()))


def _curves(runs: Mapping[str, Run]) -> list[str]:
    histories = {name: _history(run) for name, run in runs.items()}
    loss, score = (
        {name: curve for name, rows in histories.items() if (curve := _curve(rows, column))}
        for column in ("loss", "score")
    )
    (score_name,) = {
        run.record.get("outcome", {}).get("score_name", "score") for run in runs.values()
    }
    drawn = [curves_svg("loss", loss)] if loss else []
    if score:
        drawn.append(curves_svg(f"{score_name}, images held out", score, highest=True))
    return drawn


def _history(run: Run) -> list[dict[str, str]]:
    path = run.folder / HISTORY
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _curve(rows: Sequence[Mapping[str, str]], column: str) -> Curve:
    return [(int(row["step"]), float(row[column])) for row in rows if row[column]]


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


def _made_of_ensemble(runs: Sequence[Run]) -> dict[str, str]:
    outcomes = [run.record["outcome"] for run in runs]
    scores = [one["best_score"] for one in outcomes if one["best_score"] is not None]
    listed = {
        "seeds": [str(options_of(run).seed) for run in runs],
        "steps": [f"{one['steps']:,}" for one in outcomes],
        f"best {outcomes[0]['score_name']}": [f"{score:.4f}" for score in scores],
    }
    first = _made(runs[0], options_of(runs[0]))
    shared = {name: first[name] for name in ("precision", "started", "versions", "rule for cells")}
    return {name: ", ".join(values) for name, values in listed.items()} | shared


def _resume(run: Run) -> dict[str, str]:
    if run.record.get("outcome", {}).get("complete"):
        return {}
    data = shlex.quote(str(run.record["data"]["folder"]))
    folder = shlex.quote(str(run.folder))
    return {"Go on training": f"keras-unet train {data} --run {folder} --resume"}


def _further(trained: Path) -> dict[str, str]:
    folder = shlex.quote(str(trained))
    return {
        "Predict other images": f"keras-unet predict {folder} IMAGES --out PREDICTIONS",
        "Score predictions of images with labels": "keras-unet evaluate PREDICTIONS LABELS",
        "Export it, for a server or any program with TensorFlow": (
            f"keras-unet export {folder} MODEL/cells --format saved_model"
        ),
        "Serve it (export/README.md says how), and ask the server": (
            "keras-unet predict --server grpc://localhost:8500/cells IMAGES --out PREDICTIONS"
        ),
    }


_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Look:
    """Predictions of a run's network for its images.

    Attributes:
        watch: The run and its images held out; where none is, one of the training.
        views: What the network makes of these.
        weights: The weight maps of the run.
    """

    watch: Watch
    views: Sequence[View]
    weights: WeightMaps

    def shown(self) -> list[tuple[Shown, View]]:
        """Puts each image beside its truth and its prediction."""
        return [
            (Shown(_comparison(self.watch, view), view.target.sample.image), view)
            for view in self.views
        ]


def report_run(
    run_folder: Path,
    out: Path | None = None,
    *,
    data: Path | TrainingData | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the report of a run or of an ensemble.

    Of an ensemble it shows each image as the network sees it that was trained without it, with
    cells made by the ensemble's rule.

    Args:
        run_folder: The run, or the ensemble.
        out: File to write; None for `report.html` in its folder. An older one is replaced.
        data: The training images, if they have moved since. Where they are not found, the report
            says so and shows no images.
        overwrite: Whether a file may be replaced that this program has not written.

    Returns:
        The file.

    Raises:
        ValueError: If a record cannot be read, the images are others than those of the run, or the
            file is there and another's.
        OSError: If the run or `data` is missing or not trained yet, or the file cannot be written.
    """
    path = out or run_folder / REPORT
    if is_ensemble(run_folder):
        runs = load_runs(run_folder)
        page = page_of_ensemble_without_images(Ensemble.load(run_folder), runs)
    else:
        runs = (Run.load(run_folder),)
        page = page_without_images(runs[0])
    check_writable(path.parent)
    check_replaceable(path, "html", overwrite=overwrite)
    read = _read(runs[0], data)
    if read is None:
        folder = runs[0].record["data"]["folder"]
        _log.warning(f"{folder}: the images of the run are not there; --data names their folder")
        missing = f"the images are missing: {folder} is not there"
        return write_page(path, replace(page, warnings=[*page.warnings, missing]))
    with tempfile.TemporaryDirectory() as folder:
        rooms = [make_folder(Path(folder) / f"{number}") for number, _ in enumerate(runs)]
        looks = [_look(run, read, room) for run, room in zip(runs, rooms, strict=True)]
        return write_page(path, _with_images(page, looks))


def page_of_run(watch: Watch, views: Sequence[View], weights: WeightMaps) -> Page:
    """Makes the page of a run and what its network makes of the images held out.

    Args:
        watch: The run and its images; where none is held out, one of the training.
        views: What the network makes of these.
        weights: The weight maps of the run.
    """
    return _with_images(page_without_images(watch.run), [Look(watch, views, weights)])


def _look(run: Run, data: TrainingData, folder: Path) -> Look:
    """Looks at the images of a run; the folder is for its weight maps, as long as they are used."""
    names, held_out = run.record["data"]["training"], run.record["data"]["validation"]
    samples = data.samples.samples
    training = data.targets([sample for sample in samples if sample.name in names])
    watched = data.targets([sample for sample in samples if sample.name in held_out])
    watch = Watch.of(run, training, watched)
    weights = weight_maps(folder, training, run.architecture.classes, options_of(run))
    return Look(watch, watch.views(load_network(run)), weights)


def _with_images(page: Page, looks: Sequence[Look]) -> Page:
    shown = {one.comparison.name: (one, view, look) for look in looks for one, view in look.shown()}
    watch, images = looks[0].watch, [one for one, _, _ in shown.values()]
    kind = watch.run.scheme.kind
    rows, overall = scored(images, DEFAULT_METRICS[kind])

    def weights_of(name: str) -> NDArray[np.float32]:
        _, view, look = shown[name]
        return look.weights.of(view.target)

    drawn = slider(images, rows, weights_of)
    worst, best = cells(images) if kind == "instances" else ([], [])
    return replace(
        page,
        images=drawn,
        images_words=f"{counted(len(drawn), 'image')} of {len(images)}{_held_out(looks)}."
        f"{' The one found worst comes first.' if len(drawn) > 1 else ''}",
        worst=worst,
        best=best,
        tables=score_tables(rows, overall, from_probabilities=True),
        scores_words=_words_on_scores(looks),
    )


def _read(run: Run, data: Path | TrainingData | None) -> TrainingData | None:
    """Reads the images of a run; None where they are not where they were and no folder is named."""
    if not isinstance(data, TrainingData):
        folder = data or Path(run.record["data"]["folder"])
        if data is None and not folder.is_dir():
            return None
        data = TrainingData.of(folder, None, options_of(run))
    if data.digests != run.record["data"].get("digests"):
        raise ValueError(
            f"{data.source}: expected the images and labels that {run.folder} was trained on. "
            "Received others; name their folder by --data"
        )
    return data


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


def _held_out(looks: Sequence[Look]) -> str:
    if len(looks) > 1:
        return ", as the network sees each that was trained without it"
    if looks[0].watch.held_out:
        return " held out: training has not learned from them"
    return " of the training itself, as none was held out: new images may come out worse"


def _words_on_scores(looks: Sequence[Look]) -> str:
    watch = looks[0].watch
    whose = "Images held out" if watch.held_out else "An image of the training itself"
    alone = ", each by the one network that has not seen it" if len(looks) > 1 else ""
    return (
        f"{whose}{alone}, cells made by the rule chosen in training "
        f"({watch.run.rule.describe()}). The rule was chosen on these images, so new ones may come "
        "out a little worse."
    )
