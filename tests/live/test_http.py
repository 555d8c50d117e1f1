"""The HTTP client against servers on loopback: good ones, slow ones and broken ones."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from typing_extensions import override

from tests.http.fakes import FakeResolver
from tests.patience import PATIENCE, until
from twisted_net.errors import FetchError
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.client import Client
from twisted_net.http.content_coding import ACCEPTED
from twisted_net.http.errors import (
    AddressRefused,
    BadResponse,
    BodyTooLarge,
    CannotConnect,
    ConnectionBroken,
    FetchTimeout,
    InvalidURL,
    NameNotFound,
    TLSFailed,
)
from twisted_net.http.fetch import Fetcher
from twisted_net.http.h1.wire import Wire
from twisted_net.http.response import Response
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import EgressPolicy, FetchSettings, HttpSettings

QUICK = HttpSettings(timeout=PATIENCE, retry=RetryPolicy(base=0.01))
ONCE = HttpSettings(timeout=PATIENCE, retry=RetryPolicy(retries=0))


def global_reactor() -> Any:  # Any: of many interfaces
    """Return the reactor in which the tests run."""
    from twisted.internet import reactor

    return reactor


class Page(Resource):
    """Answers each request by a function, and counts them."""

    isLeaf = True

    def __init__(self, answer: Callable[[Request, int], bytes | int]) -> None:
        Resource.__init__(self)
        self._answer = answer
        self.count = 0

    @override
    def render(self, request: Request) -> bytes | int:
        self.count += 1
        return self._answer(request, self.count)


class CountingSite(Site):
    """Counts its connections."""

    connections = 0

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:  # Any: as Site's
        self.connections += 1
        return Site.buildProtocol(self, addr)


@asynccontextmanager
async def serving(factory: IProtocolFactory, tls: Any = None) -> AsyncIterator[int]:
    """Serve on a free port of loopback, with TLS if *tls* is passed; return the port."""
    reactor = global_reactor()
    if tls is None:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    else:
        port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


class Script(Protocol):
    """Sends a script for each request, and then closes or resets."""

    def __init__(self, pieces: list[bytes], then: str) -> None:
        self._pieces = pieces
        self._then = then
        self._playing: Deferred[None] | None = None

    @override
    def dataReceived(self, data: bytes) -> None:
        self._playing = Deferred.fromCoroutine(self._play())

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._playing is not None:
            self._playing.addErrback(lambda failure: failure.trap(CancelledError) and None)
            self._playing.cancel()

    async def _play(self) -> None:
        transport: Any = self.transport
        for piece in self._pieces:
            transport.write(piece)
            await deferLater(global_reactor(), 0.005)
        if self._then == "close":
            transport.loseConnection()
        elif self._then == "reset":
            transport.abortConnection()


class Scripted(Factory):
    """Plays one script after the other, and repeats the last one."""

    noisy = False

    def __init__(self, *scripts: tuple[list[bytes], str]) -> None:
        self._scripts = list(scripts)
        self.connections = 0

    @override
    def buildProtocol(self, addr: IAddress | None) -> Script:
        self.connections += 1
        return Script(*(self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]))


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_fails_twice_and_then_answers() -> None:
    """Two failures are retried, and the response is cached: the next hit uses no socket."""

    def answer(request: Request, count: int) -> bytes:
        if count <= 2:
            request.setResponseCode(503)
            return b"not yet"
        request.setHeader("Cache-Control", "max-age=60")
        request.setHeader("Content-Type", "application/json")
        return b'{"count": %d}' % count

    page = Page(answer)
    site = CountingSite(page)
    async with Client(global_reactor(), QUICK) as client:
        async with serving(site) as port:
            url = f"http://127.0.0.1:{port}/"
            response = await client.get(url)
            assert (response.status, response.json()) == (200, {"count": 3})
            assert (response.attempts, response.from_cache) == (3, False)
        # The server is gone; one connection served all three.
        response = await client.get(url)
        assert (response.attempts, response.from_cache) == (0, True)
        assert response.json() == {"count": 3}
    assert (page.count, site.connections) == (3, 1)


async def test_fetch() -> None:
    """FETCH of a local server that fails twice: allowed by configuration alone, then cached."""

    def answer(request: Request, count: int) -> bytes:
        if count <= 2:
            request.setResponseCode(500)
            return b""
        request.setHeader("Cache-Control", "max-age=60")
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return "grüße".encode()

    async with serving(Site(Page(answer))) as port:
        url = f"http://localhost:{port}/"
        fetcher = Fetcher.guarded(global_reactor(), QUICK)
        with pytest.raises(AddressRefused):
            await fetcher.fetch(url)
        await fetcher.close()
        fetcher = Fetcher.guarded(global_reactor(), QUICK, FetchSettings(allow=("localhost",)))
        found = await fetcher.fetch(url)
        assert (found["status"], found["kind"], found["body"]) == (200, "text", "grüße")
        assert not found["from_cache"]
        assert (await fetcher.fetch(url))["from_cache"]
        await fetcher.close()


async def test_post_json() -> None:
    """A body is sent and returned, with its content type; a large one too."""

    def answer(request: Request, count: int) -> bytes:
        assert request.getHeader("content-type") == "application/json"
        assert request.content is not None
        return bytes(request.content.read())

    async with serving(Site(Page(answer))) as port, Client(global_reactor(), ONCE) as client:
        value = {"text": "ü" * 500_000}
        assert await client.post_json(f"http://127.0.0.1:{port}/", value) == value


async def test_connections_are_reused() -> None:
    """Calls one after the other share a connection."""
    site = CountingSite(Page(lambda request, count: b"x"))
    async with serving(site) as port, Client(global_reactor(), ONCE) as client:
        for _ in range(20):
            assert (await client.get(f"http://127.0.0.1:{port}/")).ok
    assert site.connections == 1


async def test_large_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """More is read at once after a large body, and less again after a small one."""
    read: list[tuple[Wire, int]] = []
    received = Wire.dataReceived

    def noted(wire: Wire, data: bytes) -> None:
        read.append((wire, len(data)))
        received(wire, data)

    def next_size() -> int:
        transport: Any = read[-1][0].transport  # Any: of Twisted's, with a buffer
        return int(transport.bufferSize)

    monkeypatch.setattr(Wire, "dataReceived", noted)
    body = b"x" * 8_000_000

    def page(request: Request, count: int) -> bytes:
        return body if count == 1 else b"y"

    async with serving(Site(Page(page))) as port, Client(global_reactor(), QUICK) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/1")).body == body
        assert max(size for _, size in read) > 2**16
        assert next_size() > 2**16  # the next one may be as large
        assert (await client.get(f"http://127.0.0.1:{port}/2")).body == b"y"
        assert next_size() == 2**16


async def test_gather() -> None:
    """Many calls, a limited number at a time, return responses and errors."""
    held: list[Any] = []  # Any: Request, whose methods Twisted types badly

    def answer(request: Request, count: int) -> int:
        held.append(request)
        return NOT_DONE_YET

    def finish() -> None:
        request = held.pop(0)
        request.write(request.path)
        request.finish()

    async with serving(Site(Page(answer))) as port, Client(global_reactor(), ONCE) as client:
        urls = [f"http://127.0.0.1:{port}/{i}" for i in range(30)]
        urls[7] = "http://127.0.0.1:1/"
        gathering = Deferred.fromCoroutine(client.gather(urls, limit=4))
        for answered in range(29):
            # One that is not held although it could be has not come yet; a fifth never may.
            await until(global_reactor(), lambda: len(held) == min(4, 29 - answered))  # noqa: B023
            finish()
        results = await gathering
    assert isinstance(results[7], CannotConnect)
    bodies = [result.body for result in results if isinstance(result, Response)]
    assert bodies == [b"/%d" % i for i in range(30) if i != 7]


@pytest.mark.parametrize(
    ("pieces", "phase"),
    [
        ([], "headers"),
        ([b"HTTP/1.1 200 OK\r\nX-A: "], "headers"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], "headers"),
        ([OK[:-2]], "body"),
        ([OK[:-1]], "body"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"], "body"),
        ([b"HTTP/1.1 200 OK\r\n\r\nno length"], "body"),
    ],
)
async def test_server_that_stalls(pieces: list[bytes], phase: str, patient_reactor: Any) -> None:
    """A server that falls silent ends at the timeout, with the phase in the error."""
    async with serving(Scripted((pieces, "stall"))) as port, Client(patient_reactor) as client:
        with pytest.raises(FetchTimeout) as caught:
            await client.get(f"http://127.0.0.1:{port}/", timeout=0.2)
        details = {"url": f"http://127.0.0.1:{port}/", "phase": phase, "limit": 0.2, "total": True}
        assert caught.value.details() == details


async def test_server_that_drips(patient_reactor: Any) -> None:
    """A body that arrives byte by byte does not extend the timeout."""
    pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", *[b"x"] * 500]
    async with serving(Scripted((pieces, "stall"))) as port, Client(patient_reactor) as client:
        with pytest.raises(FetchTimeout) as caught:
            await client.get(f"http://127.0.0.1:{port}/", timeout=0.2)
    assert caught.value.phase == "body"


async def test_silence_limits(patient_reactor: Any) -> None:
    """The header and the body may each have a timeout of their own."""
    settings = HttpSettings(
        headers_timeout=0.1, silence_timeout=0.1, retry=RetryPolicy(retries=1, base=0.01)
    )
    for pieces, phase in (([], "headers"), ([OK[:-1]], "body")):
        factory = Scripted((pieces, "stall"))
        async with serving(factory) as port, Client(patient_reactor, settings) as client:
            with pytest.raises(FetchTimeout) as caught:
                await client.get(f"http://127.0.0.1:{port}/")
        error = caught.value
        assert (error.phase, error.limit, error.total) == (phase, 0.1, False)
        assert factory.connections == 2


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("cut", [0, 1, 12, 17, 38, 39])
async def test_connection_that_ends_early(cut: int, then: str) -> None:
    """Wherever the connection ends, the request is retried, and the response is complete."""
    broken = [OK[:cut]] if cut else []
    factory = Scripted((broken, then), ([OK], "stall"))
    async with serving(factory) as port, Client(global_reactor(), QUICK) as client:
        response = await client.get(f"http://127.0.0.1:{port}/")
        assert (response.body, response.attempts) == (b"ok", 2)


async def test_connection_that_always_ends() -> None:
    """After the last retry the error says where the connection ended."""
    factory = Scripted(([OK[:-1]], "reset"))
    async with serving(factory) as port, Client(global_reactor(), QUICK) as client:
        with pytest.raises(ConnectionBroken) as caught:
            await client.get(f"http://127.0.0.1:{port}/")
        assert caught.value.phase == "body"
        assert factory.connections == 4
        with pytest.raises(ConnectionBroken):
            await client.post(f"http://127.0.0.1:{port}/", data=b"x")
        assert factory.connections == 5


async def test_idle_connection_that_the_server_closed() -> None:
    """A server that closes idle connections does not fail the next call."""
    factory = Scripted(([OK], "close"))
    async with serving(factory) as port, Client(global_reactor(), QUICK) as client:
        for _ in range(3):
            assert (await client.get(f"http://127.0.0.1:{port}/")).body == b"ok"
            await deferLater(global_reactor(), 0.05)
    assert factory.connections == 3


async def test_server_that_closes_without_a_word() -> None:
    """What the kernel knows of a connection's end is seen before a POST, which is not repeated."""
    served: list[int] = []

    def serve(listener: socket.socket, closed: threading.Semaphore) -> None:
        for number in range(20):
            connection, _ = listener.accept()
            with connection:
                received = b""
                while not received.endswith(b"\r\n\r\nbody"):
                    received += connection.recv(4096)
                connection.sendall(OK)
            served.append(number)
            closed.release()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = threading.Semaphore(0)
        server = threading.Thread(target=serve, args=(listener, closed), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with Client(global_reactor(), QUICK) as client:
            for _ in range(20):
                assert (await client.post(url, data=b"body")).body == b"ok"
                # The reactor does not run meanwhile.
                assert closed.acquire(timeout=60)
        server.join(60)
    assert served == [*range(20)]


async def test_not_http() -> None:
    """A server of another protocol is a BadResponse."""
    factory = Scripted(([b"SSH-2.0-x\r\n"], "stall"))
    async with serving(factory) as port, Client(global_reactor(), QUICK) as client:
        with pytest.raises(BadResponse):
            await client.get(f"http://127.0.0.1:{port}/")
    assert factory.connections == 1


async def test_endless_header() -> None:
    """An endless header is refused."""
    lines = [b"HTTP/1.1 200 OK\r\n", *[b"X-Filler: " + b"x" * 4000 + b"\r\n"] * 40]
    factory = Scripted((lines, "stall"))
    async with serving(factory) as port, Client(global_reactor(), ONCE) as client:
        with pytest.raises(BadResponse, match="header is larger than 65536 bytes"):
            await client.get(f"http://127.0.0.1:{port}/")


async def test_bomb() -> None:
    """A compression bomb ends at the limit."""
    bomb = gzip.compress(b"\0" * 50_000_000)

    def answer(request: Request, count: int) -> bytes:
        request.setHeader("Content-Encoding", "gzip")
        return bomb

    async with serving(Site(Page(answer))) as port, Client(global_reactor(), ONCE) as client:
        with pytest.raises(BodyTooLarge) as caught:
            await client.get(f"http://127.0.0.1:{port}/", max_body=1_000_000)
        assert caught.value.limit == 1_000_000


async def test_compressed() -> None:
    """A compressed body is decompressed, from the cache too."""

    def answer(request: Request, count: int) -> bytes:
        assert request.getHeader("accept-encoding") == ACCEPTED
        request.setHeader("Content-Encoding", "gzip")
        request.setHeader("Cache-Control", "max-age=60")
        return gzip.compress(b"hello" * 1000)

    async with serving(Site(Page(answer))) as port, Client(global_reactor(), ONCE) as client:
        for from_cache in (False, True):
            response = await client.get(f"http://127.0.0.1:{port}/")
            assert response.body == b"hello" * 1000
            assert response.from_cache is from_cache
            assert "content-encoding" not in response.headers


async def test_revalidation() -> None:
    """A stale response is validated by its server."""

    def answer(request: Request, count: int) -> bytes:
        request.setHeader("Cache-Control", "max-age=0")
        if request.setETag(b"v1"):
            return b""
        return b"body"

    page = Page(answer)
    async with serving(Site(page)) as port, Client(global_reactor(), ONCE) as client:
        for attempts, from_cache in ((1, False), (1, True)):
            response = await client.get(f"http://127.0.0.1:{port}/")
            assert (response.status, response.body) == (200, b"body")
            assert (response.attempts, response.from_cache) == (attempts, from_cache)
    assert page.count == 2


async def test_redirect_to_a_refused_address() -> None:
    """A policy that allows one address does not allow a redirect to another."""
    inside = Page(lambda request, count: b"secret")
    async with serving(Site(inside)) as hidden:

        def answer(request: Request, count: int) -> bytes:
            request.redirect(f"http://127.0.0.2:{hidden}/".encode())
            return b""

        async with serving(Site(Page(answer))) as port:
            policy = EgressPolicy(allow=("127.0.0.1",))
            async with Client(global_reactor(), ONCE, egress=policy) as client:
                with pytest.raises(AddressRefused):
                    await client.get(f"http://127.0.0.1:{port}/")
    assert inside.count == 0


async def test_spellings_of_loopback() -> None:
    """Loopback is refused in all its spellings."""
    async with Client(global_reactor(), ONCE, egress=EgressPolicy(ports=())) as client:
        for host in ("localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"):
            with pytest.raises(AddressRefused):
                await client.get(f"http://{host}:1/")


async def test_nobody_there() -> None:
    """A port without a server, and a name without an address, are errors."""
    async with Client(global_reactor(), ONCE) as client:
        with pytest.raises(CannotConnect):
            await client.get("http://127.0.0.1:1/")
        with pytest.raises(NameNotFound):
            await client.get("http://nobody.invalid/")


async def test_close_ends_everything() -> None:
    """Calls in every phase fail at once when the client is closed, and leave nothing."""
    factory = Scripted(([], "stall"), ([OK[:-1]], "stall"), ([], "stall"))
    async with serving(factory) as port:
        client = Client(global_reactor(), QUICK)
        url = f"http://127.0.0.1:{port}/"
        calls = [Deferred.fromCoroutine(client.get(url + str(i))) for i in range(4)]
        await until(global_reactor(), lambda: factory.connections == 4)
        await client.close()
        for call in calls:
            with pytest.raises(FetchError, match="closed"):
                await call


async def test_treq_over_the_agent() -> None:
    """treq's own client uses all steps through the agent."""

    def answer(request: Request, count: int) -> bytes:
        if count == 1:
            request.setResponseCode(502)
            return b""
        request.setHeader("Cache-Control", "max-age=60")
        return b"hello"

    page = Page(answer)
    agent = HTTPAgent(global_reactor(), QUICK)
    treq = HTTPClient(agent)
    async with serving(Site(page)) as port:
        for _ in range(2):
            response = await treq.get(f"http://127.0.0.1:{port}/", reactor=global_reactor())
            assert await response.content() == b"hello"
    await agent.close()
    assert page.count == 2


def certificate(host: str) -> PrivateCertificate:
    """Make a self-signed certificate for *host*."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(pem)
    return loaded


async def test_system_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authorities of the system are loaded when the client is made, for all hosts."""
    good = certificate("localhost")
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(Certificate(good.original).dumpPEM())
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    site = CountingSite(Page(lambda request, count: b"secure"))
    async with serving(site, good.options()) as port, Client(global_reactor(), ONCE) as client:
        # As if no descriptor were left to open it by.
        authorities.unlink()
        with pytest.raises(TLSFailed, match="another host"):
            await client.get(f"https://127.0.0.1:{port}/")
        assert (await client.get(f"https://localhost:{port}/")).body == b"secure"


async def test_final_dot() -> None:
    """TLS names a host without its final dot (RFC 6066 §3); the certificate has none either."""
    good = certificate("localhost")
    site = CountingSite(Page(lambda request, count: request.getHeader(b"host") or b""))
    policy = BrowserLikePolicyForHTTPS(trustRootFromCertificates([Certificate(good.original)]))
    resolver = FakeResolver({"localhost.": ["127.0.0.1"]})
    client = Client(global_reactor(), ONCE, tls_policy=policy, resolver=resolver)
    async with serving(site, good.options()) as port, client:
        response = await client.get(f"https://localhost.:{port}/")
        assert response.body == f"localhost.:{port}".encode()


async def test_no_such_host() -> None:
    """What is no host name ends at once, without a look-up and without a word in the log."""
    async with Client(global_reactor(), ONCE) as client:
        for host in ("a..b", "." * 9, "a" * 64 + ".example", "\u00e9" * 64, "1.2.3.4.5"):
            with pytest.raises(InvalidURL):
                await client.get(f"http://{host}/")


async def test_tls() -> None:
    """A trusted certificate is accepted; an unknown one, and one of another host, are not."""
    good = certificate("localhost")
    site = CountingSite(Page(lambda request, count: b"secure"))
    trust = trustRootFromCertificates([Certificate(good.original)])
    policy = BrowserLikePolicyForHTTPS(trust)
    async with serving(site, good.options()) as port:
        url = f"https://localhost:{port}/"
        async with Client(global_reactor(), ONCE, tls_policy=policy) as client:
            for _ in range(2):
                assert (await client.get(url)).body == b"secure"
        assert site.connections == 1
        async with Client(global_reactor(), QUICK) as client:
            with pytest.raises(TLSFailed, match="certificate verify failed"):
                await client.get(url)
        assert site.connections == 2
    other = certificate("other.example")
    policy = BrowserLikePolicyForHTTPS(trustRootFromCertificates([Certificate(other.original)]))
    client = Client(global_reactor(), ONCE, tls_policy=policy)
    async with serving(site, other.options()) as port, client:
        with pytest.raises(TLSFailed, match="another host"):
            await client.get(f"https://localhost:{port}/")
