"""Every kind of listener over connections in memory, and a client that speaks its layers."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from tests.tcp.memory import Address, Connection, Reactor
from tests.tcp.test_proxy_header import V4, v2
from twisted_net.config.tls import TlsSettings
from twisted_net.tcp.listener import CommandPort
from twisted_net.tcp.listener_settings import Listener
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.unix import UnixPeer

PROXY = "10.0.0.1"

UNIX_HOST = "unix:uid=1000"
"""Stands for the host of the clients of Unix sockets."""

HEADERS = {
    1: b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 8888\r\n",
    2: v2(0x21, 0x11, V4),
}
"""PROXY headers of both versions."""


@frozen
class Kind:
    """
    A kind of listener: the layers that a client has to speak.

    :param proxy: the version of the PROXY header; 0 for none.
    :param tls_version: the highest that the client speaks.
    """

    proxy: int = 0
    tls: bool = False
    tls_version: int = SSL.TLS1_3_VERSION
    websocket: bool = False
    unix: bool = False

    def listener(self, certificate: Path) -> Listener:
        """Return its settings, with a certificate in a file."""
        settings: dict[str, Any] = {}  # Any: fields of Listener
        if self.proxy:
            settings["proxy"] = (PROXY, "unix")
        if self.tls:
            settings["tls"] = TlsSettings(certificate=str(certificate))
        if self.websocket:
            settings["protocol"] = "websocket"
        place: dict[str, Any] = {"path": "/s"} if self.unix else {"port": 1}
        return Listener(**place, **settings)

    def client_context(self) -> SSL.Context:
        """Return a context for a client, which believes any certificate."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(self.tls_version)
        return context

    @property
    def peer(self) -> Address | None:
        """Where its connections come from."""
        if self.unix:
            return UnixPeer("", UNIX_HOST)
        return IPv4Address("TCP", PROXY, 40_000) if self.proxy else None


KINDS = {
    "tcp": Kind(),
    "unix": Kind(unix=True),
    "proxy v1": Kind(proxy=1),
    "proxy v2": Kind(proxy=2),
    "tls": Kind(tls=True),
    "tls 1.2": Kind(tls=True, tls_version=SSL.TLS1_2_VERSION),
    "tls behind proxy": Kind(proxy=2, tls=True),
    "websocket": Kind(websocket=True),
    "websocket behind proxy": Kind(proxy=1, websocket=True),
    "wss": Kind(tls=True, websocket=True),
    "wss behind proxy": Kind(proxy=2, tls=True, websocket=True),
    "tls over unix": Kind(tls=True, unix=True),
    "websocket over unix": Kind(websocket=True, unix=True),
}
"""All kinds, by the name that an operator would give them."""


class Door:
    """
    One listener of a kind in memory, behind which a server serves.

    :ivar factory: of the outermost layer.
    """

    def __init__(
        self, kind: Kind, reactor: Reactor, commands: CommandFactory, certificate: Path
    ) -> None:
        self.kind = kind
        self._reactor = reactor
        host: Any = reactor  # Any: it cannot listen, which nobody asks of it
        self.port = CommandPort(host, kind.listener(certificate), commands)
        self.factory = self.port._factory

    def client(self, opened: bool = True) -> KindClient:
        """Connect a client, and let it shake hands."""
        connection = self._reactor.connect(self.factory, self.kind.peer)
        client = KindClient(self.kind, self._reactor, connection)
        if opened:
            client.open()
        return client


