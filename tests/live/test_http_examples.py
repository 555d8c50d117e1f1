"""The examples of the HTTP client run as their pages say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.live.processes import Running
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


async def test_http_stream(reactor: Any, tmp_path: Path) -> None:
    """A large page is written to the file, byte for byte."""
    body = bytes(range(256)) * 4096

    class Page(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return body

    port = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
    try:
        url = f"http://127.0.0.1:{port.getHost().port}/"
        file = tmp_path / "page"
        async with running(reactor, "http_stream.py", url, str(file)) as example:
            ended = await example.ended()
    finally:
        await port.stopListening()
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
