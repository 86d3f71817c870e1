"""JSON of requests and responses: what is read, what is written, and what is refused."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from keras_unet.serving.tensors import _PIECE, inputs_of, parse_request, write_response

FLOAT, BYTES, UINT8 = np.dtype(np.float32), np.dtype(object), np.dtype(np.uint8)
ONE, TWO = {"image": FLOAT}, {"image": FLOAT, "scale": FLOAT}
FILES = {"image_bytes": BYTES}


def read(content, dtypes):
    """Reads a request that is given as JSON, or as the object of it."""
    text = content if isinstance(content, str) else json.dumps(content)
    return inputs_of(parse_request(text.encode()), dtypes)


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def texts(*contents):
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


arrays = numpy_st.arrays(
    st.sampled_from([np.float32, np.uint8, np.int32]), numpy_st.array_shapes(max_dims=4, max_side=4)
)


@given(arrays)
@settings(deadline=None, max_examples=100)
def test_numbers_are_written_so_that_they_are_read_as_the_same(array):
    for by_rows, key in ((False, "outputs"), (True, "predictions")):
        written = write_response({"numbers": array}, by_rows=by_rows)
        found = np.array(json.loads(written)[key], array.dtype)
        np.testing.assert_array_equal(found, array)
        assert found.shape == array.shape


@given(arrays)
@settings(deadline=None, max_examples=100)
def test_columns_and_rows_are_read_as_the_same(array):
    dtypes = {"numbers": array.dtype}
    values = json.loads(json.dumps(array.tolist()))
    by_columns = read({"inputs": values}, dtypes)["numbers"]
    np.testing.assert_array_equal(by_columns, array)
    assert by_columns.dtype == array.dtype
    named = [{"numbers": row} for row in values]
    for content in ({"inputs": {"numbers": values}}, {"instances": values}, {"instances": named}):
        np.testing.assert_array_equal(read(content, dtypes)["numbers"], by_columns)


WRITTEN = {
    "few digits": (np.float32([0.1, 3, 1e-5, 16777216]), "[0.1, 3.0, 1e-05, 1.6777216e+07]"),
    "scalar": (np.float32(0.25), "0.25"),
    "no number": (np.float32([[np.nan], [np.inf], [-np.inf]]), "[[NaN], [Infinity], [-Infinity]]"),
    "whole numbers": (np.uint8([[7, 255]]), "[[7, 255]]"),
    "nothing": (np.empty((0, 2), np.float32), "[]"),
    "text": (texts(b'a "b"', "ä".encode()), '["a \\"b\\"", "\\u00e4"]'),
}


@pytest.mark.parametrize(("array", "text"), WRITTEN.values(), ids=WRITTEN)
def test_forms_of_numbers_and_texts(array, text):
    assert write_response({"x": array}, by_rows=False).decode() == f'{{"outputs": {text}}}'


def test_outputs_whose_names_end_in_bytes_are_base64():
    contents = [b"\xff" * 10, b"", b"abc" * 1_200_000]  # the last in several chunks
    answer = json.loads(write_response({"x_bytes": texts(*contents)}, by_rows=False))
    assert [base64.b64decode(text["b64"]) for text in answer["outputs"]] == contents


def test_several_outputs_have_their_names_and_a_single_one_has_none():
    outputs = {"b": np.uint8([[1], [2]]), "a_bytes": texts(b"x", b"y")}
    assert json.loads(write_response(outputs, by_rows=False)) == {
        "outputs": {"a_bytes": [b64(b"x"), b64(b"y")], "b": [[1], [2]]}
    }
    assert json.loads(write_response(outputs, by_rows=True)) == {
        "predictions": [{"a_bytes": b64(b"x"), "b": [1]}, {"a_bytes": b64(b"y"), "b": [2]}]
    }
    assert json.loads(write_response({"b": outputs["b"]}, by_rows=True)) == {
        "predictions": [[1], [2]]
    }


def test_large_arrays_are_written_in_pieces():
    array = np.random.default_rng(0).random((3, _PIECE // 100, 101), np.float32)
    written = json.loads(write_response({"x": array}, by_rows=False))["outputs"]
    np.testing.assert_array_equal(np.array(written, np.float32), array)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"a": np.zeros(2), "b": np.zeros(3)}, "b has inconsistent batch size: 3 expecting: 2"),
        ({"a": np.array(1.0)}, "a has no shape information"),
    ],
)
def test_outputs_without_common_rows(outputs, message):
    with pytest.raises(ValueError, match=message):
        write_response(outputs, by_rows=True)


def test_bytes_are_read_from_base64_and_text():
    sent = {"instances": [b64(b"\x00\xff"), "text"]}
    np.testing.assert_array_equal(read(sent, FILES)["image_bytes"], texts(b"\x00\xff", b"text"))
    named = {"instances": [{"image_bytes": b64(b"a")}, {"image_bytes": b64(b"")}]}
    np.testing.assert_array_equal(read(named, FILES)["image_bytes"], texts(b"a", b""))
    assert read({"inputs": []}, FILES)["image_bytes"].shape == (0,)
    assert read({"inputs": b64(b"a")}, FILES)["image_bytes"].shape == ()


def test_the_signature_is_the_default_one_if_none_is_named():
    for named, signature in (("", "serving_default"), ("about", "about")):
        body = json.dumps({"inputs": [], "signature_name": named}).encode()
        assert parse_request(body).signature == signature
    assert parse_request(b'{"inputs": []}').signature == "serving_default"


REFUSED = {
    "empty": ("", ONE, "JSON Parse error: The document is empty"),
    "no JSON": ("{", ONE, "JSON Parse error: Expecting property name"),
    "deep": ("[" * 100_000, ONE, "JSON Parse error: .*recursion"),
    "list": ("[1]", ONE, r"JSON Value: \[1\] Is not object"),
    "signature": ({"signature_name": 3, "inputs": []}, ONE, "'signature_name' key must be a str"),
    "neither": ({"signature_name": "a"}, ONE, "Missing 'inputs' or 'instances' key"),
    "both": ({"inputs": [], "instances": []}, ONE, "expecting only one of 'inputs' or"),
    "no row": ({"instances": []}, ONE, "No values in 'instances' array"),
    "rows": ({"instances": 3}, ONE, "Expecting 'instances' to be an list/array"),
    "plain rows": ({"instances": [1]}, TWO, "instances is a plain list, but expecting list of obj"),
    "plain": ({"inputs": [1]}, TWO, "inputs is a plain value/list, but expecting an object"),
    "missing": ({"inputs": {"image": [1]}}, TWO, "Missing named input: scale in 'inputs' object"),
    "keys": (
        {"instances": [{"image": 1, "scale": 1}, {"image": 1}]},
        TWO,
        r"element: 1 of 'instances' list.*keys must be equal to: image,scale",
    ),
    "unequal": ({"inputs": [[1], [1, 2]]}, ONE, "of input image: .*inhomogeneous"),
    "text for number": ({"inputs": ["1"]}, ONE, r'Value: \["1"\] of input image: is not of expec'),
    "null": ({"inputs": [None]}, ONE, r"Value: \[null\] of input image: is not of expected type"),
    "mask": ({"inputs": [True]}, ONE, r"Value: \[true\] of input image: is not of expected type"),
    "huge": ({"inputs": [10**400]}, ONE, "of input image: is not of expected type"),
    "fraction": ({"inputs": [0.5]}, {"a": UINT8}, "of input a: is not of expected type: uint8"),
    "range": ({"inputs": [256]}, {"a": UINT8}, "of input a: is out of the range of uint8"),
    "number for bytes": ({"inputs": [1]}, FILES, 'of input image_bytes: must be text or {"b64"'),
    "base64": ({"inputs": [{"b64": "%"}]}, FILES, "of input image_bytes: .*base64"),
    "uneven bytes": ({"inputs": [["a"], "b"]}, FILES, "of input image_bytes: "),
}


@pytest.mark.parametrize(("content", "dtypes", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_requests_are_refused_with_the_start_of_what_is_wrong(content, dtypes, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(content, dtypes)
    assert len(str(caught.value)) < 1000


def test_a_large_wrong_value_is_not_formatted_whole():
    with pytest.raises(ValueError, match=r"of input image: is not of expected") as caught:
        read({"inputs": ["a" * 10**6] * 3}, ONE)
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=60) | st.text('{}[]":,"inputsb64 01', max_size=60).map(str.encode))
@settings(deadline=None, max_examples=200)
def test_garbage_is_refused_as_a_value_error(body):
    with suppress(ValueError):
        inputs_of(parse_request(body), ONE)
