from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_unet.data.stacks import Stack, in_order_of

PLANES = np.arange(12).reshape(12, 1, 1)
MOVED = np.arange(12).reshape(4, 3).T.reshape(12, 1, 1)


def ordered(wanted: Stack, stored: Stack) -> list[int]:
    found = in_order_of((Path("a"), wanted), (Path("b"), stored), PLANES, "labels")
    return found.ravel().tolist()


@pytest.mark.parametrize(
    ("wanted", "stored", "is_moved"),
    [
        ([("T", 3), ("Z", 4)], [("T", 3), ("Z", 4)], False),
        ([("T", 3), ("Z", 4)], [("Z", 4), ("T", 3)], True),
        ([("T", 3), ("Z", 4)], [("Z", 4), ("Q", 1), ("T", 3)], True),
        ([("T", 12)], [("Z", 12)], False),  # one axis, whatever its name
        ([("T", 3), ("Z", 4)], [("Q", 3), ("I", 4)], False),
    ],
)
def test_planes_come_in_the_order_of_the_other_file(
    wanted: Stack, stored: Stack, is_moved: bool
) -> None:
    assert ordered(wanted, stored) == (MOVED if is_moved else PLANES).ravel().tolist()


@pytest.mark.parametrize(
    "stored", [[("I", 12)], [("Z", 3), ("T", 4)], [("Q", 4), ("I", 3)]], ids=str
)
def test_what_is_not_clear_is_refused(stored: Stack) -> None:
    with pytest.raises(ValueError, match=r"b: expected planes along T = 3 x Z = 4 as in a.*clear"):
        ordered([("T", 3), ("Z", 4)], stored)
