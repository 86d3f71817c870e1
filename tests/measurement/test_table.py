"""CSV tables of objects."""

import csv
from pathlib import Path

import numpy as np

from keras_unet.files import own_kind
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.measurement.table import write_table


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(name, *planes, **options):
    return ImageObjects(Path(name), [PlaneObjects.of(np.array(p), **options) for p in planes]).table


def test_a_row_for_each_object(tmp_path):
    write_table(tmp_path / "t.csv", [table("ä,b.tif", [[3, 0, 5]], [[0, 1, 1]])])
    found = rows(tmp_path / "t.csv")
    assert [(row["file"], row["plane"], row["number"]) for row in found] == [
        ("ä,b.tif", "1", "3"),
        ("ä,b.tif", "1", "5"),
        ("ä,b.tif", "2", "1"),
    ]
    assert [row["area_px"] for row in found] == ["1", "1", "2"]
    assert found[0]["touches_border"] == "True"
    assert found[0]["circularity"] == ""  # of one pixel
    assert own_kind(tmp_path / "t.csv") == "csv"


def test_tables_of_other_columns(tmp_path):
    write_table(tmp_path / "t.csv", [table("a", [[1]]), table("b", [[1]], pixel_size=0.1)])
    first, second = rows(tmp_path / "t.csv")
    assert (first["area_um2"], second["area_um2"]) == ("", "0.01")


def test_no_object_gives_a_header(tmp_path):
    write_table(tmp_path / "t.csv", [table("a", [[0]])])
    assert rows(tmp_path / "t.csv") == []
    assert own_kind(tmp_path / "t.csv") == "csv"


def test_numbers_keep_twelve_digits(tmp_path):
    write_table(tmp_path / "t.csv", [{"file": np.array(["a"]), "sum": np.array([98765432101.5])}])
    assert rows(tmp_path / "t.csv")[0]["sum"] == "98765432101.5"
