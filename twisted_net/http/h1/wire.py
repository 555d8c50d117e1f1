"""Wire: one connection of HTTP/1.1 to a server or a proxy, with one exchange at a time."""

from __future__ import annotations

from errno import EWOULDBLOCK
from math import inf
from socket import MSG_PEEK
from typing import Any, Protocol, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport, ITransport
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Client
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from typing_extensions import override

from twisted_net.http.bodies import BodyResponse, BytesProducer
from twisted_net.http.calls.upload import in_pieces
from twisted_net.http.h1.exchange import Exchange, ExchangeLimits, Expectation
from twisted_net.http.h1.prompt_send import send_promptly
from twisted_net.http.h1.timeouts import ExchangeTimeouts, Timed
from twisted_net.http.origins import OriginState
from twisted_net.http.proxies import Proxy
from twisted_net.http.urls import HttpTarget
from twisted_net.turns.turn_scheduler import TurnScheduler

CLOSE_TIMEOUT = 1.0
"""Seconds for an idle connection to be closed; what takes longer is dropped."""

_PEEKED = 4096
"""Bytes of those that wait on an idle connection that are looked at."""

MAX_COPIED = 2**14
"""Bytes of a body up to which it is copied behind its head, to be sent in one piece."""


class WireOwner(Protocol):
    """
    What keeps wires: the pool.

    :ivar timeouts: of all exchanges.
    :ivar turns: of all connections.
    :ivar max_head: bytes of a response's head.
    """

    timeouts: ExchangeTimeouts
    turns: TurnScheduler
    max_head: int

    def seconds(self) -> float:
        """Return the time of a steady clock."""
        ...

    def opened(self, wire: Wire) -> None:
        """Note that a connection is open."""

    def idle(self, wire: Wire) -> None:
        """Note that a wire may take another request."""

    def ended(self, wire: Wire) -> None:
        """Note that a wire takes no more requests; its connection ends."""

    def lost(self, wire: Wire) -> None:
        """Note that the connection is lost."""


class WireExchange(Timed, Protocol):
    """One request over a wire, and its response."""

    def received(self, data: bytes) -> None:
        """Take what the connection has read."""
        ...

    def lost(self, reason: Failure) -> None:
        """Note that the connection is lost."""
        ...


_READ_SIZE = FileDescriptor.bufferSize
"""Bytes that Twisted's transports read at once: 64 KiB."""

_LARGE_READ_SIZE = 2**18
"""
Bytes that are read at once on a connection that has brought as many as could be read before.

Each read costs a turn of the reactor. asyncio reads as many.
"""


