"""Mirroring against np.pad and a walk to and fro; tilings against counting every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keras_unet.architecture import Architecture
from keras_unet.tiling import LARGEST_TILE, Tile, Tiling, mirror, mirrored_window

FIGURE_1 = Architecture()
architectures = st.builds(
    Architecture, depth=st.integers(1, 4), padding=st.sampled_from(["valid", "same"])
)
sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))


def bounce(position, size):
    """Turns around at the first and the last pixel until the position lies inside."""
    while not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


@st.composite
def tilings(draw):
    architecture = draw(architectures)
    image = draw(sizes)
    tile = tuple(
        architecture.fitting_size(2 * architecture.context + draw(st.integers(1, 800)))
        for _ in image
    )
    steps = (
        min(height, architecture.step) <= one - 2 * architecture.context
        for one, height in zip(tile, image, strict=True)
    )
    assume(all(steps))
    return Tiling(image, tile, architecture)


@pytest.mark.parametrize("size", [2, 3, 7, 20])
@pytest.mark.parametrize("beyond", [1, 6, 19, 50])
def test_mirror_is_numpys_reflection(size, beyond):
    row = np.arange(size)
    positions = np.arange(-beyond, size + beyond)
    np.testing.assert_array_equal(row[mirror(positions, size)], np.pad(row, beyond, mode="reflect"))


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 50), positions=st.lists(st.integers(-500, 500), min_size=1, max_size=9))
def test_mirror_turns_around_at_the_ends(size, positions):
    expected = [bounce(one, size) if size > 1 else 0 for one in positions]
    assert mirror(np.array(positions), size).tolist() == expected
    assert [mirror(one, size) for one in positions] == expected


@settings(deadline=None, max_examples=60)
@given(size=st.integers(2, 50), position=st.floats(-500, 500, allow_nan=False))
def test_mirror_takes_fractions(size, position):
    assert mirror(position, size) == pytest.approx(bounce_fraction(position, size), abs=1e-9)


def bounce_fraction(position, size):
    while not 0 <= position <= size - 1:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


@settings(deadline=None, max_examples=30)
@given(position=st.floats(-9, 9, allow_nan=False))
def test_mirror_of_a_single_pixel_stays_within_a_pixel_of_it(position):
    assert -1 < mirror(position, 1) <= 0 or abs(position) < 1e-9


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_mirror_of_tensors_is_that_of_arrays(dtype):
    import tensorflow as tf

    positions = np.linspace(-40, 40, 81).astype(dtype)
    for size in (1, 2, 5, 13):
        reflected = mirror(tf.constant(positions), tf.constant(size, dtype))
        assert reflected.dtype == dtype
        np.testing.assert_array_equal(reflected, mirror(positions, size))


def test_mirrored_window_reaches_beyond_the_border_on_all_sides():
    image = np.arange(5 * 7 * 2).reshape(5, 7, 2)
    padded = np.pad(image, ((12, 12), (12, 12), (0, 0)), mode="reflect")
    window = mirrored_window(image, slice(-12, 9), slice(-3, 19))
    np.testing.assert_array_equal(window, padded[0:21, 9:31])


def test_mirrored_window_of_one_pixel_repeats_it():
    window = mirrored_window(np.array([[7]]), slice(-3, 4), slice(-1, 2))
    np.testing.assert_array_equal(window, np.full((7, 3), 7))


@settings(deadline=None, max_examples=60)
@given(tiling=tilings())
def test_each_pixel_is_written_exactly_once(tiling):
    written = np.zeros(tiling.image_size, int)
    for tile in tiling:
        written[tile.write] += 1
    assert (written == 1).all()


@settings(deadline=None, max_examples=60)
@given(tiling=tilings())
def test_each_tile_reads_its_size_and_keeps_what_it_writes(tiling):
    network = tiling.architecture
    for tile in tiling:
        axes = zip(tile.read, tile.keep, tile.write, tiling.tile_size, strict=True)
        for read, keep, write, size in axes:
            assert read.stop - read.start == size
            assert keep.stop - keep.start == write.stop - write.start > 0
            # An output pixel lies `margin` further inside than the input pixel of its number.
            assert read.start + network.margin + keep.start == write.start
            # What is kept depends on nothing beyond the tile.
            assert keep.start + network.margin >= network.context
            assert keep.stop + network.margin <= size - network.context


@settings(deadline=None, max_examples=60)
@given(tiling=tilings())
def test_tiles_lie_on_one_lattice(tiling):
    step = tiling.architecture.step
    origins = {tuple(read.start % step for read in tile.read) for tile in tiling}
    assert origins == {(-tiling.architecture.context % step,) * 2}


@settings(deadline=None, max_examples=60)
@given(tiling=tilings())
def test_length_is_the_number_of_tiles(tiling):
    assert len(tiling) == len(list(tiling)) >= 1


def test_the_paper_output_of_388_pixels_is_laid_384_apart():
    tiling = Tiling((512, 388), (572, 572), FIGURE_1)
    assert list(tiling) == [
        Tile(
            (slice(-92, 480), slice(-92, 480)),
            (slice(0, 384), slice(0, 388)),
            (slice(0, 384), slice(0, 388)),
        ),
        Tile(
            (slice(292, 864), slice(-92, 480)),
            (slice(0, 128), slice(0, 388)),
            (slice(384, 512), slice(0, 388)),
        ),
    ]


@settings(deadline=None, max_examples=200)
@given(
    image=st.integers(1, 9000) | st.integers(880, 910),
    architecture=st.builds(
        Architecture, depth=st.integers(1, 7), padding=st.sampled_from(["valid", "same"])
    ),
)
def test_the_default_tiles_are_the_fewest_and_then_the_smallest(image, architecture):
    step, around = architecture.step, 2 * architecture.context

    def count(useful):
        """Tiles along the image; endless where a tile does not reach over the lattice."""
        if useful >= image:
            return 1
        return np.ceil(image / (useful // step * step)) if useful >= step else np.inf

    tiling = Tiling.covering((image, 1), architecture)
    tile, largest = tiling.tile_size[0], max(LARGEST_TILE - around, 16 * step)
    assert tile <= architecture.fitting_size(largest + around)
    assert len(tiling) == count(tile - around) == count(largest)
    assert not architecture.fits(tile - step) or count(tile - step - around) > len(tiling)


@pytest.mark.parametrize(
    ("image", "tile", "tiles"), [(1, 188, 1), (388, 572, 1), (1024, 1212, 1), (1029, 716, 4)]
)
def test_default_tiles_of_figure_1(image, tile, tiles):
    tiling = Tiling.covering((image, image), FIGURE_1)
    assert (tiling.tile_size, len(tiling)) == ((tile, tile), tiles)


def test_one_tile_size_a_side_can_be_given():
    assert Tiling.covering((300, 300), FIGURE_1, (None, 220)).tile_size == (492, 220)


@pytest.mark.parametrize(
    ("image", "tile", "message"),
    [
        (
            (512, 512),
            (572, 570),
            (
                'tile_size must be 16k + 12 and at least 188 for depth=4 and padding="valid". '
                "Received: 570; the nearest that fit are 556 and 572"
            ),
        ),
        (
            (5, 5),
            (188, 188),
            (
                "tile_size must be at least 204 for depth=4, to reach from one point of the "
                "pooling lattice to the next. Received: 188; use 204, with a network of "
                "input_shape=(None, None, channels)"
            ),
        ),
        ((0, 5), (188, 188), "image must be at least 1 x 1 pixels. Received: size=(0, 5)"),
    ],
)
def test_tiles_that_do_not_do(image, tile, message):
    with pytest.raises(ValueError, match="must be") as refusal:
        Tiling(image, tile, FIGURE_1)
    assert str(refusal.value) == message


def test_an_empty_image_has_no_default_tile():
    with pytest.raises(ValueError, match="image must be at least 1 x 1 pixels"):
        Tiling.covering((3, 0), FIGURE_1)


def test_the_smallest_tile_does_for_an_image_it_covers():
    assert len(Tiling((4, 4), (188, 188), FIGURE_1)) == 1


def test_the_context_of_same_padding_is_asked_for():
    with pytest.raises(ValueError, match=r"tile_size must be at least 52 for depth=2.*: 48; use"):
        Tiling((30, 30), (52, 48), Architecture(depth=2, padding="same"))
