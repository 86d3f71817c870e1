"""Files of microscopes from the command line: predicted, measured, imported and inspected."""

import csv
import json

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from microscope_files import LifImage, write_czi, write_lif, write_nd2

from keras_unet.cli import main
from keras_unet.data import microscopes
from keras_unet.data.images import read_image
from keras_unet.data.labels import read_labels
from keras_unet.data.synthetic import draw_cells


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path, images):
    """Writes scenes of one channel and planes along Z, `(planes, height, width)`."""
    if path.suffix == ".czi":
        scenes = [image[None, :, None] for image in images]
        write_czi(path, scenes, names=("DAPI",), pixel_size=0.25, distance=2.0)
    elif path.suffix == ".lif":
        steps = {"X": 0.25e-6, "Y": 0.25e-6, "Z": 2e-6}
        parts = [LifImage(f"P{i}", part, "ZYX", steps, ("DAPI",)) for i, part in enumerate(images)]
        write_lif(path, parts)
    else:
        pixels, names = np.stack(images)[None, :, :, None], [f"P{i}" for i in range(len(images))]
        known = {"pixel_size": 0.25, "distance": 2.0, "positions": names}
        write_nd2(path, pixels, names=("DAPI",), **known)


@pytest.fixture(params=[".czi", ".lif", ".nd2"])
def file(request, tmp_path):
    """A file of two scenes of two planes of cells."""
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / f"a{request.param}"
    planes = [draw_cells(seed, size=(96, 96), cells=8)[0] for seed in range(4)]
    write(path, [np.stack(planes[:2]), np.stack(planes[2:])])
    return path


def test_each_scene_is_predicted_as_an_image_of_its_own(trained, file, tmp_path):
    for images in (file, file.parent):
        out = tmp_path / f"from {images.name}"
        result = run("predict", trained, images, "--out", out, "--save", "instances,table")
        assert result.exit_code == 0, result.output
        names = {path.name for path in out.iterdir()}
        assert names == {"a_s000.tif", "a_s001.tif", "objects.csv"}
        for number in range(2):
            with tifffile.TiffFile(out / f"a_s00{number}.tif") as written:
                assert written.series[0].axes == "ZYX"
                assert written.series[0].shape == (2, 96, 96)
            spacing = read_image(out / f"a_s00{number}.tif").spacing
            assert spacing.pixel_size == pytest.approx((0.25, 0.25))
            assert spacing.steps["Z"] == 2.0
        rows = rows_of(out / "objects.csv")
        assert {row["file"] for row in rows} == {f"a_s00{n}{file.suffix}" for n in range(2)}
        for row in rows:
            assert float(row["area_um2"]) == pytest.approx(int(row["area_px"]) / 16)


def test_a_scene_is_predicted_like_the_same_image_as_tiff(trained, file, tmp_path):
    scene = file.with_name(f"a_s001{file.suffix}")
    tifffile.imwrite(tmp_path / "b.tif", read_image(scene).planes[..., 0], metadata={"axes": "ZYX"})
    for image in (scene, tmp_path / "b.tif"):
        result = run("predict", trained, image, "--out", tmp_path / "out")
        assert result.exit_code == 0, result.output
    first, second = (tifffile.imread(tmp_path / "out" / name) for name in ("a_s001.tif", "b.tif"))
    np.testing.assert_array_equal(first, second)
    assert not (tmp_path / "out" / "a_s000.tif").exists()


def test_scenes_are_measured_and_scored(trained, file, tmp_path):
    out = tmp_path / "out"
    assert run("predict", trained, file, "--out", out).exit_code == 0
    for images in (file.parent, file.with_name(f"a_s001{file.suffix}")):
        labels = out if images.is_dir() else out / "a_s001.tif"
        table = tmp_path / f"table of {images.name}"
        result = run("measure", labels, "--images", images, "--out", table)
        assert result.exit_code == 0, result.output
        row = rows_of(table / "objects.csv")[-1]
        scene = read_image(file.with_name(f"a_s001{file.suffix}")).planes[..., 0]
        inside = tifffile.imread(out / "a_s001.tif")[int(row["plane"]) - 1] == int(row["number"])
        mean = scene[int(row["plane"]) - 1][inside].mean()
        assert float(row["intensity_mean"]) == pytest.approx(mean, rel=1e-5)
    result = run("evaluate", out, out, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output


def test_outlines_are_imported_for_a_scene(file, tmp_path):
    points = [[5, 5], [25, 5], [25, 25], [5, 25]]
    shapes = [{"label": "cell", "shape_type": "polygon", "points": points}]
    (tmp_path / "outlines").mkdir()
    (tmp_path / "outlines" / "a_s001.json").write_text(json.dumps({"shapes": shapes}))
    data = tmp_path / "data"
    command = ["data", "import", tmp_path / "outlines", "--images", file.parent, "--out", data]
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (data / "images").iterdir()] == [file.name]
    assert {path.name for path in (data / "labels").iterdir()} == {"a_s001.tif", "classes.csv"}
    assert read_labels(data / "labels" / "a_s001.tif").classes[0] == {1: ("cell",)}
    assert tifffile.imread(data / "labels" / "a_s001.tif")[0, 10, 10] == 1


def test_without_the_library_one_line_says_what_to_do(trained, file, tmp_path, monkeypatch):
    monkeypatch.setattr(microscopes, "find_spec", lambda _: None)
    microscopes._scenes_of.cache_clear()
    commands = [
        ("predict", trained, file, "--out", tmp_path / "out"),
        ("predict", trained, file.parent, "--out", tmp_path / "out"),
        ("measure", file.parent, "--out", tmp_path / "out"),
    ]
    for command in commands:
        result = run(*command)
        assert result.exit_code == 2
        assert f"{file}: " in result.output
        assert 'pip install ".[microscopes]", or save it as TIFF' in result.output
        assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_whole_files_are_not_predicted_in_parts(trained, file, tmp_path):
    for option in (["--stream"], ["--as", "ome-zarr"]):
        result = run("predict", trained, file, "--out", tmp_path / "out", *option)
        assert result.exit_code == 2
        assert "expected a TIFF or Zarr file, which can be read in parts" in result.output
    assert not (tmp_path / "out").exists()
