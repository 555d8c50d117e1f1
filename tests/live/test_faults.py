"""What a service does when it can open no files, import no modules and start no threads."""

from __future__ import annotations

import array
import contextlib
import gzip
import json
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site
from websockets.sync.client import connect as connect_websocket

from tests.live.processes import LAUNCHERS, Ended, Running, command_line, exchange
from tests.live.programs import serving
from tests.patience import PATIENCE, until
from tests.tcp.issuing import Authority
from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import hash_token
from twisted_net.coap.client import CoapClient
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.tcp.listener_settings import Listener

DESCRIPTORS = 120
"""The limit of the processes that run out of them."""

LIMITED = (
    "import os, resource, sys; n = int(sys.argv[1]); "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (n, n)); os.execvp(sys.argv[2], sys.argv[2:])"
)
"""A program that runs another one with a limit of file descriptors."""

OWN = '''
import os, sys, threading
from importlib.abc import MetaPathFinder
from twisted_net.commands import Commands

commands = Commands()
imported, held, threads = [], [], []


class Watch(MetaPathFinder):
    """Notes each module that is looked for, and finds none."""

    def find_spec(self, name, path=None, target=None):
        imported.append(name)
        return None


class Refuse(Watch):
    """Lets no module be imported."""

    def find_spec(self, name, path=None, target=None):
        imported.append(name)
        raise ImportError("no module can be imported any more")


@commands.command()
def freeze() -> int:
    sys.meta_path.insert(0, Refuse())
    return len(sys.modules)


@commands.command()
def imports() -> list:
    return imported


@commands.command()
def exhaust(left: int = 0) -> int:
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for _ in range(left):
        os.close(held.pop())
    return len(held)


@commands.command()
def release() -> int:
    count = len(held)
    while held:
        os.close(held.pop())
    return count


@commands.command(blocking=True)
def block() -> str:
    return "done"


@commands.command()
async def bug() -> str:
    raise ValueError("a bug")


@commands.command()
def nothreads() -> None:
    def refuse(*arguments, **options):
        raise RuntimeError("can't start new thread")
    threads.append(threading.Thread.start)
    threading.Thread.start = refuse


@commands.command()
def somethreads() -> None:
    threading.Thread.start = threads.pop()
'''
"""Commands with which a test takes something away from a service, and gives it back."""


class Origin(Resource):
    """A web server: each path is a form of content."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Answer."""
        form = request.path.decode().strip("/")
        request.setHeader("Content-Type", "application/json")
        body = b'{"a":[1]}'
        if form == "gzip":
            request.setHeader("Content-Encoding", "gzip")
            body = gzip.compress(body)
        elif form == "redirect":
            request.setResponseCode(302)
            request.setHeader("Location", "/gzip")
        elif form == "cached":
            request.setHeader("Cache-Control", "max-age=60")
        elif form.startswith("charset-"):
            request.setHeader("Content-Type", f"text/plain; charset={form[8:]}")
            body = "h".encode(form[8:])
        return body


CHARSETS = ("iso-8859-1", "windows-1251", "shift_jis", "gb18030", "euc-kr", "koi8-r", "utf-16")
FORMS = ("plain", "gzip", "redirect", "cached", "cached", *(f"charset-{c}" for c in CHARSETS))


class Talk:
    """A client that blocks; its calls are made in a thread."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self._connection = connection
        self._file = connection.makefile("rb")

    def __call__(self, line: str) -> dict[str, Any]:
        """Send a line, and return its answer."""
        self._connection.sendall(line.encode() + b"\n")
        while True:
            answer: dict[str, Any] = json.loads(self._file.readline())
            if "event" not in answer:
                return answer

    def close(self) -> None:
        """Close."""
        self._file.close()
        self._connection.close()


class Service:
    """A service in a process of its own with every kind of door, and clients for each."""

    def __init__(self, process: Running, folder: Path, origin: int, ports: dict[str, int]) -> None:
        self.process = process
        self.folder = folder
        self.origin = origin
        self.ports = ports
        self._talks: list[Talk] = []

    def tcp(self, transport: str = "tcp") -> Talk:
        """Connect."""
        return self._talk(socket.create_connection(("127.0.0.1", self.ports[transport]), PATIENCE))

    def proxied(self) -> Talk:
        """Connect as a proxy does."""
        connection = socket.create_connection(("127.0.0.1", self.ports["tcp+proxy"]), PATIENCE)
        connection.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        return self._talk(connection)

    def tls(self) -> Talk:
        """Connect over TLS, with a certificate that names a user."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.load_cert_chain(self.folder / "ann.pem")
        plain = socket.create_connection(("127.0.0.1", self.ports["tcp+tls"]), PATIENCE)
        return self._talk(context.wrap_socket(plain, server_hostname="localhost"))

    def admin(self) -> Talk:
        """Connect to the Unix socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.folder / "s"))
        return self._talk(connection)

    def websocket(self) -> dict[str, Any]:
        """Log in over a WebSocket."""
        with connect_websocket(f"ws://127.0.0.1:{self.ports['tcp+websocket']}/") as client:
            client.send("AUTH ann sesame")
            answer: dict[str, Any] = json.loads(client.recv())
            return answer

    def datagrams(self) -> list[bytes]:
        """Ask over UDP."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", self.ports["udp"]))
            answers = []
            for question in (b"PING", b"TIME", b"STATS", b"hello", b"\xff\x00\x00\x29"):
                client.send(question)
                answers.append(client.recv(65_536))
            return answers

    def url(self, form: str) -> str:
        """Return a URL of the web server."""
        return f"http://127.0.0.1:{self.origin}/{form}"

    def close(self) -> None:
        """Close all clients."""
        for talk in self._talks:
            talk.close()

    def _talk(self, connection: socket.socket) -> Talk:
        self._talks.append(Talk(connection))
        return self._talks[-1]


