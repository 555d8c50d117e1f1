"""Doors: the sessions of all servers of a service, as an operator looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING

from twisted_net.sessions.bans import Bans
from twisted_net.sessions.counters import Closed
from twisted_net.sessions.presence import Presence

if TYPE_CHECKING:
    from twisted_net.sessions.registry import Sessions
    from twisted_net.sessions.session import Session


class Doors:
    """
    The sessions of all servers that share one of these, each with the name of its door.

    :ivar presence: who is there, on all of them.
    :ivar bans: who is kept out of all of them; by the uptime of the first.
    """

    presence: Presence
    bans: Bans

    def __init__(self) -> None:
        self._all: list[Sessions] = []

    def join(self, sessions: Sessions) -> None:
        """Show the sessions of one more server; the topics of the first have the presence."""
        if not self._all:
            self.presence = Presence(sessions.topics, sessions.wall)
            self.bans = Bans(self.seconds)
        self._all.append(sessions)

    def seconds(self) -> float:
        """Return the uptime of the first: one steady clock for all."""
        return self._all[0].uptime if self._all else 0.0

    def counts(self) -> dict[str, int]:
        """Return how many sessions are open, by door."""
        found: dict[str, int] = {}
        for sessions in self._all:
            found[sessions.door] = found.get(sessions.door, 0) + len(sessions)
        return found

    def clients(self) -> Iterator[Session]:
        """Iterate over the open sessions, oldest first; they may end meanwhile."""
        return merge(*self._all, key=attrgetter("connected"))

    def named(self, name: str) -> list[Session]:
        """Return the open sessions of this name: one of each door at most."""
        found = [sessions.get(name) for sessions in self._all]
        return [session for session in found if session is not None]

    def closed_count(self) -> int:
        """Return how many sessions that have ended are remembered."""
        return sum(len(sessions.counters.closed) for sessions in self._all)

    def closed(self) -> Iterator[Closed]:
        """Iterate over the sessions that have ended, latest first."""
        latest = [reversed(sessions.counters.closed) for sessions in self._all]
        return merge(*latest, key=attrgetter("ended"), reverse=True)
