"""Modules and functions that a command uses: `python -m benchmarks.paths`.

Each command runs on four synthetic images of 96 x 96 pixels in its own process. Counted are the
modules of the package that it loads, the functions that it calls, and how often it opens the first
image. The counts go to `benchmarks/results/paths.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np
import tifffile
from click.testing import CliRunner

from benchmarks.record import RESULTS, origin
from keras_unet import draw_cells
from keras_unet.files import make_folder, write_json

SMALL = ["--steps", "2", "--depth", "1", "--base-filters", "4"]
COMMANDS = {
    "train": ["train", "data", "--run", "trained", *SMALL],
    "train of 3 folds": ["train", "data", "--run", "folds", "--folds", "3", *SMALL],
    "predict": ["predict", "trained", *(f"data/images/{n}.tif" for n in range(3)), "--out", "out"],
}
_INNER = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<module>", "<lambda>")


def main() -> None:
    """Counts for each command, and writes the counts."""
    with TemporaryDirectory() as name:
        draw(Path(name))
        counts = {command: _apart(command, Path(name)) for command in COMMANDS}
    result = {"benchmark": "python -m benchmarks.paths", **origin(), **counts}
    write_json(make_folder(RESULTS) / "paths.json", result)
    print(json.dumps(result, indent=2))


def draw(folder: Path) -> None:
    """Draws the images and their labels."""
    for kind in ("images", "labels"):
        make_folder(folder / "data" / kind)
    for number in range(4):
        image, labels = draw_cells(number, size=(96, 96), cells=8)
        for kind, array in (("images", image), ("labels", labels)):
            tifffile.imwrite(folder / "data" / kind / f"{number}.tif", array.astype(np.uint16))


def _apart(command: str, folder: Path) -> Any:
    code = f"from benchmarks.paths import counted; counted({command!r})"
    root = str(Path(__file__).parents[1])
    run = subprocess.run(  # noqa: S603 - this module
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def counted(command: str) -> None:
    """Runs a command in the current folder, and prints the counts."""
    for name in [name for name in sys.modules if name.split(".")[0] == "keras_unet"]:
        del sys.modules[name]  # what this module has loaded is not the command's
    called: set[tuple[str, str]] = set()
    opened: list[str] = []
    opening = tifffile.TiffFile.__init__

    def note_call(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and "/keras_unet/" in code.co_filename and code.co_name not in _INNER:
            called.add((code.co_filename, code.co_qualname))

    def note_opening(file: Any, *arguments: Any, **options: Any) -> None:
        opened.append(str(arguments[0]))
        opening(file, *arguments, **options)

    tifffile.TiffFile.__init__ = note_opening
    threading.setprofile(note_call)
    sys.setprofile(note_call)
    from keras_unet.cli import main as run

    result = CliRunner().invoke(run, COMMANDS[command])
    sys.setprofile(None)
    if result.exit_code:
        raise SystemExit(result.output)
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    modules = [file for file in files if "/keras_unet/" in file and "__init__" not in file]
    first = [path for path in opened if path.endswith("images/0.tif")]
    print(
        json.dumps(
            {"modules": len(modules), "functions": len(called), "first_image_opened": len(first)}
        )
    )


if __name__ == "__main__":
    main()