@asynccontextmanager
async def every_door(
    reactor: Any,  # Any: reactors have no one type
    folder: Path,
    reactor_name: str,
    descriptors: int = 1000,
) -> AsyncIterator[Service]:
    """Run a service with every door in a process, and a web server for FETCH in this one."""
    authority = Authority()
    authority.write(folder / "ca.pem")
    for name, issued in (
        ("server", authority.issue("localhost", "127.0.0.1")),
        ("ann", authority.issue(common_names=("ann",))),
    ):
        (folder / f"{name}.pem").write_bytes(b"".join(issued))
    users = folder / "users.toml"
    users.write_text(
        f'[ann]\npassword = "{hash_password("sesame", b"0" * 16)}"\ncommands = ["*"]\n'
        f'[bob]\ntokens = ["{hash_token("token")}"]\ncommands = ["*"]\n'
    )
    users.chmod(0o600)
    (folder / "own.py").write_text(OWN)
    (folder / "net.toml").write_text(
        f"""
commands = ["own:commands"]
drain_timeout = 3.0
listeners = [
    {{path = "{folder}/s", admin = true}},
    {{port = 0, tls = {{certificate = "server.pem", client_ca = "ca.pem"}}}},
    {{port = 0, protocol = "websocket"}},
    {{port = 0, proxy = ["127.0.0.1"]}},
]
[tcp]
port = 0
[udp]
port = 0
[coap.dtls]
port = 0
certificate = "server.pem"
client_ca = "ca.pem"
[auth]
users = "users.toml"
timeout = 3600
[fetch]
allow = ["127.0.0.1", "localhost"]
[http.retry]
retries = 0
[http.cache]
file = "{folder}/cache.sqlite"
"""
    )
    site = reactor.listenTCP(0, Site(Origin()), interface="127.0.0.1")
    words = command_line("twisted-net", reactor_name, "--config=net.toml")
    limited = [sys.executable, "-c", LIMITED, str(descriptors), *words]
    async with Running(reactor, limited, folder) as process:
        ports = {}
        for transport in ("tcp", "tcp+tls", "tcp+websocket", "tcp+proxy", "udp", "coap+dtls"):
            found = await process.logged(rf"listening on [\d.]+:(\d+) \({re.escape(transport)}\)")
            ports[transport] = int(found[1])
        service = Service(process, folder, site.getHost().port, ports)
        try:
            yield service
        finally:
            service.close()
            await site.stopListening()


async def stopped(service: Service) -> Ended:
    """Stop a service, and check that it ends well."""
    service.close()
    service.process.signal(signal.SIGTERM)
    ended = await service.process.ended()
    assert ended.status == 0, ended.stdout[-2000:]
    assert ended.stderr == ""
    return ended


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """Collect what is logged, but for the audit."""
    heard: list[LogEvent] = []

    def hear(event: LogEvent) -> None:
        if event["log_namespace"] != "twisted_net.audit":
            heard.append(event)

    observe = cast(ILogObserver, hear)  # mypy sees no function's interface
    globalLogPublisher.addObserver(observe)
    yield heard
    globalLogPublisher.removeObserver(observe)


COMMANDS = (
    *("AUTH ann sesame", "AUTH token", "PING", "ECHO a", "TIME", "STATS", "HELP", "BLOCK"),
    *("SUBSCRIBE a.*", "PUBLISH a.b c", "BROADCAST hello", "UNSUBSCRIBE a.*"),
)
"""Commands that succeed whatever the process lacks."""

