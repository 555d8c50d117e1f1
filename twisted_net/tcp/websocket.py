"""WebSocket on the server's side (RFC 6455): text messages carry lines of the command protocol."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason, Frame, FrameProtocol
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import BadHandshake
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.net.websocket_handshake import (
    HandshakeRequest,
    RequestReader,
    encode_acceptance,
    encode_refusal,
)
from twisted_net.reasons import End
from twisted_net.tcp.handshakes import HandshakeFactory, Handshakes
from twisted_net.tcp.rejection import LayerEnded, end_output
from twisted_net.tcp.transport import limit_reads, report_output
from twisted_net.turns.paced_input import READ_SIZE, UNITS_PER_LOOK, PacedInput
from twisted_net.turns.steps import END
from twisted_net.turns.turn_scheduler import turns_of

MAX_FRAGMENTS = 1024
"""
Frames of one message; one more closes the connection with code 1009, Message Too Big, which says
what is wrong, while 1008 is for what no other code says (§7.4.1).

Browsers send a message in one frame, and programs cut it at some kilobytes. Frames may be empty, so
that no limit of bytes ends a message.
"""

ANY_ORIGIN = "*"
"""Stands for all origins in the list of those that may connect."""


@check_arguments
class WebSocketFactory(HandshakeFactory):
    """
    The server's side of WebSockets.

    A text message holds lines, the last of which needs no end; a client may cut a message into
    frames anywhere. Each line of the server is a message of its own, without its end. A client
    that closes first gets the answers that are due, like one that ends its half of a TCP
    connection. Messages that are not text are refused with code 1003.

    The protocols of *inner* are built after the handshake. Messages are not kept here: *inner*
    limits the length of lines. Compression is not offered, since a few bytes could expand to a
    thousand times as many.

    :param inner: its protocols get the connections; whatever they write ends with a line.
    :param handshakes: limits those that are under way.
    :param origins: web sites whose pages may connect, such as ``https://example.org``. Pages of
        other sites are refused, since they would use the access that their visitor's browser has
        to this network. Clients that are not browsers send no origin, and are accepted.
    :param memory: counts what has come and is not processed; a ledger of its own if None.
    :ivar kept: what has come on each connection.
    :ivar turns: where frames wait that are not processed yet.
    :ivar seconds: a steady clock, for durations.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        handshakes: Handshakes,
        clock: IReactorTime,
        origins: Collection[str] = (),
        memory: MemoryLedger | None = None,
    ) -> None:
        super().__init__(inner, handshakes)
        self.kept: MemoryAccount[_WebSocket] = (memory or MemoryLedger()).account(
            "websocket", relieve=_WebSocket.relieve
        )
        clock = steady(clock)
        self.turns = turns_of(clock)
        self.seconds = stopwatch(clock)
        self.origins = frozenset(origins)

    @override
    def buildProtocol(self, addr: object) -> Protocol:
        return _WebSocket(self)

    def admits(self, request: HandshakeRequest) -> bool:
        """Return whether the page that the request comes from, if any, may connect."""
        origins = request.origins
        return (
            ANY_ORIGIN in self.origins
            or not origins
            or (len(origins) == 1 and origins[0] in self.origins)
        )


