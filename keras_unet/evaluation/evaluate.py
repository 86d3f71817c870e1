"""Score predictions against labels: one row an image, and all together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from keras_unet.console import counted, some, status, track
from keras_unet.data.encoding import Kind
from keras_unet.data.label_consistency import check_same_conventions
from keras_unet.data.labels import detect_encoding, read_labels
from keras_unet.evaluation.comparison import (
    DEFAULT_METRICS,
    OF_PROBABILITIES,
    LabelPair,
    Metric,
    Scores,
    chosen_metrics,
    compare,
    score,
)
from keras_unet.evaluation.figures import cells, planes_of, slider
from keras_unet.evaluation.pairing import FilePair, LabelImages, find_label_images, pair
from keras_unet.evaluation.tables import score_tables
from keras_unet.files import (
    SOFTWARE,
    PathLike,
    check_replaceable,
    check_writable,
    make_folder,
    write_json,
)
from keras_unet.report.page import Page, write_page
from keras_unet.report.tables import Table

_log = logging.getLogger(__name__)

_SHOWN: tuple[Metric, ...] = ("pixels", "ctc")  # of an image, in a report
_OF_CELLS = {"ctc", "matching"}


@dataclass(frozen=True)
class Evaluation:
    """The scores of a folder of predictions.

    Attributes:
        metrics: What was scored.
        rows: Scores by image; those of `isbi2012`, which are a stack's, are not among them.
        overall: Scores of all images together.
        from_probabilities: Whether probabilities were scored, not label images, where possible.
        missing: Label files without a prediction.
        left_out: Files among the labels that are none by their names, each with the reason.
    """

    metrics: Sequence[Metric]
    rows: Mapping[str, Scores]
    overall: Scores
    from_probabilities: bool
    missing: Sequence[str]
    left_out: Sequence[str] = ()

    @property
    def tables(self) -> list[Table]:
        """Tables of the scores."""
        return score_tables(self.rows, self.overall, from_probabilities=self.from_probabilities)

    @property
    def warnings(self) -> list[str]:
        """Lines on files that were not scored."""
        missing, left_out = self.missing, self.left_out
        return [
            *([f"no prediction for {', '.join(missing)}"] if missing else []),
            *([f"no labels by their names, and left out: {some(left_out)}"] if left_out else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {
            "software": SOFTWARE,
            "metrics": list(self.metrics),
            "images": {name: row.to_dict() for name, row in self.rows.items()},
            "overall": self.overall.to_dict(),
            "pixel_error_from_probabilities": self.from_probabilities,
            "missing": list(self.missing),
            "left_out": list(self.left_out),
        }


def evaluate_folders(
    predictions: PathLike,
    labels: PathLike,
    *,
    metrics: Sequence[str] = (),
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    json: PathLike | None = None,
    report: PathLike | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Scores the predictions of a folder against the labels of another, paired by name.

    All classes but the background count as cell. Where label files or predictions hold classes,
    the cells are their 4-connected pieces. The pixel error reads `<stem>_probabilities.tif` where
    every prediction has one, and the label image elsewhere; `isbi2012` needs them.

    Args:
        predictions: Folder that `predict_files` wrote.
        labels: Folder of label files, a data folder with `labels/` in it, or one of the Cell
            Tracking Challenge, `01_GT/SEG` or above.
        metrics: Of "pixels", "isbi2012", "ctc" and "matching" (`keras_unet.evaluation.comparison`).
            If none is named, pixels and, where labels hold instances, ctc and matching.
        kind: What the label files hold; "auto" finds out.
        ignore: Value in the labels of pixels that are not to count.
        json: File to write the scores to.
        report: HTML file to write, with the scores, truth and prediction in pictures, and the cells
            found worst and best.
        overwrite: Whether these two may replace files that this program has not written.

    Raises:
        ValueError: If no label has a prediction, sizes differ, axes do not say which planes belong
            together, two files lay claim to one partner, palettes differ, a file holds no labels, a
            metric is unknown or lacks what it needs, or a file to write is there and another's, or
            the other.
        OSError: If a folder is missing, or the file cannot be written.
    """
    predictions, labels = Path(predictions), Path(labels)
    json, report = (None if path is None else Path(path) for path in (json, report))
    chosen = chosen_metrics(metrics)
    references = find_label_images(labels)
    pairs = pair(references.files, predictions)
    if "isbi2012" in chosen:
        _refuse_without_probabilities(pairs, predictions)
    for path, form in ((json, "json"), (report, "html")):
        if path is not None:
            check_writable(path.parent)
            check_replaceable(path, form, overwrite=overwrite)
    _refuse_one_file_for_two(json, report)
    evaluation, images = _evaluate(references, pairs, chosen, kind, ignore)
    for line in evaluation.warnings:
        _log.warning(line)
    if json is not None:
        make_folder(json.parent)
        write_json(json, evaluation.to_dict())
    if report is not None:
        write_page(report, _page(predictions, labels, evaluation, images))
    return evaluation