class Wire(StreamProtocol):
    """
    One connection.

    :param owner: hears when it is idle, and when it is lost.
    :param origin: where it leads.
    :param proxy: the proxy that gets whole requests; None where they are sent to the server itself,
        directly or in a tunnel.
    :ivar exchange: what it does, or None if it is idle.
    :ivar holds_slot: whether it holds the slot of a request, which its owner releases when it is
        idle or lost.
    :ivar due: when its end takes too long.
    """

    def __init__(self, owner: WireOwner, origin: OriginState, proxy: Proxy | None = None) -> None:
        self.owner = owner
        self.origin = origin
        self.proxy = proxy
        self.exchange: WireExchange | None = None
        self.holds_slot = False
        self.due = inf
        self._is_secure = False  # with TLS
        self._reads_much = False  # in this exchange

    @override
    def connectionMade(self) -> None:
        self._is_secure = ISSLTransport.providedBy(self.transport)
        self.owner.opened(self)

    def send(
        self,
        method: str,
        head: bytes,
        body: IBodyProducer | None,
        limits: ExchangeLimits,
        *,
        closes: bool = False,
        expectation: Expectation | None = None,
        target: HttpTarget | None = None,
    ) -> Deferred[BodyResponse]:
        """
        Send a request.

        :param head: of the request, with the framing of its body.
        :param closes: whether it says that the connection is closed after the response.
        :param expectation: of *body*, if the head has one; then it waits for a 100.
        :param target: of the request, for the errors of its body; None if it is not known.
        :return: fires with the response, when its header has come; it is a
            :class:`~twisted_net.http.bodies.BufferedResponse` where the whole has come at once.
            Fails with a :class:`~twisted_net.errors.FetchError`, or with the error of *body*.
            Cancelling it drops the connection.
        """
        exchange = self.exchange = Exchange(self, method, limits, closes=closes, target=target)
        transport = self.transport
        assert transport is not None
        if body is None:
            send_promptly(transport, head)
        elif expectation is not None:
            transport.write(head)
            exchange.hold(in_pieces(body), transport, expectation)
        elif type(body) is BytesProducer and body.length <= MAX_COPIED:
            send_promptly(transport, head + body.content)
        else:
            transport.write(head)
            exchange.upload(in_pieces(body), transport)
        return exchange.answered

    def begin(self, exchange: WireExchange, head: bytes) -> None:
        """
        Send a request at once, whose response *exchange* reads.

        :param head: of the request, with its body.
        """
        self.exchange = exchange
        self.owner.timeouts.add(exchange)
        assert self.transport is not None
        send_promptly(self.transport, head)

    @override
    def dataReceived(self, data: bytes) -> None:
        if len(data) >= _READ_SIZE:
            self._read_more()
        exchange = self.exchange
        if exchange is None:
            # No request was sent: an error page before the server closes, or an attack.
            self.abort()
        else:
            exchange.received(data)

    def _read_more(self) -> None:
        """
        Read more at once in this exchange and the next: all that could be read at once was there.

        The next one may be as large; after a small one less is read again, as that costs less.
        """
        transport: Any = self.transport  # Any: one with a buffer, or another
        if self.exchange is not None and type(transport) is Client and not transport.TLS:
            transport.bufferSize = _LARGE_READ_SIZE
            self._reads_much = True

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.owner.timeouts.discard(self)
        # First: a caller that hears of the loss may make its next request at once.
        self.owner.lost(self)
        if self.exchange is not None:
            self.exchange.lost(reason)

    def pause(self, paused: bool) -> None:
        """Do not read, or read on."""
        transport = cast(Any, self.transport)  # Any: of TCP and TLS, in no common interface
        if paused:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def release(self, *, reusable: bool) -> None:
        """The response has been read: the next exchange may begin, or else the connection ends."""
        self.exchange = None
        transport: Any = self.transport  # Any: as above
        if self._reads_much:
            self._reads_much = False
        elif type(transport) is Client and transport.bufferSize != _READ_SIZE:
            transport.bufferSize = _READ_SIZE
        if reusable:
            self.owner.idle(self)
        else:
            self.abort()

    def peer_ended(self) -> bool:
        """
        Whether the kernel knows, and the reactor has not said yet, that an idle connection ended.

        A server that closes after each response, without a word, would lose each second request.
        Over TLS what waits may be a session ticket, say, which is no end; an alert is.
        """
        transport: Any = self.transport  # Any: as above
        secure = self._is_secure
        below = transport.transport if secure else transport
        try:
            waiting = below.getHandle().recv(_PEEKED, MSG_PEEK)
        except AttributeError:
            return True  # Twisted takes the socket from a connection that is lost
        except OSError as error:
            # One that has got close_notify is disconnecting, and the reactor says so in a turn.
            ended = error.errno != EWOULDBLOCK or below.disconnecting
            return ended or (secure and transport.is_ending())
        return not (secure and waiting) or transport.is_ending(waiting)

    def close(self) -> None:
        """End a connection that is idle, as its peer expects it to end."""
        owner = self.owner
        owner.ended(self)
        # Over TLS its peer has to answer.
        self.due = owner.seconds() + CLOSE_TIMEOUT
        owner.timeouts.add(self)
        cast(ITransport, self.transport).loseConnection()

    def expire(self, now: float) -> None:
        """Its end has taken too long."""
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once: a silent server might never answer a TLS close."""
        self.owner.timeouts.discard(self)
        self.owner.ended(self)
        cast(Any, self.transport).abortConnection()  # Any: as above
