"""Session counters: what is counted of all sessions of a server, the ended ones included."""

from __future__ import annotations

from collections import deque

from attrs import frozen

from twisted_net.net.rate_limit import KeyedCounts
from twisted_net.reasons import End, Refusal

CLOSED_KEPT = 1000
"""Connections that are remembered after their end, the latest ones."""


@frozen
class Closed:
    """A connection that has ended, at a door; times in seconds of the wall clock."""

    name: str
    user: str | None
    connected: float
    ended: float
    messages: int
    end: End
    door: str


class SessionCounters:
    """
    Counters of all sessions of one server.

    :ivar opened: sessions that were ever opened.
    :ivar ended: connections that ended, by reason; those refused before they had a session are
        counted here alone.
    :ivar closed: the sessions that ended last, oldest first, up to :data:`CLOSED_KEPT`.
    :ivar refusals: commands that were refused, by reason.
    :ivar undelivered: events that clients did not get.
    :ivar failures: commands whose handler ended by a bug.
    :ivar overdue: handlers that run although their commands were answered ``timeout``; this one
        also falls.
    :ivar overdue_of: the same, by :attr:`~twisted_net.sessions.Session.owner`.
    :ivar messages: lines and requests received by sessions that have ended.
    :ivar received: bytes received by sessions that have ended.
    :ivar sent: bytes sent to sessions that have ended.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.ended = dict.fromkeys(End, 0)
        self.closed: deque[Closed] = deque(maxlen=CLOSED_KEPT)
        self.refusals = dict.fromkeys(Refusal, 0)
        self.undelivered = 0
        self.failures = 0
        self.overdue = 0
        self.overdue_of = KeyedCounts()
        self.messages = 0
        self.received = 0
        self.sent = 0
