"""The HTTP cache against a server on loopback."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET, Site

from tests.live.test_http import Page, global_reactor, serving
from tests.patience import PATIENCE, until
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.client import Client
from twisted_net.http.response import Response
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings

BODY = bytes(range(256)) * 4096  # 1 MiB: many reads
SETTINGS = HttpSettings(timeout=PATIENCE, retry=RetryPolicy(retries=0))


def slow_page(*fields: tuple[str, str]) -> Page:
    """Give a page that answers after a while, with a body of many pieces."""

    def answer(request: Request, count: int) -> int:
        def send() -> None:
            for name, value in fields:
                request.setHeader(name, value)
            request.write(BODY[:1000])
            request.write(BODY[1000:])
            cast(Any, request).finish()  # Any: Twisted types it badly

        sending = global_reactor().callLater(0.05, send)
        # Where the client goes first.
        request.notifyFinish().addErrback(lambda _: sending.active() and sending.cancel())
        return NOT_DONE_YET

    return Page(answer)


def get(client: Client, port: int, **options: Any) -> Deferred[Response]:
    """Begin to fetch the page."""
    return Deferred.fromCoroutine(client.get(f"http://127.0.0.1:{port}/", **options))


async def test_hundred_callers() -> None:
    """A hundred callers for one cold URL make one request, and each has the whole body."""
    page = slow_page(("Cache-Control", "max-age=60"))
    async with serving(Site(page)) as port, Client(global_reactor(), SETTINGS) as client:
        responses = await gatherResults([get(client, port) for _ in range(100)])
        assert page.count == 1
        assert all(response.body == BODY for response in responses)
        assert sum(response.from_cache for response in responses) == 99
        assert sum("collapsed" in response.headers["cache-status"] for response in responses) == 99


async def test_first_caller_is_cancelled() -> None:
    """The request goes on for those who wait."""
    page = slow_page(("Cache-Control", "max-age=60"))
    async with serving(Site(page)) as port, Client(global_reactor(), SETTINGS) as client:
        first, second = get(client, port), get(client, port)
        await until(global_reactor(), lambda: page.count == 1)
        first.cancel()
        try:
            await first
        except CancelledError:
            pass
        else:
            raise AssertionError("it was cancelled")
        assert (await second).body == BODY
        assert page.count == 1


async def test_asked_by_the_side() -> None:
    """A stale answer is served at once; the next one is the new one."""
    page = slow_page(("Cache-Control", "max-age=0, stale-while-revalidate=60"), ("ETag", '"x"'))
    async with serving(Site(page)) as port, Client(global_reactor(), SETTINGS) as client:
        await get(client, port)
        assert (await get(client, port)).from_cache
        await until(global_reactor(), lambda: page.count == 2)


async def test_close_meanwhile() -> None:
    """Closing ends what is asked by the side."""
    page = slow_page(("Cache-Control", "max-age=0, stale-while-revalidate=60"))
    async with serving(Site(page)) as port, Client(global_reactor(), SETTINGS) as client:
        await get(client, port)
        assert (await get(client, port)).from_cache
        await until(global_reactor(), lambda: page.count == 2)


async def test_parts() -> None:
    """A part of what is stored is served without a request."""
    page = slow_page(("Cache-Control", "max-age=60"))
    async with serving(Site(page)) as port, Client(global_reactor(), SETTINGS) as client:
        await get(client, port)
        found = await get(client, port, headers={"Range": "bytes=256-511"})
        assert (found.status, found.body, page.count) == (206, BODY[256:512], 1)


async def test_too_large() -> None:
    """A body over the limit passes, for each caller, and is not kept."""
    page = slow_page(("Cache-Control", "max-age=60"))
    cache = CacheSettings(max_object=10_000)
    settings = HttpSettings(timeout=PATIENCE, retry=RetryPolicy(retries=0), cache=cache)
    async with serving(Site(page)) as port, Client(global_reactor(), settings) as client:
        for response in await gatherResults([get(client, port) for _ in range(3)]):
            assert response.body == BODY
        assert page.count == 3
