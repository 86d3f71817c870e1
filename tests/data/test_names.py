from __future__ import annotations

import pytest

from keras_unet.data.names import (
    AmbiguousNamesError,
    match_names,
    strip_image_affix,
    strip_label_affix,
)


@pytest.mark.parametrize(
    ("stem", "of"),
    [
        ("a_b_mask", "a_b"),
        ("a_b_CP_masks", "a_b"),
        ("mask-a_b", "a_b"),
        ("a_Ground_Truth", "a"),
        ("man_seg000", None),
        ("unmasked", None),
        ("mask", None),
        ("_mask", None),
        ("amask", None),
    ],
)
def test_affixes_of_labels(stem: str, of: str | None) -> None:
    assert strip_label_affix(stem) == of


def test_affixes_of_images() -> None:
    assert [
        strip_image_affix(stem) for stem in ("a_IMG", "Image-a", "imgs_a", "a_mask", "img")
    ] == [
        *("a", "a", "a"),
        *(None, None),
    ]


def test_the_nearer_name_wins() -> None:
    images, labels = ["x", "x_img"], ["x_mask", "x_img_mask"]
    assert match_names(images, labels) == {"x": "x_mask", "x_img": "x_img_mask"}
    assert match_names(images, ["x_mask"]) == {"x": "x_mask"}
    assert match_names(["x_img"], ["x", "x_mask"]) == {"x_img": "x"}


def test_equal_claims_are_ambiguous() -> None:
    with pytest.raises(AmbiguousNamesError, match="x with x_mask, x_seg") as caught:
        match_names(["x"], ["x_mask", "x_seg"])
    assert (caught.value.images, caught.value.labels) == (["x"], ["x_mask", "x_seg"])
    with pytest.raises(AmbiguousNamesError, match="x_img, img_x with x"):
        match_names(["x_img", "img_x"], ["x"])


def test_what_has_no_partner_is_left() -> None:
    assert match_names(["a"], ["b"]) == match_names([], ["a"]) == match_names(["a"], []) == {}
