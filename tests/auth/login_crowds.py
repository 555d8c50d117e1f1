"""A simulation of logins under attack, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random

from attrs import define, field, frozen

from twisted_net.auth.password_queue import Applicant, PasswordQueue
from twisted_net.net.addresses import client_prefix, networks_around
from twisted_net.net.rate_limit import FailureDelays

CHECK = 0.2
"""Seconds that a check takes."""

PAUSE = 1.0
"""Seconds for which a refusal is held back at most."""

IN_TIME = 2.0
"""Seconds after which a right user hangs up; then its login counts as failed."""

KNOWN = "192.0.2.1"
"""Where a user has logged in before."""

TRIES = 20
"""Logins of each right user."""

START = 10.0
"""Time at which a crowd comes; right users log in two seconds later."""

Outcome = Callable[[str], None]


def applicant(host: str, name: str = "ann") -> Applicant:
    """Return who wants to log in from an address."""
    return Applicant(client_prefix(host), networks_around(host), name)


@define(eq=False)
class Attempt:
    """One login: whose, whether the password is right, and what is called with the outcome."""

    who: Applicant
    right: bool
    outcome: Outcome
    key: str  # of the delays
    began: float
    over: bool = False


@frozen
class Crowd:
    """
    Clients that log in again and again.

    :param size: how many at a time.
    :param host: the address of the login of a number.
    :param name: the user that it wants to be.
    :param right: whether its password is right.
    :param patience: seconds after which each hangs up, and tries again.
    """

    size: int
    host: Callable[[int], str]
    name: Callable[[int], str]
    right: bool = False
    patience: float = 30.0


@define
class Simulation:
    """The queue and the delays, as a service has them, with one thread that checks."""

    queue: PasswordQueue[Attempt] = field(factory=lambda: PasswordQueue(100, 10.0))
    delays: FailureDelays = field(factory=FailureDelays)
    chances: Random = field(factory=lambda: Random(3))
    now: float = 0.0
    _running: Attempt | None = None
    _events: list[tuple[float, int, Callable[[], object]]] = field(factory=list)
    _numbers: Iterator[int] = field(factory=count)

    def at(self, time: float, event: Callable[[], object]) -> None:
        """Let something happen."""
        heappush(self._events, (time, next(self._numbers), event))

    def run(self, done: Callable[[], bool]) -> None:
        """Let time pass until something is done."""
        while not done():
            self.now, _, event = heappop(self._events)
            event()

    def log_in(self, who: Applicant, right: bool, patience: float, outcome: Outcome) -> None:
        """Begin a login; its client hangs up when its patience ends."""
        known = self.queue.knows(who.source, who.name)
        key = f"{who.source} {who.name}" if known else who.source
        attempt = Attempt(who, right, outcome, key, self.now)
        self.at(self.now + patience, partial(self._hang_up, attempt))
        wait = self.delays.attempt(key, self.now)
        if wait > 0:
            self.at(self.now + min(wait, PAUSE), partial(self._end, attempt, "delayed"))
            return
        for refused in self.queue.add(attempt, who, self.now):
            self.delays.take_back(refused.key, refused.began)
            self.at(self.now + PAUSE, partial(self._end, refused, "busy"))
        self._next()

    def _end(self, attempt: Attempt, outcome: str) -> None:
        if not attempt.over:
            attempt.over = True
            attempt.outcome(outcome)

    def _hang_up(self, attempt: Attempt) -> None:
        if self.queue.discard(attempt):
            self.delays.take_back(attempt.key, attempt.began)
        self._end(attempt, "late")

    def _next(self) -> None:
        if self._running is None:
            self._running = self.queue.take(self.now, self.chances.random())
            if self._running is not None:
                self.at(self.now + CHECK, self._checked)

    def _checked(self) -> None:
        attempt, self._running = self._running, None
        assert attempt is not None
        self.queue.checked(attempt.who, self.now, right=attempt.right, took=CHECK)
        if attempt.right:
            self.delays.take_back(attempt.key, attempt.began)
        self._end(attempt, "right" if attempt.right else "wrong")
        self._next()


def attack(simulation: Simulation, crowd: Crowd) -> None:
    """Let a crowd log in from the start on; each tries anew as soon as it has an answer."""
    numbers = count()

    def go() -> None:
        number = next(numbers)
        who = applicant(crowd.host(number), crowd.name(number))
        simulation.log_in(who, crowd.right, crowd.patience, again)

    def again(_: str) -> None:
        simulation.at(simulation.now + 0.05, go)

    for i in range(crowd.size):
        simulation.at(START + i * 0.002, go)


def right_user(
    simulation: Simulation, host: Callable[[int], str], start: float, tries: int, pause: float
) -> Counter[str]:
    """Let a user log in so often; return what counts the outcomes."""
    outcomes: Counter[str] = Counter()

    def go() -> None:
        who = applicant(host(outcomes.total()))
        simulation.log_in(who, True, IN_TIME, partial(ended, simulation.now))

    def ended(begun: float, outcome: str) -> None:
        outcomes[outcome] += 1
        if outcomes.total() < tries:
            simulation.at(max(simulation.now, begun + pause), go)

    simulation.at(start, go)
    return outcomes


def successes(
    *crowds: Crowd,
    fresh: Callable[[int], str] = lambda number: f"9.{number}.9.1",
    later: float = 2.0,
    pause: float = 0.5,
) -> tuple[int, int]:
    """
    Return how many of 20 logins each are in time during an attack.

    :param fresh: the addresses of the second user.
    :param later: seconds from the begin of the attack to the first login.
    :param pause: seconds from one login to the next.
    :return: those of a user who has logged in from its address before, and those from addresses
        that are new.
    """
    simulation = Simulation()
    right_user(simulation, lambda number: KNOWN, 1.0, 1, 0.0)
    for crowd in crowds:
        attack(simulation, crowd)
    known = right_user(simulation, lambda number: KNOWN, START + later, TRIES, pause)
    new = right_user(simulation, fresh, START + later, TRIES, pause)
    simulation.run(lambda: known.total() == new.total() == TRIES)
    return known["right"], new["right"]
