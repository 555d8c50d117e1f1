"""TLS over real sockets, with OpenSSL's own client and Python's."""

from __future__ import annotations

import json
import select
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cryptography import x509
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.live.programs import port_of, program, run_until, serving
from tests.patience import PATIENCE, until, wait_until
from tests.tcp.issuing import Authority, write_pair
from twisted_net.config.tls import TlsSettings
from twisted_net.reasons import End
from twisted_net.service.net import NetService
from twisted_net.sessions import Session
from twisted_net.tcp.listener_settings import Listener

AUTHORITY = Authority()


def issue(file: Path, *hosts: str, user: str | None = None) -> Path:
    """Write a certificate and its key into one file."""
    names = () if user is None else (user,)
    return write_pair(file, AUTHORITY.issue(*hosts, common_names=names))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with certificates for two hosts and a default."""
    for name in ("a.test", "b.test", "default"):
        issue(tmp_path / f"{name}.pem", name.replace("default", "default.test"))
    AUTHORITY.write(tmp_path / "ca")
    return tmp_path


def over_tls(folder: Path, limits: dict[str, Any] | None = None, **tls: Any) -> Listener:
    """Give a listener with the folder's certificates."""
    settings = TlsSettings(folder=str(folder), **tls)
    return Listener(port=0, tls=settings, limits=limits or {})


def context(folder: Path, pair: Path | None = None) -> ssl.SSLContext:
    """Give a client's context that trusts the folder's authority."""
    made = ssl.create_default_context(cafile=str(folder / "ca"))
    made.verify_flags |= ssl.VERIFY_X509_STRICT  # as it is by default from Python 3.13 on
    if pair is not None:
        made.load_cert_chain(pair)
    return made


def connect(folder: Path, port: int, pair: Path | None = None) -> ssl.SSLSocket:
    """Connect, as a client that checks the server's certificate."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return context(folder, pair).wrap_socket(plain, server_hostname="a.test")


def converse(folder: Path, port: int, lines: bytes, pair: Path | None = None) -> list[Any]:
    """Send lines, read as many answers, and end TLS as one should."""
    with connect(folder, port, pair) as client:
        client.sendall(lines)
        reader = client.makefile("rb")
        answers = [json.loads(reader.readline()) for _ in range(lines.count(b"\n"))]
        reader.close()
        client.unwrap().close()
        return answers


# --- openssl s_client ---


def s_client(folder: Path, port: int, *options: str) -> Deferred[bytes]:
    """Let OpenSSL's client say one line, and give all that it says itself."""
    words = [program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}"]
    words += ["-CAfile", str(folder / "ca"), "-verify_return_error", *options]
    return run_until(*words, data=b"ECHO hello\n", marker=b'"result":"hello"')


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("host", ["a.test", "b.test", "other.test"])
async def test_openssl(folder: Path, host: str, version: str, reactor: Any) -> None:
    """It offers ALPN, names a host, finds the certificate for it to be good, and is answered."""
    expected = host if host != "other.test" else "default.test"
    async with serving(reactor, over_tls(folder)) as service:
        said = await s_client(
            *(folder, port_of(service), version, "-servername", host),
            *("-alpn", "h2,http/1.1", "-verify_hostname", expected),
        )
    assert b"Verify return code: 0 (ok)" in said
    assert b"No ALPN negotiated" in said
    assert b'{"command":"ECHO","result":"hello"}' in said


async def test_openssl_of_old(folder: Path, reactor: Any) -> None:
    """TLS 1.1 is refused."""
    async with serving(reactor, over_tls(folder)) as service:
        said = await s_client(
            *(folder, port_of(service), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        )
        assert b"protocol version" in said
        assert b"hello" not in said
        assert service.sessions.counters.ended[End.HANDSHAKE_FAILED] == 1


async def test_openssl_client_certificate(folder: Path, reactor: Any) -> None:
    """The name in its certificate is that of its user; without one it is not let in."""
    pair = issue(folder / "ada", user="ada")
    listener = over_tls(folder, client_ca=str(folder / "ca"))
    async with serving(reactor, listener) as service:
        users: list[str | None] = []
        _remember(service, users)
        said = await s_client(folder, port_of(service), "-cert", str(pair), "-key", str(pair))
        assert b'"result":"hello"' in said
        assert b"Test CA" in said  # whom it may be signed by
        refused = await s_client(folder, port_of(service))
        assert b'"result":"hello"' not in refused
        assert b"certificate required" in refused
        assert users == ["ada"]


# --- Python's ssl ---


async def test_drain(folder: Path, reactor: Any) -> None:
    """What was asked is answered before TLS ends as it should; nothing is cut off."""

    def talk(port: int) -> bytes:
        with connect(folder, port) as client:
            client.sendall(b"PING\n" * 500)
            reader = client.makefile("rb")
            first = reader.readline()
            reactor.callFromThread(service.stopService)
            # Raises where the connection ends without the end of TLS.
            rest = reader.read()
            reader.close()
            return first + rest

    async with serving(reactor, over_tls(folder)) as service:
        text = await deferToThread(talk, port_of(service))
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line.get("event") for line in lines if "event" in line] == ["shutdown"]
        assert len(lines) == 501
    assert service.sessions.counters.ended[End.ABORTED] == 0


