"""A server under load, under attack, and at its end; and the command that starts it."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from PIL import Image

from keras_unet.cli import main
from keras_unet.client import Client
from keras_unet.serving.models import Version
from keras_unet.serving.queue import MIB, Limits
from keras_unet.serving.server import bind, is_loopback, url_of

PREDICT = "/v1/models/cells:predict"
PIXELS = json.dumps({"inputs": np.zeros((1, 9, 9, 1)).tolist()}).encode()


def png(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def ask(port, body=PIXELS, method="POST", path=PREDICT, **headers):
    """Sends a request; returns status and JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def state(port):
    return ask(port, None, "GET", "/v1/models/cells")[0]


@pytest.fixture
def gate(monkeypatch):
    """Holds predictions back until it is set; counts those that have begun."""
    opened, run = threading.Event(), Version.run
    opened.begun = 0

    def held(*arguments):
        opened.begun += 1
        assert opened.wait(60)
        return run(*arguments)

    monkeypatch.setattr(Version, "run", held)
    yield opened
    opened.set()


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it has not come about in half a minute")


def test_clients_together_get_their_own_answers(run_server, loaded):
    files = [png(20 + number, 30, seed=number) for number in range(16)]

    def classify(number):
        with Client(f"http://127.0.0.1:{port}/v1/models/cells@1", attempts=1) as client:
            return [client.classify([files[number]])[0] for _ in range(3)]

    with run_server(loaded) as port, ThreadPoolExecutor(16) as pool:
        (alone,) = {tuple(classify(number)) for number in (0,)}
        for number, answers in enumerate(pool.map(classify, range(16))):
            assert len(set(answers)) == 1
            with Image.open(io.BytesIO(answers[0])) as image:
                assert image.size == (30, 20 + number)
        assert tuple(classify(0)) == alone


def test_memory_does_not_grow_with_the_number_of_requests(run_server, loaded):
    files = [png(200, 200, seed=seed) for seed in range(4)]
    process = psutil.Process()

    def classify(rounds):
        with Client(f"http://127.0.0.1:{port}/v1/models/cells@1", attempts=1) as client:
            for _ in range(rounds):
                client.probabilities(files)
        return process.memory_info().rss / MIB

    with run_server(loaded) as port, ThreadPoolExecutor(8) as pool:
        before = max(pool.map(classify, [2] * 8))
        after = max(pool.map(classify, [6] * 8))
    assert after - before < 60  # 192 more answers have 110 MB in JSON, and more on the way


def test_the_state_is_answered_while_an_image_is_predicted(run_server, loaded, gate):
    with run_server(loaded) as port, ThreadPoolExecutor(1) as pool:
        predicted = pool.submit(ask, port)
        until(lambda: gate.begun == 1)
        started = time.monotonic()
        assert state(port) == 200
        assert time.monotonic() - started < 10
        assert not predicted.done()
        gate.set()
        assert predicted.result()[0] == 200


def test_a_full_queue_refuses_more(run_server, loaded, gate):
    with run_server(loaded, Limits(queue=1)) as port, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, port)
        until(lambda: gate.begun == 1)
        waiting = socket.create_connection(("127.0.0.1", port))
        waiting.sendall(_head(10) + b"12345")  # takes the place while it is received
        until(lambda: ask(port, b"x" * 9)[0] == 503)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", PREDICT, PIXELS * 1000)
        response = connection.getresponse()
        assert response.headers["Retry-After"] == "1"
        assert "queue to which this request was submitted is full" in response.read().decode()
        connection.close()
        waiting.close()  # and gives it back
        until(lambda: pool.submit(state, port).result() == 200)
        second = pool.submit(ask, port)
        gate.set()
        assert first.result()[0] == 200
        assert second.result()[0] in {200, 503}
        assert ask(port)[0] == 200


def _head(length, *lines):
    head = [f"POST {PREDICT} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *lines]
    return "\r\n".join([*head, "", ""]).encode()


def test_a_request_whose_time_is_over_is_given_up(run_server, loaded, gate):
    with run_server(loaded, Limits(timeout=0.5)) as port:
        status, answer = ask(port)
        assert (status, answer["error"]) == (504, "Deadline exceeded: no answer within 0.5 seconds")
        assert ask(port)[0] == 504  # it waits for the first, and is not begun
        gate.set()
        until(lambda: ask(port)[0] == 200)
        assert gate.begun == 2


def test_a_slow_client_is_given_up_and_holds_up_no_other(run_server, loaded):
    with run_server(loaded, Limits(timeout=2)) as port:
        slow = socket.create_connection(("127.0.0.1", port), timeout=60)
        slow.sendall(_head(1000) + b"{")
        assert ask(port)[0] == 200
        answer = slow.recv(1000)
        assert answer.startswith(b"HTTP/1.1 504")
        slow.close()


def test_a_client_that_has_gone_is_not_predicted(run_server, loaded, gate):
    with run_server(loaded) as port, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, port)
        until(lambda: gate.begun == 1)
        gone = socket.create_connection(("127.0.0.1", port))
        gone.sendall(_head(len(PIXELS)) + PIXELS)
        time.sleep(0.5)
        gone.close()
        time.sleep(0.5)
        gate.set()
        assert first.result()[0] == 200
        assert ask(port)[0] == 200
        assert gate.begun == 2


