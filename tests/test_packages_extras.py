"""Packages that a job needs are looked for before it starts."""

from __future__ import annotations

import pytest

from keras_unet.packages import require


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
    metadata = tmp_path / "broken_thing-1.19.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: broken_thing\nVersion: 1.19.0\n")
    (tmp_path / "broken_thing.py").write_text("import json\n\njson.float4\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError,
        match=r"package broken_thing that can be imported\. Received version 1\.19\.0, which "
        r"fails \(AttributeError: module 'json' has no attribute 'float4'\); "
        r"pip install -U broken_thing$",
    ):
        require("onnx", "json", "broken_thing")
