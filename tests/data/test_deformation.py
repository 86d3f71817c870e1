"""The deformation in the graph against SciPy and elasticdeform, on the same grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from elasticdeform import deform_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.backend import tf
from keras_unet.data.augmentation import displacement_field, spline_matrix, warp

TIE = 1e-3  # pixels from the middle between two pixels within which float32 may take either


def grids(nodes: tuple[int, int], seed: int, amplitude: float = 10.0) -> NDArray[np.float64]:
    return amplitude * np.random.default_rng(seed).standard_normal((2, *nodes))


def scipy_field(grid: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    axes = [
        np.linspace(0, nodes - 1, pixels)
        for nodes, pixels in zip(grid.shape[1:], size, strict=True)
    ]
    positions = np.meshgrid(*axes, indexing="ij")
    return np.stack([ndimage.map_coordinates(one, positions, mode="mirror") for one in grid])


def warp_image(image: NDArray[Any], coordinates: NDArray[Any], **options: Any) -> NDArray[Any]:
    height, width = image.shape[:2]
    pixels = tf.cast(image.reshape(height * width, -1), tf.float32)
    rows, columns = tf.cast(coordinates[0], tf.float32), tf.cast(coordinates[1], tf.float32)
    found = warp(pixels, (0, height, width), rows, columns, **options)
    return np.asarray(found).reshape(*found.shape[:-1], *image.shape[2:])


def warp_labels(labels: NDArray[Any], coordinates: NDArray[Any]) -> NDArray[Any]:
    return warp_image(labels, coordinates, nearest=[True])


def identity(height: int, width: int) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(float)


def close_to_tie(coordinates: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(coordinates % 1 - 0.5) < TIE).any(axis=0))


@pytest.mark.parametrize("nodes", [(2, 2), (3, 3), (3, 5), (7, 2)])
@pytest.mark.parametrize("size", [(40, 60), (1, 9), (5, 5)])
def test_field_is_scipys_cubic_spline(nodes: tuple[int, int], size: tuple[int, int]) -> None:
    grid = grids(nodes, seed=3)
    field = displacement_field(grid, size)
    assert field.shape == (2, *size)
    assert field.dtype == tf.float32
    np.testing.assert_allclose(field, scipy_field(grid, size), atol=1e-4)


def test_nodes_lie_on_the_first_the_middle_and_the_last_pixel() -> None:
    grid = grids((3, 3), seed=0)
    field = np.asarray(displacement_field(grid, (41, 61)))
    np.testing.assert_allclose(field[:, ::20, ::30], grid, atol=1e-4)


def test_spline_keeps_a_constant_displacement() -> None:
    np.testing.assert_allclose(spline_matrix(50, 3).sum(axis=1), 1, atol=1e-6)


def test_field_is_elasticdeforms() -> None:
    size = (90, 130)
    grid = grids((3, 3), seed=1, amplitude=6.0)
    ramps = identity(*size)
    found = [deform_grid(ramp, grid, order=1, mode="nearest") - ramp for ramp in ramps]
    inside = ((found + ramps > 0) & (found + ramps < np.reshape(size, (2, 1, 1)) - 1)).all(axis=0)
    assert inside.mean() > 0.8
    field = np.asarray(displacement_field(grid, size))
    np.testing.assert_allclose(field[:, inside], np.array(found)[:, inside], atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([None, 1, 3]),
    reach=st.sampled_from([1.0, 20.0, 2000.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_warp_is_scipys_however_far_outside(
    height: int, width: int, channels: int | None, reach: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    shape = (height, width) if channels is None else (height, width, channels)
    image = random.standard_normal(shape).astype(np.float32)
    coordinates = random.uniform(-reach, reach, (2, 6, 7)).astype(np.float32)
    planes = image.reshape(height, width, -1).transpose(2, 0, 1)
    expected = np.stack(
        [ndimage.map_coordinates(one, coordinates, order=1, mode="mirror") for one in planes], -1
    )
    found = warp_image(image, coordinates)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=2e-5)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    reach=st.sampled_from([1.0, 20.0, 2000.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_labels_are_scipys_but_at_ties(height: int, width: int, reach: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 200, (height, width)).astype(np.uint8)
    coordinates = random.uniform(-reach, reach, (2, 6, 7)).astype(np.float32)
    expected = ndimage.map_coordinates(labels, coordinates, order=0, mode="mirror")
    found = warp_labels(labels, coordinates)
    np.testing.assert_array_equal(np.where(close_to_tie(coordinates), expected, found), expected)


def test_whole_pixels_are_read_exactly() -> None:
    image = np.random.default_rng(0).standard_normal((5, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(warp_image(image, identity(5, 8)), image)


def test_an_image_is_read_from_its_place_in_a_longer_list() -> None:
    random = np.random.default_rng(5)
    before, image, after = (random.standard_normal((n, 2)).astype("f4") for n in (11, 4 * 6, 7))
    coordinates = random.uniform(-9, 9, (2, 8, 8)).astype(np.float32)
    found = warp(tf.concat([before, image, after], 0), (11, 4, 6), *coordinates)
    np.testing.assert_array_equal(found, warp_image(image.reshape(4, 6, 2), coordinates))


def test_one_compiled_function_deforms_images_of_any_size() -> None:
    random = np.random.default_rng(7)
    pixels = random.standard_normal((500, 1)).astype(np.float32)
    grid = grids((3, 3), seed=7, amplitude=4.0).astype(np.float32)
    traces = []

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def deform(pixels: Any, size: Any, grid: Any) -> Any:
        traces.append(size)
        rows, columns = tf.unstack(displacement_field(grid, (16, 16)))
        return warp(pixels, tf.unstack(size), rows, columns)

    field = scipy_field(grid.astype(float), (16, 16))
    for first, height, width in [(0, 10, 20), (37, 9, 9), (499, 1, 1), (100, 1, 50)]:
        image = pixels[first : first + height * width].reshape(height, width)
        expected = ndimage.map_coordinates(image, field, order=1, mode="mirror")
        found = deform(pixels, tf.constant([first, height, width]), grid)
        np.testing.assert_allclose(found[..., 0], expected, atol=1e-4)
    assert len(traces) == 1


def test_all_channels_share_the_four_reads_of_a_pixel() -> None:
    def read(pixels: Any, rows: Any, columns: Any) -> Any:
        return warp(pixels, (0, 9, 7), rows, columns, nearest=(False, True, False))

    places = tf.TensorSpec((5, 5), tf.float32)
    traced = tf.function(read).get_concrete_function(
        tf.TensorSpec((63, 3), tf.float32), places, places
    )
    kinds = [operation.type for operation in traced.graph.get_operations()]
    assert kinds.count("GatherV2") == 4


def test_each_channel_is_read_as_it_would_be_alone() -> None:
    random = np.random.default_rng(13)
    labels = random.integers(0, 200, (30, 20)).astype(np.float32)
    weights = random.random((30, 20)).astype(np.float32)
    coordinates = random.uniform(-9, 39, (2, 25, 25)).astype(np.float32)
    found = warp_image(np.stack([labels, weights], -1), coordinates, nearest=(True, False))
    np.testing.assert_array_equal(found[..., 0], warp_labels(labels, coordinates))
    np.testing.assert_array_equal(found[..., 1], warp_image(weights, coordinates))


def test_agrees_with_elasticdeform_on_the_papers_tile() -> None:
    """Grey values in [0, 1] to 1e-4; labels everywhere but at ties, fewer than 1 in 1,000."""
    random = np.random.default_rng(11)
    image = random.random((572, 572)).astype(np.float32)
    labels = random.integers(0, 2, (572, 572)).astype(np.uint8)
    grid = grids((3, 3), seed=11)
    coordinates = identity(572, 572) + np.asarray(displacement_field(grid, (572, 572)))
    assert coordinates.min() < -5  # beyond the border too
    expected, expected_labels = deform_grid([image, labels], grid, order=[1, 0], mode="mirror")
    np.testing.assert_allclose(warp_image(image, coordinates), expected, atol=1e-4)
    differ = warp_labels(labels, coordinates) != expected_labels
    assert differ.mean() < 1e-3
    assert not (differ & ~close_to_tie(coordinates)).any()
