"""The table of formats: every option is one of the command's and one of the job's."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from keras_unet.cli import export_command
from keras_unet.formats import FORMATS, Format


@pytest.mark.parametrize("name", FORMATS)
def test_options_are_the_jobs_and_the_commands(name):
    chosen = FORMATS[name]
    job = getattr(import_module(chosen.module), chosen.job)
    parameters = inspect.signature(job).parameters
    assert {*chosen.options, "say"} == {
        one.name for one in parameters.values() if one.kind is one.KEYWORD_ONLY
    }
    assert set(chosen.options) <= {one.name for one in export_command.params}


@pytest.mark.parametrize("name", FORMATS)
def test_the_help_names_the_options_of_each_format(name):
    flags = {one.name: one.opts[0] for one in export_command.params}
    text = " ".join(export_command.help.split())
    described = text[text.index(f" {name} ") :]
    for option in FORMATS[name].options:
        assert flags[option] in described


def test_options_of_another_format_are_refused():
    one = Format("stone", "chisel", "carve", ("depth", "height"))
    flags = {"depth": "--depth", "height": "--height", "gloss": "--gloss"}
    one.check_options(["height"], flags)
    with pytest.raises(ValueError, match=r"^--format stone takes --depth, --height. Received --gl"):
        one.check_options(["height", "gloss"], flags)
