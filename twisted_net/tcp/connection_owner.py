"""Connection owner: what the connections of one server share, and what they report to it."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Protocol, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTime

from twisted_net.commands.registry import Commands, Waiting
from twisted_net.commands.runner import CommandRunner
from twisted_net.net.addresses import UNIX
from twisted_net.net.turn_scheduler import TurnScheduler
from twisted_net.reasons import End
from twisted_net.sessions import Connection, Session, Sessions
from twisted_net.tcp.connection_guard import ConnectionGuard
from twisted_net.tcp.fanout import Fanout
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.transport import StreamTransport

AnswerTo = Callable[[bytes, Session], bytes | Waiting]
"""Answers a line of a client, as :meth:`~twisted_net.commands.runner.CommandRunner.answer` does."""


def open_session(
    sessions: Sessions,
    transport: StreamTransport,
    deliver: Callable[[bytes], str | None],
    connection: Connection,
) -> Session:
    """
    Open the session of a client that has connected, under the name of its address.

    :param deliver: see :meth:`~twisted_net.sessions.Sessions.open`, as is *connection*.
    """
    peer: object = transport.getPeer()
    if isinstance(peer, IPv4Address | IPv6Address):
        # Answers written in later turns would wait for the peer's delayed ACK, 40 ms.
        transport.setTcpNoDelay(True)
        session = sessions.open(peer.host, peer.port, deliver, connection)
    else:
        # The peer of a Unix socket has no port: a running number distinguishes them.
        host = getattr(peer, "host", UNIX)
        session = sessions.open(host, sessions.counters.opened + 1, deliver, connection)
    session.identity = getattr(transport, "identity", None)
    return session


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

    def opened(self, connection: _C_contra) -> None:
        """Register a connection that is made."""

    def closed(self, connection: _C_contra) -> None:
        """Remove a connection that is lost."""

    def watch(self, connection: _C_contra, timeout: float, end: End) -> None:
        """Abort a connection with this reason in so many seconds; a later call replaces this."""

    def unwatch(self, connection: _C_contra) -> None:
        """Cancel the time limit of a connection."""
