"""
TCP transport that sends at once, and the port that creates it for accepted connections.

Twisted's own transport never sends within ``write``: it asks the reactor to report when the socket
is writable, which it nearly always is, and sends in the next turn. That costs two system calls and
a second event for each answer. Here, what is written while data is being received leaves as soon as
``dataReceived`` returns, in one send, and what is written at other times leaves at once. On the
quiet reactor the former leaves after all events of the turn (``quiet_reactor.py``). Only what the
kernel does not accept waits for the reactor, in Twisted's own buffers and by Twisted's own code;
the same holds for producers that are paused and for connections that are being closed.
"""

# mypy: disallow-untyped-calls=False
# Few of the methods that these classes derive from have types.

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import ENOBUFS, EPIPE, EWOULDBLOCK
from functools import cache
from typing import TypeGuard

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
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.reasons import End
from twisted_net.tcp.fair_port import FairPort
from twisted_net.twisted_internals import fast_transport_changes

BACKLOG = 4096
"""Connections that may wait to be accepted; Linux's own limit (somaxconn) is the same."""

SENDS_IN_A_ROW = 8
"""
Sends at once outside ``dataReceived`` until the reactor reports an event of the connection.

A loop of a thousand small writes would otherwise make a thousand system calls; after this many
its writes are joined, as on the stock transport.
"""

BUFFER_SIZE = tcp.Server.bufferSize
"""Bytes that may wait before a producer is paused: 64 KiB."""

READ_SIZE = 2**14
"""
Bytes that are read in one call.

Of a hundred clients that send as much as they can, each is read once while another waits: a read of
64 KiB takes 46 µs, one of this size 20, and so much less does the other wait. It costs more for
each byte of those who send most.
"""

HELD = -1
"""
Value of ``_sends_left`` while writes wait until ``dataReceived`` returns, or until all events of
this turn are processed.
"""

_log = Logger()


class StreamTransport(ITCPTransport, IConsumer, IPushProducer):
    """The interfaces that all stream transports of Twisted have: TCP, Unix and TLS."""


