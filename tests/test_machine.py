import platform
import shutil

import psutil
import pytest

from keras_unet import machine
from keras_unet.machine import Machine, free_memory, in_gigabytes, total_memory


@pytest.fixture
def container(monkeypatch, tmp_path):
    """Returns a function that lends the machine a container's limit and use of memory."""

    def lend(limit, used=0):
        monkeypatch.setattr(machine, "_LIMIT", tmp_path / "memory.max")
        monkeypatch.setattr(machine, "_USED", tmp_path / "memory.current")
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
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path / "none")
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
