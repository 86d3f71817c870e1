import stat

import pytest

from keras_unet import doctor as gpus
from keras_unet.doctor import GpuFacts, gpu_status, listed_gpus, missing_libraries

CARD = "NVIDIA L4, 550.54, 23034 MiB"


def facts(**given):
    usual = {"used": [], "with_cuda": True, "listed": [CARD], "visible": None, "missing": []}
    return GpuFacts(**usual | given)


def test_a_gpu_in_use_is_named():
    assert gpu_status(facts(used=["NVIDIA L4"])) == ("used: NVIDIA L4", None)


def test_without_a_driver_nothing_is_amiss():
    status = gpu_status(facts(listed=None, with_cuda=False, visible="-1"))
    assert status.summary.startswith("not used: no driver of NVIDIA is installed (no nvidia-smi)")
    assert status.problem is None


@pytest.mark.parametrize(
    ("given", "why", "way_out"),
    [
        ({"listed": []}, "nvidia-smi fails or lists none", "reboot"),
        ({"visible": ""}, "it is hidden by CUDA_VISIBLE_DEVICES=", "unset that variable"),
        ({"visible": "-1"}, "it is hidden by CUDA_VISIBLE_DEVICES=-1", "unset that variable"),
        ({"with_cuda": False}, "this TensorFlow was built without CUDA", 'pip install ".[gpu]"'),
        ({"missing": ["a-cu12", "b"]}, "libraries are missing (a-cu12, b)", 'pip install ".[gpu]"'),
        ({}, "TensorFlow cannot use it", "compare the driver's version"),
        (
            {"stderr": "I00 gpu.cc:3] tiles\nE00 a.cc:7] failed call to CUDA: 303\nnothing else"},
            "TensorFlow cannot use it (failed call to CUDA: 303)",
            "compare the driver's version",
        ),
    ],
)
def test_what_stands_in_the_way_is_told_with_the_way_out(given, why, way_out):
    status = gpu_status(facts(**given))
    assert status.summary.startswith("not used: ")
    assert why in status.summary
    assert status.problem.startswith("no GPU is used: ")
    assert why in status.problem
    assert way_out in status.problem


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """Returns a function that puts a program in the driver's place."""

    def put(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return put


def test_the_driver_is_asked(driver):
    driver(f"echo '{CARD}'; echo")
    assert listed_gpus() == [CARD]


def test_a_driver_that_fails_lists_none(driver, monkeypatch):
    driver("echo broken; exit 9")
    assert listed_gpus() == []
    driver("exec sleep 5")
    monkeypatch.setattr(gpus, "_SECONDS", 0.1)
    assert listed_gpus() == []


def test_no_driver(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert listed_gpus() is None


def test_libraries_that_are_missing_are_tensorflows():
    assert all(name.startswith("nvidia-") for name in missing_libraries())
