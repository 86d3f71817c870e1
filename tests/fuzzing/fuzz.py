"""Fuzzing of the readers and the tiling, by atheris: not a test, but a program that runs for long.

    python -m venv fuzzing && fuzzing/bin/pip install atheris . zarr==3.1.*
    fuzzing/bin/python tests/fuzzing/fuzz.py readers --minutes 5
    fuzzing/bin/python tests/fuzzing/fuzz.py tiling --minutes 5

It ends at the first input that breaks a promise of `check_file` or `check_tiling`, with a traceback
and a file `crash-...` in the folder that it was started in. What it has found is kept in
test_fuzzing.py, which also runs the same checks with hypothesis, for seconds.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from keras_unet.architecture import Architecture
from keras_unet.data.images import read_planes
from keras_unet.data.lazy import is_large, is_tiff, open_large
from keras_unet.tiling import Tiling, mirrored_window

MOST_BYTES = 4096  # of a file
SECONDS = 20  # that a file may take, on a busy machine
PIXELS = np.arange(15 * 17, dtype=np.uint16).reshape(15, 17)
OME = {"ome": True, "metadata": {"axes": "CYX"}}


def seeds() -> list[bytes]:
    """Writes small sound files of every kind that is read."""
    eight = PIXELS.astype(np.uint8)
    stack = np.stack([PIXELS, PIXELS + 1])
    written = [
        _tiff(PIXELS),
        _tiff(PIXELS, byteorder=">"),
        _tiff(PIXELS, bigtiff=True),
        _tiff(PIXELS, compression="zlib", rowsperstrip=4),
        _tiff(PIXELS, compression="lzw", predictor=True),
        _tiff(PIXELS, compression="packbits", tile=(16, 16)),
        _tiff(eight, compression="jpeg", tile=(16, 16)),
        _tiff(PIXELS > 99),
        _tiff(PIXELS.astype(np.float32), compression="zstd"),
        _tiff(stack, photometric="minisblack"),
        _tiff(stack, imagej=True),
        _tiff(stack, compression="zlib", **OME),
        _tiff(np.stack([eight] * 3, axis=-1), photometric="rgb"),
        _tiff(np.stack([eight] * 3), photometric="rgb", planarconfig="separate"),
        imagecodecs.png_encode(eight),
        imagecodecs.png_encode(PIXELS),
        imagecodecs.png_encode(np.stack([PIXELS] * 4, axis=-1)),
    ]
    image = Image.fromarray(eight)
    for form, mode in (("PNG", "P"), ("PNG", "1"), ("JPEG", "L"), ("BMP", "L"), ("GIF", "L")):
        file = io.BytesIO()
        image.convert(mode).save(file, form)
        written.append(file.getvalue())
    return written


def _tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def check_file(path: Path) -> bool:
    """Reads a file whole and by parts, and returns whether it was read whole.

    Raises:
        AssertionError: It was refused in other words than promised, or two ways gave two images.
        Exception: Whatever else should not have come through.
    """
    whole, parts = _attempt(_whole, path), _attempt(_by_parts, path)
    for refused in (whole, parts):
        if isinstance(refused, str):
            assert refused.startswith(str(path)), refused
            assert "\n" not in refused, refused
    if isinstance(whole, np.ndarray) and isinstance(parts, np.ndarray):
        assert whole.dtype == parts.dtype
        np.testing.assert_array_equal(whole, parts)
    return isinstance(whole, np.ndarray)


def _attempt(read, path: Path) -> np.ndarray | str:
    try:
        return read(path)
    except (ValueError, OSError) as error:
        return str(error)


def _whole(path: Path) -> np.ndarray:
    planes = read_planes(path)
    assert planes.ndim == 4
    assert planes.size
    return planes


def _by_parts(path: Path) -> np.ndarray:
    if not is_tiff(path):
        return read_planes(path, palette="indices")
    is_large(path)
    with open_large(path) as image:
        if np.prod(image.shape) > 2**20:
            raise ValueError(f"{path}: too large for this")
        rows, columns = slice(0, image.shape[1]), slice(0, image.shape[2])
        return np.stack([plane[rows, columns] for plane in image])


def check_tiling(tiling: Tiling) -> None:
    """Makes sure that tiles write each pixel once, and read it with its mirrored surroundings."""
    height, width = tiling.image_size
    image = np.arange(height * width).reshape(height, width)
    context = tiling.architecture.context
    if min(height, width) > 1:
        around = np.pad(image, [(context, 2 * max(tiling.tile_size))] * 2, mode="reflect")
    written = np.zeros_like(image)
    for tile in tiling:
        written[tile.write] += 1
        window = mirrored_window(image, *tile.read)
        assert window.shape == tiling.tile_size
        kept = tuple(
            slice(part.start + tiling.architecture.margin, part.stop + tiling.architecture.margin)
            for part in tile.keep
        )
        np.testing.assert_array_equal(window[kept], image[tile.write])
        if min(height, width) > 1:
            place = tuple(slice(p.start + context, p.stop + context) for p in tile.read)
            np.testing.assert_array_equal(window, around[place])
    assert (written == 1).all()


def tilings(numbers: Iterator[int]) -> Tiling:
    """Makes a tiling of whatever numbers there are.

    Raises:
        ValueError: It is refused.
    """
    height, width, depth, padding, tall, wide = itertools.islice(numbers, 6)
    network = Architecture(depth=1 + depth % 4, padding=("valid", "same")[padding % 2])
    sizes = tuple(
        network.fitting_size(1 + size % 300) if size % 3 else size % 400 for size in (tall, wide)
    )
    return Tiling((height % 200, width % 200), sizes, network)


def _fuzz_readers(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as one:
        path = Path(one) / "a.tif"
        path.write_bytes(content)
        check_file(path)


def _fuzz_tiling(content: bytes) -> None:
    numbers = itertools.chain(np.frombuffer(content[: len(content) // 2 * 2], "<u2").tolist())
    try:
        tiling = tilings(itertools.chain(numbers, itertools.repeat(7)))
    except ValueError:
        return
    check_tiling(tiling)


def main() -> None:
    """Fuzzes until the time is over or something breaks."""
    import atheris

    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("target", choices=["readers", "tiling"])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--corpus", type=Path, help="Folder of inputs to go on from, kept.")
    asked = parser.parse_args()
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as temporary:
        corpus = asked.corpus or Path(temporary)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(seeds() if asked.target == "readers" else ()):
            (corpus / f"seed-{number}").write_bytes(content)
        atheris.instrument_all()
        atheris.Setup(
            [
                sys.argv[0],
                f"-max_total_time={asked.minutes * 60:.0f}",
                f"-max_len={MOST_BYTES if asked.target == 'readers' else 12}",
                f"-timeout={SECONDS}",
                "-rss_limit_mb=2048",
                str(corpus),
            ],
            {"readers": _fuzz_readers, "tiling": _fuzz_tiling}[asked.target],
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
