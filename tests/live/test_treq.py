"""treq's client over our agent, beside treq's own over Twisted's, against one server."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import treq
from treq.client import HTTPClient as TreqClient
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.web.client import Agent, ResponseFailed
from twisted.web.error import PageRedirect
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from typing_extensions import override

from tests.garbage import cyclic_garbage
from tests.live.test_http import Page, global_reactor, serving
from tests.patience import PATIENCE, until
from twisted_net.errors import FetchError
from twisted_net.http import HTTPAgent, HttpSettings
from twisted_net.http.cache import CacheSettings
from twisted_net.http.retry import RetryPolicy
from twisted_net.http.treq import HTTPClient

TEXT = "text, \u00e4\u00f6\u00fc " * 50
MOVED = (301, 302, 303, 307, 308)


class Server(Resource):
    """Answers each path in its own way, and notes what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.asked: list[object] = []
        self.waiting = 0

    @override
    def render(self, request: Request) -> Any:  # Any: bytes, or NOT_DONE_YET
        fields = request.requestHeaders
        shown = ("cookie", "authorization", "content-type", "content-length", "x-a")
        self.asked.append(
            (
                request.method,
                request.uri,
                [fields.getRawHeaders(name) for name in shown],
                request.content.read() if request.content else b"",
            )
        )
        _, name, *rest = request.path.decode().split("/")
        return getattr(self, f"answer_{name}")(request, *rest)

    render_HEAD = render

    def answer_text(self, request: Request, charset: str = "utf-8") -> bytes:
        request.setHeader("Content-Type", f"text/plain; charset={charset}")
        request.setHeader("X-B", "c")
        return TEXT.encode("utf-8" if charset in ("utf-8", "none") else charset)

    def answer_json(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return b'{"a": [1, 2]}'

    def answer_status(self, request: Request, code: str) -> bytes:
        request.setResponseCode(int(code), b"Its phrase")
        return b"" if code in ("204", "304") else b"body of " + code.encode()

    def answer_chunks(self, request: Request, count: str = "3") -> int:
        gone: list[object] = []  # A HEAD is answered by the head alone: its client may go.
        request.notifyFinish().addErrback(gone.append)

        def write(left: int) -> None:
            if gone:
                return
            if left:
                request.write(b"chunk ")
                global_reactor().callLater(0, write, left - 1)
            else:
                request.finish()

        write(int(count))
        return NOT_DONE_YET

    def answer_gzip(self, request: Request, coding: str = "gzip") -> bytes:
        request.setHeader("Content-Encoding", coding)
        return gzip.compress(TEXT.encode())

    def answer_moved(self, request: Request, code: str, then: str = "text") -> int:
        request.setResponseCode(int(code))
        request.setHeader("Location", "/" + then.replace(",", "/"))
        return self.answer_chunks(request)

    def answer_nowhere(self, request: Request) -> bytes:
        request.setResponseCode(302)
        return b""

    def answer_cookie(self, request: Request, name: str, then: str = "") -> bytes:
        request.addCookie(name, b"v")
        if then:
            request.setResponseCode(302)
            request.setHeader("Location", "/" + then.replace(",", "/"))
        return b"cookie"

    def answer_never(self, request: Request) -> int:
        self.waiting += 1
        done = request.notifyFinish()
        done.addErrback(lambda _: setattr(self, "waiting", self.waiting - 1))
        return NOT_DONE_YET


Call = Callable[[Any, str], Deferred[Any]]  # Any: a client and a response of treq

REDIRECTS = {
    "strict": {},
    "as browsers": {"browser_like_redirects": True},
    "not followed": {"allow_redirects": False},
}


def moved(verb: str, code: int, options: dict[str, bool]) -> Call:
    """Return a call that is redirected."""
    return lambda client, url: client.request(verb, f"{url}moved/{code}", **options)


CALLS: dict[str, Call] = {
    "get": lambda client, url: client.get(url + "text"),
    "bytes": lambda client, url: client.get(url.encode() + b"text"),
    "upper case": lambda client, url: client.request("get", url.replace("http", "HTTP") + "text"),
    "head": lambda client, url: client.head(url + "text"),
    "head of gzip": lambda client, url: client.head(url + "gzip"),
    "delete": lambda client, url: client.delete(url + "text"),
    "put nothing": lambda client, url: client.put(url + "text"),
    "post nothing": lambda client, url: client.post(url + "text"),
    "options": lambda client, url: client.request("OPTIONS", url + "text"),
    "parameters": lambda client, url: client.get(
        url + "text?x=1#y", params={"a": ["b", "\u00e4 &"], "c": 3}
    ),
    "encoded": lambda client, url: client.get(url + "text?\u00e4=%20 b&c"),
    "headers": lambda client, url: client.get(url + "text", headers={"X-A": ["b", "c"]}),
    "latin": lambda client, url: client.get(url + "text/iso-8859-1"),
    "json": lambda client, url: client.get(url + "json"),
    "none": lambda client, url: client.get(url + "status/204"),
    "unchanged": lambda client, url: client.get(
        url + "status/304", headers={"If-None-Match": '"x"'}
    ),
    "missing": lambda client, url: client.get(url + "status/404"),
    "broken": lambda client, url: client.get(url + "status/500"),
    "chunked": lambda client, url: client.get(url + "chunks"),
    "unbuffered": lambda client, url: client.get(url + "chunks", unbuffered=True),
    "gzip": lambda client, url: client.get(url + "gzip"),
    "unknown coding": lambda client, url: client.get(url + "gzip/none,gzip"),
    "own codings": lambda client, url: client.get(url + "gzip", headers={"Accept-Encoding": "br"}),
    "twice": lambda client, url: client.get(url + "moved/302/moved,301,gzip"),
    "redirect to a status": lambda client, url: client.get(url + "moved/302/status,404"),
    "redirect unbuffered": lambda client, url: client.get(
        url + "moved/302/chunks", unbuffered=True
    ),
    "loop": lambda client, url: client.get(url + "moved/302/moved,302"),
    "nowhere": lambda client, url: client.get(url + "nowhere"),
    "nowhere, not followed": lambda client, url: client.get(url + "nowhere", allow_redirects=False),
    "timeout": lambda client, url: client.get(
        url + "text", timeout=PATIENCE, reactor=global_reactor()
    ),
    "form": lambda client, url: client.post(url + "text", data={"a": "b"}),
    "content": lambda client, url: client.put(url + "text", data=b"abc"),
    "json body": lambda client, url: client.post(url + "text", json={"a": 1}),
    "credentials": lambda client, url: client.get(url + "text", auth=("ann", "secret")),
    "cookies": lambda client, url: client.get(url + "text", cookies={"own": "x"}),
    **{
        f"{verb} {code} {kind}": moved(verb, code, options)
        for code in MOVED
        for verb in ("GET", "HEAD", "POST")
        for kind, options in REDIRECTS.items()
    },
}

HIDDEN = {"date", "server", "cache-status", "age", "content-length"}
"""
Fields of which treq over Twisted's agent has none, or other values.

``Content-Length`` is that of the connection, which Twisted does not show.
"""

EMPTY_CODING = (b"Content-Encoding", [b""])
"""What Twisted's ``ContentDecoderAgent`` adds to a response without the field."""


async def shown(response: Any) -> dict[str, object]:  # Any: treq's response
    """Return all that can be seen of a response."""
    found = {
        "type": type(response),
        "version": response.version,
        "code": response.code,
        "phrase": response.phrase,
        "headers": sorted(
            (name, values)
            for name, values in response.headers.getAllRawHeaders()
            if name.decode().lower() not in HIDDEN and (name, values) != EMPTY_CODING
        ),
        "method": response.request.method,
        "url": response.request.absoluteURI,
        "cookies": sorted((each.name, each.value) for each in response.cookies()),
    }
    if response.request.method != b"HEAD":
        try:
            found["content"] = await response.content()
        except Exception as error:
            found["content"] = type(error)
    return found


async def outcome(calling: Deferred[Any]) -> object:
    """Return all that can be seen of a call."""
    try:
        response = await calling
    except ResponseFailed as error:
        reasons = [reason.value for reason in error.reasons]
        body = await treq.content(error.response) if error.response is not None else None
        return [
            (type(each), each.status, each.location if type(each) is PageRedirect else None)
            for each in reasons
        ], body
    found = await shown(response)
    return found, [await shown(each) for each in response.history()]


def settings(*, cache: bool) -> HttpSettings:
    """Return settings without retries."""
    return HttpSettings(
        timeout=PATIENCE, retry=RetryPolicy(retries=0), cache=CacheSettings(enabled=cache)
    )


@asynccontextmanager
async def engine(**options: Any) -> AsyncIterator[HTTPAgent]:  # Any: settings
    """Yield an agent of ours, and close it."""
    agent = HTTPAgent(global_reactor(), HttpSettings(timeout=PATIENCE, **options))
    try:
        yield agent
    finally:
        await agent.close()


async def seen_by_both(
    scenario: Callable[[TreqClient, str], Awaitable[object]], *, cache: bool
) -> list[tuple[object, object]]:
    """Run a scenario with our class and with treq's; return what they and their server saw."""
    seen: list[tuple[object, object]] = []
    agent = HTTPAgent(global_reactor(), settings(cache=cache))
    clients = [HTTPClient(agent), TreqClient(Agent(global_reactor()))]
    # One port, which is in the requests.
    server = Server()
    async with serving(Site(server)) as port:
        for client in clients:
            server.asked = []
            found = await scenario(client, f"http://127.0.0.1:{port}/")
            seen.append((found, server.asked))
    await agent.close()
    return seen


@pytest.mark.parametrize("cache", [True, False], ids=["cached", "not cached"])
@pytest.mark.parametrize("name", CALLS)
async def test_same(name: str, *, cache: bool) -> None:
    """A call has the same outcome, and the server sees the same."""
    ours, theirs = await seen_by_both(
        lambda client, url: outcome(CALLS[name](client, url)), cache=cache
    )
    assert ours == theirs


@pytest.mark.parametrize("cache", [True, False], ids=["cached", "not cached"])
async def test_same_session(*, cache: bool) -> None:
    """Cookies go along the same way through many calls of one client."""
    paths = (
        *("text", "cookie/a", "text", "moved/302", "cookie/b/text", "text", "moved/302/cookie,c"),
        *("gzip", "cookie/d/cookie,e,text", "chunks"),
    )

    async def session(client: TreqClient, url: str) -> object:
        found = [await outcome(client.get(url + path)) for path in paths]
        found.append(await outcome(client.get(url + "text", cookies={"own": "x"})))
        found.append(await outcome(client.post(url + "text", data=b"abc")))
        return found

    ours, theirs = await seen_by_both(session, cache=cache)
    assert ours == theirs


async def test_same_texts() -> None:
    """Text and JSON are decoded alike, any number of times."""

    async def read(client: TreqClient, url: str) -> object:
        found: list[object] = []
        for path in ("text", "text/iso-8859-1", "json", "gzip"):
            response: Any = await client.get(url + path)  # Any: treq's response
            for _ in range(2):
                found.append(await response.text())
                found.append(await response.text("utf-8"))
                found.append(await treq.content(response))
            if path == "json":
                found.append(await response.json())
        pieces: list[bytes] = []
        response = await client.get(url + "chunks/50", unbuffered=True)
        await response.collect(pieces.append)
        return found, b"".join(pieces)

    ours, theirs = await seen_by_both(read, cache=False)
    assert ours == theirs


async def test_same_at_once() -> None:
    """Many calls at once have the same outcomes."""
    names = ("get", "chunked", "gzip", "twice", "missing", "json", "unbuffered")

    async def many(client: TreqClient, url: str) -> object:
        calls = [Deferred.fromCoroutine(outcome_of(CALLS[name], client, url)) for name in names * 5]
        results = await DeferredList(calls)
        return [found for _, found in results]

    async def outcome_of(call: Call, client: TreqClient, url: str) -> object:
        return await outcome(call(client, url))

    seen = []
    async with serving(Site(Server())) as port, engine() as agent:
        for client in (HTTPClient(agent), TreqClient(Agent(global_reactor()))):
            seen += [await many(client, f"http://127.0.0.1:{port}/")]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("path", ["never", "moved/302/never"])
@pytest.mark.parametrize("how", ["cancelled", "timeout"])
async def test_ended(path: str, how: str) -> None:
    """A call that is cancelled, or takes too long, drops its request and raises the same."""
    raised = []
    server = Server()
    async with serving(Site(server)) as port, engine() as agent:
        for client in (HTTPClient(agent), TreqClient(Agent(global_reactor()))):
            url = f"http://127.0.0.1:{port}/{path}"
            if how == "timeout":
                calling = client.get(url, timeout=0.3, reactor=global_reactor())
            else:
                calling = client.get(url)
                await until(global_reactor(), lambda: server.waiting == 1)
                calling.cancel()
            with pytest.raises(Exception) as caught:  # noqa: PT011 - of whichever type
                await calling
            raised.append(caught.value)
            await until(global_reactor(), lambda: server.waiting == 0)
    assert isinstance(raised[0], CancelledError)


async def test_global_reactor() -> None:
    """A timeout without a reactor is by the global one, as with treq."""
    server = Server()
    async with serving(Site(server)) as port, engine() as agent:
        with pytest.raises(CancelledError):
            await HTTPClient(agent).get(f"http://127.0.0.1:{port}/never", timeout=0.05)
        await until(global_reactor(), lambda: server.waiting == 0)


async def test_refused() -> None:
    """A failure of the network is one of ours, whichever way the call is made."""
    async with serving(Site(Server())) as port:
        pass
    async with engine(retry=RetryPolicy(retries=0)) as agent:
        client: Any = HTTPClient(agent)
        for options in ({}, {"auth": ("ann", "secret")}):
            with pytest.raises(FetchError):
                await client.get(f"http://127.0.0.1:{port}/", **options)


@pytest.mark.parametrize("options", [{}, {"cookies": {"a": "b"}}], ids=["plain", "by treq"])
async def test_redirect_body(options: dict[str, Any]) -> None:  # Any: of a call
    """The body of a redirect, which nobody reads, keeps no connection from the next request."""
    async with serving(Site(Server())) as port, engine(max_per_origin=1) as agent:
        response: Any = await HTTPClient(agent).get(
            f"http://127.0.0.1:{port}/moved/302/moved,301", **options
        )
        assert await response.content() == TEXT.encode()
        assert [await each.content() for each in response.history()] == [b"chunk " * 3] * 2


async def test_hit() -> None:
    """A hit of the cache is read as often as one likes, and shows its request and no cookies."""

    def answer(request: Request, count: int) -> bytes:
        request.setHeader("Cache-Control", "max-age=60")
        request.addCookie("a", "b")
        return b"hello"

    page = Page(answer)
    async with serving(Site(page)) as port, engine() as agent:
        url = f"http://127.0.0.1:{port}/"
        first: Any = HTTPClient(agent)
        others: Any = HTTPClient(agent)
        response: Any = await first.get(url)
        assert await response.content() == b"hello"
        assert response.cookies()["a"] == "b"
        kinds: list[dict[str, object]] = [{}, {"unbuffered": True}, {"cookies": {}}]
        for kind in kinds:
            response = await others.get(url, **kind)
            assert [await response.content() for _ in range(2)] == [b"hello"] * 2
            assert response.request.absoluteURI == url.encode()
            assert not list(response.cookies())
    assert page.count == 1


@pytest.mark.parametrize("name", ["get", "chunked", "gzip", "twice", "loop", "cookies", "form"])
async def test_garbage(name: str) -> None:
    """Nothing of a call is left in cycles."""
    async with serving(Site(Server())) as port, engine() as agent:
        client = HTTPClient(agent)
        with cyclic_garbage() as left:
            for _ in range(2):
                await outcome_or_none(CALLS[name](client, f"http://127.0.0.1:{port}/"))
            for _ in range(5):
                await deferLater(global_reactor(), 0.001)
        assert left == set()


async def test_garbage_of_ends() -> None:
    """Nothing of a call that is cancelled or timed is left in cycles."""
    server = Server()
    async with serving(Site(server)) as port, engine() as agent:
        client = HTTPClient(agent)
        url = f"http://127.0.0.1:{port}/"
        with cyclic_garbage() as left:
            calling: Any = client.get(url + "never")
            await until(global_reactor(), lambda: server.waiting == 1)
            calling.cancel()
            await outcome_or_none(calling)
            del calling
            await outcome_or_none(client.get(url + "never", timeout=0.05))
            await outcome_or_none(client.get(url + "text", timeout=PATIENCE))
            await until(global_reactor(), lambda: server.waiting == 0)
        assert left == set()


async def outcome_or_none(calling: Deferred[Any]) -> None:
    """Wait for the end of a call, and read its body."""
    with suppress(CancelledError):
        await outcome(calling)
