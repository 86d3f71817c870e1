from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.architecture import Architecture
from keras_unet.data.fingerprint import Fingerprint, Percentiles
from keras_unet.training.autoconfig import (
    CELLS_IN_TILE,
    PASSES,
    SIGMA_RANGE,
    STEPS_RANGE,
    AutoConfiguration,
    autoconfigure,
)
from keras_unet.training.options import AUTOCONFIGURED, DEPTHS, TrainingOptions, deepest_for

NO_CELLS = {"cells": 0, "diameters": None}


def a_fingerprint(**changes):
    """Cells of 30 pixels, up to 40, in ten images of 512 x 512 pixels."""
    values = {
        "images": 10,
        "pixels": 10 * 512 * 512,
        "median_side": 512.0,
        "longest_side": 512,
        "shares": (0.7, 0.3),
        "cells": 500,
        "diameters": Percentiles(20, 30, 40),
        "touching": 0.2,
        "gap": 4.0,
        "greys": Percentiles(0, 100, 255),
        "grey_between": 5.0,
        "grey_within": 50.0,
    }
    return Fingerprint(**values | changes)


def cells(median, high):
    return a_fingerprint(diameters=Percentiles(median / 2, median, high))


@pytest.mark.parametrize(
    ("fingerprint", "depth"),
    [
        (cells(10, 44), 3),  # the margins are 44 and 92
        (cells(10, 44.1), 4),
        (cells(10, 1000), 4),
        (a_fingerprint(**NO_CELLS), 4),
    ],
)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_depth_reaches_as_far_as_large_cells(fingerprint, depth, padding):
    assert AutoConfiguration.of(fingerprint, padding=padding).depth == depth


@pytest.mark.parametrize(("tile", "depth"), [(188, 4), (180, 3), (572, 4), (580, 3)])
def test_depth_is_one_that_a_given_tile_fits(tile, depth):
    configuration = AutoConfiguration.of(cells(50, 150), tile=tile)
    assert (configuration.depth, configuration.tile) == (depth, tile)
    assert (f"the most that --tile {tile} allows" in configuration.describe()) == (depth < 4)
    assert deepest_for(tile, "valid") == depth
    assert AutoConfiguration.of(cells(10, 20), tile=tile).depth == 3


def test_a_tile_that_fits_no_depth_is_refused():
    with pytest.raises(ValueError, match=r"tile must be 16k.*Received: 570.*556 and 572"):
        AutoConfiguration.of(a_fingerprint(), tile=570)


@pytest.mark.parametrize(
    ("side", "high", "tile"),
    [
        (512, 80, 572),  # the paper's
        (388, 80, 572),
        (380, 80, 572),
        (372, 80, 556),
        (256, 80, 444),  # 256 + 2 x 92 = 440, the next that fits
        (200, 80, 396),  # 2.5 cells are 200 pixels
        (100, 80, 396),  # more than the image
        (256, 32, 348),  # depth 3: 256 + 2 x 44 = 344, the next that fits
        (5000, 1000, 572),
    ],
)
def test_tile_covers_a_median_image_or_some_cells_and_is_the_papers_at_most(side, high, tile):
    fingerprint = a_fingerprint(
        median_side=side, longest_side=5000, diameters=Percentiles(high / 4, high / 2, high)
    )
    assert AutoConfiguration.of(fingerprint).tile == tile


def test_tile_without_cells_covers_the_image():
    assert (
        AutoConfiguration.of(a_fingerprint(median_side=100.5, **NO_CELLS)).tile == 300
    )  # 101 + 184 = 285


@pytest.mark.parametrize(("tile", "amplitude"), [(572, 10.0), (188, 3.3), (348, 6.1)])
def test_amplitude_goes_with_the_tile(tile, amplitude):
    assert AutoConfiguration.of(a_fingerprint(), tile=tile).amplitude == amplitude


@pytest.mark.parametrize(("cell", "sigma"), [(4, 2), (16, 2), (26, 3.2), (40, 5), (100, 5)])
def test_sigma_goes_with_the_cells(cell, sigma):
    assert AutoConfiguration.of(cells(cell, 2 * cell)).sigma == sigma


def test_sigma_is_the_papers_without_cells():
    assert AutoConfiguration.of(a_fingerprint(**NO_CELLS)).sigma == 5


@pytest.mark.parametrize(
    ("images", "batch_size", "steps"),
    [(1, 1, 2500), (20, 1, 3483), (20, 4, 2500), (200, 1, 10000), (200, 5, 6965)],
)
def test_steps_are_a_hundred_passes_within_limits(images, batch_size, steps):
    fingerprint = a_fingerprint(pixels=images * 512 * 512, diameters=Percentiles(40, 60, 80))
    configuration = AutoConfiguration.of(fingerprint, batch_size=batch_size)
    assert configuration.steps == steps
    assert f"--steps {steps} " in configuration.describe()


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 3e-4), ("sgd", 3e-3)])
@pytest.mark.parametrize(("images", "steps"), [(1, 625), (20, 871), (200, 2500)])
def test_fine_tuning_is_shorter_and_slower(images, steps, optimizer, rate):
    fingerprint = a_fingerprint(pixels=images * 512 * 512, diameters=Percentiles(40, 60, 80))
    configuration = AutoConfiguration.of(fingerprint, optimizer=optimizer, fine_tuning=True)
    assert configuration.steps == steps
    assert configuration.learning_rate == pytest.approx(rate)
    assert configuration.describe().count(", from a model") == 2


GIVEN = {
    "affinities": True,
    "class_balance": True,
    "depth": 2,
    "tile": 188,
    "amplitude": 0.0,
    "sigma": 7.0,
    "steps": None,
    "learning_rate": 0.5,
}


