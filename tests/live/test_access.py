"""Who may do and hear what, over real sockets: all doors at once, and a users file that changes."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from websockets.sync.client import connect as connect_websocket

from tests.live.leaks import LoggedErrors
from tests.live.programs import port_of, serving
from tests.patience import PATIENCE, until
from tests.tcp.issuing import Authority, write_pair
from twisted_net.auth.users import AuthSettings, hash_token
from twisted_net.coap.client import CoapClient
from twisted_net.coap.codec import Code
from twisted_net.config.tls import TlsSettings
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.service.config import CoapDtlsSettings, CoapSettings
from twisted_net.tcp.listener_settings import Listener

AUTHORITY = Authority()
USERS = f"""
[ann]
commands = ["*"]
[bot]
tokens = ["{hash_token("letmein")}"]
[deaf]
tokens = ["{hash_token("quiet")}"]
subscribe = []
"""


class Door:
    """A client that stays connected; its calls wait in a thread."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(PATIENCE)
        self._socket = connected
        self._file = connected.makefile("rb")

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self._socket.close()

    def send(self, line: str) -> None:
        """Send a line."""
        self._socket.sendall(line.encode() + b"\n")

    def read(self) -> Deferred[Any]:  # Any: JSON
        """Wait for a line, decoded."""
        return deferToThread(lambda: json.loads(self._file.readline()))

    async def ask(self, line: str) -> Any:  # Any: JSON
        """Send a line, and wait for the next that comes."""
        self.send(line)
        return await self.read()


@contextmanager
def tcp(port: int) -> Iterator[Door]:
    """Connect over TCP."""
    door = Door(socket.create_connection(("127.0.0.1", port)))
    try:
        yield door
    finally:
        door.close()


@contextmanager
def unix(path: Path) -> Iterator[Door]:
    """Connect to a Unix socket."""
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(str(path))
    door = Door(connected)
    try:
        yield door
    finally:
        door.close()


async def over_tls(port: int, folder: Path, user: str) -> Door:
    """Connect over TLS, with a user's certificate."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / f"{user}.pem")

    def shake_hands() -> Door:
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        return Door(context.wrap_socket(plain, server_hostname="localhost"))

    return await deferToThread(shake_hands)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with certificates and a users file."""
    AUTHORITY.write(tmp_path / "ca.pem")
    write_pair(tmp_path / "server.pem", AUTHORITY.issue("localhost"))
    for user in ("ann", "Ann", "eve"):
        pair = AUTHORITY.issue(common_names=(user,))
        write_pair(tmp_path / f"{user}.pem", pair)
    write_users(tmp_path, USERS)
    return tmp_path


def write_users(folder: Path, text: str) -> None:
    """Replace the users file, as a careful operator does."""
    new = folder / "users.new"
    new.write_text(f"{text}\n")
    new.chmod(0o600)
    new.rename(folder / "users.toml")


def users_of(folder: Path) -> AuthSettings:
    """Return the settings of a service with the folder's users."""
    return AuthSettings(users=str(folder / "users.toml"), refresh_interval=0.1, timeout=0)


def tls_of(folder: Path) -> Listener:
    """Return a listener that takes certificates."""
    tls = TlsSettings(certificate=str(folder / "server.pem"), client_ca=str(folder / "ca.pem"))
    return Listener(port=0, tls=tls)


def coaps_of(folder: Path) -> CoapSettings:
    """Return the settings of CoAP over DTLS."""
    return CoapSettings(
        dtls=CoapDtlsSettings(
            port=0,
            certificate=str(folder / "server.pem"),
            client_ca=str(folder / "ca.pem"),
        )
    )


def certified(folder: Path, user: str) -> DtlsClientSettings:
    """Return the settings of a CoAP client with a user's certificate."""
    return DtlsClientSettings(ca=str(folder / "ca.pem"), certificate=str(folder / f"{user}.pem"))


async def test_broadcast_to_all_doors(reactor: Any, tmp_path: Path) -> None:
    """Whoever sends one, through whatever door, all clients of all doors get it."""
    path = tmp_path / "s"
    listeners = (
        Listener(port=0),
        Listener(path=str(path)),
        Listener(port=0, protocol="websocket"),
    )

    def hear(url: str) -> list[Any]:  # Any: JSON
        with connect_websocket(url) as client:
            return [json.loads(client.recv(PATIENCE)) for _ in range(2)]

    coap = CoapSettings(enabled=True, port=0)
    async with serving(reactor, *listeners, coap=coap) as service:
        assert service.coap is not None
        base = f"coap://127.0.0.1:{service.coap.port}"
        heard = deferToThread(hear, f"ws://127.0.0.1:{port_of(service, 2)}/")
        with tcp(port_of(service)) as line, unix(path) as local:
            async with CoapClient(reactor) as peer, CoapClient(reactor) as sender:
                states = await peer.observe(f"{base}/events")
                assert (await anext(states)).json() == {}
                await until(reactor, lambda: len(service.sessions) == 3)
                line.send("BROADCAST one")
                got = [await line.read(), await local.read(), (await _next(states)).json()]
                assert [event["message"] for event in got] == ["one"] * 3
                answer = await line.read()
                assert (answer["delivered"], answer["failed"]) == (4, 0)
                assert (await sender.get(f"{base}/events")).json()["message"] == "one"
                answer = (await sender.post(f"{base}/broadcast", b"two", accept=50)).json()
                assert answer["delivered"] == 4
                assert list(answer["failures"].values()) == ["not_observing"]
                got = [await line.read(), await local.read(), (await _next(states)).json()]
                assert [event["message"] for event in got] == ["two"] * 3
                states.cancel()
        assert [event["message"] for event in await heard] == ["one", "two"]