@implementer(IPushProducer)
class _SocketProducer:
    """Pauses a WebSocket and the protocol within it while the client does not read."""

    __slots__ = ("_producer", "_socket")

    def __init__(self, socket: _WebSocket, producer: IPushProducer) -> None:
        self._socket = socket
        self._producer = producer

    def pauseProducing(self) -> None:
        """The client does not read."""
        self._socket.writable = False
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has read everything."""
        self._socket.writable = True
        self._socket.answer_ping()
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._producer.stopProducing()


@implementer(IHalfCloseableProtocol)
class _WebSocket(Protocol):
    """
    One WebSocket: the protocol of its connection, and the transport of the protocol within.

    Methods with the names of a transport's methods are called by the protocol within; those that
    are not defined here are the connection's own.
    """

    transport: Any  # TCP, Unix or TLS
    writable = True
    _input: PacedInput  # from connectionMade on
    _inner: IProtocol | None = None
    _refused = False
    _input_ended = False  # the client has ended its half, with or without a closing frame
    _ended = False  # no message follows: the client has closed, or has broken a rule
    _closed = False  # our own closing frame is sent
    _code = int(CloseReason.NORMAL_CLOSURE)
    _line_ended = False  # whether the message that is being received ends with a line so far
    _fragments = 0  # frames of that message so far
    _reason: str | None = None  # of our closing frame
    _ping: Ping | None = None
    _rest = b""
    _waiting = 0  # bytes that have come, and are not processed
    _relieved: Failure | None = None  # why it has been ended

    def __init__(self, factory: WebSocketFactory) -> None:
        self._factory = factory
        self._reader: RequestReader | None = RequestReader()  # until the handshake is over
        self._wire = _Frames()

    def __getattr__(self, name: str) -> Any:  # Any: whatever the transport has
        return getattr(self.transport, name)

    # --- the protocol ---

    @override
    def connectionMade(self) -> None:
        factory = self._factory
        limit_reads(self.transport, READ_SIZE)
        self._input = PacedInput(factory.turns, factory.seconds, self.transport, self._take_frames)
        self._factory.handshakes.began(self)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._refused or self._ended:
            return
        if self._reader is not None:
            try:
                request = self._reader.feed(data)
                if request is None:
                    self._count(self._waiting + len(data))
                    return
                self._count(0)
                self._accept(request)
            except BadHandshake as error:
                self._refuse(error)
                return
            data = request.rest
        self._wire.receive_data(data)
        self._input.arrived()
        if self._input.due:
            self._count(self._waiting + len(data))

    def readConnectionLost(self) -> None:
        """The client has ended its half: the frames that came before are processed first."""
        self._input_ended = True
        if self._inner is None:
            self.transport.loseConnection()
        elif not self._ended:
            self._input.arrived()

    def output_waits(self, size: int) -> None:
        """Pass on how many bytes wait for the client."""
        report_output(self._inner, size)

    def writeConnectionLost(self) -> None:
        """Our half has ended, after :meth:`loseWriteConnection`."""
        half_closeable = IHalfCloseableProtocol(self._inner, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._input.stop()
        self._factory.kept.set(self, 0)
        self._ended = True
        self._wire.close()
        inner, self._inner = self._inner, None  # the two would keep each other in memory
        if inner is None:
            self._factory.handshakes.lost(self)
        else:
            inner.connectionLost(self._relieved or reason)

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()

    def relieve(self) -> float:
        """End it now, as all hold too much; return the share of a step that this takes."""
        self._factory.kept.set(self, 0)
        if self._inner is None:
            self._factory.handshakes.failed(self, End.BUFFERS_FULL)
        else:
            self._relieved = Failure(LayerEnded(End.BUFFERS_FULL))
            self.abort()
        return END

    # --- the transport of the protocol within ---

    def write(self, data: bytes) -> None:
        """Send each line as a message."""
        if self._closed:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.transport.write(b"".join(map(_text_frame, lines)))

    def writeSequence(self, iovec: Any) -> None:  # Any: an iterable of bytes
        """Send each line of what is written as a message."""
        self.write(b"".join(iovec))

    def loseWriteConnection(self) -> None:
        """Send nothing more; the client closes when it has read all."""
        if not self._closed:
            self._send_close()
            end_output(self.transport, self if self.writable else None)

    def loseConnection(self) -> None:
        """Close, once the client has read what was written."""
        self._send_close()
        self.transport.loseConnection()

    def pauseProducing(self) -> None:
        """Stop reading for now."""
        self._input.pause()

    def resumeProducing(self) -> None:
        """Read on, beginning with what has been received already."""
        self._input.resume()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Pause the protocol within while the client does not read."""
        self.transport.registerProducer(_SocketProducer(self, producer), streaming)

    # --- frames received ---

    def answer_ping(self) -> None:
        """Answer the last ping that came while the client did not read (§5.5.3)."""
        ping, self._ping = self._ping, None
        if ping is not None and not self._closed:
            self.transport.write(self._wire.send(ping.response()))

    def _take_frames(self, limit: int, until: float) -> bool:
        """Process frames, and hand over their lines together; return whether some may be left."""
        text: list[str] = []
        left, seconds = True, self._factory.seconds
        for number in range(1, limit + 1):
            event = next(self._wire.events(), None)
            if event is None:
                left = False
                break
            self._take(event, text)
            late = number % UNITS_PER_LOOK == 0 and seconds() >= until
            if late or self._ended or self._refused:
                break
        if self._waiting and not left:
            self._count(0)
        if text and self._inner is not None:
            self._inner.dataReceived("".join(text).encode())
        if self._ended or (self._input_ended and not left):
            self._ended = True
            self._close_inner()
        return left and not (self._ended or self._refused)

    def _count(self, waiting: int) -> None:
        """Count what has come, and is not processed; last, as it may end the connection."""
        self._waiting = waiting
        self._factory.kept.set(self, waiting)

    def _take(self, event: Event, text: list[str]) -> None:
        if isinstance(event, TextMessage):
            if self._fragments >= MAX_FRAGMENTS:
                self._ended = True
                self._code = int(CloseReason.MESSAGE_TOO_BIG)
                self._reason = f"a message has at most {MAX_FRAGMENTS} frames"
                return
            self._fragments += event.frame_finished
            if event.data:
                text.append(event.data)
                self._line_ended = event.data.endswith("\n")
            if event.message_finished:
                if not self._line_ended:
                    text.append("\n")
                self._line_ended = False
                self._fragments = 0
        elif isinstance(event, Ping):
            self._ping = event
            if self.writable:
                self.answer_ping()
        elif isinstance(event, CloseConnection):
            self._ended = True
            if self._wire.state is not ConnectionState.REMOTE_CLOSING and not self._closed:
                self._code = int(event.code)
        elif isinstance(event, BytesMessage):
            self._ended = True
            self._code = int(CloseReason.UNSUPPORTED_DATA)

    def _accept(self, request: HandshakeRequest) -> None:
        if not self._factory.admits(request):
            raise BadHandshake(403, "pages of this origin may not connect")
        self._reader = None
        self._factory.handshakes.succeeded(self)
        self.transport.write(encode_acceptance(request))
        self._inner = self._factory.inner.buildProtocol(self.transport.getPeer())
        if self._inner is None:
            self._refused = True
            self.abort()
            return
        self._inner.makeConnection(self)  # type: ignore[arg-type]  # by __getattr__ it is one

    def _refuse(self, error: BadHandshake) -> None:
        """Refuse the handshake; a client that does not leave is aborted at its time limit."""
        self._refused = True
        self.transport.write(encode_refusal(error))
        self.transport.loseConnection()

    def _send_close(self) -> None:
        """Send our closing frame, once."""
        if not self._closed:
            self._closed = True
            self.transport.write(self._wire.send(CloseConnection(self._code, self._reason)))

    def _close_inner(self) -> None:
        """Close, once the protocol within has written the answers that are due."""
        half_closeable = IHalfCloseableProtocol(self._inner, None)
        if self._closed or half_closeable is None:
            self.loseConnection()
        else:
            half_closeable.readConnectionLost()


