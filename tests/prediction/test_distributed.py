"""Three workers, one killed, or a prediction interrupted: the outputs are those of one process."""

import io
import json
import os
import shutil
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from distributed import KilledWorker, LocalCluster
from logs import logged, watched

from keras_unet import system as extras
from keras_unet.cli import main
from keras_unet.data.normalization import Moments
from keras_unet.prediction import distributed as spreading
from keras_unet.prediction.blockwise import Plan, checksum_of_file, measure
from keras_unet.prediction.distributed import (
    Cluster,
    Networks,
    predict_files_distributed,
    predict_task,
)
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.outputs import OutputOptions
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.segmenter import Member
from keras_unet.prediction.store import Stage, Store, Task, TilePlan
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
    """Two runs that differ in how they normalize."""
    folder, run = tmp_path / "ensemble", Run.load(trained)
    result = Ensemble(folder, (("c0",), ("c1",)), {}, run.instances)
    for fold in result.folds:
        shutil.copytree(trained, fold)
    result.save()
    path = result.folds[1] / "run.json"
    values = json.loads(path.read_text())
    values["normalization"] = {"mode": "dataset", "mean": [100.0], "std": [70.0]}
    path.write_text(json.dumps(values))
    return folder


def in_one_process(run, files, out, **options):
    storage = OutputOptions(stream=True)
    return predict_files(run, files, out, tile_size=60, save=SAVE, storage=storage, **options)


def subsample(run, files, out, cluster, **options):
    return predict_files_distributed(run, files, out, cluster, tile_size=60, save=SAVE, **options)


def contents(paths):
    """All that is written, to the byte, by its name."""
    files = [(path, path.rglob("*") if path.is_dir() else [path]) for path in paths]
    return {
        str(file.relative_to(path.parent)): file.read_bytes()
        for path, found in files
        for file in found
        if file.is_file()
    }


def assert_same(written, whole):
    """Compares what is written: probabilities to their last bit, all else to the byte."""
    found, expected = contents(written), contents(whole)
    for name in found.keys() & expected.keys():
        if name.endswith("_probabilities.tif"):
            ours, theirs = (
                tifffile.imread(io.BytesIO(files.pop(name))) for files in (found, expected)
            )
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=6e-8)
            assert ours.dtype == theirs.dtype
    assert found == expected


def chunks_in(out):
    """The chunks of the store of an image, and when they were written."""
    files = [path for store in out.glob(".*.zarr") for path in store.rglob("c/*/*/0")]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_worker_is_killed_and_nothing_is_lost(client, cluster, trained, image, tmp_path):
    before, killed, seen, times = client.run(os.getpid), [], [], []
    out = tmp_path / "out"

    def kill_one(name, done, total):
        seen.append((name, done, total))
        if len(seen) == 2 or done == 30:  # the end of the first version
            times.append({path: at for path, at in chunks_in(out).items() if "stage0" in str(path)})
        busy = [address for address, tasks in client.processing().items() if tasks]
        if busy and len(seen) > 2 and not killed:
            killed.append(before[busy[0]])
            os.kill(killed[0], signal.SIGKILL)

    with watched(kill_one):
        written = subsample(trained, [image], out, cluster, tta=True)
    assert killed
    assert len(times[1]) == 30
    unchanged = [path for path, at in times[0].items() if times[1][path] == at]
    assert len(unchanged) >= seen[1][1]  # what is said to be done is not predicted anew
    client.wait_for_workers(3, timeout=120)
    assert killed[0] not in client.run(os.getpid).values()
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == (image.name, 8 * 30, 8 * 30)
    whole = in_one_process(trained, [image], tmp_path / "whole", tta=True)
    assert_same(written, whole)
    assert tifffile.imread(written[0]).max() > 20
    assert sorted(out.iterdir()) == sorted(written)  # the store is gone


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


def wait_for_workers_to_end(client):
    """Waits until no worker is at a task that nobody waits for any more."""
    while True:
        at_work = client.run(lambda: spreading._NETWORK_LOCK.locked())  # noqa: PLW0108 - no lock is sent
        if not any([*client.processing().values(), *at_work.values()]):
            return
        time.sleep(0.05)


