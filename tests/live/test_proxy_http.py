"""The HTTP client through a real proxy on loopback, with and without a tunnel."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http import Request
from twisted.web.server import Site
from typing_extensions import override

from tests.live.test_http import ONCE, CountingSite, Page, certificate, global_reactor, serving
from tests.patience import PATIENCE
from twisted_net.http.client import Client
from twisted_net.http.errors import FetchTimeout, ProxyFailed, TLSFailed
from twisted_net.http.fetch import Fetcher
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import FetchSettings, HttpSettings

AUTHORIZATION = b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="


class Piece(Protocol):
    """One side of a tunnel of the proxy: passes all that it receives to the other side."""

    other: Any = None

    @override
    def dataReceived(self, data: bytes) -> None:
        self.other.transport.write(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None:
            self.other.transport.loseConnection()


class ProxySide(Piece):
    """Reads one header, then passes data between the client and the server that it names."""

    def __init__(self, proxy: SmallProxy) -> None:
        self._proxy = proxy
        self._received = b""
        self._joining: Deferred[None] | None = None

    @override
    def dataReceived(self, data: bytes) -> None:
        if self.other is not None:
            super().dataReceived(data)
            return
        self._received += data
        if b"\r\n\r\n" in self._received and self._joining is None:
            self._joining = Deferred.fromCoroutine(self._join())

    async def _join(self) -> None:
        transport: Any = self.transport
        self._proxy.heads.append(self._received)
        if self._proxy.silent:
            return
        if AUTHORIZATION not in self._received:
            transport.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            return
        method, uri, _ = self._received.split(b"\r\n", 1)[0].split(b" ")
        authority = uri if method == b"CONNECT" else uri.split(b"/")[2]
        port = int(authority.rpartition(b":")[2])
        endpoint = TCP4ClientEndpoint(global_reactor(), "127.0.0.1", port)
        piece = Piece()
        piece.other = self
        try:
            await connectProtocol(endpoint, piece)
        except ConnectError:
            transport.write(b"HTTP/1.1 502 Nobody there\r\nContent-Length: 0\r\n\r\n")
            return
        self.other = piece
        if method == b"CONNECT":
            transport.write(b"HTTP/1.1 200 Here you are\r\n\r\n")
        else:
            head = self._received.replace(AUTHORIZATION + b"\r\n", b"")
            target: Any = piece.transport
            target.write(head.replace(b"http://" + authority, b"", 1))


class SmallProxy(Factory):
    """
    A proxy for ``user`` with the password ``secret``; every name is that of this machine.

    :ivar heads: the headers it received.
    :ivar silent: whether it never answers.
    """

    noisy = False

    def __init__(self, *, silent: bool = False) -> None:
        self.heads: list[bytes] = []
        self.silent = silent

    @override
    def buildProtocol(self, addr: IAddress | None) -> ProxySide:
        return ProxySide(self)


def through(port: int, user: str = "user:secret", **more: Any) -> HttpSettings:
    """Return settings with the proxy at *port*."""
    settings = {"timeout": PATIENCE, "retry": RetryPolicy(retries=0), **more}
    return HttpSettings(proxy=f"http://{user}@127.0.0.1:{port}", **settings)


def secret_seen(request: Request) -> bool:
    """Return whether the credentials of the proxy reached the server."""
    return request.getHeader("proxy-authorization") is not None


async def test_https() -> None:
    """TLS runs inside the tunnel, with the server's own certificate; the tunnel is reused."""
    good = certificate("inside.example")
    trust = trustRootFromCertificates([Certificate(good.original)])
    policy = BrowserLikePolicyForHTTPS(trust)
    seen = []

    def answer(request: Request, count: int) -> bytes:
        seen.append(secret_seen(request))
        return b"x" * 300_000

    proxy = SmallProxy()
    site = CountingSite(Page(answer))
    async with serving(site, good.options()) as port, serving(proxy) as way:
        async with Client(global_reactor(), through(way), tls_policy=policy) as client:
            for _ in range(2):
                response = await client.get(f"https://inside.example:{port}/")
                assert response.body == b"x" * 300_000
        async with Client(global_reactor(), through(way), tls_policy=policy) as client:
            with pytest.raises(TLSFailed, match="another host"):
                await client.get(f"https://other.example:{port}/")
    assert seen == [False, False]
    assert site.connections == 2
    assert len(proxy.heads) == 2
    assert proxy.heads[0].startswith(b"CONNECT inside.example:%d HTTP/1.1\r\n" % port)


