"""What the HTTP client leaves of its calls: nothing that waits for a collection of garbage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from typing_extensions import override
from zope.interface import implementer

from tests.garbage import cyclic_garbage
from tests.live.test_http import global_reactor
from twisted_net.errors import FetchError
from twisted_net.http import Client, HttpSettings
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.errors import FetchTimeout
from twisted_net.http.retry.settings import RetryPolicy

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
STORED = HEAD + b'ETag: "x"\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\n'
GZIP = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 99\r\n\r\n"
TO_ITSELF = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"

FIN, RESET = "FIN", "RST"

ANSWERS: dict[str, list[bytes | str]] = {
    "whole": [HEAD + b"Content-Length: 2\r\n\r\nok"],
    "in pieces": [CHUNKED, b"2\r\nok\r\n", b"0\r\n\r\n"],
    "until the end": [HEAD + b"\r\n", b"ok", FIN],
    "stored": [STORED + b"abc", b"def"],
    "stored in part": [STORED + b"abc", RESET],
    "none": [FIN],
    "reset in the header": [HEAD, RESET],
    "cut in the body": [CHUNKED + b"2\r\nok\r\n", FIN],
    "reset in the body": [CHUNKED + b"2\r\nok\r\n", RESET],
    "no response": [b"hello\r\n\r\n"],
    "bad chunk": [CHUNKED + b"2\r\nok\r\n", b"x\r\n"],
    "bad gzip": [GZIP + b"hello"],
    "too large": [HEAD + b"Content-Length: 9999999999\r\n\r\n"],
    "many interim": [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200],
    "redirects": [TO_ITSELF],
    "surplus": [HEAD + b"Content-Length: 2\r\n\r\nok and more"],
    "silent": [],
    "silent in the body": [CHUNKED + b"2\r\nok\r\n"],
}


class Server(Protocol):
    """Answers each request with the same parts, each in a packet of its own."""

    parts: list[bytes | str]

    @override
    def dataReceived(self, data: bytes) -> None:
        if data.startswith(b"GET /first "):
            self._send(list(ANSWERS["whole"]))
        elif data.endswith(b"\r\n\r\n"):
            self._send(list(self.parts))

    def _send(self, parts: list[bytes | str]) -> None:
        transport: Any = self.transport  # Any: of TCP
        if not parts or transport.disconnected:
            return
        part = parts.pop(0)
        if part == FIN:
            transport.loseConnection()
        elif part == RESET:
            transport.abortConnection()
        else:
            transport.write(part)
            global_reactor().callLater(0.005, self._send, parts)


@asynccontextmanager
async def answering(parts: list[bytes | str]) -> AsyncIterator[str]:
    """Run a server; yield its URL."""
    reactor = global_reactor()
    server = type("_Server", (Server,), {"parts": parts})
    port = reactor.listenTCP(0, Factory.forProtocol(server), interface="127.0.0.1")
    try:
        yield f"http://127.0.0.1:{port.getHost().port}/"
    finally:
        await port.stopListening()


@implementer(IHostnameResolver, IHostResolution)
class SilentResolver:
    """Never finds an address."""

    name = "a.example"

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, *arguments: object
    ) -> IHostResolution:
        resolutionReceiver.resolutionBegan(self)
        return self

    def cancel(self) -> None:
        """Do nothing: no result will come."""


async def turns(count: int) -> None:
    """Let the reactor run."""
    for _ in range(count):
        await deferLater(global_reactor(), 0.001)


def settings(*, cache: bool) -> HttpSettings:
    """Return the settings of a client that does not wait for long."""
    return HttpSettings(
        timeout=0.2,
        retry=RetryPolicy(retries=1, base=0.001, cap=0.001),
        cache=CacheSettings(enabled=cache),
    )


async def get(client: Client, url: str) -> None:
    """Get a response in memory."""
    await client.get(url)


async def post(client: Client, url: str) -> None:
    """Send a body in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1000
            await deferLater(global_reactor(), 0)

    await client.post(url, data=pieces())


async def read_stream(client: Client, url: str) -> None:
    """Read a body as it comes."""
    async with client.stream("GET", url) as response:
        await response.read()


async def leave_stream(client: Client, url: str) -> None:
    """Leave a body after its first piece."""
    async with client.stream("GET", url) as response:
        async for _ in response:
            return


@pytest.mark.parametrize("cache", [True, False], ids=["cached", "not cached"])
@pytest.mark.parametrize("call", [get, post, read_stream, leave_stream])
@pytest.mark.parametrize("name", ANSWERS)
async def test_answers(
    name: str, call: Callable[[Client, str], Awaitable[None]], *, cache: bool
) -> None:
    """However a server answers, nothing of a call is left in cycles."""
    async with (
        answering(ANSWERS[name]) as url,
        Client(global_reactor(), settings(cache=cache)) as client,
    ):
        with cyclic_garbage() as left:
            with suppress(FetchError):
                await call(client, url)
            await turns(5)
        assert left == set()


