"""Fair port: accepts few connections per turn, and bounds what a lack of descriptors costs."""

# mypy: disallow-untyped-calls=False
# Few of the methods that the port derives from have types.

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from errno import EAGAIN, ECONNABORTED, EMFILE, EPERM, EPROTO
from functools import cache
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.net.addresses import format_address
from twisted_net.net.log_limiter import limited_logger
from twisted_net.reasons import End
from twisted_net.twisted_internals import accept_changes

ACCEPTS_PER_TURN = 4
"""
Connections that one port accepts in one reactor turn.

Twisted accepts 100, and 20 more after every turn in which that many came. Under a flood that grows
to thousands per turn, each costs some 0.1 ms with TLS, and no other client is served: 3000 per
second made the PING of another client take 166 ms (median); with this limit, 0.7 ms.
"""

CLOSED_PER_TURN = 64
"""Connections that are closed in one turn while no descriptor is left; each costs some 10 µs."""

ACCEPT_PAUSE = 0.25
"""
Seconds in which nothing is accepted after the system had no descriptor, buffer or memory for it.

Connections wait in the backlog meanwhile. Without the pause the reactor would try in every turn.
"""

LINES_PER_SECOND, LINES = 0.1, 10
"""Lines of the log about connections that were not accepted: all of one port say the same."""

LOST_MEANWHILE = frozenset({ECONNABORTED, EPERM, EPROTO})
"""Errors of accept(2) that are about one connection, which is gone; EPERM is a firewall's."""


class FairPort(tcp.Port):
    """
    A listening port that accepts few connections per turn, so that a flood of them waits.

    If the process may open no more files, connections are closed at once, without an answer, so
    that their clients need not wait: a descriptor is held in reserve for that. They are counted,
    and logged at a limited rate.

    :ivar refused: called with the reason for each connection that is closed so.
    """

    refused: Callable[[End], object] | None = None
    _reserve: int | None = None
    _pause: IDelayedCall | None = None
    _limited_log: Logger | None = None

    @property
    def numberAccepts(self) -> int:
        """How many connections are accepted in one turn; Twisted reads it."""
        return ACCEPTS_PER_TURN

    @numberAccepts.setter
    def numberAccepts(self, number: int) -> None:
        """Ignore it: Twisted raises the number by 20 after each turn in which it was reached."""

    @override
    def startReading(self) -> None:
        if self._reserve is None:
            self._reserve = _open_reserve()
        super().startReading()

    @override
    def doRead(self) -> None:
        if not _knows_accept():
            super().doRead()
            return
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, peer = self.socket.accept()
            except OSError as error:
                if error.errno in LOST_MEANWHILE:
                    continue
                if error.errno != EAGAIN:
                    self._cannot_accept(error)
                return
            self._connect(accepted, peer)

    @override
    def connectionLost(self, reason: Failure) -> None:
        self._release()
        super().connectionLost(reason)

    def _release(self) -> None:
        """End the pause, and close the reserved descriptor."""
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.cancel()
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            os.close(reserve)

    def _connect(self, accepted: socket.socket, peer: Any) -> None:  # Any: as the kernel has it
        """Connect an accepted socket to a protocol, or close it."""
        transport: Any = None  # Any: of the port's kind
        try:
            if self.addressFamily == socket.AF_INET6:
                # With the scope of a link-local address.
                numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                peer = (socket.getnameinfo(peer, numeric)[0], *peer[1:])
            assert self.factory is not None
            protocol = self.factory.buildProtocol(self._buildAddr(peer))
            if protocol is None:
                accepted.close()
                return
            number = self.sessionno
            self.sessionno = number + 1
            transport = self.transport(accepted, protocol, peer, self, number, self.reactor)
            protocol.makeConnection(transport)
        # A bug of a protocol, or memory that the reactor does not get.
        except BaseException:
            self._log.failure("a connection to {port} was aborted", port=self._name)
            if transport is None:
                accepted.close()
            else:
                transport.abortConnection()

    def _cannot_accept(self, error: OSError) -> None:
        """Close the connections that wait, if only descriptors are lacking; else pause."""
        closed = self._close_newcomers() if error.errno == EMFILE else 0
        if closed:
            self._log.warn(
                "no file descriptor is left (ulimit -n): connections to {port} are closed at once",
                port=self._name,
            )
            return
        self._log.error(
            "{port} accepts no connection for {pause} s: {reason}",
            port=self._name,
            pause=ACCEPT_PAUSE,
            reason=error.strerror or str(error),
        )
        if self._pause is None:
            self.stopReading()
            clock = cast(IReactorTime, self.reactor)  # Twisted's annotation lacks it
            self._pause = clock.callLater(ACCEPT_PAUSE, self._resume)

    def _close_newcomers(self) -> int:
        """Close connections by means of the reserved descriptor; return how many."""
        if self._reserve is None:
            self._reserve = _open_reserve()
            if self._reserve is None:
                return 0
        os.close(self._reserve)
        closed = 0
        try:
            while closed < CLOSED_PER_TURN:
                accepted, _ = self.socket.accept()
                accepted.close()
                closed += 1
                if self.refused is not None:
                    self.refused(End.NO_DESCRIPTORS)
        except OSError:
            pass  # none waits, or another thread took the descriptor
        finally:
            self._reserve = _open_reserve()
        return closed

    def _resume(self) -> None:
        self._pause = None
        if self.connected and not self.disconnecting:
            self.startReading()

    @property
    def _log(self) -> Logger:
        if self._limited_log is None:
            self._limited_log = limited_logger(self, per_second=LINES_PER_SECOND, burst=LINES)
        return self._limited_log

    @property
    def _name(self) -> str:
        host: object = self.getHost()
        if isinstance(host, IPv4Address | IPv6Address):
            return format_address(host.host, host.port)
        return str(host)


def _open_reserve() -> int | None:
    """Open a file to hold a descriptor, or return None if there is none left."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


@cache
def _knows_accept() -> bool:
    """Whether the port's own way of accepting fits the installed Twisted."""
    return not accept_changes()
