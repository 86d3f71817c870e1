"""HTML report of a run or an ensemble: images, scores, curves, data, network, provenance."""

from __future__ import annotations

import csv
import logging
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from keras_unet.console import counted
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.samples import classes_in
from keras_unet.evaluation.comparison import DEFAULT_METRICS, LabelPair
from keras_unet.evaluation.figures import (
    ImagePair,
    draw_extreme_cells,
    draw_images,
    score_images,
)
from keras_unet.evaluation.objects import measured_objects
from keras_unet.evaluation.tables import score_tables
from keras_unet.files import check_replaceable, check_writable, make_folder
from keras_unet.measurement.properties import classes_of_objects
from keras_unet.prediction.networks import load_network
from keras_unet.report.charts import Curve, curves_svg, network_svg
from keras_unet.report.page import Page, write_page
from keras_unet.runs import (
    ARRAYS,
    REPORT,
    Ensemble,
    Run,
    describe_score,
    held_out_of,
    is_ensemble,
    runs_of,
)
from keras_unet.training.checkpoint import HISTORY
from keras_unet.training.dataset import TrainingData, weight_maps
from keras_unet.training.options import ResolvedOptions, TrainingOptions
from keras_unet.training.resume import options_of
from keras_unet.training.targets import WeightMaps
from keras_unet.training.validation import ImagePrediction, Validator

_log = logging.getLogger(__name__)


class _RunImages(NamedTuple):
    """A run with its images held out, their predictions, and its weight maps."""

    validator: Validator
    predictions: Sequence[ImagePrediction]
    weights: WeightMaps


