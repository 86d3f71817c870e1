"""A run's network: its weights, its precision, and no compilation anew for each size of tile."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_unet.backend import keras, tf
from keras_unet.prediction.networks import load_network, new_network
from keras_unet.runs import BEST, Run


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    return Run.load(trained)


def test_a_new_network_is_drawn_from_its_seed(run: Run) -> None:
    first, same, other = (new_network(run, seed).get_weights()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_a_loaded_network_has_the_best_weights(run: Run) -> None:
    saved = keras.saving.load_model(run.folder / BEST)
    for one, other in zip(load_network(run).get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def compressed(run: Run, folder: Path, more: int = 0) -> Run:
    """Copies a run with compressed weights, after so many bytes of zeros."""
    copy = replace(run, folder=Path(shutil.copytree(run.folder, folder)))
    with zipfile.ZipFile(run.folder / BEST) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(copy.folder / BEST, "w", zipfile.ZIP_DEFLATED) as target:
        for name, part in parts.items():
            target.writestr(name, bytes(more if name.endswith(".h5") else 0) + part)
    return copy


def test_compressed_weights_are_the_same(run: Run, tmp_path: Path) -> None:
    loaded = load_network(compressed(run, tmp_path / "copy")).get_weights()
    for one, other in zip(loaded, load_network(run).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_larger_than_the_network_are_not_decompressed(run: Run, tmp_path: Path) -> None:
    bomb = compressed(run, tmp_path / "copy", more=2**25)
    with pytest.raises(ValueError, match=r"best\.keras: .*33,.* bytes of weights, .* at most 16,"):
        load_network(bomb)


def test_precision_is_that_of_the_training_unless_another_is_asked_for(run: Run) -> None:
    names = [load_network(run, name).layers[1].compute_dtype for name in (None, "bfloat16")]
    assert names == ["float32", "bfloat16"]


@pytest.mark.parametrize("make", [load_network, lambda run: new_network(run, 0)])
def test_xla_is_left_out_where_keras_would_take_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    """As on a GPU; a model of Keras alone shows that it would."""
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda _: True)
    alone = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1)])
    assert predicts_by_xla(alone)
    assert not predicts_by_xla(make(run))


def predicts_by_xla(model: Any) -> bool:
    model.make_predict_function()
    tile = tf.zeros((1, 60, 60, 1))
    graph = model.predict_function.get_concrete_function([(tile,)]).graph.as_graph_def()
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    return any(node.attr["_XlaMustCompile"].b for node in nodes)


def test_tiles_of_many_sizes_share_a_trace(run: Run) -> None:
    model = load_network(run)
    for size in (60, 64, 76, 80, 90):
        model.predict_on_batch(np.zeros((1, size, size, 1), np.float32))
    assert model.predict_function.experimental_get_tracing_count() <= 2
