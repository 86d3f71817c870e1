"""Displays of progress: plain lines in a log, bars in a terminal, one display in a notebook."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_unet.work import Work, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from keras_unet.training.schedule import Progress, TrainingPlan

LATE = 1.0
"""Seconds that work takes before a bar shows it: what is quicker needs none."""

_OFTEN = 0.25  # seconds between two states of a notebook's display
_MOST_ROWS = 8  # of finished work, in a notebook's display


class Lines:
    """Progress as plain lines, for a log: one a validation. Warnings go to standard error.

    Other work is told of when its parts take longer than some seconds, then every minute, and when
    it is over; and work on a whole when it is over, if it took a minute.
    """

    def __init__(self, *, quiet: bool = False, first: float = 20, pause: float = 60) -> None:
        """Takes whether warnings alone are wanted, and the seconds to a line and between lines."""
        self.quiet = quiet
        self.first, self.pause = first, pause
        self.plan: TrainingPlan | None = None
        self.file: tuple[Path, Work] | None = None

    def on_start(self, plan: TrainingPlan) -> None:
        """Takes in how long the training will be."""
        self.plan = plan

    def on_step(self, progress: Progress) -> None:
        """Prints a line if the step has ended in a validation."""
        if progress.rows and progress.rows[-1]["step"] == progress.step:
            self.say(f"{_validation(progress)}, {self.left(progress)} left")

    def on_tiles(self, path: Path, done: int, total: int) -> None:
        """Tells of the tiles of an image that are predicted."""
        self.on_file(path, done, total, "tile {:,} of {:,}")

    def on_bytes(self, path: Path, done: int, total: int) -> None:
        """Tells of the bytes of a file that have come."""
        self.on_file(path, done, total, "{:,} of {:,} bytes")

    def on_file(self, path: Path, done: int, total: int, words: str) -> None:
        """Tells how far the work on a file is, from its first part on."""
        if self.file is None or self.file[0] != path:
            self.file = path, Work(path.name, total, words=words, done=done)
        work = self.file[1]
        work.done = done
        if done >= total:
            work.end()
        self.on_work(work)

    def on_work(self, work: Work) -> None:
        """Tells of work that begins, goes on or is over."""
        now = time.monotonic()
        is_told = work.told > work.started
        pause = self.pause if is_told or work.total is None else self.first
        if now - work.told >= pause or (work.over and is_told):
            work.told = now
            self.say(work.describe())

    def say(self, line: str) -> None:
        """Prints a line."""
        is_warning = line.startswith("Warning")
        if is_warning or not self.quiet:
            click.echo(line, err=is_warning)

    def share(self, progress: Progress) -> float:
        """Returns the share of the training that is done, be it of steps or of minutes."""
        return self.plan.progress(progress.step, progress.seconds) if self.plan else 0.0

    def left(self, progress: Progress) -> str:
        """Estimates the time left from the share that is done."""
        done = self.share(progress)
        return duration(progress.seconds * (1 - done) / done) if done else "-:--"

    def standing(self, progress: Progress) -> str:
        """Describes where a training stands."""
        score = "" if progress.score is None else f"  score {progress.score:.4f}"
        return f"step {progress.step}  loss {progress.loss:.4f}{score}  {self.left(progress)} left"


class BarWithLines(Lines):
    """Progress as bars, of a training with loss, score and time left, and lines above them."""

    def __init__(self, bar: Bar) -> None:
        """Takes the bars to add to and to move."""
        super().__init__()
        self.bar = bar
        self.training = bar.add_task("", total=1.0, start=False, visible=False)
        self.tasks: dict[int, Any] = {}

    def on_start(self, plan: TrainingPlan) -> None:
        """Shows the bar of a training."""
        super().on_start(plan)
        self.bar.reset(self.training, visible=True, description="building the network")

    def on_step(self, progress: Progress) -> None:
        """Moves the bar, and prints a line above it if the step has ended in a validation."""
        super().on_step(progress)
        done = self.share(progress)
        self.bar.update(self.training, completed=done, description=self.standing(progress))

    def on_work(self, work: Work) -> None:
        """Adds a bar, moves it, and takes it away when the work is over."""
        if work.over:
            if id(work) in self.tasks:
                self.bar.remove_task(self.tasks.pop(id(work)))
            return
        if id(work) not in self.tasks:
            total = None if work.is_whole else work.total
            self.tasks[id(work)] = self.bar.add_task("", total=total)
        self.bar.update(self.tasks[id(work)], completed=work.done, description=work.describe())

    def say(self, line: str) -> None:
        """Prints a line above the bars."""
        style = "yellow" if line.startswith("Warning") else None
        self.bar.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def late_bars(console: Console | None = None) -> Bar:
    """Makes bars, each of which is shown once its work has taken a second.

    Args:
        console: Where; None for the terminal of standard output.
    """
    from rich.progress import BarColumn, Progress, Task, TaskProgressColumn, TextColumn
    from rich.table import Table

    class LateBars(Progress):
        def make_tasks_table(self, tasks: Any) -> Table:
            return super().make_tasks_table([task for task in tasks if _is_late(task)])

    def _is_late(task: Task) -> bool:
        return (task.elapsed or 0.0) >= LATE

    description = TextColumn("{task.description}", markup=False)
    columns = BarColumn(bar_width=30), TaskProgressColumn(), description
    return LateBars(*columns, console=console)


class CellDisplay(Lines):
    """Progress in a notebook: one display a cell, renewed in place, that stays as text when saved.

    Work within other work is shown while it lasts. What is quick is not shown, but for work on a
    whole, which shows itself as it begins: nobody calls again before it is over.
    """

    def __init__(self, shell: Any) -> None:
        """Takes IPython's shell, which counts the cells."""
        super().__init__()
        self.shell = shell
        self.cell: int | None = None
        self.shown: Any = None
        self.renewed = 0.0
        self.training: tuple[float, str] | None = None
        self.works: dict[int, Work] = {}
        self.finished: dict[str, tuple[float, str]] = {}

    def on_start(self, plan: TrainingPlan) -> None:
        """Shows a training."""
        super().on_start(plan)
        self._turn_to_cell()
        if self.training is not None:
            self._keep(f"training {len(self.finished)}", *self.training)
        self.training = 0.0, "building the network"
        self._show()

    def on_step(self, progress: Progress) -> None:
        """Renews what is shown of a training."""
        self.training = self.share(progress), self.standing(progress)
        self._show(now=self.plan is not None and self.plan.is_over(progress))

    def on_work(self, work: Work) -> None:
        """Shows work, renews it, and keeps a line of it when it is over."""
        self._turn_to_cell()
        self.works[id(work)] = work
        if work.over:
            del self.works[id(work)]
        late = work.seconds >= LATE
        if work.over and late and not self.works and self.training is None:
            self._keep(work.what, work.share or 1.0, work.describe())
        if late or work.total is None:
            self._show(now=work.over or work.total is None)

    def _keep(self, what: str, share: float, text: str) -> None:
        """Keeps a line of work that is over, in the place of one on the same."""
        self.finished.pop(what, None)
        self.finished[what] = share, text
        if len(self.finished) > _MOST_ROWS:
            del self.finished[next(iter(self.finished))]

    def _turn_to_cell(self) -> None:
        if self.cell != self.shell.execution_count:
            self.cell, self.shown = self.shell.execution_count, None
            self.training, self.works, self.finished = None, {}, {}

    def _show(self, *, now: bool = False) -> None:
        from IPython.display import display

        if not now and time.monotonic() - self.renewed < _OFTEN:
            return
        rows: list[tuple[float | None, str]] = [
            *self.finished.values(),
            *([self.training] if self.training else []),
            *((one.share, one.describe()) for one in self.works.values()),
        ]
        bundle = {
            "text/plain": "\n".join(_text_row(*row) for row in rows),
            "text/html": "".join(_html_row(*row) for row in rows),
        }
        if self.shown is None:
            self.shown = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.shown.update(bundle, raw=True)
        self.renewed = time.monotonic()


def _text_row(share: float | None, text: str) -> str:
    return text if share is None else f"{share:4.0%} {text}"


def _html_row(share: float | None, text: str) -> str:
    value = "" if share is None else f' value="{share:.3f}"'
    bar = f'<progress max="1"{value} style="width: 15em; vertical-align: middle"></progress>'
    return f"<div>{bar} {html.escape(_text_row(share, text))}</div>"


def _validation(progress: Progress) -> str:
    """Describes a validation."""
    row = progress.rows[-1]
    loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
    if row["score"] is None:
        return f"step {row['step']}: loss {loss}"
    best = "the best so far" if progress.stale == 0 else f"best {progress.best_score:.4f}"
    return f"step {row['step']}: loss {loss}, score {row['score']:.4f} ({best})"
