"""What calls of the HTTP client take, with servers and clients that others have written."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.web.guard import DigestCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site
from typing_extensions import override
from zope.interface import implementer

from tests.live.processes import Running
from tests.live.test_http import Page, global_reactor, serving
from tests.patience import PATIENCE
from twisted_net.errors import FetchError
from twisted_net.http import (
    Client,
    DigestAuth,
    FetchTimeout,
    HttpSettings,
    Timeouts,
    TransferProgress,
)

USER, PASSWORD = "Mufasa", "Circle of Life"
QUICK = HttpSettings(timeout=PATIENCE)
EXPECT = {"Expect": "100-continue"}

curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")


@implementer(IRealm)
class _Realm:
    """Has one page for everyone."""

    def requestAvatar(self, avatarId: object, mind: object, *interfaces: object) -> Any:
        """Return the page."""
        page = Page(lambda request, count: b"welcome")
        return IResource, page, lambda: None


async def test_digest_of_twisted() -> None:
    """Twisted's guard accepts our Digest for each request, and refuses another password."""
    portal = Portal(_Realm())
    portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(Mufasa=PASSWORD.encode()))
    guard = HTTPAuthSessionWrapper(portal, [DigestCredentialFactory(b"md5", b"the realm")])
    async with serving(Site(guard)) as port, Client(global_reactor(), QUICK) as client:
        url = f"http://127.0.0.1:{port}/a?b=c"
        auth = DigestAuth(USER, PASSWORD)
        for _ in range(2):
            assert (await client.get(url, auth=auth, cache=False)).body == b"welcome"
        assert (await client.post(url, auth=auth, data=b"x")).body == b"welcome"
        other = f"http://127.0.0.1:{port}/é b"
        assert (await client.get(other, auth=DigestAuth(USER, PASSWORD))).body == b"welcome"
        async with client.stream("GET", url, auth=DigestAuth(USER, PASSWORD)) as streamed:
            assert await streamed.read() == b"welcome"
        assert (await client.get(url, auth=DigestAuth(USER, "other"))).status == 401


class DigestPage(Resource):
    """A page that checks Digest authentication as RFC 7616 §3.4.1 says."""

    isLeaf = True

    def __init__(self, algorithm: str) -> None:
        Resource.__init__(self)
        self._algorithm = algorithm
        self.counts: list[int] = []

    @override
    def render(self, request: Request) -> bytes:
        header = (request.getHeader(b"authorization") or b"").decode()
        given = {
            name: quoted or token
            for name, quoted, token in re.findall(r'([\w*]+)=(?:"([^"]*)"|([^ ,]+))', header)
        }
        if self._accepts(request, given):
            self.counts.append(int(given["nc"], 16))
            return b"welcome"
        request.setResponseCode(401)
        request.setHeader(
            b"www-authenticate",
            f'Digest realm="a realm", nonce="abc{len(self.counts)}", qop="auth",'
            f' algorithm={self._algorithm}, opaque="xyz"'.encode(),
        )
        return b"no"

    def _accepts(self, request: Request, given: dict[str, str]) -> bool:
        if not given:
            return False

        def hashed(*words: str) -> str:
            name = "md5" if self._algorithm.startswith("MD5") else "sha256"
            return hashlib.new(name, ":".join(words).encode()).hexdigest()

        key = hashed(USER, "a realm", PASSWORD)
        if self._algorithm.endswith("-sess"):
            key = hashed(key, given["nonce"], given["cnonce"])
        words = [given[name] for name in ("nonce", "nc", "cnonce", "qop")]
        expected = hashed(key, *words, hashed(request.method.decode(), request.uri.decode()))
        return expected == given["response"] and given["opaque"] == "xyz"


@curl
@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"])
async def test_digest_of_curl(algorithm: str) -> None:
    """Where curl is let in, so are we; a nonce is used again, with the next count."""
    page = DigestPage(algorithm)
    async with serving(Site(page)) as port, Client(global_reactor(), QUICK) as client:
        url = f"http://127.0.0.1:{port}/dir/index.html?a=b&c"
        words = ["-s", "--digest", "--noproxy", "*", "-u", f"{USER}:{PASSWORD}", url]
        out, _, status = await getProcessOutputAndValue(shutil.which("curl") or "", words)
        assert (out, status) == (b"welcome", 0)
        page.counts.clear()
        auth = DigestAuth(USER, PASSWORD)
        for _ in range(3):
            assert (await client.get(url, auth=auth, cache=False)).body == b"welcome"
        assert page.counts == [1, 2, 3]


