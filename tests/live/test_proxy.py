"""Behind haproxy and nginx: sessions have the addresses of the real clients."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.live.processes import Running
from tests.live.programs import port_of, program, serving
from tests.patience import PATIENCE, until
from tests.ports import free_port
from tests.tcp.issuing import Authority, write_pair
from twisted_net.config.tls import TlsSettings
from twisted_net.reasons import End
from twisted_net.tcp.listener_settings import Listener

LOOPBACK = ("127.0.0.0/8", "unix")
CLIENT = "127.0.0.9"
"""The address that the real clients connect from; the proxies themselves come from another."""


def talk(
    port: int, lines: bytes, context: ssl.SSLContext | None = None
) -> Deferred[tuple[list[Any], str]]:
    """Send lines, and give as many answers, and our own address as ``host:port``."""

    def speak() -> tuple[list[Any], str]:
        connection = socket.create_connection(("127.0.0.1", port), PATIENCE, (CLIENT, 0))
        name = "{}:{}".format(*connection.getsockname())
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname="a.test")
        with connection:
            connection.sendall(lines)
            reader = connection.makefile("rb")
            answers = [json.loads(reader.readline()) for _ in range(lines.count(b"\n"))]
            reader.close()
            return answers, name

    return deferToThread(speak)


async def reachable(reactor: Any, port: int) -> None:  # Any: reactors have no one type
    """Wait until somebody listens on a port."""

    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(reactor, is_open)


@asynccontextmanager
async def haproxy(
    reactor: Any,  # Any: reactors have no one type
    folder: Path,
    backend: str,
) -> AsyncIterator[int]:
    """Run haproxy in front of *backend*, and give its port."""
    port = free_port()
    (folder / "haproxy.cfg").write_text(
        "global\n  maxconn 100\n"
        "defaults\n  mode tcp\n  timeout connect 60s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
        f"backend b\n  server s {backend}\n"
    )
    words = [program("haproxy", "haproxy"), "-db", "-f", "haproxy.cfg"]
    async with Running(reactor, words, folder):
        await reachable(reactor, port)
        yield port


@asynccontextmanager
async def nginx(
    reactor: Any,  # Any: reactors have no one type
    folder: Path,
    backend: str,
) -> AsyncIterator[int]:
    """Run nginx in front of *backend*, and give its port."""
    port = free_port()
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    load = f"load_module {module};\n" if module.exists() else ""
    (folder / "nginx.conf").write_text(
        f"{load}daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n"
        f"error_log {folder}/nginx.log;\nevents {{ worker_connections 64; }}\n"
        f"stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {backend}; "
        "proxy_protocol on; } }\n"
    )
    words = [program("nginx", "nginx with libnginx-mod-stream"), "-p", str(folder)]
    async with Running(reactor, [*words, "-c", "nginx.conf", "-e", "stderr"], folder):
        await reachable(reactor, port)
        yield port


def names(answers: list[Any]) -> list[str]:
    """Give the clients of an answer to CLIENTS."""
    return [client["client"] for client in answers[-1]["clients"]]


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
async def test_haproxy(tmp_path: Path, version: str, reactor: Any) -> None:
    """Behind haproxy, with either version of the header, the session is the client's."""
    async with (
        serving(reactor, Listener(port=0, proxy=LOOPBACK)) as service,
        haproxy(reactor, tmp_path, f"127.0.0.1:{port_of(service)} {version}") as port,
    ):
        answers, name = await talk(port, b"ECHO hello\nCLIENTS\n")
        assert answers[0]["result"] == "hello"
        assert name in names(answers)
        assert name.startswith(CLIENT)


async def test_haproxy_over_unix(tmp_path: Path, reactor: Any) -> None:
    """The same over a Unix socket, where the proxy itself has no address."""
    path = tmp_path / "s"
    async with (
        serving(reactor, Listener(path=str(path), proxy=("unix",))),
        haproxy(reactor, tmp_path, f"unix@{path} send-proxy-v2") as port,
    ):
        answers, name = await talk(port, b"CLIENTS\n")
        assert name in names(answers)


