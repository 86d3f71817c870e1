"""Background tasks of the widgets; each yields events and returns its result."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes
from keras_unet.data.labels import check_labels, detect_encoding
from keras_unet.data.samples import Sample
from keras_unet.data.weight_maps import class_balance, weight_map
from keras_unet.files import check_new
from keras_unet.instances.link import Along
from keras_unet.napari_plugin.job import Events, Job
from keras_unet.napari_plugin.layers import (
    LayerData,
    Snapshot,
    result_layers,
    tracks_layer,
    write_image,
    write_pairs,
)
from keras_unet.runs import locate
from keras_unet.training.targets import Target

CORRECTION_OPTIONS: Mapping[str, Any] = {"final_share": 0.3}
"""Options of a further training: of few corrected planes, the one held out is trained on too."""

MOST_COMPARED = 24
"""Planes of which one is proposed."""

MODELS = "a run, an ensemble, a .tflite file or a model of the package"


def data_folder(run: Path) -> Path:
    """Returns the data folder of a run, to which the layers are written.

    >>> data_folder(Path("cells")).name
    'cells-data'
    """
    return run.with_name(f"{run.name}-data")


def train(
    job: Job,
    pairs: Sequence[tuple[Snapshot, Snapshot]],
    run: Path,
    options: Mapping[str, Any],
    *,
    empty: bool = False,
    planes: Sequence[Collection[int]] | None = None,
    initial: Path | None = None,
    resume: bool = False,
) -> Events:
    """Trains on layers, or resumes a training.

    Args:
        job: The job.
        pairs: Images and labels; none to resume.
        run: Folder of the run. The layers are written beside it, to `data_folder`.
        options: Fields of `TrainingOptions`, except those chosen from the data.
        empty: Whether planes without labels are background, rather than not annotated yet.
        planes: Numbers of the planes of each pair to train on; None for all that are annotated.
        initial: Model to start from: a run, a .keras file, or the name of a model of the package.
        resume: Whether to resume the training of `run`.

    Returns:
        The outcome that the run records.

    Raises:
        ValueError: If the layers cannot be trained on, or an option is out of range.
        OSError: If a folder exists, is missing, or cannot be written to.
    """
    data = data_folder(_check_chosen(run, "run", "a new folder for the run").absolute())
    if not resume:
        check_new(data, "the layers to train on", is_removed=True)
    try:
        if not resume:
            yield {"text": "writing the layers"}
            written = write_pairs(pairs, data, empty=empty, planes=planes)
            yield {"line": f"{written} labeled planes written to {data}"}
        request = {
            "job": "train",
            "data": str(data),
            "run": str(run.absolute()),
            "options": dict(options),
            "resume": resume,
            "initial": None if initial is None else str(locate(initial).absolute()),
        }
        return (yield from job.run_in_child(request, data.parent))
    except BaseException:
        if not resume and not any(run.glob("*.keras")):  # without a model
            shutil.rmtree(data, ignore_errors=True)
        raise


def predict(
    job: Job,
    image: Snapshot,
    model: Path,
    *,
    probabilities: bool = False,
    tta: bool = False,
    instances: Mapping[str, Any] | None = None,
    link: Along | None = None,
) -> Events:
    """Predicts a layer.

    Args:
        job: The job.
        image: The layer.
        model: A run, an ensemble, a .tflite file, or the name of a model of the package.
        probabilities: Whether to add layers of the probabilities.
        tta: Whether to use test-time augmentation.
        instances: Fields of `InstanceOptions` that override the model's.
        link: "z" or "t" to give cells one number in all planes, see `link_objects`; "t" adds a
            layer of tracks.

    Returns:
        The layers of the result.

    Raises:
        ValueError: If the image has other channels than the model, an option is out of range, or
            cells are to be linked in a layer that is no stack along one axis.
        OSError: If the model is missing, or the disk is full.
    """
    model = locate(_check_chosen(model, "run", MODELS)).absolute()
    if link is not None and (len(image.shape) != 3 or image.shape[0] == 1):
        raise ValueError(
            f"{image.name}: expected a stack of planes along one axis, to link its cells. Received "
            f"a layer of shape {image.shape}; choose another layer, or predict each plane by itself"
        )
    with tempfile.TemporaryDirectory(prefix="keras-unet-") as temporary:
        folder = Path(temporary)
        yield {"text": "writing the image"}
        file = write_image(image, folder, along=link or "z")
        options = {"probabilities": probabilities, "tta": tta, "instances": instances or {}}
        options |= {"link": link}
        request = {"model": str(model), "image": file.name, "out": "out", **options}
        result = yield from job.run_in_child({"job": "predict", **request}, folder)
        yield {"done": 1.0, "text": "reading the result"}
        files = [folder / name for name in result["files"]]
        layers = result_layers(image, LabelEncoding.from_dict(result["encoding"]), files)
        if link == "t":
            layers.append(tracks_layer(image, layers[0][0], folder / result["tracks"]))
        return layers


def propose(job: Job, image: Snapshot, model: Path, *, corrected: Collection[int] = ()) -> Events:
    """Predicts the plane of a layer on which the eight symmetries of the model disagree most.

    Of many planes, `MOST_COMPARED` are compared, evenly spaced: each is predicted eight times.

    Args:
        job: The job.
        image: The layer.
        model: See `predict`.
        corrected: Numbers of the planes that are not proposed.

    Returns:
        Number of the plane, and its labels, `(height, width)`.

    Raises:
        ValueError: If no plane is left, or the image has other channels than the model.
        OSError: See `predict`.
    """
    model = locate(_check_chosen(model, "model", MODELS)).absolute()
    left = [plane for plane in range(math.prod(image.shape[:-2])) if plane not in corrected]
    if not left:
        raise ValueError(
            f"{image.name}: expected a plane that has not been corrected. Received none; train "
            "further, or open another layer"
        )
    chosen = np.linspace(0, len(left) - 1, min(len(left), MOST_COMPARED)).round().astype(int)
    compared = [left[number] for number in chosen]
    with tempfile.TemporaryDirectory(prefix="keras-unet-") as temporary:
        folder = Path(temporary)
        yield {"text": "writing the image"}
        file = write_image(image, folder, compared)
        request = {"model": str(model), "image": file.name, "out": "labels.tif"}
        result = yield from job.run_in_child({"job": "propose", **request}, folder)
        for number, value in enumerate(result["disagreements"]):
            yield {"line": f"plane {compared[number]}: disagreement {value:.4f} bits per pixel"}
        return compared[result["plane"]], read_planes(folder / "labels.tif")[0, ..., 0]


def compute_weight_map(
    job: Job, labels: Snapshot, *, w0: float = 10.0, sigma: float = 5.0, balanced: bool = True
) -> Events:
    """Computes the weight map of equation 2, as in a training on these labels.

    Args:
        job: The job.
        labels: The layer.
        w0: Weight of the border term.
        sigma: Width of the border term in pixels.
        balanced: Whether to balance the classes over the layer by w_c; otherwise w_c is 1.

    Returns:
        The layer of the result.

    Raises:
        ValueError: If the layer does not hold labels, or a number is out of range.
    """
    yield {"text": "reading the labels"}
    planes = check_labels(Path(labels.name), labels.planes)
    encoding = detect_encoding([(labels.name, plane) for plane in planes])
    targets = [Target.of(_sample(labels.name, plane, encoding), encoding) for plane in planes]
    balance = np.ones(encoding.classes)
    if balanced:
        classes = [target.classes for target in targets]
        balance = class_balance(classes, encoding.classes)
    maps = []
    for number, target in enumerate(targets, start=1):
        job.check()
        instances = target.sample.instances
        maps.append(weight_map(target.classes, instances, balance=balance, w0=w0, sigma=sigma))
        yield {"done": number / len(targets), "text": f"plane {number} of {len(targets)}"}
    attributes = {"name": f"{labels.name} weight map", "colormap": "inferno", **labels.transform}
    layer: LayerData = (np.stack(maps).reshape(labels.shape), attributes, "image")
    return [layer]


def _sample(name: str, plane: Any, encoding: LabelEncoding) -> Sample:
    """Returns a sample of labels without an image."""
    return Sample(
        name,
        np.zeros((0, 0, 1), np.float32),
        encoding.to_classes(plane),
        encoding.to_instances(plane),
        encoding.ignored(plane),
    )


def _check_chosen(path: Path, name: str, expected: str) -> Path:
    if not path.name:
        raise ValueError(f"{name} must be {expected}. Received: nothing; choose one")
    return path
