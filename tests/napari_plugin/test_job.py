"""The process of a job, here by small programs in the place of the child."""

import sys
import time
from contextlib import suppress

import pytest

from keras_unet.napari_plugin import job as module
from keras_unet.napari_plugin.job import Job, JobStopped

HEAD = "import json, os, signal, sys\nasked = json.loads(sys.stdin.readline())\n"


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Asks a program, and returns its news and its result."""

    def answer(program, job=None, on_event=lambda _: None):
        monkeypatch.setattr(module, "_COMMAND", [sys.executable, "-u", "-c", HEAD + program])
        work, seen = (job or Job()).run_in_child({"job": "x", "size": 3}, tmp_path), []
        try:
            while True:
                seen.append(next(work))
                on_event(seen[-1])
        except StopIteration as end:
            return seen, end.value

    return answer


def test_news_come_before_the_result(ask):
    program = """
print(json.dumps({"done": 0.5, "text": asked["job"]}))
print(json.dumps({"result": asked["size"]}))
"""
    assert ask(program) == ([{"done": 0.5, "text": "x"}], 3)


def test_it_is_at_home_in_the_folder(ask, tmp_path):
    assert ask("print(json.dumps({'result': os.getcwd()}))")[1] == str(tmp_path.resolve())


def test_a_notebook_s_backend_of_matplotlib_is_not_handed_on(ask, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    program = """
import matplotlib.pyplot
import keras_unet.backend
print(json.dumps({"result": matplotlib.get_backend().lower()}))
"""
    assert ask(program)[1] == "agg"


def test_an_error_is_raised(ask):
    with pytest.raises(ValueError, match=r"^a.tif: expected 1 channel$"):
        ask("print(json.dumps({'error': 'a.tif: expected 1 channel'}))")


def test_a_process_that_fails_is_missed_with_its_last_words(ask):
    with pytest.raises(OSError, match=r"with code 1 and the message: ZeroDivisionError: division"):
        ask("1 / 0")


@pytest.mark.skipif(sys.platform == "win32", reason="has no signals")
def test_a_process_that_is_killed_is_missed(ask):
    with pytest.raises(OSError, match=r"The system ended it \(signal 9\).* out of memory"):
        ask("os.kill(os.getpid(), signal.SIGKILL)")


def test_stop_reaches_the_process(ask):
    job = Job()
    with pytest.raises(JobStopped):
        ask("print('{}')\nsys.stdin.read()", job, lambda _: job.stop())


def test_what_comes_of_a_job_that_is_stopped_is_kept(ask):
    job = Job()
    program = "print('{}')\nsys.stdin.read()\nprint(json.dumps({'result': 5}))"
    assert ask(program, job, lambda _: job.stop()) == ([{}], 5)


def test_stop_before_the_process_starts_ends_it(ask):
    job = Job()
    job.stop()
    start = time.monotonic()
    with pytest.raises(JobStopped):
        ask("sys.stdin.read()", job)
    with pytest.raises(JobStopped):
        job.check()
    assert time.monotonic() - start < 60


def test_a_window_that_goes_away_ends_the_process(monkeypatch, tmp_path):
    program = HEAD + "print('{}')\nsys.stdin.read()\nopen('ended', 'w')"
    monkeypatch.setattr(module, "_COMMAND", [sys.executable, "-u", "-c", program])
    work = Job().run_in_child({}, tmp_path)
    next(work)
    with suppress(StopIteration):
        work.close()
    assert (tmp_path / "ended").exists()
