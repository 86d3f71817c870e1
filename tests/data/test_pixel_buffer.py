"""Images behind one another in one list, and what is refused before they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.data import tiles
from keras_unet.data.tiles import PixelBuffer, TrainingImage, check_images

NETWORK = Architecture(channels=3, classes=200, depth=1)


def an_image(height: int, width: int, seed: int = 0) -> TrainingImage:
    random = np.random.default_rng(seed)
    return TrainingImage(
        random.random((height, width, 3), np.float32),
        random.integers(0, 200, (height, width)).astype(np.uint8),
        random.random((height, width), np.float32),
    )


def test_each_image_is_found_where_the_atlas_says() -> None:
    images = [an_image(3, 5, 1), an_image(4, 2, 2), an_image(1, 1, 3)]
    whole = PixelBuffer.of(images)
    for one, (first, height, width) in zip(images, np.array(whole.sizes), strict=True):
        pixels = slice(first, first + height * width)
        flats = whole.image, whole.targets[:, 0], whole.targets[:, 1]
        for part, flat in zip(one[:3], flats, strict=True):
            found = np.array(flat)[pixels].reshape(part.shape)
            np.testing.assert_array_equal(found, part)
    assert len(whole.image) == len(whole.targets) == 15 + 8 + 1


def test_affinities_need_objects() -> None:
    network = Architecture(channels=3, classes=200, depth=1, affinities=True)
    image = an_image(3, 5)
    with pytest.raises(ValueError, match=r"objects of shape \(3, 5\).*Received: \(0, 0\)"):
        check_images([image], network)
    objects = np.arange(15, dtype=np.int32).reshape(3, 5)
    images = [image._replace(objects=objects)]
    check_images(images, network)
    buffer = PixelBuffer.of(images, affinities=True)
    np.testing.assert_array_equal(buffer.targets[:, 2], range(15))


@pytest.mark.parametrize(
    "part",
    [
        {"image": np.zeros((9, 8), np.float32)},
        {"image": np.zeros((9, 9, 3), np.float32)},
        {"classes": np.zeros((8, 9), np.uint8)},
        {"weights": np.zeros((9, 8, 1), np.float32)},
    ],
)
def test_shapes_that_disagree(part: dict[str, Any]) -> None:
    good = an_image(9, 8)
    with pytest.raises(ValueError, match=r"images\[1\] must be an image of shape .*Received"):
        check_images([good, good._replace(**part)], NETWORK)


def test_an_image_without_pixels() -> None:
    with pytest.raises(ValueError, match=r"images\[0\] must hold at least one pixel"):
        check_images([an_image(0, 8)], NETWORK)


def test_negative_classes() -> None:
    classes: NDArray[Any] = np.full((9, 8), -1, np.int8)
    one = an_image(9, 8)._replace(classes=classes)
    with pytest.raises(ValueError, match=r"from 0 to 199.*Received: -1 to -1"):
        check_images([one], NETWORK)


def test_more_pixels_than_int32_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_MOST_PIXELS", 100)
    with pytest.raises(ValueError, match=r"at most 100 pixels together\. Received: 101"):
        check_images([an_image(5, 20), an_image(1, 1)], NETWORK)
