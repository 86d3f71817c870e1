"""Start-up time: whole Python processes, or a training up to its first step."""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import tifffile

from benchmarks.contenders import Work
from benchmarks.record import ROOT
from keras_unet.data.synthetic import draw_cells
from keras_unet.files import make_folder


def python(arguments: Sequence[str]) -> Work:
    """A whole Python process."""

    def run() -> list[Any]:
        result = subprocess.run(  # noqa: S603 - the commands are written in this folder
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise RuntimeError(f"python {' '.join(arguments)}: {result.stderr[-300:]}")
        return []

    return run


def first_step(images: int, side: int) -> Work:
    """`keras-unet train` on synthetic images, up to its first step."""
    work = Path(mkdtemp())
    atexit.register(rmtree, work)
    data = work / "data"
    for name in ("images", "labels"):
        make_folder(data / name)
    for number in range(images):
        image, labels = draw_cells(number, size=(side, side), cells=side**2 // 2500)
        tifffile.imwrite(data / "images" / f"{number}.tif", image)
        tifffile.imwrite(data / "labels" / f"{number}.tif", labels)
    command = ["train", str(data), "--run", str(work / "run")]
    return python(["-m", "benchmarks.peers.first_step", *command])
