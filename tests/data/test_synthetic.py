import numpy as np
import pytest
from scipy import ndimage

from keras_unet.data.synthetic import draw_cells, draw_tissue

SEEDS = range(4)


def touching_pairs(instances):
    """Maps each pair of touching instances to the number of pixel sides they share."""
    pairs = {}
    for first, second in (
        (instances[:-1], instances[1:]),
        (instances[:, :-1], instances[:, 1:]),
    ):
        meet = (first != second) & (first > 0) & (second > 0)
        for a, b in zip(first[meet], second[meet], strict=True):
            pair = min(a, b), max(a, b)
            pairs[pair] = pairs.get(pair, 0) + 1
    return pairs


def test_returns_image_and_instances_of_the_size_asked_for():
    image, instances = draw_cells(1, size=(96, 130), cells=6)
    assert image.shape == instances.shape == (96, 130)
    assert image.dtype == np.uint16
    assert instances.dtype == np.int32


def test_one_seed_draws_one_picture_and_another_seed_another():
    image, instances = draw_cells(7)
    again, instances_again = draw_cells(7)
    other, other_instances = draw_cells(8)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(instances, instances_again)
    assert (image != other).mean() > 0.9
    assert (instances != other_instances).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_ids_count_from_one_and_each_cell_is_in_one_piece(seed):
    _, instances = draw_cells(seed)
    assert set(np.unique(instances)) == set(range(instances.max() + 1))
    for number in range(1, instances.max() + 1):
        assert ndimage.label(instances == number)[1] == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_at_least_a_third_touches_along_lines_of_many_pixels(seed):
    _, instances = draw_cells(seed)
    pairs = touching_pairs(instances)
    touching = {number for pair in pairs for number in pair}
    assert len(touching) >= instances.max() / 3
    assert 10 <= np.median(list(pairs.values())) <= 30


@pytest.mark.parametrize("seed", SEEDS)
def test_some_cells_are_cut_by_the_border_of_the_picture(seed):
    _, instances = draw_cells(seed)
    border = [instances[0], instances[-1], instances[:, 0], instances[:, -1]]
    assert np.concatenate(border).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_are_brighter_than_the_background_beside_them(seed):
    image, instances = draw_cells(seed)
    inside = ndimage.binary_erosion(instances > 0, iterations=2)
    beside = ~ndimage.binary_dilation(instances > 0, iterations=4)
    assert image[inside].mean() > 1.3 * image[beside].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_light_is_uneven(seed):
    image, instances = draw_cells(seed)
    background = ~ndimage.binary_dilation(instances > 0, iterations=6)
    means = [
        image[rows, columns][background[rows, columns]].mean()
        for rows in (slice(0, 128), slice(128, 256))
        for columns in (slice(0, 128), slice(128, 256))
    ]
    assert max(means) > 1.05 * min(means)


def test_contacts_are_darker_than_the_cells_but_much_brighter_than_background():
    ratios = []
    for seed in SEEDS:
        image, instances = draw_cells(seed)
        lowest = ndimage.minimum_filter(np.where(instances, instances, 10**6), 3)
        contact = (instances > 0) & (ndimage.maximum_filter(instances, 3) != lowest)
        contact &= ndimage.binary_erosion(instances > 0, iterations=4)
        beside = ndimage.binary_dilation(contact, iterations=6) & (instances > 0)
        beside &= ~ndimage.binary_dilation(contact, iterations=3)
        ground = image[~ndimage.binary_dilation(instances > 0, iterations=4)].mean()
        ratios.append((image[contact].mean() - ground) / (image[beside].mean() - ground))
    assert 0.6 < np.mean(ratios) < 0.95


def test_a_full_picture_takes_fewer_cells_than_asked_for():
    _, instances = draw_cells(0, size=(64, 64), cells=200)
    assert 3 < instances.max() < 50


def test_size_too_small_is_refused():
    with pytest.raises(
        ValueError, match=r"size must be at least \(64, 64\) pixels\. Received: size=\(64, 63\)"
    ):
        draw_cells(0, size=(64, 63))


def test_no_cells_are_refused():
    with pytest.raises(
        ValueError, match=r"cells must be at least 1, such as 28\. Received: cells=0"
    ):
        draw_cells(0, cells=0)


def test_tissue_has_the_size_asked_for_and_follows_its_seed():
    image, classes = draw_tissue(3, size=(96, 130))
    assert image.shape == classes.shape == (96, 130)
    assert image.dtype == classes.dtype == np.uint8
    np.testing.assert_array_equal(image, draw_tissue(3, size=(96, 130))[0])
    assert (image != draw_tissue(4, size=(96, 130))[0]).mean() > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_membranes_enclose_cells_of_about_the_size_asked_for(seed):
    _, classes = draw_tissue(seed, cell=32)
    cells, count = ndimage.label(classes)
    sizes = np.bincount(cells.ravel())[1:]
    assert 0.6 < classes.mean() < 0.85
    assert 0.4 * 32**2 < np.median(sizes[sizes > 40]) < 32**2
    assert count > 40


@pytest.mark.parametrize("seed", SEEDS)
def test_membranes_are_dark_but_grey_alone_does_not_tell_them(seed):
    image, classes = draw_tissue(seed)
    assert image[classes == 0].mean() < image[classes == 1].mean() - 40
    darker = image < (np.median(image[classes == 0]) + np.median(image[classes == 1])) / 2
    assert 0.02 < (darker == classes).mean() < 0.25


def test_tissue_too_small_is_refused():
    with pytest.raises(
        ValueError, match=r"size must be at least \(64, 64\) pixels\. Received: size=\(63, 64\)"
    ):
        draw_tissue(0, size=(63, 64))
    with pytest.raises(
        ValueError, match=r"cell must be at least 8 pixels, such as 26\. Received: cell=7"
    ):
        draw_tissue(0, cell=7)
