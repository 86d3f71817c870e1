"""What is shown of progress: the very lines, the state of the bars, the display of a cell."""

import io
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from keras_unet import displays, work
from keras_unet.displays import BarWithLines, CellDisplay, Lines, late_bars
from keras_unet.training.schedule import Progress, TrainingPlan
from keras_unet.work import Work


def row(step, score, loss=0.5):
    return {"step": step, "loss": loss, "score": score}


@pytest.fixture
def now(monkeypatch):
    """A clock to be moved on by hand."""
    time = [100.0]
    clock = SimpleNamespace(monotonic=lambda: time[0])
    monkeypatch.setattr(displays, "time", clock)
    monkeypatch.setattr(work, "time", clock)
    return time


def test_a_line_a_validation(capsys):
    lines = Lines()
    lines.on_start(TrainingPlan(steps=40))
    before = Progress(step=9, seconds=27.0)
    lines.on_step(before)
    first = replace(before, step=10, seconds=30.0, rows=(row(10, 0.5),), best_score=0.5)
    lines.on_step(first)
    lines.on_step(replace(first, step=11, seconds=33.0))
    worse = replace(first, step=20, seconds=60.0, rows=(*first.rows, row(20, 0.25)), stale=1)
    lines.on_step(worse)
    lines.on_step(replace(worse, step=40, seconds=120.0, rows=(row(40, None, None),)))
    assert capsys.readouterr().out.splitlines() == [
        "step 10: loss 0.5000, score 0.5000 (the best so far), 0:01:30 left",
        "step 20: loss 0.5000, score 0.2500 (best 0.5000), 0:01:00 left",
        "step 40: loss -, 0:00:00 left",
    ]


@pytest.mark.parametrize(
    ("plan", "step", "seconds", "left"),
    [
        ({"steps": 100}, 25, 60.0, "0:03:00"),
        ({"steps": None, "max_minutes": 10.0}, 7, 60.0, "0:09:00"),
        ({"steps": 100, "max_minutes": 10.0}, 5, 60.0, "0:09:00"),
        ({"steps": 100, "max_minutes": 10.0}, 50, 60.0, "0:01:00"),
        ({"steps": None, "max_minutes": 1.0}, 9, 70.0, "0:00:00"),
        ({"steps": 100}, 0, 0.0, "-:--"),
    ],
)
def test_time_left_follows_the_limit_that_comes_first(plan, step, seconds, left):
    lines = Lines()
    lines.on_start(TrainingPlan(**plan))
    assert lines.left(Progress(step=step, seconds=seconds)) == left


def test_a_line_on_tiles_now_and_then_and_at_the_end(capsys, now):
    lines = Lines()
    for done in (21, 22, 23, 24, 1_024):  # 20 are kept of an earlier prediction
        lines.on_tiles(Path("a.tif"), done, 1_024)
        now[0] += 25
    lines.on_tiles(Path("b.tif"), 1, 2)
    lines.on_tiles(Path("b.tif"), 2, 2)
    assert capsys.readouterr().out.splitlines() == [
        "a.tif: tile 22 of 1,024, 6:57:30 left",
        "a.tif: tile 1,024 of 1,024, 0:01:40",
    ]


def test_work_is_told_of_after_some_seconds_then_every_minute_then_when_it_is_over(capsys, now):
    lines, reading = Lines(), Work("reading images", 100)
    lines.on_work(reading)
    for done in range(1, 101):
        now[0] += 2
        reading.done = done
        lines.on_work(reading)
    reading.end()
    lines.on_work(reading)
    assert capsys.readouterr().out.splitlines() == [
        "reading images: 10 of 100, 0:03:00 left",
        "reading images: 40 of 100, 0:02:00 left",
        "reading images: 70 of 100, 0:01:00 left",
        "reading images: 100 of 100, 0:00:00 left",
        "reading images: 100 of 100, 0:03:20",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(59, ""), (61, "converting: 0:01:01\n")])
