"""Objects in a report."""

import base64
import csv
import io

import numpy as np

from keras_unet.data.synthetic import draw_cells
from keras_unet.evaluation.comparison import LabelPair
from keras_unet.evaluation.figures import ImagePair
from keras_unet.evaluation.objects import measured_objects


def image_pair(name, labels, result, image=None, pixel_size=None):
    counted = np.ones((1, *labels.shape), bool)
    pair = LabelPair(name, labels[None], result[None], (result > 0)[None].astype("f4"), counted)
    return ImagePair(pair, image, None, pixel_size)


def pairs(number=2, **options):
    drawn = [draw_cells(seed, size=(128, 128), cells=9) for seed in range(number)]
    return [
        image_pair(
            f"image {index}", labels, np.where(labels == 1, 0, labels), image[..., None], **options
        )
        for index, (image, labels) in enumerate(drawn)
    ]


def downloaded(found):
    head, content = found.download.split(",")
    assert head == "data:text/csv;base64"
    return list(csv.DictReader(io.StringIO(base64.b64decode(content).decode("utf-8"))))


def test_all_objects_are_in_the_file():
    images = pairs()
    found = measured_objects(images)
    rows = downloaded(found)
    numbers = [np.unique(image.labels.result)[1:].tolist() for image in images]
    assert [(row["file"], int(row["number"])) for row in rows] == [
        (f"image {index}", number) for index, part in enumerate(numbers) for number in part
    ]
    assert found.text.startswith(f"{len(rows)} predicted objects, {len(rows) + 2} in the labels.")
    assert [row[:2] for row in found.table.rows] == [[row["file"], row["number"]] for row in rows]
    assert "mean intensity" in found.table.head
    assert len(found.charts) == 2
    assert all("prediction" in chart and "<svg" in chart for chart in found.charts)


def test_micrometers_where_all_images_state_them():
    first, second = pairs(pixel_size=(0.5, 0.5))
    assert "area_um2" in downloaded(measured_objects([first, second]))[0]
    assert "Areas in µm²." in measured_objects([first, second]).text
    mixed = measured_objects([first, *pairs(1)])
    assert "area_um2" not in downloaded(mixed)[0]
    assert "Areas in pixels." in mixed.text


def test_without_images_there_are_no_intensities():
    labels = np.array([[1, 1, 0, 2]], np.int32)
    found = measured_objects([image_pair("a", labels, labels)])
    assert len(found.charts) == 1
    assert "mean intensity" not in found.table.head


def test_without_objects_there_is_no_section():
    labels = np.array([[1, 1, 0, 2]], np.int32)
    assert measured_objects([image_pair("a", labels, np.zeros_like(labels))]) is None


def test_a_long_table_is_cut():
    labels = np.arange(1, 151, dtype=np.int32).reshape(10, 15)
    found = measured_objects([image_pair("a", labels, labels)])
    assert len(found.table.rows) == 100
    assert found.table.note == "The first 100 of 150; the file has all."
    assert len(downloaded(found)) == 150