@pytest.mark.parametrize("cache", [True, False], ids=["cached", "not cached"])
@pytest.mark.parametrize("after", [0, 1, 5, 20])
@pytest.mark.parametrize("name", ["in pieces", "silent", "silent in the body", "redirects", "none"])
async def test_cancelled(name: str, after: int, *, cache: bool) -> None:
    """Nothing of a call that is cancelled is left in cycles, either."""
    async with (
        answering(ANSWERS[name]) as url,
        Client(global_reactor(), settings(cache=cache)) as client,
    ):
        with cyclic_garbage() as left:
            calling = Deferred.fromCoroutine(client.get(url))
            calling.addErrback(lambda _: None)
            await turns(after)
            calling.cancel()
            await turns(5)
            del calling
        assert left == set()


@pytest.mark.parametrize("cache", [True, False], ids=["cached", "not cached"])
@pytest.mark.parametrize("after", [None, 5])
@pytest.mark.parametrize("name", ANSWERS)
async def test_direct(name: str, after: int | None, *, cache: bool) -> None:
    """Nothing of a call over an idle connection is left in cycles, whether it is cancelled."""
    async with (
        answering(ANSWERS[name]) as url,
        Client(global_reactor(), settings(cache=cache)) as client,
    ):
        await client.get(url + "first")
        with cyclic_garbage() as left:
            calling = Deferred.fromCoroutine(client.get(url))
            calling.addErrback(lambda _: None)
            if after is None:
                await calling
            else:
                await turns(after)
                calling.cancel()
            await turns(5)
            del calling
        assert left == set()


@pytest.mark.parametrize(
    "name", ["none", "reset in the header", "no response", "many interim", "redirects", "silent"]
)
async def test_no_tunnel(name: str) -> None:
    """Nothing of a call for which a proxy opens no tunnel is left in cycles."""
    async with (
        answering(ANSWERS[name]) as url,
        Client(global_reactor(), settings(cache=True)) as client,
    ):
        with cyclic_garbage() as left:
            with pytest.raises(FetchError):
                await client.get("https://a.example/", proxy=url)
            await turns(5)
        assert left == set()


async def test_refused() -> None:
    """Nothing of a call that finds no server is left in cycles."""
    async with answering([]) as url:
        pass
    async with Client(global_reactor(), settings(cache=True)) as client:
        with cyclic_garbage() as left:
            with pytest.raises(FetchError):
                await client.get(url)
            await turns(5)
        assert left == set()


async def test_many_at_once() -> None:
    """Nothing of calls that share a request, or are gathered, is left in cycles."""
    async with (
        answering(ANSWERS["stored in part"]) as url,
        Client(global_reactor(), settings(cache=True)) as client,
    ):
        with cyclic_garbage() as left:
            results = await client.gather([url] * 5)
            assert all(isinstance(result, FetchError) for result in results)
            del results
            await turns(5)
        assert left == set()


@pytest.mark.parametrize("timeouts", [(0.1, 0.2), (0.2, 0.1), (0.1, 0.2, 0.15)])
async def test_other_times(timeouts: tuple[float, ...]) -> None:
    """Nothing of calls that share a request, and have different times for it, is left in cycles."""
    async with (
        answering(ANSWERS["silent"]) as url,
        Client(global_reactor(), settings(cache=True)) as client,
    ):
        with cyclic_garbage() as left:
            results = await client.gather(
                [partial(client.get, url, timeout=timeout) for timeout in timeouts]
            )
            assert all(isinstance(result, FetchTimeout) for result in results)
            del results
            await turns(5)
        assert left == set()


@pytest.mark.parametrize("paths", ["aaa", "abc"])
async def test_no_connection_in_time(paths: str) -> None:
    """Nothing of calls that wait for a connection or a slot until their end is left in cycles."""
    async with Client(
        global_reactor(),
        msgspec.structs.replace(settings(cache=True), max_per_origin=2, timeout=0.1),
        resolver=SilentResolver(),
    ) as client:
        with cyclic_garbage() as left:
            results = await client.gather(
                [
                    partial(client.get, f"http://a.example/{path}", timeout=0.1 + 0.05 * i)
                    for i, path in enumerate(paths)
                ]
            )
            assert all(isinstance(result, FetchTimeout) for result in results)
            del results
            await turns(5)
        assert left == set()