def test_a_whole_is_told_of_when_it_is_over_if_it_took_a_minute(capsys, now, seconds, said):
    lines, converting = Lines(), Work("converting")
    lines.on_work(converting)
    now[0] += seconds
    converting.end()
    lines.on_work(converting)
    assert capsys.readouterr().out == said


def test_quiet_keeps_warnings_alone(capsys, now):
    lines = Lines(quiet=True)
    lines.say("4 images")
    reading = Work("reading images", 2)
    now[0] += 100
    reading.done = 1
    lines.on_work(reading)
    lines.say("Warning: the network has collapsed")
    assert capsys.readouterr() == ("", "Warning: the network has collapsed\n")


@pytest.fixture
def bars(monkeypatch):
    """Bars on a screen of text, each shown at once."""
    monkeypatch.setattr(displays, "LATE", 0.0)
    screen = io.StringIO()
    with late_bars(Console(file=screen, force_terminal=True, width=120)) as bar:
        yield SimpleNamespace(bar=bar, screen=screen, shown=BarWithLines(bar))


def test_bar_shows_loss_score_and_time_left_with_lines_above(bars):
    shown, task = bars.shown, bars.bar.tasks[0]
    shown.say("held out: [a]")
    assert not task.visible
    shown.on_start(TrainingPlan(steps=40))
    assert (task.visible, task.description) == (True, "building the network")
    progress = Progress(step=9, seconds=27.0, loss=0.25)
    shown.on_step(progress)
    assert task.description == "step 9  loss 0.2500  0:01:33 left"
    rows = (row(10, 0.5),)
    shown.on_step(replace(progress, step=10, seconds=30.0, rows=rows, score=0.5))
    assert task.description == "step 10  loss 0.2500  score 0.5000  0:01:30 left"
    assert task.completed == 0.25
    shown.on_start(TrainingPlan(steps=40))  # the next fold
    assert (task.completed, task.description) == (0, "building the network")
    assert "held out: [a]" in bars.screen.getvalue()
    said = "step 10: loss 0.5000, score 0.5000 (the best so far), 0:01:30 left"
    assert said in bars.screen.getvalue()


def test_work_has_a_bar_of_its_own_below_until_it_is_over(bars):
    outer, inner = Work("predicting images", 2), Work("predicting tiles", 4)
    for one in (outer, inner):
        bars.shown.on_work(one)
    inner.done = 3
    bars.shown.on_work(inner)
    _, one, other = bars.bar.tasks
    assert (one.percentage, other.percentage) == (0, 75)
    assert one.description.startswith("predicting images: 0 of 2, ")
    assert other.description.startswith("predicting tiles: 3 of 4, ")
    for work_over in (inner, outer):
        work_over.end()
        bars.shown.on_work(work_over)
    assert len(bars.bar.tasks) == 1


def test_tiles_and_bytes_have_a_bar_for_each_file(bars):
    bars.shown.on_tiles(Path("slide.tif"), 30, 120)
    bars.shown.on_tiles(Path("slide.tif"), 60, 120)
    assert bars.bar.tasks[1].description.startswith("slide.tif: tile 60 of 120, 0:00:0")
    assert bars.bar.tasks[1].percentage == 50
    bars.shown.on_tiles(Path("slide.tif"), 120, 120)
    bars.shown.on_bytes(Path("a.zip"), 1_000, 4_000)
    assert bars.bar.tasks[1].description == "a.zip: 1,000 of 4,000 bytes, -:-- left"


def test_a_bar_is_drawn_once_its_work_has_taken_a_second(bars, monkeypatch):
    bars.shown.on_work(Work("reading [images]", 3))

    def drawn():
        return bars.bar.make_tasks_table(bars.bar.tasks).row_count

    assert drawn() == 1
    monkeypatch.setattr(displays, "LATE", 3600.0)
    assert drawn() == 0


