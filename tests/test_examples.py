"""Every notebook runs, in short form, and holds the cells of the script beside it."""

import ast
import json
import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from PIL import Image

import keras_unet

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SHORT = {
    "01_first_model": {"pictures": 2, "size": 64, "steps": 2},
    "02_touching_cells": {"pictures": 2, "held_out": 1, "size": 64, "steps": 2},
    "03_em_membranes": {"slices": 3, "size": 64, "held_out": 1, "steps": 2},
    "04_serve_it": {"pictures": 2, "size": 64, "steps": 2},
    "05_big_images": {
        "pictures": 2,
        "size": 64,
        "steps": 2,
        "side": 128,
        "chunk": 64,
        "workers": 1,
    },
    "06_start_from_a_model": {"pictures": 2, "size": 64, "steps": 2},
}
FIGURE_BYTES = 300_000
MACHINE = re.compile(r"/work|/home|/tmp|/root|127\.0\.0\.1|\d seconds|[Ww]arning|Error|Traceback")
PARAMETER = re.compile(r"^(\w+) = ", re.MULTILINE)

each_notebook = pytest.mark.parametrize("name", list(SHORT))


@pytest.fixture
def making(monkeypatch):
    """The module that makes the notebooks."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import make_notebooks

    return make_notebooks


def committed(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def cells_of(notebook):
    """What a script and its notebook have in common."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in notebook.cells]


def links(name):
    """Yields the files that the text of a notebook links to."""
    for cell in committed(name).cells:
        if cell.cell_type == "markdown":
            yield from re.findall(r"\]\(([^)#]+)", cell.source)


def test_every_script_has_a_notebook_and_a_short_form(making):
    assert [script.stem for script in making.SCRIPTS] == list(SHORT)
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == list(SHORT)


@each_notebook
def test_it_runs_in_short_form(making, tmp_path, name):
    notebook = making.shortened(making.notebook_of(EXAMPLES / f"{name}.py"), SHORT[name])
    making.run(notebook, tmp_path)
    (folder,) = tmp_path.iterdir()
    pictures = [path for path in folder.glob("*.png") if path.name != "new.png"]
    assert pictures
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.convert("L").getextrema()[0] < 255, path.name
    assert not any(output.get("name") == "stderr" for output in outputs(notebook))


@each_notebook
def test_its_short_form_sets_what_it_has(making, name):
    notebook = making.notebook_of(EXAMPLES / f"{name}.py")
    (cell,) = (one for one in notebook.cells if "parameters" in one.metadata.get("tags", ()))
    assert set(SHORT[name]) <= set(PARAMETER.findall(cell.source))


@each_notebook
def test_notebook_and_script_agree(making, name):
    assert cells_of(committed(name)) == cells_of(making.notebook_of(EXAMPLES / f"{name}.py")), (
        "make it anew: python examples/make_notebooks.py"
    )


@each_notebook
def test_what_it_shows_is_of_a_whole_run_and_fit_to_be_kept(name):
    notebook = committed(name)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    text = json.dumps([{**one, "data": {}} for one in outputs(notebook)])
    assert not MACHINE.search(text), MACHINE.search(text)
    assert not any(one.get("name") == "stderr" for one in outputs(notebook))
    assert (EXAMPLES / f"{name}.ipynb").stat().st_size < FIGURE_BYTES


@each_notebook
def test_it_is_told_as_a_story(name):
    texts = [cell.source for cell in committed(name).cells if cell.cell_type == "markdown"]
    assert texts[0].startswith("# ")
    assert "## Exercise: your own images" in texts[-1]


@each_notebook
def test_links_lead_somewhere(name):
    found = list(links(name))
    assert found
    for target in found:
        assert (EXAMPLES / target).exists(), target


def imports(name):
    """Yields the import statements of a script that are of this package."""
    for node in ast.walk(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom) and "keras_unet" in ast.unparse(node):
            yield node


def test_the_first_takes_ten_cells_at_most_and_one_import():
    assert sum(cell.cell_type == "code" for cell in committed("01_first_model").cells) <= 10
    assert len(list(imports("01_first_model"))) == 1


@each_notebook
def test_it_takes_public_names_alone(name):
    for node in imports(name):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert {getattr(node, "module", "keras_unet"), *modules} == {"keras_unet"}
    used = re.findall(r"\bkeras_unet\.(\w+)\(", (EXAMPLES / f"{name}.py").read_text())
    assert set(used) <= set(keras_unet.__all__)


def test_a_script_runs_without_a_notebook(making, tmp_path, monkeypatch):
    script = EXAMPLES / "01_first_model.py"
    notebook = making.shortened(making.notebook_of(script), SHORT[script.stem])
    short = tmp_path / script.name
    short.write_text("\n".join(c.source for c in notebook.cells if c.cell_type == "code"))
    monkeypatch.chdir(tmp_path)
    with plt.rc_context():
        runpy.run_path(str(short))
    plt.close("all")
    assert (tmp_path / "first_model" / "first_model.png").is_file()
