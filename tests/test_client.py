"""The client of model servers: messages, addresses, patience, and that one file is all of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_unet import client
from keras_unet.client import Client, Tensor, main, model_spec, predict_request, read_tensor
from keras_unet.files import SOFTWARE, own_kind

FILE = Path(__file__).parents[1] / "export" / "client.py"
ABOUT = {"classes": [{"class": 0, "value": 0, "name": "background"}]}
CODES = {code.name: code for code in grpc.StatusCode}
HTTP = {"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429, "INVALID_ARGUMENT": 400, "INTERNAL": 500}
HTTP["NOT_FOUND"] = 404


arrays = st.tuples(
    st.sampled_from([np.float32, np.uint8]),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 9),
).map(lambda it: np.random.default_rng(it[2]).integers(0, 256, it[1]).astype(it[0]))
values = arrays | st.lists(st.binary(max_size=300), max_size=3)


@given(
    st.text("abc", min_size=1),
    st.sampled_from(["", "0", "3", "300", "stable"]),
    st.dictionaries(st.text("xyz", min_size=1), values, max_size=2),
    st.lists(st.text("pq", min_size=1), max_size=2),
)
@settings(deadline=None, max_examples=50)
def test_requests_are_those_of_the_protos(model, version, inputs, outputs):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    sent = {
        name: Tensor.of(value) if isinstance(value, np.ndarray) else value
        for name, value in inputs.items()
    }
    content = predict_request(model_spec(model, version, "a signature"), sent, outputs)
    request = predict_pb2.PredictRequest.FromString(content)
    assert (request.model_spec.name, request.model_spec.signature_name) == (model, "a signature")
    kind = request.model_spec.WhichOneof("version_choice")
    assert kind == {"": None, "stable": "version_label"}.get(version, "version")
    if kind == "version":
        assert request.model_spec.version.value == int(version)
    assert list(request.output_filter) == outputs
    assert set(request.inputs) == set(inputs)
    for name, value in inputs.items():
        read = tf.make_ndarray(request.inputs[name])
        expected = np.array(value, object) if isinstance(value, list) else value
        np.testing.assert_array_equal(read, expected)
        assert read.shape == expected.shape


@given(arrays, st.booleans())
@settings(deadline=None, max_examples=50)
def test_numbers_are_read_in_either_form_of_the_protos(array, is_in_a_row):
    from tensorflow.core.framework import tensor_pb2, types_pb2

    dtype = types_pb2.DT_UINT8 if array.dtype == np.uint8 else types_pb2.DT_FLOAT
    message = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    if is_in_a_row:
        message.tensor_content = array.tobytes()
    else:
        field = message.int_val if array.dtype == np.uint8 else message.float_val
        field.extend(array.ravel().tolist())
    read = np.asarray(read_tensor(message.SerializeToString()))
    np.testing.assert_array_equal(read, array)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)


def test_texts_are_read():
    from tensorflow.core.framework import tensor_pb2, types_pb2

    message = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"", b"\xff" * 200])
    message.tensor_shape.dim.add(size=2)
    assert read_tensor(message.SerializeToString()) == [b"", b"\xff" * 200]


def test_numbers_of_other_types_are_refused():
    with pytest.raises(ValueError, match=r"numbers must be float32 or uint8\. Received: 'd'"):
        Tensor.of(np.zeros(3))


ADDRESSES = {
    "grpc://host:8500/cells": ("grpc", "host:8500", "", "cells", ""),
    "grpc://host:8500/cells@3": ("grpc", "host:8500", "", "cells", "3"),
    "http://host:80/v1/models/cells@stable": ("http", "host:80", "/v1/models", "cells", "stable"),
    "http://host:80/a/v1/models/cells": ("http", "host:80", "/a/v1/models", "cells", ""),
    "http://[::1]:80/v1/models/cells": ("http", "[::1]:80", "/v1/models", "cells", ""),
}


@pytest.mark.parametrize(("text", "parts"), ADDRESSES.items(), ids=ADDRESSES)
def test_addresses(text, parts):
    assert client._Address.of(text) == parts


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("", "/v1/models/m"),
        ("@3", "/v1/models/m/versions/3"),
        ("@a b", "/v1/models/m/labels/a%20b"),
    ],
)
def test_paths_of_rest(version, path):
    assert client._Address.of(f"http://h:1/v1/models/m{version}").path == path


@pytest.mark.parametrize(
    "text",
    [
        *("", "cells", "host:8500/cells", "ftp://host:1/cells", "grpc://host/cells"),
        *("grpc://host:8500", "grpc://host:8500/", "grpc://host:8500/a/b", "grpc://host:port/a"),
        *("grpc://host:8500/cells@", "grpc://host:8500/a@b@c", "http://host:8501/cells"),
        *("http://host:8501/v1/models/cells:predict", "http://host:8501/v1/models/"),
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match=r"server must be grpc://.*@VERSION or @LABEL.*Received"):
        Client(text)


@pytest.mark.parametrize("numbers", [{"attempts": 0}, {"timeout": 0.0}, {"timeout": float("nan")}])
def test_numbers_out_of_range(numbers):
    with pytest.raises(ValueError, match=r"attempts must be at least 1, and timeout more than 0"):
        Client("grpc://host:8500/cells", **numbers)


class Script:
    """A server that does what it is told, one step a request: a status, or seconds to wait."""

    def __init__(self, *steps):
        self.steps, self.asked = list(steps), 0

    def next(self):
        self.asked += 1
        step = self.steps.pop(0) if self.steps else "OK"
        if not isinstance(step, str):
            time.sleep(step)
            return "OK"
        return step

    @contextlib.contextmanager
    def served(self, transport, port=0):
        start = {"grpc": self.grpc, "http": self.http}[transport]
        with start(port) as found:
            yield {
                "grpc": f"grpc://127.0.0.1:{found}/cells",
                "http": f"http://127.0.0.1:{found}/v1/models/cells",
            }[transport]

    @contextlib.contextmanager
    def grpc(self, port):
        def answer(_, context):
            step = self.next()
            if step != "OK":
                context.abort(CODES[step], "told to")
            texts = client._tensor([json.dumps(ABOUT).encode()])
            return client.field(1, client.field(1, b"about") + client.field(2, texts))

        class Handler(grpc.GenericRpcHandler):
            def service(self, _):
                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.server(ThreadPoolExecutor(2), [Handler()])
        found = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        yield found
        server.stop(0).wait()

    @contextlib.contextmanager
    def http(self, port):
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                step = script.next()
                body = {"outputs": [json.dumps(ABOUT)]} if step == "OK" else {"error": "told to"}
                content = b"<html>" if step == "HTML" else json.dumps(body).encode()
                with contextlib.suppress(BrokenPipeError):
                    self.send_response(HTTP.get(step, 200))
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server.server_port
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["grpc", "http"])
def transport(request):
    return request.param


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that are made, in no time."""
    made = []
    monkeypatch.setattr(client.time, "sleep", made.append)
    return made


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_may_pass_is_tried_again(transport, pauses, code):
    script = Script(code, code)
    with script.served(transport) as address, Client(address, attempts=3) as server:
        assert server.about() == ABOUT
    assert script.asked == 3
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("code", "error", "asked", "message"),
    [
        ("UNAVAILABLE", ConnectionError, 3, "is it running"),
        ("RESOURCE_EXHAUSTED", ConnectionError, 3, "send less at a time"),
        ("INVALID_ARGUMENT", ValueError, 1, ""),
        ("NOT_FOUND", OSError, 1, "check the name and the version"),
        ("INTERNAL", OSError, 1, ""),
    ],
)
def test_what_goes_wrong_is_one_line(transport, pauses, code, error, asked, message):
    script = Script(*[code] * 5)
    with script.served(transport) as address, Client(address, attempts=3) as server:  # noqa: SIM117
        with pytest.raises(error, match=f"told to.*{message}") as caught:
            server.about()
    assert str(caught.value).startswith(f"{address}: ")
    assert "\n" not in str(caught.value)
    assert script.asked == asked
    assert len(pauses) == asked - 1


