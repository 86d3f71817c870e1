"""From a run or an ensemble to a BioImage.IO package, which Fiji and the model zoo read."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import tifffile
from bioimageio.spec import save_bioimageio_yaml_only
from bioimageio.spec.generic.v0_3 import LicenseId
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.export.graph import (
    IMAGE,
    PROBABILITIES,
    USEFUL_PIXELS,
    GraphTiling,
    any_size_model,
    halo,
    least_size,
)
from keras_unet.export.metadata import ExportMetadata
from keras_unet.export.onnx import OPSET, constant, converted
from keras_unet.export.parity import answer_of_bioimageio, example_image, write_and_compare
from keras_unet.files import check_new_file, write_then_move
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.report.pictures import grey_picture, label_picture, write_png
from keras_unet.runs import ModelInfo
from keras_unet.system import require
from keras_unet.tiling import mirrored_window

_log = logging.getLogger(__name__)

ALLOWED = {"dataset": 1e-5, "image": 1e-4}
"""Largest difference of a probability, by who measures grey values.

An image is measured by itself by the program that runs the model. The format lets it add 1e-6 to
the deviation, which images in [0, 1] feel.
"""

COVER = 256
"""Height of the cover in pixels at most, which keeps it below the model zoo's 500 KB."""

LICENSE = "CC-BY-4.0"
UNKNOWN = "unknown"

_PACKAGES = ("bioimageio.core", "bioimageio.spec", "onnx", "onnxruntime", "tf2onnx")


def export_bioimageio(
    segmenter: Segmenter,
    out: Path,
    *,
    authors: Sequence[str] = (),
    license: str = LICENSE,  # noqa: A002 - the field's word
) -> Path:
    """Exports a model as a BioImage.IO package, complete in itself, see `export_model`.

    A fresh process must pass the package's own test for all weights, and blocks must give what the
    whole image gives.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .zip.
        authors: Names of those who made the model; none for unknown, which will do until the
            package is published.
        license: SPDX identifier of the license that others may use the model under.

    Returns:
        The file written.
    """
    require("bioimageio", *_PACKAGES)
    from keras_unet.export.bioimageio import (
        Credits,
        Example,
        check_authors,
        check_license,
        write_package,
    )

    info = segmenter.info
    _check_blocks(info)
    check_license(license)
    check_authors(authors)
    check_new_file(out, ".zip")

    def write(path: Path, artefact: ExportMetadata, network: Any) -> None:
        image = _example(info)
        example = Example(image, _predicted(artefact.segmenter, image))
        cover = path.with_name("cover.png")
        write_png(cover, _cover(example.image, example.probabilities))
        credited = Credits(authors or (UNKNOWN,), license)
        write_package(path, artefact, network, example, cover, credited)

    write_and_compare(
        segmenter,
        write_then_move(out),
        write,
        answer_of_bioimageio,
        ALLOWED[info.normalization.mode],
        tiling=GraphTiling.of(info.architecture),
    )
    _log.info(
        f"authors: {', '.join(authors) or UNKNOWN} (--author); license: {license} (--license)"
    )
    return out


def _check_blocks(info: ModelInfo) -> None:
    """Refuses a network that measures each block by itself: blocks would not give the whole."""
    if info.architecture.norm_layer == "group":
        raise ValueError(
            f'{info.name}: expected a model without norm_layer="group", whose scores depend on '
            "the block that a program lays. Received one with it; export it as saved_model, onnx "
            "or tflite, where the tile is fixed"
        )


def _example(info: ModelInfo) -> NDArray[Any]:
    """Reads an image of the run's data, cut or mirrored to a size that a block may have."""
    image, _ = example_image(info, USEFUL_PIXELS)
    rows, columns = (slice(0, _fitting(size, info.architecture)) for size in image.shape[:2])
    return mirrored_window(image, rows, columns)


def _fitting(size: int, network: Architecture) -> int:
    least = least_size(network)
    return least + max(0, size - least) // network.step * network.step


def _predicted(segmenter: Segmenter, image: NDArray[Any]) -> NDArray[np.float32]:
    with tf.device("/CPU:0"):
        return segmenter.predict_pixels(image, Path("the example"))


