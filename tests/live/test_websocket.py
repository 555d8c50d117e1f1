"""WebSocket over real sockets, with the client of the ``websockets`` library."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.live.programs import port_of, run, serving
from tests.missing import missing
from tests.patience import PATIENCE
from tests.tcp.issuing import Authority, write_pair
from twisted_net.config.tls import TlsSettings
from twisted_net.reasons import End
from twisted_net.tcp.listener_settings import Listener

SITE = Origin("https://app.example")


def over_websocket(**settings: Any) -> Listener:  # Any: fields of Listener
    """Give a listener that pages of one site may use."""
    return Listener(port=0, protocol="websocket", origins=(SITE,), **settings)


def ask(client: ClientConnection, text: str) -> Any:  # Any: JSON
    """Send a message, and give the next one, decoded."""
    client.send(text)
    return json.loads(client.recv(PATIENCE))


async def test_lines(reactor: Any) -> None:
    """Messages are answered, in order, whole or in pieces; pings are too."""

    def talk(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}/any/path", origin=SITE) as client:
            assert ask(client, "ECHO hello")["result"] == "hello"
            client.send(["EC", "HO ", "in pieces"])
            assert json.loads(client.recv(PATIENCE))["result"] == "in pieces"
            assert client.ping().wait(PATIENCE)
            for i in range(1000):
                client.send(f"ECHO {i}")
            for i in range(1000):
                assert json.loads(client.recv(PATIENCE))["result"] == str(i)
            assert ask(client, "x" * 20_000)["code"] == "line_too_long"
            assert ask(client, "STATS")["connections"] == 1

    async with serving(reactor, over_websocket()) as service:
        await deferToThread(talk, port_of(service))
        assert service.sessions.counters.ended[End.CLIENT_CLOSED] == 1


async def test_over_tls_with_a_user(tmp_path: Path, reactor: Any) -> None:
    """Over TLS the certificate is checked, and the client's own names its user."""
    authority = Authority()
    server = write_pair(tmp_path / "a.pem", authority.issue("localhost"))
    ada = write_pair(tmp_path / "ada.pem", authority.issue("x.test", common_names=("ada",)))
    ca = str(authority.write(tmp_path / "ca"))
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(ada)
    users: list[str | None] = []

    def talk(port: int) -> None:
        with connect(f"wss://localhost:{port}/", ssl=context) as client:
            assert ask(client, "PING")["result"] == "PONG"
            users.extend(session.identity for session in service.sessions)

    tls = TlsSettings(certificate=str(server), client_ca=ca)
    async with serving(reactor, over_websocket(tls=tls)) as service:
        await deferToThread(talk, port_of(service))
    assert users == ["ada"]


async def test_origins(reactor: Any) -> None:
    """A page of another site gets 403; a client that is no browser is let in."""

    def talk(port: int) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            connect(f"ws://127.0.0.1:{port}", origin=Origin("https://evil.example"))
        assert refusal.value.response.status_code == 403
        with connect(f"ws://127.0.0.1:{port}") as client:
            assert ask(client, "PING")["result"] == "PONG"

    async with serving(reactor, over_websocket()) as service:
        await deferToThread(talk, port_of(service))


async def test_binary(reactor: Any) -> None:
    """A message that is not text ends the connection with code 1003."""

    def talk(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}") as client:
            client.send(b"PING")
            with pytest.raises(ConnectionClosedError) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003

    async with serving(reactor, over_websocket()) as service:
        await deferToThread(talk, port_of(service))


async def test_drain(reactor: Any) -> None:
    """A client is told of the stop, and closed with code 1000."""

    def talk(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}") as client:
            assert ask(client, "PING")["result"] == "PONG"
            reactor.callFromThread(service.stopService)
            assert json.loads(client.recv(PATIENCE))["event"] == "shutdown"
            with pytest.raises(ConnectionClosedOK):
                client.recv(PATIENCE)

    async with serving(reactor, over_websocket(), drain_timeout=PATIENCE) as service:
        await deferToThread(talk, port_of(service))
        # Not before the last connection is gone.
        await service.stopService()
    assert service.sessions.counters.ended[End.DRAINED] == 1
    assert service.sessions.counters.ended[End.ABORTED] == 0


async def test_broadcast(reactor: Any) -> None:
    """A client over TCP reaches one over WebSocket, as all listeners have the same clients."""

    def talk(web: int, tcp: int) -> Any:  # Any: JSON
        with connect(f"ws://127.0.0.1:{web}") as client:
            assert ask(client, "PING")["result"] == "PONG"
            _netcat(tcp, b"BROADCAST hello\n")
            return json.loads(client.recv(PATIENCE))

    async with serving(reactor, over_websocket(), Listener(port=0)) as service:
        event = await deferToThread(talk, port_of(service), port_of(service, 1))
    assert (event["event"], event["message"]) == ("broadcast", "hello")


async def test_node(reactor: Any) -> None:
    """The client of Node.js, which is a browser's, is answered."""
    node = shutil.which("node")
    if node is None:
        missing("node (Node.js 20 or later)")
    script = (
        "if (typeof WebSocket === 'undefined') { console.log('none'); process.exit(0) }\n"
        "const socket = new WebSocket(process.argv[1]);\n"
        "socket.onopen = () => socket.send('ECHO hello');\n"
        "socket.onmessage = (event) => { console.log(event.data); socket.close() };\n"
        "socket.onerror = () => process.exit(1);\n"
    )
    async with serving(reactor, over_websocket()) as service:
        done = await run(
            node, "--experimental-websocket", "-e", script, f"ws://127.0.0.1:{port_of(service)}/"
        )
    if done.stdout == b"none\n" or b"bad option" in done.stderr:
        missing("WebSocket in this Node.js (it takes version 20)")
    assert json.loads(done.stdout) == {"command": "ECHO", "result": "hello"}


def _netcat(port: int, lines: bytes) -> None:
    """Say something over TCP, and wait for the answer."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(lines)
        connection.recv(65_536)
