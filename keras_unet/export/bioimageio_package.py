"""A BioImage.IO package: a zip that Fiji's deepImageJ, bioimageio.core and the model zoo read.

rdf.yaml          what is what, in the model zoo's format 0.5
README.md         the model card
model.keras       the same network three times: for Keras 3,
tf_weights.zip    for TensorFlow 2.7 and later, Java's included, weights as constants,
weights.onnx      and for ONNX Runtime
test_input.npy    an image and what the run makes of it, which a program's own test compares
test_output.npy
sample_input.tif  the same for people
sample_output.tif
cover.png

Each network takes images of any size and gives probabilities of that size (`export.anysize`).
Programs that lay blocks cut off a halo: the context, rounded up so that blocks lie on the pooling
lattice and the result is that of the whole image. The format has sizes on that lattice.

The description is of 0.5.10: the first that can say how borders are mirrored, and the last that
names cover and documentation in plain text, which is all that Fiji's engine (JDLL) takes. Where the
model zoo has assigned no id, that engine asks for a nickname.
"""

from __future__ import annotations

import hashlib
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

from keras_unet.backend import tf
from keras_unet.export.artefact import Artefact
from keras_unet.export.graph import IMAGE, PROBABILITIES, any_size_model, halo, least_size
from keras_unet.export.onnx_graph import OPSET, constant, converted

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
    "the program that runs the model standardises every image by itself, as `rdf.yaml` says,\n"
    "  before it lays blocks"
)
_BY_DATA = "they are standardised inside,\n  by mean and deviation of the training images"
_CARD = """# {name}

{what} for images of {channels}.

| class | label value | name |
| --- | --- | --- |
{classes}

- `image`: raw grey values, float32 (batch, y, x, channel); {standardised}.
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
    path: Path, artefact: Artefact, network: Any, example: Example, cover: Path, credits_: Credits
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
        model = any_size_model(network, info.architecture, info.standardisation)
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


def _card(artefact: Artefact) -> str:
    network, mode = artefact.info.architecture, artefact.info.standardisation.mode
    return _CARD.format(
        **artefact.words,
        standardised=_BY_IMAGE if mode == "image" else _BY_DATA,
        least=least_size(network),
        step=network.step,
        halo=halo(network),
    )


def _description(
    folder: Path, artefact: Artefact, credits_: Credits, parameters: int
) -> dict[str, Any]:
    """Content of rdf.yaml."""
    nets = f"Ensemble of {artefact.networks} U-Nets" if artefact.networks > 1 else "U-Net"
    name = f"U-Net {_NOT_IN_NAMES.sub('-', artefact.words['name'])}"[:64]
    classes = " and ".join(one["name"] for one in artefact.classes)
    of_cells = artefact.info.scheme.kind == "instances"
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


def _input(folder: Path, artefact: Artefact) -> dict[str, Any]:
    network = artefact.info.architecture
    size = {"min": least_size(network), "step": network.step}
    numbered = tuple(f"channel{number}" for number in range(network.channels))
    names = {1: ("grey",), len(_COLOURS): _COLOURS}.get(network.channels, numbered)
    by_image = artefact.info.standardisation.mode == "image"
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


def _output(folder: Path, artefact: Artefact) -> dict[str, Any]:
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