ADMINISTRATIVE = ("CLIENTS", "INFO", "SLOWLOG", "LATENCY", "CLOSED", "MONITOR", "MONITOR off")
REFUSED = {
    "AUTH ann wrong": "auth_failed",
    "NOPE": "unknown_command",
    "ECHO \x01": "control_character",
    'ECHO "a': "bad_quotes",
    "HELP a b": "bad_arguments",
    "BUG": "internal",
}


def use_all(talk: Talk, admin: Talk) -> None:
    """Use each command, over connections that there are."""
    for line in COMMANDS:
        assert "code" not in (answer := talk(line)), (line, answer)
    for line, code in REFUSED.items():
        assert (answer := talk(line)).get("code") == code, (line, answer)
    for line in ADMINISTRATIVE:
        assert "code" not in (answer := admin(line)), (line, answer)


def fetch_all(service: Service, talk: Talk) -> None:
    """Use FETCH, which must succeed."""
    for form in FORMS:
        answer = talk(f"FETCH {service.url(form)}")
        assert (answer.get("status"), answer.get("kind")) == (
            200,
            "text" if form.startswith("charset") else "json",
        ), (form, answer)


async def ask_coaps(reactor: Any, service: Service) -> list[str]:
    """Ask over CoAP with DTLS."""
    folder = service.folder
    settings = DtlsClientSettings(ca=str(folder / "ca.pem"), certificate=str(folder / "ann.pem"))
    async with CoapClient(reactor, tls=settings) as client:
        base = f"coaps://localhost:{service.ports['coap+dtls']}"
        asked = [await client.get(f"{base}/{path}") for path in ("ping", "stats", "nope")]
        return [f"{response.code >> 5}.{response.code & 31:02}" for response in asked]


@pytest.mark.time_limit(5 * PATIENCE)
@pytest.mark.parametrize("reactor_name", ["quiet", "epoll", "asyncio"])
async def test_nothing_is_imported(reactor_name: str, tmp_path: Path, reactor: Any) -> None:
    """A service that runs imports nothing, whichever command or door is used."""
    async with every_door(reactor, tmp_path, reactor_name) as service:

        def use() -> list[str]:
            admin = service.admin()
            assert admin("FREEZE")["result"] > 100
            talk = service.tcp()
            use_all(talk, admin)
            fetch_all(service, talk)
            for url, code in (
                ("http://localhost:1/", "cannot_connect"),
                ("http://nowhere.invalid/", "name_not_found"),
                ("http://b\u00fccher.invalid/", "name_not_found"),
                (f"https://localhost:{service.ports['tcp+tls']}/", "tls_failed"),
                ("http://10.0.0.1/", "address_refused"),
                ("nonsense", "invalid_url"),
            ):
                assert (answer := talk(f"FETCH {url}")).get("code") == code, (url, answer)
            assert service.tls()("STATS")["command"] == "STATS"
            assert service.websocket()["user"] == "ann"
            assert service.proxied()("AUTH token")["user"] == "bob"
            assert service.datagrams()[0] == b"PONG"
            for transport in ("tcp+tls", "tcp+websocket", "tcp+proxy"):
                with contextlib.suppress(ConnectionError, ValueError):
                    service.tcp(transport)("nonsense")
            imported: list[str] = admin("IMPORTS")["result"]
            return imported

        imported = await deferToThread(use)
        assert await ask_coaps(reactor, service) == ["2.05", "2.05", "4.04"]
        assert imported == []
        await stopped(service)


@pytest.mark.time_limit(5 * PATIENCE)
@pytest.mark.parametrize("reactor_name", ["quiet", "epoll", "asyncio"])
async def test_no_descriptors(reactor_name: str, tmp_path: Path, reactor: Any) -> None:
    """
    With no descriptor left, clients that are connected are served, and others closed and counted.

    The log stays short meanwhile, and all is well when there are descriptors again.
    """
    async with every_door(reactor, tmp_path, reactor_name, DESCRIPTORS) as service:

        def newcomers() -> None:
            for _ in range(200):
                for connect in (service.tcp, service.admin):
                    with contextlib.suppress(ConnectionError):
                        talk = connect()
                        assert talk._file.readline() == b""
                    service._talks.pop().close()

        def use() -> None:
            admin, talk, tls = service.admin(), service.tcp(), service.tls()
            assert admin("EXHAUST")["result"] > 0
            use_all(talk, admin)
            assert tls("STATS")["command"] == "STATS"
            assert service.datagrams()[0] == b"PONG"
            answers = [talk(f"FETCH {service.url('plain')}") for _ in range(10)]
            assert {answer["code"] for answer in answers} == {"out_of_resources"}
            answer = talk(f"FETCH http://localhost:{service.origin}/")
            assert answer["code"] in ("name_not_found", "out_of_resources"), answer
            newcomers()
            ended = admin("STATS")["connections_ended"]
            assert ended["no_descriptors"] >= 100, ended
            admin("RELEASE")
            fetch_all(service, talk)
            use_all(service.tcp(), admin)

        await deferToThread(use)
        assert await ask_coaps(reactor, service) == ["2.05", "2.05", "4.04"]
        ended = await stopped(service)
        assert "no file descriptor is left" in ended.stdout
        assert len(ended.stdout) < 60_000, ended.stdout


