"""DTLS 1.2 client: carries the datagrams of an inner protocol to one server (RFC 6347)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.dtls.errors import DtlsEnded, DtlsError, DtlsFailed
from twisted_net.dtls.records import protected_records
from twisted_net.dtls.session import DtlsSession
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.net.addresses import Source, format_address
from twisted_net.net.steady_clock import steady


@check_arguments
class DtlsClient(DatagramProtocol):
    """
    A DTLS session with one server on a socket of its own, and the transport of *inner*.

    *inner* is connected once the server's certificate has been verified: signed by a trusted
    authority, and issued for the server's name. Open its port with
    ``reactor.listenUDP(0, client)`` and wait for :meth:`connected`; call :meth:`close` before
    closing the port. At most one timer runs.

    :param reactor: the clock.
    :param inner: a protocol that no other transport uses. It receives and may send datagrams of
        *address* only; one that is too long for the MTU raises
        :class:`~twisted.internet.error.MessageLengthError`.
    :param context: made by :func:`~twisted_net.dtls.session.client_context`.
    :param settings: the settings from which the context was made.
    :param address: numeric host and port of the server.
    :param name: the server's name, for which its certificate must be valid.
    :param numeric: whether the name is an IP address.
    :param lost: called with the reason when the session ends, except by :meth:`close`.
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
        lost: Callable[[DtlsError], None] | None = None,
    ) -> None:
        self._reactor = steady(reactor)
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
        self._failure: DtlsError | None = None
        self._waiting: list[Deferred[None]] = []

    # --- what Twisted calls ---

    @override
    def startProtocol(self) -> None:
        port = self._port = self.transport
        assert port is not None
        try:
            # The kernel then drops datagrams of other sources, and reports a closed port (ICMP).
            port.connect(*self._address)
        except OSError as error:
            self._end(DtlsFailed(f"cannot reach {self._address[0]}: {error.strerror}"))
            return
        now = self._reactor.seconds()
        self._deadline = now + self._settings.handshake_timeout
        self._session.connect("" if self._numeric else self._name, now)
        self._flush()
        self._set_timer(now)

    @override
    def stopProtocol(self) -> None:
        # close() is called before a port is stopped on purpose. The epoll reactor closes a
        # connected socket on ICMP "port unreachable"; other reactors call connectionRefused.
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
                self._verify_server()
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

        :raises MessageLengthError: if it is empty or too long for the MTU.
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
        """Return the address of the socket."""
        assert self._port is not None
        return self._port.getHost()

    def stopListening(self) -> Any:  # Any: a Deferred or None, as Twisted's own
        """Close the session and the socket."""
        self.close()
        assert self._port is not None
        return self._port.stopListening()

    # --- what others ask for ---

    @property
    def max_payload(self) -> int:
        """Longest datagram that can be sent, in bytes; 0 until connected."""
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
        """End the session with a close_notify; idempotent."""
        if self._failure is None:
            self._session.close()
            self._flush()
            self._lost = None
            self._end(DtlsEnded())

    # --- the rest ---

    def _refused(self) -> None:
        if self._open:
            # A restarted server does not know this session.
            self._end(DtlsEnded())
        else:
            self._end(DtlsFailed(f"nobody listens at {format_address(*self._address)}"))

    def _waiting_cancelled(self, waiting: Deferred[None]) -> None:
        self._waiting.remove(waiting)
        waiting.errback(CancelledError())

    def _verify_server(self) -> None:
        """
        Verify the server's name, then connect the inner protocol.

        A server that has our pre-shared key has no certificate and needs no name.

        :raises DtlsFailed: if the certificate is for another name; the session is closed.
        """
        if self._settings.verify and not self._settings.psk:
            try:
                self._session.check_name(self._name, self._numeric)
            except DtlsFailed:
                self._session.close()
                raise
        self._open = True
        # Any: Twisted's transports have methods that do not apply here, such as connect().
        self._inner.makeConnection(cast(Any, self))
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def _end(self, failure: DtlsError) -> None:
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
        for deferred in waiting:
            deferred.errback(failure)
        if self._lost is not None:
            self._lost(failure)

    def _flush(self) -> None:
        for datagram in self._session.datagrams():
            if self._port is not None:
                # A datagram that the kernel rejects counts as lost; DTLS retransmits.
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
            self._timer = self._reactor.callLater(max(0.0, due - now), self._on_timer)

    def _on_timer(self) -> None:
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
