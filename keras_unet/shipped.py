"""Models that come with the package, by name: no network connection, no other installation.

models/NAME/
├── run.json        record of the training, with license and SHA-256 of the weights
├── best.keras      weights, rounded to bfloat16
├── card.md         images, license, scores on held-out images, what the model fails on
└── card.png        held-out images with labels and prediction
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "models"
CARD = "card.md"
WEIGHTS, RECORD = "best.keras", "run.json"


def names() -> list[str]:
    """Returns the names of the models."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{RECORD}"))


def record(name: str) -> Mapping[str, Any]:
    """Returns the content of a model's `run.json`.

    Raises:
        ValueError: If there is no model of this name.
    """
    values: Mapping[str, Any] = json.loads((_folder(name) / RECORD).read_text(encoding="utf-8"))
    return values


def card(name: str) -> str:
    """Returns the card of a model, as Markdown.

    Raises:
        ValueError: If there is no model of this name.
    """
    return (_folder(name) / CARD).read_text(encoding="utf-8")


def find(name: str) -> Path:
    """Returns the folder of a model, once its weights have been verified.

    Raises:
        ValueError: If there is no model of this name, or its weights are damaged.
    """
    folder = _folder(name)
    with (folder / WEIGHTS).open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != record(name)["record"]["sha256"]:
        raise ValueError(
            f"{folder / WEIGHTS}: expected the weights of the model {name}. Received others, of "
            f"SHA-256 {checksum[:12]}; install the package again"
        )
    return folder


def _folder(name: str) -> Path:
    if name not in names():
        raise ValueError(
            f"name must be one of {', '.join(names()) or 'no models'}. Received: {name!r}"
        )
    return FOLDER / name
