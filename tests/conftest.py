"""Fixtures that several tests share."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from keras_unet.data.synthetic import draw_cells

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Takes Ctrl-C as a terminal sends it: a shell starts what runs in its background without.

    On processors without AVX512, TensorFlow uses oneDNN only if asked. Its own convolutions depend
    on the number of threads, in the last bits.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images with ground truth; tests that need it are skipped without it."""
    folder = Path(os.environ.get("KERAS_UNET_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"real images are missing: set KERAS_UNET_DATA or provide {folder}")
    return folder


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four small pictures of touching cells with instances, c0 to c3."""
    folder = tmp_path_factory.mktemp("cells")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for seed in range(4):
        image, instances = draw_cells(seed, size=(96, 96), cells=8)
        tifffile.imwrite(folder / "images" / f"c{seed}.tif", image)
        tifffile.imwrite(folder / "labels" / f"c{seed}.tif", instances.astype(np.uint16))
    return folder


@pytest.fixture(scope="session")
def trained(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run on `cells`, with c3 held out; not to be written to."""
    from keras_unet.training.options import TrainingOptions
    from keras_unet.training.train import train_folder

    folder = tmp_path_factory.mktemp("trained") / "run"
    options = TrainingOptions(
        steps=40,
        depth=1,
        base_filters=4,
        validation=("c3",),
        precision="float32",
        optimizer="sgd",  # with which so few steps of so small a network learn more
    )
    train_folder(cells, folder, options)
    return folder


@pytest.fixture(scope="session")
def full_disk() -> Callable[..., AbstractContextManager[None]]:
    """Makes a disk full: `full_disk(folder, room=100)`, or for the files of a name alone."""
    return _full_disk


@contextmanager
def _full_disk(folder: Path, *, room: int = 0, name: str = "") -> Iterator[None]:
    """Lets Python write so many bytes to the files in a folder whose names end so."""
    open_file, left = io.open, room

    class Limited(io.FileIO):
        def write(self, data: Any) -> int:
            nonlocal left
            left -= memoryview(data).nbytes
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def limited(file: Any, mode: str = "r", *options: Any, **named: Any) -> Any:
        path = Path(file) if isinstance(file, str | Path) else Path()
        if "r" in mode or folder not in path.parents or not path.name.endswith(name):
            return open_file(file, mode, *options, **named)
        raw = Limited(path, mode.replace("b", ""))
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, "utf-8", newline="")

    with pytest.MonkeyPatch.context() as patch:
        for module in (io, builtins):
            patch.setattr(module, "open", limited)
        yield


@pytest.fixture(scope="session")
def lite(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `trained` as a .tflite file of float32, with tiles of 60 pixels."""
    from keras_unet.export.export import export_model

    path = tmp_path_factory.mktemp("lite") / "cells.tflite"
    return export_model(trained, path, tile_size=60)
