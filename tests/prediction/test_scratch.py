from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.prediction.scratch import scratches


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_windows_are_written_and_read_as_those_of_an_array(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    shape = (height, width, *data.draw(st.sampled_from([(), (3,), (2, 2)])))
    expected = np.zeros((2, *shape), np.float32)
    with scratches("/tmp", 2, shape, np.float32) as planes:  # noqa: S108 - it has no name there
        for number in range(6):
            ends = [
                sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n))))
                for n in shape[:2]
            ]
            window = tuple(slice(*pair) for pair in ends)
            values = number + np.random.default_rng(number).random(expected[0][window].shape)
            planes[number % 2][window] = values
            expected[number % 2][window] = values
            for plane, wanted in zip(planes, expected, strict=True):
                np.testing.assert_array_equal(plane[:, :], wanted)
                np.testing.assert_array_equal(plane[window], wanted[window])


def test_nothing_is_left_or_to_be_seen(tmp_path):
    with scratches(tmp_path, 1, (3, 4), np.int32) as (plane,):
        plane[0:1, :] = np.ones((1, 4))
        assert list(tmp_path.iterdir()) == []
    assert plane.file.closed


def test_a_disk_without_room_is_said_at_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    message = r"room for 8\.0 GB to work in\. The system said: No space left on device\. Make room"
    with pytest.raises(OSError, match=message), scratches(tmp_path, 2, (10**4, 10**5), np.int32):
        pass
