"""Training on several devices and machines: the numbers of one, and an end in one line."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from logs import logged

from keras_unet.backend import keras, tf
from keras_unet.runs import Run
from keras_unet.training import distribute as distribution
from keras_unet.training.checkpoint import CHECKPOINT, HISTORY, LAST
from keras_unet.training.distribute import SINGLE, Cluster, copy_weights, join
from keras_unet.training.options import TrainingOptions
from keras_unet.training.train import train_folder

PROGRAM = Path(__file__).parents[1] / "together.py"
STEPS = 60
OPTIONS = {
    "steps": STEPS,
    "depth": 1,
    "base_filters": 2,
    "tile": 44,
    "dropout": 0.0,
    "precision": "float32",
}
WITHIN = 240  # seconds; only a failure takes as long


def quiet_environment(**more):
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"} | more


def history(folder):
    with (folder / HISTORY).open(newline="") as stream:
        return list(csv.DictReader(stream))


def losses(folder):
    return [float(row["loss"]) for row in history(folder)]


def assert_close(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def on_two_devices(tmp_path_factory):
    """What training on two logical devices gives, in a process that is given them."""
    file = tmp_path_factory.mktemp("devices") / "found.json"
    command = [sys.executable, PROGRAM, "devices", file]
    subprocess.run(command, env=quiet_environment(), check=True, timeout=WITHIN)
    return json.loads(file.read_text())


class TestTwoDevices:
    def test_are_told_of(self, on_two_devices):
        assert on_two_devices["said"] == ["training on 2 devices of this machine"]
        assert on_two_devices["cluster"] == {"workers": 1, "replicas": 2}

    @pytest.mark.parametrize(
        ("how", "one"),
        [("together", "alone"), ("begun together", "alone"), ("together, adam", "alone, adam")],
    )
    def test_give_the_numbers_of_one_with_the_doubled_batch(self, on_two_devices, how, one):
        """Also where an interrupted run goes on with one."""
        alone, found = on_two_devices[one], on_two_devices[how]
        finite = [one for one in alone["losses"] if one is not None]
        np.testing.assert_allclose(
            [one for one in found["losses"] if one is not None], finite, rtol=1e-4
        )
        assert_close(found["weights"], alone["weights"])

    def test_skip_an_update_together(self, on_two_devices):
        """The number that is none was in the tile of one of them."""
        assert on_two_devices["alone"]["skipped"] == on_two_devices["together"]["skipped"] == 1

    def test_have_dropouts_of_their_own(self, on_two_devices):
        first, second = on_two_devices["dropouts"]
        assert not np.allclose(first, second)

    def test_share_the_statistics_of_a_batch_normalization(self, on_two_devices):
        apart, averaged = (
            np.array(on_two_devices["statistics"][how]) for how in ("apart", "averaged")
        )
        assert not np.allclose(apart[0], apart[1])
        np.testing.assert_allclose(averaged, [apart.mean(axis=0)] * 2, rtol=1e-5)


class Workers:
    """Two processes on loopback."""

    def __init__(self, *arguments, folder):
        ports = free_ports(2)
        self.files = [folder / f"worker{number}.json" for number in range(2)]
        self.processes = []
        for number, file in enumerate(self.files):
            config = {
                "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
                "task": {"type": "worker", "index": number},
            }
            command = [sys.executable, PROGRAM, "worker", file, "train", *map(str, arguments)]
            self.processes.append(
                subprocess.Popen(
                    command,
                    env=quiet_environment(TF_CONFIG=json.dumps(config)),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def wait(self):
        said = [process.communicate(timeout=WITHIN) for process in self.processes]
        return [process.returncode for process in self.processes], said

    def end(self):
        for process in self.processes:
            process.kill()
            process.communicate()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture
def workers(tmp_path):
    started = []

    def start(*arguments):
        started.append(Workers(*arguments, folder=tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_a_worker_is_killed_and_the_restart_gives_the_run_of_one_process(cells, tmp_path, workers):
    run = tmp_path / "run"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    first = workers(cells, "--run", run, "--distribute", "auto", *flags)
    until(lambda: len(history(run)) > 1 if (run / HISTORY).exists() else False, first)
    os.kill(first.processes[1].pid, signal.SIGKILL)
    codes, said = first.wait()
    assert codes == [2, -signal.SIGKILL]
    broadcast = [one for one in said[0][1].splitlines() if not one.startswith("Warning")]
    assert len(broadcast) == 1, broadcast
    assert broadcast[0].startswith("Error: worker 0 of 2: another worker has ended")
    with np.load(run / CHECKPOINT) as arrays:
        step = json.loads(str(arrays["progress"]))["step"]
    assert 0 < step < STEPS

    codes, said = workers(cells, "--run", run, "--distribute", "multiworker", "--resume").wait()
    assert codes == [0, 0], said
    assert said[1][0] == ""
    one = tmp_path / "one"
    train_folder(cells, one, TrainingOptions(**OPTIONS, batch_size=2))
    np.testing.assert_allclose(losses(run), losses(one), rtol=1e-4)
    weights = [json.loads((tmp_path / f"worker{number}.json").read_text()) for number in (0, 1)]
    assert weights[0] == weights[1]
    assert_close(weights[0], keras.saving.load_model(run / LAST).get_weights())
    record = Run.load(run).record
    assert record["cluster"] == {"workers": 2, "replicas": 2}
    assert record["options"]["batch_size"] == 2


def test_the_chief_is_killed(cells, tmp_path, workers):
    """Nobody else may write to its run, which holds its last checkpoint."""
    run = tmp_path / "run"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    both = workers(cells, "--run", run, "--distribute", "auto", *flags)
    until((run / CHECKPOINT).exists, both)
    os.kill(both.processes[0].pid, signal.SIGKILL)
    codes, said = both.wait()
    assert codes == [-signal.SIGKILL, 2], said
    broadcast = [one for one in said[1][1].splitlines() if not one.startswith("Warning")]
    assert len(broadcast) == 1, broadcast
    assert broadcast[0].startswith("Error: worker 1 of 2: another worker has ended")
    with np.load(run / CHECKPOINT) as arrays:
        assert json.loads(str(arrays["progress"]))["step"] > 0


def until(condition, workers):
    ends = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < ends
        assert workers.processes[0].poll() is None, workers.processes[0].communicate()
        time.sleep(0.05)


def cluster_of(replicas):
    return Cluster(SimpleNamespace(num_replicas_in_sync=replicas))


class TestCheck:
    def test_a_batch_that_can_be_dealt_out(self):
        for replicas in (1, 2, 3, 6):
            cluster_of(replicas).check(6, "float32")

    def test_a_batch_that_cannot(self):
        with pytest.raises(ValueError, match=r"replicas=4 for 6 tiles; continue with 1 or 2 or 3 "):
            cluster_of(4).check(6, "float32")

    def test_float16_alone(self):
        cluster_of(1).check(1, "float16")
        with pytest.raises(ValueError, match=r"several replicas.*Received: precision='float16'"):
            cluster_of(2).check(2, "float16")


class TestJoin:
    """Nothing here reaches TensorFlow's own set-up, which a process has but once."""

    @pytest.fixture(autouse=True)
    def no_config(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)

    def test_alone(self):
        assert join(None) is SINGLE
        assert (SINGLE.replicas, SINGLE.workers, SINGLE.is_chief) == (1, 1, True)
        assert SINGLE.broadcast_number(2.5) == 2.5
        assert SINGLE.broadcast_text("ä") == "ä"

    def test_auto_is_alone_where_there_is_one_device(self):
        assert join("auto") is SINGLE

    def test_another_word(self):
        with pytest.raises(ValueError, match=r"distribute must be one of .*'horovod'"):
            join("horovod")

    def test_mirrored_without_gpus(self):
        with pytest.raises(ValueError, match=r"at least two GPUs.*Received: 0; leave it out"):
            join("mirrored")

    @pytest.mark.parametrize(
        "config",
        [
            None,
            "{",
            "[]",
            '{"cluster": {"worker": ["a:1", "b:1"]}}',
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}',
        ],
    )
    def test_a_config_that_says_too_little(self, monkeypatch, config):
        if config is not None:
            monkeypatch.setenv("TF_CONFIG", config)
        with pytest.raises(ValueError, match=r"TF_CONFIG must name the workers") as caught:
            join("multiworker")
        assert str(caught.value).endswith(f"Received: {config or 'none'}")

    def test_one_worker_is_too_few(self, monkeypatch):
        config = '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'
        monkeypatch.setenv("TF_CONFIG", config)
        with pytest.raises(ValueError, match=r"at least two workers\. Received: 1"):
            join("multiworker")
        assert join("auto") is SINGLE

    @pytest.mark.parametrize(("kind", "worker"), [("chief", 0), ("worker", 1)])
    def test_workers_are_numbered_after_the_chief(self, monkeypatch, kind, worker):
        cluster = {"chief": ["a:1"], "worker": ["b:1"]}
        config = {"cluster": cluster, "task": {"type": kind, "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        strategy = SimpleNamespace(num_replicas_in_sync=4)
        monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: strategy)
        with logged() as said:
            found = join("auto")
        assert (found.workers, found.worker, found.replicas) == (2, worker, 4)
        assert said == ["waiting for the 2 workers at a:1, b:1"] * (worker == 0)

    def test_workers_that_do_not_meet(self, monkeypatch):
        def fail():
            raise tf.errors.UnavailableError(None, None, "no route\nsecond line")

        monkeypatch.setenv("TF_CONFIG", distribution._EXAMPLE)
        monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", fail)
        with pytest.raises(ConnectionError, match=r"the others at a:2222, b:2222.*no route;"):
            join("multiworker")


class TestListening:
    def test_one_process_hears_its_own_errors(self):
        with pytest.raises(tf.errors.CancelledError), SINGLE.catch_worker_loss():
            raise tf.errors.CancelledError(None, None, "")

    def test_a_lost_worker_is_one_line_and_leaves_no_trace(self):
        state = tf.Variable([1.0])

        def lose():
            state.assign([2.0])
            raise tf.errors.UnavailableError(None, None, "Socket closed")

        several = replace(SINGLE, workers=3, worker=1)
        with (
            pytest.raises(ConnectionError, match=r"^worker 1 of 3: another worker has ended"),
            several.catch_worker_loss([state]),
        ):
            lose()
        assert state.numpy() == [1.0]


def test_numbers_are_copied_between_models():
    first, second = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]) for _ in "ab")
    copy_weights(first, second)
    assert_close(first.get_weights(), second.get_weights())
