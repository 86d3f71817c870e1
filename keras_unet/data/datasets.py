"""Public data sets that `keras-unet data` brings: where they lie, checksums, what is kept of them.

The SHA-256 of `dsb2018`, `PhC-C2DH-U373` and `DIC-C2DH-HeLa` are not their publishers', who name
none: they stand in the registry of torch-em (github.com/constantinpape/torch-em), and others who
downloaded the archives have written down the same. None was found for `isbi2012`: what comes first
is trusted, and what comes later must be the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """A data set that lies somewhere as a zip archive.

    Attributes:
        name: What a person types.
        shows: What the images are.
        url: Address of the archive.
        sha256: Its SHA-256, in hexadecimal digits; None where nobody is known to have stated it.
        places: What is kept: patterns of names in the archive, each with the place in the folder
            written, as `re.Match.expand` takes it. Every pattern must find a file.
        training: Folder of these that `train` takes.
        terms: License or conditions.
        cite: What to cite.
    """

    name: str
    shows: str
    url: str
    sha256: str | None
    places: tuple[tuple[str, str], ...]
    training: str
    terms: str
    cite: str


_FILE = r"(\w[\w.+-]*\.tif)"  # no hidden file, and no way out of a folder


def _of_tracking_challenge(name: str, shows: str, sha256: str) -> Dataset:
    return Dataset(
        name=name,
        shows=f"{shows}, of the Cell Tracking Challenge",
        url=f"https://data.celltrackingchallenge.net/training-datasets/{name}.zip",
        sha256=sha256,
        places=(
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
        shows="fluorescent nuclei of the Data Science Bowl 2018, the part that StarDist took",
        url="https://github.com/stardist/stardist/releases/download/0.1.0/dsb2018.zip",
        sha256="e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f",
        places=(
            (rf"(?:.*/)?(train|test)/images/{_FILE}", r"\1/images/\2"),
            (rf"(?:.*/)?(train|test)/masks/{_FILE}", r"\1/labels/\2"),
        ),
        training="train",
        terms="CC0, BBBC038",
        cite="Caicedo et al. 2019, Nature Methods 16:1247; Schmidt et al. 2018, MICCAI",
    ),
    Dataset(
        name="isbi2012",
        shows="membranes in electron microscopy, the ISBI 2012 challenge, as stacks",
        url="https://downloads.imagej.net/ISBI-2012-challenge.zip",
        sha256=None,
        places=(
            (r"(?:.*/)?train-volume\.tif", "train/images/volume.tif"),
            (r"(?:.*/)?train-labels\.tif", "train/labels/volume.tif"),
            (r"(?:.*/)?test-volume\.tif", "test/images/volume.tif"),
        ),
        training="train",
        terms="non-commercial research on segmentation",
        cite="Cardona et al. 2010, PLoS Biology 8:e1000502; "
        "Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142",
    ),
    _of_tracking_challenge(
        "PhC-C2DH-U373",
        "U373 cells in phase contrast",
        "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
    ),
    _of_tracking_challenge(
        "DIC-C2DH-HeLa",
        "HeLa cells in differential interference contrast",
        "832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a",
    ),
)

DATASETS = {dataset.name: dataset for dataset in _ALL}
"""The data sets, by name."""
