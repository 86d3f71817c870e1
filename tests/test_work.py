"""How far work is, in words; by a clock that the test sets."""

import pytest

from keras_unet import work
from keras_unet.work import Work, duration


@pytest.fixture
def now(monkeypatch):
    """A clock to be moved on by hand."""
    time = [100.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: time[0])
    return time


def test_time_left_is_that_of_the_parts_not_yet_done(now):
    reading = Work("reading images", 4)
    assert reading.describe() == "reading images: 0 of 4, -:-- left"
    now[0] += 30
    reading.done = 1
    assert reading.describe() == "reading images: 1 of 4, 0:01:30 left"
    assert reading.share == 0.25


def test_what_was_done_before_tells_nothing_of_the_pace(now):
    predicting = Work("a.tif", 1_024, words="tile {:,} of {:,}", done=21)
    now[0] += 75
    predicting.done = 24
    assert predicting.describe() == "a.tif: tile 24 of 1,024, 6:56:40 left"


def test_work_that_is_over_tells_what_it_took_from_then_on(now):
    reading, converting = Work("reading images", 2), Work("converting the graph")
    assert converting.describe() == "converting the graph"
    reading.done = 2
    now[0] += 70
    reading.end()
    converting.end()
    now[0] += 1000
    assert (reading.over, reading.seconds) == (True, 70)
    assert reading.describe() == "reading images: 2 of 2, 0:01:10"
    assert converting.describe() == "converting the graph: 0:01:10"


def test_one_part_is_a_whole():
    loading = Work("loading networks", 1)
    assert (loading.is_whole, loading.describe()) == (True, "loading networks")
    assert Work("loading").is_whole
    assert not Work("loading networks", 2).is_whole


def test_nobody_knows_the_share_of_a_whole_or_of_nothing():
    assert Work("converting the graph").share is None
    assert Work("reading images", 0).share is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00:00"), (89.6, "0:01:30"), (90_000, "1 day, 1:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
