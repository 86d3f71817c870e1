import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from keras_unet.packages import DISTRIBUTION, Package, installed_version, packages_of


@pytest.fixture
def asking(monkeypatch, tmp_path):
    """Returns a function that lists the packages of a distribution with these requirements."""

    def ask(*requirements, extras=()):
        folder = tmp_path / "thing-1.0.dist-info"
        folder.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            "Name: thing",
            "Version: 1.0",
            *(f"Provides-Extra: {extra}" for extra in extras),
            *(f"Requires-Dist: {one}" for one in requirements),
        ]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)
        return packages_of("thing")

    return ask


def test_what_is_needed_is_listed_with_its_version(asking):
    (numpy,) = asking("numpy>=1.26")
    assert numpy == Package("numpy", metadata.version("numpy"), ">=1.26", None, True)


def test_another_version_does_not_suit(asking):
    (numpy,) = asking("numpy<1")
    assert (numpy.suits, numpy.version) == (False, metadata.version("numpy"))


def test_what_is_missing_is_listed_without_a_version(asking):
    assert asking("no-such-thing>=2") == [Package("no-such-thing", None, ">=2", None, False)]


def test_an_extra_is_named(asking):
    found = asking('numpy>=1; extra == "more"', "scipy", extras=["more"])
    assert [(one.name, one.extra) for one in found] == [("numpy", "more"), ("scipy", None)]


def test_what_other_systems_need_is_left_out(asking):
    assert asking('numpy; sys_platform == "amiga"') == []


def test_this_distribution_needs_tensorflow_and_all_that_it_needs_is_here():
    needed = {one.name: one for one in packages_of() if one.extra is None}
    assert {"tensorflow", "keras", "numpy", "scipy"} <= needed.keys()
    assert all(one.suits for one in needed.values())


def test_no_version_of_what_is_not_there():
    assert installed_version("no-such-thing") is None
    assert installed_version(DISTRIBUTION) == metadata.version(DISTRIBUTION)


def test_a_distribution_that_is_not_installed_is_an_error():
    with pytest.raises(metadata.PackageNotFoundError):
        packages_of("no-such-thing")


def test_no_extra_allows_the_onnx_that_tensorflow_cannot_be_installed_with():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    found = {
        extra: one
        for extra, lines in extras.items()
        for one in map(Requirement, lines)
        if one.name == "onnx"
    }
    assert found.keys() == {"onnx", "bioimageio"}
    for one in found.values():
        assert ["1.19.0" in one.specifier, "1.17.0" in one.specifier] == [False, True]
