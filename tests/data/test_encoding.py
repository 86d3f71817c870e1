from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from keras_unet.data.encoding import LabelEncoding

INSTANCES = LabelEncoding("instances", (0, 1))
NAMED = LabelEncoding("instances", (0, 2, 5), 9, ("long", "round"))
SCHEMES = st.builds(
    lambda values, ignore: LabelEncoding("classes", tuple(sorted(values - {ignore})), ignore),
    st.sets(st.integers(0, 70_000), min_size=3, max_size=9),
    st.none() | st.integers(0, 70_000),
)


@settings(deadline=None, max_examples=50)
@given(SCHEMES, st.data())
def test_classes_go_there_and_back(encoding: LabelEncoding, data: st.DataObject) -> None:
    shape = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
    classes = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, encoding.classes - 1)))
    labels = encoding.from_classes(classes)
    assert labels.dtype.kind == "u"
    assert (
        labels.dtype.itemsize == (1 if max(encoding.values) < 256 else 2)
        or max(encoding.values) > 65_535
    )
    assert np.array_equal(labels, np.array(encoding.values)[classes])
    again = encoding.to_classes(labels)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, classes)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.uint8, (7, 8), elements=st.sampled_from([0, 100, 200, 255])))
def test_instances_of_classes_are_the_pieces_of_the_foreground(labels: NDArray[np.uint8]) -> None:
    encoding = LabelEncoding("classes", (0, 100, 200), 255)
    instances = encoding.to_instances(labels)
    assert instances.dtype == np.int32
    pieces, count = ndi.label((labels == 100) | (labels == 200))
    assert instances.max() == count
    assert np.array_equal(instances > 0, pieces > 0)
    for number in range(1, count + 1):
        assert np.unique(instances[pieces == number]).size == 1


def test_instances_keep_their_numbers_and_ignored_pixels_become_background() -> None:
    encoding = LabelEncoding("instances", (0, 1), 9)
    labels = np.array([[0, 70_000, 9], [3, 3, 0]])
    assert encoding.classes == 2
    assert encoding.to_instances(labels).tolist() == [[0, 70_000, 0], [3, 3, 0]]
    assert encoding.to_classes(labels).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert encoding.ignored(labels).tolist() == [[False, False, True], [False, False, False]]
    assert not INSTANCES.ignored(labels).any()
    assert INSTANCES.from_classes(np.array([[0, 1]])).tolist() == [[0, 1]]


def test_unknown_values_are_named() -> None:
    encoding = LabelEncoding("classes", (0, 255), 100)
    message = r"labels must be 0, 255, or 100 to ignore\. Received 7, 300 in 3 pixels"
    with pytest.raises(ValueError, match=message):
        encoding.to_classes(np.array([[7, 300, 7, 0, 255, 100]]))
    many = np.arange(1, 20)
    with pytest.raises(ValueError, match=r"be 0, 255\. Received 1, .* 8, \.\.\. \(19 values\)"):
        LabelEncoding("classes", (0, 255)).to_instances(many)


def test_instances_with_classes_are_pairs_of_numbers_and_values() -> None:
    labels = np.array([[[0, 0], [70_000, 5], [9, 2]], [[3, 2], [3, 2], [0, 7]]])
    assert NAMED.classes == 3
    assert NAMED.to_instances(labels).tolist() == [[0, 70_000, 0], [3, 3, 0]]
    assert NAMED.to_classes(labels).tolist() == [[0, 2, 0], [1, 1, 0]]
    assert NAMED.ignored(labels).tolist() == [[False, False, True], [False, False, False]]
    assert NAMED.from_classes(NAMED.to_classes(labels)).tolist() == [[0, 5, 0], [2, 2, 0]]
    with pytest.raises(ValueError, match=r"labels must be 0, 2, 5, or 9 to ignore\. Received 7"):
        NAMED.to_classes(np.array([[[1, 7]]]))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "classes"},
        {"ignore": 0},
        {"values": (0, 1)},
        {"values": (1, 2, 5)},
        {"values": (0, 5, 2)},
        {"class_names": ("long", "long")},
        {"class_names": ("long", "")},
        {"values": tuple(range(256)), "class_names": tuple(map(str, range(255)))},
    ],
)
def test_names_must_suit_the_values(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"class_names must be at most 254 different names"):
        replace(NAMED, **changes)


def test_encoding_travels_as_json() -> None:
    for encoding in (INSTANCES, LabelEncoding("classes", (0, 3, 7), 5), NAMED):
        assert LabelEncoding.from_dict(json.loads(json.dumps(encoding.to_dict()))) == encoding
    assert "class_names" not in INSTANCES.to_dict()


@pytest.mark.parametrize(
    ("kind", "values", "ignore", "message"),
    [
        (
            "semantic",
            (0, 1),
            None,
            r"kind must be 'classes' or 'instances'\. Received: kind='semantic'",
        ),
        ("instances", (0, 2), None, r"values must be \(0, 1\) .* Received: values=\(0, 2\)"),
        ("instances", (0, 1), 0, r"ignore must not be the background 0\. .*ignore=0"),
        ("classes", (1, 0), None, r"values must be 2 to 256 ascending numbers"),
        ("classes", (0, 1), 1, r"without the value to ignore\. Received: .*ignore=1"),
        ("classes", (0,), None, r"values must be 2 to 256"),
        ("classes", (-1, 0), None, r"values must be 2 to 256"),
        ("classes", tuple(range(257)), None, r"values must be 2 to 256"),
    ],
)
def test_encoding_refuses_contradictions(
    kind: Any, values: tuple[int, ...], ignore: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LabelEncoding(kind, values, ignore)


@pytest.mark.parametrize(("unlabelled", "background"), [(0, 1), (9, 0)])
def test_the_background_of_instances_in_part(unlabelled: int, background: int) -> None:
    encoding = LabelEncoding("instances", (0, 1), unlabelled=unlabelled)
    labels = np.array([[unlabelled, background, 3], [7, 7, unlabelled]])
    assert encoding.background == background
    assert encoding.to_instances(labels).tolist() == [[0, 0, 3], [7, 7, 0]]
    assert encoding.to_classes(labels).tolist() == [[0, 0, 1], [1, 1, 0]]
    assert encoding.ignored(labels).tolist() == [[True, False, False], [False, False, True]]
    assert not encoding.holds_strokes
    assert LabelEncoding.from_dict(encoding.to_dict()) == encoding


def test_strokes_of_classes_do_not_count_the_unlabelled_value() -> None:
    encoding = LabelEncoding("classes", (1, 2), 255, unlabelled=0)
    labels = np.array([[0, 1, 2, 255]])
    assert encoding.holds_strokes
    assert encoding.background == 1
    assert encoding.to_classes(labels).tolist() == [[0, 0, 1, 0]]
    assert encoding.ignored(labels).tolist() == [[True, False, False, True]]
    assert LabelEncoding.from_dict(encoding.to_dict()) == encoding


def test_one_value_is_not_both_ignored_and_unlabelled() -> None:
    with pytest.raises(ValueError, match=r"must be different values.*Received: 9 for both; give"):
        LabelEncoding("classes", (0, 1), 9, unlabelled=9)
    with pytest.raises(ValueError, match=r"ignore must not be the background 1\. Received.*=1"):
        LabelEncoding("instances", (0, 1), 1, unlabelled=0)


def test_encodings_of_complete_labels_are_recorded_as_before() -> None:
    assert INSTANCES.to_dict() == {"kind": "instances", "values": [0, 1], "ignore": None}
