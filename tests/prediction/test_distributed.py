"""Three workers, one killed, or a prediction interrupted: the outputs are those of one process."""

import json
import os
import shutil
import signal
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from distributed import KilledWorker
from logs import logged, watched

from keras_unet.cli import main
from keras_unet.prediction import distributed as spreading
from keras_unet.prediction import worker
from keras_unet.prediction.clusters import Cluster
from keras_unet.prediction.distributed import spread_files
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.ledger import MANIFEST, checksum_of
from keras_unet.prediction.outputs import Storage
from keras_unet.runs import Ensemble, Run

SAVE = ("instances", "probabilities")


@pytest.fixture(scope="module")
def client():
    """Asks a local cluster of three processes, whose scheduler is in this one."""
    with Cluster(workers=3).connected() as client:
        yield client


@pytest.fixture
def cluster(client):
    return Cluster(client.scheduler.address)


@pytest.fixture
def image(cells, tmp_path):
    """Cells in 264 x 220 pixels: 6 x 5 tiles, each of which fills 44."""
    path = tmp_path / "a.tif"
    picture = np.tile(tifffile.imread(cells / "images" / "c3.tif"), (3, 3))[:264, :220]
    tifffile.imwrite(path, picture, tile=(64, 64), compression="zlib", photometric="minisblack")
    return path


@pytest.fixture
def ensemble(trained, tmp_path):
    """Two runs that differ in how they standardise."""
    folder, run = tmp_path / "ensemble", Run.load(trained)
    result = Ensemble(folder, (("c0",), ("c1",)), {}, run.rule)
    for fold in result.folds:
        shutil.copytree(trained, fold)
    result.save()
    path = result.folds[1] / "run.json"
    values = json.loads(path.read_text())
    values["normalization"] = {"mode": "dataset", "mean": [100.0], "std": [70.0]}
    path.write_text(json.dumps(values))
    return folder


def in_one_process(run, files, out, **options):
    storage = Storage(stream=True)
    return predict_files(run, files, out, tile_size=60, save=SAVE, storage=storage, **options)


def spread(run, files, out, cluster, **options):
    return spread_files(run, files, out, cluster, tile_size=60, save=SAVE, **options)


def contents(paths):
    """All that is written, to the byte, by its name."""
    files = [(path, path.rglob("*") if path.is_dir() else [path]) for path in paths]
    return {
        str(file.relative_to(path.parent)): file.read_bytes()
        for path, found in files
        for file in found
        if file.is_file()
    }


def test_a_worker_is_killed_and_nothing_is_lost(client, cluster, trained, image, tmp_path):
    before, killed, seen, times = client.run(os.getpid), [], [], []
    out = tmp_path / "out"

    def kill_one(name, done, total):
        seen.append((name, done, total))
        if len(seen) == 2 or done == total:
            folder, listed = parts_of(out)
            first_two = list(listed)[:2]
            times.append([(folder / name).stat().st_mtime_ns for name in first_two])
        busy = [address for address, tasks in client.processing().items() if tasks]
        if busy and len(seen) > 2 and not killed:
            killed.append(before[busy[0]])
            os.kill(killed[0], signal.SIGKILL)

    with watched(kill_one):
        written = spread(trained, [image], out, cluster, tta=True)
    assert killed
    assert times[0] == times[1]  # what is listed is not made anew
    client.wait_for_workers(3, timeout=120)
    assert killed[0] not in client.run(os.getpid).values()
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == (image.name, 8 * 30, 8 * 30)
    whole = in_one_process(trained, [image], tmp_path / "whole", tta=True)
    assert contents(written) == contents(whole)
    assert tifffile.imread(written[0]).max() > 20
    assert sorted(out.iterdir()) == sorted(written)  # the parts are gone


@contextmanager
def interrupted(after):
    """Presses Ctrl-C when so many times some tiles were predicted."""
    seen = []

    def press(_, done, total):
        seen.append((done, total))
        if len(seen) == after or done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched(press):
        yield


def parts_of(out):
    """The folder of the parts, and the lines of its manifest but for the first."""
    (folder,) = out.iterdir()
    lines = (folder / MANIFEST).read_text().splitlines()[1:]
    return folder, {one["name"]: one["sha256"] for one in map(json.loads, lines)}