def report_run(
    run_folder: Path,
    out: Path | None = None,
    *,
    data: Path | TrainingData | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the report of a run or of an ensemble.

    In the report of an ensemble, each image is predicted by the network that was trained without
    it, with the ensemble's instance options.

    Args:
        run_folder: Folder of the run or ensemble.
        out: File to write; None for `report.html` in that folder. An earlier report is replaced.
        data: Training images, if their folder has moved. If they are not found, the report has a
            warning and no images.
        overwrite: Whether to replace a file that is not a report of keras-unet.

    Returns:
        Path of the report.

    Raises:
        ValueError: If a record cannot be read, the images differ from those of the run, or the
            file exists and is not a report of keras-unet.
        OSError: If the run or `data` is missing or not trained yet, or the file cannot be written.
    """
    path = out or run_folder / REPORT
    is_run = not is_ensemble(run_folder)
    runs = (Run.load(run_folder),) if is_run else runs_of(Ensemble.load(run_folder))
    page = _page(run_folder, runs)
    check_writable(path.parent)
    check_replaceable(path, "html", overwrite=overwrite)
    training_data = _read_data(runs[0], data)
    if training_data is None:
        folder = runs[0].record["data"]["folder"]
        _log.warning(f"{folder}: the images of the run are missing; give their folder by --data")
        missing = f"the images are missing: {folder} does not exist"
        return write_page(path, replace(page, warnings=[*page.warnings, missing]))
    with tempfile.TemporaryDirectory() as folder:
        images_of_runs = [
            _predict_images(run, training_data, make_folder(Path(folder) / f"{number}"))
            for number, run in enumerate(runs)
        ]
        return write_page(path, _with_images(page, images_of_runs))


def page_of_run(
    validator: Validator, predictions: Sequence[ImagePrediction], weights: WeightMaps
) -> Page:
    """Returns the page of a run.

    Args:
        validator: Validator of the run.
        predictions: Predictions of its images.
        weights: Weight maps of the run.
    """
    page = _page(validator.run.folder, [validator.run])
    return _with_images(page, [_RunImages(validator, predictions, weights)])


def _predict_images(run: Run, data: TrainingData, folder: Path) -> _RunImages:
    """Predicts the images held out; the folder is for their weight maps."""
    names, held_out = run.record["data"]["training"], run.record["data"]["validation"]
    samples = data.samples.samples
    training = data.targets([sample for sample in samples if sample.name in names])
    validation = data.targets([sample for sample in samples if sample.name in held_out])
    validator = Validator.of(run, training, validation)
    weights = weight_maps(folder, training, run.architecture.classes, options_of(run))
    return _RunImages(validator, validator.predictions(load_network(run)), weights)


def _read_data(run: Run, data: Path | TrainingData | None) -> TrainingData | None:
    """Reads the images of a run; returns None if their recorded folder does not exist."""
    if not isinstance(data, TrainingData):
        folder = data or Path(run.record["data"]["folder"])
        if data is None and not folder.is_dir():
            return None
        data = TrainingData.of(folder, None, options_of(run))
    if data.digests != run.record["data"].get("digests"):
        raise ValueError(
            f"{data.source}: expected the images and labels that {run.folder} was trained on. "
            "Received others; give their folder by --data"
        )
    return data


def _page(folder: Path, runs: Sequence[Run]) -> Page:
    """Returns the page of a run, or of an ensemble's runs, without images."""
    run, options, network = runs[0], options_of(runs[0]), runs[0].architecture
    return Page(
        title=f"{'Run' if len(runs) == 1 else 'Ensemble'} {folder.resolve().name}",
        summary=_summary(runs),
        data=_describe_data(runs),
        warnings=run.record["data"].get("warnings", ()),
        network=network_svg(network, options.tile),
        network_text=f"Depth {network.depth}, {network.base_filters} base features, padding "
        f'"{network.padding}": {options.tile} x {options.tile} pixels in, '
        f"{network.output_size(options.tile)} x {network.output_size(options.tile)} out. Numbers "
        "above a box are its channels, those below its height and width.",
        curves=_curves(runs),
        command=command_of(run) if len(runs) == 1 else _ensemble_command(folder, runs),
        provenance=_provenance(runs),
        next_steps=_resume_command(run) | _next_steps(folder),
    )


def _summary(runs: Sequence[Run]) -> str:
    data, is_whole_ensemble = runs[0].record["data"], len(runs) > 1
    outcomes: list[Any] = [run.record.get("outcome") for run in runs]
    number = len(data["training"]) + is_whole_ensemble * len(data["validation"])
    images = f"{counted(number, 'image')} of {data['folder']}"
    if outcomes[0] is None:
        return f"A U-Net in training on {images}."
    minutes = sum(outcome["seconds"] for outcome in outcomes) / 60
    if is_whole_ensemble:
        return (
            f"An ensemble of {len(runs)} U-Nets trained on {images} in {minutes:.1f} minutes, each "
            "without a part of the images."
        )
    score = describe_score(outcomes[0])
    best = "" if score is None else f" Its validation score: {score}."
    state = "" if outcomes[0]["complete"] else " It was interrupted and can be resumed."
    return f"A U-Net trained on {images} in {minutes:.1f} minutes.{best}{state}"


def _describe_data(runs: Sequence[Run]) -> list[str]:
    data = runs[0].record["data"]
    labels = "one number per cell" if runs[0].encoding.kind == "instances" else "classes"
    images = counted(len(data["training"]) + len(data["validation"]), "image")
    held_out = f"{len(data['validation'])} held out"
    if len(runs) > 1:
        held_out = f"each held out from one of {len(runs)} networks"
    lines = [f"{images} ({data['dtype']}) with labels ({labels}), {held_out}."]
    if "fingerprint" in data:
        lines += Fingerprint.from_dict(data["fingerprint"]).describe().splitlines()
    if data.get("objects"):
        counts = ", ".join(f"{number:,} {name}" for name, number in data["objects"].items())
        lines.append(f"cells by class, in all images: {counts}")
    return [f"{line[:1].upper()}{line[1:]}" for line in lines] + list(data.get("notes", ()))


def _curves(runs: Sequence[Run]) -> list[str]:
    """Draws loss and score over the steps; curves of an ensemble are named by fold."""
    names = [f"{number}" for number in range(1, len(runs) + 1)] if len(runs) > 1 else [""]
    histories = dict(zip(names, map(_history, runs), strict=True))
    loss, score = (
        {name: curve for name, rows in histories.items() if (curve := _curve(rows, column))}
        for column in ("loss", "score")
    )
    outcome = runs[0].record.get("outcome", {})
    held_out, score_name = held_out_of(outcome), outcome.get("score_name", "score")
    drawn = [curves_svg("loss", loss)] if loss else []
    if score:
        drawn.append(
            curves_svg(
                f"{score_name}, {held_out.title if held_out else 'images held out'}",
                score,
                highest=True,
            )
        )
    return drawn


def _history(run: Run) -> list[dict[str, str]]:
    path = run.folder / HISTORY
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _curve(rows: Sequence[Mapping[str, str]], column: str) -> Curve:
    return [(int(row["step"]), float(row[column])) for row in rows if row[column]]


def command_of(run: Run) -> str:
    """Returns the command that repeats a run, with all numbers set from its data."""
    return _command(run.record["data"]["folder"], options_of(run))


def _ensemble_command(folder: Path, runs: Sequence[Run]) -> str:
    options = ResolvedOptions.from_dict(Ensemble.load(folder).options)
    if options.max_minutes is not None:
        options = replace(options, max_minutes=options.max_minutes * len(runs))
    return _command(runs[0].record["data"]["folder"], options, len(runs))


def _command(data: str, options: ResolvedOptions, folds: int | None = None) -> str:
    defaults = TrainingOptions()
    values = {
        name: value
        for name, value in options.to_dict().items()
        if value is not None and value != getattr(defaults, name)
    }
    values |= {} if folds is None else {"folds": folds}
    if data == ARRAYS:
        function = "train" if folds is None else "cross_validate"
        arguments = [f"{name}={value!r}" for name, value in values.items()]
        return f"keras_unet.{function}({', '.join(['images, labels', *arguments])})"
    arguments = ["keras-unet", "train", str(data), "--run", "RUN"]
    for name, value in values.items():
        arguments += _option(name, value)
    return shlex.join(arguments)


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list | tuple):
        return [f"--{flag}", ",".join(value)]
    return [f"--{flag}", f"{value}"]


