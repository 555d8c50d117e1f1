"""
A TCP transport that sends at once, and the port that gives it to the connections it accepts.

Twisted's own transport never sends within ``write``: it asks the reactor to say when the socket
takes data, which it nearly always does, and sends in the next turn. That costs two system calls
and a second event for each answer. Here what is written while data is being received leaves as
soon as ``dataReceived`` returns, in one send, and what is written at other times leaves at once.
On the quiet reactor the former leaves when the events of the turn are through (``reactor.py``).
Only what the kernel does not take waits for the reactor, in Twisted's own buffers and by
Twisted's own code; so do producers that were paused, and connections that are being closed.
"""

# mypy: disallow-untyped-calls=False
# Few of the methods that these classes derive from have types.

from __future__ import annotations

import socket
from errno import ENOBUFS, EPIPE, EWOULDBLOCK
from functools import cache
from typing import Any, TypeGuard

from twisted.copyright import version as twisted_version
from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    Binding,
    IConsumer,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorFDSet,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.twisted_internals import fast_transport_changes

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel's own limit (somaxconn) is the same."""

SENDS_IN_A_ROW = 8
"""
Sends at once outside ``dataReceived`` before the reactor must have told us something.

A loop of a thousand small writes would otherwise make a thousand system calls; after so many
its writes are joined, as on the stock transport.
"""

ACCEPTS_PER_TURN = 4
"""
Connections that one port accepts before others have their turn.

Twisted accepts 100, and 20 more after every turn in which that many came: a flood of them ends in
turns of thousands, while each costs some 0.1 ms under TLS, and nobody else is served. 3000 a second
then made the PING of another client take 166 ms (median); with this, 0.7 ms.
"""

BUFFER_SIZE = tcp.Server.bufferSize
"""Bytes that are read at once, and that wait before a producer is paused: 64 KiB."""

HELD = -1
"""
In place of the number of sends left: what is written waits until ``dataReceived`` returns, or until
the events of this turn are through.
"""

_log = Logger()


class StreamTransport(ITCPTransport, IConsumer, IPushProducer):
    """The interfaces that all stream transports of Twisted have: TCP, Unix and TLS."""


