"""A browser, headless Chromium: pages use the WebSocket where they may, and reach nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.live.processes import Running
from tests.live.programs import port_of, program, serving
from tests.patience import PATIENCE
from twisted_net.reasons import End
from twisted_net.tcp.listener_settings import Listener

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

TALK = """
const heard = [];
const report = (end) =>
    fetch("/report", {method: "POST", body: JSON.stringify({heard, end})});
const socket = new WebSocket("ws://127.0.0.1:%d/");
socket.onopen = () => { socket.send("SUBSCRIBE news"); socket.send("PUBLISH news h\\u00e9llo"); };
socket.onmessage = (message) => {
    heard.push(message.data);
    if (heard.length == 3) socket.close(1000);
};
socket.onclose = (close) => report(close.code);
"""
"""Speaks over a WebSocket, and tells the page's own server what it heard."""

POST = """
const report = (end) => fetch("/report", {method: "POST", body: JSON.stringify({end})});
fetch("http://127.0.0.1:%d/", {method: "POST", mode: "no-cors", body: "ECHO pwned\\n"})
    .then(() => report("answered"), () => report("failed"));
"""
"""Tries to have the browser say a command to a port that is no web server's."""


class Page(Resource):
    """
    A page with a script; its ``report`` fires with what the script says of itself.

    :ivar script: to be set before it is asked for.
    """

    isLeaf = True
    script = ""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # it has no types
        self.report: Deferred[Any] = Deferred()  # Any: JSON

    def render_GET(self, request: Request) -> bytes:
        """Give the page."""
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return f"<!doctype html><script>{self.script}</script>".encode()

    def render_POST(self, request: Request) -> bytes:
        """Take the report."""
        assert request.content is not None
        self.report.callback(json.loads(request.content.read()))
        return b""


@asynccontextmanager
async def hosting(reactor: Any) -> AsyncIterator[tuple[Page, str]]:  # Any: reactors have no type
    """Serve a page, and give it with its origin."""
    page = Page()
    site = Site(page)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        yield page, f"http://127.0.0.1:{port.getHost().port}"
    finally:
        await port.stopListening()


async def visit(reactor: Any, page: Page, address: str, folder: Path) -> Any:  # Any: as above, JSON
    """Let a browser open a page, and give what its script reports."""
    chromium = program("chromium", "chromium")
    words = [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", address]
    async with Running(reactor, words, folder, {"HOME": str(folder)}):
        page.report.addTimeout(PATIENCE, reactor)
        return await page.report


async def test_page(tmp_path: Path, reactor: Any) -> None:
    """A page of a site that may is answered, gets the messages of its topic, and closes well."""
    async with (
        hosting(reactor) as (page, origin),
        serving(reactor, Listener(port=0, protocol="websocket", origins=(origin,))) as service,
    ):
        page.script = TALK % port_of(service)
        report = await visit(reactor, page, origin, tmp_path)
        heard = [json.loads(text) for text in report["heard"]]
        assert [one.get("command", one.get("event")) for one in heard] == [
            "SUBSCRIBE",
            "PUBLISH",
            "message",
        ]
        assert heard[2]["message"] == "héllo"
        assert report["end"] == 1000
        assert service.sessions.counters.ended[End.CLIENT_CLOSED] == 1


async def test_page_of_another_site(tmp_path: Path, reactor: Any) -> None:
    """A page of any other site is not let in, and no session begins."""
    origins = ("https://app.example",)
    async with (
        hosting(reactor) as (page, origin),
        serving(reactor, Listener(port=0, protocol="websocket", origins=origins)) as service,
    ):
        page.script = TALK % port_of(service)
        assert await visit(reactor, page, origin, tmp_path) == {"heard": [], "end": 1006}
        assert service.sessions.counters.opened == 0


async def test_page_that_posts(tmp_path: Path, reactor: Any) -> None:
    """A page that makes the browser post commands to a port of lines has none of them run."""
    async with hosting(reactor) as (page, origin), serving(reactor, Listener(port=0)) as service:
        page.script = POST % port_of(service)
        assert await visit(reactor, page, origin, tmp_path) == {"end": "failed"}
        # Browsers may try again.
        assert service.sessions.counters.ended[End.CROSS_PROTOCOL] >= 1
        assert service.sessions.messages == 0
