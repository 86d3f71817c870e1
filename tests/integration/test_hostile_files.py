"""Image files that are damaged or made to do harm: each is read right, or refused in one line.

The files are written here byte by byte. All are read by one process that may have no more than
2 GiB of addresses, its libraries included, which is less than most of them state: what they state
is never allocated. Other bad input is listed in test_bad_input.py.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from keras_unet.cli import main
from keras_unet.data import tiffs
from keras_unet.data.images import read_planes

PIXELS = np.arange(16, dtype=np.uint8).reshape(4, 4)
BYTES = PIXELS.tobytes()
ROWS = zlib.compress(bytes(20))  # of a PNG: each begins with a 0
SECONDS = 10  # that any of the files may take, on a busy machine
ZLIB = 8

Tags = Mapping[int, tuple[int, Sequence[int]]]


def tiff(data=BYTES, size=(4, 4), tags: Tags | None = None, following=0, **stated):
    """Writes a grey TIFF of 8 bits: header, data, then one list of tags, whatever they say."""
    height, width = size
    long = {"offsets": (8,), "counts": (len(data),), "rows": (height,), "compression": (1,)}
    long |= stated
    written = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8]),
        259: (3, long["compression"]),
        262: (3, [1]),
        273: (4, long["offsets"]),
        277: (3, [1]),
        278: (4, long["rows"]),
        279: (4, long["counts"]),
    } | dict(tags or {})
    place = 8 + len(data)
    return struct.pack("<2sHI", b"II", 42, place) + data + page(written, place, following)


def page(tags: Tags, place: int, following: int) -> bytes:
    """Writes a list of tags for that place in a file, and the place of the one after it."""
    beyond = place + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for code, (kind, numbers) in sorted(tags.items()):
        stored = struct.pack(f"<{len(numbers)}{'HI'[kind - 3]}", *numbers)
        entries += struct.pack("<HHI", code, kind, len(numbers))
        entries += (
            stored.ljust(4, b"\0") if len(stored) <= 4 else struct.pack("<I", beyond + len(values))
        )
        values += stored if len(stored) > 4 else b""
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + values


def pages(number: int, following: int = 0) -> bytes:
    """Writes a TIFF of so many pages of the same pixels; the last one leads to `following`."""
    tags: Tags = {
        **dict.fromkeys((256, 257, 278), (4, [4])),
        **dict.fromkeys((258, 273), (3, [8])),
        **dict.fromkeys((259, 262), (3, [1])),
        279: (4, [16]),
    }
    file = bytearray(struct.pack("<2sHI", b"II", 42, 24) + PIXELS.tobytes())
    length = len(page(tags, 0, 0))
    for one in range(number):
        after = len(file) + length if one < number - 1 else following
        file += page(tags, len(file), after)
    return bytes(file)


def compressed(pixels: bytes, **stated: Any) -> bytes:
    """Writes a TIFF whose one strip is compressed."""
    return tiff(zlib.compress(pixels), **{"compression": (ZLIB,)} | stated)


def described(description: str) -> bytes:
    """Writes a sound TIFF of one page, of which the description says something else."""
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, description=description, metadata=None)
    return file.getvalue()


def ome(planes: int, notes: str = "") -> bytes:
    """Writes an OME-TIFF of one page, which states so many planes."""
    return described(
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="4" '
        f'SizeY="4" SizeC="1" SizeZ="{planes}" SizeT="1"><TiffData IFD="0" PlaneCount="1"/>'
        f"</Pixels></Image>{notes}</OME>"
    )


MODULO = (
    '<StructuredAnnotations><XMLAnnotation ID="a" Namespace="x/modulo"><Value><Modulo><ModuloAlongZ'
    ' Type="angle" Start="0" End="1e12" Step="1"/></Modulo></Value></XMLAnnotation>'
    "</StructuredAnnotations>"
)


def png(size=(4, 4), data=ROWS, bits=8) -> bytes:
    """Writes a grey PNG, whatever its header says."""
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def jpeg(height: int, width: int) -> bytes:
    """Writes a JPEG of 4 x 4 pixels whose header states others."""
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "JPEG")
    size = b"\xff\xc0\0\x0b\x08"
    small, stated = (size + struct.pack(">HH", *one) for one in ((4, 4), (height, width)))
    return file.getvalue().replace(small, stated)


def bmp(height: int, width: int) -> bytes:
    numbers = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + numbers


def gif(height: int, width: int) -> bytes:
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\0\0\0,\0\0\0\0" + size + b"\0\x02\x02\x4c\x01\0;"


HUGE = 60_000, 60_000
ENDS = "it ends before its last pixel"
READ = None  # as what is drawn, PIXELS
FILES = {
    "empty": (b"", "the file is empty"),
    "TIFF, header alone": (b"II*\0", "cannot be read"),
    "TIFF, truncated in its pixels": (
        tiff()[:20],
        "its list of pages leads beyond the end of the file",
    ),
    "TIFF, truncated in its tags": (tiff()[:60], "cannot be read"),
    "TIFF, truncated before its second page": (
        pages(2)[: len(pages(1))],
        "its list of pages leads beyond the end of the file",
    ),
    "TIFF, tags beyond the end": (b"II*\0\xff\xff\xff\x7f", "cannot be read"),
    "TIFF, 65,535 tags": (b"II*\0\x08\0\0\0\xff\xff" + bytes(40), "suspicious number of tags"),
    "TIFF, a tag of 2^32 numbers": (
        b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 273, 4, 2**32 - 1, 8, 0),
        "cannot be read",
    ),
    "TIFF, no tag of strips": (
        b"II*\0\x08\0\0\0" + page({256: (4, [4]), 257: (4, [4]), 258: (3, [8])}, 8, 0),
        "it has 0 of 1 tiles or strips",
    ),
    "TIFF, huge size": (tiff(size=(10**6, 10**6)), ENDS),
    "TIFF, huge size and length": (tiff(size=HUGE, counts=(3_600_000_000,)), ENDS),
    "TIFF, huge size of a small strip": (
        compressed(bytes(4000), size=HUGE),
        "it states 3,600,000,000 bytes of pixels, more than 1,100 times its file size",
    ),
    "TIFF, huge tile of a small image": (
        compressed(
            bytes(16),
            tags={322: (4, [2**16]), 323: (4, [2**16]), 324: (4, [8]), 325: (4, [12])},
        ),
        "it states 4,294,967,296 bytes of pixels",
    ),
    "TIFF, huge JPEG inside": (
        tiff(jpeg(65_500, 65_500), compression=(7,)),
        "a tile or strip of it states 65500 x 65500 pixels",
    ),
    "TIFF, huge depth": (tiff(tags={32997: (4, [10**6])}), ENDS),
    "TIFF, 65,535 samples": (tiff(tags={277: (3, [65_535])}), "cannot be read"),
    "TIFF, 255 bits": (tiff(tags={258: (3, [255])}), "cannot be read"),
    "TIFF, no width": (tiff(size=(4, 0)), "cannot be read"),
    "TIFF, tiles of no size": (
        tiff(tags={322: (4, [0]), 323: (4, [0]), 324: (4, [8]), 325: (4, [16])}),
        "cannot be read",
    ),
    "TIFF, page that leads to itself": (
        tiff(following=24),
        "its list of pages is circular",
    ),
    "TIFF, cyclic pages": (pages(3, following=24), "list of pages is circular"),
    "TIFF, cyclic pages late": (pages(150, following=len(pages(120))), "list of pages is circular"),
    "TIFF, too few strips": (tiff(rows=(1,), offsets=(8, 12), counts=(4, 4)), "2 of 4 tiles or"),
    "TIFF, fewer lengths than strips": (
        tiff(rows=(1,), offsets=(8, 12, 16, 20), counts=(4, 4)),
        "it has 2 of 4 tiles or strips",
    ),
    "TIFF, too many strips": (
        tiff(rows=(1,), offsets=(8, 12, 16, 20, 0, 9), counts=(4,) * 6),
        READ,
    ),
    "TIFF, strip too short": (tiff(counts=(7,)), READ),  # the bytes are there; libtiff reads them
    "TIFF, compressed strip too short": (compressed(bytes(7)), "cannot be reshaped"),
    "TIFF, compressed strip too long": (compressed(bytes(2**20)), "cannot be read"),
    "TIFF, compressed strip of no length": (compressed(bytes(16), counts=(0,)), "is empty"),
    "TIFF, compressed strip damaged": (tiff(compression=(ZLIB,)), "cannot be read"),
    "TIFF, strip at byte 0": (tiff(offsets=(0,)), "would begin at byte 0"),  # found by fuzzing
    "TIFF, strip beyond the end": (tiff(offsets=(10**6,)), ENDS),
    "TIFF, compressed strip beyond the end": (compressed(bytes(16), offsets=(10**6,)), ENDS),
    "OME-TIFF, planes that are in no file": (ome(5), "4 of its 5 planes are missing"),
    "OME-TIFF, 10^9 planes": (ome(10**9), "it states 1,000,000,000 planes, more than 1,048,576"),
    "OME-TIFF, 10^12 angles": (ome(1, MODULO), "it states 1,000,000,000,000 planes"),
    "OME-TIFF, no XML": (described("<?xml version='1.0'?><OME <<</OME>"), READ),
    "TIFF, description of 10^9 planes": (described('{"shape": [1000000000, 4, 4]}'), ENDS),
    "ImageJ TIFF, 10^9 slices": (
        described("ImageJ=1.11a\nimages=1000000000\nslices=1000000000\nhyperstack=true\n"),
        "it states 1,000,000,000 planes",
    ),
    "PNG, header alone": (png()[:20], "cannot be read"),
    "PNG, truncated": (png()[:-20], "cannot be read"),
    "PNG, damaged": (png(data=b"damaged"), "cannot be read"),
    "PNG bomb, header": (png(HUGE), "it states 60000 x 60000 pixels, more than 268,435,456"),
    "PNG bomb, largest": (png((2**31 - 1,) * 2), "it states 2147483647 x 2147483647 pixels"),
    "PNG bomb, 1 bit": (png(HUGE, bits=1), "exceeds limit"),
    "BMP, huge": (bmp(*HUGE), "exceeds limit"),
    "GIF, huge": (gif(65_535, 65_535), "exceeds limit"),
}

READER = """
import json, resource, sys, time
from pathlib import Path
import logging
from keras_unet.data.images import read_planes
from keras_unet.data.lazy import is_large, is_tiff, open_large
import zarr, tifffile.zarr
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2)