def test_what_was_interrupted_goes_on(client, cluster, trained, image, tmp_path, monkeypatch):
    monkeypatch.setattr(spreading, "TILES", 2)
    out = tmp_path / "out"
    with interrupted(after=5):
        subsample(trained, [image], out, cluster)
    wait_for_workers_to_end(client)
    times = chunks_in(out)
    assert 5 <= len(times) < 30
    damaged = next(iter(times))
    whole = damaged.read_bytes()
    damaged.write_bytes(b"x" + whole[1:])
    del times[damaged]

    with logged() as said, interrupted(after=99):
        subsample(trained, [image], out, cluster)
    kept = f"a.tif: resuming with {len(times)} of 30 tiles of an earlier prediction, 1 damaged"
    assert kept in said
    again = chunks_in(out)
    assert times == {path: again[path] for path in times}
    assert damaged.read_bytes() == whole

    with logged() as said, watched(pytest.fail):
        written = subsample(trained, [image], out, cluster)
    assert "a.tif: resuming with 30 of 30 tiles of an earlier prediction" in said
    in_one = in_one_process(trained, [image], tmp_path / "whole")
    assert_same(written, in_one)
    assert sorted(out.iterdir()) == sorted(written)


def test_one_process_goes_on_with_what_workers_have_left(cluster, trained, image, tmp_path):
    out = tmp_path / "out"
    with interrupted(after=99):
        subsample(trained, [image], out, cluster)
    with logged() as said, watched(pytest.fail):
        written = in_one_process(trained, [image], out)
    assert "a.tif: resuming with 30 of 30 tiles of an earlier prediction" in said
    assert_same(written, in_one_process(trained, [image], tmp_path / "whole"))


@pytest.mark.parametrize("changed", ["image", "run", "tta", "axes", "precision", "tile", "size"])
def test_chunks_of_another_prediction_are_not_taken(changed, trained, image, tmp_path):
    def described(run, tta=False, axes=None, precision=None, tile=60, size=(264, 220)):
        checksums = (checksum_of_file(run / "best.keras"),)
        plan = Plan((Run.load(run),), ((tile, tile),), tta, axes, precision, checksums)
        return plan.provenance(measure(plan.infos[0], image, axes), size)

    before = described(trained)
    assert before == described(trained)
    if changed == "image":
        tifffile.imwrite(image, tifffile.imread(image)[::-1])  # of the same moments
    run = shutil.copytree(trained, tmp_path / "run")
    if changed == "run":
        with (run / "best.keras").open("ab") as file:
            file.write(b"\0")
    others = {"tta": True, "axes": "YX", "precision": "bfloat16", "tile": 68, "size": (132, 110)}
    assert described(run, **{one: others[one] for one in {changed} & others.keys()}) != before


def test_a_channel(cluster, trained, cells, tmp_path):
    picture = tifffile.imread(cells / "images" / "c3.tif")
    named = {"axes": "CYX", "Channel": {"Name": ["none", "cells"]}}
    options = {"metadata": named, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.stack([0 * picture, picture]), **options)
    files, channels = [tmp_path / "a.ome.tif"], {"channels": ["cells"]}
    written = subsample(trained, files, tmp_path / "out", cluster, **channels)
    alone = in_one_process(trained, [cells / "images" / "c3.tif"], tmp_path / "alone")
    for ours, theirs in zip(written, alone, strict=True):
        np.testing.assert_allclose(tifffile.imread(ours), tifffile.imread(theirs), atol=6e-8)
    assert tifffile.imread(written[0]).any()


def test_an_ensemble_a_stack_and_zarr(client, cluster, ensemble, cells, tmp_path):
    planes = [tifffile.imread(cells / "images" / f"c{one}.tif") for one in range(2)]
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.stack(planes), chunks=(1, 50, 50))
    with logged() as said:
        written = subsample(ensemble, [path], tmp_path / "out", cluster)
    assert contents(written) == contents(in_one_process(ensemble, [path], tmp_path / "whole"))
    assert [one.name for one in written] == ["a.ome.zarr", "a_probabilities.ome.zarr"]
    assert any(line.startswith("Dask dashboard: http://127.0.0.1:") for line in said)
    loaded = client.run(spreading._load.cache_info)
    assert all(one.currsize <= 1 for one in loaded.values())
    before = {address: one.misses for address, one in loaded.items()}
    subsample(ensemble, [path], tmp_path / "again", cluster)
    loaded = client.run(spreading._load.cache_info)
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
    assert_same((tmp_path / "out").iterdir(), whole)
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
    assert_same((tmp_path / "out").iterdir(), whole)


