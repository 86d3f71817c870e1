import json
import math

import numpy as np
import pytest

from keras_unet import doctor_probe as module
from keras_unet import doctor_probe as probing
from keras_unet.architecture import Architecture
from keras_unet.doctor_probe import NETWORK, STAGES, TILE, benchmark, probe

TINY = {"network": Architecture(depth=1, base_filters=2), "tile_size": 60, "seconds": 0.01}


def test_the_stages_tell_devices_precision_and_speed(monkeypatch):
    monkeypatch.setattr(probing, "benchmark", lambda precision: {"of": precision})
    found = dict(zip(STAGES, probe(), strict=True))
    assert set(found["devices"]) == {"tensorflow", "keras", "gpus", "with_cuda", "cuda", "cudnn"}
    assert found["precision"]["auto"] in {"float32", "bfloat16"}
    assert found["benchmark"] == {"of": found["precision"]["auto"]}
    json.dumps(found)


def test_the_benchmark_counts_useful_pixels(monkeypatch):
    monkeypatch.setattr(module, "_calls_per_second", lambda call, _: (call(), 2.0)[1])
    figures = benchmark("float32", **TINY)
    assert figures["training"] == figures["prediction"] == 2.0 * 44**2
    assert figures["network"] == (
        "depth 1, 2 base features, tiles of 60 x 60 pixels, 44 out, float32"
    )
    assert figures["finite"] is True


def test_numbers_that_are_not_finite_are_told(monkeypatch):
    monkeypatch.setattr(module, "training_step", lambda *_: lambda *_: (math.nan, False))
    assert benchmark("float32", **TINY)["finite"] is False


def test_the_median_call_counts_and_the_first_does_not(monkeypatch):
    clock = iter(np.cumsum([0, 1, 1, 1, 1, 4]).tolist())  # two readings a call
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    called = []
    assert module._calls_per_second(lambda: called.append(1), 5) == pytest.approx(1)
    assert len(called) == 4


def test_the_tile_fits_the_network():
    assert NETWORK.fits(TILE)
