"""Long work under way: what it is, how far it has come, and how long it will take."""

from __future__ import annotations

import time
from datetime import timedelta


class Work:
    """Work on so many parts; or on one whole, of which nobody knows how far it is.

    Attributes:
        what: What is done, for a person.
        total: The number of parts; None for a whole.
        words: How the parts that are done, and all of them, are told.
        done: How many parts are done.
        started: When it began, by the monotonic clock.
        ended: When it ended; None while it goes on.
        told: When it was last told of.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        words: str = "{:,} of {:,}",
        done: int = 0,
    ) -> None:
        """Begins the work, of which some may have been done before."""
        self.what, self.total, self.words, self.done = what, total, words, done
        self.before = done
        self.ended: float | None = None
        self.started = self.told = time.monotonic()

    def end(self) -> None:
        """Ends the work, be it by an error."""
        self.ended = time.monotonic()

    @property
    def over(self) -> bool:
        """Tells whether it has ended."""
        return self.ended is not None

    @property
    def seconds(self) -> float:
        """The time that it has taken."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def is_whole(self) -> bool:
        """Tells whether progress is unknown: there is but one part."""
        return self.total in (None, 1)

    @property
    def share(self) -> float | None:
        """The share that is done, 0 to 1; None where nobody knows."""
        return self.done / self.total if self.total else None

    def describe(self) -> str:
        """Says how far it is and how long it will take or, when it is over, has taken."""
        counted = "" if self.is_whole else f"{self.words.format(self.done, self.total)}, "
        if self.over:
            return f"{self.what}: {counted}{duration(self.seconds)}"
        return f"{self.what}: {counted}{self._left()} left" if counted else self.what

    def _left(self) -> str:
        made = self.done - self.before
        if self.total is None or made == 0:
            return "-:--"
        return duration(self.seconds * (self.total - self.done) / made)


def duration(seconds: float) -> str:
    """Writes a time.

    >>> duration(3725.2)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))
