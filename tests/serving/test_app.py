"""Routes of a served model, beside those of the front end, and what they refuse."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from keras_unet.client import read_tensor
from keras_unet.serving.app import FILE_TYPE
from keras_unet.serving.queue import Limits


def png(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def ask(port, method, path, body=None, **headers):
    """Sends a request; returns status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def answered(port, method, path, content=None):
    """Sends JSON; returns status and JSON."""
    body = content if content is None or isinstance(content, bytes) else json.dumps(content)
    status, headers, text = ask(port, method, path, body)
    assert headers["Content-Type"] == "application/json"
    return status, json.loads(text)


def same(one, other):
    """Returns whether two answers are equal, decimal numbers but for rounding."""
    if isinstance(one, float) or isinstance(other, float):
        return type(one) is type(other) and one == pytest.approx(other, abs=1e-5)
    if isinstance(one, dict) and one.keys() == {"b64"} and one != other:
        return np.allclose(tensor(one), tensor(other), atol=1e-5)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def tensor(text):
    return np.asarray(read_tensor(base64.b64decode(text["b64"])))


@pytest.fixture(scope="module")
def port(run_server, loaded):
    with run_server(loaded) as port:
        yield port


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 7, 5, 1)).tolist()
PREDICTED = {
    "columns": {"inputs": PIXELS},
    "named columns": {"inputs": {"image": PIXELS}, "signature_name": "serving_default"},
    "rows": {"instances": PIXELS},
    "named rows": {"instances": [{"image": image} for image in PIXELS]},
    "files": {"inputs": [b64(png(8, 9))], "signature_name": "classify_bytes"},
    "files in rows": {
        "instances": [b64(png(8, 9)), b64(png(20, 3, seed=1))],
        "signature_name": "classify_bytes",
    },
    "text": {"inputs": [""], "signature_name": "about"},
    "single output in rows": {"instances": ["", ""], "signature_name": "about"},
    "scale": {
        "inputs": {"image": PIXELS, "scale": [0.5, 2]},
        "signature_name": "scaled",
    },
}


@pytest.mark.parametrize("content", PREDICTED.values(), ids=PREDICTED)
@pytest.mark.parametrize("spec", ["", "/versions/1", "/labels/canary"])
def test_predictions_have_the_form_and_the_numbers_of_the_front_end(
    port, front_end_port, content, spec
):
    path = f"/v1/models/cells{spec}:predict"
    (status, answer), (code, expected) = (
        answered(one, "POST", path, content) for one in (port, front_end_port)
    )
    assert (status, code) == (200, 200)
    assert same(answer, expected)


@pytest.mark.parametrize("path", ["", "/versions/2", "/labels/stable"])
def test_states_are_those_of_the_front_end(port, front_end_port, path):
    status, answer = answered(port, "GET", f"/v1/models/cells{path}")
    assert status == 200
    _, expected = answered(front_end_port, "GET", "/v1/models/cells")
    numbers = {"": ["2", "1"], "/versions/2": ["2"], "/labels/stable": ["1"]}[path]
    states = {state["version"]: state for state in expected["model_version_status"]}
    assert answer["model_version_status"] == [
        states[number] | {"status": {"error_code": "OK", "error_message": ""}} for number in numbers
    ]


def test_metadata_are_those_of_the_front_end(port, front_end_port):
    path = "/v1/models/cells/versions/1/metadata"
    answer, expected = (answered(one, "GET", path)[1] for one in (port, front_end_port))
    known = expected["metadata"]["signature_def"]["signature_def"]
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {name for name in known if not name.startswith("__")}
    for name, signature in signatures.items():
        for part in ("inputs", "outputs"):
            for tensor, words in known[name][part].items():
                found = signature[part][tensor]
                assert (found["dtype"], found["name"]) == (words["dtype"], words["name"])
                sizes = [axis["size"] for axis in found["tensor_shape"].get("dim", [])]
                assert sizes == [axis["size"] for axis in words["tensor_shape"].get("dim", [])]
    assert answer["model_spec"] == {"name": "cells", "signature_name": "", "version": "1"}


