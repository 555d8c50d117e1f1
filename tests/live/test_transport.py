"""The transport that sends at once, over real sockets."""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    connectProtocol,
    serverFromString,
)
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.tcp import makeBinding
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.patience import PATIENCE
from tests.tcp.issuing import Authority
from twisted_net.tcp.transport import FastTransport, listen_tcp

SIZE = 10_000_000
"""Bytes: more than the buffers of the kernel take."""


class Party(Protocol):
    """One side of a connection: keeps what it receives, and why the connection ended."""

    transport: Any  # Any: a transport of TCP or TLS

    def __init__(self) -> None:
        self.received = b""
        self.reason: Failure | None = None
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self._tell()

    def _tell(self) -> None:
        ready = [(holds, deferred) for holds, deferred in self._waiting if holds()]
        for item in ready:
            self._waiting.remove(item)
            item[1].callback(None)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something to become true of this side."""
        if not holds():
            deferred: Deferred[None] = Deferred()
            self._waiting.append((holds, deferred))
            await deferred

    async def lost(self) -> Failure:
        """Wait for the end."""
        await self.until(lambda: self.reason is not None)
        assert self.reason is not None
        return self.reason


class Echo(Party):
    """Sends back what it receives, in two writes."""

    def dataReceived(self, data: bytes) -> None:
        half = len(data) // 2
        self.transport.write(data[:half])
        self.transport.write(data[half:])
        super().dataReceived(data)


class Server:
    """A port, and the protocols that it made."""

    def __init__(self, made: Callable[[], Party]) -> None:
        self.protocols: list[Party] = []
        self.factory = Factory()
        self.factory.protocol = self._build
        self._made = made

    def _build(self) -> Party:
        protocol = self._made()
        self.protocols.append(protocol)
        return protocol

    async def connect(self, reactor: Any, port: Any) -> Party:  # Any: as in conftest
        """Connect a client to a port."""
        address = port.getHost()
        kind = TCP6ClientEndpoint if ":" in address.host else TCP4ClientEndpoint
        client: Party = await connectProtocol(kind(reactor, address.host, address.port), Party())
        return client


def listen(
    reactor: Any,  # Any: as in conftest
    factory: Any,  # Any: a Factory, or what wraps one
    port: Any = 0,  # Any: a number or a Binding
    interface: str = "127.0.0.1",
) -> Any:  # Any: IListeningPort promises less than each of its addresses has
    """Listen on a port of 127.0.0.1."""
    return listen_tcp(reactor, port, factory, interface=interface)


@asynccontextmanager
async def connected(
    reactor: Any,  # Any: as in conftest
    made: Callable[[], Party] = Echo,
    interface: str = "127.0.0.1",
) -> AsyncIterator[tuple[Party, Any]]:
    """Serve protocols, and give a client with the protocol that serves it; then end both."""
    server = Server(made)
    port = listen(reactor, server.factory, interface=interface)
    client = await server.connect(reactor, port)
    try:
        client.transport.write(b"hello")
        await client.until(lambda: client.received == b"hello")
        yield client, server.protocols[0]
    finally:
        client.transport.loseConnection()
        await client.lost()
        await server.protocols[0].lost()
        await port.stopListening()


async def test_echo(reactor: Any) -> None:
    """A round trip; the transport is ours; TCP_NODELAY is on, and can be set off."""
    async with connected(reactor) as (_, served):
        assert type(served.transport) is FastTransport
        assert served.transport.getTcpNoDelay()
        served.transport.setTcpNoDelay(False)
        assert not served.transport.getTcpNoDelay()


async def test_ipv6(reactor: Any) -> None:
    """The same over IPv6."""
    async with connected(reactor, interface="::1") as (client, served):
        assert served.transport.getPeer().host == "::1"
        assert served.transport.getPeer().port == client.transport.getHost().port


async def test_bulk(reactor: Any) -> None:
    """Ten megabytes there and back arrive whole and in order."""
    data = b"".join(struct.pack("<I", i) for i in range(SIZE // 4))
    async with connected(reactor) as (client, _):
        client.transport.write(data)
        await client.until(lambda: len(client.received) == SIZE + 5)
        assert hashlib.sha256(client.received[5:]).digest() == hashlib.sha256(data).digest()


async def test_many_writes(reactor: Any) -> None:
    """A hundred thousand small writes of one turn arrive in order, and then the end."""
    async with connected(reactor) as (client, served):
        for i in range(100_000):
            served.transport.write(b"%06d" % i)
        served.transport.loseConnection()
        await client.lost()
        assert client.received[5:] == b"".join(b"%06d" % i for i in range(100_000))


async def test_reset(reactor: Any) -> None:
    """A client that resets the connection while we write is a loss, told by the reactor."""
    server = Server(Echo)
    port = listen(reactor, server.factory)
    client = await server.connect(reactor, port)
    client.transport.write(b"x")
    await client.until(lambda: client.received == b"x")
    client.transport.abortConnection()
    await client.lost()
    (served,) = server.protocols
    served.transport.write(b"too late")
    assert served.reason is None
    assert (await served.lost()).check(ConnectionLost)
    served.transport.write(b"much too late")
    await port.stopListening()


async def test_clean_end(reactor: Any) -> None:
    """A client that hangs up is no loss."""
    async with connected(reactor) as (client, served):
        client.transport.loseConnection()
        assert (await served.lost()).check(ConnectionDone)


def certificate() -> PrivateCertificate:
    """Make a certificate for localhost."""
    chain, key = Authority().issue("localhost")
    made: PrivateCertificate = PrivateCertificate.loadPEM(chain + key)
    return made


async def test_tls_above(reactor: Any) -> None:
    """TLS above the transport: a round trip and bulk."""
    server = Server(Echo)
    tls = TLSMemoryBIOFactory(certificate().options(), False, server.factory, reactor)
    port = listen(reactor, tls)
    client = Party()
    wrapped = TLSMemoryBIOFactory(
        CertificateOptions(), True, Factory.forProtocol(lambda: client), reactor
    )
    await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(wrapped)
    data = bytes(range(256)) * (SIZE // 2560)
    client.transport.write(data)
    await client.until(lambda: len(client.received) == len(data))
    assert client.received == data
    client.transport.loseConnection()
    await client.lost()
    await server.protocols[0].lost()
    await port.stopListening()


class Upgrading(Echo):
    """Speaks plainly, until it is told to speak TLS; answers each chunk in capitals."""

    def dataReceived(self, data: bytes) -> None:
        if data == b"STARTTLS":
            self.transport.write(b"GO")
            self.transport.startTLS(certificate().options())
        else:
            super().dataReceived(data)


async def test_starttls(reactor: Any) -> None:
    """TLS within the transport: the last plain words leave plain, all after them encrypted."""
    async with connected(reactor, Upgrading) as (client, served):
        client.transport.write(b"STARTTLS")
        await client.until(lambda: client.received == b"helloGO")
        client.transport.startTLS(CertificateOptions())
        client.transport.write(b"secret")
        await client.until(lambda: client.received == b"helloGOsecret")
        assert isinstance(served.transport.getHandle(), SSL.Connection)


async def test_port_taken(reactor: Any) -> None:
    """A port that is taken is told before the call returns, with the reason."""
    port = listen(reactor, Factory.forProtocol(Echo))
    with pytest.raises(CannotListenError, match="in use"):
        listen(reactor, Factory.forProtocol(Echo), port.getHost().port)
    await port.stopListening()


async def test_shared_port(reactor: Any) -> None:
    """A binding with reusePort lets two listen on one port."""
    first = listen(reactor, Factory.forProtocol(Echo), makeBinding("127.0.0.1", 0, reusePort=True))
    binding = makeBinding("127.0.0.1", first.getHost().port, reusePort=True)
    second = listen(reactor, Factory.forProtocol(Echo), binding)
    assert second.getHost() == first.getHost()
    await first.stopListening()
    await second.stopListening()


async def test_endpoint(reactor: Any) -> None:
    """``fast:`` is found by Twisted, and serves; a blocking client gets its answer."""
    server = Server(Echo)
    endpoint = serverFromString(reactor, "fast:0:interface=127.0.0.1:backlog=7")
    port: Any = await endpoint.listen(server.factory)  # Any: as above

    def ask() -> bytes:
        with socket.create_connection(
            ("127.0.0.1", port.getHost().port), timeout=PATIENCE
        ) as client:
            client.sendall(b"hello")
            return client.recv(10)

    assert await deferToThread(ask) == b"hello"
    assert type(server.protocols[0].transport) is FastTransport
    await server.protocols[0].lost()
    await port.stopListening()
    taken = listen(reactor, Factory.forProtocol(Echo))
    again = serverFromString(reactor, f"fast:{taken.getHost().port}:interface=127.0.0.1")
    with pytest.raises(CannotListenError):
        await again.listen(server.factory)
    await taken.stopListening()
