"""Whichever tiles of a sweep are predicted where, and by how many, they are those of the whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.architecture import Architecture
from keras_unet.prediction.predict import SYMMETRIES, predict_image
from keras_unet.prediction.sweeps import Sweep

NETWORK = Architecture(depth=1)
SIZES = st.tuples(st.integers(1, 190), st.integers(1, 190))


def network(tile):
    """Returns what looks sideways, so that it matters how an image is turned."""
    lost = NETWORK.margin
    beside = tile[:, lost - 1 : -lost - 1, lost + 2 : tile.shape[2] - lost + 2]
    height = tile[:, lost:-lost, lost:-lost] + 0.3 * beside
    return np.concatenate([-height, height], axis=-1)


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(0, 7), st.integers(1, 5))
def test_parts_hold_every_tile_once_in_order_and_of_the_same_rows(size, version, most):
    sweep = Sweep(size, NETWORK, (60, 68), version)
    parts = list(sweep.parts(most))
    assert [number for part in parts for number in part] == list(range(len(sweep.tiles)))
    for part in parts:
        assert 1 <= len(part) <= most
        assert len({sweep.place(sweep.tiles[number])[0].start for number in part}) == 1
    covered = np.zeros(size, int)
    for tile in sweep.tiles:
        covered[sweep.place(tile)] += 1
    assert (covered == 1).all()


class Held:
    """An image of which nothing can be read but one window."""

    def __init__(self, image, window):
        self.shape = image.shape
        self.pixels = np.full(image.shape, np.nan, np.float32)
        self.pixels[window] = image[window]

    def __getitem__(self, window):
        return self.pixels[window]


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(0, 7), st.integers(1, 5))
def test_a_part_needs_no_more_than_it_says_and_gives_its_share_of_the_whole(size, version, most):
    image = np.random.default_rng(0).normal(size=(*size, 1)).astype(np.float32)
    mirrored, turns = SYMMETRIES[version]
    turned = np.rot90(image[::-1] if mirrored else image, turns)
    whole = np.rot90(predict_image(network, turned, tile_size=60, architecture=NETWORK), -turns)
    whole = whole[::-1] if mirrored else whole
    sweep = Sweep(size, NETWORK, (60, 60), version)
    for part in sweep.parts(most):
        tiles = [sweep.tiles[number] for number in part]
        held = Held(image, sweep.reads(tiles))
        for place, predicted in sweep.predict(network, held, tiles):
            np.testing.assert_array_equal(predicted, whole[place])