def received(request: Any, count: int) -> bytes:
    """Answer with what was received."""
    return json.dumps(
        {
            "coding": (request.getHeader(b"transfer-encoding") or b"").decode(),
            "length": (request.getHeader(b"content-length") or b"").decode(),
            "body": request.content.read().decode() if count else "",
            "args": {
                name.decode(): [value.decode() for value in values]
                for name, values in request.args.items()
            },
        }
    ).encode()


async def test_bodies() -> None:
    """Iterators are sent in chunks, files with their length, and forms with files are read."""

    async def slow() -> AsyncIterator[str]:
        for piece in ("a", "ü", "b"):
            await deferLater(global_reactor(), 0)
            yield piece

    def lines() -> Iterator[bytes]:
        yield from (b"%d\n" % number for number in range(20_000))

    async with serving(Site(Page(received))) as port, Client(global_reactor(), QUICK) as client:
        url = f"http://127.0.0.1:{port}/"
        for data, coding, body in (
            (slow(), "chunked", "aüb"),
            (lines(), "chunked", b"".join(lines()).decode()),
            (io.BytesIO(b"x" * 300_000), "", "x" * 300_000),
        ):
            answer = (await client.put(url, data=data)).json()
            assert (answer["coding"], answer["body"]) == (coding, body)
        response = await client.post(
            url,
            files=[("f", ("n.txt", io.BytesIO(b"abc"), "text/plain")), ("g", b"def")],
            data={"a": ["1", "2"]},
        )
        answer = response.json()
        assert answer["args"] == {"a": ["1", "2"], "f": ["abc"], "g": ["def"]}


async def test_failing_body() -> None:
    """What an iterator raises is raised by the call, and the client goes on."""

    def failing() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("no more")

    async with serving(Site(Page(received))) as port, Client(global_reactor(), QUICK) as client:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(LookupError, match="no more"):
            await client.post(url, data=failing())
        assert (await client.post(url, data=b"x")).json()["body"] == "x"


async def test_upload_that_waits() -> None:
    """An upload whose iterator waits too long ends with the call, and the iterator is closed."""
    closed: list[int] = []

    async def waiting() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await Deferred()
        finally:
            closed.append(1)

    async with serving(Site(Page(received))) as port, Client(global_reactor(), QUICK) as client:
        with pytest.raises(FetchTimeout):
            await client.post(f"http://127.0.0.1:{port}/", data=waiting(), timeout=0.1)
    assert closed == [1]


async def test_events() -> None:
    """Events arrive one by one, while the response goes on; leaving ends it."""
    ended: Deferred[None] = Deferred()
    requests: list[Request] = []

    def stream(request: Request, count: int) -> int:
        request.setHeader(b"content-type", b"text/event-stream")
        request.notifyFinish().addErrback(lambda _: ended.callback(None))
        requests.append(request)
        request.write(b"id: 1\ndata: first\n\n: comment\n")
        return NOT_DONE_YET

    async with serving(Site(Page(stream))) as port, Client(global_reactor(), QUICK) as client:
        seen = []
        headers = {"Accept": "text/event-stream"}
        url = f"http://127.0.0.1:{port}/"
        async with client.stream("GET", url, headers=headers, timeout=Timeouts(total=None)) as live:
            async for event in live.events():
                seen.append((event.last_event_id, event.data))
                if len(seen) == 2:
                    break
                requests[0].write(b"data: second\r\n\r\n")
        await ended
    assert seen == [("1", "first"), ("1", "second")]


