"""Model servers on loopback: `keras-unet serve`, the front end of these tests, and TF Serving.

The last one is run where it is on the PATH.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from keras_unet.client import Client
from keras_unet.serving.server import Server, bind

collect_ignore = ["front_end.py"]  # a program: it keeps TensorFlow's Python from its process

FRONT_END = Path(__file__).with_name("front_end.py")
REAL = "tensorflow_model_server"
OWN = "keras-unet serve"
LABELS = {"stable": 1, "canary": 2}
BATCH = 4
CONFIG = """model_config_list {{ config {{
  name: "cells" base_path: "{folder}" model_platform: "tensorflow"
  model_version_policy {{ all {{ }} }}
  version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }}
}} }}"""
BATCHING = f"max_batch_size {{ value: {BATCH} }} batch_timeout_micros {{ value: 5000000 }}"


@dataclass(frozen=True)
class Served:
    """Ports of a server of the model `cells`."""

    grpc: int | None
    rest: int

    def address(self, transport, version=""):
        behind = f"@{version}" if version else ""
        if transport == "grpc" and self.grpc is None:
            pytest.skip(f"{OWN} answers REST alone")
        if transport == "grpc":
            return f"grpc://127.0.0.1:{self.grpc}/cells{behind}"
        return f"http://127.0.0.1:{self.rest}/v1/models/cells{behind}"


@pytest.fixture(scope="session")
def model(trained, tmp_path_factory):
    """Two versions of one network: of instances, and of classes of the values 0 and 255."""
    from keras_unet.export.graph import GraphTiling
    from keras_unet.export.metadata import ExportMetadata
    from keras_unet.export.saved_model import write_graph
    from keras_unet.prediction.load import load

    folder = tmp_path_factory.mktemp("served")
    runs = trained, with_classes(trained, folder / "run-of-classes")
    for number, run in enumerate(runs, start=1):
        segmenter = load(run)
        tiling = GraphTiling.of(segmenter.info.architecture, 60)
        about = ExportMetadata(segmenter, tiling, "float32", False).about
        out = folder / "cells" / str(number)
        out.mkdir(parents=True)
        write_graph(out, segmenter.info, segmenter.model, tiling, about)
    return folder / "cells"


@pytest.fixture(scope="session")
def run_of_classes(model):
    """The run that version 2 was exported from."""
    return model.parent / "run-of-classes"


def with_classes(run, folder):
    shutil.copytree(run, folder)
    values = json.loads((folder / "run.json").read_text())
    values["labels"] = {"kind": "classes", "values": [0, 255], "ignore": None}
    (folder / "run.json").write_text(json.dumps(values))
    return folder


@contextmanager
def front_end(folder, *, batch=0):
    """Runs the front end in a process of its own."""
    command = [sys.executable, FRONT_END, "cells", folder, "--batch", str(batch)]
    command += ["--label", "stable=1", "--label", "canary=2"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **streams) as process:
        try:
            yield Served(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(10)


@contextmanager
def running(model, limits=None):
    """Runs the server of the package in a thread; yields its port."""
    with bind(port=0) as listener:
        server = Server(model, listener, limits)
        thread = Thread(target=server.run)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def own_server(folder, *, batch=0):
    """Runs the server of the package."""
    if batch:
        pytest.skip(f"{OWN} joins no requests")
    from keras_unet.serving.models import Model

    with running(Model.load(folder, "cells", LABELS)) as port:
        yield Served(None, port)


@contextmanager
def tensorflow_serving(folder, *, batch=0):
    """Runs the real server."""
    served = Served(free_port(), free_port())
    config, batching = folder.parent / "models.config", folder.parent / "batching.config"
    config.write_text(CONFIG.format(folder=folder))
    batching.write_text(BATCHING)
    command = [REAL, f"--port={served.grpc}", f"--rest_api_port={served.rest}"]
    command += [f"--model_config_file={config}"]
    command += ["--allow_version_labels_for_unavailable_models=true"]
    command += ["--enable_batching", f"--batching_parameters_file={batching}"] if batch else []
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_available(served)
            yield served
        finally:
            process.terminate()


def wait_until_available(served):
    for _ in range(120):
        try:
            if set(Client(served.address("grpc"), attempts=1).versions().values()) == {"AVAILABLE"}:
                return
        except OSError:
            pass
        time.sleep(0.5)
    pytest.fail(f"{REAL} has not loaded the model in a minute")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="session", params=["front end", OWN, REAL])
def serve(request):
    """A way to serve a folder."""
    if request.param in {"front end", OWN}:
        return front_end if request.param == "front end" else own_server
    if not shutil.which(REAL):
        pytest.skip(f"{REAL} is not on the PATH: the others are asked")
    return tensorflow_serving


@pytest.fixture(scope="session")
def served(serve, model):
    """A server of the model."""
    with serve(model) as ports:
        yield ports


@pytest.fixture(scope="session")
def served_in_batches(serve, model):
    """A server that joins requests to batches of four."""
    with serve(model, batch=BATCH) as ports:
        yield ports


@pytest.fixture(scope="session")
def run_server():
    """A way to run a server of the package, of a model and limits; yields its port."""
    return running


@pytest.fixture(scope="session")
def front_end_port(model):
    """Port of the front end, of other hands than the server of the package."""
    with front_end(model) as served:
        yield served.rest


@pytest.fixture(scope="session")
def loaded(model):
    """The model in this process, with its labels."""
    from keras_unet.serving.models import Model

    return Model.load(model, "cells", LABELS)


@pytest.fixture(params=["grpc", "http"])
def transport(request):
    return request.param


@pytest.fixture
def client(served, transport):
    """A client of version 1, by either transport."""
    with Client(served.address(transport, "1"), attempts=1) as asked:
        yield asked
