"""What README.md and the site say can be typed: commands, options, Python, links, extras."""

import ast
import re
import shlex
import shutil
import tomllib
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import click
import pytest
import yaml

import keras_unet
from keras_unet import Architecture, metrics
from keras_unet.cli import main
from keras_unet.training.options import (
    PAPER_AMPLITUDE,
    PAPER_SIGMA,
    PAPER_TILE,
    TrainingOptions,
)

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "pages"
OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "export" / "README.md"]
PAGES = [*OUTSIDE, *sorted(SITE.rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDERS = re.compile(r"\s*\.\.\.")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, *languages):
    """Yields the code blocks of a page in some languages."""
    for language, text in FENCE.findall(page.read_text()):
        if language in languages:
            yield text


def shell_lines(page):
    """Yields what a page has a person type into a terminal, one command each."""
    for text in blocks(page, "", "sh", "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            yield from (part.split("  #")[0].strip() for part in line.split("&&"))


def mentions(page):
    """Yields what stands between backticks in the text of a page, on one line."""
    text = FENCE.sub("", page.read_text())
    return [" ".join(found.split()) for found in INLINE.findall(text)]


def invocations(page):
    """Yields the whole commands of keras-unet that a page shows, as arguments."""
    for line in shell_lines(page):
        if line.startswith("keras-unet "):
            yield shlex.split(line)[1:]


def command_of(arguments):
    """Returns the command that arguments name, and what follows it."""
    command, context = main, click.Context(main)
    while arguments and isinstance(command, click.Group):
        if command is main and arguments[0] not in main.commands:
            break
        _, command, arguments = command.resolve_command(context, list(arguments))
    return command, arguments


def options_of(command):
    """Returns the names of a command's options."""
    found = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    return found | {"--help", "-h"}


def check_invocation(arguments):
    """Parses a command as keras-unet does, and does not run it."""
    command, rest = command_of(arguments)
    if command is main and rest and not rest[0].startswith("-"):
        raise click.UsageError(f"No such command '{rest[0]}'.")
    with suppress(click.exceptions.Exit):  # --help and --version end here
        command.make_context("keras-unet", list(rest))


def test_pages_are_found():
    assert len(PAGES) > 20
    assert any(True for page in PAGES for _ in invocations(page))


@each_page
def test_commands_are_valid(page):
    for arguments in invocations(page):
        try:
            check_invocation(arguments)
        except click.ClickException as error:
            pytest.fail(f"keras-unet {shlex.join(arguments)}: {error.format_message()}")


def test_the_papers_command_has_the_papers_numbers():
    (arguments,) = invocations(SITE / "explanation" / "paper.md")
    command, rest = command_of(arguments)
    choices = command.make_context("keras-unet", rest).params
    names = {field.name for field in fields(TrainingOptions)}
    given = {name: choices[name] for name in names & choices.keys() if choices[name] is not None}
    options = TrainingOptions(**given)
    assert options.network(options.depth) == Architecture()  # figure 1
    assert (options.tile, options.batch_size, options.zoom) == (PAPER_TILE, 1, 0)
    assert (options.amplitude, options.sigma) == (PAPER_AMPLITUDE, PAPER_SIGMA)
    assert (options.border_weight, options.class_balance) == (10, True)
    assert (options.optimizer, options.momentum, options.affinities) == ("sgd", 0.99, False)
    assert not options.normalize_kernels


@pytest.mark.parametrize(
    "wrong", ["tarin DATA", "train DATA", "train DATA --run RUN --deep 5", "export RUN OUT"]
)
def test_an_invalid_command_is_seen(wrong):
    with pytest.raises(click.ClickException):
        check_invocation(wrong.split())


@each_page
def test_commands_that_are_mentioned_have_their_options(page):
    for text in mentions(page):
        if not text.startswith("keras-unet "):
            continue
        command, rest = command_of(PLACEHOLDERS.sub("", text).split()[1:])
        assert command is not main or rest[0] in {"--version", "COMMAND"}, text
        flags = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert command is main or flags <= options_of(command), text


@each_page
def test_benchmarks_that_are_quoted_exist_with_their_options(page):
    quoted = [text for text in (*shell_lines(page), *mentions(page)) if "-m benchmarks" in text]
    for text in quoted:
        name, *rest = re.search(r"-m (benchmarks\S*)(.*)", text).groups()
        path = ROOT / name.replace(".", "/")
        source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert source.is_file(), text
        words = [word.split("=")[0] for word in shlex.split(rest[0])]
        for flag in [word for word in words if word.startswith("--")]:
            assert f'"{flag}' in source.read_text() or f"/{flag.lstrip('-')}" in source.read_text()


@each_page
def test_files_of_the_source_that_are_named_exist(page):
    for path in re.findall(r"\b(?:keras_unet|tests|benchmarks)/[\w/]+\.py\b", page.read_text()):
        assert (ROOT / path).is_file(), path


@each_page
def test_extras_that_are_named_exist(page):
    for extras in re.findall(r"\.\[([\w,]+)\]", page.read_text()):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), extras


@each_page
def test_links_to_files_resolve(page):
    if page.is_relative_to(SITE):
        return  # mkdocs build --strict sees to those, and to headings
    for target in LINK.findall(page.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), target


def definition(module, name):
    """Finds a name's definition in the source of a module, without importing it."""
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(source.read_text()).body:
        targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
        if name in {getattr(node, "name", None), *(getattr(one, "id", None) for one in targets)}:
            return node
    return None


def imported(tree):
    """Yields the names that a script takes from keras_unet, with what defines them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_unet"):
            for alias in node.names:
                home = keras_unet._HOMES.get(alias.name) if node.module == "keras_unet" else None
                module = f"keras_unet.{home}" if home else node.module
                yield alias.name, definition(module, alias.name)


def parameters(function):
    """Returns the names of a function's parameters."""
    arguments = function.args
    names = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    if arguments.kwarg and arguments.kwarg.arg == "choices":
        names |= {field.name for field in fields(keras_unet.TrainingOptions)}
    return names


@each_page
def test_python_compiles_and_uses_what_exists(page):
    known = {}
    for text in blocks(page, "python"):
        tree = ast.parse(text)
        known |= dict(imported(tree))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function = known.get(getattr(call.func, "id", None))
            if isinstance(function, ast.FunctionDef):
                assert {one.arg for one in call.keywords} <= parameters(function), ast.unparse(call)
    assert None not in known.values(), [name for name, found in known.items() if found is None]


RUNNABLE = [page for page in (OUTSIDE[0], *SITE.rglob("*.md")) if any(blocks(page, "python"))]
LENGTH = re.compile(r"(steps|max_minutes)=[\d.]+")


@pytest.fixture
def workplace(cells, trained, lite, tmp_path, monkeypatch):
    """A current folder with the files that pages name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cells, "DATA")
    shutil.copytree(cells / "images", "NEW_IMAGES")
    shutil.copytree(cells / "labels", "LABELS")
    shutil.copy(cells / "images" / "c0.tif", "image.tif")
    shutil.copy(lite, "cells.tflite")
    shutil.copytree(trained, "OLD_RUN")
    keras_unet.predict_files(trained, "NEW_IMAGES", "PREDICTIONS")


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # Keras' fit, by its own default
def test_python_runs_as_it_stands(page):
    names = {}
    for text in blocks(page, "python"):
        if "predict_files(" in text:  # what the fixture has written is not overwritten
            shutil.rmtree("PREDICTIONS")
        exec(compile(LENGTH.sub("steps=2", text), page.name, "exec"), names)  # noqa: S102 - ours


def test_the_reference_shows_every_public_name_once():
    shown = re.findall(r"^::: (\S+)$", (SITE / "reference" / "python.md").read_text(), re.MULTILINE)
    homes = {name: home for name, home in keras_unet._HOMES.items() if name != "metrics"}
    names = [f"{home}.{name}" for name, home in homes.items()]
    names += [f"metrics.{name}" for name in metrics.__all__]
    assert sorted(shown) == sorted(f"keras_unet.{name}" for name in names)


def test_every_figure_is_shown():
    drawn = definition("docs.figures", "FIGURES").value.keys
    pages = "".join(page.read_text() for page in PAGES)
    for name in (key.value for key in drawn):
        assert f"figures/{name}-light.png#only-light" in pages
        assert f"figures/{name}-dark.png#only-dark" in pages


def test_results_that_are_linked_exist():
    for target in LINK.findall((SITE / "results.md").read_text()):
        if target.startswith("results/"):
            assert (ROOT / "benchmarks" / target).is_file(), target


def test_the_readmes_picture_is_small():
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert (ROOT / picture).stat().st_size < 300_000


def test_the_line_that_ci_runs_stands_by_itself():
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines()]
    assert "pip install -r requirements-test.txt && pytest" in lines


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["preferred-citation"]["doi"] == "10.1007/978-3-319-24574-4_28"
