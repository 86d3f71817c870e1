"""From a folder of images and labels to a run."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture, Normalization, Padding
from keras_unet.backend import keras
from keras_unet.data.images import Standardisation, read_planes, write_tiff
from keras_unet.data.labels import Kind
from keras_unet.data.pipeline import Augmentation, Engine, TrainingImage, build_dataset
from keras_unet.data.samples import Sample, Samples, read_samples, split
from keras_unet.data.weights import class_balance, weight_map
from keras_unet.distances import separate_touching
from keras_unet.files import make_folder
from keras_unet.instances import label_instances
from keras_unet.jobs.networks import load_network
from keras_unet.metrics import iou
from keras_unet.model import unet_of
from keras_unet.precision import choose_precision, precision_policy
from keras_unet.prediction import predict_image
from keras_unet.report import (
    difference_picture,
    grey_picture,
    heat_picture,
    label_picture,
    montage,
    write_png,
)
from keras_unet.runs import RECORD, Run
from keras_unet.training import Progress, TrainingPlan, Validation, train

DEFAULT_STEPS = 2500
PAPER_TILE = 572
_PICTURES = 8


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a person can choose about a training; recorded in the run.

    Attributes:
        steps: Updates; with none of steps, epochs and max_minutes, DEFAULT_STEPS.
        epochs: The same in passes over the training pixels.
        max_minutes: The same in minutes.
        patience: Validations without a better score after which training ends.
        base_filters: Features of the first level. The paper takes 64, in twice the time.
        depth: Number of poolings.
        padding: "valid" as in the paper, or "same".
        normalization: None as in the paper, "batch" or "group".
        dropout: Rate at the end of the contracting path.
        tile: Height and width of the input tile; None for the paper's 572, less for small images.
        batch_size: Tiles a batch. The paper takes 1.
        validation: Share of the images held out, or their names.
        seed: Makes the run reproducible.
        precision: "auto", "float32", "bfloat16" or "float16".
        labels: "auto", "classes" or "instances".
        ignore: Value in the labels of pixels that are not to count.
        allow_empty: Whether label files without any foreground are wanted.
        standardise: Grey values by each "image" or by the whole "dataset".
        border_weight: w0 of equation 2. The paper takes 10; 0 turns the border term off.
        sigma: sigma of equation 2 in pixels. The paper takes about 5.
        amplitude: Standard deviation of the elastic deformation in pixels. The paper takes 10.
        engine: Who deforms, "graph" or "elasticdeform".
        learning_rate: The highest rate.
    """

    steps: int | None = None
    epochs: float | None = None
    max_minutes: float | None = None
    patience: int | None = None
    base_filters: int = 32
    depth: int = 4
    padding: Padding = "valid"
    normalization: Normalization | None = None
    dropout: float = 0.5
    tile: int | None = None
    batch_size: int = 1
    validation: float | Sequence[str] = 0.2
    seed: int = 0
    precision: str = "auto"
    labels: Kind | Literal["auto"] = "auto"
    ignore: int | None = None
    allow_empty: bool = False
    standardise: Literal["image", "dataset"] = "image"
    border_weight: float = 10.0
    sigma: float = 5.0
    amplitude: float = 10.0
    engine: Engine = "graph"
    learning_rate: float = 1e-2


def train_folder(
    data: Path,
    run_folder: Path,
    options: TrainingOptions | None = None,
    *,
    resume: bool = False,
    on_start: Callable[[TrainingPlan], None] = lambda _: None,
    on_step: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = print,
) -> Run:
    """Trains a U-Net on a folder of images with labels.

    Args:
        data: Folder with `images/` and `labels/`, or in the Cell Tracking Challenge's layout.
        run_folder: Folder to write; a new one unless `resume`.
        options: What to choose; the defaults are the paper's, TrainingOptions names the exceptions.
        resume: Goes on with a run that was interrupted, with the options it has recorded.
        on_start: Called with the plan before the first batch.
        on_step: Called after every batch.
        say: Takes a line for a person.

    Returns:
        The finished run.

    Raises:
        ValueError: If an option is out of range or the data cannot be learned from.
        OSError: If a file cannot be read or the run folder cannot be written.
    """
    options = _recorded_options(run_folder) if resume else options or TrainingOptions()
    if not resume and (run_folder / RECORD).exists():
        raise FileExistsError(
            f"{run_folder}: expected a new folder for the run. Received one that holds a run; "
            "choose another, or go on with it by --resume"
        )
    samples = read_samples(
        data, labels=options.labels, ignore=options.ignore, allow_empty=options.allow_empty
    )
    say(samples.describe())
    training, validation = split(samples.samples, options.validation, options.seed)
    run = _new_run(run_folder, data, samples, training, validation, options)
    plan = _plan(options, training, run)
    tile_size = _tile_size(options, training, run.architecture)
    say(_description(run, training, validation, tile_size))
    make_folder(run_folder)
    run.save()
    prepared = [_prepared(sample, run) for sample in _with_weights(training, run, options)]
    on_start(plan)
    progress = train(
        _new_network(run, options),
        lambda step: build_dataset(
            prepared,
            run.architecture,
            tile_size=tile_size,
            seed=options.seed,
            batch_size=options.batch_size,
            augmentation=Augmentation(amplitude=options.amplitude),
            first=step,
            engine=options.engine,
        ),
        plan,
        folder=run_folder,
        validate=_Watch(run, training, validation),
        on_step=on_step,
        say=say,
        resume=resume,
    )
    return _finish(run, progress, training, validation, options, say)


