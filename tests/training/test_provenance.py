"""What a run records of where it comes from."""

import shutil
import subprocess
from pathlib import Path

import pytest

from keras_unet.runs import Run
from keras_unet.training import provenance as job
from keras_unet.training.provenance import differences, provenance


def test_a_run_records_versions_code_command_and_machine(trained):
    record = Run.load(trained).record
    now = provenance()
    assert {"python", "keras-unet-biomedical", "tensorflow", "keras", "numpy"} <= set(
        record["versions"]
    )
    assert all(record["versions"].values())
    assert record["code"] == now["code"]
    assert record["command"] == now["command"]
    assert set(record["machine"]) == {"platform", "processor", "cores", "memory", "gpus"}
    assert record["options"]["seed"] == 0
    assert set(record["data"]["digests"]) == {"c0", "c1", "c2", "c3"}
    assert differences(record, now) == []


@pytest.fixture
def checkout(tmp_path):
    """A package in a repository of its own."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1\n")
    for words in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a"),
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)  # noqa: S607 - wherever it is
    return package


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(checkout):
    before = job._code(checkout)
    assert len(before["commit"]) == 40
    assert before["changed"] is False
    (checkout.parent / "notes.txt").write_text("beside the package")
    assert job._code(checkout) == before
    (checkout / "a.py").write_text("2\n")
    after = job._code(checkout)
    assert (after["commit"], after["changed"]) == (before["commit"], True)
    assert after["digest"] != before["digest"]


def test_without_git_the_code_tells_itself_by_its_digest(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    digest = job._code(checkout)["digest"]
    assert job._code(checkout) == {"commit": None, "changed": None, "digest": digest}


def test_what_is_installed_is_no_checkout(tmp_path):
    (tmp_path / "a.py").touch()
    assert job._code(tmp_path)["commit"] is None


def test_the_package_is_this_one():
    assert (job.PACKAGE / "training" / "provenance.py").samefile(job.__file__)
    assert Path(job.PACKAGE).name == "keras_unet"


def test_variables_that_change_rounding_are_kept_and_no_others(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("MY_TOKEN", "secret")
    found = provenance()
    assert found["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert "secret" not in str(found)
