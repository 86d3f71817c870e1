"""Data sets from a server on loopback, with archives that the tests make."""

import json
import threading
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from logs import logged, watched

from keras_unet.cli import main
from keras_unet.data import download as fetching
from keras_unet.data.datasets import DATASETS
from keras_unet.data.download import RECORD, download
from keras_unet.data.samples import read_samples
from keras_unet.data.synthetic import draw_cells


def tiff(array):
    file = BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack")
    return file.getvalue()


def zipped(files):
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


IMAGE, CELLS = (tiff(array.astype(np.uint16)) for array in draw_cells(0, size=(64, 64), cells=4))
STACK = tiff(np.stack([np.arange(4096).reshape(64, 64) % 251] * 3).astype(np.uint8))
MEMBRANES = tiff(np.stack([(np.arange(4096).reshape(64, 64) % 7 > 0) * 255] * 3).astype(np.uint8))

NUCLEI = {
    "dsb2018/README.txt": b"read me",
    "__MACOSX/dsb2018/train/images/._a.tif": b"no image",
    **{f"dsb2018/{part}/images/{name}.tif": IMAGE for part in ("train", "test") for name in "ab"},
    **{f"dsb2018/{part}/masks/{name}.tif": CELLS for part in ("train", "test") for name in "ab"},
}
TRACKS = {
    **{f"X/{track}/t00{time}.tif": IMAGE for track in ("01", "02") for time in range(3)},
    **{f"X/{track}_GT/SEG/man_seg001.tif": CELLS for track in ("01", "02")},
    "X/01_GT/TRA/man_track000.tif": CELLS,
    "X/01_ST/SEG/man_seg000.tif": CELLS,
}
SLICES = {"train-volume.tif": STACK, "train-labels.tif": MEMBRANES, "test-volume.tif": STACK}
ARCHIVES = {
    "dsb2018": NUCLEI,
    "isbi2012": SLICES,
    "PhC-C2DH-U373": TRACKS,
    "DIC-C2DH-HeLa": TRACKS,
}