def training_classes(sample: Sample, run: Run) -> NDArray[np.uint8]:
    """Returns what the network is to learn: classes in which touching cells are parted.

    Section 3 of the paper: "a separation border" of background lies between touching cells.
    """
    if run.scheme.kind == "classes":
        return sample.classes
    return (separate_touching(sample.instances) > 0).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Watch:
    """Looks at held-out images while training goes on.

    The score is the mean intersection over union of the classes. Where nothing is held out, a
    training image is looked at, for a collapse alone.
    """

    run: Run
    training: Sequence[Sample]
    validation: Sequence[Sample]

    def __call__(self, model: Any) -> Validation:
        looked_at = self.validation or self.training[:1]
        truths = [training_classes(sample, self.run) for sample in looked_at]
        results = [_classes(model, sample, self.run) for sample in looked_at]
        score = self._score(looked_at, truths, results) if self.validation else None
        picture = _row(looked_at[0], truths[0], results[0])
        return Validation(score, self._collapse(truths, results), montage([picture], _COLUMNS[:4]))

    def _score(
        self,
        samples: Sequence[Sample],
        truths: Sequence[NDArray[np.uint8]],
        results: Sequence[NDArray[np.uint8]],
    ) -> float:
        counted = [~sample.ignored for sample in samples]
        truth = np.concatenate([one[mask] for one, mask in zip(truths, counted, strict=True)])
        result = np.concatenate([one[mask] for one, mask in zip(results, counted, strict=True)])
        classes = range(self.run.architecture.classes)
        return float(np.nanmean([iou(truth == one, result == one) for one in classes]))

    def _collapse(
        self, truths: Sequence[NDArray[np.uint8]], results: Sequence[NDArray[np.uint8]]
    ) -> str | None:
        found = {int(value) for result in results for value in np.unique(result)}
        expected = {int(value) for truth in truths for value in np.unique(truth)}
        if len(found) > 1 or found == expected:
            return None
        return (
            f"Warning: the network has collapsed to one class: every pixel it was shown is "
            f"predicted as class {found.pop()}, but the labels hold {len(expected)} classes. If "
            "the next validations say so too, stop (Ctrl-C) and train longer, with another "
            "--seed, or with a lower --learning-rate."
        )


def _classes(model: Any, sample: Sample, run: Run) -> NDArray[np.uint8]:
    standardised = run.standardisation.apply(sample.image)
    return predict_image(model, standardised, architecture=run.architecture).argmax(-1).astype("u1")


def _recorded_options(run_folder: Path) -> TrainingOptions:
    return TrainingOptions(**Run.load(run_folder).record["options"])


