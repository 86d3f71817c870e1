"""Registry of the public data sets for `keras-unet data`: addresses, checksums, files, terms.

The publishers of `dsb2018`, `PhC-C2DH-U373` and `DIC-C2DH-HeLa` state no checksum; the SHA-256 is
from the registry of torch-em (github.com/constantinpape/torch-em), and agrees with those that other
users recorded. There is none for `isbi2012`: the first download is trusted, and later ones must be
the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """Public data set in a zip archive.

    Attributes:
        name: Name on the command line.
        description: Content of the images.
        url: Address of the archive.
        sha256: SHA-256 of the archive, in hexadecimal digits; None if unknown.
        paths: Files to unpack: pattern of the name in the archive, and path in the output folder as
            a template of `re.Match.expand`. Every pattern must match a file.
        training: Subfolder with the training data.
        terms: License or conditions.
        cite: Publications to cite.
    """

    name: str
    description: str
    url: str
    sha256: str | None
    paths: tuple[tuple[str, str], ...]
    training: str
    terms: str
    cite: str


_FILE = r"(\w[\w.+-]*\.tif)"  # no hidden file, and no path


def _tracking_challenge(name: str, description: str, sha256: str) -> Dataset:
    return Dataset(
        name=name,
        description=f"{description}, of the Cell Tracking Challenge",
        url=f"https://data.celltrackingchallenge.net/training-datasets/{name}.zip",
        sha256=sha256,
        paths=(
            (rf"(?:.*/)?(0[12])/{_FILE}", r"\1/\2"),
            (rf"(?:.*/)?(0[12]_GT/SEG)/{_FILE}", r"\1/\2"),
        ),
        training="",
        terms="conditions of the Cell Tracking Challenge, https://celltrackingchallenge.net/datasets",
        cite="Ulman et al. 2017, Nature Methods 14:1141",
    )


_ALL = (
    Dataset(
        name="dsb2018",
        description="fluorescent nuclei of the Data Science Bowl 2018, the subset of StarDist",
        url="https://github.com/stardist/stardist/releases/download/0.1.0/dsb2018.zip",
        sha256="e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f",
        paths=(
            (rf"(?:.*/)?(train|test)/images/{_FILE}", r"\1/images/\2"),
            (rf"(?:.*/)?(train|test)/masks/{_FILE}", r"\1/labels/\2"),
        ),
        training="train",
        terms="CC0, BBBC038",
        cite="Caicedo et al. 2019, Nature Methods 16:1247; Schmidt et al. 2018, MICCAI",
    ),
    Dataset(
        name="isbi2012",
        description="membranes in electron microscopy, the ISBI 2012 challenge, as stacks",
        url="https://downloads.imagej.net/ISBI-2012-challenge.zip",
        sha256=None,
        paths=(
            (r"(?:.*/)?train-volume\.tif", "train/images/volume.tif"),
            (r"(?:.*/)?train-labels\.tif", "train/labels/volume.tif"),
            (r"(?:.*/)?test-volume\.tif", "test/images/volume.tif"),
        ),
        training="train",
        terms="non-commercial research on segmentation",
        cite="Cardona et al. 2010, PLoS Biology 8:e1000502; "
        "Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142",
    ),
    _tracking_challenge(
        "PhC-C2DH-U373",
        "U373 cells in phase contrast",
        "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
    ),
    _tracking_challenge(
        "DIC-C2DH-HeLa",
        "HeLa cells in differential interference contrast",
        "832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a",
    ),
)

DATASETS = {dataset.name: dataset for dataset in _ALL}
"""The data sets, by name."""
