"""Paced TLS: what a server sends to a client is decrypted piece by piece, in the turns of all."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from typing_extensions import override
from zope.interface import implementer

from twisted_net.net.reactor import Reactor
from twisted_net.turns.paced_reads import Pace, PacedProtocol
from twisted_net.turns.tls_records import RecordCutter


@implementer(IStreamClientEndpoint)
class PacedTlsEndpoint:
    """
    Connects with TLS.

    :param endpoint: makes the connection below.
    :param creator: makes the connection of OpenSSL.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        creator: IOpenSSLClientConnectionCreator,
        reactor: Reactor,
    ) -> None:
        self._endpoint = endpoint
        self._creator = creator
        self._reactor = reactor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = paced_tls_factory(self._creator, protocolFactory, self._reactor)
        return self._endpoint.connect(factory).addCallback(within_tls)


def paced_tls_factory(
    creator: IOpenSSLClientConnectionCreator, factory: IProtocolFactory, reactor: Reactor
) -> Factory:
    """Return a factory of what is connected: it paces the reads of TLS around a protocol."""
    # Without a clock it would use the global reactor.
    return _PacedTlsFactory(TLSMemoryBIOFactory(creator, True, factory, reactor), Pace.of(reactor))


def within_tls(protocol: IProtocol) -> IProtocol:
    """Return the protocol within TLS."""
    tls = cast(PacedProtocol, protocol).inner
    return cast("IProtocol", cast(Any, tls).wrappedProtocol)  # Any: in no interface


class _PacedTlsFactory(Factory):
    noisy = False

    def __init__(self, tls: TLSMemoryBIOFactory, pace: Pace) -> None:
        self._tls = tls
        self._pace = pace

    @override
    def buildProtocol(self, addr: IAddress | None) -> PacedProtocol:
        tls = self._tls.buildProtocol(cast(IAddress, addr))
        assert tls is not None
        return PacedProtocol(self._pace, RecordCutter(), tls)
