"""TLS on the server's side: another factory gets the connection once its handshake is done."""

from __future__ import annotations

from functools import cache
from typing import Any

from OpenSSL import SSL
from twisted.copyright import version as twisted_version
from twisted.internet.interfaces import IHandshakeListener, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.certificates import Certificates, identity_in
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.reasons import End
from twisted_net.tcp.handshakes import HandshakeFactory, Handshakes
from twisted_net.tcp.tls_transport import GrownBuffers, TlsTransport
from twisted_net.turns.steps import END
from twisted_net.turns.turn_scheduler import turns_of
from twisted_net.twisted_internals import tls_transport_changes

_log = Logger()


@check_arguments
class TlsFactory(TLSMemoryBIOFactory):
    """
    The server's side of TLS.

    The protocols of *inner* are built after the handshake; Twisted itself builds them before. So a
    client that never finishes it has no session and gets no broadcast. The transport of a protocol
    has an ``identity``: the user that the client's certificate names, or None.

    :param inner: its protocols get the connections.
    :param certificates: selects the server's certificate.
    :param handshakes: limits those that are under way.
    :param clock: small writes of one turn are joined into one record.
    :param memory: counts what each connection takes; a ledger of its own if None.
    :ivar kept: what each takes.
    :ivar grown: the connections whose buffers are to be released.
    :ivar turns: where records wait that are not decrypted yet.
    :ivar seconds: a steady clock, for durations.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        certificates: Certificates,
        handshakes: Handshakes,
        clock: IReactorTime,
        memory: MemoryLedger | None = None,
    ) -> None:
        clock = steady(clock)
        self._handshakes = handshakes
        self.kept: MemoryAccount[TlsTransport] = (memory or MemoryLedger()).account(
            "tls", relieve=self._relieve, last=True
        )
        super().__init__(certificates, False, _TlsHandshakeFactory(inner, handshakes), clock)
        self.grown = GrownBuffers(clock)
        self.turns = turns_of(clock)
        self.seconds = stopwatch(clock)
        if _known():
            self.protocol = TlsTransport

    def _relieve(self, transport: TlsTransport) -> float:
        """End a connection, as all hold too much; return the share of a step that this takes."""
        self.kept.set(transport, 0)
        if transport.opening:
            self._handshakes.failed(transport.wrappedProtocol, End.BUFFERS_FULL)
        else:
            transport.end(End.BUFFERS_FULL)
        return END


class _TlsHandshakeFactory(HandshakeFactory):
    @override
    def buildProtocol(self, addr: object) -> Protocol:
        return _TlsHandshake(self)


@implementer(IHandshakeListener)
class _TlsHandshake(Protocol):
    """The protocol of a connection until its TLS handshake is done."""

    transport: Any  # a TLSMemoryBIOProtocol, which has few types

    def __init__(self, factory: _TlsHandshakeFactory) -> None:
        self._factory = factory

    @override
    def connectionMade(self) -> None:
        self._factory.handshakes.began(self)

    def handshakeCompleted(self) -> None:
        """Hand the connection to a protocol of the inner factory."""
        self._factory.handshakes.succeeded(self)
        tls = self.transport
        certificate = tls.getHandle().get_peer_certificate(as_cryptography=True)
        tls.identity = identity_in(certificate)
        inner = self._factory.inner.buildProtocol(tls.getPeer())
        if inner is None:
            self.abort()
            return
        # What follows goes to that protocol directly, not through this one.
        tls.wrappedProtocol = inner
        inner.makeConnection(tls)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(SSL.Error):
            self._factory.log.debug("handshake failed: {reason}", reason=reason.value)
        self._factory.handshakes.lost(self)

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()


@cache
def _known() -> bool:
    """Return whether :class:`TlsTransport` fits the installed Twisted; log it once if not."""
    if changes := tls_transport_changes():
        _log.warn(
            "TLS with halves of its own does not support Twisted {version}; a client that ends its "
            "half is not answered any more; changed methods: {changes}",
            version=twisted_version,
            changes=", ".join(changes),
        )
    return not changes