class FastTransport(tcp.Server):
    """
    An accepted TCP connection that sends at once.

    It behaves as Twisted's own transport, also with TLS above or within it (``startTLS``), with
    push and pull producers, half-closed and aborted. Three things differ: ``write`` may already
    have sent when it returns; a producer is paused for what the kernel did not accept, where the
    stock transport counts all that was written in this turn; and what ``dataReceived`` writes does
    not leave while it runs the reactor itself.

    An error of a send is not reported from within ``write``: the reactor reports the loss in its
    next turn, as usual.

    What the kernel does not accept is reported to the protocol, see :func:`report_output`.

    :ivar read_size: bytes that are read at once.
    """

    # In slots, all that a connection has: one attribute elsewhere would cost it a dict. Most are
    # Twisted's: what write looks at lies side by side here, so that a message to thousands of
    # connections does not wait for memory a dozen times for each.
    __slots__ = (
        "TLS",
        "_aborting",
        "_log_context",
        "_pending_writes",
        "_reported",
        "_send_error",
        "_sends_left",
        "_shown",
        "_tempDataBuffer",
        "_tempDataLen",
        "_wants_to_write",
        "_writeDisconnected",
        "_writeDisconnecting",
        "bufferSize",
        "client",
        "connected",
        "dataBuffer",
        "disconnecting",
        "fileno",
        "hostname",
        "producer",
        "producerPaused",
        "protocol",
        "reactor",
        "read_size",
        "server",
        "sessionno",
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
        # Only the quiet reactor has it; on others nothing waits for the end of a turn.
        self._pending_writes: list[FastTransport] | None = getattr(reactor, "pending_writes", None)
        self._send_error = 0  # the errno of a failed send
        self._sends_left = SENDS_IN_A_ROW
        self._wants_to_write = False
        self._reported = False  # that something waits for the kernel
        self.bufferSize, self.read_size = BUFFER_SIZE, READ_SIZE
        self.TLS = self._aborting = False
        self._log_context: str | None = None
        self._shown: str | None = None
        self.connected = 0
        self.producer = None
        self.dataBuffer = b""
        self.disconnecting = self._writeDisconnecting = self._writeDisconnected = False
        self.producerPaused = self.streamingProducer = False
        super().__init__(sock, protocol, client, server, sessionno, reactor)

    # Two texts that Twisted makes for each connection, and that are rarely needed. The setters take
    # what its constructor sets.

    @property
    def repstr(self) -> str:
        """What ``repr`` returns."""
        if self._shown is not None:
            return self._shown
        number = getattr(self.server, "_realPortNumber", None)
        return f"<{type(self.protocol).__name__} #{self.sessionno} on {number}>"

    @repstr.setter
    def repstr(self, text: str) -> None:
        # A connection that was adopted has no port of Twisted's.
        self._shown = None if isinstance(self.server, tcp.Port) else text

    @property
    def logstr(self) -> str:
        """The context of log events; reactors that have one ask at each event, so it is kept."""
        if self._log_context is None:
            prefix = self._getLogPrefix(self.protocol)
            self._log_context = f"{prefix},{self.sessionno},{self.hostname}"
        return self._log_context

    @logstr.setter
    def logstr(self, text: str) -> None:
        pass

    @override
    def doRead(  # type: ignore[override]  # abortConnection's is of any form
        self,
    ) -> ConnectionLost | ConnectionDone | None:
        try:
            data = self.socket.recv(self.read_size)
        except OSError as error:
            return None if error.errno == EWOULDBLOCK else CONNECTION_LOST
        if not data:
            # A failed send has cleared the error of the socket, which then looks cleanly closed.
            # With EPIPE it is clean: the peer had ended its half before.
            return CONNECTION_DONE if self._send_error in (0, EPIPE) else CONNECTION_LOST
        self._sends_left = HELD
        # If this raises, the reactor ends the connection, and what was written is dropped.
        self.protocol.dataReceived(data)
        if self._wants_to_write and self._pending_writes is not None:
            self._pending_writes.append(self)
        else:
            self.write_pending()
        return None

    def write_pending(self) -> None:
        """Send what was held back, if there is something."""
        self._sends_left = SENDS_IN_A_ROW
        if self._wants_to_write:
            self._wants_to_write = False
            self.startWriting()

    @override
    def doWrite(self) -> object:  # type: ignore[override]  # as above
        if self._send_error:
            return CONNECTION_LOST
        self._sends_left = SENDS_IN_A_ROW
        outcome = FileDescriptor.doWrite(self)
        if self._reported or self.dataBuffer:
            self._report()
        return outcome

    @override
    def write(self, data: bytes) -> None:
        # What FileDescriptor.write does in the usual state of a connection.
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
            if self.dataBuffer and self.connected:
                self._report()

    @override
    def startWriting(self) -> None:
        """Send what waits at once if that is possible; else let the reactor report writability."""
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
            # A paused producer is resumed by doWrite, not within its own write.
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
        """Record why the kernel accepted nothing; return 0, the bytes that it accepted."""
        if error.errno not in (EWOULDBLOCK, ENOBUFS):
            self._send_error = error.errno or EPIPE
        return 0

    def _keep(self, data: bytes, sent: int) -> None:
        """Let the reactor send the rest, or report the error."""
        self.dataBuffer, self.offset = data, sent
        self.reactor.addWriter(self)
        self._report()

    def _report(self) -> None:
        """Report to the protocol how many bytes wait for the kernel, as this has changed."""
        size = len(self.dataBuffer) - self.offset + self._tempDataLen
        self._reported = size > 0
        report_output(self.protocol, size)

    @override
    def stopWriting(self) -> None:
        self._wants_to_write = False
        super().stopWriting()

    @override
    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        finally:
            # Twisted deletes its attribute, to uncover the method of the class; a slot hides that.
            self.fileno = _no_descriptor


def _no_descriptor() -> int:
    """Return what a descriptor that is closed has for a number."""
    return -1


def report_output(protocol: object, size: int) -> None:
    """
    Report how many bytes wait for a peer to a protocol that has ``output_waits``.

    A layer passes it on to the protocol within. Nothing is reported of what leaves at once.
    """
    report = getattr(protocol, "output_waits", None)
    if report is not None:
        report(size)


def limit_reads(transport: object, size: int) -> None:
    """
    Read at most so many bytes of a connection at once, from now on.

    Nothing is done for a transport of others, which read 64 KiB.

    :param transport: a connection, or one behind a PROXY header.
    """
    bare = getattr(transport, "unproxied", transport)
    if isinstance(bare, FastTransport):
        bare.read_size = size


class Batch:
    """
    One small write to each of many connections, all in one pass.

    System calls evict Python's data from the processor's caches. So all checks are made before the
    first of them, and all that follows after the last: 5000 sends of 150 bytes take 30 ms this way,
    38 ms as calls of ``write``, and 23 ms as bare sends.

    They do not count towards :data:`SENDS_IN_A_ROW`, as a batch joins what a connection has to
    write. If they did, every ninth message to a client that only listens would go through the
    reactor.
    """

    __slots__ = ("_chunks", "_transports")

    def __init__(self) -> None:
        self._transports: list[FastTransport] = []
        self._chunks: list[bytes] = []

    def takes(self, transport: object) -> TypeGuard[FastTransport]:
        """Return whether a transport can be in a batch: it sends at once, and is idle."""
        return (
            isinstance(transport, FastTransport)
            and transport._sends_left > 0
            and transport.connected == 1
            # A pull producer writes when it is resumed.
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
        Add a write to a transport that :meth:`takes` accepts, and that is not in the batch yet.

        :param data: 1 byte to 64 KiB.
        """
        self._transports.append(transport)
        self._chunks.append(data)

    def send(self) -> None:
        """Send; no connection may have been used since it was added."""
        sends = [transport.socket.send for transport in self._transports]
        results: list[int | OSError] = []
        for send, data in zip(sends, self._chunks, strict=True):
            try:
                results.append(send(data))
            except OSError as error:
                # Without its traceback, which has this frame, which has it: a cycle.
                results.append(error.with_traceback(None))
        for transport, data, result in zip(self._transports, self._chunks, results, strict=True):
            if result != len(data):
                sent = transport._note(result) if isinstance(result, OSError) else result
                transport._keep(data, sent)


class FastPort(FairPort):
    """
    A listening TCP port whose connections are each a :class:`FastTransport`.

    TCP_NODELAY is set on them, as in asyncio: otherwise an answer would wait until the peer has
    acknowledged the one before, 40 ms. A protocol may unset it.
    """

    transport = FastTransport

    @override
    def startListening(self) -> None:
        super().startListening()
        # Accepted sockets inherit it, which saves a system call for each.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)


@check_arguments
def listen_tcp(
    reactor: AnyReactor,
    port: int | Binding,
    factory: IProtocolFactory,
    backlog: int = BACKLOG,
    interface: str = "127.0.0.1",
    refused: Callable[[End], object] | None = None,
) -> IListeningPort:
    """
    Listen for TCP connections that send at once.

    It calls ``reactor.listenTCP`` on a reactor that is not one of Twisted's for POSIX, such as a
    fake for tests, and with a version of Twisted that is not known, which is logged as a warning.

    :param port: 0 for a free one; with :func:`twisted.internet.tcp.makeBinding` for its options.
    :param interface: an IPv4 or IPv6 address; the empty string for all of IPv4.
    :param refused: called with the reason for each connection that is closed at once, as the
        process may open no more files.
    :raises CannotListenError: if the port cannot be bound.
    """
    if not isinstance(reactor, PosixReactorBase) or not _known():
        # Twisted's annotations demand an int and a ServerFactory, its code does not.
        return full_reactor(reactor).listenTCP(port, factory, backlog, interface)  # type: ignore[arg-type]
    fast = FastPort(port, factory, backlog, interface, reactor)  # type: ignore[arg-type]  # Binding
    fast.refused = refused
    fast.startListening()
    return fast


@cache
def _known() -> bool:
    """Return whether :class:`FastTransport` fits the installed Twisted; log it once if not."""
    if changes := fast_transport_changes():
        _log.warn(
            "the fast transport does not support Twisted {version}; TCP connections use the "
            "stock transport, which is slower; changed methods: {changes}",
            version=twisted_version,
            changes=", ".join(changes),
        )
    return not changes