async def test_clients_end(folder: Path, reactor: Any) -> None:
    """A client that ends TLS is gone at once, and so is one that only ends its connection."""
    async with serving(reactor, over_tls(folder)) as service:
        await deferToThread(converse, folder, port_of(service), b"PING\n")

        def leave() -> None:
            client = connect(folder, port_of(service))
            client.sendall(b"PING\n")
            client.recv(100)
            client.close()

        await deferToThread(leave)
        await until(reactor, lambda: sum(service.sessions.counters.ended.values()) == 2)
        assert len(service.sessions) == 0
        assert service.sessions.counters.ended[End.CLIENT_CLOSED] >= 1


async def test_never_reading(folder: Path, reactor: Any) -> None:
    """A client that does not read is not read either, and its memory is bounded."""
    listener = over_tls(folder, {"write_timeout": 1.0})
    async with serving(reactor, listener) as service:

        def flood() -> int:
            sent = 0
            # It is not read, until the server resets the connection.
            with (
                suppress(ConnectionError, ssl.SSLError),
                connect(folder, port_of(service)) as client,
            ):
                while sent < 200_000_000:
                    client.sendall(b"ECHO " + b"x" * 10_000 + b"\n")
                    sent += 10_006
            return sent

        sent = await deferToThread(flood)
        # What the buffers of two kernels take, and a little of our own.
        assert sent < 50_000_000
        await until(reactor, lambda: service.sessions.counters.ended[End.WRITE_TIMEOUT] == 1)
        assert len(service.sessions) == 0


async def test_fetches_much(folder: Path, reactor: Any) -> None:
    """Twenty thousand answers arrive whole, in order, with back-pressure both ways."""

    def talk(port: int) -> list[Any]:
        lines = b"".join(b"ECHO %d\n" % i for i in range(20_000))
        return converse(folder, port, lines)

    async with serving(reactor, over_tls(folder)) as service:
        answers = await deferToThread(talk, port_of(service))
    assert [answer["result"] for answer in answers] == [str(i) for i in range(20_000)]


def half_open(port: int, count: int) -> list[socket.socket]:
    """Begin so many handshakes, every other one by the first bytes of a ClientHello."""
    made = []
    for i in range(count):
        one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if i % 2:
            one.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        made.append(one)
    return made


async def test_slowloris(folder: Path, reactor: Any) -> None:
    """Half-open handshakes keep nobody out: over a number, the oldest are ended."""
    listener = over_tls(folder, {"handshake_timeout": 3600.0, "max_handshakes": 50})
    async with serving(reactor, listener) as service:
        crowd = await deferToThread(half_open, port_of(service), 200)
        ended = service.sessions.counters.ended
        # Where one has ended there is something to read.
        await until(reactor, lambda: len(select.select(crowd, [], [], 0)[0]) == 150)
        assert select.select(crowd[150:], [], [], 0)[0] == []
        for _ in range(20):
            await deferToThread(converse, folder, port_of(service), b"PING\n")
        await until(reactor, lambda: ended[End.CLIENT_CLOSED] == 20)
        # The first that came in afterwards took a place that was another's before; then it is free.
        assert ended[End.TOO_MANY_HANDSHAKES] == 151
        for one in crowd:
            one.close()


async def test_handshake_timeout(folder: Path, reactor: Any) -> None:
    """A handshake that does not go on is ended after its time."""
    async with serving(reactor, over_tls(folder, {"handshake_timeout": 0.2})) as service:
        crowd = await deferToThread(half_open, port_of(service), 10)
        ended = service.sessions.counters.ended
        await until(reactor, lambda: sum(ended.values()) >= 10)
        assert ended[End.HANDSHAKE_TIMEOUT] == sum(ended.values()) == 10
        for one in crowd:
            one.close()


async def test_renewal_under_load(folder: Path, reactor: Any) -> None:
    """While clients come and go, certificates are renewed twenty times; each comes into use."""
    serials: set[int] = set()
    renewed = Event()
    loaders = 4

    def load(port: int) -> None:
        lasting = connect(folder, port)
        while not renewed.is_set():
            with connect(folder, port) as client:
                certificate = client.getpeercert()
                assert certificate is not None
                serials.add(int(str(certificate["serialNumber"]), 16))
                client.sendall(b"PING\n")
                assert b"PONG" in client.recv(100)
            lasting.sendall(b"PING\n")
            assert b"PONG" in lasting.recv(100)
        lasting.close()

    def renew() -> None:
        try:
            for _ in range(20):
                file = issue(folder / "a.test.pem", "a.test")
                serial = x509.load_pem_x509_certificate(file.read_bytes()).serial_number
                wait_until(lambda: serial in serials)  # noqa: B023  # it waits here
        finally:
            renewed.set()

    async with serving(reactor, over_tls(folder)) as service:
        loads = [deferToThread(load, port_of(service)) for _ in range(loaders)]
        await gatherResults([*loads, deferToThread(renew)], consumeErrors=True)
        ended = service.sessions.counters.ended
        assert ended[End.HANDSHAKE_FAILED] == ended[End.HANDSHAKE_TIMEOUT] == 0


def _remember(service: NetService, users: list[str | None]) -> None:
    """Keep the users of the sessions that are opened, when they end."""
    close = service.sessions.close

    def remember(session: Session, end: End) -> None:
        users.append(session.identity)
        close(session, end)

    service.sessions.close = remember  # type: ignore[method-assign]
