"""Exports a model as a BioImage.IO package, for Fiji, bioimageio.core and the model zoo."""

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
import tifffile
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
    smallest_block,
)
from keras_unet.export.metadata import ExportMetadata
from keras_unet.export.onnx import OPSET, to_onnx, with_constant_weights
from keras_unet.export.parity import example_image, predict_by_bioimageio, write_and_compare
from keras_unet.files import check_new_file, write_then_move
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.report.pictures import grey_picture, label_picture, write_png
from keras_unet.runs import ModelInfo
from keras_unet.system import require
from keras_unet.tiling import mirrored_window

_log = logging.getLogger(__name__)

FORMAT = "0.5.10"

TOLERANCES = {"dataset": 1e-5, "image": 1e-4}
"""Largest difference of a probability, by the mode of normalization.

In the mode "image", the program that runs the model normalizes. The format lets it add 1e-6 to the
deviation, which matters for images in [0, 1].
"""

COVER = 256
"""Largest height of the cover in pixels, which keeps it below 500 KB, the model zoo's limit."""

LICENSE = "CC-BY-4.0"
UNKNOWN = "unknown"

_PACKAGES = ("bioimageio.core", "bioimageio.spec", "onnx", "onnxruntime", "tf2onnx")
_COLORS = ("red", "green", "blue")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_+-]+")
_PAPER = {
    "text": "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image "
    "Segmentation, MICCAI 2015",
    "doi": "10.1007/978-3-319-24574-4_28",
}
_TAGS = ("2d", "unet", "tensorflow", "semantic-segmentation", "fiji", "deepimagej")
_TOLERANCE = {"absolute_tolerance": 0.0001, "relative_tolerance": 0.001}
"""For the probabilities in a program's test of the package: CPUs and GPUs round differently."""

_BY_IMAGE = (
    "the program that runs the model normalizes each whole image, as `rdf.yaml`\n"
    "  describes, before it cuts blocks"
)
_BY_DATA = "the model normalizes them,\n  by mean and deviation of the training images"
_CARD = """# {name}

{what} for images of {channels}.

| class | label value | name |
| --- | --- | --- |
{classes}

- `image`: raw grey values, float32 (batch, y, x, channel); {normalized}.
- `probabilities`: float32 (batch, y, x, class), as large as the image. A class is a channel.
- Sizes are {smallest} + {step} k pixels; the networks themselves take any. Missing context is
  mirrored. Blocks overlap by a halo of {halo} pixels on each side, and give the same result as the
  whole image.

## Validation

Validation score: {score}. Before use, predict images that were not in the training and whose
labels are known, and compare: IoU, or SEG and AP to count cells.

## Training

{training}. `rdf.yaml` has the options, the names of the images and the
versions of the software, under `config: keras_unet`.

Intended for images like those of the training: same microscope, staining and magnification. Do
not base a diagnosis on it alone.
"""


def export_bioimageio(
    segmenter: Segmenter,
    out: Path,
    *,
    authors: Sequence[str] = (),
    license: str = LICENSE,  # noqa: A002 - the field's word
) -> Path:
    """Exports a model as a BioImage.IO package, see `export_model`.

    The package's own test must pass for all weights in a fresh process, and blocks must give the
    same result as the whole image.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .zip.
        authors: Names of the authors; empty for "unknown", to be replaced before publication.
        license: SPDX identifier of the license of the model.

    Returns:
        The file written.
    """
    require("bioimageio", *_PACKAGES)
    info = segmenter.info
    _check_blocks(info)
    check_license(license)
    check_authors(authors)
    check_new_file(out, ".zip")

    def write(path: Path, metadata: ExportMetadata, network: Any) -> None:
        image = _example_image(info)
        example = Example(image, _predict(metadata.segmenter, image))
        cover = path.with_name("cover.png")
        write_png(cover, _cover(example.image, example.probabilities))
        credits_ = Credits(authors or (UNKNOWN,), license)
        write_package(path, metadata, network, example, cover, credits_)

    write_and_compare(
        segmenter,
        write_then_move(out),
        write,
        predict_by_bioimageio,
        TOLERANCES[info.normalization.mode],
        tiling=GraphTiling.of(info.architecture),
    )
    _log.info(
        f"authors: {', '.join(authors) or UNKNOWN} (--author); license: {license} (--license)"
    )
    return out