async def test_progress_and_cookies(tmp_path: Path) -> None:
    """Both directions are counted, and cookies kept from call to call."""

    def page(request: Request, count: int) -> bytes:
        request.addCookie(b"seen", str(count).encode())
        return b"%d %s" % (count, request.getCookie(b"seen") or b"-") + b"x" * 200_000

    seen: list[TransferProgress] = []
    async with (
        serving(Site(Page(page))) as port,
        Client(global_reactor(), QUICK, cookies=True) as client,
    ):
        url = f"http://127.0.0.1:{port}/"
        first = await client.post(url, data=io.BytesIO(b"y" * 200_000), progress=seen.append)
        assert first.cookies == {"seen": "1"}
        assert (await client.get(url, cache=False)).text().startswith("2 1x")
    for direction in ("upload", "download"):
        done = [one.done for one in seen if one.direction == direction]
        assert done == sorted(done)
        assert len(done) > 1
    assert seen[-1].done == seen[-1].total == len(first.body)


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr info;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location /dav/ {{ root {folder}; dav_methods PUT; create_full_put_path on; }}
        location /basic/ {{
            auth_basic closed; auth_basic_user_file {folder}/users; alias {folder}/;
        }}
        location /page/ {{
            add_header Link '</page/2>; rel="next"; title="a, b"';
            return 200 "page";
        }}
        location /old/ {{ return 302 /page/; }}
    }}
}}
"""


@asynccontextmanager
async def nginx_running(folder: Path) -> AsyncIterator[str]:
    """Run nginx; return its URL."""
    probe = global_reactor().listenTCP(0, Site(Resource()), interface="127.0.0.1")
    port = probe.getHost().port
    await probe.stopListening()
    (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    command = [shutil.which("nginx") or "", "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    async with Running(global_reactor(), command, folder) as server:
        url = f"http://127.0.0.1:{port}"
        async with Client(global_reactor(), QUICK) as client:
            while True:
                try:
                    await client.get(url, retries=0, cache=False)
                    break
                except FetchError:
                    await deferLater(global_reactor(), 0.02)
        yield url
        server.signal(15)
        await server.ended()


@nginx
async def test_expect_of_nginx(tmp_path: Path) -> None:
    """nginx agrees to a body, refuses one that is too large, and gets none of that."""
    async with (
        nginx_running(tmp_path) as base,
        Client(
            global_reactor(), QUICK, base_url=base, headers={"Expect": "100-continue"}
        ) as client,
    ):
        taken: list[int] = []

        def pieces(count: int) -> Iterator[bytes]:
            for number in range(count):
                taken.append(number)
                yield b"x" * 1000

        assert (await client.put("dav/b.txt", data=pieces(3))).status == 201
        assert ((tmp_path / "dav/b.txt").read_bytes(), len(taken)) == (b"x" * 3000, 3)
        taken.clear()
        with (tmp_path / "large").open("w+b") as file:
            file.truncate(2 * 2**20)
            assert (await client.put("dav/c.txt", data=file)).status == 413
            assert file.tell() == 0
        assert (await client.put("nowhere/else/x", data=pieces(3))).status == 405
        assert not taken
        assert (await client.put("dav/b.txt", data=b"y" * 3000)).status == 204
        assert (await client.get("dav/b.txt")).body == b"y" * 3000


async def test_expect_of_http_server() -> None:
    """The server of Python's library agrees, and so does Twisted's; older HTTP is silent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Newer(Handler):
        protocol_version = "HTTP/1.1"

    settings = HttpSettings(timeout=PATIENCE, continue_timeout=0.1)
    page = Page(lambda request, count: request.content.read() if request.content else b"")
    async with (
        Client(global_reactor(), settings, headers=EXPECT) as client,
        serving(Site(page)) as port,
    ):
        response = await client.post(f"http://127.0.0.1:{port}/", data=b"abc" * 999)
        assert response.body == b"abc" * 999
        for handler in (Handler, Newer):
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                url = f"http://127.0.0.1:{server.server_port}/"
                for _ in range(3):
                    assert (await client.post(url, data=b"abc")).body == b"abc"
            finally:
                await deferToThread(server.shutdown)
                thread.join()
                server.server_close()


@nginx
async def test_nginx(tmp_path: Path) -> None:
    """nginx takes our chunked uploads and Basic credentials, and we its redirects and links."""
    async with (
        nginx_running(tmp_path) as base,
        Client(global_reactor(), QUICK, base_url=base, headers={"Accept": "*/*"}) as client,
    ):
        pieces = (b"%d\n" % number for number in range(10_000))
        assert (await client.put("dav/a/b.txt", data=pieces)).status == 201
        lines = (tmp_path / "dav/a/b.txt").read_bytes().splitlines()
        assert (len(lines), lines[-1]) == (10_000, b"9999")
        assert (await client.get("basic/users")).status == 401
        assert (await client.get("basic/users", auth=(USER, PASSWORD))).status == 200
        response = await client.get("old/")
        assert response.links["next"].url == f"{base}/page/2"
        assert response.links["next"].parameters == {"title": "a, b"}
        assert [one.status for one in response.history] == [302]
        async with client.stream("GET", "dav/a/b.txt") as streamed:
            assert [line async for line in streamed.iter_lines()][-1] == "9999"
