"""What an exported network says of itself, to people and to programs.

README.md                     the model card
assets.extra/
├── classes.json              what each class stands for
├── standardisation.json      how grey values become the network's input
├── network.json              architecture, margin, tile size, precision: all that tiling needs
└── provenance.json           data, options and outcome of the training, digest of the weights
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keras_unet.checkpoint import BEST
from keras_unet.export.requests import MOST_PIXELS
from keras_unet.export.tiling import GraphTiling
from keras_unet.files import atomic, write_json
from keras_unet.runs import Run

EXTRA = "assets.extra"

_CARD = """# {name}

A U-Net (Ronneberger, Fischer and Brox, 2015) for images of {channels}, of any size. Standardisation
of grey values, mirrored borders, tiles and stitching are inside: send raw pixels.

| class | label value | name |
| --- | --- | --- |
{classes}

| signature | takes | gives |
| --- | --- | --- |
| `serving_default` | `image`: float32 (batch, height, width, {count}) | `probabilities`: float32 \
(batch, height, width, {of_classes}); `classes`: uint8 (batch, height, width) |
| `classify_bytes` | `image_bytes`: PNG or JPEG files, whose sizes may differ | `classes_bytes`: a \
PNG of the classes each; `probabilities_bytes`: a serialised TensorProto each, float32 (height, \
width, {of_classes}) |
| `tile` | `tile`: float32, standardised; sizes {minimum} + {step} k | `logits`: float32, smaller \
by {margin} pixels on each side |
| `about` | `query`: any text | `about`: JSON of classes, labels, rule, standardisation, network |

Ask for the output that you need (`output_filter` in gRPC): `classes_bytes` is small,
`probabilities` are {weight} bytes a pixel.

- Files of at most {most} pixels, which their headers state; larger images as pixels.
- Precision: {precision}. Tile: {tile} x {tile} pixels. Weights: {weights}.
- Training: {training} images, {steps} steps; best validation score: {score}.
- Intended for images like those of the training: same microscope, staining and magnification. No
  diagnosis is to rest on it alone.
- `assets.extra/` holds classes, standardisation, network and provenance for programs.
"""


@dataclass(frozen=True)
class Artefact:
    """What is exported.

    Attributes:
        run: The run.
        tiling: How the graph tiles.
        precision: Precision the graph computes in.
        frozen: Whether the weights are constants of the graph.
    """

    run: Run
    tiling: GraphTiling
    precision: str
    frozen: bool

    def write(self, folder: Path) -> None:
        """Writes the model card and what programs read into the folder of a version."""
        extra = folder / EXTRA
        extra.mkdir(exist_ok=True)
        write_json(extra / "classes.json", self.classes)
        write_json(extra / "standardisation.json", self.run.standardisation.to_dict())
        write_json(extra / "network.json", self.network)
        write_json(extra / "provenance.json", self.provenance)
        with atomic(folder / "README.md") as temporary:
            temporary.write_text(self.card, encoding="utf-8")

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Position, label value and name of each class."""
        values = self.run.scheme.values
        of_cells = self.run.scheme.kind == "instances"
        names = ("background", "cell") if of_cells else tuple(f"label {value}" for value in values)
        return [
            {"class": number, "value": value, "name": name}
            for number, (value, name) in enumerate(zip(values, names, strict=True))
        ]

    @property
    def about(self) -> dict[str, Any]:
        """What a client needs to know to make labels of an answer."""
        return {
            "run": self.run.folder.resolve().name,
            "classes": self.classes,
            "labels": self.run.scheme.to_dict(),
            "rule": self.run.rule.to_dict(),
            "standardisation": self.run.standardisation.to_dict(),
            "network": self.network,
            "most_pixels": MOST_PIXELS,
        }

    @property
    def network(self) -> dict[str, Any]:
        """The architecture, the numbers that tiling needs, and how the graph computes."""
        return self.geometry | {"precision": self.precision, "frozen": self.frozen}

    @property
    def geometry(self) -> dict[str, Any]:
        """The architecture and the numbers that tiling needs."""
        network = self.run.architecture
        return {
            "architecture": network.to_dict(),
            "margin": network.margin,
            "context": network.context,
            "step": network.step,
            "minimum_size": network.minimum_size,
            "tile_size": self.tiling.tile_size,
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the weights come from; of the data's folder only its name."""
        record = dict(self.run.record)
        if "folder" in record.get("data", {}):
            record["data"] = record["data"] | {"folder": Path(record["data"]["folder"]).name}
        return {
            "run": self.run.folder.resolve().name,
            "record": record,
            "labels": self.run.scheme.to_dict(),
            "rule": self.run.rule.to_dict(),
            "trained_in": self.run.precision,
            "sha256": hashlib.sha256((self.run.folder / BEST).read_bytes()).hexdigest(),
            "versions": {
                name: version(name) for name in ("keras-unet-biomedical", "keras", "tensorflow")
            },
        }

    @property
    def words(self) -> dict[str, str]:
        """What any model card says: name, channels, rows of classes, and the training in brief."""
        network, record = self.run.architecture, self.run.record
        outcome = record.get("outcome", {})
        score = outcome.get("best_score")
        return {
            "name": self.run.folder.resolve().name,
            "channels": "1 channel" if network.channels == 1 else f"{network.channels} channels",
            "classes": "\n".join(
                "| {class} | {value} | {name} |".format(**one) for one in self.classes
            ),
            "training": str(len(record.get("data", {}).get("training", ())) or "unknown"),
            "steps": str(outcome.get("steps", "unknown")),
            "score": "none" if score is None else f"{outcome['score_name']} {score:.4f}",
        }

    @property
    def card(self) -> str:
        """The model card."""
        network = self.run.architecture
        return _CARD.format(
            **self.words,
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
