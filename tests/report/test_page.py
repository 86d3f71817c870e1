import base64
import io
from dataclasses import fields
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from keras_unet.report.page import Objects, Page, ShownImage, lossless_uri, lossy_uri, render
from keras_unet.report.tables import Table

EVIL = '<b>.tif" onload="alert(1)'
URI = "data:image/webp;base64,AAAA"


class Tags(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def full(name="a"):
    """A page on which every section has something, all of it by this name."""
    layers = dict.fromkeys(("image", "truth", "prediction"), URI)
    return Page(
        title=name,
        summary=name,
        data=[name],
        warnings=[name],
        network="<svg></svg>",
        network_text=name,
        curves=["<svg></svg>"],
        images=[ShownImage(name, name, layers), ShownImage(f"{name}2", "", layers)],
        images_text=name,
        worst=[ShownImage(name, name, {"outlines": URI})],
        best=[ShownImage(name, name, {"outlines": URI})],
        tables=[Table(name, [name, "IoU"], [[name, "0.5"]], ["all", name])],
        scores_text=name,
        objects=Objects(
            text=name,
            charts=["<svg></svg>"],
            table=Table(name, [name, "area"], [[name, "3"]]),
            download="data:text/csv;base64,YQ==",
        ),
        provenance={name: name},
        command=f"keras-unet train {name}",
        next_steps={name: name},
    )


def test_every_section_is_there():
    found = Tags(render(full()))
    assert [one["id"] for one in found.of("section")] == [
        *("images", "cells", "scores", "objects", "training", "data", "network", "made", "further")
    ]
    (link,) = (one for one in found.of("a") if "download" in one)
    assert link == {"download": "objects.csv", "href": "data:text/csv;base64,YQ=="}
    assert len(found.of("option")) == 2
    assert [one["value"] for one in found.of("input") if one["type"] == "radio"] == ["1", "2"]


def test_names_are_escaped_wherever_they_stand():
    page = Tags(render(full(EVIL)))
    assert not page.of("b")
    assert not [tag for tag, attributes in page.tags if "onload" in attributes]
    assert EVIL in page.words
    assert f"truth of {EVIL}" in [image["alt"] for image in page.of("img")]


def test_all_fields_are_shown():
    text = render(full("QQ"))
    assert text.count("QQ") >= len(fields(Page))


@pytest.mark.parametrize("empty", [(), "none"])
def test_what_has_nothing_to_show_is_left_out(empty):
    text = render(Page(title="t", summary="s", data=[empty] if empty else ()))
    found = Tags(text)
    assert [one["id"] for one in found.of("section")] == (["data"] if empty else [])
    assert not found.of("script")


def test_nothing_is_asked_of_a_network():
    text = render(full())
    for _, attributes in Tags(text).tags:
        for name in ("src", "href", "data", "poster"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "@import" not in text
    assert "url(http" not in text
    assert "default-src 'none'" in text


def test_both_schemes_and_phones_are_provided_for():
    text = render(full())
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport" content="width=device-width' in text


def read_back(uri):
    data = base64.b64decode(uri.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_drawings_are_kept_to_the_last_bit_and_photographs_nearly():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_back(lossless_uri(picture)), picture)
    grey = np.repeat(np.linspace(0, 255, 40, dtype=np.uint8)[None, :, None], 3, axis=2)
    smooth = np.repeat(grey, 40, axis=0)
    assert np.abs(read_back(lossy_uri(smooth)).astype(int) - smooth).max() < 12
    assert len(lossy_uri(picture)) < len(lossless_uri(picture))
