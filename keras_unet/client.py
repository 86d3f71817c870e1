"""Client of a model server, in one file that can be copied to other machines.

    python client.py grpc://HOST:8500/MODEL FILES... --out FOLDER
    python client.py http://HOST:8501/v1/models/MODEL FILES... --out FOLDER

`MODEL@3` selects version 3, `MODEL@stable` the version with that label, `MODEL` the newest. Without
FILES it prints the versions and classes of the model. REST needs only Python, gRPC also
`pip install grpcio`. In a program (`numpy.asarray` converts a `Tensor`):

    with Client("grpc://localhost:8500/cells@stable") as server:
        (png,) = server.classify([Path("a.png").read_bytes()])
        (probabilities,) = server.probabilities([Path("a.png").read_bytes()])

Messages are those of tensorflow_serving/apis (model, predict, get_model_status and
get_model_metadata.proto) and of TensorFlow's tensor.proto. They are written and read field by
field, since their generated classes would import all of TensorFlow.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import random
import re
import sys
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

TIMEOUT, ATTEMPTS = 300.0, 5  # a large image on a CPU takes minutes
CONNECT_SECONDS, PAUSE_SECONDS, LONGEST_PAUSE = 5.0, 0.5, 8.0

_LOG = logging.getLogger("unet_client")
_Response = TypeVar("_Response")
_TEMPORARY = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
_ERRORS: Mapping[str, tuple[type[Exception], str]] = {
    "INVALID_ARGUMENT": (ValueError, ""),
    "FAILED_PRECONDITION": (ValueError, ""),
    "DEADLINE_EXCEEDED": (TimeoutError, "; allow more time, or send smaller images"),
    "NOT_FOUND": (OSError, "; check the name and the version in the address"),
    "UNAVAILABLE": (ConnectionError, "; is it running? gRPC is on port 8500, REST on 8501"),
    "RESOURCE_EXHAUSTED": (ConnectionError, "; send less at a time, or try again later"),
}
_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}  # of HTTP
_CODES |= {503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
_FLOAT32, _UINT8, _STRING = 1, 4, 7  # of DataType
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER, _START = 33, 4096  # bytes of a PNG header, and bytes read to find the Software tag
_SOFTWARE = b"Software\0keras_unet"
_PARTS = {1: "inputs", 2: "outputs"}  # of a SignatureDef


@dataclass(frozen=True)
class Tensor:
    """Array of a message.

    Attributes:
        dtype: DataType of TensorFlow: 1 for float32, 4 for uint8.
        shape: Shape of the array.
        data: Bytes of all elements in row-major order.
    """

    dtype: int
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, numbers: Any) -> Tensor:
        """Converts a float32 or uint8 array of NumPy, or another object with a buffer."""
        view = memoryview(numbers)
        dtype = {"f": _FLOAT32, "B": _UINT8}.get(view.format)
        if dtype is None:
            raise ValueError(f"numbers must be float32 or uint8. Received: {view.format!r}")
        return cls(dtype, view.shape or (), view.tobytes())

    @property
    def __array_interface__(self) -> dict[str, Any]:
        kind = {_FLOAT32: "<f4", _UINT8: "|u1"}[self.dtype]
        return {"version": 3, "typestr": kind, "shape": self.shape, "data": self.data}


Value = Tensor | Sequence[bytes]
Names = dict[str, dict[str, list[str]]]


class Client:
    """Connection to a model server.

    Requests raise ValueError if the server refuses them, TimeoutError, ConnectionError if the
    server cannot be reached, and OSError for other failures, each with a message of one line.
    """

    def __init__(self, address: str, *, timeout: float = TIMEOUT, attempts: int = ATTEMPTS) -> None:
        """Prepares a connection; sends nothing yet.

        Args:
            address: grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL, optionally followed
                by @VERSION or @LABEL.
            timeout: Time in seconds to wait for a response.
            attempts: Largest number of attempts if the server is unreachable or overloaded.

        Raises:
            ValueError: If the address is malformed, or a number is out of range.
            ImportError: If the address is of gRPC, and grpcio is missing.
        """
        if attempts < 1 or not timeout > 0:
            raise ValueError(
                "attempts must be at least 1, and timeout more than 0 seconds. "
                f"Received: attempts={attempts}, timeout={timeout:g}"
            )
        self.address, self._attempts = address, attempts
        parts = _Address.of(address)
        self._server = (_Grpc if parts.scheme == "grpc" else _Rest)(parts, timeout)

    def __enter__(self) -> Self:
        """Returns the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self._server.close()

    def classify(self, files: Sequence[bytes]) -> Sequence[bytes]:
        """Predicts the classes of images.

        Args:
            files: Contents of PNG or JPEG files, sent in one request.

        Returns:
            A grey PNG of the classes for each file.
        """
        return self._predict_files(files, "classes_bytes")

    def probabilities(self, files: Sequence[bytes]) -> list[Any]:
        """Predicts the class probabilities of images.

        Args:
            files: Contents of PNG or JPEG files, sent in one request.

        Returns:
            A float32 `Tensor` `(height, width, classes)` for each file.
        """
        return [read_tensor(text) for text in self._predict_files(files, "probabilities_bytes")]

    def about(self) -> Any:
        """Returns the metadata of the model: classes, labels, instance options, network."""
        return json.loads(self.predict("about", {"query": [b""]}, ["about"])["about"][0])

    def versions(self) -> dict[int, str]:
        """Returns the state of each version, AVAILABLE if it can be used."""
        return self._retry(self._server.versions)

    def signatures(self) -> Names:
        """Returns the names of the inputs and outputs of each signature."""
        known = self._retry(self._server.signatures)
        return {name: parts for name, parts in known.items() if not name.startswith("__")}

    def predict(
        self, signature: str, inputs: Mapping[str, Value], outputs: Sequence[str]
    ) -> dict[str, Any]:
        """Calls a signature.

        Args:
            signature: Name of the signature.
            inputs: A `Tensor`, or a list of bytes, by the name of the input.
            outputs: Names of the outputs to return.

        Returns:
            A `Tensor`, or a list of bytes, by the name of the output.
        """
        return self._retry(lambda: self._server.predict(signature, inputs, outputs))

    def _predict_files(self, files: Sequence[bytes], output: str) -> Sequence[bytes]:
        response = self.predict("classify_bytes", {"image_bytes": files}, [output])
        texts: Sequence[bytes] = response[output]
        return texts

    def _retry(self, request: Callable[[], _Response]) -> _Response:
        """Repeats a request that may succeed later, after growing pauses of random length."""
        attempt, started = 1, time.monotonic()
        while True:
            try:
                response = request()
            except _StatusError as failure:
                _LOG.info("%s: attempt %d: %s", self.address, attempt, failure.code)
                if failure.code not in _TEMPORARY or attempt == self._attempts:
                    raise self._error(failure) from failure
            else:
                seconds = time.monotonic() - started
                _LOG.info("%s: response after %.3f s", self.address, seconds)
                return response
            pause = min(PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE)
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads clients, no secret
            attempt += 1

    def _error(self, failure: _StatusError) -> Exception:
        kind, way_out = _ERRORS.get(failure.code, (OSError, ""))
        return kind(f"{self.address}: {failure.code}, {_sentence(str(failure))}{way_out}")