class Server(ThreadingHTTPServer):
    """Gives files by name; `asked` lists what it was asked for, `cut` breaks off after a half."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.asked, self.cut = {}, [], False

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def offered(server, monkeypatch):
    """Puts archives on the server under the addresses of the data sets, and returns their bytes."""

    def offer(name, content, *, known=True):
        dataset = DATASETS[name]
        server.files[f"{name}.zip"] = content
        checksum = sha256(content).hexdigest() if known else None
        there = replace(dataset, url=f"{server.address}/{name}.zip", sha256=checksum)
        monkeypatch.setitem(DATASETS, name, there)

    return offer


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def fetch(name, out, cache, **how):
    with logged() as lines:
        folder = download(name, out, cache=cache, **how)
    return folder, lines


def files_in(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def refused(name, out, cache, error=ValueError):
    """The message of a refusal, which is one line and leaves nothing."""
    with pytest.raises(error) as caught:
        download(name, out, cache=cache)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.glob(".*"))
    return str(caught.value)


@pytest.mark.parametrize("name", list(DATASETS))
def test_what_comes_can_be_trained_on(offered, cache, tmp_path, name):
    offered(name, zipped(ARCHIVES[name]))
    folder, lines = fetch(name, tmp_path / "out", cache)
    samples = read_samples(folder)
    assert len(samples.samples) == {"dsb2018": 2, "isbi2012": 3}.get(name, 2)
    assert any(DATASETS[name].terms in line for line in lines)


def test_images_and_labels_alone_are_unpacked(offered, cache, tmp_path):
    offered("dsb2018", zipped(NUCLEI))
    folder, _ = fetch("dsb2018", tmp_path / "new" / "out", cache)
    out = tmp_path / "new" / "out"
    places = [
        f"{p}/{k}/{n}.tif" for p in ("test", "train") for k in ("images", "labels") for n in "ab"
    ]
    assert files_in(out) == [RECORD, *places]
    assert folder == out / "train"
    assert (out / "test/labels/b.tif").read_bytes() == CELLS


def test_sequences_keep_their_layout(offered, cache, tmp_path):
    offered("PhC-C2DH-U373", zipped(TRACKS))
    folder, _ = fetch("PhC-C2DH-U373", tmp_path / "out", cache)
    assert [name for name in files_in(folder) if name.startswith("01")] == [
        *(f"01/t00{time}.tif" for time in range(3)),
        "01_GT/SEG/man_seg001.tif",
    ]


def test_record_names_source_checksum_and_terms(offered, cache, tmp_path):
    content = zipped(NUCLEI)
    offered("dsb2018", content)
    fetch("dsb2018", tmp_path / "out", cache)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["url"] == DATASETS["dsb2018"].url
    assert record["sha256"] == sha256(content).hexdigest()
    assert "CC0" in record["terms"]
    assert "Caicedo" in record["cite"]


def test_an_archive_is_downloaded_once(offered, cache, tmp_path, server):
    offered("dsb2018", zipped(NUCLEI))
    fetch("dsb2018", tmp_path / "one", cache)
    fetch("dsb2018", tmp_path / "two", cache)
    assert server.asked == ["dsb2018.zip"]
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")


def test_a_damaged_archive_in_the_cache_is_downloaded_again(offered, cache, tmp_path, server):
    offered("dsb2018", zipped(NUCLEI))
    fetch("dsb2018", tmp_path / "one", cache)
    (cache / "dsb2018.zip").write_bytes(b"damaged")
    fetch("dsb2018", tmp_path / "two", cache)
    assert len(server.asked) == 2


def test_progress_is_counted_in_bytes(offered, cache, tmp_path):
    content = zipped({**NUCLEI, "large.bin": bytes(200_000)})
    offered("dsb2018", content)
    updates = []
    with watched(lambda *now: updates.append(now)):
        fetch("dsb2018", tmp_path / "out", cache)
    assert updates[-1] == ("dsb2018.zip", len(content), len(content))
    assert [done for _, done, _ in updates] == sorted(done for _, done, _ in updates)
    assert len(updates) > 2


def test_another_archive_than_the_known_one_is_refused(offered, cache, tmp_path, server):
    offered("dsb2018", zipped(NUCLEI))
    server.files["dsb2018.zip"] = zipped(NUCLEI | {"dsb2018/train/images/c.tif": IMAGE})
    message = refused("dsb2018", tmp_path / "out", cache)
    assert DATASETS["dsb2018"].sha256 in message
    assert "changed at its source" in message
    assert files_in(cache) == []


def test_where_no_checksum_is_known_the_first_is_trusted_and_logged(
    offered, cache, tmp_path, server
):
    content = zipped(SLICES)
    offered("isbi2012", content, known=False)
    _, lines = fetch("isbi2012", tmp_path / "one", cache)
    checksum = sha256(content).hexdigest()
    (warning,) = (line for line in lines if line.startswith("Warning"))
    assert checksum in warning
    assert (cache / "isbi2012.zip.sha256").read_text() == f"{checksum}  isbi2012.zip\n"

    _, lines = fetch("isbi2012", tmp_path / "two", cache)
    assert not any(line.startswith("Warning") for line in lines)

    (cache / "isbi2012.zip").unlink()
    server.files["isbi2012.zip"] = zipped(SLICES | {"more.txt": b"more"})
    message = refused("isbi2012", tmp_path / "three", cache)
    assert checksum in message
    assert "remove" in message
    (cache / "isbi2012.zip.sha256").unlink()
    fetch("isbi2012", tmp_path / "three", cache)


def test_a_page_in_place_of_an_archive_is_not_trusted(offered, cache, tmp_path):
    offered("isbi2012", b"<html>Please log in</html>", known=False)
    assert "cannot be unpacked: File is not a zip file" in refused(
        "isbi2012", tmp_path / "out", cache
    )
    assert files_in(cache) == []


def test_a_download_that_breaks_off_leaves_nothing(offered, cache, tmp_path, server):
    offered("dsb2018", zipped(NUCLEI))
    server.cut = True
    message = refused("dsb2018", tmp_path / "out", cache, OSError)
    assert "run the same command again" in message
    assert files_in(cache) == []
    server.cut = False
    fetch("dsb2018", tmp_path / "out", cache)


def test_ctrl_c_leaves_nothing(offered, cache, tmp_path):
    offered("dsb2018", zipped({**NUCLEI, "large.bin": bytes(200_000)}))

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched(interrupt):
        fetch("dsb2018", tmp_path / "out", cache)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("address", ["/nothing.zip", None])
def test_no_answer_is_one_line(cache, tmp_path, server, monkeypatch, address):
    url = f"{server.address}{address}" if address else "http://127.0.0.1:1/dsb2018.zip"
    monkeypatch.setitem(DATASETS, "dsb2018", replace(DATASETS["dsb2018"], url=url))
    assert url in refused("dsb2018", tmp_path / "out", cache, OSError)
    assert files_in(cache) == []


@pytest.mark.parametrize(
    "member", ["../../train/images/evil.tif", "/train/images/evil.tif", "a\\b/train/images/x.tif"]
)
def test_nothing_is_written_outside_the_folder(offered, cache, tmp_path, member):
    offered("dsb2018", zipped({**NUCLEI, member: IMAGE}))
    message = refused("dsb2018", tmp_path / "deep" / "out", cache)
    assert "holds a file with a path outside of the folder" in message
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"train-volume.tif": STACK}, r"it has no file \(\?:\.\*/\)\?train-labels"),
        (
            {**SLICES, "a/train-volume.tif": STACK},
            "two of its files have the same path: train-volume",
        ),
    ],
)
def test_an_archive_without_the_data_set_is_refused(offered, cache, tmp_path, files, reason):
    offered("isbi2012", zipped(files), known=False)
    with pytest.raises(ValueError, match=reason):
        fetch("isbi2012", tmp_path / "out", cache)
    assert files_in(tmp_path) == []


def test_an_archive_that_is_huge_unpacked_is_refused(offered, cache, tmp_path, monkeypatch):
    offered("dsb2018", zipped(NUCLEI))
    monkeypatch.setattr(fetching, "MOST_BYTES", 1000)
    assert "its files are larger than 1000 bytes" in refused("dsb2018", tmp_path / "out", cache)


def test_a_folder_with_files_is_left_alone(cache, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match=r"new or empty folder for the data set.*mine\.txt"):
        download("dsb2018", tmp_path, cache=cache)
    assert files_in(tmp_path) == ["mine.txt"]


def test_hidden_files_are_left_alone(cache, tmp_path, offered):
    offered("dsb2018", zipped(NUCLEI))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".notes").touch()
    with pytest.raises(FileExistsError, match=r"data set. Received one with \.notes; choose"):
        download("dsb2018", tmp_path / "out", cache=cache)
    assert files_in(tmp_path / "out") == [".notes"]


def test_a_folder_may_be_a_link(cache, tmp_path, offered):
    offered("dsb2018", zipped(NUCLEI))
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    folder, _ = fetch("dsb2018", tmp_path / "out", cache)
    assert (tmp_path / "out").is_symlink()
    assert (folder / "images").is_dir()


def test_a_folder_without_a_name_is_refused(cache):
    with pytest.raises(ValueError, match=r"out must be the name of a new folder. Received: out=\."):
        download("dsb2018", Path(), cache=cache)


def test_an_unknown_name_is_refused(cache, tmp_path):
    with pytest.raises(ValueError, match=r"one of dsb2018, isbi2012, .* Received: name=dbs2018"):
        download("dbs2018", tmp_path / "out", cache=cache)


def test_the_command_says_what_is_next(offered, cache, tmp_path, monkeypatch):
    offered("dsb2018", zipped(NUCLEI))
    monkeypatch.setattr("pooch.os_cache", lambda _: cache)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["data", "DSB2018"])
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("next: keras-unet inspect dsb2018/train\n")
    assert result.stdout.count("\n") == 4
    again = CliRunner().invoke(main, ["data", "dsb2018"])
    assert again.exit_code == 2
    assert len(again.stderr.splitlines()) == 1


def test_the_command_names_all_data_sets():
    text = CliRunner().invoke(main, ["data", "--help"]).output
    assert all(name in text for name in DATASETS)
    assert "expected" not in text


def test_every_checksum_has_its_digits():
    known = [one.sha256 for one in DATASETS.values() if one.sha256]
    assert len(known) == 3
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in known)
    assert all(one.url.startswith("https://") for one in DATASETS.values())
