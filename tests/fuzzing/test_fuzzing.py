"""The readers with files that were changed at random, and what longer fuzzing has found.

`fuzz.py` beside this file does the same with atheris, for as long as one likes.
"""

from __future__ import annotations

import importlib.util
import logging
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)

SEEDS = fuzz.seeds()
STARTS = [b"", b"II*\0", b"MM\0*", b"II+\0", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"]
TELLING = [0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]


@pytest.fixture(autouse=True)
def quiet():
    """What tifffile logs beside its exceptions, which the command line turns off as well."""
    logger = logging.getLogger("tifffile")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@st.composite
def changed_files(draw):
    """Sound files, of which bytes are flipped, replaced by telling numbers, cut or moved."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "number", "short", "cut", "splice", "remove"]))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind in ("number", "short"):
            form = "I" if kind == "number" else "H"
            number = draw(st.sampled_from(TELLING)) & (2**32 - 1 if form == "I" else 2**16 - 1)
            stored = struct.pack(draw(st.sampled_from("<>")) + form, number)
            content[place : place + len(stored)] = stored
        elif kind == "cut":
            del content[place:]
        elif kind == "splice":
            other = draw(st.sampled_from(SEEDS))
            start = draw(st.integers(0, len(other) - 1))
            content[place : place + 40] = other[start : start + draw(st.integers(1, 200))]
        else:
            del content[place : place + draw(st.integers(1, 20))]
    return bytes(content)


def check(folder, content):
    """Whether a file of that content is read; what is not is refused as promised, and in time."""
    path = folder / "a.tif"
    path.write_bytes(content)
    began = time.monotonic()
    try:
        return fuzz.check_file(path)
    finally:
        assert time.monotonic() - began < fuzz.SECONDS


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=changed_files())
@pytest.mark.filterwarnings("ignore")  # of NumPy, zlib and Pillow: the file is what is wrong
def test_a_changed_file_is_read_or_refused(tmp_path, content):
    check(tmp_path, content)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=300), start=st.sampled_from([b"", b"II*\0", b"MM\0*", b"\x89PNG"])
)
@pytest.mark.filterwarnings("ignore")
def test_noise_is_refused(tmp_path, content, start):
    assert not check(tmp_path, start + content)


@pytest.mark.parametrize("content", SEEDS)
def test_the_sound_files_are_read(tmp_path, content):
    assert check(tmp_path, content)


@settings(deadline=None, max_examples=60)
@given(numbers=st.lists(st.integers(0, 2**16 - 1), min_size=6, max_size=6))
def test_tilings_cover_or_are_refused(numbers):
    try:
        tiling = fuzz.tilings(iter(numbers))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most numbers make a tiling
    else:
        fuzz.check_tiling(tiling)