def test_a_large_body_is_refused(run_server, loaded):
    told = "The body of the request is larger than 1 MiB; send smaller or fewer images"
    with run_server(loaded, Limits(max_body=1)) as port:
        assert ask(port, b" " * (MIB + 1)) == (413, {"error": told})
        assert ask(port, iter([b" " * MIB] * 3)) == (413, {"error": told})  # of no stated length
        assert ask(port, PIXELS + b" " * (MIB - len(PIXELS)))[0] == 200
        for length, lines in ((2**40, ()), (2 * MIB, ("Expect: 100-continue",))):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(_head(length, *lines))
                assert connection.recv(1000).startswith(b"HTTP/1.1 413")  # before it is sent
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(_head(len(PIXELS), "Expect: 100-continue"))
            assert connection.recv(1000).startswith(b"HTTP/1.1 100")
            connection.sendall(PIXELS)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_several_images_are_predicted_at_a_time_if_asked(run_server, loaded, gate):
    with run_server(loaded, Limits(workers=2)) as port, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, port) for _ in range(3)]
        until(lambda: gate.begun == 2)
        time.sleep(0.3)
        assert gate.begun == 2
        gate.set()
        assert [answer.result()[0] for answer in answers] == [200] * 3


def test_a_failure_of_the_server_is_an_error_of_one_line(run_server, loaded, monkeypatch):
    def fail(*_):
        raise AssertionError("secret")

    with run_server(loaded) as port:
        monkeypatch.setattr(Version, "run", fail)
        assert ask(port) == (500, {"error": "Internal error: AssertionError"})
        monkeypatch.undo()
        assert ask(port)[0] == 200


def test_too_little_memory(run_server, loaded, monkeypatch):
    def fail(*_):
        raise MemoryError

    with run_server(loaded) as port:
        monkeypatch.setattr(Version, "run", fail)
        assert ask(port) == (429, {"error": "MemoryError"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_body": 0}, "max_body must be at least 1. Received: 0"),
        ({"max_pixels": 0}, "max_pixels must be at least 1. Received: 0"),
        ({"queue": -1}, "queue must be at least 0. Received: -1"),
        ({"workers": 0}, "workers must be at least 1. Received: 0"),
        ({"timeout": 0}, "timeout must be more than 0 seconds. Received: 0"),
        ({"timeout": float("nan")}, "timeout must be more than 0 seconds. Received: nan"),
    ],
)
def test_bounds_out_of_range(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Limits(**options)


def test_the_help_states_the_defaults():
    text = " ".join(CliRunner().invoke(main, ["serve", "--help"]).stdout.split())
    for field in fields(Limits):
        flag = f"--{field.name.replace('_', '-')}"
        found = re.search(rf"{flag} .*?\[default: ([\d.]+)", text)
        assert float(found[1]) == field.default


def test_addresses():
    with bind(port=0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        assert is_loopback(listener)
    with bind("0.0.0.0", 0) as listener:  # noqa: S104 - not listened on
        assert not is_loopback(listener)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_addresses_of_ipv6():
    with bind("::1", 0) as listener:
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"
        assert is_loopback(listener)


def command(*arguments):
    result = CliRunner().invoke(main, ["serve", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_what_goes_wrong_is_one_line(model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = command(model, "--port", port)
    assert f"--port {port}: expected an address of this machine with a free port" in line
    assert line.endswith("choose another --port, or 0 for any")
    assert "--port must be from 0 to 65535. Received: 65536" in command(model, "--port", 65536)
    assert "--host 192.0.2.1 --port 0: expected" in command(
        model, "--host", "192.0.2.1", "--port", 0
    )
    assert "nowhere: expected a run" in command(tmp_path / "nowhere", "--port", 0)
    assert "--label must be LABEL=VERSION" in command(model, "--port", 0, "--label", "x")
    assert "versions 1, 2. Received: x=3" in command(model, "--port", 0, "--label", "x=3")
    assert "queue must be at least 0" in command(model, "--queue", -1)


def test_a_missing_extra_names_the_way_out(model, monkeypatch):
    monkeypatch.setattr("keras_unet.system._is_installed", lambda name: name != "uvicorn")
    assert 'without uvicorn; pip install ".[serve]"' in command(model)


@contextmanager
def process(*arguments):
    """Runs the command; yields its process, and the lines that it prints until it serves."""
    words = [sys.executable, "-m", "keras_unet", "serve", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **streams) as started:
        try:
            lines = []
            while not lines or not lines[-1].startswith("stop"):
                lines.append(started.stdout.readline())
                assert lines[-1], started.stderr.read()
            yield started, lines
        finally:
            started.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("sent", "host", "told"),
    [
        (signal.SIGINT, "127.0.0.1", r""),
        (
            *(signal.SIGTERM, "0.0.0.0"),  # noqa: S104 - in a test
            r"Warning: --host 0\.0\.0\.0: the server is open to other machines, without auth.*\n",
        ),
    ],
    ids=["SIGINT", "SIGTERM, open to others"],
)
def test_a_signal_lets_the_running_request_be_answered(model, sent, host, told):
    with process(model, "--port", "0", "--host", host, "--quiet") as (started, lines):
        found = re.fullmatch(rf"http://{re.escape(host)}:(\d+)/v1/models/cells\n", lines[0])
        port = int(found[1])
        assert lines[1] == f"page: http://{host}:{port}/\n"
        with ThreadPoolExecutor(1) as pool:
            large = json.dumps({"inputs": np.zeros((1, 900, 900, 1)).tolist()}).encode()
            running = pool.submit(ask, port, large)
            time.sleep(1)
            assert not running.done()
            started.send_signal(sent)
            status, answer = running.result()
        assert status == 200
        assert np.shape(answer["outputs"]["classes"]) == (1, 900, 900)
        assert started.wait(60) == 0
        assert not can_connect(port)
        assert re.fullmatch(told, started.stderr.read())


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