def _check_blocks(info: ModelInfo) -> None:
    """Checks that the prediction of a pixel does not depend on its block."""
    if info.architecture.norm_layer == "group":
        raise ValueError(
            f'{info.name}: expected a model without norm_layer="group", whose results depend on '
            "the block size of the program. Received one with it; export it as saved_model, onnx "
            "or tflite, where the tile size is fixed"
        )


def _example_image(info: ModelInfo) -> NDArray[Any]:
    """Returns an image of the training data, cut or mirrored to a valid block size."""
    image, _ = example_image(info, USEFUL_PIXELS)
    rows, columns = (slice(0, _block_size(size, info.architecture)) for size in image.shape[:2])
    return mirrored_window(image, rows, columns)


def _block_size(size: int, network: Architecture) -> int:
    smallest = smallest_block(network)
    return smallest + max(0, size - smallest) // network.step * network.step


def _predict(segmenter: Segmenter, image: NDArray[Any]) -> NDArray[np.float32]:
    with tf.device("/CPU:0"):
        return segmenter.predict_pixels(image, Path("the example"))


def _cover(image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draws image and classes side by side, twice as wide as high."""
    side = min(*image.shape[:2], COVER)
    square, classes = image[:side, :side], probabilities[:side, :side].argmax(-1)
    return np.concatenate([grey_picture(square), label_picture(classes, square)], axis=1)


def check_license(license: str) -> None:  # noqa: A002
    """Checks the identifier of a license.

    Raises:
        ValueError: If it is not an SPDX identifier.
    """
    from bioimageio.spec.generic.v0_3 import LicenseId

    try:
        LicenseId(license)
    except ValueError as error:
        raise ValueError(
            "license must be an SPDX identifier, such as CC-BY-4.0, CC0-1.0 or MIT. "
            f"Received: {license!r}"
        ) from error


def check_authors(authors: Sequence[str]) -> None:
    """Checks the names of authors.

    Raises:
        ValueError: If a name is not UTF-8, as from a terminal with another encoding.
    """
    for name in authors:
        escaped = os.fsencode(name).decode("utf-8", "backslashreplace")
        if escaped != name:
            raise ValueError(
                f"authors must be UTF-8. Received: {escaped}; type it in a UTF-8 terminal"
            )


@dataclass(frozen=True, eq=False)
class Example:
    """Example image and its prediction, for the test of the package.

    Attributes:
        image: Raw pixels `(height, width, channels)`, of a valid block size.
        probabilities: float32 probabilities `(height, width, classes)`.
    """

    image: NDArray[Any]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Credits:
    """Authors and license of the model.

    Attributes:
        authors: Names of the authors, at least one.
        license: SPDX identifier of the license, such as CC-BY-4.0.
    """

    authors: Sequence[str]
    license: str


def write_package(
    path: Path,
    metadata: ExportMetadata,
    network: Any,
    example: Example,
    cover: Path,
    credits_: Credits,
) -> None:
    """Writes the package.

    Args:
        path: Zip file to write.
        metadata: Metadata of the export.
        network: The Keras network, in float32.
        example: Example for the test.
        cover: Path of the cover picture, twice as wide as high.
        credits_: Authors and license.
    """
    from bioimageio.spec import save_bioimageio_yaml_only

    with TemporaryDirectory() as name:
        folder = Path(name)
        info = metadata.info
        model = any_size_model(network, info.architecture, info.normalization)
        _write_weights(folder, model, info.architecture.channels)
        _write_example(folder, example)
        shutil.copyfile(cover, folder / "cover.png")
        (folder / "README.md").write_text(_card(metadata), encoding="utf-8")
        description = _description(folder, metadata, credits_, model.count_params())
        save_bioimageio_yaml_only(description, folder / "rdf.yaml")
        _zip(folder, path)


def _write_weights(folder: Path, model: Any, channels: int) -> None:
    import onnx

    model.save(folder / "model.keras")
    graph = with_constant_weights(model)

    def predict(image: Any) -> dict[str, Any]:
        return {PROBABILITIES: graph(image)}

    onnx.save(to_onnx(predict, channels), folder / "weights.onnx")
    spec = tf.TensorSpec((None, None, None, channels), tf.float32, IMAGE)
    serving_default = tf.function(predict, input_signature=[spec], autograph=False)
    with TemporaryDirectory() as bundle:
        tf.saved_model.save(tf.Module(), bundle, signatures={"serving_default": serving_default})
        _zip(Path(bundle), folder / "tf_weights.zip")


def _zip(folder: Path, path: Path) -> None:
    archive = shutil.make_archive(str(path.with_suffix("")), "zip", folder)
    Path(archive).replace(path)


def _write_example(folder: Path, example: Example) -> None:
    np.save(folder / "test_input.npy", example.image[None].astype(np.float32))
    np.save(folder / "test_output.npy", example.probabilities[None])
    image = example.image[..., 0] if example.image.shape[-1] == 1 else example.image
    for name, pixels in (("input", image), ("output", example.probabilities)):
        path = folder / f"sample_{name}.tif"
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")


def _card(metadata: ExportMetadata) -> str:
    network, mode = metadata.info.architecture, metadata.info.normalization.mode
    return _CARD.format(
        **metadata.card_fields,
        normalized=_BY_IMAGE if mode == "image" else _BY_DATA,
        smallest=smallest_block(network),
        step=network.step,
        halo=halo(network),
    )


def _description(
    folder: Path, metadata: ExportMetadata, credits_: Credits, parameters: int
) -> dict[str, Any]:
    """Returns the content of rdf.yaml."""
    model = f"Ensemble of {metadata.networks} U-Nets" if metadata.networks > 1 else "U-Net"
    name = f"U-Net {_NOT_IN_NAMES.sub('-', metadata.card_fields['name'])}"[:64]
    classes = " and ".join(row["name"] for row in metadata.classes)
    has_instances = metadata.info.encoding.kind == "instances"
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": name,
        "description": f"{model} that predicts for each pixel the probability of {classes}."[:512],
        "authors": [{"name": name} for name in credits_.authors],
        "license": credits_.license,
        "cite": [_PAPER],
        "tags": [*_TAGS, *(["cells"] if has_instances else [])],
        "documentation": "README.md",
        "covers": ["cover.png"],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_input(folder, metadata)],
        "outputs": [_output(folder, metadata)],
        "weights": _weights(folder),
        "config": {
            "bioimageio": {
                "nickname": re.sub(r"\W+", "-", name.lower()),
                "reproducibility_tolerance": [_TOLERANCE],
                "architecture_type": "U-Net",
                "task": "semantic-segmentation",
                "model_parameter_count": parameters,
            },
            "keras_unet": metadata.to_dict(),
        },
    }


def _input(folder: Path, metadata: ExportMetadata) -> dict[str, Any]:
    network = metadata.info.architecture
    size = {"min": smallest_block(network), "step": network.step}
    default = tuple(f"channel{number}" for number in range(network.channels))
    names = {1: ("grey",), len(_COLORS): _COLORS}.get(network.channels, default)
    by_image = metadata.info.normalization.mode == "image"
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


def _output(folder: Path, metadata: ExportMetadata) -> dict[str, Any]:
    space = [
        {
            "type": "space",
            "id": axis,
            "size": {"tensor_id": IMAGE, "axis_id": axis},
            "halo": halo(metadata.info.architecture),
        }
        for axis in ("y", "x")
    ]
    names = [_NOT_IN_NAMES.sub("-", row["name"]) for row in metadata.classes]
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