PREDICT = "/v1/models/cells:predict"
REFUSED = {
    "model": ("GET", "/v1/models/other", None, 404, "Could not find any versions of model other"),
    "metadata": ("GET", "/v1/models/other/metadata", None, 404, "Servable not found for request"),
    "version": ("GET", "/v1/models/cells/versions/7", None, 404, r"Specific\(cells, 7\)"),
    "long": ("GET", f"/v1/models/cells/versions/{'9' * 9999}", None, 404, "Servable not found"),
    "label": ("GET", "/v1/models/cells/labels/x", None, 400, "Unrecognized servable version label"),
    "of other": ("POST", "/v1/models/other:predict", {"inputs": []}, 404, r"Latest\(other\)"),
    "route": ("GET", "/v1/model/cells", None, 400, "Malformed request: GET /v1/model/cells"),
    "verb": (
        "POST",
        "/v1/models/cells:classify",
        {},
        400,
        "Malformed request: POST /v1/models/cel",
    ),
    "page": ("GET", "/nothing", None, 404, "Not Found"),
    "method": ("PUT", "/v1/models/cells", None, 405, "Method Not Allowed"),
    "JSON": ("POST", PREDICT, b"\xff{", 400, "JSON Parse error"),
    "no body": ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
    "signature": (
        *("POST", PREDICT, {"signature_name": "x<b>", "inputs": []}, 400),
        'Serving signature name: "x<b>" not found in signature def',
    ),
    "shape": (
        *("POST", PREDICT, {"inputs": [[[[1, 2, 3]]]]}, 400),
        r"^assertion failed: \[image must have channels=1.*\] \[1 1 1 3\]$",
    ),
    "scale": (
        *("POST", PREDICT, {"signature_name": "scaled", "inputs": {"image": PIXELS}}, 400),
        "Missing named input: scale in 'inputs' object",
    ),
    "no image": (
        *("POST", PREDICT, {"signature_name": "classify_bytes", "inputs": ["text"]}, 400),
        r"^assertion failed: \[image_bytes must hold PNG or JPEG files only\. Received:\] \[",
    ),
}


@pytest.mark.parametrize(
    ("method", "path", "content", "code", "message"), REFUSED.values(), ids=REFUSED
)
def test_errors_are_json_with_the_reason(port, method, path, content, code, message):
    status, answer = answered(port, method, path, content)
    assert status == code
    assert answer.keys() == {"error"}
    assert re.search(message, answer["error"]), answer


def test_requests_that_no_library_sends(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    connection.sock.sendall(b"\x16\x03\x01\x00garbage\r\n\r\n")
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 400")
    connection.close()
    assert answered(port, "GET", "/v1/models/cells")[0] == 200


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        ({"inputs": np.zeros((3, 10, 10, 1)).tolist()}, 300),
        ({"inputs": [b64(png(10, 10))] * 3, "signature_name": "classify_bytes"}, 300),
        (
            {
                "inputs": {"image": np.zeros((1, 9, 9, 1)).tolist(), "scale": [2]},
                "signature_name": "scaled",
            },
            324,
        ),
    ],
    ids=["pixels", "files", "resampled"],
)
def test_too_many_pixels(run_server, loaded, content, pixels):
    with run_server(loaded, Limits(max_pixels=pixels - 1)) as port:
        status, answer = answered(port, "POST", PREDICT, content)
    assert status == 413
    assert f"have {pixels} pixels, more than {pixels - 1}; send smaller or fewer" in answer["error"]
    with run_server(loaded, Limits(max_pixels=pixels)) as port:
        assert answered(port, "POST", PREDICT, content)[0] == 200


def test_the_page_takes_nothing_from_elsewhere(port):
    status, headers, body = ask(port, "GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    html = body.decode()
    assert not re.search(r"(https?:)?//[a-z]", html)
    assert not re.search(r"\bon\w+=|style=", html)  # which the policy would not run


def test_names_are_escaped_in_the_page(run_server, loaded):
    with run_server(replace(loaded, name="<b>&amp;\"'")) as port:
        html = ask(port, "GET", "/")[2].decode()
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;amp;&#34;&#39;" in html


def test_pages_of_other_sites_are_refused(port):
    """By a name of their own for this machine, or by a request that browsers send unasked."""
    for host in ("evil.example", "evil.example:8501", "127.0.0.1.evil.example"):
        status, _, body = ask(port, "GET", "/", Host=host)
        assert status == 403
        assert "The host of the address must be" in json.loads(body)["error"]
    for host in ("localhost", "LOCALHOST:1", "[::1]:80", "127.0.0.1:99"):
        assert ask(port, "GET", "/", Host=host)[0] == 200
    status, _, body = ask(port, "POST", "/segment", png(9, 9), **{"Content-Type": "text/plain"})
    assert status == 415
    assert "Content-Type must be application/octet-stream" in json.loads(body)["error"]


def test_files_of_the_page(port):
    headers = {"Content-Type": FILE_TYPE}
    status, _, body = ask(port, "POST", "/segment", png(30, 40), **headers)
    found = json.loads(body)
    assert (status, found["height"], found["width"]) == (200, 30, 40)
    status, _, body = ask(port, "POST", "/segment", b"text", **headers)
    assert status == 400
    assert "must hold PNG or JPEG files only" in json.loads(body)["error"]
