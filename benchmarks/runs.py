"""A run: contestants started in turn, scenario after scenario, round after round."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field

from benchmarks.contestants import Contestant
from benchmarks.load import WrongAnswer
from benchmarks.report import Report
from benchmarks.scenarios import Figures, Scenario
from benchmarks.servers import running

FAILURES = (WrongAnswer, RuntimeError, OSError, AssertionError)
"""What a measurement raises of a server that does not do its work."""


@define
class Run:
    """
    Measures, tells on the standard error how far it is, and goes on where one thing fails.

    :param seconds: of each load.
    :param core: the processor of the servers; None for any.
    :ivar failed: whether a contestant that is installed has not done its work.
    """

    report: Report
    seconds: float
    core: int | None
    failed: bool = field(init=False, default=False)
    _began: float = field(init=False, factory=time.monotonic)

    def rounds(
        self, count: int, contestants: Sequence[Contestant], scenarios: Sequence[Scenario]
    ) -> None:
        """Measure everyone in everything, so many times."""
        for number in range(1, count + 1):
            for contestant in contestants:
                mine = [scenario for scenario in scenarios if contestant.name in scenario.names]
                if reason := contestant.missing():
                    for scenario in mine:
                        self.report.explain(scenario.name, contestant.name, reason)
                    continue
                self._tell(f"round {number} of {count}: {contestant.title}")
                self._measure(contestant, [s for s in mine if number == 1 or not s.once])

    def _measure(self, contestant: Contestant, scenarios: Sequence[Scenario]) -> None:
        shared = [scenario for scenario in scenarios if scenario.running is not None]
        if shared:
            try:
                with running(contestant.name, self.core) as server:
                    for scenario in shared:
                        assert scenario.running is not None
                        measure = partial(scenario.running, server, self.seconds)
                        self._attempt(contestant, scenario, measure)
            except FAILURES as error:
                self._explain(contestant, shared, error)
        for scenario in scenarios:
            if scenario.alone is not None:
                self._attempt(contestant, scenario, partial(scenario.alone, contestant, self.core))

    def _attempt(
        self, contestant: Contestant, scenario: Scenario, measure: Callable[[], Figures]
    ) -> None:
        try:
            self.report.note(scenario.name, contestant.name, measure())
        except FAILURES as error:
            self._explain(contestant, [scenario], error)

    def _explain(
        self, contestant: Contestant, scenarios: Sequence[Scenario], error: Exception
    ) -> None:
        self.failed = True
        reason = f"{type(error).__name__}: {error}"
        self._tell(reason)
        for scenario in scenarios:
            self.report.explain(scenario.name, contestant.name, reason)

    def _tell(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:4.0f} s  {what}", file=sys.stderr, flush=True)