class FastTransport(tcp.Server):
    """
    An accepted TCP connection that sends at once.

    To its protocol it is Twisted's own transport, also with TLS above or within it
    (``startTLS``), with push and pull producers, half-closed and aborted. Three things differ:
    ``write`` may already have sent when it returns; a producer is paused for what the kernel
    did not take, where the stock transport counts all that was written in this turn; and a
    ``dataReceived`` that itself runs the reactor waits in vain for its own words to leave.

    No error of a send reaches the protocol from within ``write``: the reactor reports the loss
    in its next turn, as ever.
    """

    # In slots, as a new attribute on a connection long made would cost it a dict of its own. The
    # others are Twisted's: what write asks lies side by side here, so that a message to thousands
    # of connections does not wait for memory a dozen times for each.
    __slots__ = (
        "TLS",
        "_aborting",
        "_pending_writes",
        "_send_error",
        "_sends_left",
        "_tempDataBuffer",
        "_tempDataLen",
        "_wants_to_write",
        "_writeDisconnected",
        "_writeDisconnecting",
        "bufferSize",
        "connected",
        "dataBuffer",
        "disconnecting",
        "producer",
        "producerPaused",
        "socket",
        "streamingProducer",
    )

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[object, ...],
        server: tcp.Port,
        sessionno: int,
        reactor: IReactorFDSet,
    ) -> None:
        # The quiet reactor's; on others nothing waits for the end of a turn.
        self._pending_writes: list[FastTransport] | None = getattr(reactor, "pending_writes", None)
        self._send_error = 0  # the errno of a failed send
        self._sends_left = SENDS_IN_A_ROW
        self._wants_to_write = False
        self.bufferSize = BUFFER_SIZE
        self.TLS = self._aborting = False
        self.connected = 0
        self.producer = None
        self.dataBuffer = b""
        self.disconnecting = self._writeDisconnecting = self._writeDisconnected = False
        self.producerPaused = self.streamingProducer = False
        super().__init__(sock, protocol, client, server, sessionno, reactor)

    @override
    def doRead(  # type: ignore[override]  # abortConnection's is of any form
        self,
    ) -> ConnectionLost | ConnectionDone | None:
        try:
            data = self.socket.recv(self.bufferSize)
        except OSError as error:
            return None if error.errno == EWOULDBLOCK else CONNECTION_LOST
        if not data:
            # A failed send has taken the error off the socket, which then looks cleanly closed.
            # Not so EPIPE: there the peer had ended its half before.
            return CONNECTION_DONE if self._send_error in (0, EPIPE) else CONNECTION_LOST
        self._sends_left = HELD
        # Should this fail, the reactor ends the connection, and what was written is dropped.
        self.protocol.dataReceived(data)
        if self._wants_to_write and self._pending_writes is not None:
            self._pending_writes.append(self)
        else:
            self.write_pending()
        return None

    def write_pending(self) -> None:
        """Send what was held back; where there is nothing, or no longer, do nothing."""
        self._sends_left = SENDS_IN_A_ROW
        if self._wants_to_write:
            self._wants_to_write = False
            self.startWriting()

    @override
    def doWrite(self) -> object:  # type: ignore[override]  # as above
        if self._send_error:
            return CONNECTION_LOST
        self._sends_left = SENDS_IN_A_ROW
        return FileDescriptor.doWrite(self)

    @override
    def write(self, data: bytes) -> None:
        # What FileDescriptor.write does in the state that connections are nearly always in.
        if (
            type(data) is bytes
            and data
            and self.connected
            and not (self.TLS or self.dataBuffer or self._writeDisconnected)
        ):
            self._tempDataBuffer.append(data)
            self._tempDataLen += len(data)
            if self._tempDataLen > self.bufferSize:
                self._maybePauseProducer()
            if self._sends_left == HELD:
                self._wants_to_write = True
            else:
                self.startWriting()
        else:
            super().write(data)

    @override
    def startWriting(self) -> None:
        """See to it that what is to be written, or ended, is: at once where that can be done."""
        if self._sends_left == HELD:
            self._wants_to_write = True
            return
        size, producer = self._tempDataLen, self.producer
        if (
            not size
            or size > self.bufferSize
            or self.dataBuffer
            or not self._sends_left
            or self.disconnecting
            or self._writeDisconnecting
            or self._aborting
            # One that waits to be resumed is resumed by doWrite, not within its own write.
            or (producer is not None and (self.producerPaused or not self.streamingProducer))
        ):
            self.reactor.addWriter(self)
            return
        data = b"".join(self._tempDataBuffer)
        self._tempDataBuffer.clear()
        self._tempDataLen = 0
        self._sends_left -= 1
        try:
            sent = self.socket.send(data)
        except OSError as error:
            sent = self._note(error)
        if sent < size:
            self._keep(data, sent)

    def _note(self, error: OSError) -> int:
        """Note why the kernel took nothing; give the number of bytes that it took."""
        if error.errno not in (EWOULDBLOCK, ENOBUFS):
            self._send_error = error.errno or EPIPE
        return 0

    def _keep(self, data: bytes, sent: int) -> None:
        """Leave to the reactor what was not sent, or to tell of the error."""
        self.dataBuffer, self.offset = data, sent
        self.reactor.addWriter(self)

    @override
    def stopWriting(self) -> None:
        self._wants_to_write = False
        super().stopWriting()


