"""Exported models as a client sees them through a server, by gRPC and by REST."""

from __future__ import annotations

import io
import re
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from keras_unet.client import Client, Tensor
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.predict import predict_image
from keras_unet.runs import Run


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def file_of(pixels, kind="PNG"):
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind)
    return written.getvalue()


def read(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.fixture(scope="module")
def expected(trained):
    """The probabilities of 8-bit pixels by the run itself."""
    run = Run.load(trained)
    network = load_network(run)
    return lambda pixels: predict_image(network, run.normalization.apply(pixels[..., None]))


def test_files_of_different_sizes_in_one_request(client, expected):
    images = [drawn(50, 71), drawn(8, 130, seed=1), drawn(1, 1, seed=2)]
    files = [file_of(image) for image in images]
    parts = client.classify(files), client.probabilities(files)
    for image, classes, probabilities in zip(images, *parts, strict=True):
        np.testing.assert_allclose(probabilities, expected(image), atol=1e-5)
        np.testing.assert_array_equal(read(classes), np.asarray(probabilities).argmax(-1))


def test_pixels_of_a_batch(client, expected):
    images = drawn(2, 20, 33)
    pixels = Tensor.of(images[..., None].astype(np.float32))
    answer = client.predict("serving_default", {"image": pixels}, ["probabilities", "classes"])
    probabilities, classes = (np.asarray(answer[name]) for name in ("probabilities", "classes"))
    assert (probabilities.dtype, classes.dtype) == (np.float32, np.uint8)
    for image, one in zip(images, probabilities, strict=True):
        np.testing.assert_allclose(one, expected(image), atol=1e-5)
    np.testing.assert_array_equal(classes, probabilities.argmax(-1))


def test_only_the_outputs_asked_for_are_answered(client):
    answer = client.predict(
        "classify_bytes", {"image_bytes": [file_of(drawn(9, 9))]}, ["classes_bytes"]
    )
    assert list(answer) == ["classes_bytes"]


def test_answers_beyond_four_mebibytes(served):
    with Client(served.address("grpc", "1")) as client:
        (probabilities,) = client.probabilities([file_of(np.zeros((740, 740), np.uint8))])
    assert len(probabilities.data) > 2**22


def test_bare_tiles(client, trained):
    tile = np.random.default_rng(0).normal(size=(1, 60, 60, 1)).astype(np.float32)
    logits = client.predict("tile", {"tile": Tensor.of(tile)}, ["logits"])["logits"]
    network = load_network(Run.load(trained))
    np.testing.assert_allclose(logits, network(tile), atol=1e-5)


def test_what_is_served(client):
    assert client.versions()[1] == "AVAILABLE"
    assert client.signatures() == {
        "serving_default": {"inputs": ["image"], "outputs": ["classes", "probabilities"]},
        "scaled": {"inputs": ["image", "scale"], "outputs": ["classes", "probabilities"]},
        "classify_bytes": {
            "inputs": ["image_bytes"],
            "outputs": ["classes_bytes", "probabilities_bytes"],
        },
        "tile": {"inputs": ["tile"], "outputs": ["logits"]},
        "about": {"inputs": ["query"], "outputs": ["about"]},
    }
    about = client.about()
    assert about["classes"][1] == {"class": 1, "value": 1, "name": "cell"}
    assert about["network"]["tile_size"] == 60


KINDS = {
    "1": "instances",
    "2": "classes",
    "stable": "instances",
    "canary": "classes",
    "": "classes",
}


@pytest.mark.parametrize(("version", "kind"), KINDS.items(), ids=KINDS)
def test_versions_and_labels(served, transport, version, kind):
    with Client(served.address(transport, version)) as client:
        assert client.about()["labels"]["kind"] == kind


@pytest.mark.parametrize("version", ["7", "unknown"])
def test_a_version_that_is_not_served(served, transport, version):
    with Client(served.address(transport, version), attempts=1) as client:  # noqa: SIM117
        with pytest.raises((OSError, ValueError), match=r"cells@(7|unknown): \w+, .*(7|unknown)"):
            client.about()


def pixels(*shape, value=0.0):
    return {"image": Tensor.of(np.full(shape, value, np.float32))}


def files(*contents):
    return {"image_bytes": contents}


OUTPUTS = {"serving_default": ["classes"], "classify_bytes": ["classes_bytes"], "tile": ["logits"]}
WHOLE = file_of(drawn(9, 9))
BOMB = WHOLE[:16] + struct.pack(">II", 50_000, 50_000) + WHOLE[24:]
BAD = {
    "rank": ("serving_default", pixels(5, 6, 1), r"of four dimensions\. Received: 5 6 1"),
    "channels": ("serving_default", pixels(1, 5, 6, 3), r"channels=1, .*Received: 1 5 6 3"),
    "no image": ("serving_default", pixels(0, 5, 6, 1), r"at least one|four dimensions"),
    "NaN": ("serving_default", pixels(1, 5, 6, 1, value=np.nan), "finite numbers"),
    "infinite": ("serving_default", pixels(1, 5, 6, 1, value=np.inf), "finite numbers"),
    "no file": ("classify_bytes", files(), "at least one file"),
    "no image file": ("classify_bytes", files(WHOLE, b"hello"), "PNG or JPEG files"),
    "truncated PNG": ("classify_bytes", files(WHOLE[:-20]), "Invalid PNG data"),
    "truncated JPEG": ("classify_bytes", files(file_of(drawn(64, 64), "JPEG")[:-200]), "JPEG"),
    "tile": ("tile", {"tile": Tensor.of(np.zeros((1, 61, 61, 1), np.float32))}, "multiple of 2"),
    "input": ("classify_bytes", pixels(1, 5, 6, 1), "input"),
    "signature": ("unknown", pixels(1, 5, 6, 1), "unknown"),
}


@pytest.mark.parametrize(("signature", "inputs", "message"), BAD.values(), ids=BAD)
def test_a_bad_request_gets_a_clear_error_and_the_next_is_answered(
    client, signature, inputs, message
):
    with pytest.raises(ValueError, match=r"(INVALID_ARGUMENT|FAILED_PRECONDITION), ") as caught:
        client.predict(signature, inputs, OUTPUTS.get(signature, []))
    line = str(caught.value)
    assert re.search(message, line), line
    assert "\n" not in line
    assert not {"{{", "node "} & set(line.split())
    assert read(client.classify([WHOLE])[0]).shape == (9, 9)


def test_a_bomb_is_refused_from_its_header_and_the_next_file_is_answered(client):
    # By the graph, or before it by a server that counts the pixels of a request.
    told = (
        r"at most 67108864 pixels.*\[50000 50000\]|HTTP 413, .* have 2500000000 pixels, more than"
    )
    with pytest.raises((ValueError, OSError), match=told):
        client.classify([BOMB])
    assert read(client.classify([WHOLE])[0]).shape == (9, 9)


@pytest.mark.parametrize("bad", [False, True], ids=["good", "one bad"])
def test_requests_that_the_server_joins(served_in_batches, transport, expected, bad):
    """Images differ in size, so only files can be joined; all of a batch fail with one of them."""
    images = [drawn(20 + seed, 30, seed=seed) for seed in range(4)]
    contents = [file_of(image) for image in images]
    contents[2] = b"bad" if bad else contents[2]

    def ask(content):
        with Client(served_in_batches.address(transport, "1"), attempts=1) as client:
            try:
                return client.probabilities([content])[0]
            except ValueError as error:
                return str(error)

    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(ask, contents))
    for image, answer in zip(images, answers, strict=True):
        if bad:
            assert "PNG or JPEG files" in answer
        else:
            np.testing.assert_allclose(answer, expected(image), atol=1e-5)
