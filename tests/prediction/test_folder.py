import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr
from logs import logged
from PIL import Image
from roifile import roiread

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes
from keras_unet.instances.label import label_instances
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.outputs import OutputOptions
from keras_unet.runs import Run


def grey(path, shape=(40, 50), dtype=np.uint16, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    tifffile.imwrite(path, array, **options)
    return path


def predict(*arguments, **options):
    return predict_files(*arguments, **options)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def changed_run(trained, tmp_path):
    """Copies the small run with something about it changed."""

    def change(edit):
        folder = tmp_path / "changed"
        shutil.copytree(trained, folder)
        edit(folder)
        return folder

    return change


def test_outputs_have_the_images_own_size(trained, tmp_path):
    images = [
        grey(tmp_path / "odd.tif", (57, 83)),
        grey(tmp_path / "pixel.tif", (1, 1)),
        grey(tmp_path / "stack.tif", (3, 20, 31), photometric="minisblack"),
    ]
    predict(trained, images, tmp_path / "out", save=["instances", "classes", "probabilities"])
    shapes = {path.stem: tifffile.imread(path).shape for path in (tmp_path / "out").iterdir()}
    assert shapes == {
        "odd": (57, 83),
        "odd_classes": (57, 83),
        "odd_probabilities": (2, 57, 83),
        "pixel": (1, 1),
        "pixel_classes": (1, 1),
        "pixel_probabilities": (2, 1, 1),
        "stack": (3, 20, 31),
        "stack_classes": (3, 20, 31),
        "stack_probabilities": (3, 2, 20, 31),
    }


def test_outputs_agree_with_each_other(trained, cells, tmp_path):
    image = cells / "images" / "c3.tif"
    written = predict(trained, [image], tmp_path, save=["instances", "classes", "probabilities"])
    instances, classes, probabilities = map(tifffile.imread, written)
    assert [path.name for path in written] == ["c3.tif", "c3_classes.tif", "c3_probabilities.tif"]
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(classes, probabilities.argmax(axis=0))
    assert instances.dtype == np.uint8
    rule = Run.load(trained).instances
    expected = label_instances(np.clip(1 - probabilities[0], 0, 1), rule)
    np.testing.assert_array_equal(instances, expected)


RULES = {
    "threshold": {"threshold": 0.9},
    "markers": {"markers": "components"},
    "merge_threshold": {"merge_threshold": 1.0, "minimum_size": 0},
    "minimum_size": {"minimum_size": 1500},
    "gap": {"gap": 12},
    "fill_holes": {"fill_holes": False, "markers": "probability", "threshold": 0.7},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_numbers_of_the_rule_can_be_replaced(trained, cells, tmp_path, rule):
    image = cells / "images" / "c3.tif"
    outputs = {"save": ["instances", "probabilities"]}
    with logged() as said:
        path, soft = predict(trained, [image], tmp_path, instances=rule, **outputs)
    asked = replace(Run.load(trained).instances, **rule)
    expected = label_instances(np.clip(1 - tifffile.imread(soft)[0], 0, 1), asked)
    np.testing.assert_array_equal(tifffile.imread(path), expected)
    assert said[:2] == [asked.describe(), str(image)]  # a comparison of sizes may follow


def test_the_average_over_the_symmetries_turns_with_the_image(trained, cells, tmp_path):
    pixels = tifffile.imread(cells / "images" / "c3.tif")[:, :81]
    tifffile.imwrite(tmp_path / "upright.tif", pixels)
    tifffile.imwrite(tmp_path / "turned.tif", np.rot90(pixels[::-1]))
    images = [tmp_path / "upright.tif", tmp_path / "turned.tif"]
    options = {"save": ["probabilities"], "tta": True}
    upright, turned = map(tifffile.imread, predict(trained, images, tmp_path / "out", **options))
    np.testing.assert_allclose(turned, np.rot90(upright[:, ::-1], axes=(1, 2)), atol=1e-5)
    (plain,) = predict(trained, images[:1], tmp_path / "plain", save=["probabilities"])
    assert np.abs(tifffile.imread(plain) - upright).max() > 1e-4


def test_more_cells_than_65535_are_written_as_uint32(trained, tmp_path, monkeypatch):
    many = np.arange(40 * 50, dtype=np.int32).reshape(40, 50) + 65_000
    monkeypatch.setattr("keras_unet.prediction.outputs.label_instances", lambda *_: many)
    (path,) = predict(trained, [grey(tmp_path / "a.tif")], tmp_path / "out")
    assert tifffile.imread(path).dtype == np.uint32
    np.testing.assert_array_equal(tifffile.imread(path), many)


def test_each_plane_of_a_stack_is_predicted_as_an_image_of_its_own(trained, cells, tmp_path):
    names = ("c0", "c1")
    images = [cells / "images" / f"{name}.tif" for name in names]
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.stack([tifffile.imread(path) for path in images]))
    predict(trained, [*images, stack], tmp_path / "out", save=["probabilities"])
    single = [tifffile.imread(tmp_path / "out" / f"{name}_probabilities.tif") for name in names]
    together = tifffile.imread(tmp_path / "out" / "stack_probabilities.tif")
    np.testing.assert_allclose(together, single, atol=1e-6)


def test_a_folder_stands_for_the_images_in_it(trained, tmp_path):
    for name in ("b.tif", "a.ome.tif", ".hidden.tif"):
        grey(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "other").mkdir()
    with logged() as said:
        written = predict(trained, [tmp_path / "images"], tmp_path / "out")
    unread = "2 files in images not read: notes.txt (not an image), other (a folder)"
    assert said[0] == f"Warning: {unread}"
    done = [line for line in said if line.startswith(str(tmp_path / "images"))]
    assert done == [str(tmp_path / "images" / name) for name in ("a.ome.tif", "b.tif")]
    assert [path.name for path in written] == ["a.tif", "b.tif"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif"]


def test_outputs_are_named_without_the_whole_ending(trained, tmp_path):
    for name in ("im0", "im1.btf", "im2.tf8", "im3.OME.TIF"):
        grey(tmp_path / "a.tif").rename(tmp_path / name)
    written = predict(trained, [tmp_path], tmp_path / "out")
    assert [path.name for path in written] == ["im0.tif", "im1.tif", "im2.tif", "im3.tif"]


def test_grey_in_three_equal_channels_is_grey(trained, tmp_path):
    one = grey(tmp_path / "one.tif", dtype=np.uint8)
    three = tmp_path / "three.tif"
    tifffile.imwrite(three, np.repeat(tifffile.imread(one)[..., None], 3, -1), photometric="rgb")
    first, second = predict(trained, [one, three], tmp_path / "out", save=["probabilities"])
    np.testing.assert_array_equal(tifffile.imread(first), tifffile.imread(second))


@pytest.mark.parametrize("options", [{"tile_size": 60}, {"precision": "bfloat16"}])
def test_tile_and_precision_hardly_matter(trained, cells, tmp_path, options):
    image = cells / "images" / "c3.tif"
    (plain,) = predict(trained, [image], tmp_path / "plain", save=["probabilities"])
    (other,) = predict(trained, [image], tmp_path / "other", save=["probabilities"], **options)
    tolerance = 0.05 if "precision" in options else 1e-5
    np.testing.assert_allclose(tifffile.imread(other), tifffile.imread(plain), atol=tolerance)


def test_what_is_read_otherwise_is_warned_of_without_being_asked(trained, tmp_path, caplog):
    pixels = np.full((80, 90, 2), 255, np.uint8)
    pixels[:40, :, 1] = 9
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    predict(trained, [tmp_path / "a.png"], tmp_path / "out")
    (record,) = [one for one in caplog.records if "alpha channel" in one.message]
    assert record.levelname == "WARNING"
    assert record.message.startswith("a.png: ")


def test_one_class_everywhere_is_said(trained, tmp_path, monkeypatch):
    def background(_, image, architecture, **__):
        return np.eye(architecture.classes, dtype=np.float32)[np.zeros(image.shape[:2], int)]

    monkeypatch.setattr("keras_unet.prediction.segmenter.predict_outputs", background)
    with logged() as said:
        predict(trained, [grey(tmp_path / "a.tif")], tmp_path / "out")
    assert said[0] == Run.load(trained).instances.describe()
    assert said[1] == str(tmp_path / "a.tif")
    assert said[2].startswith("Warning: every pixel of every image is predicted as class 0 (backg")
    assert len(said) == 3


def test_two_classes_are_nothing_to_say(trained, cells, tmp_path):
    with logged() as said:
        predict(trained, [cells / "images"], tmp_path / "out", save=["classes"])
    assert not any(line.startswith("Warning") for line in said)


REFUSED = {
    "missing": (["a.tif", "nowhere.tif"], {}, FileNotFoundError, "nowhere.tif: no such file"),
    "no image in a folder": (["empty"], {}, ValueError, "empty: expected a folder of images"),
    "text": (["a.tif", "text.tif", "b.tif"], {}, ValueError, "text.tif: cannot be read as an"),
    "truncated": (["a.tif", "cut.tif", "b.tif"], {}, ValueError, "cut.tif: cannot be read as an"),
    "NaN": (["nan.tif"], {}, ValueError, "nan.tif: 1 of 2,000 pixels are NaN"),
    "channels": (["a.tif", "rgb.tif"], {}, ValueError, "rgb.tif: expected 1 channel .*received 3"),
    "stems": (["a.tif", "other/a.png"], {}, ValueError, "Received a more than once"),
    "stems of OME": (["a.tif", "a.ome.tif"], {}, ValueError, "Received a more than once"),
    "companions": (["a.tif", "a_classes.tif"], {}, ValueError, "a_classes: .*taken for one of a"),
    "replaced": (
        ["a.tif"],
        {"out": "."},
        ValueError,
        "a.tif: expected an output that does not replace",
    ),
    "file in the way": (["a.tif"], {"out": "b.tif"}, OSError, "b.tif: expected a writable folder"),
    "below a file": (["a.tif"], {"out": "b.tif/x"}, OSError, "b.tif: expected a writable folder"),
    "output": (["a.tif"], {"save": ["masks"]}, ValueError, "save must be of instances,.*masks"),
    "tile": (["a.tif"], {"tile_size": 47}, ValueError, r"tile_size must be 2k.*47"),
    "threshold": (
        ["a.tif"],
        {"instances": {"threshold": 2}},
        ValueError,
        "threshold must be a p",
    ),
    "rule": (
        ["a.tif"],
        {"instances": {"gap": 0, "merge_threshold": 0}, "save": ["classes"]},
        ValueError,
        "gap, merge_threshold: options for instances, .*Received: classes; save instances as well",
    ),
    "precision": (["a.tif"], {"precision": "float8"}, ValueError, "precision must be.*float8"),
}


@pytest.fixture
def images(tmp_path):
    for name in ("a.tif", "b.tif", "a.ome.tif", "a_classes.tif", "cut.tif"):
        grey(tmp_path / name)
    grey(tmp_path / "rgb.tif", (40, 50, 3), np.uint8, photometric="rgb")
    grey(tmp_path / "other" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-100])
    pixels = np.zeros((40, 50), np.float32)
    pixels[7, 7] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", pixels)
    return tmp_path


@pytest.mark.parametrize(("files", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_before_anything_is_written(
    trained, images, files, options, error, message
):
    before = contents(images)
    out = images / options.pop("out", "out") if "out" in options else images / "out"
    with pytest.raises(error, match=message) as caught:
        predict(trained, [images / name for name in files], out, **options)
    assert "\n" not in str(caught.value)
    assert contents(images) == before
    assert not (images / "out").exists()


def test_pixels_are_decoded_once_and_in_turn(trained, images, monkeypatch):
    """What a header does not tell, a NaN, is found when it is the file's turn."""
    decoded = []
    read = tifffile.TiffPageSeries.asarray
    monkeypatch.setattr(
        tifffile.TiffPageSeries,
        "asarray",
        lambda series, **how: decoded.append(series.parent.filename) or read(series, **how),
    )
    files = [images / name for name in ("a.tif", "b.tif", "nan.tif")]
    with pytest.raises(ValueError, match=r"nan.tif: 1 of 2,000 pixels are NaN"):
        predict(trained, files, images / "out")
    assert decoded == ["a.tif", "b.tif", "nan.tif"]
    assert sorted(path.name for path in (images / "out").iterdir()) == ["a.tif", "b.tif"]


def test_a_png_is_replaced_by_nothing_and_may_be_predicted_where_it_lies(trained, tmp_path):
    image = grey(tmp_path / "a.png", dtype=np.uint8)
    with pytest.raises(ValueError, match="one that holds an image to predict; choose another"):
        predict(trained, [image], tmp_path)
    assert predict(trained, [image], tmp_path, overwrite=True) == [tmp_path / "a.tif"]
    assert read_planes(image).shape == (1, 40, 50, 1)


def test_labels_drawn_by_hand_are_not_replaced_unless_asked(trained, cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    before = contents(data)
    with pytest.raises(ValueError, match=r"labels/c0.tif: expected no file, or one that keras-un"):
        predict(trained, [data / "images"], data / "labels")
    assert contents(data) == before
    predict(trained, [data / "images"], data / "labels", overwrite=True)
    assert contents(data / "images").items() < before.items()
    assert not contents(data / "labels").items() & before.items()


def test_an_image_is_never_replaced(trained, cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    with pytest.raises(ValueError, match="expected an output that does not replace an image"):
        predict(trained, [data / "images"], data / "images", overwrite=True)


@pytest.mark.parametrize("form", ["tiff", "ome-zarr"])
def test_predictions_are_replaced_by_the_next(trained, cells, tmp_path, form):
    storage, save = OutputOptions(form), ["instances", "probabilities"]
    first = predict(trained, [cells / "images"], tmp_path / "out", storage=storage, save=save)
    assert predict(trained, [cells / "images"], tmp_path / "out", storage=storage) == first[::2]


def test_a_folder_in_the_place_of_an_image_is_not_replaced(trained, cells, tmp_path):
    (tmp_path / "out" / "c0.ome.zarr" / "mine").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"c0.ome.zarr: expected no file"):
        predict(
            trained,
            [cells / "images"],
            tmp_path / "out",
            storage=OutputOptions("ome-zarr", stream=True),
        )


def test_a_run_without_a_model_is_refused(changed_run, tmp_path):
    run = changed_run(lambda folder: (folder / "best.keras").unlink())
    with pytest.raises(FileNotFoundError, match=r"a run whose training has written best.keras"):
        predict(run, [grey(tmp_path / "a.tif")], tmp_path / "out")


@pytest.mark.parametrize(
    "edit",
    [
        lambda folder: (folder / "best.keras").write_bytes(b"no model"),
        lambda folder: (folder / "best.keras").write_bytes(
            (folder / "best.keras").read_bytes()[:3000]
        ),
        lambda folder: (folder / "run.json").write_text(
            (folder / "run.json").read_text().replace('"base_filters": 4', '"base_filters": 8')
        ),
    ],
    ids=["text", "cut", "of another network"],
)
def test_a_model_that_does_not_belong_to_the_run_is_refused_in_one_line(
    changed_run, tmp_path, edit
):
    with pytest.raises(ValueError, match=r"best\.keras: expected the model") as caught:
        predict(changed_run(edit), [grey(tmp_path / "a.tif")], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_files_are_found_before_the_model_is_loaded(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_unet.prediction.networks.load_network", None)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predict(trained, [tmp_path / "nowhere.tif"], tmp_path / "out")


def test_values_of_the_training_labels_come_back(trained, cells, changed_run, tmp_path):
    def edit(folder):
        record = (folder / "run.json").read_text()
        assert Run.load(folder).encoding.kind == "instances"
        values = record.replace('"kind": "instances"', '"kind": "classes"')
        (folder / "run.json").write_text(
            values.replace("      0,\n      1\n", "      3,\n      250\n")
        )

    images = [cells / "images" / "c3.tif"]
    predict(changed_run(edit), images, tmp_path / "out", save=["classes", "instances"])
    predict(trained, images, tmp_path / "plain", save=["classes"])
    classes = tifffile.imread(tmp_path / "out" / "c3.tif")
    plain = tifffile.imread(tmp_path / "plain" / "c3_classes.tif")
    np.testing.assert_array_equal(classes, np.where(plain, 250, 3))
    assert classes.dtype == np.uint8
    assert (tmp_path / "out" / "c3_instances.tif").is_file()


def test_by_parts_or_in_memory_the_outputs_are_the_same(trained, cells, tmp_path):
    images, save = [cells / "images" / "c3.tif"], ["instances", "classes", "probabilities"]
    storage = OutputOptions(stream=True)
    parts = predict(trained, images, tmp_path / "parts", save=save, storage=storage)
    whole = predict(trained, images, tmp_path / "whole", save=save)
    for one, other in zip(parts, whole, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(tifffile.imread(one), tifffile.imread(other))
        assert (one.read_bytes()[2], other.read_bytes()[2]) == (43, 42)  # BigTIFF, TIFF


@pytest.mark.parametrize("stream", [False, True])
def test_outputs_lie_where_their_image_does(trained, tmp_path, stream):
    where = {"PositionX": [1.5], "PositionXUnit": ["mm"], "PositionY": [-20.0]}
    metadata = {"axes": "YX", "Plane": where | {"PositionYUnit": ["µm"]}, "Name": "Well A1"}
    image = grey(tmp_path / "a.ome.tif", metadata=metadata | {"PhysicalSizeX": 0.5})
    storage = OutputOptions(stream=stream)
    save = ["instances", "probabilities"]
    for path in predict(trained, [image], tmp_path / "out", save=save, storage=storage):
        stated = tifffile.xml2dict(tifffile.tiffcomment(path))["OME"]["Image"]
        planes = stated["Pixels"]["Plane"]
        for plane in planes if isinstance(planes, list) else [planes]:
            assert (plane["PositionX"], plane["PositionXUnit"]) == (1.5, "mm")
            assert (plane["PositionY"], plane["PositionYUnit"]) == (-20.0, "µm")
        assert stated["Name"] == "Well A1"
    channels = stated["Pixels"]["Channel"]
    assert [channel["Name"] for channel in channels] == ["background", "cell"]


def test_zarr_in_a_folder_of_images_gives_ome_zarr(trained, cells, tmp_path):
    pixels = tifffile.imread(cells / "images" / "c3.tif")
    (tmp_path / "images").mkdir()
    zarr.create_array(tmp_path / "images" / "b.zarr", data=pixels)
    tifffile.imwrite(tmp_path / "images" / "a.tif", pixels)
    written = predict(trained, [tmp_path / "images"], tmp_path / "out")
    assert [path.name for path in written] == ["a.tif", "b.ome.zarr"]
    labels = zarr.open_array(written[1] / "0", mode="r")[:]
    np.testing.assert_array_equal(labels, tifffile.imread(written[0]))


def test_the_form_can_be_chosen(trained, cells, tmp_path):
    images = [cells / "images" / "c3.tif"]
    (path,) = predict(trained, images, tmp_path, storage=OutputOptions(form="ome-zarr"))
    assert path.name == "c3.ome.zarr"
    assert zarr.open_group(path, mode="r").attrs["ome"]["version"] == "0.5"


@pytest.mark.parametrize(
    "storage", [OutputOptions(stream=False), OutputOptions("ome-zarr", stream=False)]
)
def test_zarr_is_not_held_in_memory(trained, tmp_path, storage):
    image = grey(tmp_path / "a.tif")
    if storage.form is None:
        image = tmp_path / "a.zarr"
        zarr.create_array(image, data=np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"stream must not be off for Zarr.*leave it out"):
        predict(trained, [image], tmp_path / "out", storage=storage)


def test_large_images_are_streamed_unless_asked_not_to(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_unet.data.lazy.LARGE", 1_000)
    image = grey(tmp_path / "a.tif")
    with logged() as said:
        predict(trained, [image], tmp_path / "a")
    assert "a.tif: read, predicted and written in parts" in said
    with logged() as said:
        predict(trained, [image], tmp_path / "b", storage=OutputOptions(stream=False))
    assert "a.tif: read, predicted and written in parts" not in said


def test_a_missing_extra_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_unet.system.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r'without zarr; pip install "\.\[large\]"'):
        predict(
            trained,
            [grey(tmp_path / "a.tif")],
            tmp_path / "out",
            storage=OutputOptions(stream=True),
        )
    assert not (tmp_path / "out").exists()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_the_cells_of_all_images(trained, cells, tmp_path):
    images = [cells / "images" / name for name in ("c2.tif", "c3.tif")]
    out = tmp_path / "out"
    written = predict(trained, images, out, save=["instances", "table", "rois", "geojson"])
    names = [f"{stem}{end}" for stem in ("c2", "c3") for end in (".tif", "_rois.zip", ".geojson")]
    assert [path.name for path in written] == [*names, "objects.csv"]
    rows = rows_of(out / "objects.csv")
    for image in images:
        labels = tifffile.imread(out / image.name)
        mine = [row for row in rows if row["file"] == image.name]
        assert [int(row["number"]) for row in mine] == np.unique(labels)[1:].tolist()
        areas = np.bincount(labels.ravel())[1:].tolist()
        assert [int(row["area_px"]) for row in mine] == areas
        grey = tifffile.imread(image)
        mean = grey[labels == 1].mean()
        assert float(mine[0]["intensity_mean"]) == pytest.approx(mean)
        assert len(roiread(out / f"{image.stem}_rois.zip")) == len(mine)
    again = predict(trained, images, out, save=["table"], instances={"minimum_size": 10**6})
    assert [path.name for path in again] == ["objects.csv"]  # replaced, as this program wrote it
    assert rows_of(out / "objects.csv") == []


@pytest.mark.parametrize("name", ["objects.csv", "c3_rois.zip", "c3.geojson"])
def test_tables_and_outlines_of_others_are_not_replaced(trained, cells, tmp_path, name):
    (tmp_path / name).write_text("mine")
    save = ["table", "rois", "geojson"]
    with pytest.raises(ValueError, match="expected no file, or one that keras-unet has written"):
        predict(trained, cells / "images" / "c3.tif", tmp_path, save=save)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_table_states_micrometers_if_the_file_does(trained, cells, tmp_path):
    pixels = tifffile.imread(cells / "images" / "c3.tif")
    path = tmp_path / "a.tif"
    calibration = {"axes": "YX", "unit": "um"}
    tifffile.imwrite(path, pixels, imagej=True, resolution=(4, 4), metadata=calibration)
    predict(trained, path, tmp_path / "out", save=["table"])
    for row in rows_of(tmp_path / "out" / "objects.csv"):
        assert float(row["area_um2"]) == pytest.approx(int(row["area_px"]) / 16)


def test_cells_of_a_model_of_classes_have_a_class(cells, changed_run, tmp_path):
    def to_classes(folder):
        run = Run.load(folder)
        replace(run, encoding=LabelEncoding("classes", (0, 255))).save()

    run = changed_run(to_classes)
    predict(run, cells / "images" / "c3.tif", tmp_path / "out", save=["table"])
    assert {row["class"] for row in rows_of(tmp_path / "out" / "objects.csv")} == {"label 255"}


@pytest.mark.parametrize("stream", [False, True])
def test_cells_of_a_film_keep_their_number(trained, cells, tmp_path, stream):
    first, second = (tifffile.imread(cells / "images" / f"c{number}.tif") for number in (2, 3))
    path, out = tmp_path / "film.tif", tmp_path / "out"
    film = np.stack([first, first, second])
    tifffile.imwrite(path, film, imagej=True, metadata={"axes": "TYX"})
    save = ["instances", "table", "rois"]
    storage = OutputOptions(stream=stream)
    written = predict(trained, path, out, save=save, link="t", storage=storage)
    names = ["film.tif", "film_rois.zip", "film_RES", "objects.csv", "tracks.csv"]
    assert [path.name for path in written] == names
    labels = tifffile.imread(out / "film.tif")
    tracks = rows_of(out / "tracks.csv")
    assert len(tracks) == labels.max() == len(set(np.unique(labels)) - {0})
    np.testing.assert_array_equal(labels[0], labels[1])
    rows = rows_of(out / "objects.csv")
    for plane, image in enumerate(labels, 1):
        numbers = [int(row["number"]) for row in rows if row["plane"] == str(plane)]
        assert numbers == np.unique(image)[1:].tolist()
    assert {roi.name for roi in roiread(out / "film_rois.zip")} == {
        f"{row['plane']}-{row['number']}" for row in rows
    }
    masks = sorted(path.name for path in (out / "film_RES").iterdir())
    assert masks == ["mask000.tif", "mask001.tif", "mask002.tif", "res_track.txt"]
    np.testing.assert_array_equal(tifffile.imread(out / "film_RES" / "mask000.tif"), labels[0])


def test_what_cannot_be_linked_is_refused(trained, tmp_path):
    one, stack = grey(tmp_path / "a.tif"), tmp_path / "b.tif"
    grey(stack, (3, 40, 50), photometric="minisblack", metadata={"axes": "ZYX"})
    for path, options, message in (
        (one, {}, "link needs a stack. Received one plane; predict single images without it"),
        (stack, {}, "expected planes along T alone. Received Z = 3"),
        (stack, {"save": ["classes"]}, "link: options for instances"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(trained, path, tmp_path / "out", link="t", **options)
    assert not (tmp_path / "out").exists()
