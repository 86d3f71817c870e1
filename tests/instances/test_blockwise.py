"""Labels by bands equal those of the whole image, label by label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.instances.blockwise import BlockwiseLabeler
from keras_unet.instances.label import InstanceOptions, Markers, label_instances


def stitch(
    probability: NDArray[np.float32], options: InstanceOptions, **more: int
) -> tuple[NDArray[np.int32], int]:
    labels, provisional = np.full((2, *probability.shape), 77, np.int32)
    number = BlockwiseLabeler(options, **more).label(probability, labels, provisional)
    return labels, number


@st.composite
def probabilities(draw: st.DrawFn) -> NDArray[np.float32]:
    """Blobs, rings and mazes of a few grey levels, so that heights are often equal."""
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random(size)
    smooth = ndimage.gaussian_filter(noise, draw(st.sampled_from([0, 0.7, 1.5, 3])), mode="wrap")
    span = np.ptp(smooth) or 1
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    ring = draw(st.sampled_from([1, 3, 8]))
    between_0_and_1 = np.abs((smooth - smooth.min()) / span * ring % 2 - 1)
    return (np.round(between_0_and_1 * levels) / levels).astype(np.float32)


options = st.builds(
    InstanceOptions,
    threshold=st.sampled_from([0.0, 0.2, 0.5, 0.7]),
    markers=st.sampled_from(["components", "distance", "probability"]),
    merge_threshold=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]),
    minimum_size=st.sampled_from([0, 2, 5, 30]),
    gap=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.7, 9.0]),
    fill_holes=st.booleans(),
)


@settings(deadline=None, max_examples=100)
@given(probabilities(), options, st.integers(1, 400))
def test_bands_give_the_very_labels_of_one_piece(
    probability: NDArray[np.float32], options: InstanceOptions, band: int
) -> None:
    labels, number = stitch(probability, options, band=band)
    expected = label_instances(probability, options)
    np.testing.assert_array_equal(labels, expected)
    assert number == expected.max()


@pytest.mark.parametrize("markers", ["probability", "distance"])
def test_a_piece_that_is_too_large_to_be_cut_is_refused(markers: Markers) -> None:
    probability = np.zeros((30, 30), np.float32)
    probability[3:28, 5:25] = 0.9
    message = "27 x 22 pixels, more than the 500 that fit in memory, from row 2 and column 4"
    with pytest.raises(ValueError, match=rf"{message}\..*markers={markers}") as caught:
        stitch(probability, InstanceOptions(markers=markers), band=90, largest_piece=500)
    assert "\n" not in str(caught.value)


def test_a_piece_of_any_size_is_one_cell_by_components() -> None:
    probability = np.pad(np.full((25, 20), 0.9, np.float32), 3)
    labels, number = stitch(probability, InstanceOptions(), band=90, largest_piece=500)
    np.testing.assert_array_equal(labels, probability > 0)
    assert number == 1


def test_a_gap_too_wide_for_a_band_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gap must be narrower .* 50 columns.* Received: gap=40"):
        stitch(np.ones((50, 50), np.float32), InstanceOptions(gap=40), band=100, largest_piece=2500)
