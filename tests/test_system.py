"""The machine, its memory, installed packages, and extras that are missing."""

import platform
import shutil
import tomllib
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from keras_unet import system
from keras_unet.system import (
    DISTRIBUTION,
    Machine,
    Package,
    free_memory,
    in_gigabytes,
    installed_version,
    packages_of,
    require,
    total_memory,
)


@pytest.fixture
def container(monkeypatch, tmp_path):
    """Returns a function that lends the machine a container's limit and use of memory."""

    def lend(limit, used=0):
        monkeypatch.setattr(system, "_LIMIT", tmp_path / "memory.max")
        monkeypatch.setattr(system, "_USED", tmp_path / "memory.current")
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")

    return lend


def test_the_machine_is_told_as_the_system_tells_it(tmp_path, container):
    container("max")
    here = Machine.here(tmp_path)
    assert here.python.startswith(platform.python_version())
    assert here.memory == psutil.virtual_memory().total
    assert 0 < here.free_memory <= here.memory
    assert 1 <= here.cores <= psutil.cpu_count()
    assert here.free_disk == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert here.processor


def test_it_names_no_host(tmp_path):
    assert platform.node() not in Machine.here(tmp_path).platform or len(platform.node()) < 4


def test_a_container_may_allow_less_memory_than_there_is(tmp_path, container):
    container(2**28, used=2**28 - 2**20)
    here = Machine.here(tmp_path)
    assert (here.memory, here.free_memory) == (2**28, 2**20)
    assert total_memory() == 2**28
    assert free_memory() == 2**20


def test_what_a_container_has_overdrawn_is_no_negative_memory(tmp_path, container):
    container(2**20, used=2**21)
    assert Machine.here(tmp_path).free_memory == 0


def test_without_a_list_of_processors_the_system_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "_PROCESSORS", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "M9")
    assert Machine.here(tmp_path).processor == "M9"


def test_without_an_affinity_all_cores_count(monkeypatch, tmp_path):
    class Process:
        pass

    monkeypatch.setattr(psutil, "Process", Process)
    assert Machine.here(tmp_path).cores == psutil.cpu_count()


def test_bytes_in_words():
    assert in_gigabytes(0) == "0.0 GiB"
    assert in_gigabytes(2**40) == "1024.0 GiB"


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
    assert (numpy.is_valid, numpy.version) == (False, metadata.version("numpy"))


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
    assert all(one.is_valid for one in needed.values())


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


def test_what_is_installed_is_passed_over():
    require("onnx", "json", "importlib.metadata")


def test_all_that_is_missing_is_named_with_the_way_to_it():
    with pytest.raises(
        ModuleNotFoundError,
        match=r"extra onnx\. Received .* without no_such, no_such\.part, json\.no_such; "
        r'pip install "\.\[onnx\]"$',
    ):
        require("onnx", "json", "no_such", "no_such.part", "json.no_such")


def test_what_is_there_but_fails_is_named_with_its_version_and_reason(monkeypatch, tmp_path):
    folder = tmp_path / "broken_thing-1.19.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken_thing\nVersion: 1.19.0\n")
    (tmp_path / "broken_thing.py").write_text("import json\n\njson.float4\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError,
        match=r"package broken_thing that can be imported\. Received version 1\.19\.0, which "
        r"fails \(AttributeError: module 'json' has no attribute 'float4'\); "
        r"pip install -U broken_thing$",
    ):
        require("onnx", "json", "broken_thing")