async def test_haproxy_with_tls_inside(tmp_path: Path, reactor: Any) -> None:
    """TLS of the client passes through the proxy; the certificate is ours."""
    authority = Authority()
    certificate = write_pair(tmp_path / "a.pem", authority.issue("a.test"))
    context = ssl.create_default_context(cafile=str(authority.write(tmp_path / "ca")))
    tls = TlsSettings(certificate=str(certificate))
    async with (
        serving(reactor, Listener(port=0, proxy=LOOPBACK, tls=tls)) as service,
        haproxy(reactor, tmp_path, f"127.0.0.1:{port_of(service)} send-proxy-v2") as port,
    ):
        answers, name = await talk(port, b"PING\nCLIENTS\n", context)
        assert answers[0]["result"] == "PONG"
        assert name in names(answers)


async def test_haproxy_checks(tmp_path: Path, reactor: Any) -> None:
    """Its health checks, which speak for nobody, find the server well."""
    async with serving(reactor, Listener(port=0, proxy=LOOPBACK)) as service:
        backend = f"127.0.0.1:{port_of(service)} send-proxy-v2 check-send-proxy check inter 100ms"
        async with haproxy(reactor, tmp_path, backend) as port:
            await until(reactor, lambda: service.sessions.counters.opened >= 3)
            answers, _ = await talk(port, b"PING\n")
            assert answers[0]["result"] == "PONG"
        assert service.sessions.counters.ended[End.HANDSHAKE_FAILED] == 0


async def test_nginx(tmp_path: Path, reactor: Any) -> None:
    """Behind nginx the session is the client's."""
    async with (
        serving(reactor, Listener(port=0, proxy=LOOPBACK)) as service,
        nginx(reactor, tmp_path, f"127.0.0.1:{port_of(service)}") as port,
    ):
        answers, name = await talk(port, b"ECHO hello\nCLIENTS\n")
        assert answers[0]["result"] == "hello"
        assert name in names(answers)


async def test_nginx_over_unix(tmp_path: Path, reactor: Any) -> None:
    """The same over a Unix socket."""
    path = tmp_path / "s"
    async with (
        serving(reactor, Listener(path=str(path), proxy=("unix",))),
        nginx(reactor, tmp_path, f"unix:{path}") as port,
    ):
        answers, name = await talk(port, b"CLIENTS\n")
        assert name in names(answers)


async def test_lies(reactor: Any) -> None:
    """Who is no trusted proxy is cut off, whatever address he claims."""
    listener = Listener(port=0, proxy=("127.0.0.1",))
    async with serving(reactor, listener) as service:

        def lie() -> bytes:
            address = ("127.0.0.1", port_of(service))
            # The end may come before the connection is there, to our kernel.
            try:
                with socket.create_connection(address, PATIENCE, ("127.0.0.66", 0)) as connection:
                    connection.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 5 6\r\nPING\n")
                    return connection.recv(100)
            except ConnectionError:
                return b""

        assert [await deferToThread(lie) for _ in range(20)] == [b""] * 20
        assert service.sessions.counters.ended[End.UNTRUSTED_PROXY] == 20
        assert service.sessions.counters.opened == 0
        assert (await _ask_after_header(port_of(service)))[0]["result"] == "PONG"


def _ask_after_header(port: int) -> Deferred[list[Any]]:
    """Ask as a trusted proxy does."""

    def speak() -> list[Any]:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(b"PROXY UNKNOWN\r\nPING\n")
            return [json.loads(connection.makefile("rb").readline())]

    return deferToThread(speak)


async def test_slow_headers(reactor: Any) -> None:
    """Headers that never end are cut off, over a number and in time, and keep nobody out."""
    limits = {"handshake_timeout": 3600.0, "max_handshakes": 50}
    async with serving(reactor, Listener(port=0, proxy=LOOPBACK, limits=limits)) as service:
        port = port_of(service)

        def attack() -> list[socket.socket]:
            made = []
            for _ in range(200):
                one = socket.create_connection(("127.0.0.1", port), PATIENCE)
                one.sendall(b"PROXY TCP4 1")
                made.append(one)
            return made

        crowd = await deferToThread(attack)
        assert (await _ask_after_header(port))[0]["result"] == "PONG"
        await until(
            reactor, lambda: service.sessions.counters.ended[End.TOO_MANY_HANDSHAKES] >= 150
        )
        for one in crowd:
            one.close()
    limits["handshake_timeout"] = 0.2
    async with serving(reactor, Listener(port=0, proxy=LOOPBACK, limits=limits)) as service:
        with socket.create_connection(("127.0.0.1", port_of(service)), PATIENCE):
            await until(
                reactor, lambda: service.sessions.counters.ended[End.HANDSHAKE_TIMEOUT] == 1
            )
