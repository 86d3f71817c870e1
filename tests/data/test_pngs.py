"""The header of a PNG says what it holds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from keras_unet.data import pngs

PLANE = np.arange(12, dtype=np.uint8).reshape(3, 4)


def stored(*planes, mode="L", **options):
    first, *others = (Image.fromarray(plane).convert(mode) for plane in planes)
    file = io.BytesIO()
    first.save(file, "PNG", save_all=bool(others), append_images=others, **options)
    return file.getvalue()


KINDS = {
    "grey": (stored(PLANE), True, 256),
    "colors": (stored(PLANE, mode="RGB"), True, 256),
    "palette": (stored(PLANE, mode="P"), False, 256),
    "1 bit": (stored(PLANE, mode="1"), False, 2),
    "4 bits": (stored(PLANE, bits=4), False, 16),
    "cut": (pngs.SIGNATURE, False, None),
}


@pytest.mark.parametrize(("file", "is_whole", "levels"), KINDS.values(), ids=KINDS)
def test_what_the_samples_are(file, is_whole, levels):
    start = file[: pngs.HEADER]
    assert pngs.has_whole_samples(start) == is_whole
    if levels is not None:
        assert pngs.levels_of_grey(start) == levels


def test_frames_are_counted():
    assert pngs.frames(stored(PLANE)) == 1
    assert pngs.frames(stored(PLANE, 9 + PLANE, 3 + PLANE)) == 3
    assert pngs.frames(b"") == 1


def test_too_many_pixels_are_refused(monkeypatch):
    pngs.check_size(stored(PLANE)[: pngs.HEADER])
    monkeypatch.setattr(pngs, "MOST_PIXELS", 11)
    with pytest.raises(ValueError, match="states 4 x 3 pixels, more than 11"):
        pngs.check_size(stored(PLANE)[: pngs.HEADER])