async def test_http() -> None:
    """An http request is sent to the proxy whole; a bypassed one directly to its server."""
    seen = []

    def answer(request: Request, count: int) -> bytes:
        seen.append((request.uri, secret_seen(request)))
        return b"ok"

    proxy = SmallProxy()
    async with serving(Site(Page(answer))) as port, serving(proxy) as way:
        url = f"http://inside.example:{port}/a?b"
        environ = {"http_proxy": f"user:secret@127.0.0.1:{way}", "no_proxy": "127.0.0.1"}
        settings = HttpSettings(proxy="environment")
        async with Client(global_reactor(), settings, environ=environ) as client:
            assert (await client.get(url)).body == b"ok"
            assert (await client.get(f"http://127.0.0.1:{port}/c")).body == b"ok"
    assert seen == [(b"/a?b", False), (b"/c", False)]
    assert [head.split(b"\r\n")[0] for head in proxy.heads] == [b"GET %s HTTP/1.1" % url.encode()]


async def test_expect() -> None:
    """A body waits for the server behind a proxy, and behind a tunnel with TLS."""
    good = certificate("inside.example")
    policy = BrowserLikePolicyForHTTPS(trustRootFromCertificates([Certificate(good.original)]))
    page = Page(lambda request, count: request.content.read() if request.content else b"")
    proxy = SmallProxy()
    async with (
        serving(Site(page)) as plain,
        serving(Site(page), good.options()) as secure,
        serving(proxy) as way,
        Client(
            global_reactor(),
            through(way, continue_timeout=PATIENCE),
            tls_policy=policy,
            headers={"Expect": "100-continue"},
        ) as client,
    ):
        for url in (f"http://inside.example:{plain}/", f"https://inside.example:{secure}/"):
            for body in (b"abc", b"x" * 300_000):
                assert (await client.put(url, data=iter([body]))).body == body
    assert all(head.endswith(b"\r\n\r\n") for head in proxy.heads)
    assert b"Expect: 100-continue\r\n" in proxy.heads[0]


async def test_fetch() -> None:
    """FETCH asks for a tunnel to the address that it checked."""
    proxy = SmallProxy()
    page = Page(lambda request, count: b"ok")
    async with serving(Site(page)) as port, serving(proxy) as way:
        reach = FetchSettings(allow=("localhost",))
        fetcher = Fetcher.guarded(global_reactor(), through(way), reach)
        found = await fetcher.fetch(f"http://localhost:{port}/")
        await fetcher.close()
    assert found["body"] == "ok"
    # The proxy reaches 127.0.0.1 only, but is asked for whatever address was found first.
    first = proxy.heads[0].split(b" ")[1]
    assert first in (b"127.0.0.1:%d" % port, b"[::1]:%d" % port)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_wrong_password(scheme: str) -> None:
    """Wrong credentials are an error of the proxy, whose message does not contain them."""
    async with serving(SmallProxy()) as way:
        client = Client(global_reactor(), through(way, "user:hidden"))
        with pytest.raises(ProxyFailed, match="credentials") as caught:
            await client.get(f"{scheme}://inside.example/")
        await client.close()
    assert caught.value.status == 407
    assert "hidden" not in str(caught.value)


async def test_nobody_behind() -> None:
    """A server that the proxy cannot reach is a transient error of the proxy."""
    async with serving(SmallProxy()) as way, Client(global_reactor(), through(way)) as client:
        with pytest.raises(ProxyFailed) as caught:
            await client.get("https://inside.example:1/")
    assert (caught.value.status, caught.value.transient) == (502, True)


async def test_silent() -> None:
    """A proxy that never answers ends with the timeout of connecting."""
    async with serving(SmallProxy(silent=True)) as way:
        settings = through(way, connect_timeout=0.1)
        async with Client(global_reactor(), settings) as client:
            with pytest.raises(FetchTimeout, match="connect"):
                await client.get("https://inside.example/")


async def test_no_proxy_there() -> None:
    """A proxy that is not running is an error; without a setting no proxy is used."""
    async with Client(global_reactor(), through(1)) as client:
        with pytest.raises(ProxyFailed):
            await client.get("http://inside.example/")
    async with serving(Site(Page(lambda request, count: b"ok"))) as port:
        environ = {"http_proxy": "127.0.0.1:1"}
        async with Client(global_reactor(), ONCE, environ=environ) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).ok
