"""The report of a run or an ensemble: one HTML file on data, network, training and images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.samples import Sample, read_samples
from keras_unet.data.wording import counted
from keras_unet.ensembles import Ensemble, is_ensemble
from keras_unet.evaluation.comparison import Comparison
from keras_unet.evaluation.figures import Shown, cells, scored, slider, tables
from keras_unet.evaluation.scoring import DEFAULT_METRICS
from keras_unet.files import check_replaceable, check_writable, make_folder
from keras_unet.prediction.networks import load_network, load_runs
from keras_unet.report.page import Page, write_page
from keras_unet.runs import REPORT, Run
from keras_unet.tracking import tracked
from keras_unet.training.dataset import weight_maps
from keras_unet.training.pages import page_of_ensemble_without_images, page_without_images
from keras_unet.training.resume import options_of
from keras_unet.training.targets import Target, WeightMaps, sample_digest
from keras_unet.training.validation import View, Watch

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Look:
    """What the network of a run makes of its images.

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
    data: Path | None = None,
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
    samples = _samples(runs[0], data)
    if samples is None:
        folder = runs[0].record["data"]["folder"]
        _log.warning(f"{folder}: the images of the run are not there; --data names their folder")
        missing = f"the images are missing: {folder} is not there"
        return write_page(path, replace(page, warnings=[*page.warnings, missing]))
    with tempfile.TemporaryDirectory() as folder:
        rooms = [make_folder(Path(folder) / f"{number}") for number, _ in enumerate(runs)]
        looks = [_look(run, samples, room) for run, room in zip(runs, rooms, strict=True)]
        return write_page(path, _with_images(page, looks))


def page_of_run(watch: Watch, views: Sequence[View], weights: WeightMaps) -> Page:
    """Makes the page of a run and what its network makes of the images held out.

    Args:
        watch: The run and its images; where none is held out, one of the training.
        views: What the network makes of these.
        weights: The weight maps of the run.
    """
    return _with_images(page_without_images(watch.run), [Look(watch, views, weights)])


def _look(run: Run, samples: Sequence[Sample], folder: Path) -> Look:
    """Looks at the images of a run; the folder is for its weight maps, as long as they are used."""
    names, held_out = run.record["data"]["training"], run.record["data"]["validation"]
    seen = [one for one in samples if one.name in names]
    parting = tracked(seen, "parting cells that touch")
    training = [Target.of(one, run.scheme) for one in parting]
    watch = Watch.of(run, training, [one for one in samples if one.name in held_out])
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
        tables=tables(rows, overall),
        scores_words=_words_on_scores(looks, overall.values),
    )


def _samples(run: Run, data: Path | None) -> Sequence[Sample] | None:
    """Reads the images of a run; None where they are not where they were and no folder is named."""
    folder = data or Path(run.record["data"]["folder"])
    if data is None and not folder.is_dir():
        return None
    options = options_of(run)
    samples = read_samples(
        folder,
        labels=options.labels,
        ignore=options.ignore,
        allow_empty=options.allow_empty,
        axes=options.axes,
    )
    digests = {sample.name: sample_digest(sample) for sample in samples.samples}
    if digests != run.record["data"].get("digests"):
        raise ValueError(
            f"{folder}: expected the images and labels that {run.folder} was trained on. Received "
            "others; name their folder by --data"
        )
    return samples.samples


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


def _words_on_scores(looks: Sequence[Look], values: Mapping[str, float]) -> str:
    watch = looks[0].watch
    whose = "Images held out" if watch.held_out else "An image of the training itself"
    alone = ", each by the one network that has not seen it" if len(looks) > 1 else ""
    return (
        f"{whose}{alone}, cells made by the rule chosen in training "
        f"({watch.run.rule.describe()}). The pixel error is that of probabilities above "
        f"{values['pixel_error_threshold']:.1f}. The rule was chosen on these images, so new ones "
        "may come out a little worse."
    )
