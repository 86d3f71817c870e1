"""The runner of .tflite files: whole images, without TensorFlow, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.prediction import tflite as litert
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.tflite import LiteNetwork, load_tflite, main, schema
from keras_unet.runs import Run

# A process in which TensorFlow and Keras cannot be imported.
SINGLE = (
    "import sys\n"
    "sys.modules.update(tensorflow=None, keras=None)\n"
    "from keras_unet.prediction.tflite import main\n"
    "main(sys.argv[1:])\n"
)


@pytest.fixture(scope="module")
def network(lite):
    return load_tflite(lite, threads=1)


@pytest.fixture(scope="module")
def model(trained):
    return load_network(Run.load(trained))


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(height=st.integers(1, 120), width=st.integers(1, 120), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_any_size_is_predicted_as_the_network_does(network, model, height, width, seed):
    image = drawn(height, width, 1, seed=seed)
    answer = predict_image(network, image, architecture=network.architecture)
    np.testing.assert_allclose(answer, predict_image(model, image, tile_size=60), atol=1e-5)


def test_it_knows_the_run(network, trained):
    run = Run.load(trained)
    assert network.architecture == run.architecture
    assert network.info.encoding == run.encoding
    assert network.info.normalization == run.normalization
    assert network.info.instances == run.instances
    assert network.info.record["options"]["steps"] == 40
    assert network.input_shape == (1, 60, 60, 1)


def test_another_tile_is_refused(network):
    with pytest.raises(ValueError, match="tile_size must be left out or be 60 x 60"):
        predict_image(network, drawn(9, 9), tile_size=70, architecture=network.architecture)


def test_a_process_without_tensorflow_predicts(lite, model, tmp_path):
    image = 100 + 30 * drawn(70, 50, 1)
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", SINGLE, lite, "image.npy", "probabilities.npy"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    normalized = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    expected = predict_image(model, normalized, tile_size=60)
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, atol=1e-5)


def test_tensorflow_runs_it_where_litert_is_missing(lite, network, monkeypatch):
    monkeypatch.setattr(litert, "find_spec", lambda _: None)
    other = load_tflite(lite)
    assert type(other.runner).__module__.startswith("tensorflow.")
    assert type(network.runner).__module__.startswith("ai_edge_litert.")
    tile = drawn(1, 60, 60, 1)
    np.testing.assert_allclose(other(tile), network(tile), atol=1e-5)


def test_main_takes_three_paths(lite, tmp_path):
    np.save(tmp_path / "image.npy", drawn(9, 9, 1))
    main([str(lite), str(tmp_path / "image.npy"), str(tmp_path / "out.npy")])
    assert np.load(tmp_path / "out.npy").shape == (9, 9, 2)


class Runner:
    """Gives back what it takes, by the scale of 1/2 and zero at 3."""

    def get_input_details(self):
        return {"tile": {"dtype": np.int8, "quantization": (0.5, 3)}}

    def get_output_details(self):
        return {"logits": {"dtype": np.int8, "quantization": (0.25, -1)}}

    def __call__(self, tile):
        self.taken = tile
        return {"logits": tile}


def test_int8_is_scaled_on_the_way_in_and_out():
    runner = Runner()
    logits = LiteNetwork(None, {}, runner)(np.array([-1.0, 0.0, 0.2, 0.3, 1.0, 1e9, -1e9]))
    assert runner.taken.dtype == np.int8
    assert runner.taken.tolist() == [1, 3, 3, 4, 5, 127, -128]
    assert logits.dtype == np.float32
    assert logits.tolist() == [0.5, 1.0, 1.0, 1.25, 1.5, 32.0, -31.75]


def renamed(content):
    """A file of the converter alone, without what this package puts into it."""
    return content.replace(b"keras_unet.json", b"another_one.txt")


def of_another_format(content):
    return content.replace(b'{"format": 2,', b'{"format": 3,')


SPOILED = {
    "empty": (lambda _: b"", "that LiteRT cannot load"),
    "text": (lambda _: b"?" * 4000, "that LiteRT cannot load"),
    "truncated": (lambda content: content[: len(content) // 2], "that LiteRT cannot load"),
    "bare": (renamed, "Received one without (KeyError: 'keras_unet.json'); export the run again"),
    "format": (of_another_format, "Received one without (ValueError: format 3); export"),
    "no JSON": (lambda content: content.replace(b'{"format"', b'{?format"'), "(JSONDecodeError:"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_files_of_others_are_refused_in_a_line(lite, tmp_path, capfd, spoil, message):
    path = tmp_path / "spoiled.tflite"
    path.write_bytes(spoil(lite.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_tflite(path)
    assert str(error.value).startswith(f"{path}: expected a .tflite file that keras-unet export")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.tflite: no such file\. Expected a \.tflite"):
        load_tflite(tmp_path / "no.tflite")


def test_the_schema_reads_the_file(lite):
    assert schema().Model.GetRootAsModel(lite.read_bytes()).Version() == 3
