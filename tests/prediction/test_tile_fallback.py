from dataclasses import replace

import numpy as np
import pytest
from logs import logged
from scipy import ndimage

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, tf
from keras_unet.model import unet_of
from keras_unet.prediction.predict import TileFallback, predict_image

NETWORK = Architecture(depth=1, base_filters=2, dropout=0.0)  # margin 8, context of "same" 12


@pytest.fixture(scope="module", params=["valid", "same"])
def network(request):
    return replace(NETWORK, padding=request.param)


@pytest.fixture(scope="module")
def model(network):
    keras.utils.set_random_seed(0)
    drawn = unet_of(network)
    return lambda tile: drawn(tile, training=False).numpy()  # `predict` would compile every size


@pytest.fixture
def image():
    noise = np.random.default_rng(0).normal(size=(150, 131)).astype(np.float32)
    return ndimage.gaussian_filter(noise, 1)


class Device:
    """A device that holds tiles up to a size. TensorFlow, where it finds out, waits for 10 s."""

    def __init__(self, model, largest):
        self.model, self.largest = model, largest
        self.sizes = []

    def __call__(self, tile):
        self.sizes.append(tile.shape[1:3])
        if max(self.sizes[-1]) > self.largest:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return self.model(tile)


@pytest.mark.parametrize("symmetries", [False, True])
def test_a_tile_that_memory_does_not_hold_is_halved_until_it_does(
    model, network, image, symmetries
):
    device, fallback = Device(model, largest=60), TileFallback()
    given = {"architecture": network, "tta": symmetries}
    with logged() as messages:
        found = predict_image(fallback.wrap(device, network), image, **given)
    small = predict_image(model, image, tile_size=fallback.largest, **given)
    np.testing.assert_allclose(found, small, atol=1e-5)
    np.testing.assert_allclose(found, predict_image(model, image, **given), atol=1e-5)
    halved = fallback.largest
    assert halved <= 60
    assert network.fits(halved)
    assert len(messages) == 2  # from 166 or so by 84 to 42
    assert messages[1].startswith("memory does not hold a tile of ")
    assert messages[1].endswith(f"continuing with {halved} x {halved}")


def test_the_smaller_tile_is_kept_for_other_images_and_networks(model, network, image):
    fallback, other = TileFallback(), Device(model, 10**6)
    predict_image(fallback.wrap(Device(model, 60), network), image, architecture=network)
    with logged() as messages:
        predict_image(fallback.wrap(other, network), image, architecture=network)
    assert not messages
    assert max(map(max, other.sizes)) == fallback.largest


def test_a_tile_that_fits_is_given_as_it_is(model, network, image):
    device, fallback = Device(model, 10**6), TileFallback()
    wrapped = fallback.wrap(device, network)
    found = predict_image(wrapped, image, architecture=network)
    np.testing.assert_array_equal(found, predict_image(model, image, architecture=network))
    assert len(device.sizes) == 1
    assert fallback.largest is None


def test_a_tile_need_not_be_square(model, network, image):
    device = Device(model, largest=99)
    narrow = image[:, :40]
    wrapped = TileFallback().wrap(device, network)
    found = predict_image(wrapped, narrow, architecture=network)
    np.testing.assert_allclose(found, predict_image(model, narrow, architecture=network), atol=1e-5)


def test_a_given_tile_is_halved_too(model, network, image):
    device = Device(model, largest=99)
    wrapped = TileFallback().wrap(device, network)
    given = {"tile_size": network.fitting_size(120), "architecture": network}
    found = predict_image(wrapped, image, **given)
    np.testing.assert_allclose(found, predict_image(model, image, **given), atol=1e-5)
    assert max(map(max, device.sizes)) == given["tile_size"]


def test_memory_that_does_not_hold_the_smallest_tile_ends_it_in_one_line(image):
    device = Device(None, largest=0)
    wrapped = TileFallback().wrap(device, NETWORK)
    with (
        logged() as messages,
        pytest.raises(OSError, match=r"hold a tile of 18 x 18.*--base-filters$") as caught,
    ):
        predict_image(wrapped, image, architecture=NETWORK)
    assert "\n" not in str(caught.value)
    assert len(messages) == 4  # by 84, 42, 22 and 18
    assert device.sizes[-1] == (18, 18)


def test_python_says_so_in_its_own_way(image):
    def python(tile):
        if tile.shape[1] > 60:
            raise MemoryError
        return np.zeros((1, tile.shape[1] - 16, tile.shape[2] - 16, 2))

    wrapped = TileFallback().wrap(python, NETWORK)
    found = predict_image(wrapped, image, architecture=NETWORK)
    np.testing.assert_array_equal(found, 0.5)


def test_other_errors_are_let_through(image):
    def broken(_):
        raise ArithmeticError("another")

    with pytest.raises(ArithmeticError, match="another"):
        predict_image(TileFallback().wrap(broken, NETWORK), image, architecture=NETWORK)


def test_a_network_of_one_size_is_left_as_it_is():
    model = unet_of(NETWORK, (60, 60))
    assert TileFallback().wrap(model, NETWORK) is model
