"""Qt without a screen, where this machine can start it, and a viewer of napari with two layers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from keras_unet.data.synthetic import draw_cells

PROBE = "from qtpy.QtWidgets import QApplication; QApplication([])"
PACKAGES = "libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0"


@pytest.fixture(scope="session")
def qt() -> Any:
    """Qt's application. Qt ends the process where it cannot start, so another tries it first."""
    if find_spec("napari") is None:
        pytest.skip('needs napari: pip install ".[napari]"')
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    tried = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or ["nothing"])[-1]
        pytest.skip(f"Qt does not start, it says: {said}; on Debian: apt-get install {PACKAGES}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what napari is made of
        from napari.qt import get_qapp

        import keras_unet.napari_plugin.widgets

        assert keras_unet.napari_plugin.widgets
        return get_qapp()


@pytest.fixture
def viewer(qt: Any) -> Any:  # noqa: ARG001 - which must have started
    """A viewer without a window, which needs OpenGL, with drawn cells and their truth."""
    from napari.components import ViewerModel

    drawn = [draw_cells(seed, size=(96, 96), cells=8) for seed in range(3)]
    made = ViewerModel()
    made.add_image(stack(drawn, 0), name="cells", scale=(1, 0.5, 0.5), translate=(0, 7, 9))
    made.add_labels(stack(drawn, 1), name="truth")
    return made


@pytest.fixture
def until(qt: Any) -> Callable[..., float]:
    """Lets Qt work until something is so, and returns the longest time that it was held up for."""

    def wait(condition: Callable[[], bool], seconds: float = 240) -> float:
        start = last = time.monotonic()
        longest = 0.0
        while not condition():
            assert last - start < seconds, "it took too long"
            qt.processEvents()
            time.sleep(0.002)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest

    return wait


@pytest.fixture
def notified(qt: Any) -> list[Any]:  # noqa: ARG001 - which must have started
    """What napari has notified a person of during the test."""
    from napari.utils.notifications import notification_manager

    notification_manager.records.clear()
    return notification_manager.records


def stack(drawn: Any, part: int) -> Any:
    import numpy as np

    return np.stack([one[part] for one in drawn])
