"""Turn clock: when the present turn of a reactor began, and which turns took long."""

from __future__ import annotations

from collections.abc import Callable


class TurnClock:
    """
    Measures the turns of a reactor, each from the return of one poll to the begin of the next.

    A reactor calls :meth:`poll_begins` and :meth:`poll_ends` around each poll; or it sets
    :attr:`began` itself, as the quiet reactor does to save a call.

    :param seconds: returns the seconds of a steady clock.
    :param report: called at the end of each long turn with the seconds when it began and ended.
    :ivar limit: seconds from which a turn is long.
    :ivar began: when the present turn began; None during a poll. A thread may read it. It also
        tells turns apart: one that a thread has seen for some time is longer than the clock's
        resolution, so that no later one begins at the same time.
    """

    __slots__ = ("_report", "began", "limit", "seconds")

    def __init__(
        self, seconds: Callable[[], float], report: Callable[[float, float], None]
    ) -> None:
        self.began: float | None = None
        self.limit = 0.0
        self.seconds = seconds
        self._report = report

    def poll_begins(self) -> None:
        """End the turn, if one has begun."""
        began = self.began
        if began is not None:
            self.began = None
            ended = self.seconds()
            if ended - began >= self.limit:
                self._report(began, ended)

    def poll_ends(self) -> None:
        """Begin a turn."""
        self.began = self.seconds()
