"""The examples of the HTTP client run as their pages say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.web.http import Request
from twisted.web.server import Site

from tests.live.processes import Running
from tests.live.test_http import Page, serving
from tests.patience import PATIENCE

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def running(reactor: Any, name: str, *arguments: str) -> Running:
    """Start an example as a user would."""
    return Running(reactor, [sys.executable, name, *arguments], EXAMPLES)


async def test_fetch_safely(reactor: Any) -> None:
    """Destinations that an untrusted client must not reach are refused, each with its reason."""
    urls = ("http://127.0.0.1:1/", "http://[::ffff:169.254.169.254]/", "ftp://example.org/")
    async with running(reactor, "fetch_safely.py", *urls) as example:
        ended = await example.ended()
    assert ended.status == 0, ended.stderr
    lines = ended.stdout.splitlines()
    codes = [
        line.removeprefix(f"{url}: ").split(":")[0] for url, line in zip(urls, lines, strict=True)
    ]
    assert codes == ["address_refused", "address_refused", "invalid_url"]


async def test_http_service(reactor: Any) -> None:
    """A service is used: its token and base URL, its cookie, its pages, and a form with a file."""
    seen: list[tuple[Any, ...]] = []

    def answer(request: Request, count: int) -> bytes:
        uri = request.uri.decode()
        fields = ("authorization", "cookie", "content-type")
        seen.append((request.method.decode(), uri, *map(request.getHeader, fields)))
        if "login" in uri:
            request.addCookie(b"session", b"1")
        if uri.endswith("page=1&lang=en"):
            request.setHeader(b"link", b'</v1/items?page=2>; rel="next"')
        return b'["item"]'

    async with serving(Site(Page(answer))) as port:
        base = f"http://127.0.0.1:{port}/v1"
        async with running(reactor, "http_service.py", base, "T") as example:
            ended = await example.ended()
    shown = ["['item']", "['item']", "200 multipart/form-data"]
    assert (ended.status, ended.stdout.splitlines()) == (0, shown), ended.stderr
    assert [each[:2] for each in seen] == [
        ("POST", "/v1/login?lang=en"),
        ("GET", "/v1/items?page=1&lang=en"),
        ("GET", "/v1/items?page=2&lang=en"),
        ("POST", "/v1/photos?lang=en"),
    ]
    assert {each[2] for each in seen} == {"Bearer T"}
    assert [each[3] for each in seen] == [None, *["session=1"] * 3]


async def test_treq_client(reactor: Any) -> None:
    """treq's calls are made, the second GET by the cache."""
    seen: list[str] = []

    def answer(request: Request, count: int) -> bytes:
        seen.append(f"{request.method.decode()} {request.uri.decode()}")
        request.setHeader(b"cache-control", b"max-age=60")
        return b"page"

    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}/items"
        async with running(reactor, "treq_client.py", url) as example:
            ended = await example.ended()
    shown = ["200 page", "200 page", f"200 {url}"]
    assert (ended.status, ended.stdout.splitlines()) == (0, shown), ended.stderr
    assert seen == ["GET /items?page=2", "POST /items"]


async def test_http_events(reactor: Any) -> None:
    """The events of a server are shown, until it ends."""

    def answer(request: Request, count: int) -> bytes:
        assert request.getHeader("accept") == "text/event-stream"
        request.setHeader(b"content-type", b"text/event-stream")
        return b"event: add\ndata: 1\n\ndata: 2\n\ndata: incomplete"

    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}/"
        async with running(reactor, "http_events.py", url) as example:
            ended = await example.ended()
    shown = ["add 1", "message 2"]
    assert (ended.status, ended.stdout.splitlines()) == (0, shown), ended.stderr


async def test_http_stream(reactor: Any, tmp_path: Path) -> None:
    """A large page is written to the file, byte for byte."""
    body = bytes(range(256)) * 4096

    file = tmp_path / "page"
    async with serving(Site(Page(lambda request, count: body))) as port:
        url = f"http://127.0.0.1:{port}/"
        async with running(reactor, "http_stream.py", url, str(file)) as example:
            ended = await example.ended()
    assert (ended.status, ended.stdout.split()) == (0, ["200", str(len(body))]), ended.stderr
    assert file.read_bytes() == body


def test_without_network() -> None:
    """The tests of the example pass."""
    command = [sys.executable, "-m", "unittest"]
    ran = subprocess.run(
        [*command, "test_without_network"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Ran 2 tests" in ran.stderr
