"""Writes figure1.json: the layers of the default network, one a line.

Run `python tests/golden/generate.py` and read the difference. Regenerate only where the network is
meant to change: files saved before will then no longer load by layer name. Neither the number of
parameters nor the output's size may change at all, since they are the paper's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_name("figure1.json")


def describe(model: Any) -> dict[str, Any]:
    """Lists what a network is made of."""
    return {
        "parameters": model.count_params(),
        "layers": [
            {
                "name": layer.name,
                "kind": type(layer).__name__,
                "output": list(layer.output.shape[1:]),
                "parameters": layer.count_params(),
            }
            for layer in model.layers
        ],
    }


def write(description: dict[str, Any], path: Path) -> None:
    """Writes one layer a line, so that a difference can be read."""
    lines = ",\n".join(f"    {json.dumps(layer)}" for layer in description["layers"])
    parameters = description["parameters"]
    path.write_text(f'{{\n  "parameters": {parameters},\n  "layers": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    from keras_unet import build_unet

    write(describe(build_unet()), GOLDEN)
