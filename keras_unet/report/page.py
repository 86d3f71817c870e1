"""Values of a report, and the page that is made of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from keras_unet.files import SOFTWARE, atomic, make_folder
from keras_unet.report.pictures import Picture
from keras_unet.report.tables import Table

_QUALITY = 88  # of a photograph, out of 100; drawings are kept to the last bit


@dataclass(frozen=True)
class ShownImage:
    """An image in the slider, or a cell and its surroundings.

    Attributes:
        name: Its name.
        caption: What is to be said of it.
        layers: Pictures of one size, as data URIs by title; the first lies beneath the others.
    """

    name: str
    caption: str
    layers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that a report shows; a section that has nothing to show is left out.

    Attributes:
        title: The heading.
        summary: A line below it.
        data: Lines on the data.
        warnings: What is odd about the data, or missing in the report.
        network: The network, as SVG.
        network_words: A line on the network.
        curves: Curves over the training, as SVG.
        images: Images with truth and prediction.
        images_words: A line on them.
        worst: Cells that were found worst.
        best: Cells that were found best.
        tables: Tables of scores.
        scores_words: A line on them.
        made: Provenance: names and values.
        command: The command that makes the same again.
        further: Commands for next steps, by purpose.
    """

    title: str
    summary: str
    data: Sequence[str] = ()
    warnings: Sequence[str] = ()
    network: str = ""
    network_words: str = ""
    curves: Sequence[str] = ()
    images: Sequence[ShownImage] = ()
    images_words: str = ""
    worst: Sequence[ShownImage] = ()
    best: Sequence[ShownImage] = ()
    tables: Sequence[Table] = ()
    scores_words: str = ""
    made: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    further: Mapping[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """Makes the HTML of a page; every value is escaped, and none may be missing."""
    environment = Environment(
        loader=PackageLoader("keras_unet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(page=page, software=SOFTWARE)


def write_page(path: Path, page: Page) -> Path:
    """Writes a page, whole or not at all.

    Args:
        path: The file; its folder is created where missing.
        page: The page.

    Returns:
        The file.
    """
    make_folder(path.parent)
    with atomic(path) as temporary:
        # Names of files hold bytes where the locale's encoding lacks their letters.
        stored = render(page).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        temporary.write_text(stored, encoding="utf-8")
    return path


def photograph(picture: Picture) -> str:
    """Packs a picture of grey values, with losses that are not seen, as a data URI."""
    return _data_uri(picture, {"quality": _QUALITY})


def drawing(picture: Picture) -> str:
    """Packs a picture of flat colors, without losses, as a data URI."""
    return _data_uri(picture, {"lossless": True})


def _data_uri(picture: Picture, options: dict[str, Any]) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="WEBP", method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
