"""Metadata and model card of an export.

README.md                     model card
assets.extra/
└── keras_unet.json           architecture, labels, classes, normalization, instance options and
                              tiling; data, options and outcome of the training, and digest of the
                              weights, for each fold of an ensemble
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keras_unet.export.graph import GraphTiling
from keras_unet.export.serving_inputs import MOST_PIXELS
from keras_unet.files import atomic, write_json
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.prediction.tflite import METADATA
from keras_unet.runs import ModelInfo, describe_score

EXTRA = "assets.extra"

_CARD = """# {name}

{what} for images of {channels}, of any size.
It normalizes grey values, mirrors borders, and predicts large images in tiles: send raw pixels.

| class | label value | name |
| --- | --- | --- |
{classes}

| signature | takes | gives |
| --- | --- | --- |
| `serving_default` | `image`: float32 (batch, height, width, {count}) | `probabilities`: float32 \
(batch, height, width, {of_classes}); `classes`: uint8 (batch, height, width) |
| `scaled` | `image`: as above; `scale`: float32 (1,) or (batch,), default 1, by which images are \
resampled before the prediction and probabilities back | as above |
| `classify_bytes` | `image_bytes`: PNG or JPEG files, whose sizes may differ | `classes_bytes`: a \
PNG of the classes for each file; `probabilities_bytes`: a serialized TensorProto for each file, \
float32 (height, width, {of_classes}) |
| `tile` | `tile`: float32, normalized; sizes {minimum} + {step} k | `logits`: float32, smaller \
by {margin} pixels on each side |
| `about` | `query`: any text | `about`: JSON of classes, labels, instance options, \
normalization, network |

Request only the outputs that you need (`output_filter` in gRPC): `classes_bytes` is small,
`probabilities` are {weight} bytes per pixel.

- Files may have {most} pixels at most; send larger images as pixels.
- Precision: {precision}. Tile: {tile} x {tile} pixels. Weights: {weights}.
- Training: {training}; validation score: {score}.
- Intended for images like those of the training: same microscope, staining and magnification. Do
  not base a diagnosis on it alone.
- `assets.extra/keras_unet.json` holds classes, normalization, network and provenance for programs.
"""

_U_NET = "A U-Net (Ronneberger, Fischer and Brox, 2015)"
_ENSEMBLE = (
    "An ensemble of {} U-Nets (Ronneberger, Fischer and Brox, 2015), whose probabilities are "
    "averaged,"
)


@dataclass(frozen=True)
class ExportMetadata:
    """Metadata of an export.

    Attributes:
        segmenter: The model.
        tiling: Tiling in the graph.
        precision: Precision that the graph computes in.
        frozen: Whether the weights are constants of the graph.
    """

    segmenter: Segmenter
    tiling: GraphTiling
    precision: str
    frozen: bool

    def write(self, folder: Path) -> None:
        """Writes model card and metadata to the folder of a SavedModel."""
        extra = folder / EXTRA
        extra.mkdir(exist_ok=True)
        write_json(extra / METADATA, self.to_dict())
        with atomic(folder / "README.md") as temporary:
            temporary.write_text(self.card, encoding="utf-8")

    @property
    def info(self) -> ModelInfo:
        """Metadata of the model."""
        return self.segmenter.info

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Number, label value and name of each class."""
        encoding = self.info.encoding
        return [
            {"class": number, "value": value, "name": name}
            for number, (value, name) in enumerate(
                zip(encoding.values, encoding.names, strict=True)
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns all metadata: entries of `ModelInfo.to_dict`, the tiling, and the provenance."""
        return self.about | {"record": _record(self.info), "provenance": self._provenance}

    @property
    def about(self) -> dict[str, Any]:
        """Entries that a client needs to convert predictions to labels."""
        network = self.info.architecture
        info = replace(self.info, precision=self.precision, record={}).to_dict()
        del info["record"]
        return info | {
            "networks": self.networks,
            "classes": self.classes,
            "network": {
                "margin": network.margin,
                "context": network.context,
                "step": network.step,
                "minimum_size": network.minimum_size,
                "tile_size": self.tiling.tile_size,
                "frozen": self.frozen,
            },
            "most_pixels": MOST_PIXELS,
        }

    @property
    def _provenance(self) -> dict[str, Any]:
        """Origin of the weights, with the versions of the software."""
        members = self.segmenter.members
        weights = (
            {"folds": list(map(_fold, members))} if self.networks > 1 else _weights(members[0])
        )
        packages = ("keras-unet-biomedical", "keras", "tensorflow")
        return {**weights, "versions": {name: version(name) for name in packages}}

    @property
    def card_fields(self) -> dict[str, str]:
        """Texts of a model card: purpose, table of classes, and summary of the training."""
        network = self.info.architecture
        outcomes = [member.info.record.get("outcome", {}) for member in self.segmenter.members]
        return {
            "name": self.info.name,
            "what": _ENSEMBLE.format(self.networks) if self.networks > 1 else _U_NET,
            "channels": "1 channel" if network.channels == 1 else f"{network.channels} channels",
            "classes": "\n".join(
                "| {class} | {value} | {name} |".format(**row) for row in self.classes
            ),
            "training": self._training(
                [str(outcome.get("steps", "unknown")) for outcome in outcomes]
            ),
            "score": "; ".join(describe_score(outcome) or "none" for outcome in outcomes),
        }

    @property
    def networks(self) -> int:
        """Number of networks whose probabilities are averaged."""
        return len(self.segmenter.members)

    def _training(self, steps: Sequence[str]) -> str:
        images = len(self.info.record.get("data", {}).get("training", ())) or "unknown"
        held_out = ", each held out by one network," if self.networks > 1 else ","
        return f"{images} images{held_out} {' + '.join(steps)} steps"

    @property
    def card(self) -> str:
        """Text of the model card in Markdown."""
        network = self.info.architecture
        return _CARD.format(
            **self.card_fields,
            count=network.channels,
            of_classes=network.classes,
            minimum=network.minimum_size,
            step=network.step,
            margin=network.margin,
            weight=4 * network.classes,
            most=MOST_PIXELS,
            precision=self.precision,
            tile=self.tiling.tile_size,
            weights="constants of the graph" if self.frozen else "variables",
        )


def _fold(member: Member) -> dict[str, Any]:
    info = member.info
    normalization = info.normalization.to_dict()
    entries = {"name": info.name, "record": _record(info), "normalization": normalization}
    return entries | _weights(member)


def _weights(member: Member) -> dict[str, str]:
    return {"trained_in": member.info.precision, "sha256": member.checksum}


def _record(info: ModelInfo) -> dict[str, Any]:
    """Returns the record of a training, with the name of the data folder in place of its path."""
    record = dict(info.record)
    if "folder" in record.get("data", {}):
        record["data"] = record["data"] | {"folder": Path(record["data"]["folder"]).name}
    return record