def test_what_was_interrupted_goes_on(cluster, trained, image, tmp_path, monkeypatch):
    monkeypatch.setattr(spreading, "TILES", 2)
    out = tmp_path / "out"
    with interrupted(after=5):
        spread(trained, [image], out, cluster)
    folder, listed = parts_of(out)
    assert len(listed) == 5
    for name, checksum in listed.items():
        assert checksum_of((folder / name).read_bytes()) == checksum
    damaged, *kept = listed
    whole = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(b"x" + whole[1:])
    times = {name: (folder / name).stat().st_mtime_ns for name in kept}

    with logged() as said, interrupted(after=99):
        spread(trained, [image], out, cluster)
    assert "a.tif: 4 of 18 parts are kept of an earlier prediction, 1 damaged" in said
    assert times == {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert (folder / damaged).read_bytes() == whole

    with logged() as said, watched(pytest.fail):
        written = spread(trained, [image], out, cluster)
    assert "a.tif: 18 of 18 parts are kept of an earlier prediction" in said
    in_one = in_one_process(trained, [image], tmp_path / "whole")
    assert contents(written) == contents(in_one)
    assert sorted(out.iterdir()) == sorted(written)


@pytest.mark.parametrize("changed", ["image", "run", "symmetries", "axes"])
def test_parts_of_another_prediction_are_not_taken(changed, trained, image, tmp_path):
    plan = spreading._Plan.of((Run.load(trained),), trained, None, 60, symmetries=False)
    before = plan.described(plan.measure(image))
    if changed == "image":
        tifffile.imwrite(image, tifffile.imread(image)[::-1])  # of the same moments
    run = shutil.copytree(trained, tmp_path / "run")
    if changed == "run":
        with (run / "best.keras").open("ab") as file:
            file.write(b"\0")
    symmetries, axes = changed == "symmetries", "YX" if changed == "axes" else None
    plan = spreading._Plan.of((Run.load(run),), run, None, 60, symmetries=symmetries, axes=axes)
    assert plan.described(plan.measure(image)) != before


def test_an_ensemble_a_stack_and_zarr(client, cluster, ensemble, cells, tmp_path):
    planes = [tifffile.imread(cells / "images" / f"c{one}.tif") for one in range(2)]
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.stack(planes), chunks=(1, 50, 50))
    with logged() as said:
        written = spread(ensemble, [path], tmp_path / "out", cluster)
    assert contents(written) == contents(in_one_process(ensemble, [path], tmp_path / "whole"))
    assert [one.name for one in written] == ["a.ome.zarr", "a_probabilities.ome.zarr"]
    assert any(line.startswith("Dask dashboard: http://127.0.0.1:") for line in said)
    loaded = client.run(worker._loaded.cache_info)
    assert all(one.currsize <= 1 for one in loaded.values())
    before = {address: one.misses for address, one in loaded.items()}
    spread(ensemble, [path], tmp_path / "again", cluster)
    loaded = client.run(worker._loaded.cache_info)
    assert all(
        one.misses == before[address] for address, one in loaded.items() if before[address]
    )  # nobody loads twice what is loaded


def test_axes_that_the_file_does_not_state(cluster, trained, image, tmp_path):
    """Pixels stored as (columns, planes, rows), which the file calls planes, rows and columns."""
    picture = tifffile.imread(image)
    stored = np.stack([picture, picture[::-1]]).transpose(2, 0, 1)
    tifffile.imwrite(image, np.ascontiguousarray(stored), photometric="minisblack")
    options = ["--out", str(tmp_path / "out"), "--tile", "60", "--save", ",".join(SAVE)]
    arguments = ["predict", str(trained), str(image), *options, "--axes", "XZY"]
    result = CliRunner().invoke(main, [*arguments, "--dask", str(cluster.address)])
    assert result.exit_code == 0, result.output
    whole = in_one_process(trained, [image], tmp_path / "whole", axes="XZY")
    assert contents((tmp_path / "out").iterdir()) == contents(whole)
    labels = tifffile.imread(tmp_path / "out" / "a.tif")
    assert labels.shape == (2, *picture.shape)
    alone = tmp_path / "alone" / "a.tif"
    alone.parent.mkdir()
    tifffile.imwrite(alone, picture)
    (expected, _) = in_one_process(trained, [alone], tmp_path / "plane")
    np.testing.assert_array_equal(labels[0], tifffile.imread(expected))


def test_the_command(cluster, trained, image, tmp_path):
    options = ["--out", str(tmp_path / "out"), "--tile", "60", "--save", ",".join(SAVE)]
    arguments = ["predict", str(trained), str(image), *options, "--dask", str(cluster.address)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "Dask dashboard: http://127.0.0.1:" in result.stdout
    assert f"2 files written to {tmp_path / 'out'}\n" in result.stdout
    whole = in_one_process(trained, [image], tmp_path / "whole")
    assert contents((tmp_path / "out").iterdir()) == contents(whole)


@pytest.mark.usefixtures("client")
def test_nobody_else_can_reach_the_workers():
    """All that listens does so on the loopback of this machine."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_what_a_worker_refuses_ends_in_one_line(cluster, trained, image, tmp_path, monkeypatch):
    described = spreading.checksum_of_file
    monkeypatch.setattr(spreading, "checksum_of_file", lambda path: described(path)[::-1])
    with pytest.raises(ValueError, match="run: expected the weights that the prediction was"):
        spread(trained, [image], tmp_path / "out", cluster)


REFUSED = {
    "a PNG": (["c0.png"], {}, r"c0\.png: expected a TIFF or Zarr file.*--dask and --workers"),
    "a tile": (["c0.tif"], {"tile_size": 61}, r"tile_size"),
    "twice": (["c0.tif", "c0.tif"], {}, r"files must differ in their stems"),
}


@pytest.mark.parametrize(("names", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_before_any_worker_is_asked(
    names, options, message, trained, cells, tmp_path
):
    (tmp_path / "c0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.copy(cells / "images" / "c0.tif", tmp_path)
    files = [tmp_path / name for name in names]
    with pytest.raises(ValueError, match=message) as caught:
        spread_files(trained, files, tmp_path / "out", Cluster("tcp://no:1"), **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_drawn_by_hand_are_not_replaced(trained, cells):
    before = (cells / "labels" / "c0.tif").read_bytes()
    with pytest.raises(ValueError, match=r"labels/c0.tif: expected no file, or one that keras-un"):
        spread_files(trained, [cells / "images"], cells / "labels", Cluster("tcp://no:1"))
    assert (cells / "labels" / "c0.tif").read_bytes() == before


class Died:
    address = "tcp://a:1"


LOST = {
    "workers": (KilledWorker("part", Died(), 3), r"expected workers that live through a part"),
    "scheduler": (spreading.CancelledError(), r"expected a Dask scheduler until all parts"),
}


@pytest.mark.parametrize(("error", "message"), LOST.values(), ids=LOST)
def test_what_is_lost_for_good_is_said_with_the_way_on(error, message, tmp_path):
    with (
        pytest.raises(OSError, match=rf"a\.tif: {message}.*The same command goes on") as caught,
        spreading._one_line(tmp_path / "a.tif"),
    ):
        raise error
    assert "\n" not in str(caught.value)