class KindClient:
    """
    A client that speaks all layers of a kind.

    :ivar answers_close: whether it answers a closing frame and a close_notify.
    :ivar lines: what it has received, decoded.
    :ivar closed: whether it has seen the end of the layer that carries the lines.
    """

    def __init__(self, kind: Kind, reactor: Reactor, connection: Connection) -> None:
        self.kind = kind
        self.connection = connection
        self.answers_close = True
        self.lines: list[Any] = []  # Any: JSON
        self.closed = False
        self._reactor = reactor
        self._text = b""
        self._tls: SSL.Connection | None = None
        self._wire: WSConnection | None = None

    def open(self) -> None:
        """Send the header, and shake hands."""
        if self.kind.proxy:
            self.connection.send(HEADERS[self.kind.proxy])
        if self.kind.tls:
            self._tls = SSL.Connection(self.kind.client_context(), None)
            self._tls.set_connect_state()
            with contextlib.suppress(SSL.WantReadError):
                self._tls.do_handshake()
        if self.kind.websocket:
            self._wire = WSConnection(ConnectionType.CLIENT)
        self.settle()
        if self._wire is not None:
            self._send_bytes(self._wire.send(Request(host="a.test", target="/")))
            self.settle()

    def send(self, *lines: bytes) -> None:
        """Send lines, without waiting for anything."""
        if self._wire is None:
            self._send_bytes(b"".join(line + b"\n" for line in lines))
        else:
            # By hand, as a client may send on after a closing frame.
            self._send_bytes(b"".join(message(line) for line in lines))

    def ask(self, *lines: bytes) -> list[Any]:  # Any: JSON
        """Send lines, and return all that came since the last time."""
        self.send(*lines)
        self.settle()
        return self.take()

    def take(self) -> list[Any]:  # Any: JSON
        """Return what came since the last time."""
        lines, self.lines = self.lines, []
        return lines

    def end(self, layer: str) -> None:
        """End this half: by a closing frame, by a close_notify, or by a FIN alone."""
        if layer == "frame":
            assert self._wire is not None
            self._send_bytes(self._wire.send(CloseConnection(code=1000)))
        elif layer == "notify":
            assert self._tls is not None
            self._tls.shutdown()
            self._flush()
        else:
            self.connection.end()

    def settle(self) -> None:
        """Let everything flow until nothing does."""
        while True:
            self._flush()
            self._reactor.settle()
            received = self.connection.received()
            if not received:
                return
            self._receive(received)

    def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass, and answer meanwhile."""
        for _ in range(round(seconds / step)):
            self._reactor.pass_time(step)
            self.settle()

    def _send_bytes(self, data: bytes) -> None:
        if self._tls is None:
            self.connection.send(data)
        elif data and not self._tls.get_shutdown() & SSL.SENT_SHUTDOWN:
            self._tls.send(data)
            self._flush()

    def _flush(self) -> None:
        if self._tls is not None:
            with contextlib.suppress(SSL.WantReadError):
                while True:
                    self.connection.send(self._tls.bio_read(65_536))

    def _receive(self, data: bytes) -> None:
        if self._tls is not None:
            tls, text, ended = self._tls, b"", False
            tls.bio_write(data)
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            try:
                while True:
                    text += tls.recv(65_536)
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                ended = True
            except SSL.Error:
                self.closed = True  # an alert
            self._receive_plain(text)
            if ended:
                self.closed = True
                if self.answers_close:
                    tls.shutdown()
        else:
            self._receive_plain(data)

    def _receive_plain(self, data: bytes) -> None:
        if self._wire is None:
            self._text += data
        elif data:
            self._wire.receive_data(data)
            for event in self._wire.events():
                if isinstance(event, TextMessage):
                    self._text += event.data.encode() + b"\n"
                elif isinstance(event, CloseConnection):
                    self.closed = True
                    if self.answers_close and self._wire.state is ConnectionState.REMOTE_CLOSING:
                        self._send_bytes(self._wire.send(event.response()))
                else:
                    assert isinstance(event, AcceptConnection), event
        *lines, self._text = self._text.split(b"\n")
        self.lines += map(json.loads, lines)


def message(text: bytes) -> bytes:
    """Encode a text message of a client's, masked with zeros (RFC 6455 §5.2)."""
    size = len(text)
    head = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
    return b"\x81" + head + bytes(4) + text