class _StatusError(Exception):
    """Failure of a request, with the name of its status."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Address(NamedTuple):
    scheme: str
    server: str  # host and port
    base: str  # path before the model in REST
    model: str
    version: str  # digits, a label, or empty for the newest

    @classmethod
    def of(cls, text: str) -> _Address:
        base = "" if text.startswith("grpc:") else ".*/v1/models"
        match = re.fullmatch(rf"(grpc|http)://([^/]+:\d+)({base})/([^/@:]+)(?:@([^/@:]+))?", text)
        if match is None:
            raise ValueError(
                "server must be grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL, "
                "optionally followed by @VERSION or @LABEL; the default is the newest. "
                f"Received: {text}"
            )
        return cls(*match.groups(""))

    @property
    def path(self) -> str:
        kind = "versions" if self.version.isdecimal() else "labels"
        version = f"/{kind}/{quote(self.version)}" if self.version else ""
        return f"{self.base}/{quote(self.model)}{version}"

    def spec(self, signature: str = "") -> bytes:
        return model_spec(self.model, self.version, signature)


class _Grpc:
    def __init__(self, address: _Address, timeout: float) -> None:
        try:
            import grpc
        except ImportError as error:
            raise ImportError("grpc:// needs grpcio: pip install grpcio, or use http://") from error
        options = {
            "max_send_message_length": -1,
            "max_receive_message_length": -1,  # default 4 MiB
            "enable_http_proxy": 0,
            "enable_retries": 0,
            "min_reconnect_backoff_ms": int(1000 * CONNECT_SECONDS),  # time limit of a connection
            "initial_reconnect_backoff_ms": int(500 * PAUSE_SECONDS),
            "max_reconnect_backoff_ms": int(500 * PAUSE_SECONDS),
        }
        channel_options = [(f"grpc.{name}", value) for name, value in options.items()]
        self._channel = grpc.insecure_channel(address.server, channel_options)
        self._error, self._address, self._timeout = grpc.RpcError, address, timeout

    def predict(
        self, signature: str, inputs: Mapping[str, Value], outputs: Sequence[str]
    ) -> dict[str, Any]:
        request = predict_request(self._address.spec(signature), inputs, outputs)
        response = self._call("PredictionService/Predict", request)
        return {name: read_tensor(value) for name, value in _map(response, 1)}

    def versions(self) -> dict[int, str]:
        response = self._call("ModelService/GetModelStatus", field(1, self._address.spec()))
        states = [dict(_fields(state)) for _, state in _fields(response)]
        return {state.get(1, 0): _STATES.get(state.get(2, 0), "UNKNOWN") for state in states}

    def signatures(self) -> Names:
        request = field(1, self._address.spec()) + _text(2, "signature_def")
        ((_, packed),) = _map(self._call("PredictionService/GetModelMetadata", request), 2)
        return {
            name: {part: sorted(dict(_map(value, number))) for number, part in _PARTS.items()}
            for name, value in _map(dict(_fields(packed))[2], 1)
        }

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: str, request: bytes) -> bytes:
        call = self._channel.unary_unary(f"/tensorflow.serving.{method}")
        try:
            response: bytes = call(request, timeout=self._timeout)
        except self._error as error:
            raise _StatusError(error.code().name, error.details() or "") from error
        return response


class _Rest:
    def __init__(self, address: _Address, timeout: float) -> None:
        self._address, self._timeout = address, timeout

    def predict(
        self, signature: str, inputs: Mapping[str, Value], outputs: Sequence[str]
    ) -> dict[str, Any]:
        values = {name: _to_json(value) for name, value in inputs.items()}
        request = json.dumps({"signature_name": signature, "inputs": values})
        response = self._request("POST", f"{self._address.path}:predict", request)["outputs"]
        # The server omits the name of a single output.
        named = response if isinstance(response, dict) else {outputs[0]: response}
        return {name: _from_json(named[name]) for name in outputs}

    def versions(self) -> dict[int, str]:
        states = self._request("GET", self._address.path)["model_version_status"]
        return {int(state["version"]): state["state"] for state in states}

    def signatures(self) -> Names:
        metadata = self._request("GET", f"{self._address.path}/metadata")["metadata"]
        return {
            name: {part: sorted(value.get(part, ())) for part in _PARTS.values()}
            for name, value in metadata["signature_def"]["signature_def"].items()
        }

    def close(self) -> None:
        """Does nothing: every request has its own connection."""

    def _request(self, verb: str, path: str, body: str | None = None) -> Any:
        connection = HTTPConnection(self._address.server, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(self._timeout)
            connection.request(verb, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            is_late = isinstance(error, TimeoutError) and connection.sock is not None
            code = "DEADLINE_EXCEEDED" if is_late else "UNAVAILABLE"
            raise _StatusError(code, str(error) or type(error).__name__) from error
        finally:
            connection.close()
        return _parse(response.status, content)


def _parse(status: int, content: str) -> Any:
    code = _CODES.get(status, f"HTTP {status}")
    try:
        value = json.loads(content)
    except ValueError as error:
        raise _StatusError(code, f"no JSON: {content[:200]}") from error
    if status != 200:
        raise _StatusError(code, str(value.get("error", value)))
    return value


def _sentence(reason: str) -> str:
    """Removes the names of graph nodes and files from an error message of TensorFlow."""
    reason = re.sub(r"^\d+ root error.*\s+\(0\)\s+\w+: ", "", reason.strip())
    rule = re.search(r"assertion failed: \[(.*?)\] \[(.*?)\]\s*(?:\n|\[\[|$)", reason, re.DOTALL)
    sentence = f"{rule[1]} {rule[2]}" if rule else re.split(r"\n|\[\[|\{\{", reason)[0]
    return " ".join(sentence.split()) or "without a reason"


def model_spec(model: str = "", version: str = "", signature: str = "") -> bytes:
    """Returns a ModelSpec; a version that is not a number is a label."""
    is_number = version.isdecimal()
    number = field(2, _whole(1, int(version))) if is_number else b""
    label = b"" if is_number else _text(4, version)
    return _text(1, model) + number + _text(3, signature) + label


def predict_request(spec: bytes, inputs: Mapping[str, Value], outputs: Sequence[str] = ()) -> bytes:
    """Returns a PredictRequest; without names of outputs, for all of the signature."""
    entries = (_text(1, name) + field(2, _tensor(value)) for name, value in inputs.items())
    output_filter = b"".join(_text(3, name) for name in outputs)
    return field(1, spec) + b"".join(field(2, entry) for entry in entries) + output_filter


def _tensor(value: Value) -> bytes:
    """Writes a TensorProto."""
    if isinstance(value, Tensor):
        return _whole(1, value.dtype) + field(2, _dims(value.shape)) + field(4, value.data)
    strings = b"".join(field(8, text) for text in value)
    return _whole(1, _STRING) + field(2, _dims([len(value)])) + strings


def _dims(shape: Sequence[int]) -> bytes:
    return b"".join(field(2, _whole(1, size)) for size in shape)


def read_tensor(message: bytes) -> Value:
    """Reads a TensorProto of float32, uint8 or strings."""
    parts: dict[int, list[Any]] = {}
    for number, value in _fields(message):
        parts.setdefault(number, []).append(value)
    if parts[1] == [_STRING]:
        return [bytes(text) for text in parts.get(8, ())]
    (dims,) = parts.get(2, [b""])
    sizes = [dict(_fields(dim)) for number, dim in _fields(dims) if number == 2]
    shape = tuple(size.get(1, 0) for size in sizes)
    data = b"".join(parts.get(4) or parts.get(5) or [_unpacked(parts.get(7, ()), prod(shape))])
    return Tensor(parts[1][0], shape, data)


def _unpacked(parts: Sequence[bytes], count: int) -> bytes:
    """Decodes uint8 numbers, of which those above 127 may be written in two bytes."""
    packed = b"".join(parts)
    if len(packed) == count:
        return packed
    position, numbers = 0, bytearray()
    while position < len(packed):
        number, position = _read_varint(packed, position)
        numbers.append(number)
    return bytes(numbers)


def field(number: int, content: bytes) -> bytes:
    """Returns a field of a message that holds text, bytes or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, content: str) -> bytes:
    return field(number, content.encode()) if content else b""


