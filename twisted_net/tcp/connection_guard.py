"""Connection guard: keeps a server's connections within limits of number, rate, memory and time."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Hashable, Iterator
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.auth.users import Permissions
from twisted_net.commands.registry import ANSWERED, Waiting, encode_error
from twisted_net.commands.runner import CommandRunner
from twisted_net.errors import (
    Banned,
    CommandError,
    LineTooLong,
    TwistedNetError,
    UnterminatedLine,
)
from twisted_net.net.foreign_protocols import foreign_protocol
from twisted_net.net.memory_ledger import MemoryAccount
from twisted_net.net.redaction import shown_opening
from twisted_net.reasons import End, Refusal
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.tcp.admission import Access, Admission, Meter
from twisted_net.tcp.flow_control import Throttle
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.rejection import closing_event, end_of
from twisted_net.tcp.transport import StreamTransport
from twisted_net.turns.steps import END

LINES_AT_ONCE = 256
"""
Lines that are cut off what a client has sent at one time, or as many as fill whole turns; the rest
stays as it came, and is counted. 64 KiB of the shortest lines, all cut, would take 1.2 MB.
"""

_TCP = (socket.AF_INET, socket.AF_INET6)


class GuardedConnection(Hashable, Protocol):
    """A connection as its guard sees it; equal to itself alone."""

    session: Session
    transport: StreamTransport

    def abort(self, end: End) -> None:
        """End the connection now."""

    def deliver(self, line: bytes) -> str | None:
        """Send a line that is no answer, or return in one word why it cannot be sent."""

    def hang_up(self, end: End) -> None:
        """End the connection once the peer has read what was written."""

    def logging_in(self) -> bool:
        """Whether a login is running, so that the client may stay until its outcome."""

    def apply_limits(self, user: str | None) -> None:
        """Apply the limits of a client that is logged in as this user, or as none."""


class ConnectionGuard:
    """
    Keeps the connections of one server within their limits. All of them share it.

    It counts them by address, network and user, limits those that have not logged in, and closes
    those that hold most memory where all together hold too much. Where nothing of this is
    configured it costs a connection nothing but two counts.

    :param access: who may log in, and what clients may do before; None where no login is required.
    :ivar admission: counts connections by where they come from, and who has not logged in.
    :ivar buffers: how many bytes each holds in memory.
    :ivar messages: how many bytes of messages of topics wait for each.
    :ivar lines_at_once: lines that a connection cuts off its input at one time.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        runner: CommandRunner,
        limits: Limits,
        sessions: Sessions,
        access: Access | None,
    ) -> None:
        self._reactor = reactor
        self._runner = runner
        self._limits = limits
        self._sessions = sessions
        self._access = access if access is not None and access.required else None
        self.admission: Admission[GuardedConnection] = Admission(limits, access)
        account, limit = sessions.memory.account, limits.max_buffered
        self.buffers: MemoryAccount[GuardedConnection] = account(
            "connections", limit, self._relieve
        )
        self.messages: MemoryAccount[GuardedConnection] = account("messages", limit, self._relieve)
        budget = limits.turn_budget
        self.lines_at_once = budget * max(1, LINES_AT_ONCE // budget)

    # --- limits of one connection ---

    def line_limit(self, logged_in: bool) -> int:
        """Return how many bytes a line of a client may have, before and after its login."""
        if logged_in or self._access is None:
            return self._limits.max_line
        return min(self._limits.max_line, self._access.settings.max_line)

    def pending_limit(self, logged_in: bool) -> int:
        """Return how many unanswered lines a client may have, before and after its login."""
        return self._limits.max_pending if logged_in or self._access is None else 1

    def throttle(
        self,
        session: Session,
        user: str | None,
        throttle: Throttle | None,
        changed: Callable[[], None],
    ) -> Throttle | None:
        """
        Return what applies the rates that hold for a client; None where no rate is limited.

        :param throttle: that of before its login or logout, which is kept.
        :param changed: see :class:`Throttle`.
        """
        meter = self.admission.meter(session.client[0], user)
        if throttle is not None:
            throttle.meter = meter or Meter([], [])
        elif meter is not None:
            throttle = Throttle(self._reactor, meter, changed)
        return throttle

    # --- what happens to one connection ---

    def enter(self, connection: GuardedConnection, admit: Callable[[Permissions], None]) -> None:
        """
        Count a connection in, and log it in where its certificate names a user.

        Where it names somebody else, nothing but AUTH is permitted. The connection is closed here
        where that user has too many already, and the oldest one that has not logged in where there
        are too many of these.

        :param connection: its session is open, and its transport takes writes.
        :param admit: called when the client logs in, see :attr:`Session.admit`; it calls
            :meth:`log_in`.
        """
        session = connection.session
        host = session.client[0]
        self.admission.enter(connection, host, self._reactor.seconds())
        session.administrative = self.admission.administers(host)
        if self._limits.keepalive:
            keep_alive(connection.transport, self._limits.keepalive)
        if self._access is None:
            return
        session.permissions = self._access.anonymous
        session.admit = admit
        if session.identity is None:
            self._make_room()
            return
        try:
            session.log_in_by_certificate(self._access.permissions_of(session.identity))
        except CommandError as error:
            connection.transport.write(encode_error(error))
            connection.hang_up(End.BANNED if isinstance(error, Banned) else End.USER_LIMIT)
            return
        if session.user is None:
            self._make_room()

    def open(self, connection: GuardedConnection) -> Waiting | None:
        """
        Call the hooks of an application for a client that has come; close it if one refuses it.

        :return: what is to be awaited before its first line; None for nothing.
        """
        hooks, session = self._sessions.hooks, connection.session
        if not hooks:
            self._sessions.doors.presence.update(session)
            return None
        try:
            later = hooks.opened(session)
        except ANSWERED as error:
            self.refuse(connection, error)
            return None
        self._sessions.doors.presence.update(session)
        if later is None:
            return None
        session.opening = True
        return _Opening(self, connection, later)

    def refuse(self, connection: GuardedConnection, error: TwistedNetError) -> None:
        """Close a connection whose client an application has refused, with the error as answer."""
        self._sessions.audit("refused", connection.session, f"on_open: {error.code}")
        if connection.deliver(encode_error(error)) != "closing":
            connection.hang_up(End.REFUSED)

    def log_in(self, connection: GuardedConnection, permissions: Permissions) -> None:
        """
        Count a connection for the user that its client logs in as.

        :raises TooManyConnections: where this user has as many connections as it may.
        """
        self.admission.log_in(connection, connection.session.user, permissions)
        connection.session.reviewed = partial(self._review, connection)

    def end_of(self, connection: GuardedConnection, reason: Failure) -> End:
        """Return why a connection is lost that was not ended here; audit what a layer has ended."""
        end = end_of(reason)
        if end is End.BUFFERS_FULL:
            # The layers, such as TLS, know no session.
            self._sessions.audit("closed", connection.session, end.value)
        return end

    def leave(self, connection: GuardedConnection) -> None:
        """Count a connection out that is lost, with what it held in memory."""
        session = connection.session
        # Where no login is required nobody was counted as a user, whoever has logged in.
        user = None if session.admit is None else session.user
        # The login of a handler that still runs must not be counted any more.
        session.admit = session.reviewed = None
        self._release(connection)
        self.admission.leave(connection, session.client[0], user)

    def hold(self, connection: GuardedConnection, size: int, messages: int = 0) -> None:
        """
        Note how many bytes a connection holds in memory now.

        Where all together hold too much, those that hold most are aborted in the next turns; where
        far too much, some within this call: maybe this one too.

        :param messages: bytes of messages of topics that wait for it.
        """
        self.buffers.set(connection, size)
        if messages or self.messages.total:
            self.messages.set(connection, messages)

    def _release(self, connection: GuardedConnection) -> None:
        self.buffers.set(connection, 0)
        self.messages.set(connection, 0)

    def _relieve(self, connection: GuardedConnection) -> float:
        """Abort a connection that holds too much; return the share of a step that this takes."""
        self._release(connection)
        self._sessions.audit("closed", connection.session, End.BUFFERS_FULL.value)
        connection.abort(End.BUFFERS_FULL)
        return END

    def rejects_foreign(
        self,
        connection: GuardedConnection,
        line: bytes,
        *,
        whole: bool = True,
        too_long: bool = False,
    ) -> bool:
        """
        Abort a client that opens another protocol, which a web page may make a browser do.

        The parameters are those of
        :func:`~twisted_net.net.foreign_protocols.foreign_protocol`.

        :return: whether it was aborted.
        """
        is_command = partial(self._is_command, connection.session)
        protocol = foreign_protocol(line, is_command, whole=whole, too_long=too_long)
        if protocol is None:
            return False
        shown = shown_opening(line) if protocol == "HTTP" else protocol
        what = f"{End.CROSS_PROTOCOL.value}: {shown}"
        self._sessions.audit("closed", connection.session, what)
        connection.abort(End.CROSS_PROTOCOL)
        return True

    def refuse_command(self, meter: Meter, line: bytes, session: Session) -> bytes | None:
        """
        Count a command against the rates of its client.

        :return: the answer that refuses it, or None where it may run.
        """
        limited = meter.take_command(self._reactor.seconds())
        if limited is None:
            return None
        session.count()
        self._sessions.refuse_line(session, Refusal.RATE_LIMITED, f"by {limited.scope}")
        return encode_error(limited, self._runner.commands.name_of(line))

    def refuse_long_line(self, session: Session, limit: int) -> bytes:
        """
        Count a line that was too long, and was skipped.

        :return: the answer that refuses it.
        """
        session.count()
        self._sessions.refuse_line(session, Refusal.LINE_TOO_LONG, f"over {limit} bytes")
        return encode_error(LineTooLong(limit))

    def refuse_unterminated(self, session: Session) -> bytes:
        """
        Count a line that the client has begun, and ended its half within.

        :return: the answer that refuses it.
        """
        session.count()
        return encode_error(UnterminatedLine())

    # --- what is due from time to time ---

    def sweep(self) -> Iterator[float]:
        """
        Hang up on the clients whose time to log in is over, one after the other.

        :return: yields the share of a step that each takes, see :func:`~.steps.in_steps`.
        """
        for connection in self.admission.take_overdue(self._reactor.seconds()):
            # It may have logged in, or left, since it was found.
            if connection.session.user is None and connection.deliver(_AUTH_TIMEOUT) != "closing":
                self._sessions.audit("closed", connection.session, End.AUTH_TIMEOUT.value)
                connection.hang_up(End.AUTH_TIMEOUT)
            yield END

    def _is_command(self, session: Session, name: str) -> bool:
        """Whether this is a command for the client; others must not show that they exist."""
        command = self._runner.commands.get(name)
        return command is not None and session.may_run(command.name, command.admin)

    def _review(self, connection: GuardedConnection, before: str) -> None:
        """
        Apply changed limits of a user; those of a client without a login if it was logged out.

        :param before: the user that the connection is counted for.
        """
        session = connection.session
        if session.user is None:
            self.admission.release(before)
            self.admission.expect_login(connection, self._reactor.seconds())
            connection.apply_limits(None)
            self._make_room()
        elif session.permissions is not None and self.admission.exceeds(session.permissions):
            if connection.deliver(_USER_LIMIT) == "closing":
                return
            self._sessions.audit("closed", session, End.USER_LIMIT.value)
            session.log_out()
            self.admission.release(before)
            connection.hang_up(End.USER_LIMIT)

    def _make_room(self) -> None:
        """Abort the oldest connection that has not logged in, where there are too many of them."""
        oldest = self.admission.evict_anonymous(lambda connection: connection.logging_in())
        if oldest is not None:
            self._sessions.audit("closed", oldest.session, End.ANONYMOUS_LIMIT.value)
            oldest.abort(End.ANONYMOUS_LIMIT)


class _Opening(Waiting):
    """The hooks for a client that has come, as what precedes its first line."""

    __slots__ = ("_connection", "_guard")

    def __init__(
        self, guard: ConnectionGuard, connection: GuardedConnection, later: Awaitable[object]
    ) -> None:
        super().__init__("on_open", lambda: later, self._opened, alone=True, begun=True)
        self._guard = guard
        self._connection = connection

    def _opened(self, value: object) -> bytes:
        self._connection.session.opening = False
        return b""

    @override
    def refuse(self, error: TwistedNetError) -> bytes:
        self._guard.refuse(self._connection, error)
        return b""


_USER_LIMIT = closing_event(End.USER_LIMIT)
_AUTH_TIMEOUT = closing_event(End.AUTH_TIMEOUT)


def keep_alive(transport: StreamTransport, seconds: int) -> None:
    """
    Let TCP probe a peer that is silent (RFC 1122 §4.2.3.6).

    The first probe is sent after so many seconds of silence, three more within as many again; a
    peer that answers none is lost. Nothing is done where there is no TCP socket to be found.
    """
    # What wraps a connection, as TLS does, has the attributes of what it wraps.
    connection = getattr(transport, "socket", None)
    if isinstance(connection, socket.socket) and connection.family in _TCP:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
