"""The files of export/ that a server reads, and whether they know of each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

KIT = Path(__file__).parents[2] / "export"
BATCHING_PARAMETERS = {  # of BatchingParameters, session_bundle_config.proto
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
}


def service(name):
    return yaml.safe_load((KIT / name).read_text())["services"]["server"]


def flags(name):
    return dict(one.removeprefix("--").split("=") for one in service(name)["command"])


def test_the_models_are_a_configuration_of_the_server():
    configs = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    text = (KIT / "models.config").read_text()
    message = text_format.Parse(text, configs.ModelServerConfig())
    (model,) = message.model_config_list.config
    assert dict(model.version_labels) == {"stable": 1, "canary": 1}
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)
    assert not model.HasField("logging_config")  # at which the stock server does not start
    assert model.base_path == f"/models/{model.name}"
    assert f"/v1/models/{model.name} " in service("compose.yaml")["healthcheck"]["test"][-1]


def test_batching_has_parameters_of_the_server():
    text = (KIT / "batching.config").read_text()
    found = re.findall(r"^(\w+) \{ value: (\d+) \}$", text, re.MULTILINE)
    assert {name for name, _ in found} == BATCHING_PARAMETERS
    assert all(int(value) > 0 for _, value in found)


def test_every_file_that_a_flag_names_is_mounted():
    mounts = dict(one.split(":")[1::-1] for one in service("compose.yaml")["volumes"])
    assert mounts == {"/models": "./models", "/etc/serving": "."}
    for name in ("compose.yaml", "compose.batching.yaml"):
        files = [value for value in flags(name).values() if value.startswith("/etc/serving/")]
        assert files
        assert all((KIT / Path(one).name).is_file() for one in files)


def test_batching_adds_its_flags_alone():
    plain, batching = flags("compose.yaml"), flags("compose.batching.yaml")
    assert batching.keys() - plain.keys() == {"enable_batching", "batching_parameters_file"}
    assert plain.items() <= batching.items()


def test_the_image_is_pinned_and_the_same_with_a_gpu():
    image = service("compose.yaml")["image"]
    assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", image)
    assert service("compose.gpu.yaml")["image"] == f"{image}-gpu"


def test_ports_are_those_of_the_server():
    assert {one.split(":", 1)[1] for one in service("compose.yaml")["ports"]} == {
        "8500:8500",
        "8501:8501",
    }


def test_figures_for_prometheus_are_where_the_readme_says():
    text = (KIT / "monitoring.config").read_text()
    path = re.search(r'path: "(.*)"', text)[1]
    assert re.search(r"prometheus_config \{\s+enable: true", text)
    assert f":8501{path}" in (KIT / "README.md").read_text()


def test_the_client_of_the_kit_is_that_of_the_package():
    assert (KIT / "client.py").resolve() == KIT.parent / "keras_unet" / "client.py"