def _whole(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _varint(number: int) -> bytes:
    """Writes a number in groups of seven bits, the lowest first; the top bit marks more groups."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields number and content of each field; the content is a number or a view."""
    view, position = memoryview(message), 0
    while position < len(view):
        key, position = _read_varint(view, position)
        kind, size = key & 7, {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, position = _read_varint(view, position)
        yield key >> 3, view[position : position + size] if kind else size
        position += size if kind else 0


def _read_varint(view: bytes | memoryview, position: int) -> tuple[int, int]:
    """Reads a number, and returns it with the position after it."""
    number = shift = 0
    while True:
        byte = view[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position


def _map(message: bytes, number: int) -> Iterator[tuple[str, Any]]:
    """Yields the keys and values of a map field of a message."""
    for field_number, entry in _fields(message):
        if field_number == number:
            pair = dict(_fields(entry))
            yield str(pair[1], "utf-8"), pair[2]


def _to_json(value: Value) -> Any:
    if not isinstance(value, Tensor):
        return [{"b64": base64.b64encode(text).decode()} for text in value]
    if not value.data:
        return []
    numbers = memoryview(value.data)
    is_float = value.dtype == _FLOAT32
    return (numbers.cast("f", value.shape) if is_float else numbers.cast("B", value.shape)).tolist()


def _from_json(value: Any) -> Value:
    """Converts nested lists of numbers, or a list of strings or of {"b64": ...}."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0]
    if isinstance(first, dict):
        return [base64.b64decode(text["b64"]) for text in value]
    if isinstance(first, str):
        return [text.encode() for text in value]
    for _ in shape[1:]:
        value = list(chain.from_iterable(value))
    is_float = isinstance(first, float)
    numbers = array("f" if is_float else "B", value)
    return Tensor(_FLOAT32 if is_float else _UINT8, tuple(shape), numbers.tobytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Classifies files, or prints versions and classes of the model; returns 2 after an error."""
    parser = argparse.ArgumentParser(description="Classify image files by a model server.")
    parser.add_argument(
        "address", help="grpc://HOST:8500/MODEL or http://HOST:8501/v1/models/MODEL"
    )
    parser.add_argument("files", nargs="*", type=Path, help="PNG or JPEG files")
    parser.add_argument("--out", type=Path, help="folder for <stem>_classes.png")
    parser.add_argument(
        "--overwrite", action="store_true", help="also replace files of other programs"
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for each response")
    parser.add_argument(
        "--attempts", type=int, default=ATTEMPTS, help="if the server cannot be reached"
    )
    parser.add_argument("--verbose", action="store_true", help="log every request")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING)
    try:
        with Client(options.address, timeout=options.timeout, attempts=options.attempts) as server:
            lines = _describe_model(server)
            if options.files:
                lines = _classify_files(server, options.files, options.out, options.overwrite)
            for line in lines:
                sys.stdout.write(f"{line}\n")
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    return 0


def _classify_files(
    server: Client, files: Sequence[Path], out: Path | None, overwrite: bool
) -> Iterator[str]:
    if out is None:
        raise ValueError("--out must name a folder for the results. Received none")
    targets = [out / f"{path.stem}_classes.png" for path in files]
    if len({path.resolve() for path in (*files, *targets)}) < len(files) + len(targets):
        raise ValueError(
            "files must differ in their stems, which name the results, and must not be results"
        )
    foreign = [path for path in targets if path.exists() and not _is_own(path)]
    if foreign and not overwrite:
        raise ValueError(
            f"{foreign[0]}: expected no file, or one that keras-unet has written. Received "
            "another; choose another --out, or replace it by --overwrite"
        )
    out.mkdir(parents=True, exist_ok=True)
    for path, target in zip(files, targets, strict=True):
        try:
            (classes,) = server.classify([path.read_bytes()])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        _write(target, classes)
        yield str(target)


def _is_own(path: Path) -> bool:
    """Returns whether a file is a PNG with the Software tag of keras-unet."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_START)
    return start.startswith(_PNG) and b"tEXt" + _SOFTWARE in start


def _write(path: Path, png: bytes) -> None:
    """Writes a PNG with a Software tag after its header, whole or not at all."""
    tag = b"tEXt" + _SOFTWARE
    chunk = len(_SOFTWARE).to_bytes(4) + tag + zlib.crc32(tag).to_bytes(4)
    temporary = path.with_name(f".{random.getrandbits(32):08x}-{path.name}")
    try:
        is_png = png.startswith(_PNG)
        temporary.write_bytes(png[:_HEADER] + chunk + png[_HEADER:] if is_png else png)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _describe_model(server: Client) -> Iterator[str]:
    states = server.versions()
    yield from (f"version {version}: {state}" for version, state in sorted(states.items()))
    if "AVAILABLE" not in states.values():
        raise ConnectionError(f"{server.address}: no version is available yet")
    for entry in server.about()["classes"]:
        yield f"class {entry['class']}: label value {entry['value']}, {entry['name']}"


if __name__ == "__main__":
    sys.exit(main())
