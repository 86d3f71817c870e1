"""Another backend of Keras ends in one line that names the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
try:
    from keras_unet import build_unet
except ImportError as error:
    print(error)
else:
    print(build_unet((None, None, 1), depth=1, base_filters=1).count_params())
"""
INTERACTIVE = """
from keras_unet.backend import tf
for log in (tf.get_logger().info, tf.get_logger().warning, tf.get_logger().error):
    log(log.__name__.upper() + " WRITTEN")
"""
REFUSAL = (
    "keras_unet needs Keras 3 on the TensorFlow backend. Received: backend='{name}'; unset "
    'KERAS_BACKEND or set KERAS_BACKEND=tensorflow, and check "backend" in ~/.keras/keras.json\n'
)


def build(tmp_path, settings, **environment):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    inherited = {name: one for name, one in os.environ.items() if name != "KERAS_BACKEND"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=inherited | {"KERAS_HOME": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("name", ["torch", "jax", "numpy", "nonsense"])
def test_a_backend_named_by_the_environment(tmp_path, name):
    assert build(tmp_path, {}, KERAS_BACKEND=name) == REFUSAL.format(name=name)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_backend_named_by_the_settings_file(tmp_path, name):
    assert build(tmp_path, {"backend": name}) == REFUSAL.format(name=name)


def test_an_empty_name_is_none_and_tensorflow_starts_quietly(tmp_path):
    assert int(build(tmp_path, {}, KERAS_BACKEND="")) > 0


def test_tensorflow_logs_errors_alone_where_python_is_interactive():
    result = subprocess.run(
        [
            sys.executable,
            "-ic",
            INTERACTIVE,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    written = result.stdout + result.stderr
    assert "ERROR WRITTEN" in written
    assert "INFO WRITTEN" not in written
    assert "WARNING WRITTEN" not in written