def _provenance(runs: Sequence[Run]) -> dict[str, str]:
    record = runs[0].record
    outcomes: list[Mapping[str, Any]] = [run.record.get("outcome", {}) for run in runs]
    scores = [describe_score(outcome) for outcome in outcomes]
    listed: dict[str, list[Any]] = {
        "seeds" if len(runs) > 1 else "seed": [options_of(run).seed for run in runs],
        "steps": [f"{outcome['steps']:,}" for outcome in outcomes if outcome],
        "updates not applied (non-finite gradient)": [
            skipped for outcome in outcomes if (skipped := outcome.get("skipped_updates"))
        ],
        "validation score": [score for score in scores if score is not None],
    }
    versions = record.get("versions", {})
    return {name: ", ".join(map(str, values)) for name, values in listed.items() if values} | {
        **_ancestors(record),
        "precision": runs[0].precision,
        "started": record.get("started", "-"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "instance options": runs[0].instances.describe(),
    }


def _ancestors(record: Mapping[str, Any]) -> dict[str, str]:
    """Describes the model that a run started from, and those which that one started from."""
    described, initial = [], record.get("initial")
    while initial:
        terms = f", {initial['license']}" if initial.get("license") else ""
        described.append(f"{initial['name']} (SHA-256 {initial['sha256'][:12]}{terms})")
        initial = initial.get("initial")
    return {"started from": ", which started from ".join(described)} if described else {}


def _resume_command(run: Run) -> dict[str, str]:
    if run.record.get("outcome", {}).get("complete"):
        return {}
    data = shlex.quote(str(run.record["data"]["folder"]))
    folder = shlex.quote(str(run.folder))
    return {"Resume training": f"keras-unet train {data} --run {folder} --resume"}


def _next_steps(trained: Path) -> dict[str, str]:
    folder = shlex.quote(str(trained))
    return {
        "Predict other images": f"keras-unet predict {folder} IMAGES --out PREDICTIONS",
        "Score predictions of images with labels": "keras-unet evaluate PREDICTIONS LABELS",
        "Export it, for a server or any program with TensorFlow": (
            f"keras-unet export {folder} MODEL/cells --format saved_model"
        ),
        "Predict by a server (see export/README.md)": (
            "keras-unet predict --server grpc://localhost:8500/cells IMAGES --out PREDICTIONS"
        ),
    }


def _with_images(page: Page, images_of_runs: Sequence[_RunImages]) -> Page:
    validator = images_of_runs[0].validator
    images = [
        _image_pair(run_images, prediction)
        for run_images in images_of_runs
        for prediction in run_images.predictions
    ]
    kind = validator.run.encoding.kind
    rows, overall = score_images(images, DEFAULT_METRICS[kind])
    drawn = draw_images(images, rows)
    worst, best = draw_extreme_cells(images) if kind == "instances" else ([], [])
    return replace(
        page,
        images=drawn,
        images_text=f"{counted(len(drawn), 'image')} of {len(images)}{_held_out(images_of_runs)}."
        f"{' The image with the lowest score comes first.' if len(drawn) > 1 else ''}",
        worst=worst,
        best=best,
        tables=score_tables(rows, overall, from_probabilities=True),
        scores_text=_describe_options(validator),
        objects=measured_objects(images) if kind == "instances" else None,
    )


def _image_pair(run_images: _RunImages, prediction: ImagePrediction) -> ImagePair:
    """Returns an image with labels and prediction as stacks of one plane, for scoring."""
    sample, counted_pixels = prediction.target.sample, prediction.target.counted
    validator = run_images.validator
    labels = LabelPair(
        sample.name,
        sample.instances[None] * counted_pixels[None],
        validator.scored_instances(prediction)[None],
        prediction.probability[None],
        counted_pixels[None],
        in_part=validator.in_part,
    )
    if prediction.probabilities is not None:
        encoding = run_images.validator.run.encoding
        predicted = classes_of_objects(labels.result[0], prediction.probabilities, encoding.names)
        labels = replace(
            labels,
            class_names=encoding.class_names,
            reference_classes=(classes_in(sample, encoding),),
            result_classes=(predicted,),
        )
    weights = partial(run_images.weights.of, prediction.target)
    return ImagePair(labels, sample.image, weights, sample.pixel_size)


def _held_out(images_of_runs: Sequence[_RunImages]) -> str:
    relations = [
        held_out_of(images.validator.run.record.get("outcome", {})) for images in images_of_runs
    ]
    if len(images_of_runs) > 1:
        is_part = any(held_out and held_out.kind == "part of a group" for held_out in relations)
        caveat = ", and with others of the same film, stack or slide; another may score lower"
        return (
            ", each predicted by the network that was trained without it"
            f"{caveat if is_part else ''}"
        )
    if images_of_runs[0].validator.held_out:
        groups = relations[0] if relations[0] and relations[0].groups else None
        return f": {groups.describe()}" if groups else " held out from the training"
    return " of the training itself, as none was held out: new images may score lower"


def _describe_options(validator: Validator) -> str:
    selected = ", selected on these images: new images may score a little lower"
    options = validator.run.instances.describe()
    return f"Instance options for {options}{selected if validator.held_out else ''}."
