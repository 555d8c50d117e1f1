"""Tunnel through a proxy (CONNECT, RFC 9110 §9.3.6): opens it, then carries another protocol."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.http.errors import ProxyFailed
from twisted_net.http.proxies import tunnel_opened


class Tunnel(Protocol):
    """
    Asks a proxy for a tunnel, and then passes what it receives to the protocol inside.

    :param host: to which the tunnel leads, for errors.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._answer = b""
        self._opening: Deferred[None] | None = None
        self._inner: IProtocol | None = None

    def open(self, request: bytes) -> Deferred[None]:
        """
        Send *request*, once; fires when the tunnel is open. Cancelling drops the connection.

        It fails with ``ProxyFailed`` of :mod:`twisted_net.http.errors`; the connection is dropped
        then too.
        """
        self._opening = Deferred(lambda _: self._cancel())
        cast(ITransport, self.transport).write(request)
        return self._opening

    def attach(self, inner: IProtocol) -> None:
        """Connect *inner* through the open tunnel; the loss of the connection is passed on too."""
        self._inner = inner
        inner.makeConnection(cast(ITransport, self.transport))

    def abort_connection(self) -> None:
        """Drop the connection."""
        cast(Any, self.transport).abortConnection()  # Any: in no interface that mypy knows

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        opening = self._opening
        if opening is None:
            self.abort_connection()  # data before the request, or after it was cancelled
            return
        self._answer += data
        try:
            if not tunnel_opened(self._answer, self._host):
                return
        except ProxyFailed as error:
            self._cancel()
            opening.errback(error)
            return
        self._opening = None
        opening.callback(None)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif self._opening is not None:
            opening, self._opening = self._opening, None
            opening.errback(ProxyFailed(self._host, "it closed the connection"))

    def _cancel(self) -> None:
        self._opening = None
        self.abort_connection()
