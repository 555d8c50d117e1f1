"""The client's side of DTLS 1.2, in front of a datagram protocol (RFC 6347)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.dtls.errors import DtlsEnded, DtlsFailed
from twisted_net.dtls.records import protected_records
from twisted_net.dtls.session import DtlsSession
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source, format_address


class DtlsClient(DatagramProtocol):
    """
    Speaks DTLS with one server on a socket of its own; *inner* gets and sends the datagrams in it.

    *inner* has its transport once the server's certificate was found to be signed by somebody who
    is believed, and to be for the server's name. Give it a port by ``reactor.listenUDP(0, client)``
    and wait for :meth:`connected`; call :meth:`close` before the port is closed. One timer at most
    runs.

    :param reactor: tells the time and calls later.
    :param inner: a protocol of its own; its datagrams come from *address*, to which alone it may
        write. One that is longer than the MTU lets through raises
        :class:`~twisted.internet.error.MessageLengthError`.
    :param context: made by :func:`~twisted_net.dtls.session.client_context`.
    :param settings: those of which the context was made.
    :param address: of the server: a numeric host, and a port.
    :param name: the server's, which its certificate must be for.
    :param numeric: whether the name is an address.
    :param lost: told of the end of the session, and why, unless :meth:`close` was its end.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        inner: DatagramProtocol,
        context: SSL.Context,
        settings: DtlsClientSettings,
        address: Source,
        name: str,
        numeric: bool = False,
        lost: Callable[[CoapError], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._inner = inner
        self._settings = settings
        self._address = address
        self._name = name
        self._numeric = numeric
        self._lost = lost
        self._session = DtlsSession(SSL.Connection(context, None), settings.mtu)
        self._deadline = 0.0
        self._timer: IDelayedCall | None = None
        self._port: IUDPTransport | None = None
        self._open = False
        self._failure: CoapError | None = None
        self._waiting: list[Deferred[None]] = []

    # --- what Twisted calls ---

    @override
    def startProtocol(self) -> None:
        port = self._port = self.transport
        assert port is not None
        try:
            # The kernel then keeps away what others send, and tells where nobody listens.
            port.connect(*self._address)
        except OSError as error:
            self._end(DtlsFailed(f"cannot reach {self._address[0]}: {error.strerror}"))
            return
        now = self._reactor.seconds()
        self._deadline = now + self._settings.handshake_timeout
        self._session.greet("" if self._numeric else self._name, now)
        self._flush()
        self._set_timer(now)

    @override
    def stopProtocol(self) -> None:
        # Who stops the port says so by close() first. The epoll reactor closes a connected socket
        # when its peer's machine says that nobody listens; the others call connectionRefused.
        if self._failure is None:
            self._refused()
        self._port = None

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        if self._failure is not None:
            return
        now = self._reactor.seconds()
        if self._open:
            datagram = protected_records(datagram)
        try:
            payloads = self._session.receive(datagram, now)
            if self._session.established and not self._open:
                self._check_server()
        except DtlsFailed as error:
            self._flush()
            self._end(error)
            return
        self._flush()
        self._set_timer(now)
        for payload in payloads:
            if self._open:
                self._inner.datagramReceived(payload, self._address)
        if self._session.ended:
            self._end(DtlsEnded())

    @override
    def connectionRefused(self) -> None:
        self._refused()

    # --- what the inner protocol calls, as its transport ---

    def write(self, datagram: bytes, addr: Source | None = None) -> None:
        """
        Send a datagram to the server.

        :raises MessageLengthError: where it is empty, or longer than the MTU lets through.
        """
        if not self._open:
            return
        try:
            self._session.send(datagram)
        except DtlsFailed as error:
            self._end(error)
            return
        self._flush()

    def getHost(self) -> Any:  # Any: as Twisted's own
        """Give the address of the socket."""
        assert self._port is not None
        return self._port.getHost()

    def stopListening(self) -> Any:  # Any: a Deferred or None, as Twisted's own
        """Close the socket; the server is told."""
        self.close()
        assert self._port is not None
        return self._port.stopListening()

    # --- what others ask for ---

    @property
    def max_payload(self) -> int:
        """Bytes of the longest datagram that can be sent; 0 until it is connected."""
        return self._session.max_payload

    def connected(self) -> Deferred[None]:
        """
        Wait for the end of the handshake.

        :return: fails with :class:`~twisted_net.dtls.errors.DtlsFailed`, or ``DtlsEnded``.
        """
        waiting: Deferred[None] = Deferred(self._waiting_cancelled)
        if self._failure is not None:
            waiting.errback(self._failure)
        elif self._open:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def close(self) -> None:
        """End the session; the server is told (close_notify). Twice does no harm."""
        if self._failure is None:
            self._session.close()
            self._flush()
            self._lost = None
            self._end(DtlsEnded())

    # --- the rest ---

    def _refused(self) -> None:
        if self._open:
            # A server that comes back knows nothing of it.
            self._end(DtlsEnded())
        else:
            self._end(DtlsFailed(f"nobody listens at {format_address(*self._address)}"))

    def _waiting_cancelled(self, waiting: Deferred[None]) -> None:
        self._waiting.remove(waiting)
        waiting.errback(CancelledError())

    def _check_server(self) -> None:
        """
        Begin to carry datagrams, if the server is the right one.

        :raises DtlsFailed: where it is not; it is told that nothing follows.
        """
        if self._settings.verify:
            try:
                self._session.check_name(self._name, self._numeric)
            except DtlsFailed:
                self._session.close()
                raise
        self._open = True
        # Any: Twisted's transports have methods that make no sense here, such as connect().
        self._inner.makeConnection(cast(Any, self))
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def _end(self, failure: CoapError) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        if self._session.ended:
            # The peer's close_notify is answered with ours (RFC 5246 §7.2.1).
            self._session.close()
            self._flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open:
            self._open = False
            self._inner.doStop()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(failure)
        if self._lost is not None:
            self._lost(failure)

    def _flush(self) -> None:
        for datagram in self._session.datagrams():
            if self._port is not None:
                # What the kernel does not take is lost, as it may be on any network.
                with contextlib.suppress(OSError):
                    self._port.write(datagram, None)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._session.due
        if not self._open:
            due = self._deadline if due is None else min(due, self._deadline)
        if due is not None and self._failure is None:
            self._timer = self._reactor.callLater(max(0.0, due - now), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        if not self._open and now >= self._deadline:
            seconds = self._settings.handshake_timeout
            self._end(DtlsFailed(f"no handshake within {seconds:g} seconds"))
            return
        try:
            self._session.retransmit(now)
        except DtlsFailed as error:
            self._end(error)
            return
        self._flush()
        self._set_timer(now)