@pytest.mark.time_limit(5 * PATIENCE)
async def test_no_threads(tmp_path: Path, reactor: Any) -> None:
    """Without a thread each command is answered, nothing stays counted, and all is well later."""
    async with every_door(reactor, tmp_path, "quiet") as service:

        def use() -> None:
            admin, talk = service.admin(), service.tcp()
            assert talk("AUTH token")["user"] == "bob"
            admin("NOTHREADS")
            for _ in range(30):
                assert talk("BLOCK")["code"] == "out_of_threads"
                answer = talk("AUTH ann sesame")
                assert answer["code"] == "out_of_threads", answer
                answer = talk(f"FETCH http://localhost:{service.origin}/")
                assert answer["code"] == "out_of_resources", answer
                assert talk("AUTH token")["user"] == "bob"
                assert talk(f"FETCH {service.url('plain')}")["status"] == 200
            admin("SOMETHREADS")
            use_all(talk, admin)
            fetch_all(service, talk)
            assert talk(f"FETCH http://localhost:{service.origin}/")["status"] == 200

        await deferToThread(use)
        ended = await stopped(service)
        assert len(ended.stdout) < 60_000, ended.stdout
        assert ended.stdout.count("Traceback") < 20


FLOOD = """
from twisted.logger import Logger
from twisted_net.commands import Commands

commands = Commands()
log = Logger()


@commands.command()
def flood() -> int:
    from twisted.internet import reactor

    for number in range(2000):
        reactor.callLater(0, divide)
        log.info("mine {number}", number=number)
    return 2000


def divide():
    1 / 0
"""


@pytest.mark.parametrize("launcher", LAUNCHERS)
async def test_flood_of_errors(launcher: str, tmp_path: Path, reactor: Any) -> None:
    """A bug that strangers can cause is logged at a limited rate, by each launcher."""
    (tmp_path / "own.py").write_text(FLOOD)
    options = ("--tcp-port=0", "--udp-port=0", "--commands=own:commands")
    words = command_line(launcher, "epoll", *options)
    async with Running(reactor, words, tmp_path) as process:
        tcp, _ = await process.ports()
        assert (await exchange(tcp, b"FLOOD\nPING\n")).count(b"\n") == 2
        assert b"PONG" in await exchange(tcp, b"PING\n")
        process.signal(signal.SIGTERM)
        ended = await process.ended()
    assert ended.status == 0
    assert ended.stdout.count("mine 1999") == 1
    assert ended.stdout.count("] mine ") == 2000
    assert 1 <= ended.stdout.count("ZeroDivisionError") < 100


@pytest.mark.parametrize("name", [b"", b"\0abc", b"\0abcdefgh", b"\0\xff\xfe"])
async def test_unix_names(
    name: bytes, tmp_path: Path, events: list[LogEvent], reactor: Any
) -> None:
    """A client of a Unix socket may have a name of its own, of any length, and is answered."""
    path = str(tmp_path / "s")

    def speak() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            if name:
                client.bind(name)
            client.connect(path)
            client.sendall(b"STATS\nCLIENTS\n")
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()

    async with serving(reactor, Listener(path=path)):
        events.clear()
        answers = (await deferToThread(speak)).splitlines()
        assert [json.loads(line)["command"] for line in answers] == ["STATS", "CLIENTS"]
        assert events == []


async def test_passed_descriptors(tmp_path: Path, events: list[LogEvent], reactor: Any) -> None:
    """Descriptors that a client passes beside its data are dropped, without a word in the log."""
    path = str(tmp_path / "s")
    before = len(os.listdir("/proc/self/fd"))

    def speak() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 50))]
            for _ in range(20):
                client.sendmsg([b"PING\n"], rights)
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()

    async with serving(reactor, Listener(path=path)):
        events.clear()
        assert (await deferToThread(speak)).count(b"PONG") == 20
        assert events == []
    await until(reactor, lambda: len(os.listdir("/proc/self/fd")) <= before)
