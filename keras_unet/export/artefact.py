"""Model card and metadata of an exported network.

README.md                     the model card
assets.extra/
├── classes.json              what each class stands for
├── standardisation.json      how grey values become the network's input
├── network.json              architecture, margin, tile size, precision: all that tiling needs
└── provenance.json           data, options and outcome of the training, digest of the weights;
                              of an ensemble, those of each fold
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keras_unet.export.graph import GraphTiling
from keras_unet.export.requests import MOST_PIXELS
from keras_unet.files import atomic, write_json
from keras_unet.runs import BEST, Run

EXTRA = "assets.extra"

_CARD = """# {name}

{what} for images of {channels}, of any size.
Standardisation of grey values, mirrored borders, tiles and stitching are inside: send raw pixels.

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
- Training: {training}; best validation score: {score}.
- Intended for images like those of the training: same microscope, staining and magnification. No
  diagnosis is to rest on it alone.
- `assets.extra/` holds classes, standardisation, network and provenance for programs.
"""

_U_NET = "A U-Net (Ronneberger, Fischer and Brox, 2015)"
_ENSEMBLE = (
    "An ensemble of {} U-Nets (Ronneberger, Fischer and Brox, 2015), whose probabilities are "
    "averaged,"
)


@dataclass(frozen=True)
class Artefact:
    """Network to export, with all that its metadata state.

    Attributes:
        run: The run, or what stands for an ensemble.
        tiling: How the graph tiles.
        precision: Precision the graph computes in.
        frozen: Whether the weights are constants of the graph.
        folds: The runs of an ensemble; of a run, none.
    """

    run: Run
    tiling: GraphTiling
    precision: str
    frozen: bool
    folds: tuple[Run, ...] = ()

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
        scheme = self.run.scheme
        return [
            {"class": number, "value": value, "name": name}
            for number, (value, name) in enumerate(zip(scheme.values, scheme.names, strict=True))
        ]

    @property
    def about(self) -> dict[str, Any]:
        """Values that a client needs to make labels of an answer."""
        return {
            "run": self._name,
            "networks": self.networks,
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
        """Origin of the weights; of the data's folders only their names."""
        own = {"folds": list(map(_of_fold, self.folds))} if self.folds else _of_weights(self.run)
        return {
            "run": self._name,
            "record": _record(self.run),
            "labels": self.run.scheme.to_dict(),
            "rule": self.run.rule.to_dict(),
            **own,
            "versions": {
                name: version(name) for name in ("keras-unet-biomedical", "keras", "tensorflow")
            },
        }

    @property
    def words(self) -> dict[str, str]:
        """Text of any model card: purpose, rows of classes, and the training in brief."""
        network = self.run.architecture
        outcomes = [run.record.get("outcome", {}) for run in self.folds or (self.run,)]
        return {
            "name": self._name,
            "what": _ENSEMBLE.format(self.networks) if self.folds else _U_NET,
            "channels": "1 channel" if network.channels == 1 else f"{network.channels} channels",
            "classes": "\n".join(
                "| {class} | {value} | {name} |".format(**one) for one in self.classes
            ),
            "training": self._training([str(one.get("steps", "unknown")) for one in outcomes]),
            "score": ", ".join(map(_score, outcomes)),
        }

    @property
    def networks(self) -> int:
        """Number of networks, whose probabilities are averaged."""
        return max(1, len(self.folds))

    @property
    def _name(self) -> str:
        return self.run.folder.resolve().name

    def _training(self, steps: Sequence[str]) -> str:
        images = len(self.run.record.get("data", {}).get("training", ())) or "unknown"
        held_out = ", each held out by one network," if self.folds else ","
        return f"{images} images{held_out} {' + '.join(steps)} steps"

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


def _of_fold(fold: Run) -> dict[str, Any]:
    """Origin of a fold's weights, and the normalization of its grey values."""
    standardisation = fold.standardisation.to_dict()
    named = {"run": fold.folder.name, "record": _record(fold), "standardisation": standardisation}
    return named | _of_weights(fold)


def _of_weights(run: Run) -> dict[str, str]:
    digest = hashlib.sha256((run.folder / BEST).read_bytes()).hexdigest()
    return {"trained_in": run.precision, "sha256": digest}


def _record(run: Run) -> dict[str, Any]:
    record = dict(run.record)
    if "folder" in record.get("data", {}):
        record["data"] = record["data"] | {"folder": Path(record["data"]["folder"]).name}
    return record


def _score(outcome: Mapping[str, Any]) -> str:
    score = outcome.get("best_score")
    return "none" if score is None else f"{outcome['score_name']} {score:.4f}"