def test_what_is_given_is_taken_and_needs_no_reason():
    configuration = AutoConfiguration.of(a_fingerprint(), **GIVEN)
    assert {name: getattr(configuration, name) for name in AUTOCONFIGURED} == GIVEN
    assert configuration.reasons == {}
    assert configuration.describe() == ""


@pytest.mark.parametrize("name", AUTOCONFIGURED)
def test_each_number_that_is_not_given_has_its_reason_and_its_option(name):
    configuration = AutoConfiguration.of(
        a_fingerprint(), **{other: GIVEN[other] for other in AUTOCONFIGURED if other != name}
    )
    assert configuration.reasons.keys() == {name}
    (line,) = configuration.describe().splitlines()
    value, flag = getattr(configuration, name), name.replace("_", "-")
    option = f"--no-{flag}" if value is False else f"--{flag} {value:g}"
    assert line == f"  {option}  {configuration.reasons[name]}"


@pytest.mark.parametrize(
    ("kind", "shares", "affinities"),
    [
        ("classes", (0.2, 0.8), True),
        ("classes", (0.5, 0.5), False),
        ("classes", (0.2, 0.4, 0.4), False),
        ("classes", (1.0,), False),
        ("instances", (0.2, 0.8), False),
    ],
)
def test_affinities_are_learned_for_tissue(kind, shares, affinities):
    fingerprint = a_fingerprint(shares=shares)
    configuration = AutoConfiguration.of(fingerprint, kind=kind)
    assert configuration.affinities is affinities
    assert configuration.describe().startswith("  --affinities ") is affinities
    given = TrainingOptions(steps=1, affinities=not affinities)
    assert autoconfigure(given, fingerprint, kind).affinities is not affinities
    resolved = autoconfigure(TrainingOptions(steps=1), fingerprint, kind)
    assert resolved.architecture(channels=1, classes=2).affinities is affinities


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_affinities_need_objects(kind):
    strokes = a_fingerprint(shares=(0.2, 0.8), diameters=None)
    assert not AutoConfiguration.of(strokes, kind=kind).affinities
    with pytest.raises(ValueError, match=r"affinities need labels of whole objects.*without affin"):
        autoconfigure(TrainingOptions(steps=1, affinities=True), strokes, kind)


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.01), ("adam", 0.001)])
def test_the_learning_rate_goes_with_the_optimizer(optimizer, rate):
    assert AutoConfiguration.of(a_fingerprint(), optimizer=optimizer).learning_rate == rate
    options = TrainingOptions(optimizer=optimizer, steps=1)
    assert options.schedule_of_steps().learning_rate == rate
    assert options.schedule_of_steps().optimizer == optimizer


def test_later_rules_use_given_numbers():
    configuration = AutoConfiguration.of(a_fingerprint(), depth=2)
    assert Architecture(depth=2).fits(configuration.tile)
    assert AutoConfiguration.of(a_fingerprint(), tile=188, depth=4).amplitude < 10
    assert (
        AutoConfiguration.of(a_fingerprint(), tile=188, depth=4).steps
        > AutoConfiguration.of(a_fingerprint(), depth=4).steps
    )


@settings(deadline=None, max_examples=100)
@given(
    median=st.floats(0.5, 1e4),
    spread=st.floats(1, 20),
    side=st.floats(1, 1e5),
    images=st.integers(1, 10**5),
    depth=st.none() | st.integers(1, 7),
    padding=st.sampled_from(["valid", "same"]),
    batch_size=st.integers(1, 64),
)
def test_any_data_give_numbers_that_can_be_trained_with(
    median, spread, side, images, depth, padding, batch_size
):
    fingerprint = a_fingerprint(
        images=images,
        pixels=int(images * side**2),
        median_side=side,
        diameters=Percentiles(median / 2, median, median * spread),
    )
    chosen = {} if depth is None else {"depth": depth}
    configuration = AutoConfiguration.of(
        fingerprint, padding=padding, batch_size=batch_size, **chosen
    )
    network = Architecture(depth=configuration.depth, padding=padding)
    assert network.fits(configuration.tile)
    assert configuration.depth in DEPTHS or configuration.depth == depth
    assert configuration.tile < max(572, network.minimum_size) + network.step
    covered = max(side, CELLS_IN_TILE * median * spread)
    assert configuration.tile >= 572 or network.output_size(configuration.tile) >= covered
    assert SIGMA_RANGE[0] <= configuration.sigma <= SIGMA_RANGE[1]
    assert STEPS_RANGE[0] <= configuration.steps <= STEPS_RANGE[1]
    tiles = fingerprint.pixels / network.output_size(configuration.tile) ** 2
    assert (
        configuration.steps in STEPS_RANGE
        or abs(configuration.steps * batch_size / tiles - PASSES) < 1
    )
    assert asdict(configuration)["reasons"].keys() == set(AUTOCONFIGURED) - chosen.keys()


@pytest.mark.parametrize(
    ("shares", "balanced"),
    [((0.7, 0.3), False), ((0.9, 0.1), False), ((0.91, 0.09), True), ((0.5, 0.499, 0.001), True)],
)
def test_classes_are_balanced_if_one_is_rare(shares, balanced):
    configuration = AutoConfiguration.of(a_fingerprint(shares=shares))
    assert configuration.class_balance is balanced
    assert f"the rarest class has {100 * shares[-1]:.2g} %" in configuration.describe()


def test_a_class_without_pixels_is_not_rare():
    assert not AutoConfiguration.of(a_fingerprint(shares=(0.6, 0.0, 0.4))).class_balance
