"""Packages that a job needs are looked for before it starts."""

from __future__ import annotations

import pytest

from keras_unet.jobs.extras import require


def test_what_is_installed_is_passed_over():
    require("onnx", "json", "importlib.metadata")


def test_all_that_is_missing_is_named_with_the_way_to_it():
    with pytest.raises(
        ModuleNotFoundError,
        match=r"extra onnx\. Received .* without no_such, no_such\.part, json\.no_such; "
        r'pip install "\.\[onnx\]"$',
    ):
        require("onnx", "json", "no_such", "no_such.part", "json.no_such")