def _new_run(
    folder: Path,
    data: Path,
    samples: Samples,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    options: TrainingOptions,
) -> Run:
    architecture = Architecture(
        channels=samples.channels,
        classes=samples.scheme.classes,
        depth=options.depth,
        base_filters=options.base_filters,
        dropout=options.dropout,
        padding=options.padding,
        normalization=options.normalization,
    )
    record = {
        "options": asdict(options),
        "data": {
            "folder": str(data),
            "dtype": samples.dtype,
            "training": [sample.name for sample in training],
            "validation": [sample.name for sample in validation],
        },
        "versions": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
        "python": platform.python_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    standardisation = Standardisation.of([one.image for one in training], options.standardise)
    precision = choose_precision(options.precision)
    return Run(folder, architecture, samples.scheme, standardisation, precision, record)


def _new_network(run: Run, options: TrainingOptions) -> Any:
    keras.utils.set_random_seed(options.seed)
    with precision_policy(choose_precision(run.precision)):
        return unet_of(run.architecture)


def _tile_size(
    options: TrainingOptions, training: Sequence[Sample], architecture: Architecture
) -> int:
    """The paper's tile, or one whose output just covers the largest image, if that is smaller."""
    if options.tile is not None:
        architecture.check_size(options.tile, "tile")
        return options.tile
    largest = max(max(sample.classes.shape) for sample in training)
    return architecture.fitting_size(min(PAPER_TILE, largest + 2 * architecture.margin))


def _plan(options: TrainingOptions, training: Sequence[Sample], run: Run) -> TrainingPlan:
    steps = options.steps
    if options.epochs is not None:
        output = run.architecture.output_size(_tile_size(options, training, run.architecture))
        pixels = sum(sample.classes.size for sample in training)
        steps = ceil(options.epochs * pixels / (output**2 * options.batch_size))
    if steps is None and options.max_minutes is None:
        steps = DEFAULT_STEPS
    return TrainingPlan(
        steps=steps,
        max_minutes=options.max_minutes,
        patience=options.patience,
        learning_rate=options.learning_rate,
    )


def _description(
    run: Run, training: Sequence[Sample], validation: Sequence[Sample], tile_size: int
) -> str:
    network = run.architecture
    held_out = ", ".join(sample.name for sample in validation) or "none"
    return (
        f"training on {len(training)}, held out for validation: {held_out}\n"
        f"network: depth {network.depth}, {network.base_filters} base features, "
        f'padding "{network.padding}", {run.precision}; '
        f"tiles of {tile_size} x {tile_size} pixels, {network.output_size(tile_size)} out"
    )


def _with_weights(
    training: Sequence[Sample], run: Run, options: TrainingOptions
) -> list[tuple[Sample, NDArray[np.uint8], NDArray[np.float32]]]:
    folder = make_folder(run.folder / "weight_maps")
    classes = [training_classes(sample, run) for sample in training]
    ignored = [sample.ignored for sample in training]
    balance = class_balance(classes, run.architecture.classes, ignored)
    return [
        (sample, one, _cached_weights(folder, sample, one, balance, options))
        for sample, one in zip(training, classes, strict=True)
    ]


def _cached_weights(
    folder: Path,
    sample: Sample,
    classes: NDArray[np.uint8],
    balance: NDArray[np.float64],
    options: TrainingOptions,
) -> NDArray[np.float32]:
    """Computes a weight map, or reads the one computed before from the same labels and numbers."""
    numbers = np.array([*balance, options.border_weight, options.sigma])
    parts = (classes, sample.instances, sample.ignored, numbers)
    key = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
    path = folder / f"{_safe(sample.name)}-{key.hexdigest()[:12]}.tif"
    if path.exists():
        return np.asarray(read_planes(path)[0, ..., 0], np.float32)
    weights = weight_map(
        classes,
        sample.instances,
        balance=balance,
        ignored=sample.ignored,
        w0=options.border_weight,
        sigma=options.sigma,
    )
    write_tiff(path, weights, axes="YX")
    return weights


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[:80]


def _prepared(
    weighted: tuple[Sample, NDArray[np.uint8], NDArray[np.float32]], run: Run
) -> TrainingImage:
    sample, classes, weights = weighted
    return TrainingImage(run.standardisation.apply(sample.image), classes, weights)


def _finish(
    run: Run,
    progress: Progress,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    options: TrainingOptions,
    say: Callable[[str], None],
) -> Run:
    outcome = {
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "skipped_updates": progress.skipped,
        "best_score": progress.best_score,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    finished = replace(run, record={**run.record, "outcome": outcome})
    finished.save()
    shown = (validation or training)[:_PICTURES]
    write_png(make_folder(run.folder / "pictures") / "montage.png", _pictures(run, shown, options))
    if progress.skipped:
        say(f"{progress.skipped} updates with a non-finite gradient were not applied.")
    return finished


_COLUMNS = ("image", "truth", "prediction", "difference", "weight map")


def _pictures(
    run: Run, samples: Sequence[Sample], options: TrainingOptions
) -> NDArray[np.uint8]:
    model = load_network(run)
    rows = []
    for sample in samples:
        truth = training_classes(sample, run)
        weights = weight_map(
            truth,
            sample.instances,
            ignored=sample.ignored,
            w0=options.border_weight,
            sigma=options.sigma,
        )
        result = _classes(model, sample, run)
        rows.append([*_row(sample, truth, result), heat_picture(weights)])
    return montage(rows, _COLUMNS)


def _row(
    sample: Sample, truth: NDArray[np.uint8], result: NDArray[np.uint8]
) -> list[NDArray[np.uint8]]:
    found = label_instances(result > 0)
    return [
        grey_picture(sample.image),
        label_picture(sample.instances),
        label_picture(found),
        difference_picture(truth > 0, result > 0),
    ]
