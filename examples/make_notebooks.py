"""Builds and runs the notebooks from their scripts: `python make_notebooks.py [NAME]`.

The script is the source: `# %%` starts a code cell, `# %% [markdown]` a text cell. The notebook has
the same cells with their outputs. It runs in a temporary folder.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
MOST_SECONDS = 1800
PNG, COLOURS = "image/png", 64


def notebook_of(script: Path) -> Any:
    """Converts a script to a notebook without outputs."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("lines_to_next_cell", None)
    return notebook


def shortened(notebook: Any, parameters: Mapping[str, Any]) -> Any:
    """Overrides parameters of a notebook, at the end of its cell of parameters."""
    (cell,) = (one for one in notebook.cells if "parameters" in one.metadata.get("tags", ()))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    return notebook


def run(notebook: Any, folder: Path) -> Any:
    """Runs a notebook in a folder, and returns it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises.
    """
    client = NotebookClient(
        notebook,
        timeout=MOST_SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata.pop("language_info", None)  # versions of this machine
    return notebook


def lightened(notebook: Any) -> Any:
    """Reduces the colors of all figures of a notebook, which makes them three times smaller."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if PNG in output.get("data", {}):
                output.data[PNG] = _in_few_colours(output.data[PNG])
    return notebook


def _in_few_colours(text: str) -> str:
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(names: list[str]) -> None:
    """Builds the notebooks named, or all."""
    for script in SCRIPTS:
        if names and script.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(notebook_of(script), Path(folder))
        nbformat.write(lightened(notebook), script.with_suffix(".ipynb"))
        print(script.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main(sys.argv[1:])
