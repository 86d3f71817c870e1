"""Every example runs, in short form."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Runs an example as a script, with arguments."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def test_first_model(example, tmp_path, capsys):
    out = tmp_path / "out"
    example("first_model.py", "--steps", 2, "--out", out)
    assert capsys.readouterr().out.endswith(f" cells: {out / 'first_model.png'}\n")
    with Image.open(out / "first_model.png") as picture:
        assert np.asarray(picture).std() > 0
    assert (out / "last.keras").is_file()