def _cover(image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draws image and classes side by side, twice as wide as high."""
    side = min(*image.shape[:2], COVER)
    square, classes = image[:side, :side], probabilities[:side, :side].argmax(-1)
    return np.concatenate([grey_picture(square), label_picture(classes, square)], axis=1)


FORMAT = "0.5.10"

_COLOURS = ("red", "green", "blue")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_+-]+")
_PAPER = {
    "text": "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image "
    "Segmentation, MICCAI 2015",
    "doi": "10.1007/978-3-319-24574-4_28",
}
_TAGS = ("2d", "unet", "tensorflow", "semantic-segmentation", "fiji", "deepimagej")
_TOLERANCE = {"absolute_tolerance": 0.0001, "relative_tolerance": 0.001}
"""Of a probability in a program's own test: processors and GPUs round differently."""

_BY_IMAGE = (
    "the program that runs the model normalizes every image by itself, as `rdf.yaml` says,\n"
    "  before it lays blocks"
)
_BY_DATA = "they are normalized inside,\n  by mean and deviation of the training images"
_CARD = """# {name}

{what} for images of {channels}.

| class | label value | name |
| --- | --- | --- |
{classes}

- `image`: raw grey values, float32 (batch, y, x, channel); {normalized}.
- `probabilities`: float32 (batch, y, x, class), as large as the image. A class is a channel.
- Sizes are {least} + {step} k pixels; the networks themselves take any. Missing context is
  mirrored. Blocks overlap by a halo of {halo} pixels on each side, and give what the whole image
  gives.

## Validation

Best score on images held out in the training: {score}. Before use, predict images that training
has not seen and whose labels are known, and compare: IoU, or SEG and AP where cells are counted.

## Training

{training}. `rdf.yaml` holds the options, the names of the images and the
versions of the software, under `config: keras_unet`.

Intended for images like those of the training: same microscope, staining and magnification. No
diagnosis is to rest on it alone.
"""


def check_license(license: str) -> None:  # noqa: A002
    """Makes sure that a license is one that programs know.

    Raises:
        ValueError: If it is no SPDX identifier.
    """
    try:
        LicenseId(license)
    except ValueError as error:
        raise ValueError(
            "license must be an SPDX identifier, such as CC-BY-4.0, CC0-1.0 or MIT. "
            f"Received: {license!r}"
        ) from error


def check_authors(authors: Sequence[str]) -> None:
    """Makes sure that names can be written into a description.

    Raises:
        ValueError: If one is not UTF-8, as a terminal with other settings hands it on.
    """
    for name in authors:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        if shown != name:
            raise ValueError(
                f"authors must be UTF-8. Received: {shown}; type it in such a terminal"
            )


@dataclass(frozen=True, eq=False)
class Example:
    """An image and what the run makes of it.

    Attributes:
        image: Raw pixels `(height, width, channels)`, of a size that a block may have.
        probabilities: `(height, width, classes)`, float32.
    """

    image: NDArray[Any]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Credits:
    """Authors and license of the model.

    Attributes:
        authors: Names, at least one.
        license: SPDX identifier of the license, such as CC-BY-4.0.
    """

    authors: Sequence[str]
    license: str


def write_package(
    path: Path,
    artefact: ExportMetadata,
    network: Any,
    example: Example,
    cover: Path,
    credits_: Credits,
) -> None:
    """Writes the package.

    Args:
        path: File to write, a zip.
        artefact: What the model says of itself.
        network: The Keras network, in float32.
        example: For the test.
        cover: A picture, twice as wide as high.
        credits_: Authors and license.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        info = artefact.info
        model = any_size_model(network, info.architecture, info.normalization)
        _write_weights(folder, model, info.architecture.channels)
        _write_example(folder, example)
        shutil.copyfile(cover, folder / "cover.png")
        (folder / "README.md").write_text(_card(artefact), encoding="utf-8")
        description = _description(folder, artefact, credits_, model.count_params())
        save_bioimageio_yaml_only(description, folder / "rdf.yaml")
        _zip(folder, path)


def _write_weights(folder: Path, model: Any, channels: int) -> None:
    model.save(folder / "model.keras")
    score = constant(model)

    def predict(image: Any) -> dict[str, Any]:
        return {PROBABILITIES: score(image)}

    onnx.save(converted(predict, channels), folder / "weights.onnx")
    taken = tf.TensorSpec((None, None, None, channels), tf.float32, IMAGE)
    serving_default = tf.function(predict, input_signature=[taken], autograph=False)
    with TemporaryDirectory() as bundle:
        tf.saved_model.save(tf.Module(), bundle, signatures={"serving_default": serving_default})
        _zip(Path(bundle), folder / "tf_weights.zip")


def _zip(folder: Path, path: Path) -> None:
    made = shutil.make_archive(str(path.with_suffix("")), "zip", folder)
    Path(made).replace(path)


def _write_example(folder: Path, example: Example) -> None:
    np.save(folder / "test_input.npy", example.image[None].astype(np.float32))
    np.save(folder / "test_output.npy", example.probabilities[None])
    image = example.image[..., 0] if example.image.shape[-1] == 1 else example.image
    for name, shown in (("input", image), ("output", example.probabilities)):
        path = folder / f"sample_{name}.tif"
        tifffile.imwrite(path, shown, photometric="minisblack", planarconfig="contig")


def _card(artefact: ExportMetadata) -> str:
    network, mode = artefact.info.architecture, artefact.info.normalization.mode
    return _CARD.format(
        **artefact.words,
        normalized=_BY_IMAGE if mode == "image" else _BY_DATA,
        least=least_size(network),
        step=network.step,
        halo=halo(network),
    )


def _description(
    folder: Path, artefact: ExportMetadata, credits_: Credits, parameters: int
) -> dict[str, Any]:
    """Content of rdf.yaml."""
    nets = f"Ensemble of {artefact.networks} U-Nets" if artefact.networks > 1 else "U-Net"
    name = f"U-Net {_NOT_IN_NAMES.sub('-', artefact.words['name'])}"[:64]
    classes = " and ".join(one["name"] for one in artefact.classes)
    of_cells = artefact.info.encoding.kind == "instances"
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": name,
        "description": f"{nets} that gives each pixel its probabilities of {classes}."[:512],
        "authors": [{"name": name} for name in credits_.authors],
        "license": credits_.license,
        "cite": [_PAPER],
        "tags": [*_TAGS, *(["cells"] if of_cells else [])],
        "documentation": "README.md",
        "covers": ["cover.png"],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_input(folder, artefact)],
        "outputs": [_output(folder, artefact)],
        "weights": _weights(folder),
        "config": {
            "bioimageio": {
                "nickname": re.sub(r"\W+", "-", name.lower()),
                "reproducibility_tolerance": [_TOLERANCE],
                "architecture_type": "U-Net",
                "task": "semantic-segmentation",
                "model_parameter_count": parameters,
            },
            "keras_unet": artefact.metadata,
        },
    }


def _input(folder: Path, artefact: ExportMetadata) -> dict[str, Any]:
    network = artefact.info.architecture
    size = {"min": least_size(network), "step": network.step}
    numbered = tuple(f"channel{number}" for number in range(network.channels))
    names = {1: ("grey",), len(_COLOURS): _COLOURS}.get(network.channels, numbered)
    by_image = artefact.info.normalization.mode == "image"
    return {
        "id": IMAGE,
        "description": "Raw grey values.",
        "axes": [
            {"type": "batch"},
            {"type": "space", "id": "y", "size": size},
            {"type": "space", "id": "x", "size": dict(size)},
            {"type": "channel", "channel_names": list(names)},
        ],
        "test_tensor": _file(folder / "test_input.npy"),
        "sample_tensor": _file(folder / "sample_input.tif"),
        "data": {"type": "float32"},
        "pad": {"mode": "reflect"},
        "preprocessing": [
            {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}},
        ][:by_image],
    }


def _output(folder: Path, artefact: ExportMetadata) -> dict[str, Any]:
    space = [
        {
            "type": "space",
            "id": axis,
            "size": {"tensor_id": IMAGE, "axis_id": axis},
            "halo": halo(artefact.info.architecture),
        }
        for axis in ("y", "x")
    ]
    names = [_NOT_IN_NAMES.sub("-", one["name"]) for one in artefact.classes]
    return {
        "id": PROBABILITIES,
        "description": "Probability of each class.",
        "axes": [{"type": "batch"}, *space, {"type": "channel", "channel_names": names}],
        "test_tensor": _file(folder / "test_output.npy"),
        "sample_tensor": _file(folder / "sample_output.tif"),
        "data": {"type": "float32", "range": [0.0, 1.0]},
    }


def _weights(folder: Path) -> dict[str, Any]:
    parent = {"parent": "keras_v3"}
    return {
        "keras_v3": _file(folder / "model.keras")
        | {"keras_version": version("keras"), "backend": ["tensorflow", version("tensorflow")]},
        "tensorflow_saved_model_bundle": _file(folder / "tf_weights.zip")
        | parent
        | {"tensorflow_version": version("tensorflow")},
        "onnx": _file(folder / "weights.onnx") | parent | {"opset_version": OPSET},
    }


def _file(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
