"""Requests and responses of TensorFlow Serving's REST interface: arrays from JSON and to JSON.

A request holds the inputs of a signature by columns, `{"inputs": {NAME: BATCH}}`, or by rows,
`{"instances": [{NAME: ROW}, ...]}`; the name is left out if the signature has one input. Bytes are
`{"b64": BASE64}`. The response is `{"outputs": ...}` or `{"predictions": ...}` in the same form.
Rules and wording of errors follow json_tensor.cc of TensorFlow Serving.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DEFAULT_SIGNATURE = "serving_default"
BYTES_SUFFIX = "_bytes"
"""End of the names of outputs that are bytes rather than text."""

_INPUTS, _INSTANCES, _SIGNATURE = "inputs", "instances", "signature_name"
_OBJECT = "O"  # kind of arrays of bytes
_SHOWN = 256  # characters of a wrong value in a message
_CHUNK = 3 * 2**20  # bytes converted to base64 at a time; base64 turns 3 bytes into 4
_PIECE = 2**15  # numbers converted to text at a time, between which other threads run


class Content(NamedTuple):
    """Content of a request.

    Attributes:
        signature: Name of the signature.
        values: Values of the inputs, as JSON.
        by_rows: Whether the values are rows of `instances`, rather than the columns of `inputs`.
    """

    signature: str
    values: Any
    by_rows: bool


def parse_request(body: bytes) -> Content:
    """Parses the body of a request.

    Raises:
        ValueError: If it is no JSON object with either `inputs` or `instances`.
    """
    content = _parse_json(body)
    if not isinstance(content, dict):
        raise ValueError(f"JSON Value: {_shown(content)} Is not object")  # noqa: TRY004
    signature = content.get(_SIGNATURE, DEFAULT_SIGNATURE)
    if not isinstance(signature, str):
        raise ValueError(  # noqa: TRY004 - all wrong requests are alike
            f"JSON Value: {_shown(content)} not formatted correctly. '{_SIGNATURE}' key must be a "
            "string value."
        )
    given = content.keys() & {_INPUTS, _INSTANCES}
    if not given:
        raise ValueError(f"Missing '{_INPUTS}' or '{_INSTANCES}' key")
    if len(given) == 2:
        raise ValueError(
            f"JSON Value: {_shown(content)} Not formatted correctly expecting only one of "
            f"'{_INPUTS}' or '{_INSTANCES}' keys to exist "
        )
    (key,) = given
    return Content(signature or DEFAULT_SIGNATURE, content[key], key == _INSTANCES)


def _parse_json(body: bytes) -> Any:
    if not body:
        raise ValueError("JSON Parse error: The document is empty")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"JSON Parse error: {error}") from error


def inputs_of(content: Content, dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, NDArray[Any]]:
    """Converts the values of a request to arrays.

    Args:
        content: The request.
        dtypes: Type of each input of its signature by name; object for bytes.

    Raises:
        ValueError: If an input is missing or unknown, or has values of another type or of
            different lengths.
    """
    columns = _columns_of_rows if content.by_rows else _columns
    return {
        name: _array(name, values, dtypes[name])
        for name, values in columns(content.values, sorted(dtypes)).items()
    }


def _columns(values: Any, names: list[str]) -> dict[str, Any]:
    if not _is_named(values):
        if len(names) > 1:
            raise ValueError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        return {names[0]: values}
    for name in names:
        if name not in values:
            raise ValueError(f"Missing named input: {name} in 'inputs' object.")
    return {name: values[name] for name in names}


def _columns_of_rows(rows: Any, names: list[str]) -> dict[str, Any]:
    if not isinstance(rows, list):
        raise ValueError(f"JSON Value: {_shown(rows)} Expecting 'instances' to be an list/array")  # noqa: TRY004
    if not rows:
        raise ValueError("No values in 'instances' array")
    if not _is_named(rows[0]):
        if len(names) > 1:
            raise ValueError(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        return {names[0]: rows}
    for number, row in enumerate(rows):
        if not _is_named(row) or sorted(row) != names:
            raise ValueError(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{_shown(row)} keys must be equal to: {','.join(names)}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _is_named(value: Any) -> bool:
    """Returns whether a value holds tensors by name, rather than one tensor or one text."""
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return value.keys() == {"b64"} and isinstance(value["b64"], str)


def _array(name: str, values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        return _bytes_array(values) if dtype.kind == _OBJECT else _number_array(values, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"JSON Value: {_shown(values)} of input {name}: {error}") from error


def _number_array(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    numbers = np.array(values)  # raises for lists of different lengths
    kinds = "iuf" if dtype.kind == "f" else "iu"
    if numbers.size and numbers.dtype.kind not in kinds:
        raise ValueError(f"is not of expected type: {dtype}")
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite, which models refuse
        converted = numbers.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(converted, numbers):
        raise ValueError(f"is out of the range of {dtype}")
    return converted


def _bytes_array(values: Any) -> NDArray[Any]:
    texts = np.array(_decoded(values), object)
    if any(isinstance(text, list) for text in texts.flat):
        raise ValueError("lists must have one length and one depth")
    return texts


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and _is_base64(value):
        return base64.b64decode(value["b64"], validate=True)
    raise ValueError('must be text or {"b64": BASE64}')


def _shown(value: Any) -> str:
    """Formats the start of a value, without formatting all of a large one."""
    text = "".join(piece for _, piece in zip(range(_SHOWN), _pieces_of(value), strict=False))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _pieces_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield json.dumps(value[:_SHOWN])
    elif isinstance(value, list | dict):
        brackets = "[]" if isinstance(value, list) else "{}"
        yield brackets[0]
        for number, part in enumerate(value):
            yield ", " if number else ""
            yield from _pieces_of(part)
            if isinstance(value, dict):
                yield ": "
                yield from _pieces_of(value[part])
        yield brackets[1]
    else:
        yield json.dumps(value)


def write_response(outputs: Mapping[str, NDArray[Any]], *, by_rows: bool) -> bytes:
    """Writes the outputs of a signature as the body of a response.

    Args:
        outputs: Arrays by name; bytes in arrays of type object.
        by_rows: Whether the request held rows, and the response holds `predictions`.

    Raises:
        ValueError: If rows are requested of outputs of different numbers of rows.
    """
    if by_rows:
        return b'{"predictions": [' + b", ".join(_rows(outputs)) + b"]}"
    return b'{"outputs": ' + _named({name: outputs[name] for name in sorted(outputs)}) + b"}"


def _rows(outputs: Mapping[str, NDArray[Any]]) -> Iterator[bytes]:
    counts = {name: len(array) if array.ndim else None for name, array in outputs.items()}
    count = next(iter(counts.values()))
    for name, other in counts.items():
        if other is None:
            raise ValueError(f"Tensor name: {name} has no shape information ")
        if other != count:
            raise ValueError(
                f"Tensor name: {name} has inconsistent batch size: {other} expecting: {count}"
            )
    for row in range(count or 0):
        yield _named({name: outputs[name][row : row + 1] for name in sorted(outputs)}, is_row=True)


def _named(arrays: Mapping[str, NDArray[Any]], *, is_row: bool = False) -> bytes:
    """Writes arrays with their names, or a single one without."""
    texts = {
        name: _text(array.reshape(array.shape[1:]) if is_row else array, name)
        for name, array in arrays.items()
    }
    if len(texts) == 1:
        return next(iter(texts.values()))
    entries = (json.dumps(name).encode() + b": " + text for name, text in texts.items())
    return b"{" + b", ".join(entries) + b"}"


def _text(array: NDArray[Any], name: str) -> bytes:
    if array.dtype.kind == _OBJECT:
        write = _base64_text if name.endswith(BYTES_SUFFIX) else _plain_text
        if not array.ndim:
            return write(array.item())
        return b"[" + b", ".join(_text(part, name) for part in _parts(array)) + b"]"
    if array.size > _PIECE and array.ndim > 1:
        return b"[" + b", ".join(_text(part, name) for part in array) + b"]"
    return _number_text(array)


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yields the parts along the first axis as arrays, where iteration would yield objects."""
    return (array[number, ...] for number in range(len(array)))


def _base64_text(content: bytes) -> bytes:
    chunks = (content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK))
    return b'{"b64": "' + b"".join(map(base64.b64encode, chunks)) + b'"}'


def _plain_text(content: bytes) -> bytes:
    return json.dumps(content.decode(errors="replace")).encode()


def _number_text(array: NDArray[Any]) -> bytes:
    """Writes numbers, decimal ones with the fewest digits that are read as the same number."""
    if array.dtype.kind == "f" and np.isfinite(array).all():
        # Texts of NumPy have the digits of float32, those of Python's float would have 17.
        return json.dumps(array.astype("U").tolist()).replace('"', "").encode()
    return json.dumps(array.tolist()).encode()
