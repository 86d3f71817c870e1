"""What a person's surroundings are set to for other projects changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile

PROGRAM = """
import json, os
from keras_unet.cli import main

for command in json.load(open("commands.json", encoding="utf-8")):
    words = [os.fsdecode(word.encode()) for word in command]  # as a shell hands them over
    main(words, standalone_mode=False)
"""
NAME = "caf\u00e9 \u7d30\u80de"  # neither ASCII nor Latin-1
SMALL = ["--steps=3", "--depth=1", "--base-filters=2", "--validation=c3", "--tile=60"]
KERAS = {"floatx": "float16", "image_data_format": "channels_first"}
ODD = {
    "MPLBACKEND": "module_that_is_not_installed",
    "TF_USE_LEGACY_KERAS": "1",
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "ascii",
    "HOME": os.devnull,  # cannot be written to
}


def environment(**odd):
    dropped = {*ODD, "KERAS_HOME"} - {"HOME"}
    return {name: value for name, value in os.environ.items() if name not in dropped} | odd


def run(folder, commands, **odd):
    (folder / "commands.json").write_text(json.dumps(commands))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env=environment(**odd),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@pytest.fixture(scope="module")
def folders(cells, tmp_path_factory):
    """What training and prediction write, plainly and with odd settings; these export as well."""
    plain, odd = (tmp_path_factory.mktemp(name) for name in ("plain", "odd"))
    (odd / "keras.json").write_text(json.dumps(KERAS))
    for folder in (plain, odd):
        (folder / NAME).symlink_to(cells)
    images = f"{NAME}/images/c3.tif"
    commands = [
        ["train", NAME, "--run", "run", *SMALL],
        ["predict", "run", images, "--out", f"out {NAME}", "--save", "probabilities"],
    ]
    run(plain, commands)
    exports = [
        ["inspect", NAME, "--out", f"seen {NAME}"],
        ["export", "run", "served", "--format", "saved_model"],
        ["export", "run", "unet.onnx", "--format", "onnx"],
        ["export", "run", "unet.tflite", "--format", "tflite"],
    ]
    run(odd, commands + exports, KERAS_HOME=str(odd), **ODD)
    return plain, odd


def test_predictions_are_the_same(folders):
    (plain,), (odd,) = (list((one / f"out {NAME}").rglob("*.tif")) for one in folders)
    np.testing.assert_array_equal(tifffile.imread(plain), tifffile.imread(odd))


def test_everything_is_exported(folders):
    written = {path.name for path in folders[1].iterdir()}
    assert {"served", "unet.onnx", "unet.tflite", f"seen {NAME}"} <= written


@pytest.mark.parametrize("settings", [{"floatx": "float64"}, {"floatx": "float99"}])
def test_python_takes_what_keras_takes_and_refuses_the_rest_in_one_line(tmp_path, settings):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    program = """
try:
    from keras_unet.backend import keras
except ImportError as error:
    print(str(error)[:5])
else:
    import matplotlib.pyplot
    print(keras.config.floatx(), keras.config.image_data_format(), matplotlib.get_backend())
"""
    out = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(KERAS_HOME=str(tmp_path), MPLBACKEND="module_that_is_not_installed"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = {"float64": "float32 channels_last agg", "float99": "keras"}[settings["floatx"]]
    assert out.strip().lower() == expected


def test_a_backend_of_matplotlib_that_can_be_had_is_kept():
    program = "import keras_unet.backend, matplotlib; print(matplotlib.get_backend())"
    out = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(MPLBACKEND="svg"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out.strip().lower() == "svg"


def test_what_the_terminal_cannot_write_is_escaped(tmp_path):
    out = subprocess.run(
        [sys.executable, "-m", "keras_unet", "inspect", str(tmp_path / NAME)],
        env=environment(PYTHONIOENCODING="latin-1"),
        capture_output=True,
        check=False,
    )
    assert out.returncode == 2
    assert rb"\u7d30\u80de" in out.stderr
    assert b"Traceback" not in out.stderr


def command(folder, *words, **odd):
    """Calls the real command as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "keras_unet", *words],
        cwd=folder,
        env=environment(**odd),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def refused_in_one_line(done):
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "settings", [{"floatx": "float64"}, {"image_data_format": "channels_first"}], ids=str
)
def test_a_keras_json_of_a_home_folder_changes_nothing(cells, tmp_path, settings):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    odd = {
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "garbage",
        "TF_NUM_INTRAOP_THREADS": "garbage",
        "CUDA_VISIBLE_DEVICES": "garbage",
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TMPDIR": str(tmp_path / "nowhere"),
    }
    done = command(tmp_path, "train", str(cells), "--run", "run", *SMALL, **odd)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_another_backend_of_keras_is_refused(cells, tmp_path, backend):
    done = command(tmp_path, "train", str(cells), "--run", "run", KERAS_BACKEND=backend)
    assert f"backend='{backend}'; unset KERAS_BACKEND" in refused_in_one_line(done)
    assert not list(tmp_path.iterdir())


def test_doctor_names_a_home_folder_that_cannot_be_written_to(tmp_path):
    home = os.path.join(os.devnull, "x")  # noqa: PTH118 - below a file, for root as well
    done = command(tmp_path, "doctor", "--issue", HOME=home, LC_ALL="C", MPLCONFIGDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "HOME" in done.stdout
    assert "cannot be written to" in done.stdout
    assert home not in done.stdout


def test_without_a_network_data_is_refused(tmp_path):
    pytest.importorskip("pooch")
    closed = "http://127.0.0.1:9"
    odd = {"http_proxy": closed, "https_proxy": closed, "HTTPS_PROXY": closed, "no_proxy": ""}
    cache = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = command(tmp_path, "data", "dsb2018", "--out", "out", **odd, **cache)
    assert "expected an archive to download" in refused_in_one_line(done)
    assert not (tmp_path / "out").exists()


def test_a_current_folder_that_is_gone_ends_in_one_line(cells, tmp_path):
    program = """
import os, sys
from keras_unet.cli import main

os.rmdir(os.getcwd())
main(sys.argv[1:])
"""
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, "inspect", str(cells), "--out", "seen"],
        cwd=gone,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    refused_in_one_line(done)
