"""Background work of a window: each yields news and returns its result."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.labels import check_labels, detect_encoding
from keras_unet.data.samples import Sample
from keras_unet.data.weight_maps import class_balance, weight_map
from keras_unet.files import check_new
from keras_unet.napari_plugin.job import Job, Work
from keras_unet.napari_plugin.layers import (
    LayerData,
    Snapshot,
    result_layers,
    write_image,
    write_pairs,
)
from keras_unet.training.targets import Target


def data_folder(run: Path) -> Path:
    """Returns where the layers are kept that a run is trained on.

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
    resume: bool = False,
) -> Work:
    """Trains on layers, or goes on with a training that was stopped.

    Args:
        job: The job.
        pairs: Images and labels; none are needed to go on.
        run: Folder of the run. The layers are written beside it, to `data_folder`.
        options: Of `TrainingOptions`, by name; not those left to the data.
        empty: Whether planes without any label are background, rather than not annotated yet.
        resume: Whether to go on.

    Returns:
        The outcome as the run records it.

    Raises:
        ValueError: The layers cannot be learned from, or an option is out of range.
        OSError: A folder is taken, missing, or cannot be written to.
    """
    data = data_folder(_chosen(run, "run", "a new folder for the training to write").absolute())
    if not resume:
        check_new(data, "the layers to train on", is_removed=True)
    try:
        if not resume:
            yield {"text": "writing the layers"}
            planes = write_pairs(pairs, data, empty=empty)
            yield {"line": f"{planes} labelled planes written to {data}"}
        request = {"data": str(data), "run": str(run.absolute()), "options": dict(options)}
        return (
            yield from job.ask_child({"job": "train", "resume": resume, **request}, data.parent)
        )
    except BaseException:
        if not resume and not any(run.glob("*.keras")):  # nothing has come of it
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
) -> Work:
    """Predicts a layer.

    Args:
        job: The job.
        image: The layer.
        model: A run, an ensemble, or a .tflite file.
        probabilities: Whether the probabilities are wanted as well.
        tta: Whether to average over the eight symmetries of the square.
        instances: Numbers of the `InstanceOptions` to take instead of the run's.

    Returns:
        The layers to show.

    Raises:
        ValueError: The image does not suit the run, or a number is out of range.
        OSError: There is no run, or no room to work in.
    """
    model = _chosen(model, "run", "a run, an ensemble or a .tflite file").absolute()
    with tempfile.TemporaryDirectory(prefix="keras-unet-") as name:
        folder = Path(name)
        yield {"text": "writing the image"}
        file = write_image(image, folder)
        choices = {"probabilities": probabilities, "tta": tta, "instances": instances or {}}
        request = {"model": str(model), "image": file.name, "out": "out", **choices}
        found = yield from job.ask_child({"job": "predict", **request}, folder)
        yield {"done": 1.0, "text": "reading the result"}
        files = [folder / one for one in found["files"]]
        return result_layers(image, LabelEncoding.from_dict(found["encoding"]), files)


def weigh(
    job: Job, labels: Snapshot, *, w0: float = 10.0, sigma: float = 5.0, balanced: bool = True
) -> Work:
    """Computes the weight map of equation 2, as a training on these labels takes it.

    Args:
        job: The job.
        labels: The layer.
        w0: Weight of the border term.
        sigma: Its fall-off in pixels.
        balanced: Whether the classes are balanced over the layer, by w_c; else all weigh 1.

    Returns:
        The layer to show.

    Raises:
        ValueError: The labels are none, or a number is out of range.
    """
    yield {"text": "looking at the labels"}
    planes = check_labels(Path(labels.name), labels.planes)
    encoding = detect_encoding([(labels.name, plane) for plane in planes])
    targets = [Target.of(_sample(labels.name, plane, encoding), encoding) for plane in planes]
    balance = np.ones(encoding.classes)
    if balanced:
        classes = [one.classes for one in targets]
        balance = class_balance(classes, encoding.classes)
    maps = []
    for number, one in enumerate(targets, start=1):
        job.check()
        instances = one.sample.instances
        maps.append(weight_map(one.classes, instances, balance=balance, w0=w0, sigma=sigma))
        yield {"done": number / len(targets), "text": f"plane {number} of {len(targets)}"}
    shown = {"name": f"{labels.name} weight map", "colormap": "inferno", **labels.place}
    layer: LayerData = (np.stack(maps).reshape(labels.shape), shown, "image")
    return [layer]


def _sample(name: str, plane: Any, encoding: LabelEncoding) -> Sample:
    """Returns labels as a training takes them; there is no image."""
    return Sample(
        name,
        np.zeros((0, 0, 1), np.float32),
        encoding.to_classes(plane),
        encoding.to_instances(plane),
        encoding.ignored(plane),
    )


def _chosen(path: Path, name: str, expected: str) -> Path:
    if not path.name:
        raise ValueError(f"{name} must be {expected}. Received: nothing; choose one")
    return path
