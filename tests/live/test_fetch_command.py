"""``twisted-net fetch`` with real servers: in this process, and as one of its own."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

import io
import re
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.python.usage import UsageError
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from tests.live.processes import BIN, Running
from tests.live.test_http import Page, Scripted, global_reactor, serving
from twisted_net.cli.call import REFUSED, UNANSWERED
from twisted_net.cli.fetch import FetchCommand, FetchOptions
from twisted_net.cli.run import INTERRUPTED


class Terminal(io.BytesIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


async def run(
    *words: str, body: bytes = b"", out: io.BytesIO | None = None
) -> tuple[int, bytes, str]:
    """Run the command; return its status, its output and what it said."""
    options = FetchOptions()
    options.parseOptions(words)
    out, err = out or io.BytesIO(), io.StringIO()
    with ExitStack() as files:
        request = options.request(io.BytesIO(body), files)
        status = await FetchCommand(global_reactor(), options, request, out, err).run()
    return status, out.getvalue(), err.getvalue()


def answer(request: Any, count: int) -> bytes | int:
    """Answer by the path."""
    if request.path == b"/old":
        request.redirect(b"/new?token=secret")
        return b""
    if request.path == b"/once-busy" and count == 1:
        request.setResponseCode(503)
        return b""
    if request.path == b"/none":
        request.setResponseCode(404)
        return b"nothing \x1b[31mhere"
    request.setHeader(b"cache-control", b"max-age=60")
    request.setHeader(b"x-a", b"b\x9b31m")
    fields = [request.method, request.getHeader(b"accept") or b"-", request.content.read()]
    return b" ".join(fields) + b"\n"


async def test_bodies(tmp_path: Path) -> None:
    """The body goes to the output as it is, whatever was sent."""
    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}/"
        assert await run(url) == (0, b"GET */* \n", "")
        assert await run(url, "-d", "x", "-H", "Accept: a/b") == (0, b"POST a/b x\n", "")
        assert await run(url, "-X", "put", "-d", "-", body=b"y") == (0, b"PUT */* y\n", "")
        status, out, _ = await run(url, "-i")
        assert (status, out.splitlines()[0]) == (0, b"200 OK")
        assert out.endswith(b"\n\nGET */* \n")
        assert b"X-A: b\\x9b31m\n" in out


async def test_statuses() -> None:
    """An error status is status 1, with its body; no response is status 2."""
    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}"
        said = f"twisted-net fetch: {url}/none answered 404 Not Found\n"
        assert await run(f"{url}/none") == (REFUSED, b"nothing \x1b[31mhere", said)
        shown = await run(f"{url}/none", out=Terminal())
        assert shown == (REFUSED, b"nothing \\x1b[31mhere\n", said)
        assert (await run(f"{url}/old", "--no-redirects"))[0] == 0
    status, out, said = await run(f"{url}/", "--retries", "0")
    assert (status, out) == (UNANSWERED, b"")
    assert "cannot connect" in said
    with pytest.raises(UsageError, match="'a b' is no name of a field"):
        await run(url, "-H", "a b: c")


async def test_terminal() -> None:
    """Bytes that are no text, or not yet a character, are shown once, wherever the body is cut."""

    def chunks(request: Any, count: int) -> int:
        # Each in a chunk of its own, the next one when the one before was taken.
        pieces = [b"ab", b"\xc3", b"\xbc\xe9"]
        request.registerProducer(OneByOne(request, pieces), False)
        return NOT_DONE_YET

    async with serving(Site(Page(chunks))) as port:
        shown = await run(f"http://127.0.0.1:{port}/", out=Terminal())
    assert shown == (0, "abü\\xe9\n".encode(), "")


@implementer(IPullProducer)
class OneByOne:
    """Writes pieces, one whenever the connection can take it."""

    def __init__(self, request: Request, pieces: list[bytes]) -> None:
        self._request = request
        self._pieces = pieces

    def resumeProducing(self) -> None:
        """Write the next piece, or end the response."""
        if self._pieces:
            self._request.write(self._pieces.pop(0))
        else:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        """Do nothing: all that is left is in memory."""


async def test_output(tmp_path: Path) -> None:
    """A file is there once it is complete; what was there is kept until then."""
    target = tmp_path / "file"
    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}/"
        assert await run(url, "-o", str(target)) == (0, b"", "")
        assert target.read_bytes() == b"GET */* \n"
        assert (await run(f"{url}none", "-o", str(target)))[0] == REFUSED
        assert await run(url, "-o", "/dev/null") == (0, b"", "")
        with pytest.raises(UsageError, match="No such file or directory"):
            await run(url, "-o", str(tmp_path / "none/file"))
    script = ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"], "close")
    async with serving(Scripted(script)) as port:
        status, _, said = await run(f"http://127.0.0.1:{port}/", "-o", str(target))
        assert status == UNANSWERED
        assert "the connection ended while waiting for body" in said
    assert target.read_bytes() == b"GET */* \n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


async def test_output_of_others(tmp_path: Path) -> None:
    """A file with the name that parts have elsewhere is another's."""
    target, other = tmp_path / "file", tmp_path / "file.part"
    other.write_bytes(b"not ours")
    async with serving(Site(Page(answer))) as port:
        assert await run(f"http://127.0.0.1:{port}/", "-o", str(target)) == (0, b"", "")
    assert (target.read_bytes(), other.read_bytes()) == (b"GET */* \n", b"not ours")


async def test_report(tmp_path: Path) -> None:
    """The report has attempts, redirects and the cache, and no secret."""
    cache = str(tmp_path / "cache")
    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}"
        _, _, said = await run(f"{url}/once-busy", "-r")
        first, second, last = said.splitlines()
        assert first.startswith(f"attempt 1: GET {url}/once-busy: 503 after ")
        assert "; the next one in " in first
        assert second.startswith(f"attempt 2: GET {url}/once-busy: 200 after ")
        assert last.startswith("response: 200 from the network, 2 attempts, ")
        for source in ("from the network, 2 attempts", r"from the cache, \d+ s old, 1 attempt,"):
            status, out, said = await run(f"{url}/old", "-r", "--cache", cache)
            assert (status, out) == (0, b"GET */* \n")
            assert f"redirect: 302 {url}/old to {url}/new?token=***" in said
            assert re.search(f"response: 200 {source}", said)
            assert "secret" not in said
        assert "cache: twisted_net; hit; ttl=" in said


async def test_process(reactor: Any, tmp_path: Path) -> None:
    """As a process: its statuses, and Ctrl-C while it waits."""
    asked: Deferred[None] = Deferred()

    def wait(request: Request, count: int) -> int:
        asked.callback(None)
        return NOT_DONE_YET

    command = [str(BIN / "twisted-net"), "fetch"]
    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}/"
        async with Running(reactor, [*command, url], tmp_path) as fetching:
            ended = await fetching.ended()
        assert (ended.status, ended.stdout, ended.stderr) == (0, "GET */* \n", "")
        async with Running(reactor, [*command, "-d", "@/none", url], tmp_path) as fetching:
            ended = await fetching.ended()
        assert ended.status == UNANSWERED
        assert ended.stderr == "twisted-net fetch: /none: No such file or directory\n"
    async with serving(Site(Page(wait))) as port:
        async with Running(reactor, [*command, f"http://127.0.0.1:{port}/"], tmp_path) as fetching:
            await asked
            fetching.signal(signal.SIGINT)
            ended = await fetching.ended()
        assert (ended.status, ended.stderr) == (INTERRUPTED, "")