@pytest.mark.usefixtures("client")
def test_nobody_else_can_reach_the_workers():
    """All that listens does so on the loopback of this machine."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")  # IPv4 in the form of IPv6
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_what_a_worker_refuses_ends_in_one_line(cluster, trained, image, tmp_path, monkeypatch):
    checksum = Member.checksum.fget
    monkeypatch.setattr(Member, "checksum", property(lambda member: checksum(member)[::-1]))
    with pytest.raises(ValueError, match="run: expected the weights that the prediction was"):
        subsample(trained, [image], tmp_path / "out", cluster)


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
        predict_files_distributed(
            trained, files, tmp_path / "out", Cluster("tcp://no:1"), **options
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_drawn_by_hand_are_not_replaced(trained, cells):
    before = (cells / "labels" / "c0.tif").read_bytes()
    with pytest.raises(ValueError, match=r"labels/c0.tif: expected no file, or one that keras-un"):
        predict_files_distributed(
            trained, [cells / "images"], cells / "labels", Cluster("tcp://no:1")
        )
    assert (cells / "labels" / "c0.tif").read_bytes() == before


class Died:
    address = "tcp://a:1"


LOST = {
    "workers": (KilledWorker("part", Died(), 3), r"expected workers that complete a task"),
    "scheduler": (spreading.CancelledError(), r"expected a Dask scheduler until all tiles"),
}


@pytest.mark.parametrize(("error", "message"), LOST.values(), ids=LOST)
def test_what_is_lost_for_good_is_said_with_the_way_on(error, message, tmp_path):
    with (
        pytest.raises(OSError, match=rf"a\.tif: {message}.*The same command resumes") as caught,
        spreading._explain_worker_loss(tmp_path / "a.tif"),
    ):
        raise error
    assert "\n" not in str(caught.value)


@pytest.fixture
def task(trained, cells, tmp_path):
    path, run = cells / "images" / "c3.tif", Run.load(trained)
    image = tifffile.imread(path)[..., None]
    stage = Stage.of(0, TilePlan((96, 96), run.architecture, (60, 60)), 1, 1)
    normalization = run.normalization.with_moments(Moments.of([image]))
    with Store.opened(tmp_path, "c3", {}) as store:
        store.create(0, stage)
        yield Task(store.folder, path, None, (1, 96, 96, 1), 0, normalization, stage, (2, 3))


@pytest.fixture
def networks(trained):
    return Networks(trained, None, (checksum_of_file(trained / "best.keras"),))


def test_a_worker_writes_tiles_of_the_whole_image(task, networks, trained):
    assert predict_task(networks, task) == 2
    run, tiles = Run.load(trained), task.stage.tiles
    image = run.normalize(tifffile.imread(task.image)[..., None], task.image)
    whole = predict_image(load_network(run), image, tile_size=60)
    probabilities = Store(task.store).probabilities(0, task.stage)
    for number in task.numbers:
        place = tiles.source_window(tiles.tiles[number])
        np.testing.assert_array_equal(probabilities[place], whole[place])
    assert len(list(task.store.rglob("c/*/*/0"))) == 2


OTHERS = {
    "another image": (
        {"shape": (1, 96, 95, 1)},
        r"c3\.tif: expected the image of \(1, 96, 95, 1\)",
    ),
    "other weights": ({}, r"run: expected the weights that the prediction was"),
    "no image": ({"image": Path("none.tif")}, r"no such file"),
}


@pytest.mark.parametrize(("changed", "message"), OTHERS.values(), ids=OTHERS)
def test_other_files_than_those_of_who_asks_are_refused(changed, message, task, networks):
    networks = networks if changed else replace(networks, checksums=("0",))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        predict_task(networks, replace(task, **changed))
    assert "\n" not in str(caught.value)
    assert list(task.store.rglob("c/*/*/0")) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None), r"dask and workers: expected one of them, .*dask=None, workers=None$"),
        (("tcp://a:1", 2), r"expected one of them, .*dask=tcp://a:1, workers=2$"),
        ((None, 0), r"workers must be at least 1\. Received: 0$"),
    ],
)
def test_one_way_is_chosen(given, message):
    with pytest.raises(ValueError, match=message):
        Cluster(*given)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no://127.0.0.1:1"])
def test_no_scheduler(address, monkeypatch):
    monkeypatch.setattr(spreading, "SECONDS", 0.5)
    with (
        pytest.raises(OSError, match=rf"^{address}: expected .*; start one by: dask") as caught,
        Cluster(address).connected(),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_no_worker(monkeypatch):
    monkeypatch.setattr(spreading, "SECONDS", 1)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with (
            pytest.raises(OSError, match=rf"without any for 1 seconds; .*: dask worker {address}"),
            Cluster(address).connected(),
        ):
            pass


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with (
        pytest.raises(ModuleNotFoundError, match=r'without distributed; pip install "\.\[dask\]"$'),
        Cluster(workers=1).connected(),
    ):
        pass
