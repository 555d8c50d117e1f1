"""Connections end alike over every kind of listener, over real sockets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.threads import deferToThread

from tests.live.programs import serving
from tests.patience import PATIENCE, until
from tests.tcp.issuing import Authority, write_pair
from tests.tcp.kinds import HEADERS, KINDS, Kind, message
from twisted_net.auth.users import AuthSettings
from twisted_net.config.tls import TlsSettings
from twisted_net.reasons import End
from twisted_net.service.net import NetService
from twisted_net.tcp.listener_settings import Listener

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n"
)
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
"""A closing frame of a client, with code 1000, masked with zeros."""

OPEN = AuthSettings(open=True)
"""As the clients behind a proxy are of other machines."""

BY_NAME = pytest.mark.parametrize("kind", KINDS.values(), ids=[*KINDS])


class SocketClient:
    """A client that speaks all layers of a kind over a socket, and waits in a thread."""

    def __init__(self, kind: Kind, address: Any) -> None:  # Any: an address or a path
        family = socket.AF_UNIX if kind.unix else socket.AF_INET
        self.kind = kind
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        # Not settimeout, which would make the socket one that OpenSSL does not wait for.
        wait = struct.pack("ll", round(PATIENCE), 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self.socket.connect(address)
        if kind.proxy:
            self.socket.sendall(HEADERS[kind.proxy])
        self.wire: Any = self.socket  # Any: or the TLS above it
        if kind.tls:
            self.wire = SSL.Connection(kind.client_context(), self.socket)
            self.wire.set_connect_state()
            self.wire.do_handshake()
        if kind.websocket:
            self.wire.sendall(UPGRADE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.wire.recv(1)

    def send(self, *lines: bytes) -> None:
        """Send lines."""
        ends = [message(line) if self.kind.websocket else line + b"\n" for line in lines]
        self.wire.sendall(b"".join(ends))

    def end(self, way: str) -> None:
        """End this half, and no other."""
        if way == "frame":
            self.wire.sendall(CLOSE)
        elif way == "notify":
            self.wire.shutdown()
        else:
            self.socket.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """Read to the end, whichever layer has it, and stay."""
        text = b""
        try:
            while data := self.wire.recv(65_536):
                text += data
        except SSL.ZeroReturnError:
            pass
        return text

    def results(self) -> list[Any]:  # Any: JSON
        """Read to the end, and return the results of the answers."""
        return [json.loads(answer)["result"] for answer in _objects(self.rest())]


def _objects(text: bytes) -> Iterator[bytes]:
    """Return the objects of JSON in a stream; frames of a WebSocket add a few bytes to each."""
    while b"{" in text:
        text = text[text.index(b"{") :]
        end = text.index(b"}") + 1
        yield text[:end]
        text = text[end:]


@pytest.fixture
def listener(kind: Kind, tmp_path: Path) -> Listener:
    """A listener of each kind, at a free port or in a folder."""
    certificate = write_pair(tmp_path / "a.pem", Authority().issue("a.test"))
    settings: dict[str, Any] = {"path": str(tmp_path / "s")} if kind.unix else {"port": 0}
    return Listener(
        **settings,
        proxy=("127.0.0.1", "unix") if kind.proxy else (),
        tls=TlsSettings(certificate=str(certificate)) if kind.tls else TlsSettings(),
        protocol="websocket" if kind.websocket else "lines",
        limits={"write_timeout": 3600.0},
    )


def address_of(service: NetService) -> Any:  # Any: an address or a path
    """Return where a client connects to."""
    (only,) = service.listeners
    return only.configured_address if only.port is None else ("127.0.0.1", only.port)


@BY_NAME
async def test_client_that_stays(kind: Kind, listener: Listener, reactor: Any) -> None:
    """A client that reads all and closes nothing does not delay the stop beyond its two seconds."""
    async with serving(reactor, listener, auth=OPEN, drain_timeout=3600.0) as service:
        client = await deferToThread(SocketClient, kind, address_of(service))
        client.send(b"PING")
        await until(reactor, lambda: service.sessions.messages)
        # It is answered by time limits alone: of an hour, but for that of a connection's end.
        await service.stopService()
        assert b"shutdown" in await deferToThread(client.rest)
        client.socket.close()
    ended = service.sessions.counters.ended
    assert {end: count for end, count in ended.items() if count} == {End.DRAINED: 1}


@BY_NAME
async def test_half_close(kind: Kind, listener: Listener, reactor: Any) -> None:
    """A client that ends its half, in whichever layer, is answered, and sees the end."""
    ways = ["frame"] * kind.websocket + ["notify"] * kind.tls + ["fin"]

    def talk(way: str, address: Any) -> list[Any]:  # Any: as above
        client = SocketClient(kind, address)
        client.send(*[b"ECHO hello"] * 500, b"PING")
        client.end(way)
        results = client.results()
        client.socket.close()
        return results

    async with serving(reactor, listener, auth=OPEN) as service:
        for way in ways:
            results = await deferToThread(talk, way, address_of(service))
            assert results == ["hello"] * 500 + ["PONG"], way
    ended = service.sessions.counters.ended
    assert {end: count for end, count in ended.items() if count} == {End.CLIENT_CLOSED: len(ways)}


@BY_NAME
async def test_data_unread(kind: Kind, listener: Listener, reactor: Any) -> None:
    """A client that closes with data unread resets its connection, which is then lost."""
    async with serving(reactor, listener, auth=OPEN) as service:
        client = await deferToThread(SocketClient, kind, address_of(service))
        client.send(*[b"ECHO " + b"x" * 5000] * 5)
        await until(reactor, lambda: service.sessions.messages == 5)
        client.socket.close()
        del client
        await until(reactor, lambda: not len(service.sessions))
    ended = service.sessions.counters.ended
    assert {end: count for end, count in ended.items() if count} == {End.CONNECTION_LOST: 1}