def by_parts(path):
    if not is_tiff(path):
        return read_planes(path)
    is_large(path)
    with open_large(path) as image:
        (plane,) = image
        return plane[0 : plane.shape[0], 0 : plane.shape[1]][None]

for path in map(Path, sys.argv[1:]):
    for read in (read_planes, by_parts):
        began = time.monotonic()
        try:
            answer = read(path).tolist()
        except ValueError as error:
            answer = str(error)
        print(json.dumps([path.name, answer, time.monotonic() - began]), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What a process of little memory says of each file, read whole and by parts."""
    pytest.importorskip("resource")  # not on Windows
    folder = tmp_path_factory.mktemp("hostile")
    paths = [folder / f"{number}.tif" for number in range(len(FILES))]
    for path, (content, _) in zip(paths, FILES.values(), strict=True):
        path.write_bytes(content)
    command = [sys.executable, "-c", READER, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # nor does a decoder's own voice get through
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return dict(zip(FILES, zip(lines[::2], lines[1::2], strict=True), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_right_or_refused_in_one_line(answers, name):
    _, expected = FILES[name]
    for file, answer, seconds in answers[name]:
        assert seconds < SECONDS
        if expected is READ:
            assert answer == PIXELS[np.newaxis, ..., np.newaxis].tolist()
        else:
            assert isinstance(answer, str), answer
            assert f"{file}: cannot be read as an image" in answer
            assert "\n" not in answer
    if expected is not READ:
        (_, whole, _), _ = answers[name]
        assert expected in whole


@pytest.mark.parametrize("name", [name for name in FILES if FILES[name][1] is not READ])
def test_the_command_line_refuses_it_with_code_2(tmp_path, name):
    for folder in ("predictions", "labels"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", PIXELS)
    (tmp_path / "labels" / "a.tif").write_bytes(FILES[name][0])
    folders = [str(tmp_path / "predictions"), str(tmp_path / "labels")]
    result = CliRunner().invoke(main, ["evaluate", *folders])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert "labels/a.tif: cannot be read as an image" in line


def test_more_than_the_memory_holds_is_refused(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, compression="zlib")
    monkeypatch.setattr(tiffs, "total_memory", lambda: 15)
    with pytest.raises(ValueError, match=r"a\.tif: .*takes 16 bytes, more than the memory"):
        read_planes(tmp_path / "a.tif")


def test_a_tile_that_was_left_out_is_empty(tmp_path):
    """Place and length 0: the convention of writers for tiles without content."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, rowsperstrip=2, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages.first.tags
        for name in ("StripOffsets", "StripByteCounts"):
            tags[name].overwrite((tags[name].value[0], 0))
    planes = read_planes(path)[0, ..., 0]
    np.testing.assert_array_equal(planes, np.where(np.arange(4)[:, None] < 2, PIXELS, 0))


def test_a_large_jpeg_is_read_without_a_warning(tmp_path, monkeypatch, recwarn):
    Image.new("L", (40, 50), 7).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    assert read_planes(tmp_path / "a.jpg").shape == (1, 50, 40, 1)
    assert not recwarn.list
