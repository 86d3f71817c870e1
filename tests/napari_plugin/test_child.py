"""What the process of a job tells, here in this process."""

import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_unet.console import Task, status, use_display
from keras_unet.napari_plugin import child


@pytest.fixture
def told():
    return []


@pytest.fixture
def news(told):
    return child.EventDisplay(lambda **new: told.append(new))


@pytest.fixture
def training(news, monkeypatch):
    """A training that takes long."""
    monkeypatch.setattr(child, "LATE", 0)
    with use_display(news), Task("training", 100) as task:
        yield task


def test_a_step_is_a_share_and_a_text(training, told):
    told.clear()
    child.time.sleep(child._PAUSE)
    training.update(50, "step 5, loss 0.2500")
    assert told == [{"done": 0.5, "text": "training: step 5, loss 0.2500, 0:00:00 left"}]


@pytest.mark.usefixtures("training")
def test_a_message_is_a_line(told):
    logging.getLogger("keras_unet").info("step 5: loss 0.2500")
    logging.getLogger("keras_unet").warning("one class")
    assert told[1:] == [{"line": "step 5: loss 0.2500"}, {"line": "Warning: one class"}]


def test_the_bar_is_moved_as_often_as_an_eye_can_follow(news, told):
    for done in range(1000):
        news.send_progress(done / 1000, "")
    news.send_progress(1.0, "")
    assert 2 <= len(told) < 500
    assert told[-1]["done"] == 1


def test_tasks_are_told_of_that_take_long(news, told):
    quick, slow, whole = Task("quick", 4), Task("slow", 4), Task("whole")
    slow.started -= 5
    for task in (quick, slow):
        news.update(task)
        task.end()
        news.update(task)
    news.update(whole)
    assert [one["text"].split(":")[0] for one in told] == ["slow", "whole"]
    assert told[1]["done"] is None
    whole.end()
    news.update(whole)
    assert len(told) == 2


def test_the_bar_of_a_training_stays_where_it_is_during_other_work(training, told):
    training.update(50)
    with status("looking at images"):
        pass
    assert told[-1] == {"done": 0.5, "text": "looking at images"}
    training.end()
    with status("writing the report"):
        pass
    assert told[-1] == {"done": None, "text": "writing the report"}


@pytest.fixture
def ask(monkeypatch, told):
    """Has a job done in this process, by a function in its place."""

    def answer(request, **jobs):
        text = io.BytesIO(json.dumps(request).encode() + b"\n")
        monkeypatch.setattr(child, "JOBS", jobs)
        monkeypatch.setattr(child, "_event_writer", lambda: lambda **new: told.append(new))
        monkeypatch.setattr(child, "_interrupt_at_end_of_input", lambda: None)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=text))
        child.main()

    return answer


def test_the_result_is_told_last(ask, told):
    def job(*, size):
        logging.getLogger("keras_unet").info("at work")
        return {"twice": 2 * size}

    ask({"job": "double", "size": 4}, double=job)
    assert told == [{"line": "at work"}, {"result": {"twice": 8}}]


@pytest.mark.parametrize("error", [ValueError, OSError, ImportError])
def test_an_error_is_told_in_one_line(ask, told, error):
    def job():
        raise error("a.tif: expected\n1 channel")

    ask({"job": "fail"}, fail=job)
    assert told == [{"error": "a.tif: expected 1 channel"}]


def test_the_end_of_the_input_interrupts_it(tmp_path):
    program = (
        "import logging, time\n"
        "from keras_unet.napari_plugin import child\n"
        "def wait():\n"
        "    print('lost')\n"
        "    try:\n"
        "        logging.getLogger('keras_unet').info('waiting')\n"
        "        for _ in range(1200):\n"
        "            time.sleep(0.1)\n"
        "    except KeyboardInterrupt:\n"
        "        return 'kept'\n"
        "child.JOBS = {'wait': wait}\n"
        "child.main()\n"
    )
    file = Path(tmp_path / "program.py")
    file.write_text(program)
    with (
        (tmp_path / "errors").open("w+") as errors,
        subprocess.Popen(
            [sys.executable, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        process.stdin.write(b'{"job": "wait"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"line": "waiting"}
        process.stdin.close()
        assert json.loads(process.stdout.readline()) == {"result": "kept"}
    assert (tmp_path / "errors").read_text().strip() == "lost"
