"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images with ground truth; tests that need it are skipped without it."""
    folder = Path(os.environ.get("KERAS_UNET_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"real images are missing: set KERAS_UNET_DATA or provide {folder}")
    return folder
