"""Bad input, one case a test: it works and is right, or is refused in one line that names the file.

Files that are truncated, empty or made to do harm (huge sizes, cyclic pages, wrong strips, PNG
bombs) are in test_hostile_files.py; fuzzing is in test_fuzzing.py. What other modules show already:

NaN and infinite pixels, truncated files, text      tests/test_cli.py: SPOILED_DATA, PREDICTIONS
empty and one-valued labels, fractions, colours     tests/test_cli.py: SPOILED_DATA
files of Zarr that are damaged                      tests/data/test_large.py: REFUSED
smeared labels (JPEG), labels by their values       tests/data/test_labels.py
requests to a server                                tests/serving/test_served.py: BAD
runs and models that are damaged                    tests/test_cli.py, test_folder.py
"""

from __future__ import annotations

import shutil
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from keras_unet.cli import main
from keras_unet.data.pairs import find_pairs
from keras_unet.data.samples import Samples, read_samples
from keras_unet.evaluation.evaluate import evaluate_folders
from keras_unet.prediction.outputs import OutputPlan
from keras_unet.runs import Run
from keras_unet.training.options import TrainingOptions

TINY = ("--depth", "1", "--base-filters", "2", "--tile", "60", "--precision", "float32")
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 200, (40, 50)).astype(np.uint8)
LABELS = np.zeros((40, 50), np.uint8)
LABELS[3:12, 4:15], LABELS[20:30, 20:38] = 1, 2
MASK = (LABELS > 0).astype(np.uint8)


def put(folder: Path, **pairs: tuple[np.ndarray, np.ndarray]) -> Path:
    """Writes images and labels, by name."""
    for name, arrays in pairs.items():
        for part, array in zip(("images", "labels"), arrays, strict=True):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{name}.tif", array)
    return folder


def run(*arguments):
    """Runs a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def one_line(result):
    """The line on standard error, if all is as promised."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def spoiled(pixel: float) -> np.ndarray:
    image = GREY.astype(np.float32)
    image[5, 5] = pixel
    return image


HUNDRED_TO_ONE = np.tile(np.repeat(np.uint8([0, 1]), 40), 5)[np.newaxis].repeat(4, axis=0)
REFUSED = {
    "NaN": ({"b": (spoiled(np.nan), LABELS)}, "images/b.tif: 1 of 2,000 pixels are NaN or infi"),
    "Inf": ({"b": (spoiled(np.inf), LABELS)}, "images/b.tif: 1 of 2,000 pixels are NaN or infi"),
    "minus Inf": ({"b": (spoiled(-np.inf), LABELS)}, "images/b.tif: 1 of 2,000 pixels are NaN"),
    "NaN in labels": ({"b": (GREY, spoiled(np.nan))}, "labels/b.tif: expected whole numbers"),
    "one-pixel image without a cell": (
        {"b": (GREY[:1, :1], LABELS[:1, :1])},
        "labels/b.tif: expected labels of at least one cell in b, received background alone",
    ),
    "all-ignore labels": (
        {"b": (GREY, np.full_like(LABELS, 9))},
        "labels/b.tif: expected labels of at least one cell in b, received ignored pixels a",
    ),
    "negative labels": (
        {"b": (GREY, -LABELS.astype(np.int16))},
        "labels/b.tif: expected labels between 0 and 2147483647, received values from -2 to 0",
    ),
    "labels beyond 2^31": (
        {"b": (GREY, MASK.astype(np.uint32) * 2**31)},
        "b.tif: expected labels between 0 and 2147483647, received values from 0 to 2147483648.",
    ),
    "float labels, fractions": (
        {"b": (GREY, LABELS / np.float32(2))},
        "labels/b.tif: expected whole numbers, received float32 with 99 of 2,000 pixels",
    ),
}


