"""Objects keep their number through volumes and films."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.data.tracks import frames_of_tracks, read_tracks
from keras_unet.instances.link import link_objects
from keras_unet.metrics.tracking import Track, tracking_errors


def disk(size, center, radius):
    rows, columns = np.indices(size)
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2


def film(seed, frames=20, size=(220, 260)):
    """Draws cells that move, divide, and enter and leave the image; labels, and tracks."""
    random = np.random.default_rng(seed)
    places = [(row, column) for row in range(20, 210, 40) for column in range(20, 250, 40)]
    cells = {
        number: (np.array(place, float), 10.0) for number, place in enumerate(places, 1)
    }  # center and radius
    parents, images = {}, []
    for _ in range(frames):
        image = np.zeros(size, np.int32)
        for number, (center, radius) in cells.items():
            image[disk(size, center, radius) & (image == 0)] = number
        images.append(image)
        moved = {}
        for number, (center, radius) in cells.items():
            if radius > 9 and random.random() < 0.03:
                angle = random.uniform(0, np.pi)
                step = 0.8 * radius * np.array([np.cos(angle), np.sin(angle)])
                for side in (-1, 1):
                    daughter = max([*cells, *moved]) + 1
                    moved[daughter] = (center + side * step, 0.7 * radius)
                    parents[daughter] = number
            else:
                moved[number] = (center + random.normal(0, 2.5, 2), min(10, radius * 1.03))
        cells = moved
    return images, tracks_of(images, parents)


def tracks_of(images, parents):
    present = {}
    for index, image in enumerate(images):
        for number in np.unique(image)[1:].tolist():
            present.setdefault(number, []).append(index)
    return [
        Track(number, found[0], found[-1], parents.get(number, 0) if known else 0)
        for number, found in present.items()
        for known in [parents.get(number, 0) in present]
    ]


def shuffled(images, seed=0):
    """Numbers the objects of each image anew."""
    random = np.random.default_rng(seed)
    found = []
    for image in images:
        numbers = np.zeros(image.max() + 1, np.int32)
        numbers[1:] = random.permutation(np.arange(1, image.max() + 1))
        found.append(numbers[image])
    return found


def relabeled(images, along):
    links = link_objects(images, along)
    return [links.relabel(index, image) for index, image in enumerate(images)], links


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_film(seed):
    truth, tracks = film(seed)
    assert len({track.parent for track in tracks}) > 5
    images = shuffled(truth)
    found, links = relabeled(images, "t")
    errors = tracking_errors(truth, found, tracks, links.without_gaps().tracks)
    assert errors.det == 1
    assert errors.tra >= 0.95


def test_a_real_film(shared_data):
    film = shared_data / "tracking" / "Fluo-N2DL-HeLa"
    masks = [tifffile.imread(path) for path in sorted((film / "01_ST" / "SEG").glob("*.tif"))]
    links = link_objects(masks).without_gaps()
    truth = frames_of_tracks(film / "01_GT" / "TRA").values()
    tracks = read_tracks(film / "01_GT" / "TRA" / "man_track.txt")
    found = [links.relabel(index, mask) for index, mask in enumerate(masks)]
    errors = tracking_errors(map(tifffile.imread, truth), found, tracks, links.tracks)
    assert errors.det > 0.99
    assert errors.tra >= 0.97


def test_a_drawn_volume():
    planes, rows, columns = np.indices((24, 120, 120))
    random = np.random.default_rng(0)
    volume = np.zeros(planes.shape, np.int32)
    for number, place in enumerate(np.ndindex(2, 4, 4), 1):
        center = np.array([6, 16, 16]) + np.array(place) * [12, 29, 29] + random.uniform(-1, 1, 3)
        radii = random.uniform([4, 9, 9], [5, 13, 13])
        inside = [
            (x - c) / r for x, c, r in zip((planes, rows, columns), center, radii, strict=True)
        ]
        volume[np.sum(np.square(inside), axis=0) < 1] = number
    found, links = relabeled(shuffled(volume), "z")
    pairs = set(zip(volume[volume > 0], np.stack(found)[volume > 0], strict=True))
    assert len(pairs) == len(links.tracks) == 32  # one number for each cell, and no other


def test_a_plane_in_which_an_object_is_missing():
    labels = np.array([[0, 5, 5, 0, 0, 7, 7]])
    without = np.where(labels == 7, 0, labels)
    for along in ("z", "t"):
        found, links = relabeled([labels, without, labels], along)
        assert [image.tolist() for image in found[::2]] == [[[0, 1, 1, 0, 0, 2, 2]]] * 2
        assert links.tracks == (Track(1, 0, 2), Track(2, 0, 2))
        found, links = relabeled([labels, without, without, labels], along)  # two are too many
        assert links.tracks == (Track(1, 0, 3), Track(2, 0, 0), Track(3, 3, 3))


def test_a_gap_is_a_new_track_in_the_form_of_the_challenge():
    labels = np.array([[0, 5, 5, 0, 0, 7, 7]])
    planes = [labels, np.where(labels == 7, 0, labels), labels]
    links = link_objects(planes).without_gaps()
    assert links.tracks == (Track(1, 0, 2), Track(2, 0, 0), Track(3, 2, 2, parent=2))
    assert links.relabel(2, labels).tolist() == [[0, 1, 1, 0, 0, 3, 3]]


def test_a_division():
    mother = np.where(disk((40, 40), (20, 20), 8), 4, 0)
    daughters = np.where(disk((40, 40), (20, 13), 5), 2, 0) + np.where(
        disk((40, 40), (20, 27), 5), 9, 0
    )
    links = link_objects([mother, daughters])
    assert links.tracks == (Track(1, 0, 0), Track(2, 1, 1, 1), Track(3, 1, 1, 1))
    assert {track.parent for track in link_objects([mother, daughters], "z").tracks} == {0}
    entering = np.where(disk((40, 40), (20, 20), 8), 2, 0) + np.where(
        disk((40, 40), (3, 3), 5), 9, 0
    )
    assert [track.parent for track in link_objects([mother, entering]).tracks] == [0, 0]


def test_the_assignment_is_global():
    def row(*columns):
        disks = [disk((40, 80), (20, column), 8) for column in columns]
        return np.maximum.reduce([number * one for number, one in enumerate(disks, 1)])

    # The nearest pair, 40 and 32, alone would leave the other two without a partner.
    found, _ = relabeled([row(20, 40), row(32, 52)], "t")
    assert (found[1][20, 32], found[1][20, 52]) == (1, 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_numbers_do_not_depend_on_the_labels(seed):
    truth, _ = film(1, frames=3)
    first, second = (relabeled(shuffled(truth, one), "t")[0] for one in (0, seed))
    np.testing.assert_array_equal(first, second)


def test_empty_planes():
    empty = np.zeros((4, 5), int)
    links = link_objects([empty, np.ones((4, 5), int), empty, empty])
    assert links.tracks == (Track(1, 1, 1),)
    assert links.relabel(0, empty).max() == 0
    assert link_objects([]).tracks == ()


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"along must be one of z, t\. Received: x"):
        link_objects([], "x")
    with pytest.raises(ValueError, match="one shape"):
        link_objects([np.ones((4, 5), int), np.ones((5, 4), int)])
