"""Version folders: whole under their number, or not there."""

from __future__ import annotations

import pytest

from keras_unet.export.saved_model import new_version


def test_a_version_appears_when_it_is_whole(tmp_path):
    out = tmp_path / "model"
    with new_version(out, 3) as folder:
        (folder / "file").write_text("whole")
        assert not any(path.name.isdecimal() for path in out.iterdir())
    assert [path.name for path in out.iterdir()] == ["3"]
    assert (out / "3" / "file").read_text() == "whole"


@pytest.mark.parametrize("before", [(), ("1",)])
def test_nothing_is_left_of_one_that_failed(tmp_path, before):
    def write(out):
        with new_version(out, 2) as folder:
            (folder / "file").write_text("half")
            raise RuntimeError("broken")

    out = tmp_path / "model"
    for name in before:
        (out / name).mkdir(parents=True)
    with pytest.raises(RuntimeError, match="broken"):
        write(out)
    assert out.exists() == bool(before)
    assert tuple(path.name for path in out.glob("*")) == before


def test_a_version_that_is_there_stays(tmp_path):
    (tmp_path / "2").mkdir()
    (tmp_path / "10").mkdir()
    with pytest.raises(FileExistsError, match=r"2: .*does not exist yet.*the next is 11"):  # noqa: SIM117
        with new_version(tmp_path, 2):
            pytest.fail("it was given away")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "2"]


def test_versions_are_counted_from_1(tmp_path):
    with pytest.raises(ValueError, match=r"version must be .* at least 1\. Received: 0"):  # noqa: SIM117
        with new_version(tmp_path, 0):
            pytest.fail("it was given away")
