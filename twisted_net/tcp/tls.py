"""Speaks TLS in front of another factory, which hears of a client when its handshake is done."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.net.certificates import Certificates, user_of
from twisted_net.tcp.handshakes import Handshakes


class TlsFactory(TLSMemoryBIOFactory):
    """
    The server's side of TLS.

    The protocols of *inner* are built after the handshake, which Twisted itself does before: a
    client that never finishes it is no session, and gets no broadcast. Their transport has an
    ``identity``: the user whose certificate the client proved to have, or None.

    :param inner: whose protocols get the connections.
    :param certificates: what the server proves to be.
    :param handshakes: bounds those that are under way.
    :param clock: its turns gather small writes into one record.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        certificates: Certificates,
        handshakes: Handshakes,
        clock: IReactorTime,
    ) -> None:
        super().__init__(certificates, False, _Gates(inner, handshakes), clock)


class _Gates(Factory):
    noisy = False

    def __init__(self, inner: IProtocolFactory, handshakes: Handshakes) -> None:
        self.inner = inner
        self.handshakes = handshakes

    @override
    def startFactory(self) -> None:
        self.inner.doStart()

    @override
    def stopFactory(self) -> None:
        self.inner.doStop()

    @override
    def buildProtocol(self, addr: object) -> Protocol:
        return _Gate(self)


@implementer(IHandshakeListener)
class _Gate(Protocol):
    """Stands in for the real protocol while the handshake goes on."""

    log = Logger()
    transport: Any  # a TLSMemoryBIOProtocol, which has few types

    def __init__(self, gates: _Gates) -> None:
        self._gates = gates

    @override
    def connectionMade(self) -> None:
        self._gates.handshakes.began(self)

    def handshakeCompleted(self) -> None:
        """Let the client in."""
        self._gates.handshakes.succeeded(self)
        tls = self.transport
        certificate = tls.getHandle().get_peer_certificate(as_cryptography=True)
        tls.identity = None if certificate is None else user_of(certificate)
        inner = self._gates.inner.buildProtocol(tls.getPeer())
        if inner is None:
            self.abort()
            return
        # All that follows is the other protocol's, without a detour over this one.
        tls.wrappedProtocol = inner
        inner.makeConnection(tls)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(SSL.Error):
            self.log.debug("handshake failed: {reason}", reason=reason.value)
        self._gates.handshakes.lost(self)

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()