async def _next(states: Any) -> Any:  # Any: an observation, and its next state
    return await anext(states)


async def test_strangers_hear_nothing(reactor: Any, folder: Path) -> None:
    """Neither a client without a login, nor a user who may not, hears a broadcast."""
    async with serving(reactor, Listener(port=0), auth=users_of(folder)) as service:
        port = port_of(service)
        with tcp(port) as stranger, tcp(port) as deaf, tcp(port) as bot:
            assert (await stranger.ask("PING"))["result"] == "PONG"
            assert (await deaf.ask("AUTH quiet"))["user"] == "deaf"
            assert (await bot.ask("AUTH letmein"))["user"] == "bot"
            assert (await bot.ask("BROADCAST hello"))["message"] == "hello"
            answer = await bot.read()
            assert (answer["delivered"], answer["failed"]) == (1, 0)
            for door in (stranger, deaf):
                assert (await door.ask("PING"))["result"] == "PONG"


async def test_certificates_of_nobody(reactor: Any, folder: Path) -> None:
    """A certificate with a name that is no user's permits nothing but AUTH."""
    settings = {"auth": users_of(folder), "coap": coaps_of(folder)}
    async with serving(reactor, tls_of(folder), **settings) as service:
        assert service.secure_coap is not None
        base = f"coaps://localhost:{service.secure_coap.port}"
        for name in ("Ann", "eve"):
            door = await over_tls(port_of(service), folder, name)
            for line in ("PING", "HELP", "STATS", "CLIENTS", "NOPE"):
                assert (await door.ask(line))["code"] == "auth_required", (name, line)
            assert (await door.ask("AUTH letmein"))["user"] == "bot"
            assert (await door.ask("PING"))["result"] == "PONG"
            await deferToThread(door.close)
            async with CoapClient(reactor, tls=certified(folder, name)) as peer:
                for path in ("ping", "stats", "events", "nope"):
                    assert (await peer.get(f"{base}/{path}")).code == Code.UNAUTHORIZED
        door = await over_tls(port_of(service), folder, "ann")
        assert (await door.ask("CLIENTS"))["count"] == 1
        await deferToThread(door.close)
        await until(reactor, lambda: not len(service.sessions))


async def test_users_change(
    reactor: Any,  # Any: as above
    folder: Path,
    logged_errors: LoggedErrors,
) -> None:
    """What the file takes from users they lose on open connections, at every door."""
    settings = {"auth": users_of(folder), "coap": coaps_of(folder)}
    async with serving(reactor, Listener(port=0), tls_of(folder), **settings) as service:
        assert service.secure_coap is not None
        base = f"coaps://localhost:{service.secure_coap.port}"
        ann = await over_tls(port_of(service, 1), folder, "ann")
        assert (await ann.ask("MONITOR"))["watching"]
        with tcp(port_of(service)) as bot:
            assert (await bot.ask("AUTH letmein"))["user"] == "bot"
            assert (await bot.ask("SUBSCRIBE a.>"))["subscriptions"] == 1
            for _ in range(2):
                assert (await ann.read())["event"] == "command"
            async with CoapClient(reactor, tls=certified(folder, "ann")) as peer:
                assert (await peer.post(f"{base}/clients")).code == Code.CHANGED
                assert (await ann.read())["event"] == "command"
                # A mistake changes nothing.
                write_users(folder, "[ann")
                await until(reactor, logged_errors.flush)
                assert (await bot.ask("PING"))["result"] == "PONG"
                assert (await ann.read())["event"] == "command"
                write_users(folder, '[bot]\nsubscribe = ["b"]\ncommands = ["PING"]')
                assert await bot.read() == {"event": "logged_out", "code": "proof_removed"}
                assert (await bot.ask("PING"))["code"] == "auth_required"
                assert await ann.read() == {"event": "logged_out", "code": "user_removed"}
                assert (await ann.ask("CLIENTS"))["code"] == "auth_required"
                assert (await peer.post(f"{base}/clients")).code == Code.UNAUTHORIZED
                os.unlink(folder / "users.toml")
                assert (await bot.ask("AUTH letmein"))["code"] == "auth_failed"
                await until(reactor, logged_errors.flush)
        await deferToThread(ann.close)
        await until(reactor, lambda: not len(service.sessions))