class Batch:
    """
    One small write to each of many connections, all made at once.

    A system call leaves the processor little of Python at hand. So what has to be found out is
    found out for all before the first of them, and what follows comes after the last: 5000 sends of
    150 bytes then take 30 ms where as many calls of ``write`` take 38, and nothing but sends 23.

    They do not count among :data:`SENDS_IN_A_ROW`, as a batch joins what a connection has to write
    already; with these, each ninth message to a client that only listens went through the reactor.
    """

    __slots__ = ("_chunks", "_transports")

    def __init__(self) -> None:
        self._transports: list[FastTransport] = []
        self._chunks: list[bytes] = []

    def takes(self, transport: object) -> TypeGuard[FastTransport]:
        """Whether it may be written to: one that sends at once, and has nothing to see to."""
        return (
            isinstance(transport, FastTransport)
            and transport._sends_left > 0
            and transport.connected == 1
            # A pull producer writes when it is asked.
            and (transport.producer is None or transport.streamingProducer)
            and not (
                transport.TLS
                or transport.dataBuffer
                or transport._tempDataLen
                or transport.disconnecting
                or transport._writeDisconnecting
                or transport._writeDisconnected
                or transport._aborting
            )
        )

    def add(self, transport: FastTransport, data: bytes) -> None:
        """
        Write to a connection that it takes, and that is not in it yet.

        :param data: 1 byte to 64 KiB.
        """
        self._transports.append(transport)
        self._chunks.append(data)

    def send(self) -> None:
        """Make the writes; none of the connections may have been used since it was added."""
        sends = [transport.socket.send for transport in self._transports]
        results: list[int | OSError] = []
        for send, data in zip(sends, self._chunks, strict=True):
            try:
                results.append(send(data))
            except OSError as error:
                results.append(error)
        for transport, data, result in zip(self._transports, self._chunks, results, strict=True):
            if result != len(data):
                sent = transport._note(result) if isinstance(result, OSError) else result
                transport._keep(data, sent)


class FairPort(tcp.Port):
    """A listening port that takes few connections at once, so that a flood of them waits."""

    @property
    def numberAccepts(self) -> int:
        """How many connections are accepted in one turn; Twisted asks."""
        return ACCEPTS_PER_TURN

    @numberAccepts.setter
    def numberAccepts(self, wished: int) -> None:
        """Leave it: Twisted wishes for 20 more after each turn that had enough to do."""


class FastPort(FairPort):
    """
    A listening TCP port whose connections are each a :class:`FastTransport`.

    They have TCP_NODELAY set, as asyncio's have: answers that leave at once would otherwise
    wait for the peer to acknowledge the one before, 40 ms. A protocol may set it off again.
    """

    transport = FastTransport

    @override
    def startListening(self) -> None:
        super().startListening()
        # Accepted sockets inherit it, which saves a system call for each.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)


def listen_tcp(
    reactor: Any,  # Any: the half dozen interfaces of a reactor
    port: int | Binding,
    factory: IProtocolFactory,
    backlog: int = BACKLOG,
    interface: str = "127.0.0.1",
) -> IListeningPort:
    """
    Listen for TCP connections that send at once.

    On a reactor that is not one of Twisted's own for POSIX, such as a fake for tests, and with a
    Twisted that we do not know, it is ``reactor.listenTCP``; the latter is logged as a warning.

    :param port: 0 for a free one; with :func:`twisted.internet.tcp.makeBinding` for its options.
    :param interface: an IPv4 or IPv6 address; the empty string for all of IPv4.
    :raises CannotListenError: where the port cannot be had.
    """
    if not isinstance(reactor, PosixReactorBase) or not _known():
        listening: IListeningPort = reactor.listenTCP(port, factory, backlog, interface)
        return listening
    fast = FastPort(port, factory, backlog, interface, reactor)  # type: ignore[arg-type]  # Binding
    fast.startListening()
    return fast


@cache
def _known() -> bool:
    """Whether :class:`FastTransport` fits the installed Twisted; logged once if it does not."""
    if changes := fast_transport_changes():
        _log.warn(
            "the fast transport does not support Twisted {version}; TCP connections use the "
            "stock transport, which is slower; changed methods: {changes}",
            version=twisted_version,
            changes=", ".join(changes),
        )
    return not changes
