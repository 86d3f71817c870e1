"""Pixels of a request, as other readers count them."""

from __future__ import annotations

import io
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_unet.serving.sizes import count_pixels


def file_of(height, width, kind):
    written = io.BytesIO()
    Image.new("L", (width, height)).save(written, kind)
    return written.getvalue()


sides = st.integers(1, 300)


@given(st.lists(st.tuples(sides, sides, st.sampled_from(["PNG", "JPEG"])), max_size=3))
@settings(deadline=None, max_examples=30)
def test_files_have_the_pixels_of_their_headers(sizes):
    files = np.array([file_of(*size) for size in sizes], object)
    expected = sum(height * width for height, width, _ in sizes)
    assert count_pixels({"image_bytes": files}) == expected


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff", b"\xff\xd8\xff" * 99])
def test_what_is_no_image_has_no_pixels(content):
    assert count_pixels({"query": np.array([content], object)}) == 0


def test_bombs_have_the_pixels_that_they_claim():
    png, jpeg = file_of(1, 1, "PNG"), bytearray(file_of(1, 1, "JPEG"))
    bomb = png[:16] + struct.pack(">II", 50_000, 40_000) + png[24:]
    assert count_pixels({"image_bytes": np.array([bomb], object)}) == 2 * 10**9
    start = jpeg.index(b"\xff\xc0") + 5  # height and width in the frame header
    jpeg[start : start + 4] = struct.pack(">HH", 65_000, 65_000)
    assert count_pixels({"image_bytes": np.array([bytes(jpeg)], object)}) == math.inf


@pytest.mark.parametrize(
    ("scale", "pixels"), [([2.0], 240), ([0.5, 1.5], 135), ([-9.0], 60), ([], 60)]
)
def test_pixels_are_counted_as_resampled(scale, pixels):
    inputs = {"image": np.zeros((2, 5, 6, 3), np.float32), "scale": np.float32(scale)}
    assert count_pixels(inputs) == pixels


def test_other_shapes_are_left_to_the_model():
    assert count_pixels({"image": np.zeros((5, 6))}) == 0