def test_pauses_grow_and_differ(pauses):
    with pytest.raises(ConnectionError):
        Client("http://127.0.0.1:1/v1/models/cells", attempts=7).versions()
    longest = [0.5, 1, 2, 4, 8, 8]
    assert all(most / 2 <= made <= most for made, most in zip(pauses, longest, strict=True))
    assert len({made / most for made, most in zip(pauses, longest, strict=True)}) == 6


def test_a_late_answer_is_not_waited_for(transport):
    script = Script(3.0)
    with script.served(transport) as address, Client(address, timeout=0.2) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"DEADLINE_EXCEEDED, .*allow more time"):
            server.about()
        assert time.monotonic() - started < 2
        assert script.asked == 1


def test_a_server_that_starts_meanwhile_is_found(transport, monkeypatch):
    """The first attempts are refused a connection."""
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.2)
    with Script().served(transport) as address:
        pass
    server = Client(address, attempts=8)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.about)
        time.sleep(0.5)
        with Script().served(transport, int(address.split(":")[2].split("/")[0])):
            assert answer.result(20) == ABOUT


def test_another_web_server_is_no_model_server():
    with Script("HTML").served("http") as address, Client(address) as server:  # noqa: SIM117
        with pytest.raises(OSError, match=r"HTTP 200, no JSON: <html>"):
            server.about()


