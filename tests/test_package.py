"""The public surface, as a user meets it: names, version, and what an import costs."""

import ast
import importlib.metadata
import importlib.resources
import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_unet

ROOT = Path(__file__).parents[1]
SLOW = {
    "PIL",
    "imagecodecs",
    "jinja2",
    "keras",
    "matplotlib",
    "numpy",
    "packaging",
    "psutil",
    "rich",
    "scipy",
    "skimage",
    "tensorboard",
    "tensorflow",
    "tifffile",
    "zarr",
}
COMMANDS = {
    "import": ["-c", "import keras_unet"],
    "help": ["-m", "keras_unet", "--help"],
}


def python(*arguments, **environment):
    """Runs a fresh Python process from the root of the checkout."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_public_names_are_sorted_and_listed():
    assert list(keras_unet.__all__) == sorted(keras_unet.__all__)
    assert set(keras_unet.__all__) <= set(dir(keras_unet))


def test_tools_see_what_is_loaded():
    module = ast.parse(Path(keras_unet.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: (node.module, alias.asname)
        for block in module.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {name: (f"keras_unet.{home}", None) for name, home in keras_unet._HOMES.items()}
    loaded["metrics"] = ("keras_unet", None)  # a module itself
    assert seen == loaded
    assert loaded.keys() == set(keras_unet.__all__)


@pytest.mark.parametrize("name", keras_unet.__all__)
def test_public_name_loads_and_is_documented(name):
    value = getattr(keras_unet, name)
    assert isinstance(value, str) or value.__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"keras_unet.*unet_builder"):
        _ = keras_unet.unet_builder


def test_version_is_the_one_of_the_distribution():
    assert keras_unet.__version__ == importlib.metadata.version("keras-unet-biomedical")


def test_types_are_shipped():
    assert importlib.resources.files("keras_unet").joinpath("py.typed").is_file()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_neither_import_nor_help_loads_what_takes_long(command):
    result = python("-X", "importtime", *command)
    assert result.returncode == 0, result.stderr
    imported = {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in result.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "keras_unet" in imported
    assert not imported & SLOW


def test_help_names_the_commands():
    shown = python("-m", "keras_unet", "--help").stdout
    assert all(command in shown for command in ("demo", "train", "predict", "evaluate"))


def test_another_backend_is_refused_in_one_line_that_names_the_way_out():
    program = (
        "import keras_unet\n"
        "try:\n"
        "    keras_unet.build_unet((188, 188, 1))\n"
        "except (ImportError, RuntimeError) as error:\n"
        "    print(error)\n"
    )
    result = python("-c", program, KERAS_BACKEND="torch")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert "TensorFlow backend" in result.stdout
    assert "KERAS_BACKEND" in result.stdout
    assert "torch" in result.stdout
