from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from keras_unet.data.normalization import ROWS, Moments, Normalization

IMAGES = hnp.arrays(
    np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda s: (*s, 2))
)


@settings(deadline=None, max_examples=40)
@given(st.lists(IMAGES, min_size=1, max_size=4))
def test_dataset_normalization_equals_that_of_all_pixels_at_once(
    images: list[NDArray[np.uint16]],
) -> None:
    pixels = np.concatenate([image.reshape(-1, 2) for image in images]).astype(np.float64)
    measured = Normalization.of(images, "dataset")
    np.testing.assert_allclose(measured.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(measured.std, pixels.std(axis=0), rtol=1e-12, atol=1e-9)
    done = np.concatenate([measured.apply(image).reshape(-1, 2) for image in images])
    varies = np.ptp(pixels, axis=0) > 0
    np.testing.assert_allclose(done.mean(axis=0, dtype=float), 0, atol=1e-5)
    np.testing.assert_allclose(done.std(axis=0, dtype=float), varies, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(IMAGES)
def test_image_normalization_measures_the_image_itself(image: NDArray[np.uint16]) -> None:
    done = Normalization("image").apply(image)
    np.testing.assert_array_equal(done, Normalization.of([image], "dataset").apply(image))
    assert done.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, 12345.678])
@pytest.mark.parametrize("mode", ["image", "dataset"])
def test_constant_image_becomes_zero(value: float, mode: Any) -> None:
    image = np.full((7, 9, 1), value, np.float32)
    assert not Normalization.of([image], mode).apply(image).any()


def test_it_is_exact_on_a_large_offset() -> None:
    image = np.full((1500, 1500, 1), 65534, np.uint16)
    image[::2] += 1
    assert set(Normalization("image").apply(image).ravel().tolist()) == {-1.0, 1.0}


def test_it_travels_as_json() -> None:
    for each in (Normalization("image"), Normalization("dataset", (1.0, 2.0), (3.0, 4.0))):
        assert Normalization.from_dict(each.to_dict()) == each
    assert Normalization.of([np.zeros((3, 3, 1))], "image") == Normalization("image")


def test_contradictions_are_refused() -> None:
    wrong: Any = "pixel"
    with pytest.raises(
        ValueError, match=r"mode must be 'image' or 'dataset'\. Received: mode='pixel'"
    ):
        Normalization(wrong)
    with pytest.raises(ValueError, match=r"mean and std must hold one number .* mean=\(\)"):
        Normalization("dataset")
    with pytest.raises(ValueError, match=r"Received: mode='image', mean=\(1.0,\), std=\(1.0,\)"):
        Normalization("image", (1.0,), (1.0,))
    with pytest.raises(ValueError, match=r"Received: 2 with \[1, 3\] channels"):
        Normalization.of([np.zeros((3, 3, 1)), np.zeros((3, 3, 3))], "dataset")
    with pytest.raises(ValueError, match=r"Received: 0 with \[\] channels"):
        Normalization.of([], "dataset")
    with pytest.raises(ValueError, match=r"image must have 1 channel, .* shape \(3, 3, 3\)"):
        Normalization("dataset", (1.0,), (1.0,)).apply(np.zeros((3, 3, 3)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("at_a_time", [ROWS, 2 * ROWS, 7 * ROWS])
def test_an_image_in_parts_is_measured_as_the_whole_to_the_last_bit(
    dtype: type[np.generic], at_a_time: int
) -> None:
    image = (np.random.default_rng(0).random((5 * ROWS + 7, 33, 2)) * 200).astype(dtype)
    parts = [image[top : top + at_a_time].copy() for top in range(0, len(image), at_a_time)]
    measured = Moments.of(parts).mean_and_deviation
    assert measured == Moments.of([np.asfortranarray(image)]).mean_and_deviation
    np.testing.assert_allclose(measured[0], image.mean(axis=(0, 1), dtype=np.float64), rtol=1e-13)
    np.testing.assert_allclose(measured[1], image.std(axis=(0, 1), dtype=np.float64), rtol=1e-13)
    fixed = Normalization("image").with_moments(Moments.of(parts))
    whole = Normalization("image").apply(image)
    np.testing.assert_array_equal(fixed.apply(image[3:9, 5:7]), whole[3:9, 5:7])


def test_a_constant_channel_in_parts_has_no_deviation() -> None:
    image = np.full((3 * ROWS, 2, 1), 0.1, np.float32)
    assert Moments.of([image]).mean_and_deviation == ((float(np.float32(0.1)),), (0.0,))


def test_recorded_numbers_hold_for_every_image() -> None:
    recorded = Normalization("dataset", mean=(20.0,), std=(5.0,))
    assert recorded.with_moments(Moments.of([np.ones((2, 2, 1))])) == recorded