REASONS = {
    "assertion failed: [rule. Received:] [1 5 6 3]\n\t [[{{node x}}]]": "rule. Received: 1 5 6 3",
    "assertion failed: [a. Received:] [[2 3] pixels]\n\t [[{{node}}]]": "a. Received: [2 3] pixels",
    "Invalid PNG data, size 5\n\t [[{{function_node f}}{{node g}}]]": "Invalid PNG data, size 5",
    "2 root error(s) found.\n  (0) INVALID_ARGUMENT: no\n\t [[{{node}}]]\n  (1) no": "no",
    "": "without a reason",
}


@pytest.mark.parametrize(("reason", "sentence"), REASONS.items(), ids=REASONS.values())
def test_nodes_of_the_graph_are_kept_from_the_reader(reason, sentence):
    assert client._sentence(reason) == sentence


@pytest.mark.usefixtures("pauses")
def test_requests_are_logged_when_asked_to(caplog):
    caplog.set_level("INFO", "unet_client")
    with Script("UNAVAILABLE").served("http") as address:
        Client(address).about()
    assert "attempt 1: UNAVAILABLE" in caplog.text
    assert "response after" in caplog.text


@pytest.fixture
def alone(tmp_path):
    """The file of the kit, copied to where nothing else of this package is."""
    return shutil.copy(FILE, tmp_path / "client.py")


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rest_needs_the_standard_library_alone(alone):
    """With -S there are no installed packages, with -I no others."""
    result = run(
        sys.executable, "-S", "-I", alone, "http://127.0.0.1:1/v1/models/m", "--attempts=1"
    )
    assert result.returncode == 2
    assert result.stderr.startswith("Error: http://127.0.0.1:1/v1/models/m: UNAVAILABLE, ")
    assert len(result.stderr.splitlines()) == 1


def test_grpc_without_its_package_says_what_to_install(alone):
    result = run(sys.executable, "-S", "-I", alone, "grpc://127.0.0.1:1/m")
    assert result.returncode == 2
    assert result.stderr == "Error: grpc:// needs grpcio: pip install grpcio, or use http://\n"


def test_grpc_needs_no_other_package(alone):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['client.py', 'grpc://127.0.0.1:1/m', '--attempts=1']\n"
        "try:\n"
        f"    runpy.run_path({str(alone)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code)\n"
        "print({'tensorflow', 'keras', 'keras_unet', 'numpy', 'google'} & set(sys.modules))\n"
    )
    result = run(sys.executable, "-I", "-c", program)
    assert result.stdout == "2\nset()\n", result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "UNAVAILABLE" in result.stderr


FILES = {
    "no folder": (["a.png"], [], "--out must name a folder"),
    "stems": (["a.png", "sub/a.png"], ["--out", "out"], "files must differ in their stems"),
    "results": (["a.png", "a_classes.png"], ["--out", "."], "files must differ in their stems"),
    "missing": (["nowhere.png"], ["--out", "out"], "nowhere.png"),
}


@pytest.mark.parametrize(("files", "options", "message"), FILES.values(), ids=FILES)
def test_files_that_are_not_sent(tmp_path, monkeypatch, capsys, files, options, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a_classes.png", "sub/a.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"content")
    assert main(["http://127.0.0.1:1/v1/models/m", *files, *options, "--attempts=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert Path("a_classes.png").read_bytes() == b"content"


@pytest.fixture
def classified(monkeypatch, tmp_path):
    """Predicts a.png to the folder `out` by a server that answers with a PNG of ones."""
    content = io.BytesIO()
    Image.fromarray(np.ones((3, 4), np.uint8)).save(content, format="PNG")
    monkeypatch.setattr(Client, "classify", lambda _, files: [content.getvalue()] * len(files))
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"an image")
    arguments = ["http://127.0.0.1:1/v1/models/m", "a.png", "--out", "out"]
    return lambda *options: main([*arguments, *options])


def test_results_say_who_has_written_them_and_are_replaced(classified):
    for _ in range(2):
        assert classified() == 0
    with Image.open("out/a_classes.png") as image:
        image.load()
        assert image.text == {"Software": SOFTWARE}
        assert (np.asarray(image) == 1).all()
    assert own_kind(Path("out/a_classes.png")) == "png"
    assert [path.name for path in Path("out").iterdir()] == ["a_classes.png"]


def test_files_of_others_are_not_replaced_unless_asked(classified, capsys):
    target = Path("out/a_classes.png")
    target.parent.mkdir()
    target.write_bytes(b"mine")
    assert classified() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"a_classes\.png: expected no file, or one .*--overwrite$", line)
    assert target.read_bytes() == b"mine"
    assert classified("--overwrite") == 0
    assert own_kind(target) == "png"


def test_an_image_is_not_replaced_by_way_of_a_link(classified, capsys):
    Path("out").mkdir()
    Path("out/a_classes.png").symlink_to(Path("a.png").absolute())
    assert classified("--overwrite") == 2
    assert "must not be results" in capsys.readouterr().err
    assert Path("a.png").read_bytes() == b"an image"
