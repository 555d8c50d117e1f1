"""Keeps each connection of a server within its limits: who it is, how fast, how much memory."""

from __future__ import annotations

import socket
from abc import abstractmethod

from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol

from twisted_net.auth.users import Permissions
from twisted_net.commands.registry import Waiting, encode_error
from twisted_net.commands.runner import CommandRunner
from twisted_net.errors import CommandError, LineTooLong
from twisted_net.reasons import End, Refusal
from twisted_net.sessions import Session, Sessions, encode_event
from twisted_net.tcp.admission import FOREIGN, Access, Admission, Buffers
from twisted_net.tcp.flow_control import FlowControl, Throttle
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.line_framer import LineFramer

LINES_AT_ONCE = 256
"""
Lines that are cut off what a client has sent at one time, or as many as fill whole turns; the rest
stays as it came, and is counted. 64 KiB of the shortest lines, all cut, would take 1.2 MB.
"""

UNCOUNTED = 4096
"""Bytes after the last line of a piece that need not be counted, as they are few."""

_TCP = (socket.AF_INET, socket.AF_INET6)


class Transport(ITCPTransport, IConsumer, IPushProducer):
    """What a TCP connection of Twisted's offers."""


class Guard:
    """
    What the connections of one server share, to be kept within their limits.

    :ivar admission: counts them by where they come from.
    :ivar buffers: what they hold in memory.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        runner: CommandRunner,
        limits: Limits,
        sessions: Sessions,
        access: Access | None,
    ) -> None:
        self.reactor = reactor
        self.runner = runner
        self.limits = limits
        self.sessions = sessions
        self.access = access if access is not None and access.required else None
        self.admission: Admission[GuardedProtocol] = Admission(limits, access)
        self.buffers: Buffers[GuardedProtocol] = Buffers(limits.max_buffered)
        budget = limits.turn_budget
        self.most_lines = budget * max(1, LINES_AT_ONCE // budget)

    def longest_line(self, known: bool) -> int:
        """Give the longest line of a client, which may have logged in or not."""
        if known or self.access is None:
            return self.limits.max_line
        return min(self.limits.max_line, self.access.settings.max_line)

    def most_pending(self, known: bool) -> int:
        """Give how many unanswered lines a client may have, which may have logged in or not."""
        return self.limits.max_pending if known or self.access is None else 1

    def relieve(self) -> None:
        """Cut off the connections that hold most, until there is room again."""
        for connection in self.buffers.fattest():
            self.sessions.audit("closed", connection.session, End.BUFFERS_FULL.value)
            connection.abort(End.BUFFERS_FULL)

    def make_room(self) -> None:
        """Cut off who came first of those who have not logged in, where they are too many."""
        crowded_out = self.admission.crowded_out(GuardedProtocol.logging_in)
        if crowded_out is not None:
            self.sessions.audit("closed", crowded_out.session, End.ANONYMOUS_LIMIT.value)
            crowded_out.abort(End.ANONYMOUS_LIMIT)

    def sweep(self) -> None:
        """Hang up on the clients that should have logged in by now."""
        for connection in self.admission.late(self.reactor.seconds()):
            if connection.deliver(_TOO_LATE) != "closing":
                self.sessions.audit("closed", connection.session, End.AUTH_TIMEOUT.value)
                connection.hang_up(End.AUTH_TIMEOUT)


class GuardedProtocol(Protocol):
    """
    The part of a client's connection that keeps it within its limits.

    A feature that is off costs a look at one attribute for each chunk or turn, none for a line.
    """

    transport: Transport
    session: Session
    _flow: FlowControl  # from connectionMade on

    # In slots, which are looked up faster than defaults on a class, and lie side by side: a message
    # to thousands of connections waits for memory at each more than for anything else.
    __slots__ = (
        "_flow",
        "_framer",
        "_guard",
        "_most",
        "_throttle",
        "session",
        "transport",
    )

    def __init__(self, guard: Guard) -> None:
        self._throttle: Throttle | None = None  # only under a rate limit
        self._guard = guard
        self._framer = LineFramer(guard.longest_line(known=False), guard.most_lines)
        self._most = guard.most_pending(known=False)  # unanswered lines

    @abstractmethod
    def abort(self, end: End) -> None:
        """End the connection now."""

    @abstractmethod
    def deliver(self, line: bytes) -> str | None:
        """Send a line that is no answer, or say in a word why it cannot be sent."""

    @abstractmethod
    def hang_up(self, end: End) -> None:
        """End the connection once the peer has read what was written."""

    @abstractmethod
    def _go_on(self) -> None:
        """Do what is next."""

    def logging_in(self) -> bool:
        """Whether a command runs that must be alone, as AUTH does."""
        return self._most == 0

    def _enter(self) -> None:
        """Begin to guard: the session is there, and the transport ready to be written to."""
        guard = self._guard
        host = self.session.client[0]
        guard.admission.enter(self, host, guard.reactor.seconds())
        self.session.administrative = guard.admission.administers(host)
        self._set_meter(None)
        if guard.limits.keepalive:
            keep_alive(self.transport, guard.limits.keepalive)
        if guard.access is None:
            return
        self.session.permissions = guard.access.anonymous
        self.session.admit = self._admit
        identity = self.session.identity
        if identity is None:
            guard.make_room()
        else:
            try:
                self.session.log_in(guard.access.permissions_of(identity))
            except CommandError as error:
                self.transport.write(encode_error(error))
                self.hang_up(End.USER_LIMIT)
            else:
                guard.sessions.audit("login", self.session, "by certificate")

    def _leave(self) -> None:
        """End to guard: the connection is lost."""
        if self._throttle is not None:
            self._throttle.stop()
        # A handler that outlives the connection counts for nobody.
        self.session.admit = None
        self._guard.buffers.set(self, 0)
        self._guard.admission.leave(self, self.session.client[0], self.session.user)

    def _admit(self, permissions: Permissions) -> None:
        """
        Take the client for a user, who has the usual limits.

        :raises TooManyConnections: where this user has as many connections as it may.
        """
        guard = self._guard
        guard.admission.log_in(self, self.session.user, permissions)
        self._framer.max_length = guard.longest_line(known=True)
        if self._most:
            self._most = guard.most_pending(known=True)
        self._set_meter(permissions.name)

    def _set_meter(self, user: str | None) -> None:
        meter = self._guard.admission.meter(self.session.client[0], user)
        if meter is None:
            return
        if self._throttle is None:
            self._throttle = Throttle(self._guard.reactor, meter, self._go_on)
        else:
            self._throttle.meter = meter

    def _let_others_run(self) -> None:
        """Let the lines go on that waited for one which had to be alone."""
        self._most = self._guard.most_pending(self.session.user is not None)

    def _refuses_foreign(self, line: bytes | None) -> bool:
        """Cut off a client whose first line is another protocol's; say whether it was."""
        if line is None or not FOREIGN.match(line):
            return False
        what = line[:64].decode(errors="backslashreplace")
        self._guard.sessions.audit("closed", self.session, f"{End.CROSS_PROTOCOL.value}: {what}")
        self.abort(End.CROSS_PROTOCOL)
        return True

    def _answer_metered(self, line: bytes, session: Session) -> bytes | Waiting:
        """Answer a line, or refuse it where too many came."""
        guard = self._guard
        assert self._throttle is not None
        limited = self._throttle.meter.take_command(guard.reactor.seconds())
        if limited is None:
            return guard.runner.answer(line, session)
        session.count()
        name = guard.runner.commands.name_of(line)
        guard.sessions.refuse_line(session, Refusal.RATE_LIMITED, f"by {limited.scope}")
        return encode_error(limited, name)

    def _cut_rest(self) -> list[bytes | None] | None:
        """Cut more lines off what the client has sent; None where there is no whole one."""
        lines = self._framer.feed(b"") or None
        self._hold_input(len(self._framer))
        return lines

    def _hold_input(self, size: int) -> None:
        """Note how many bytes have come that are not run yet."""
        self._flow.input_size = size
        self._hold()

    def _hold_output(self, size: int) -> None:
        """Note that so many more bytes wait for a peer that does not read."""
        self._flow.output_size += size
        self._hold()

    def _release_output(self) -> None:
        """Note that the peer has read everything."""
        if self._flow.output_size or self.session.mailbox is not None:
            self._flow.output_read()
            self._hold()

    def weigh_messages(self) -> None:
        """Note how many bytes of messages wait; from time to time, as it changes with each."""
        mailbox = self.session.mailbox
        if mailbox is not None and mailbox.waiting:
            self._hold()

    def _hold(self) -> None:
        mailbox = self.session.mailbox
        waiting = 0 if mailbox is None else mailbox.waiting
        if self._guard.buffers.set(self, self._flow.kept + waiting):
            self._guard.relieve()

    def _too_long(self) -> bytes:
        self.session.count()
        what = f"over {self._framer.max_length} bytes"
        self._guard.sessions.refuse_line(self.session, Refusal.LINE_TOO_LONG, what)
        return encode_error(LineTooLong(self._framer.max_length))


_TOO_LATE = encode_event({"event": "closing", "reason": End.AUTH_TIMEOUT.value})


def keep_alive(transport: Transport, seconds: int) -> None:
    """
    Let TCP ask a peer that is silent whether it is still there.

    It is asked after so many seconds, then three times within as many more, and is then lost.
    Nothing is done where there is no TCP, or a transport of another make that shows no socket.
    """
    # What wraps a connection, as TLS does, gives the attributes of what it wraps.
    connection = getattr(transport, "socket", None)
    if isinstance(connection, socket.socket) and connection.family in _TCP:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
