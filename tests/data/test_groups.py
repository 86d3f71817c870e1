from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from keras_unet.data.groups import (
    HeldOut,
    draw_held_out,
    group_images,
    look_alike,
    members_of,
    split_name,
)
from keras_unet.data.images import read_planes

RNG = np.random.default_rng(0)


def film(frames=6, shift=2, size=160):
    """Frames of a smooth random scene that drifts."""
    scene = ndimage.gaussian_filter(RNG.normal(size=(size, size + frames * shift)), 3)
    return [scene[:, i * shift : i * shift + size, np.newaxis] for i in range(frames)]


def others(number=6, size=160):
    return [film(1, size=size)[0] for _ in range(number)]


def groups_of(names, images=None, groups="auto", known=None):
    return group_images(names, known or [None] * len(names), images or others(len(names)), groups)


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (("slide3_x0_y512", "slide3_x512_y0", "slide3-X1024-Y0"), "slide3"),
        (("slide 3 [x=0,y=512,w=256,h=256]", "slide 3 [d=2.5,x=0,y=0]"), "slide 3"),
        (("filmA_t012", "filmA_z03_t1", "filmA_frame7", "filmA.frame_07", "filmA_t012_3"), "filmA"),
        (("W4_r1_c2", "W4_row2_col3", "W4-slice-03", "W4_plane1", "W4_02d16h00m"), "W4"),
        (("a-1", "a_2", "a3", "a (4)", "a #5"), "a"),
        (("t012", "z=3", "slice_07", "x1_y2", "07", "007_img"), ""),
        (("cells", "cells_1"), "cells"),
    ],
)
def test_stems(names, stem):
    assert {split_name(name)[0] for name in names} == {stem}


@pytest.mark.parametrize(
    ("name", "stem"),
    [("T4_01", "T4"), ("plate1_A01", "plate1_A"), ("day3_t", "day3_t"), ("best1", "best")],
)
def test_names_without_coordinates(name, stem):
    assert split_name(name) == (stem, False)


@given(st.text(max_size=30))
def test_a_stem_begins_the_name(name):
    stem, _ = split_name(name)
    assert stem in name


def test_three_stems_are_groups_whatever_the_images_show():
    names = ["a_1", "a_2", "b_1", "b_2", "c1", "c2", "single"]
    found, notes = groups_of(names)
    assert found == ["a", "a", "b", "b", "c", "c", None]
    assert notes == ("groups of images: a, b, c",)


@pytest.mark.parametrize("prefixes", [("",), ("image_",), ("a_", "b_"), ("a_", "a_", "a_", "b_")])
def test_one_or_two_stems_of_independent_images_are_no_groups(prefixes):
    names = [f"{prefix}{i:02}" for i, prefix in enumerate(prefixes * 8)]
    found, notes = groups_of(names)
    assert set(found) == {None}
    assert [note[:15] for note in notes] == ["no groups: a, b"] * (len(set(prefixes)) > 1)


def test_a_stem_of_most_images_is_not_trusted():
    names = [*(f"image_{i}" for i in range(9)), "image_extra", "test", "last"]
    assert set(groups_of(names)[0]) == {None}


def test_a_film_is_seen_in_its_images_in_the_order_of_their_numbers():
    frames, names = film(12, shift=4), [f"{i}" for i in range(1, 13)]
    by_name = sorted(zip(names, frames, strict=True), key=lambda pair: pair[0])  # 1, 10, 11, 12, 2
    found, notes = groups_of(*map(list, zip(*by_name, strict=True)))
    assert set(found) == {"1 to 12"}
    assert notes[1] == "consecutive images look alike, so they are one group: 1 to 12"


def test_two_films_beside_independent_images():
    names = [f"{stem}{i}" for stem in "abc" for i in range(6)] + [f"d{i}" for i in range(20)]
    images = [*film(), *film(), *others(26)]
    found, _ = groups_of(names, images)
    assert Counter(found) == {"a": 6, "b": 6, None: 26}


def test_coordinates_make_one_group():
    names = [f"slide_x{x}_y{y}" for x in range(3) for y in range(3)]
    assert set(groups_of(names)[0]) == {"slide"}
    assert set(groups_of([name.removeprefix("slide_") for name in names])[0]) == {"x0_y0 to x2_y2"}


def test_a_letter_with_a_number_is_no_coordinate_of_anything():
    assert set(groups_of([f"x{i}" for i in range(8)])[0]) == {None}


def test_sequences_and_stacks_are_kept_and_count_as_groups():
    names = ["01_t0", "01_t1", "s_000", "s_001", "a1", "a2"]
    found, _ = groups_of(names, known=["01", "01", "s", "s", None, None])
    assert found == ["01", "01", "s", "s", "a", "a"]


