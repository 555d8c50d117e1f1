"""Wire: one connection of HTTP/1.1 to a server or a proxy, with one exchange at a time."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EWOULDBLOCK
from math import inf
from socket import MSG_PEEK
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport, ITransport
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from typing_extensions import override

from twisted_net.http.bodies import BodyResponse, BytesProducer
from twisted_net.http.calls.upload import PIECE, PieceProducer
from twisted_net.http.h1.exchange import Exchange, ExchangeLimits
from twisted_net.http.h1.timeouts import ExchangeTimeouts
from twisted_net.http.proxies import Proxy
from twisted_net.http.urls import Origin
from twisted_net.turns.turn_scheduler import TurnScheduler

CLOSE_TIMEOUT = 1.0
"""Seconds for an idle connection to be closed; what takes longer is dropped."""

_COPIED = 2**14
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

    def __init__(self, owner: WireOwner, origin: Origin, proxy: Proxy | None = None) -> None:
        self.owner = owner
        self.origin = origin
        self.proxy = proxy
        self.exchange: Exchange | None = None
        self.holds_slot = False
        self.due = inf

    @override
    def connectionMade(self) -> None:
        self.owner.opened(self)

    def send(
        self,
        method: str,
        head: bytes,
        body: IBodyProducer | None,
        limits: ExchangeLimits,
        *,
        closes: bool = False,
    ) -> Deferred[BodyResponse]:
        """
        Send a request.

        :param head: of the request, with the framing of its body.
        :param closes: whether it says that the connection is closed after the response.
        :return: fires with the response, when its header has come; it is a
            :class:`~twisted_net.http.bodies.BufferedResponse` where the whole has come at once.
            Fails with a :class:`~twisted_net.errors.FetchError`, or with the error of *body*.
            Cancelling it drops the connection.
        """
        exchange = self.exchange = Exchange(self, method, limits, closes=closes)
        transport = cast(ITransport, self.transport)
        if body is None:
            transport.write(head)
        elif type(body) is BytesProducer and body.length <= _COPIED:
            transport.write(head + body.content)
        else:
            transport.write(head)
            if type(body) is BytesProducer and body.length > PIECE:
                # As the server takes it: its time limit is for silence, not for the whole.
                body = PieceProducer(_pieces(body.content), body.length)
            exchange.upload(body, transport)
        return exchange.answered

    @override
    def dataReceived(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # No request was sent: an error page before the server closes, or an attack.
            self.abort()
        else:
            exchange.received(data)

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
        if reusable:
            self.owner.idle(self)
        else:
            self.abort()

    def peer_ended(self) -> bool:
        """
        Whether the kernel knows, and the reactor has not said yet, that an idle connection ended.

        A server that closes after each response, without a word, would lose each second request.
        Over TLS what waits may be a session ticket, or an alert: only a bare end is told from them.
        """
        transport = cast(Any, self.transport)  # Any: as above
        secure = ISSLTransport.providedBy(transport)
        handle = (transport.transport if secure else transport).getHandle()
        try:
            waiting = handle.recv(1, MSG_PEEK)
        except OSError as error:
            return error.errno != EWOULDBLOCK
        return not (secure and waiting)

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


def _pieces(content: bytes) -> Iterator[bytes]:
    """Cut a body in memory into pieces."""
    return (content[at : at + PIECE] for at in range(0, len(content), PIECE))
