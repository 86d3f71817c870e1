"""DET and TRA, beside py-ctcmetrics and by hand."""

from itertools import pairwise

import numpy as np
import pytest
import tifffile
from ctc_metrics.scripts.evaluate import evaluate_sequence
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.data.tracks import write_tracks
from keras_unet.metrics.tracking import Track, tracking_errors


def frames(*rows):
    """Label images of one row each."""
    return [np.repeat(np.array([row], np.uint16), 2, axis=0) for row in rows]


def tracks_of(images, parents=()):
    """Tracks of all labels, which are in consecutive frames."""
    found = {}
    for index, image in enumerate(images):
        for number in np.unique(image)[1:].tolist():
            begin = found[number].begin if number in found else index
            found[number] = Track(number, begin, index, dict(parents).get(number, 0))
    return list(found.values())


def errors(reference, result, parents=(), result_parents=()):
    pairs = (reference, parents), (result, result_parents)
    return tracking_errors(reference, result, *(tracks_of(*pair) for pair in pairs))


TRUTH = frames([0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 2, 2])


def test_the_reference_itself():
    found = errors(TRUTH, TRUTH)
    assert (found.det, found.tra, found.vertices, found.edges) == (1, 1, 6, 4)


def test_an_object_that_is_missing():
    found = errors(TRUTH, frames([0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 3, 3]))
    assert (found.missing, found.false, found.edges_added, found.edges_deleted) == (1, 0, 2, 0)
    assert found.det == 1 - 10 / 60
    assert found.tra == 1 - (10 + 2 * 1.5) / (60 + 4 * 1.5)


def test_an_object_too_many_and_two_as_one():
    found = errors(TRUTH, frames([3, 1, 1, 0, 2, 2], [0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 2, 2])[:3])
    assert (found.false, found.splits, found.missing) == (1, 1, 0)
    assert found.det == 1 - (1 + 5) / 60
    assert (found.edges_added, found.edges_deleted) == (4, 0)


def test_a_division_that_is_none():
    result = frames([0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 2, 2], [0, 3, 3, 0, 2, 2])
    found = errors(TRUTH, result, result_parents=[(3, 1)])
    assert (found.edges_changed, found.edges_added, found.edges_deleted) == (1, 0, 0)
    assert found.tra == pytest.approx(1 - 1 / 66)


def test_half_of_an_object_is_not_enough():
    truth = frames([1, 1, 1, 1])
    assert errors(truth, frames([1, 1, 0, 0])).missing == 1
    assert errors(truth, frames([1, 1, 1, 0])).missing == 0


def test_nothing_to_find():
    assert np.isnan(errors(frames([0, 0]), frames([0, 1])).tra)


def test_tracks_without_label_images_are_refused():
    tracks = [Track(1, 0, 0), Track(2, 1, 1, parent=1)]
    with pytest.raises(ValueError, match="track 2: expected a label in frame 1, and its parent 1"):
        tracking_errors(frames([1], [0]), frames([1], [0]), tracks, tracks)


def written(folder, images, tracks, reference):
    folder.mkdir(parents=True)
    name = "man_track" if reference else "mask"
    for index, image in enumerate(images):
        tifffile.imwrite(folder / f"{name}{index:03d}.tif", image)
    write_tracks(folder / ("man_track.txt" if reference else "res_track.txt"), tracks)


def with_links(images, random):
    """Renumbers some objects from a frame on, some of them as daughters."""
    changed, parents = [image.copy() for image in images], []
    number = 10 + int(np.max(images))
    for label in np.unique(np.stack(images))[1:].tolist():
        if random.random() < 0.5:
            start = int(random.integers(1, len(images)))
            here = [label in image for image in (images[start - 1], images[start])]
            number += 1
            for image in changed[start:]:
                image[image == label] = number
            if all(here) and random.random() < 0.5:
                parents.append((number, label))
    return changed, parents


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equal_to_py_ctcmetrics(tmp_path_factory, seed):
    random = np.random.default_rng(seed)
    grid = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((6, 6))).astype(np.uint16)
    truth = [np.where(random.random(grid.shape) < 0.05, 0, grid) for _ in range(4)]
    truth, parents = with_links(truth, random)
    noisy = []
    for true in truth:
        kept = ~np.isin(grid, random.choice(9, 2) + 1)
        image = np.roll(true * kept, random.integers(-2, 3), axis=1)
        if random.random() < 0.5:
            image[:6, :12] = image[2, 2]  # one object over two
        noisy.append(image.astype(np.uint16))
    result, result_parents = with_links(noisy, random)
    present = [set(np.unique(image).tolist()) for image in result]
    gaps = [n for n in set.union(*present) - {0} if not is_run([n in labels for labels in present])]
    for image in result:
        image[np.isin(image, gaps)] = 0
    result_parents = [pair for pair in result_parents if not set(pair) & set(gaps)]
    if not np.any(result) or not edges_exist(result):
        return  # py-ctcmetrics has a case of its own
    mine = errors(truth, result, parents, result_parents)
    folder = tmp_path_factory.mktemp("ctc")
    written(folder / "01_GT" / "TRA", truth, tracks_of(truth, parents), reference=True)
    written(folder / "01_RES", result, tracks_of(result, result_parents), reference=False)
    theirs = evaluate_sequence(
        str(folder / "01_RES"), str(folder / "01_GT"), metrics=["DET", "TRA"], threads=1
    )
    assert mine.det == pytest.approx(theirs["DET"])
    assert mine.tra == pytest.approx(theirs["TRA"])


def is_run(flags):
    return np.count_nonzero(np.diff([False, *flags, False])) == 2


def edges_exist(images):
    return any(np.intersect1d(*pair).any() for pair in pairwise(images))
