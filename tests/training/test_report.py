import json
import re
import shutil

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from logs import logged

from keras_unet.cli import main
from keras_unet.runs import Ensemble, Run
from keras_unet.training.options import TrainingOptions
from keras_unet.training.report import command_of, report_run
from keras_unet.training.resume import options_of
from keras_unet.training.train import train_folder

SECTIONS = [
    *("images", "cells", "scores", "objects", "training", "data", "network", "made", "further")
]


def sections(path):
    return re.findall(r'<section id="(\w+)">', path.read_text(encoding="utf-8"))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run, to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


def change(run, **data):
    """Changes what a run has recorded of its data."""
    record = json.loads((run / "run.json").read_text())
    record["record"]["data"] |= data
    (run / "run.json").write_text(json.dumps(record))


def test_training_leaves_a_report(trained):
    assert sections(trained / "report.html") == SECTIONS
    text = (trained / "report.html").read_text(encoding="utf-8")
    score = Run.load(trained).record["outcome"]["score"]
    assert f"Its validation score: mean of SEG and AP {score:.4f} on 1 image held out." in text
    assert '<option value="0">c3</option>' in text
    assert "weight map of c3" in text


def test_the_same_report_is_written_later(run):
    before = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    out = report_run(run)
    assert out == run / "report.html"
    numbers = r"<td>[\d.,-]+</td>"
    assert re.findall(numbers, out.read_text(encoding="utf-8")) == re.findall(numbers, before)
    assert re.findall(numbers, before)


def test_without_the_images_the_report_says_so(run, tmp_path):
    change(run, folder=str(tmp_path / "gone"))
    with logged() as said:
        out = report_run(run, tmp_path / "new" / "a.html")
    assert sections(out) == SECTIONS[4:]
    (line,) = said
    assert line.startswith(f"Warning: {tmp_path / 'gone'}: the images of the run are missing;")
    assert "the images are missing" in out.read_text(encoding="utf-8")


def test_images_that_have_moved_are_named(run, cells, tmp_path):
    change(run, folder=str(tmp_path / "gone"))
    assert sections(report_run(run, data=cells)) == SECTIONS


def test_other_images_are_refused(run, cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    tifffile.imwrite(data / "images" / "c3.tif", np.zeros((96, 96), np.uint8))
    with pytest.raises(ValueError, match=r"data: expected the images and labels that .* --data"):
        report_run(run, data=data)


def test_a_name_with_markup_is_text(run, cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    for folder in ("images", "labels"):
        (data / folder / "c3.tif").rename(data / folder / "<b>.tif")
    digests = Run.load(run).record["data"]["digests"]
    digests["<b>"] = digests.pop("c3")
    change(run, digests=digests, validation=["<b>"])
    text = report_run(run, data=data).read_text(encoding="utf-8")
    assert "<b>" not in text
    assert '<option value="0">&lt;b&gt;</option>' in text


def test_warnings_of_the_training_are_shown(run):
    change(run, warnings=["images are there more than once (a = b)"])
    assert "<li>images are there more than once (a = b)</li>" in report_run(run).read_text(
        encoding="utf-8"
    )


def test_the_command_makes_the_same_run_again(trained):
    command = command_of(Run.load(trained)).split()
    assert command[:2] == ["keras-unet", "train"]
    parsed = main.commands["train"].make_context("train", command[2:]).params
    given = {name: value for name, value in parsed.items() if value is not None}
    options = options_of(Run.load(trained))
    names = tuple(given.pop("validation").split(","))
    again = TrainingOptions(
        **{name: value for name, value in given.items() if name in options.to_dict()},
        validation=names,
    )
    assert again.to_dict() == options.to_dict()


def test_one_class_alone_and_none_held_out_make_a_report_too(cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    for path in (data / "labels").iterdir():
        tifffile.imwrite(path, np.where(tifffile.imread(path) > 0, 255, 0).astype(np.uint8))
    options = TrainingOptions(
        steps=2, depth=1, base_filters=2, tile=60, validation=0, precision="float32"
    )
    run = train_folder(data, tmp_path / "run", options)
    out = run.folder / "report.html"
    assert sections(out) == [name for name in SECTIONS if name not in ("cells", "objects")]
    assert "as none was held out" in out.read_text(encoding="utf-8")
    assert "--validation 0" in command_of(run)


def test_a_run_that_was_interrupted_can_be_resumed(run):
    record = json.loads((run / "run.json").read_text())
    record["record"]["outcome"]["complete"] = False
    (run / "run.json").write_text(json.dumps(record))
    text = report_run(run).read_text(encoding="utf-8")
    assert "--resume" in text
    assert "It was interrupted" in text


def test_old_records_without_a_fingerprint_make_a_report(run):
    record = json.loads((run / "run.json").read_text())
    del record["record"]["data"]["fingerprint"], record["record"]["data"]["warnings"]
    (run / "run.json").write_text(json.dumps(record))
    assert sections(report_run(run)) == SECTIONS


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command(run, tmp_path):
    result = invoke("report", run, "--out", tmp_path / "a.html")
    assert result.output == f"written: {tmp_path / 'a.html'}\n"
    assert invoke("report", run, "--out", tmp_path / "a.html").exit_code == 0
    (tmp_path / "a.html").write_text("mine")
    result = invoke("report", run, "--out", tmp_path / "a.html")
    assert "a.html: expected no file, or a report that keras-unet has written" in result.stderr
    assert (tmp_path / "a.html").read_text() == "mine"
    assert invoke("report", run, "--out", tmp_path / "a.html", "--overwrite").exit_code == 0


def test_no_run_and_an_unfinished_ensemble_are_refused_in_one_line(run, tmp_path):
    result = invoke("report", tmp_path / "none")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "expected a run" in result.stderr
    Ensemble(run.parent, ((run.name,),), {}).save()
    result = invoke("report", run.parent)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "Received one whose training was interrupted" in result.stderr


def test_the_command_that_scores_writes_a_report_too(cells, tmp_path):
    result = invoke("evaluate", cells / "labels", cells / "labels", "--report", tmp_path / "a.html")
    assert result.exit_code == 0, result.output
    assert sections(tmp_path / "a.html") == ["images", "cells", "scores", "objects"]
