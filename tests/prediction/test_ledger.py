"""Parts that are listed are whole, whatever happened."""

import json
import os

import pytest

from keras_unet import files
from keras_unet.prediction.ledger import MANIFEST, Ledger, checksum_of, write_part

WORK = {"image": "abc", "tiles": [1, 2]}


def begun(out, name="a", **changed):
    return Ledger.open(out, name, WORK | changed)


def with_parts(out, *names):
    ledger = begun(out)
    for name in names:
        ledger.enter(name, write_part(ledger.folder / name, name.encode()))
    return ledger


def test_finished_parts_are_kept(tmp_path):
    with_parts(tmp_path, "one", "two")
    again = begun(tmp_path)
    assert again.checksums == {name: checksum_of(name.encode()) for name in ("one", "two")}
    assert again.damaged == ()
    assert again.read("two") == b"two"
    again.enter("three", write_part(again.folder / "three", b"3"))
    assert sorted(begun(tmp_path).checksums) == ["one", "three", "two"]
    again.remove()
    assert list(tmp_path.iterdir()) == []


def spoil(path):
    path.write_bytes(b"x" + path.read_bytes()[1:])


@pytest.mark.parametrize("harm", [spoil, os.unlink, lambda path: path.write_bytes(b"")])
def test_a_part_of_another_checksum_is_no_part(harm, tmp_path):
    ledger = with_parts(tmp_path, "one", "two")
    harm(ledger.folder / "one")
    again = begun(tmp_path)
    assert (sorted(again.checksums), again.damaged) == (["two"], ("one",))
    assert (sorted(begun(tmp_path).checksums), begun(tmp_path).damaged) == (["two"], ())


def test_a_part_that_changes_later_is_not_read(tmp_path):
    ledger = with_parts(tmp_path, "one")
    spoil(ledger.folder / "one")
    with pytest.raises(OSError, match=r"one: expected the part of .*; give the same command") as e:
        ledger.read("one")
    assert "\n" not in str(e.value)


def test_a_part_is_listed_only_when_it_is_on_the_disk(tmp_path, monkeypatch):
    ledger = begun(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_part(ledger.folder / "one", b"1")
    assert [path.name for path in ledger.folder.iterdir()] == [MANIFEST]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_is_passed_over(cut, tmp_path):
    path = with_parts(tmp_path, "one", "two").folder / MANIFEST
    path.write_bytes(path.read_bytes()[:-cut])
    again = begun(tmp_path)
    assert sorted(again.checksums) == (["one", "two"] if cut == 1 else ["one"])
    again.enter("two", write_part(again.folder / "two", b"2"))
    assert sorted(begun(tmp_path).checksums) == ["one", "two"]
    assert [json.loads(line) for line in path.read_text().splitlines()]


def test_another_work_begins_anew_and_leaves_others_alone(tmp_path):
    first, other = with_parts(tmp_path, "one"), begun(tmp_path, "a.b")
    (tmp_path / ".a.mine.parts").mkdir()
    second = begun(tmp_path, image="other")
    assert second.checksums == {}
    assert second.folder != first.folder
    assert {path.name for path in tmp_path.iterdir()} == {
        ".a.mine.parts",
        other.folder.name,
        second.folder.name,
    }


def test_a_manifest_of_another_work_is_not_believed(tmp_path):
    ledger = with_parts(tmp_path, "one")
    path = ledger.folder / MANIFEST
    path.write_text(path.read_text().replace("abc", "abd"))
    assert begun(tmp_path).checksums == {}