@pytest.fixture
def cell(monkeypatch, now):
    """A display of cells, and what was shown: the text of each display, renewed in place."""
    texts = []

    class Handle:
        def __init__(self):
            texts.append("")
            self.number = len(texts) - 1

        def update(self, bundle, raw):
            assert raw
            texts[self.number] = bundle["text/plain"]
            self.html = bundle["text/html"]

    def display(bundle, *, raw, display_id):
        assert display_id
        handle = Handle()
        handle.update(bundle, raw)
        return handle

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    shell = SimpleNamespace(execution_count=1)
    return SimpleNamespace(shown=CellDisplay(shell), shell=shell, texts=texts, now=now)


def carry_out(cell, what, seconds, parts=4):
    done = Work(what, parts)
    cell.shown.on_work(done)
    for _ in range(parts):
        cell.now[0] += seconds / parts
        done.done += 1
        cell.shown.on_work(done)
    done.end()
    cell.shown.on_work(done)


def test_a_cell_has_one_display_and_keeps_a_line_of_what_took_long(cell):
    carry_out(cell, "reading images", 8)
    carry_out(cell, "checking labels", 0.5)
    for _ in range(20):
        carry_out(cell, "predicting tiles", 4)
    assert cell.texts == [
        "100% reading images: 4 of 4, 0:00:08\n100% predicting tiles: 4 of 4, 0:00:04"
    ]
    cell.shell.execution_count = 2
    carry_out(cell, "drawing <images>", 2)
    assert cell.texts[1:] == ["100% drawing <images>: 4 of 4, 0:00:02"]
    assert "drawing &lt;images&gt;: 4 of 4" in cell.shown.shown.html
    assert '<progress max="1" value="1.000"' in cell.shown.shown.html


def test_what_is_quick_shows_nothing_in_a_cell(cell):
    carry_out(cell, "reading images", 0.5)
    assert cell.texts == []


def test_a_cell_shows_a_whole_as_it_begins(cell):
    converting = Work("converting the graph")
    cell.shown.on_work(converting)
    assert cell.texts == ["converting the graph"]
    assert '<progress max="1" style' in cell.shown.shown.html
    cell.now[0] += 5
    converting.end()
    cell.shown.on_work(converting)
    assert cell.texts == ["100% converting the graph: 0:00:05"]


def test_work_within_other_work_is_shown_while_it_lasts(cell):
    outer, inner = Work("predicting images", 2), Work("predicting tiles", 10)
    cell.shown.on_work(outer)
    cell.shown.on_work(inner)
    cell.now[0] += 3
    inner.done = 3
    cell.shown.on_work(inner)
    assert cell.texts == [
        "  0% predicting images: 0 of 2, -:-- left\n 30% predicting tiles: 3 of 10, 0:00:07 left"
    ]
    inner.end()
    cell.shown.on_work(inner)
    assert cell.texts == ["  0% predicting images: 0 of 2, -:-- left"]


def test_a_cell_is_renewed_a_few_times_a_second_and_at_the_end_of_a_training(cell):
    plan = TrainingPlan(steps=100)
    cell.shown.on_start(plan)
    assert cell.texts == ["  0% building the network"]
    for step in (1, 2, 3):
        cell.now[0] += 0.1
        progress = Progress(step=step, seconds=step / 10, loss=0.5)
        cell.shown.on_step(progress)
    assert cell.texts == ["  3% step 3  loss 0.5000  0:00:10 left"]
    over = replace(progress, step=100, seconds=10.0, validated=1.0, score=0.25)
    cell.shown.on_step(over)
    finished = "100% step 100  loss 0.5000  score 0.2500  0:00:00 left"
    assert cell.texts == [finished]
    cell.shown.on_start(plan)
    cell.now[0] += 1
    cell.shown.on_step(progress)
    assert cell.texts == [f"{finished}\n  3% step 3  loss 0.5000  0:00:10 left"]
