"""How long, how fast, and where a training stands: values."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from keras_unet.training.schedule import (
    Progress,
    Schedule,
    describe_progress,
    describe_validation,
)


class TestPlan:
    def test_rate_rises_evenly_then_falls_to_0_as_a_cosine(self) -> None:
        plan = Schedule(learning_rate=0.2, warmup=0.1)
        rates = [plan.rate(done) for done in np.linspace(0, 1, 101)]
        np.testing.assert_allclose(rates[:11], np.linspace(0, 0.2, 11))
        np.testing.assert_allclose(rates[10:], 0.1 + 0.1 * np.cos(np.linspace(0, np.pi, 91)))

    def test_without_warmup_starts_at_the_highest_rate(self) -> None:
        assert Schedule(warmup=0.0, learning_rate=0.3).rate(0.0) == 0.3

    @pytest.mark.parametrize(
        ("limits", "step", "seconds", "done"),
        [
            ({"steps": 200}, 50, 1e9, 0.25),
            ({"steps": None, "max_minutes": 2.0}, 10**9, 30, 0.25),
            ({"steps": 200, "max_minutes": 2.0}, 50, 90, 0.75),
            ({"steps": 200, "max_minutes": 2.0}, 100, 30, 0.5),
            ({"steps": 200}, 300, 0, 1.0),
        ],
    )
    def test_progress_is_by_steps_or_by_the_clock_whichever_is_further(
        self, limits: dict[str, Any], step: int, seconds: float, done: float
    ) -> None:
        assert Schedule(**limits).progress(step, seconds) == done

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ({"steps": None}, "steps or max_minutes must be given. Received: neither"),
            ({"steps": 0}, "steps must be greater than 0 and finite. Received: steps=0"),
            ({"steps": None, "max_minutes": float("inf")}, "max_minutes must .*max_minutes=inf"),
            ({"max_minutes": -1.0}, "max_minutes must be greater than 0 .*max_minutes=-1"),
            ({"learning_rate": float("nan")}, "learning_rate must .*learning_rate=nan"),
            ({"clip_norm": 0.0}, "clip_norm must be greater than 0"),
            ({"validations": 0}, "validations must be greater than 0"),
            ({"momentum": 1.0}, r"momentum must lie in \[0, 1\). Received: 1.0"),
            ({"warmup": -0.1}, r"warmup must lie in \[0, 1\). Received: -0.1"),
            ({"patience": 0}, "patience must be at least 1. Received: patience=0"),
        ],
    )
    def test_refuses(self, numbers: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Schedule(**numbers)

    def test_validations_are_due_evenly_and_the_last_at_the_end(self) -> None:
        plan, progress, due = Schedule(steps=10, validations=4), Progress(), []
        while not plan.is_over(progress):
            if plan.is_due(progress):
                due.append(progress.step)
                progress = progress.after_validation(0.5, plan.progress(progress.step, 0), 0)
            else:
                progress = progress.after_step(1.0, True, 0.1, 0)
        assert due == [3, 5, 8, 10]

    @pytest.mark.parametrize(
        ("limits", "cost", "number"),
        [
            ({"steps": None, "max_minutes": 10}, 1, 20),
            ({"steps": None, "max_minutes": 10}, 20, 4),  # 3 in the tenth of 600 seconds, and one
            ({"steps": 600, "max_minutes": 100}, 20, 20),
        ],
    )
    def test_validations_take_a_tenth_of_the_time_if_time_alone_is_limited(
        self, limits: dict[str, Any], cost: float, number: int
    ) -> None:
        plan, progress = Schedule(**limits), Progress()
        while not plan.is_over(progress):
            if plan.is_due(progress):
                seconds = progress.seconds + cost
                share = plan.progress(progress.step, seconds)
                progress = progress.after_validation(0.5, share, seconds)
            else:
                progress = progress.after_step(1.0, True, 0.1, progress.seconds + 1)
        assert len(progress.rows) == number
        assert progress.validating == cost * number


class TestFinalShare:
    @pytest.mark.parametrize(
        "length",
        [{"steps": 100}, {"steps": None, "max_minutes": 100 / 60}],
        ids=["steps", "minutes"],
    )
    @pytest.mark.parametrize("share", [0.0, 0.13, 0.5])
    def test_begins_after_a_validation(self, length: dict[str, Any], share: float) -> None:
        schedule = Schedule(**length, validations=5, final_share=share)
        progress, validated, final = Progress(), [], []
        while not schedule.is_over(progress):
            if schedule.is_due(progress):
                validated.append((progress.step, schedule.is_final(progress)))
                done = schedule.progress(progress.step, progress.seconds)
                progress = progress.after_validation(None, done, progress.seconds)
            else:
                final += [progress.step] * schedule.is_final(progress)
                progress = progress.after_step(1.0, True, 0.1, progress.seconds + 1)
        start = round(100 * (1 - share))
        assert final == list(range(start, 100))
        steps = sorted({20, 40, 60, 80, 100, start})
        assert validated == [(step, step > start) for step in steps]


def after(*scores: float | None) -> Progress:
    """The progress after as many validations."""
    progress = Progress()
    for score in scores:
        progress = progress.after_validation(score, 0.0, 0.0)
    return progress


class TestProgress:
    @pytest.mark.parametrize(
        ("scores", "best", "stale", "is_best"),
        [
            ([0.2], 0.2, 0, True),
            ([0.2, 0.3], 0.3, 0, True),
            ([0.3, 0.3], 0.3, 1, False),
            ([0.3, 0.2, 0.1], 0.3, 2, False),
            ([None, None], None, 0, True),
            ([nan], None, 1, True),
            ([nan, 0.1], 0.1, 0, True),
            ([0.1, nan], 0.1, 1, False),
            ([0.1, None], 0.1, 0, False),
        ],
    )
    def test_the_best_is_the_highest_score_or_the_latest_where_there_is_none(
        self, scores: list[float | None], best: float | None, stale: int, is_best: bool
    ) -> None:
        progress = after(*scores)
        assert (progress.best_score, progress.stale, progress.is_best) == (best, stale, is_best)

    def test_a_row_holds_the_mean_loss_of_the_steps_that_counted(self) -> None:
        progress = Progress()
        for loss, applied in [(1.0, True), (2.0, True), (100.0, False), (inf, True)]:
            progress = progress.after_step(loss, applied, rate=0.1, seconds=2.0)
        row = progress.after_validation(0.5, 0.4, 3.0).rows[-1]
        assert row == {
            "step": 4,
            "seconds": 2.0,
            "learning_rate": 0.1,
            "loss": 1.5,
            "score": 0.5,
            "skipped_updates": 1,
        }
        assert (
            replace(progress, loss_count=0).after_validation(0.5, 0.4, 3.0).rows[-1]["loss"] is None
        )

    def test_the_loss_shown_is_smooth(self) -> None:
        progress = Progress().after_step(1.0, True, 0.1, 0).after_step(3.0, True, 0.1, 0)
        assert progress.loss == pytest.approx(0.95 * 1 + 0.05 * 3)


class TestWords:
    def test_of_progress(self) -> None:
        progress = Progress(step=9, loss=0.25)
        assert describe_progress(progress) == "step 9, loss 0.2500"
        assert (
            describe_progress(replace(progress, score=0.5)) == "step 9, loss 0.2500, score 0.5000"
        )

    @pytest.mark.parametrize(
        ("row", "stale", "words"),
        [
            ({"loss": 0.5, "score": 0.5}, 0, "loss 0.5000, score 0.5000 (the best so far)"),
            ({"loss": 0.5, "score": 0.25}, 1, "loss 0.5000, score 0.2500 (best 0.5000)"),
            ({"loss": None, "score": None}, 0, "loss -"),
        ],
    )
    def test_of_a_validation(self, row: dict[str, Any], stale: int, words: str) -> None:
        progress = Progress(step=10, best_score=0.5, stale=stale, rows=({"step": 10, **row},))
        assert describe_validation(progress) == f"step 10: {words}"