@pytest.mark.parametrize(("pairs", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, pairs, message):
    data = put(tmp_path / "data", a=(GREY, LABELS), **pairs)
    line = one_line(run("train", data, "--run", tmp_path / "run", *TINY, "--ignore", "9"))
    assert message in line
    assert not (tmp_path / "run").exists()


REFUSED_THROUGHOUT = {
    "all-ignore labels in every file": (
        np.full_like(LABELS, 9),
        "labels/a.tif: expected at least two values in the label files, received ignored pixels",
    ),
    "labels without background": (
        (np.arange(2000).reshape(40, 50) // 100 + 1).astype(np.uint8),
        "labels/a.tif: the labels look like instances, but no label file holds the value 0",
    ),
}


@pytest.mark.parametrize(("labels", "message"), REFUSED_THROUGHOUT.values(), ids=REFUSED_THROUGHOUT)
def test_refused_throughout(tmp_path, labels, message):
    data = put(tmp_path / "data", a=(GREY, labels), b=(GREY, labels))
    options = ("--ignore", "9", "--allow-empty")
    assert message in one_line(run("train", data, "--run", tmp_path / "run", *options))


def _float_labels(data: Samples) -> None:
    assert data.encoding.kind == "instances"
    np.testing.assert_array_equal(data.samples[1].instances, LABELS)


def _no_background_in_one(data: Samples) -> None:
    assert data.encoding.kind == "instances"
    assert data.samples[1].classes.all()
    assert not data.samples[0].classes.all()


def _no_background_but_classes(data: Samples) -> None:
    assert data.encoding.values == (1, 2)
    np.testing.assert_array_equal(data.samples[1].classes, MASK)


def _all_ignored(data: Samples) -> None:
    assert data.samples[1].ignored.all()
    assert not data.samples[1].classes.any()


def _one_pixel(data: Samples) -> None:
    assert data.samples[1].image.shape == (1, 1, 1)
    assert data.samples[1].classes.tolist() == [[1]]


def _as_drawn(data: Samples) -> None:
    np.testing.assert_array_equal(data.samples[1].classes, HUNDRED_TO_ONE)


CLASSES = (GREY, MASK)
INSTANCES = (GREY, LABELS)
READ = {
    "float labels, whole": (INSTANCES, (GREY, LABELS.astype(np.float64)), _float_labels),
    "labels without background in one file": (
        INSTANCES,
        (GREY, np.repeat(np.uint8([[1, 2]]), 25, axis=1).repeat(40, axis=0)),
        _no_background_in_one,
    ),
    "labels without background, two classes": (
        (GREY, MASK + 1),
        (GREY, MASK + 1),
        _no_background_but_classes,
    ),
    "all-ignore labels, allowed": (CLASSES, (GREY, np.full_like(MASK, 9)), _all_ignored),
    "one-pixel image": (CLASSES, (GREY[:1, :1], np.uint8([[1]])), _one_pixel),
    "100:1 image": (CLASSES, (HUNDRED_TO_ONE * 9, HUNDRED_TO_ONE), _as_drawn),
}


@pytest.mark.parametrize(("first", "second", "check"), READ.values(), ids=READ)
def test_read(tmp_path, first, second, check):
    data = put(tmp_path, a=first, b=second)
    check(read_samples(data, ignore=9, allow_empty=True))


ODD = {
    "constant image": (np.full((40, 50), 7, np.uint8), MASK),
    "constant image of 0": (np.zeros((40, 50), np.uint16), MASK),
    "one-pixel image": (GREY[:1, :1], np.uint8([[1]])),
    "100:1 image": (GREY[:4].repeat(8, axis=1), HUNDRED_TO_ONE),
    "1:100 image": (GREY[:4].repeat(8, axis=1).T, HUNDRED_TO_ONE.T),
    "all-ignore labels": (GREY, np.full_like(MASK, 9)),
}


def test_trained_on_odd_images(tmp_path):
    """Constant, one-pixel and 100:1 images, all-ignore labels: trained on and looked at."""
    data = put(tmp_path / "data", a=CLASSES, b=CLASSES, **ODD)
    (tmp_path / "odd").mkdir()
    options = ("--ignore", "9", "--allow-empty", "--steps", "4", "--quiet")
    held_out = ("--validation", "b,one-pixel image,all-ignore labels,100:1 image,constant image")
    result = run("train", data, "--run", tmp_path / "run", *TINY, *options, *held_out)
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(rows) == 5
    assert "nan" not in "".join(rows).lower()
    assert Run.load(tmp_path / "run").record["outcome"]["skipped_updates"] == 0


def test_predicted_odd_images(trained, tmp_path):
    """Constant, one-pixel and 100:1 images: outputs of their sizes, of finite probabilities."""
    data = put(tmp_path / "data", **ODD)
    out = tmp_path / "out"
    assert run("predict", trained, data / "images", "--out", out, "--save", "probabilities").output
    for name, (image, _) in ODD.items():
        probabilities = tifffile.imread(out / f"{name}_probabilities.tif")
        assert probabilities.shape == (2, *image.shape)
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=1e-5)
    constant = tifffile.imread(out / "constant image_probabilities.tif")
    zero = tifffile.imread(out / "constant image of 0_probabilities.tif")
    np.testing.assert_allclose(constant, zero, atol=1e-6)  # both are 0 once normalized
    period = 2 ** Run.load(trained).architecture.depth  # of the up-convolutions
    pattern = np.tile(constant[:, :period, :period], (1, 40 // period, 50 // period))
    np.testing.assert_allclose(constant, pattern, atol=1e-5)


def test_70000_instances(tmp_path):
    """Numbers beyond 16 bits: read, scored, and none of them lost."""
    numbers = np.arange(1, 70_001, dtype=np.uint32).reshape(250, 280)
    labels = np.zeros((1000, 1120), np.uint32)
    for row in range(3):
        for column in range(3):
            labels[row::4, column::4] = numbers
    data = put(tmp_path, a=((labels > 0).astype(np.uint8), labels))
    (sample,) = read_samples(data).samples
    np.testing.assert_array_equal(sample.instances, labels)
    scores = evaluate_folders(data / "labels", data / "labels", metrics=("ctc", "matching"))
    assert scores.overall.values["seg"] == 1
    assert scores.overall.matching[0].tp == 70_000


def test_duplicate_stems(cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    Image.new("L", (96, 96)).save(data / "images" / "c1.png")
    message = "images: expected names that differ without ending, received c1.png and c1.tif"
    assert message in one_line(run("train", data, "--run", tmp_path / "run"))
    assert message in one_line(run("evaluate", data / "images", data / "labels"))


def test_duplicate_stems_in_prediction(trained, cells, tmp_path):
    images = shutil.copytree(cells / "images", tmp_path / "images")
    Image.new("L", (96, 96)).save(images / "c1.png")
    line = one_line(run("predict", trained, images, "--out", tmp_path / "out"))
    assert "Received c1 more than once" in line
    assert not (tmp_path / "out").exists()


NAMES = {
    "spaces": "my cells, day 2 ",
    "Unicode": "Zelle größer 細胞 \U0001f52c",
    "quotes and tags": "b & <b>'\"%s {x}",
    "a dash first": "-x",
    "two lines": "a\nb",
    "a long name": "n" * 200,
    "dots": "..a.b",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names(trained, cells, tmp_path, name):
    data, out = tmp_path / "da ta é", tmp_path / "out ü"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)
        shutil.copy(cells / part / "c0.tif", data / part / f"{name}.tif")
    if not name.startswith("."):  # which hides a file
        assert find_pairs(data).pairs[0].name == name
        result = run("predict", trained, data / "images", "--out", out)
        assert result.exit_code == 0, result.output
        assert [path.name for path in out.iterdir()] == [f"{name}.tif"]
        assert run("evaluate", out, data / "labels").exit_code == 0
    else:
        line = one_line(run("predict", trained, data / "images", "--out", out))
        assert "images: expected a folder of images. Received one without any" in line


def test_names_whose_accents_are_written_in_two_ways(tmp_path):
    """A Mac writes an accent after its letter, others write the two as one."""
    data = put(tmp_path / "data", x=INSTANCES)
    apart, together = (unicodedata.normalize(form, "é") for form in ("NFD", "NFC"))
    (data / "images" / "x.tif").rename(data / "images" / f"{apart}.tif")
    (data / "labels" / "x.tif").rename(data / "labels" / f"{together}.tif")
    found = find_pairs(data)
    assert [pair.name for pair in found.pairs] == [together]
    assert found.unused == ()


@pytest.fixture
def looped(cells, tmp_path):
    """Pictures beside links that lead to themselves, and to the folder they are in."""
    data = shutil.copytree(cells, tmp_path / "data")
    for folder in (tmp_path, data / "images", data):
        (folder / "loop").symlink_to("loop")
        (folder / "loop.tif").symlink_to("loop.tif")
    (data / "images" / "up").symlink_to("..")
    return data


def test_symlink_loops_in_data(looped):
    found = find_pairs(looped)
    assert [pair.name for pair in found.pairs] == ["c0", "c1", "c2", "c3"]
    assert [str(one) for one in found.unused] == [
        "loop (a broken link)",
        "loop.tif (a broken link)",
        "up (a folder)",
    ]


def test_symlink_loops_in_sequences(tmp_path):
    for name in ("01/t000.tif", "01_GT/SEG/man_seg000.tif"):
        (tmp_path / name).parent.mkdir(parents=True)
        tifffile.imwrite(tmp_path / name, LABELS)
    (tmp_path / "01_GT" / "SEG" / "up").symlink_to(tmp_path)
    (tmp_path / "all").symlink_to(tmp_path)
    assert [pair.name for pair in find_pairs(tmp_path).pairs] == ["01_t000"]


LOOPS = {
    "data of train": "train {t}/loop --run {t}/run",
    "run of train": "train {d} --run {t}/loop",
    "run below": "train {d} --run {t}/loop/run",
    "like of train": "train {d} --run {t}/run --repeat {t}/loop",
    "run of predict": "predict {t}/loop {d}/images --out {t}/out",
    "image of predict": "predict {r} {d}/images/loop.tif --out {t}/out",
    "out of predict": "predict {r} {d}/images --out {t}/loop",
    "out below": "predict {r} {d}/images --out {t}/loop/out",
    "evaluate": "evaluate {t}/loop {d}/labels",
    "inspect": "inspect {d} --out {t}/loop",
    "report": "report {t}/loop",
    "export": "export {r} {t}/loop --format saved_model",
}


@pytest.mark.parametrize("command", LOOPS.values(), ids=LOOPS)
def test_symlink_loops(looped, trained, tmp_path, command):
    words = command.format(t=tmp_path, d=looped, r=trained).split()
    assert "/loop" in one_line(run(*words))


def test_two_runs_into_one_folder_at_the_same_time(cells, tmp_path):
    """The second is told while the first is at work; the first does not notice."""
    from keras.callbacks import LambdaCallback

    from keras_unet.training.train import train_folder

    lines = []

    def intrude(*_):
        lines.append(one_line(run("train", cells, "--run", tmp_path / "run", *TINY)))

    options = TrainingOptions(depth=1, base_filters=2, tile=60, steps=2, precision="float32")
    done = train_folder(
        cells, tmp_path / "run", options, callbacks=[LambdaCallback(on_train_begin=intrude)]
    )
    assert "run: expected a folder for this training only" in lines[0]
    assert done.record["outcome"]["complete"]
    assert "holds a run; choose another" in one_line(run("train", cells, "--run", done.folder))


def test_two_ensembles_into_one_folder_at_the_same_time(cells, tmp_path, monkeypatch):
    from keras_unet.training import folds

    lines = []
    command = ("train", cells, "--run", tmp_path / "run", "--folds", "2", *TINY)
    monkeypatch.setattr(folds, "_check_unused", lambda _: None)  # as it is a moment before

    def train_missing(*_):
        lines.extend(one_line(run(*command)) for _ in range(not lines))
        return []

    monkeypatch.setattr(folds, "_train_missing", train_missing)
    run(*command)
    assert "run: expected a folder for this training only" in lines[0]


def test_a_folder_of_10000_files(tmp_path):
    """Found, paired and described in seconds, and few names of them printed."""
    number = 10_000
    content = (put(tmp_path / "one", a=CLASSES) / "images" / "a.tif").read_bytes()
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for one in range(number):
        (tmp_path / "data" / "images" / f"i{one}.tif").write_bytes(content)
        if one % 2:
            (tmp_path / "data" / "labels" / f"i{one}.png").touch()
    began = time.monotonic()
    found = find_pairs(tmp_path / "data")
    assert (len(found.pairs), len(found.unused)) == (number // 2, number // 2)
    seen = read_samples(tmp_path / "one")
    told = Samples(seen.samples, seen.encoding, 1, "uint8", found.unused).describe()
    assert "not used: 5,000 files" in told
    assert len(told.splitlines()) < 40
    assert time.monotonic() - began < 20


def test_predicting_a_folder_of_10000_files(trained, tmp_path):
    (tmp_path / "images").mkdir()
    for one in range(10_000):
        (tmp_path / "images" / f"i{one}.tif").touch()
    began = time.monotonic()
    order = OutputPlan.of(Run.load(trained), [tmp_path / "images"], tmp_path / "out", (), None)
    assert len(order.images) == 10_000
    assert time.monotonic() - began < 20
    line = one_line(run("predict", trained, tmp_path / "images", "--out", tmp_path / "out"))
    assert "images/i0.tif: cannot be read as an image (the file is empty)" in line
