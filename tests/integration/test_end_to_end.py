"""Train, predict and evaluate by the command line, on the kinds of files that people have."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from keras_unet.cli import main
from keras_unet.data.synthetic import draw_cells
from keras_unet.runs import Run

TINY = ("--steps", "3", "--depth", "2", "--base-filters", "4", "--tile", "60")


def keras_unet(*arguments):
    """Runs a command and returns what it printed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert all(line.startswith("Warning: ") for line in result.stderr.splitlines())
    return result.stdout


def drawn(count, size=(96, 96)):
    """Pictures of touching cells, each with its instances, cut to any size."""
    height, width = size
    pairs = [draw_cells(seed, size=(96, 96), cells=8) for seed in range(count)]
    return [(image[:height, :width], cells[:height, :width]) for image, cells in pairs]


def eight_bit(image):
    return (image // 16).clip(0, 255).astype(np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, **options)


def masks_in_png(data):
    """0/255 masks and grey images saved as RGBA, of odd sizes."""
    for number, (image, cells) in enumerate(drawn(3, (57, 83))):
        grey = eight_bit(image)
        rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
        save(data / "images" / f"{number}.png", rgba)
        save(data / "labels" / f"{number}.png", np.where(cells > 0, 255, 0).astype(np.uint8))


def three_classes(data):
    """Colour images with three classes and a value to ignore."""
    for number, (image, cells) in enumerate(drawn(3, (64, 96))):
        grey = eight_bit(image)
        classes = np.where(cells > 0, 1 + cells % 2, 0).astype(np.uint8)
        classes[:5] = 7
        save(data / "images" / f"{number}.tif", np.dstack([grey, 255 - grey, grey // 2]))
        save(data / "masks" / f"{number}.tif", classes)


def stacks(data):
    """16-bit stacks of several pages with instances."""
    for name, pairs in (("a", drawn(3)[:2]), ("b", drawn(3)[2:] * 2)):
        images, cells = map(np.stack, zip(*pairs, strict=True))
        for folder, stack in (("images", images), ("labels", cells.astype(np.uint16))):
            save(data / folder / f"{name}.tif", stack, photometric="minisblack")


def challenge(data):
    """The Cell Tracking Challenge's layout, a frame in two annotated."""
    for number, (image, cells) in enumerate(drawn(4)):
        save(data / "01" / f"t{number:03d}.tif", eight_bit(image))
        if number % 2:
            labels = data / "01_GT" / "SEG" / f"man_seg{number:03d}.tif"
            save(labels, cells.astype(np.uint16))


KINDS = {
    "masks": (masks_in_png, [], "images", "labels", (1, 2)),
    "classes": (three_classes, ["--labels", "classes", "--ignore", "7"], "images", "masks", (3, 3)),
    "stacks": (stacks, ["--normalization", "dataset"], "images", "labels", (1, 2)),
    "challenge": (challenge, [], "01", "01_GT/SEG", (1, 2)),
}


@pytest.mark.parametrize(
    ("draw", "options", "images", "labels", "channels_and_classes"), KINDS.values(), ids=KINDS
)
def test_from_files_to_scores(tmp_path, draw, options, images, labels, channels_and_classes):
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "out"
    draw(data)
    shown = keras_unet("train", data, "--run", run, *TINY, *options)
    assert f"next: keras-unet predict {run} IMAGES... --out FOLDER" in shown
    loaded = Run.load(run)
    assert (loaded.architecture.channels, loaded.architecture.classes) == channels_and_classes

    outputs = "instances,classes,probabilities"
    keras_unet("predict", run, data / images, "--out", out, "--save", outputs)
    kind = loaded.encoding.kind
    other = "classes" if kind == "instances" else "instances"
    files = sorted((data / images).iterdir())
    assert len(list(out.iterdir())) == 3 * len(files)
    for path in files:
        shape = np.array(Image.open(path) if path.suffix == ".png" else tifffile.imread(path)).shape
        plain = shape[:2] if images == "images" and shape[-1] in (3, 4) else shape
        of_kind, of_other = (
            tifffile.imread(out / f"{path.stem}{ending}.tif") for ending in ("", f"_{other}")
        )
        probabilities = tifffile.imread(out / f"{path.stem}_probabilities.tif")
        assert of_kind.shape == of_other.shape == plain
        assert probabilities.shape == (*plain[:-2], channels_and_classes[1], *plain[-2:])
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=-3), 1, atol=1e-4)
        classes = of_kind if kind == "classes" else of_other
        values = np.array(loaded.encoding.values)
        np.testing.assert_array_equal(classes, values[probabilities.argmax(axis=-3)])

    ignore = options[2:] if "--ignore" in options else []
    shown = keras_unet(
        "evaluate",
        out,
        data / labels,
        "--json",
        tmp_path / "scores.json",
        "--labels-hold",
        kind,
        *ignore,
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["missing"] == []
    assert scores["pixel_error_from_probabilities"]
    assert len(scores["images"]) == len(list((data / labels).iterdir()))
    assert f"{scores['overall']['iou']:.4f}" in shown


def test_instances_are_learned(trained, cells, tmp_path):
    """Forty steps of a tiny network already tell cells from background in a held-out picture."""
    keras_unet("predict", trained, cells / "images" / "c3.tif", "--out", tmp_path / "out")
    keras_unet("evaluate", tmp_path / "out", cells, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    truth = tifffile.imread(cells / "labels" / "c3.tif")
    assert scores["overall"]["iou"] > (truth > 0).mean() + 0.05
    assert scores["missing"] == ["c0.tif", "c1.tif", "c2.tif"]


def test_the_model_loads_where_this_package_is_missing(trained):
    program = (
        "import sys\n"
        "sys.modules['keras_unet'] = None\n"
        "import keras\n"
        f"model = keras.models.load_model({str(trained / 'best.keras')!r})\n"
        "print(model.input_shape, model.output_shape)"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(None, None, None, 1) (None, None, None, 2)"
