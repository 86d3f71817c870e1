"""Objects that touch are separated by affinities, in whole images and by windows alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.architecture import OFFSETS
from keras_unet.data.synthetic import draw_cells
from keras_unet.instances import affinities
from keras_unet.instances.affinities import SeparatedProbabilities, separate_objects


def exact_outputs(objects: NDArray[np.integer], noise: float = 0.0) -> NDArray[np.float32]:
    """Returns what a network that knows all objects predicts, with noise of uniform amplitude."""
    cell = np.where(objects > 0, 0.9, 0.1)
    outputs = [1 - cell, cell]
    for down, right in OFFSETS:
        same = np.zeros(objects.shape)
        for row, column in np.argwhere(objects):
            other = row + down, column + right
            inside = 0 <= other[0] < objects.shape[0] and 0 <= other[1] < objects.shape[1]
            same[row, column] = inside and objects[row, column] == objects[other]
        outputs.append(0.1 + 0.8 * same)
    array = np.stack(outputs, axis=-1)
    array += np.random.default_rng(0).uniform(-noise, noise, array.shape)
    return array.clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def cells() -> NDArray[np.integer]:
    """Returns cells of which many touch."""
    _, objects = draw_cells(3, size=(150, 130), cells=40)
    return objects


def components(probabilities: NDArray[np.floating]) -> NDArray[np.int32]:
    labels, _ = ndimage.label(probabilities[..., 1] > 0.5)
    return np.asarray(labels, np.int32)


@pytest.mark.parametrize("noise", [0.0, 0.35])
def test_each_object_becomes_a_component(cells: NDArray[np.integer], noise: float) -> None:
    outputs = exact_outputs(cells, noise)
    merged = components(outputs)
    assert merged.max() < 0.8 * cells.max()  # without affinities
    found = components(separate_objects(outputs))
    for number in range(1, cells.max() + 1):
        inside, counts = np.unique(found[(cells == number) & (found > 0)], return_counts=True)
        others = np.unique(cells[found == inside[counts.argmax()]])
        assert others.tolist() == [number]
        assert counts.max() > 0.75 * np.count_nonzero(cells == number)


def test_lines_are_background_and_all_else_is_kept(cells: NDArray[np.integer]) -> None:
    outputs = exact_outputs(cells)
    separated = separate_objects(outputs)
    changed = (separated != outputs[..., :2]).any(axis=-1)
    assert 0 < changed.mean() < 0.05
    np.testing.assert_array_equal(separated[changed], [[1, 0]] * np.count_nonzero(changed))


def test_objects_apart_are_unchanged() -> None:
    objects = np.zeros((40, 60), int)
    objects[3:20, 3:20], objects[3:20, 25:50] = 1, 2
    outputs = exact_outputs(objects)
    np.testing.assert_array_equal(separate_objects(outputs), outputs[..., :2])


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (30, 2)])
@pytest.mark.parametrize("value", [0, 1])
def test_images_smaller_than_the_offsets(size: tuple[int, int], value: int) -> None:
    outputs = exact_outputs(np.full(size, value))
    np.testing.assert_array_equal(separate_objects(outputs), outputs[..., :2])


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_windows_are_those_of_the_whole(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    size = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    smooth = ndimage.gaussian_filter(random.random((*size, 14)), (2, 2, 0))
    outputs = ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    outputs[..., 0] = 1 - outputs[..., 1]
    whole: Any
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affinities, "BLOCK", 32)
        patch.setattr(affinities, "MARGIN", 8)
        whole, windows = separate_objects(outputs), SeparatedProbabilities(outputs)
        for _ in range(3):
            rows, columns = (
                slice(*sorted(data.draw(st.tuples(*[st.integers(0, side)] * 2)))) for side in size
            )
            np.testing.assert_array_equal(windows[rows, columns], whole[rows, columns])
    assert windows.shape == whole.shape == (*size, 2)