def test_groups_that_are_given():
    names = ["slide1_a", "slide2_a", "x_slide1"]
    assert groups_of(names, groups=r"(slide\d+)")[0] == ["slide1", "slide2", "slide1"]
    assert groups_of(names, groups=r"slide\d+")[0] == ["slide1", "slide2", "slide1"]
    assert groups_of(names, groups=["p", "q", "p"])[0] == ["p", "q", "p"]
    assert groups_of(names, groups="none", known=["01"] * 3) == ([None] * 3, ())


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("(", r"groups must be \"auto\", \"none\" or a regular expression.*'\('"),
        ("(b)", r"groups must match the name of every image. Received: '\(b\)'.*match a1"),
        ("a(b)?", "which does not match a1"),
        (["p"], "groups must hold one name for each image. Received: 1 name for 2 images"),
        (["p", 3], r"groups must hold the name of each image's group, as text.*\['p', 3\]"),
    ],
)
def test_groups_that_do_not_suit_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        groups_of(["a1", "b1"], groups=groups)


def test_frames_look_alike_and_other_images_do_not():
    assert look_alike(film())
    assert look_alike([100 * frame + 7 * i for i, frame in enumerate(film())])
    assert not look_alike(others())
    assert not look_alike(film(3))  # too few
    assert not look_alike([np.ones((64, 64, 1))] * 6)
    assert not look_alike([frame[i:] for i, frame in enumerate(film())])  # other sizes
    shading = np.linspace(0, 0.5, 160)[:, np.newaxis, np.newaxis]
    assert not look_alike([image + shading for image in others()])


@pytest.mark.parametrize(
    ("folder", "files", "is_film"),
    [
        ("isbi2012/images", "*", True),
        ("films/PhC-C2DL-PSC/01", "*", True),
        ("tracking/Fluo-N2DL-HeLa/01", "t00*", True),
        ("dsb2018/images", "*", False),
        ("usiigaci/images", "*", False),
        ("nuclei/images", "bbbc039_00*", False),
        ("axons/images", "*", False),
    ],
)
def test_films_and_stacks_are_told_from_independent_images(shared_data, folder, files, is_film):
    paths = sorted((shared_data / folder).glob(files))[:20]
    assert look_alike([read_planes(path)[0] for path in paths]) is is_film


group_lists = st.lists(st.sampled_from([None, *"abcde"]), min_size=2, max_size=40)


@given(group_lists, st.floats(0.01, 0.99), st.integers(0, 9))
def test_held_out_are_whole_groups_or_the_end_of_one(groups, fraction, seed):
    names = [f"i{i}" for i in range(len(groups))]
    held_out = draw_held_out(names, groups, fraction, seed)
    members = members_of(names, groups)
    assert 0 < len(held_out) < len(names)
    assert held_out == draw_held_out(names, groups, fraction, seed)
    cut = [group for group in members if 0 < len(held_out.intersection(group)) < len(group)]
    if len(members) >= 3:
        assert not cut
    for group in cut:
        assert held_out == set(group[-len(held_out) :])


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_of_images_by_themselves_the_fraction_is_drawn(images, fraction, seed):
    names = [f"{i}" for i in range(images)]
    expected = min(max(1, round(fraction * images)), images - 1)
    assert len(draw_held_out(names, [None] * images, fraction, seed)) == expected


@pytest.mark.parametrize(
    ("sizes", "fraction", "expected"),
    [
        ((8, 8, 8), 0.2, {"whole": 8}),  # 33 %, more than asked, rather than a part
        ((5, 5, 5, 5, 5), 0.2, {"whole": 5}),
        ((5, 5, 5, 5, 5), 0.02, {"whole": 5}),
        ((12, 12), 0.2, {"part": 5}),
        ((12, 12), 0.5, {"whole": 12}),
        ((110, 330), 0.2, {"whole": 110}),
        ((20,), 0.25, {"part": 5}),
        ((3, 3, 94), 0.2, {"whole": 6}),
    ],
)
def test_sizes_of_what_is_held_out(sizes, fraction, expected):
    groups = list(chain(*([f"g{i}"] * size for i, size in enumerate(sizes))))
    names = [f"{i:03}" for i in range(len(groups))]
    for seed in range(4):
        held_out = draw_held_out(names, groups, fraction, seed)
        whole = all(
            held_out.issuperset(group) or held_out.isdisjoint(group)
            for group in members_of(names, groups)
        )
        assert {"whole" if whole else "part": len(held_out)} == expected


@given(group_lists, st.data())
def test_the_relation_to_the_training(groups, data):
    cut = data.draw(st.integers(1, len(groups) - 1))
    training, held_out = groups[:cut], groups[cut:]
    found = HeldOut.of(training, held_out)
    shared = {name for name in held_out if name is not None and name in training}
    assert (found.kind == "part of a group") == bool(shared)
    assert (found.kind == "images") == (set(held_out) == {None})
    assert HeldOut.from_dict(found.to_dict()) == found
    assert str(len(held_out)) in found.describe()
    assert ("may score lower" in found.describe()) == bool(shared)