class _FrameProtocol(FrameProtocol):
    """
    Knows a code of closing frames that was registered after RFC 6455 (§7.4.2).

    wsproto refuses 1014 as reserved. Its method is private: once renamed, it does so again.
    """

    def _process_close(self, frame: Frame) -> Frame:
        payload = frame.payload
        if not isinstance(payload, bytes) or not payload.startswith(_BAD_GATEWAY):
            return super()._process_close(frame)
        known = super()._process_close(frame._replace(payload=_TRY_AGAIN_LATER + payload[2:]))
        assert isinstance(known.payload, tuple)
        return known._replace(payload=(int.from_bytes(_BAD_GATEWAY), known.payload[1]))


class _Frames(Connection):
    """The frames of a WebSocket, on the server's side, after the handshake."""

    def __init__(self) -> None:
        super().__init__(ConnectionType.SERVER)
        self._proto = _FrameProtocol(client=False, extensions=[])

    def close(self) -> None:
        """Read no more frames: the reader and its generator would keep each other in memory."""
        parser = getattr(self._proto, "_parse_more", None)
        if parser is not None:
            parser.close()


_TRY_AGAIN_LATER, _BAD_GATEWAY = (1013).to_bytes(2), (1014).to_bytes(2)


def _text_frame(payload: bytes) -> bytes:
    """Encode one whole text message (§5.2); a server does not mask."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload
