"""Border thinning by hand and by its properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.io import imread

from keras_unet.metrics.thinning import thin_borders

CELLS = hnp.arrays(np.bool_, (7, 8))


def test_a_wide_border_becomes_a_line() -> None:
    cells = np.ones((4, 9), bool)
    cells[:, 2:7] = False
    thinned = thin_borders(cells)
    assert np.array_equal(thinned, [[1, 1, 1, 1, 0, 2, 2, 2, 2]] * 4)


def test_lines_run_half_way_between_real_cells(shared_data: Path) -> None:
    cells = imread(shared_data / "isbi2012" / "labels" / "07.png") > 0
    thinned = thin_borders(cells)
    depth = ndi.distance_transform_cdt(thinned == 0, "taxicab")
    assert 0.02 < np.mean(thinned == 0) < 0.5 * np.mean(~cells)
    assert np.mean(depth[thinned == 0] == 1) > 0.98


def test_a_border_that_parts_nothing_goes() -> None:
    cells = np.ones((5, 5), bool)
    cells[2, 1:] = False
    assert (thin_borders(cells) == 1).all()


@pytest.mark.parametrize("flat", [np.zeros((3, 4), bool), np.ones((3, 4), bool)])
def test_a_flat_image_is_one_segment(flat) -> None:
    assert (thin_borders(flat) == 1).all()
    assert thin_borders(flat).dtype == np.int32


@given(CELLS)
@settings(deadline=None, max_examples=60)
def test_cells_keep_their_pixels_and_stay_apart(cells: NDArray[np.bool_]) -> None:
    thinned = thin_borders(cells)
    numbered, count = ndi.label(cells)
    if count:
        assert np.array_equal(thinned[cells], numbered[cells])
    assert set(np.unique(thinned)) - {0} == set(range(1, max(count, 1) + 1))
    for here, next_to_it in ((thinned[1:], thinned[:-1]), (thinned[:, 1:], thinned[:, :-1])):
        assert ((here == next_to_it) | (here == 0) | (next_to_it == 0)).all()
