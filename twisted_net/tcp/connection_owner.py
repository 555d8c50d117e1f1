"""Connection owner: what the connections of one server share, and what they report to it."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime

from twisted_net.commands.cancellations import Cancellations
from twisted_net.commands.registry import Commands, Waiting
from twisted_net.commands.runner import CommandRunner
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.tcp.connection_guard import ConnectionGuard
from twisted_net.tcp.fanout import Fanout
from twisted_net.tcp.limits import Limits
from twisted_net.turns.turn_scheduler import TurnScheduler

AnswerTo = Callable[[bytes, Session], bytes | Waiting]
"""Answers a line of a client, as :meth:`~twisted_net.commands.runner.CommandRunner.answer` does."""

_C_contra = TypeVar("_C_contra", contravariant=True)


class ConnectionOwner(Protocol[_C_contra]):
    """
    The server of a connection, as the connection sees it.

    It is a :class:`~twisted_net.tcp.server.CommandFactory`.

    :ivar answer: the runner's method; here, as it is called for each line. So is *seconds*.
    :ivar turn_time: seconds for the lines of one connection in a turn.
    :ivar watched: empty while no client uses MONITOR.
    """

    answer: AnswerTo
    cancellations: Cancellations
    commands: Commands
    fanout: Fanout
    guard: ConnectionGuard
    limits: Limits
    reactor: IReactorTime
    runner: CommandRunner
    seconds: Callable[[], float]
    sessions: Sessions
    turn_time: float
    turns: TurnScheduler

    @property
    def watched(self) -> Sized: ...

    def open_session(self, connection: _C_contra) -> Session:
        """Open the session of a client that has connected."""

    def opened(self, connection: _C_contra) -> None:
        """Register a connection that is made."""

    def closed(self, connection: _C_contra) -> None:
        """Remove a connection that is lost."""

    def watch(self, connection: _C_contra, timeout: float, end: End) -> None:
        """Abort a connection with this reason in so many seconds; a later call replaces this."""

    def unwatch(self, connection: _C_contra) -> None:
        """Cancel the time limit of a connection."""
