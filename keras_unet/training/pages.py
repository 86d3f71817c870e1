"""The pages of a run and of an ensemble, but for the images: data, network, training, commands."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.wording import counted
from keras_unet.ensembles import Ensemble
from keras_unet.report.charts import Curve, curves_svg, network_svg
from keras_unet.report.page import Page
from keras_unet.runs import Run
from keras_unet.training.checkpoint import HISTORY
from keras_unet.training.options import SettledOptions, TrainingOptions
from keras_unet.training.resume import options_of


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
    return f"{_command(folder, options)} --folds {folds}"


def _command(data: str, options: SettledOptions) -> str:
    usual = TrainingOptions()
    words = ["keras-unet", "train", str(data), "--run", "RUN"]
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