def _refuse_one_file_for_two(json: Path | None, report: Path | None) -> None:
    if json is not None and report is not None and json.resolve() == report.resolve():
        raise ValueError(
            f"{json}: expected a file for the scores and another for the report. Received one for "
            "both; choose another name for one of them"
        )


def _evaluate(
    references: LabelImages,
    pairs: Sequence[FilePair],
    chosen: Sequence[Metric],
    kind: Kind | Literal["auto"],
    ignore: int | None,
) -> tuple[Evaluation, list[LabelPair]]:
    truths = [read_labels(one.reference.labels) for one in track(pairs, "reading labels")]
    files = [(one.reference.labels, truth) for one, truth in zip(pairs, truths, strict=True)]
    if kind != "instances":
        check_same_conventions(files)
    planes = [(str(path), plane) for path, truth in files for plane in truth.labels]
    encoding = detect_encoding(planes, kind=kind, ignore=ignore)
    metrics = chosen or DEFAULT_METRICS[encoding.kind]
    soft = not OF_PROBABILITIES.isdisjoint(metrics) and all(one.probabilities for one in pairs)
    images = compare(pairs, truths, encoding, with_probabilities=soft)
    of_one = [metric for metric in metrics if metric != "isbi2012"]
    scored = {one.reference for one in pairs}
    rows = {one.name: score([one], of_one) for one in track(images, "scoring images")}
    with status("scoring all together"):
        overall = score(images, metrics)
    evaluation = Evaluation(
        metrics,
        rows=rows,
        overall=overall,
        from_probabilities=soft,
        missing=[one.labels.name for one in references.files if one not in scored],
        left_out=[str(one) for one in references.left_out],
    )
    return evaluation, images


def _page(
    predictions: Path, labels: Path, evaluation: Evaluation, images: Sequence[LabelPair]
) -> Page:
    """Makes a page of an evaluation; there are no images in it, only truth and prediction."""
    planes = planes_of(images)
    shown = slider(planes, {one.comparison.name: score([one.comparison], _SHOWN) for one in planes})
    of_cells = not _OF_CELLS.isdisjoint(evaluation.metrics)
    worst, best = cells(planes) if of_cells else ([], [])
    return Page(
        title=f"Scores of {predictions.resolve().name}",
        summary=f"The predictions in {predictions} against the labels in {labels}.",
        warnings=evaluation.warnings,
        images=shown,
        images_words=f"{counted(len(shown), 'image')} of {len(planes)}, the one found worst first.",
        worst=worst,
        best=best,
        tables=evaluation.tables,
    )


def _refuse_without_probabilities(pairs: Sequence[FilePair], predictions: Path) -> None:
    without = [one.result.name for one in pairs if one.probabilities is None]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise ValueError(
            f"{predictions}: isbi2012 needs the probabilities of every image, "
            f"<stem>_probabilities.tif. Received none for {without[0]}{more}; predict once more "
            "with keras-unet predict ... --save classes,probabilities"
        )
