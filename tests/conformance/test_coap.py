"""
CoAP with software that we did not write: libcoap, aiocoap, and npm's coap-cli.

Both sides run as processes. A tool that is missing is a reason to skip, but in CI to fail.
``COAP_CLI`` names the program of npm's coap-cli; else npm installs it into a temporary folder.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import coap_client
from tests.conformance.lossy import Lossy, attempts, is_lost
from tests.missing import missing
from tests.patience import PATIENCE, wait_until
from tests.ports import free_port
from tests.tcp.issuing import Authority, write_pair

LARGE = "".join(chr(65 + number % 26) for number in range(100_000))

OUR_SERVER = """
import sys
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted_net.commands.standard import standard_commands
from twisted_net.coap import echo
from twisted_net.coap.port import listen_coap
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits

commands = standard_commands()
runs = 0

@commands.command()
def count(*words: str) -> str:
    global runs
    runs += 1
    return f"{runs} {sum(map(len, words))}"

@commands.command(safe=True)
def large(size: int = 100_000) -> str:
    return "".join(chr(65 + number % 26) for number in range(size))

@commands.command()
async def slow(text: str) -> str:
    await deferLater(reactor, 0.5)
    return text

if sys.argv[2:] == ["far"]:
    # As if all clients were on other machines.
    echo.is_loopback = lambda host: False

limits = CoapLimits(refresh_interval=0.3)
listen_coap(reactor, CoapServer(reactor, commands, limits), int(sys.argv[1]))
reactor.run()
"""

AIOCOAP_SERVER = """
import asyncio, sys
import aiocoap, aiocoap.resource as resource

class Time(resource.ObservableResource):
    count = 0
    async def render_get(self, request):
        return aiocoap.Message(payload=b"%d" % self.count)
    async def tick(self):
        while True:
            await asyncio.sleep(0.2)
            self.count += 1
            self.updated_state()

class Echo(resource.Resource):
    async def render_post(self, request):
        return aiocoap.Message(code=aiocoap.CHANGED, payload=request.payload)
    async def render_fetch(self, request):
        return aiocoap.Message(code=aiocoap.CONTENT, payload=request.payload)

class Slow(resource.Resource):
    async def render_get(self, request):
        await asyncio.sleep(0.5)
        return aiocoap.Message(payload=b"slow")

class Log(resource.Resource):
    body = b""
    async def needs_blockwise_assembly(self, request):
        return False if request.code == aiocoap.PUT else True
    async def render_put(self, request):
        part = request.opt.block1
        if part is None or part.block_number == 0:
            Log.body = b""
        Log.body += request.payload
        answer = aiocoap.Message(code=aiocoap.CHANGED)
        if part is not None:
            answer.opt.block1 = (part.block_number, False, part.size_exponent)
        return answer
    async def render_get(self, request):
        return aiocoap.Message(payload=Log.body)

async def main():
    site = resource.Site()
    time = Time()
    site.add_resource(["time"], time)
    site.add_resource(["echo"], Echo())
    site.add_resource(["slow"], Slow())
    site.add_resource(["log"], Log())
    await aiocoap.Context.create_server_context(
        site, bind=("127.0.0.1", int(sys.argv[1])), transports=["udp6"]
    )
    await time.tick()

asyncio.run(main())
"""

AIOCOAP_OBSERVER = """
import asyncio, sys
import aiocoap

async def main():
    context = await aiocoap.Context.create_client_context()
    request = context.request(aiocoap.Message(code=aiocoap.GET, uri=sys.argv[1], observe=0))
    print((await request.response).payload)
    states = 1
    async for response in request.observation:
        print(response.payload)
        states += 1
        if states == 3:
            break
    await context.shutdown()

asyncio.run(main())
"""


def libcoap(program: str) -> str:
    """Return the path of one of libcoap's programs."""
    for name in (program, f"{program}-notls", f"{program}-openssl", f"{program}-gnutls"):
        path = shutil.which(name)
        if path is not None:
            return path
    missing(f"libcoap's {program} (Debian: libcoap3-bin)")


HURRY = 20
"""How many times faster than ours the clock of a :func:`hurried` program runs."""


def hurried(program: str) -> list[str]:
    """
    Return the command line of one of libcoap's clients with a clock that runs faster.

    Its timeouts are those of RFC 7252, and no option changes them; with much loss they add up to
    minutes.
    """
    faketime = shutil.which("faketime")
    if faketime is None:
        missing("faketime (Debian: faketime)")
    return [faketime, "-f", f"+0 x{HURRY}", libcoap(program), "-B", "3600"]


def bears(seed: int, exchanges: int) -> bool:
    """Return whether each exchange has an attempt that succeeds, at 30 % loss either way."""
    return all(attempts(seed, 0.3, exchange) is not None for exchange in range(exchanges))


def aiocoap_client() -> list[str]:
    """Return the words that start aiocoap's client."""
    if find_spec("aiocoap") is None:
        missing("aiocoap (PyPI)")
    return [sys.executable, "-u", "-W", "ignore", "-m", "aiocoap.cli.client"]


@pytest.fixture(scope="module")
def coap_cli(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of npm's coap-cli."""
    given = os.environ.get("COAP_CLI")
    if given is not None:
        return given
    npm = shutil.which("npm")
    if npm is None:
        missing("npm, which installs coap-cli,")
    folder = tmp_path_factory.mktemp("npm")
    words = [npm, "install", "--silent", "--no-audit", "--no-fund", "coap-cli"]
    installed = subprocess.run(words, cwd=folder, timeout=5 * PATIENCE, capture_output=True)
    program = folder / "node_modules" / ".bin" / "coap"
    if installed.returncode or not program.exists():
        missing("npm's coap-cli, which npm cannot install here,")
    return str(program)


@contextmanager
def serving(*words: str, port: int, folder: Path | None = None) -> Iterator[str]:
    """
    Run a server as a process, once it answers a ping (RFC 7252 §4.3); give its URI.

    :param folder: where it runs.
    """
    server = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", port))
            probe.settimeout(0.2)

            def answers() -> bool:
                try:
                    probe.send(b"\x40\x00\x12\x34")
                    return probe.recv(100) == b"\x70\x00\x12\x34"
                except (TimeoutError, ConnectionRefusedError):
                    return False

            wait_until(answers)
        yield f"coap://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def serving_ours() -> Iterator[tuple[int, str]]:
    """Run our server; yield its port and its URI."""
    port = free_port()
    with serving(sys.executable, "-c", OUR_SERVER, str(port), port=port) as uri:
        yield port, uri


@pytest.fixture
def ours() -> Iterator[str]:
    """Run our server; yield its URI."""
    with serving_ours() as (_, uri):
        yield uri


def run(*words: str) -> str:
    """Run a client, and return what it prints."""
    done = subprocess.run(words, capture_output=True, timeout=3 * PATIENCE, text=True)
    return done.stdout + done.stderr


def run_until(
    count: int,
    text: str,
    *words: str,
    folder: Path | None = None,
    data: bytes = b"",
    ends: bool = False,
) -> str:
    """
    Run a client that goes on and on, until it has printed *text* so many times.

    :param folder: where it runs.
    :param data: is said to it; its input stays open.
    :param ends: whether it may end before that.
    :return: all that it has printed.
    """
    client = subprocess.Popen(
        words,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = b""
    with client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            client.stdin.write(data)
            client.stdin.flush()
            while said.count(text.encode()) < count:
                ready, _, _ = select.select([client.stdout], [], [], PATIENCE)
                assert ready, said
                piece = os.read(client.stdout.fileno(), 65_536)
                assert piece or ends, said
                if not piece:
                    break
                said += piece
        finally:
            client.kill()
    return said.decode(errors="replace")


def ask(
    uri: str, *steps: tuple[str, str, str], settings: dict[str, object] | None = None
) -> Any:  # Any: decoded JSON
    """Make requests with our client: method, path, payload; return the responses."""
    return json.loads(run(*coap_client.command(uri, steps, settings)))


PERSISTENT: dict[str, object] = {"ack_timeout": 0.01, "max_retransmit": 12}
"""Settings of a client that retransmits soon, and more often than RFC 7252 has it."""


def test_libcoap_client(ours: str) -> None:
    """coap-client reads, posts, lists, waits, and is told what is wrong."""
    client = libcoap("coap-client")
    assert run(client, "-m", "get", f"{ours}/ping") == "PONG\n"
    assert run(client, "-N", "-m", "get", f"{ours}/ping") == "PONG\n"
    assert run(client, "-m", "post", "-e", "a%20b", f"{ours}/echo") == "a b\n"
    assert run(client, "-m", "post", "-e", "late", f"{ours}/slow") == "late\n"
    assert "</time>;" in run(client, "-m", "get", f"{ours}/.well-known/core")
    assert json.loads(run(client, "-A", "50", "-m", "get", f"{ours}/ping"))["result"] == "PONG"
    assert "4.04 no resource /nope" in run(client, "-m", "get", f"{ours}/nope")
    assert "4.02" in run(client, "-O", "9,x", "-m", "get", f"{ours}/ping")


def test_libcoap_client_blocks(ours: str, tmp_path: Path) -> None:
    """coap-client sends a hundred kilobytes, and gets them back."""
    client = libcoap("coap-client")
    (tmp_path / "large").write_text(LARGE)
    for size in ("1024", "64"):
        words = ["-b", size, "-m", "post", "-f", "large", "-o", "back", f"{ours}/echo"]
        subprocess.run([client, *words], cwd=tmp_path, timeout=PATIENCE, check=True)
        assert (tmp_path / "back").read_text() == LARGE


def test_libcoap_client_fetches(ours: str) -> None:
    """libcoap asks by FETCH, whose payload is the arguments (RFC 8132)."""
    long = "x" * 3000
    for text in ("a  b", long):
        said = run(libcoap("coap-client"), "-m", "fetch", "-e", text, f"{ours}/echo")
        assert said.strip() == " ".join(text.split())


def test_libcoap_client_reports(ours: str) -> None:
    """libcoap's non-confirmable request with No-Response runs, and is not answered (RFC 7967)."""
    client = libcoap("coap-client")
    words = ("-B", "1", "-N", "-m", "post", "-O", "258,0x1a", "-e", "a")
    assert run(client, *words, f"{ours}/count").strip() == ""
    assert run(client, "-m", "post", "-e", "a", f"{ours}/count").strip() == "2 1"


def test_libcoap_client_proves_its_address(tmp_path: Path) -> None:
    """coap-client returns the Echo option that a server wants of addresses far away (RFC 9175)."""
    client = libcoap("coap-client")
    (tmp_path / "large").write_text(LARGE)
    port = free_port()
    with serving(sys.executable, "-c", OUR_SERVER, str(port), "far", port=port) as uri:
        assert '"command":"STATS"' in run(client, "-m", "get", f"{uri}/stats")
        words = ["-m", "post", "-f", str(tmp_path / "large"), f"{uri}/count"]
        assert run(client, *words) == "1 100000\n"


def test_libcoap_client_gets(ours: str, tmp_path: Path) -> None:
    """coap-client gets a hundred kilobytes, in blocks of each size."""
    client = libcoap("coap-client")
    for size in ("1024", "64"):
        words = ["-b", size, "-m", "get", "-o", "back", f"{ours}/large"]
        subprocess.run([client, *words], cwd=tmp_path, timeout=PATIENCE, check=True)
        assert (tmp_path / "back").read_text() == LARGE


def test_libcoap_client_through_loss(tmp_path: Path) -> None:
    """
    Where 30 % are lost either way, coap-client brings a hundred kilobytes, and a command runs once.

    Its 98 exchanges have five attempts each (RFC 7252 §4.8), and an attempt succeeds with 0.7². So
    one exchange in 29 fails, and 97 % of such transfers do: 28 is the first seed by which none of
    their exchanges fails. It takes 440 s of coap-client's time.
    """
    assert [seed for seed in range(29) if bears(seed, 98)] == [28]
    (tmp_path / "body").write_text(LARGE)
    with serving_ours() as (port, uri), Lossy(port, 28) as way:
        words = ["-m", "post", "-f", str(tmp_path / "body")]
        assert run(*hurried("coap-client"), *words, f"{way.uri}/count") == "1 100000\n"
        assert all(0.25 < way.lost[to] / way.carried[to] < 0.35 for to in way.lost)
        assert run(libcoap("coap-client"), "-m", "post", f"{uri}/count") == "2 0\n"


def test_libcoap_client_gets_through_loss(tmp_path: Path) -> None:
    """
    Where 30 % are lost either way, coap-client gets 12 kilobytes.

    libcoap 4.3.1 drops what it has of a body 93 s after its first block, however it goes on: here
    75 s are needed. A hundred kilobytes would need 440 s.
    """
    assert bears(0, 12)
    with serving_ours() as (port, _), Lossy(port, 0) as way:
        got = run(*hurried("coap-client"), "-m", "get", f"{way.uri}/large?12288")
        assert got.removesuffix("\n") == LARGE[:12_288]
        assert sum(way.lost.values()) > 5


def test_libcoap_client_loses(ours: str, tmp_path: Path) -> None:
    """
    Where coap-client loses 30 % of what it sends, a hundred kilobytes are one run of a command.

    Which ones it loses cannot be had again. It gives an exchange up that it has lost five times:
    that ends 21 % of the transfers, in which nothing runs. All five that are tried fail in one
    of 2,400 runs of this test.
    """
    (tmp_path / "body").write_text(LARGE)
    words = ["-l", "30%", "-m", "post", "-f", "body", "-o", "answer", f"{ours}/count"]
    for _ in range(5):
        subprocess.run([*hurried("coap-client"), *words], cwd=tmp_path, timeout=2 * PATIENCE)
        if (tmp_path / "answer").exists():
            break
    assert (tmp_path / "answer").read_text() == "1 100000"
    assert run(libcoap("coap-client"), "-m", "post", f"{ours}/count") == "2 0\n"


def test_libcoap_client_observes(ours: str) -> None:
    """coap-client observes the figures."""
    client = libcoap("coap-client")
    words = [client, "-w", "-s", "3600", "-m", "get", f"{ours}/stats"]
    assert run_until(4, '"command":"STATS"', *words).count('"command":"STATS"') >= 4


def test_libcoap_client_observes_a_topic(ours: str) -> None:
    """coap-client gets each message that is published to the topic which it observes."""
    client = libcoap("coap-client")
    run(client, "-m", "post", "-e", "zero", f"{ours}/topics/news")
    words = [client, "-w", "-s", "3600", "-m", "get", f"{ours}/topics/news"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as observer:
        assert observer.stdout is not None
        assert observer.stdout.readline() == "zero\n"
        for message in ("one", "two"):
            run(client, "-m", "post", "-e", message, f"{ours}/topics/news")
            assert observer.stdout.readline() == f"{message}\n"
        observer.kill()


def test_aiocoap_client(ours: str, tmp_path: Path) -> None:
    """aiocoap-client reads, sends a hundred kilobytes and gets them back."""
    client = aiocoap_client()
    assert "PONG" in run(*client, f"{ours}/ping")
    assert "late" in run(*client, "-m", "POST", "--payload", "late", f"{ours}/slow")
    (tmp_path / "large").write_text(LARGE)
    words = ["--quiet", "-m", "POST", "--payload", f"@{tmp_path / 'large'}", f"{ours}/echo"]
    assert run(*client, *words).strip() == LARGE
    assert run(*client, "--quiet", f"{ours}/large").strip() == LARGE


def test_aiocoap_observes(ours: str) -> None:
    """aiocoap, as a library, observes the figures; its program cancels after the first."""
    aiocoap_client()
    assert run(sys.executable, "-c", AIOCOAP_OBSERVER, f"{ours}/stats").count("STATS") == 3


def test_coap_cli(ours: str, coap_cli: str) -> None:
    """npm's coap-cli reads and posts."""
    assert "PONG" in run(coap_cli, "get", f"{ours}/ping")
    assert "a b" in run(coap_cli, "post", "-p", "a b", f"{ours}/echo")
    assert "late" in run(coap_cli, "post", "-p", "late", f"{ours}/slow")
    assert "4.05" in run(coap_cli, "put", "-p", "x", f"{ours}/echo")
    assert run(coap_cli, "get", "-q", "-c", f"{ours}/ping") == "PONG\n"


def test_coap_cli_blocks(ours: str, coap_cli: str) -> None:
    """npm's coap-cli gets a hundred kilobytes, in blocks of any size; it cannot send such."""
    for exponent in ("6", "2"):
        assert run(coap_cli, "get", "-q", "-n", "-b", exponent, f"{ours}/large") == LARGE


def test_coap_cli_observes(ours: str, coap_cli: str) -> None:
    """npm's coap-cli observes a topic until it is ended."""
    run(coap_cli, "post", "-p", "zero", f"{ours}/topics/news")
    words = [coap_cli, "get", "-o", "-q", f"{ours}/topics/news"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as observer:
        assert observer.stdout is not None
        assert observer.stdout.readline() == "zero\n"
        for message in ("one", "two"):
            run(coap_cli, "post", "-p", message, f"{ours}/topics/news")
            assert observer.stdout.readline() == f"{message}\n"
        observer.terminate()


def test_our_client_with_libcoap() -> None:
    """Our client reads, writes in blocks, and observes what coap-server has."""
    program = libcoap("coap-server")
    port = free_port()
    with serving(program, "-A", "127.0.0.1", "-p", str(port), "-d", "5", port=port) as uri:
        answers = ask(
            uri,
            ("GET", "/", ""),
            ("PUT", "/example_data", LARGE),
            ("GET", "/example_data", ""),
            ("GET", "/async?1", ""),
            ("OBSERVE", "/time", ""),
            ("GET", "/nope", ""),
        )
    index, put, got, late, states, missed = answers
    assert index[0] == 69
    assert put[0] in (65, 68)
    assert got == [69, LARGE]
    assert late[0] == 69
    assert len(set(states)) == 3
    assert missed[0] == 132


def test_our_client_with_aiocoap() -> None:
    """Our client reads, sends blocks both ways, waits, and observes what aiocoap serves."""
    aiocoap_client()
    port = free_port()
    with serving(sys.executable, "-c", AIOCOAP_SERVER, str(port), port=port) as uri:
        slow, echo, states, missed = ask(
            uri,
            ("GET", "/slow", ""),
            ("POST", "/echo", LARGE),
            ("OBSERVE", "/time", ""),
            ("GET", "/nope", ""),
        )
    assert slow == [69, "slow"]
    assert echo == [68, LARGE]
    assert len(set(states)) == 3
    assert missed[0] == 132


def test_our_client_fetches_from_aiocoap() -> None:
    """Our FETCH has its payload in blocks, and so has aiocoap's response (RFC 8132 §2)."""
    aiocoap_client()
    port = free_port()
    with serving(sys.executable, "-c", AIOCOAP_SERVER, str(port), port=port) as uri:
        short, long = ask(uri, ("FETCH", "/echo", "a"), ("FETCH", "/echo", LARGE[:20_000]))
    assert short == [69, "a"]
    assert long == [69, LARGE[:20_000]]


def test_our_client_with_a_stateless_server() -> None:
    """
    A server of aiocoap that processes each block by itself gets all of them (RFC 7959 §2.3).

    It answers each block with 2.04, and what it has had so far is what it returns.
    """
    aiocoap_client()
    port = free_port()
    with serving(sys.executable, "-c", AIOCOAP_SERVER, str(port), port=port) as uri:
        put, got = ask(uri, ("PUT", "/log", LARGE), ("GET", "/log", ""))
    assert put == [68, ""]
    assert got == [69, LARGE]


def test_our_client_with_libcoap_through_loss() -> None:
    """
    Where 30 % are lost either way, our client puts thirty kilobytes, and gets them back.

    The answer to the last block is not among what is lost: libcoap 4.3.1 does not know that block
    again when it is sent once more, and takes it for a body of which all before it is zeros.
    """
    program = libcoap("coap-server")
    body = LARGE[:30_000]
    assert not is_lost(3, 0.3, "to client", message=29, copy=0)
    port = free_port()
    words = [program, "-A", "127.0.0.1", "-p", str(port), "-d", "5"]
    with serving(*words, port=port), Lossy(port, 3) as way:
        steps = (("PUT", "/example_data", body), ("GET", "/example_data", ""))
        put, got = ask(way.uri, *steps, settings=PERSISTENT)
    assert put[0] in (65, 68)
    assert got == [69, body]
    assert all(0.2 < way.lost[to] / way.carried[to] < 0.4 for to in way.lost)


def test_our_client_with_aiocoap_through_loss() -> None:
    """Where 30 % are lost either way, aiocoap gets thirty kilobytes, and we get them back."""
    aiocoap_client()
    port = free_port()
    words = [sys.executable, "-c", AIOCOAP_SERVER, str(port)]
    with serving(*words, port=port), Lossy(port, 2) as way:
        (echo,) = ask(way.uri, ("POST", "/echo", LARGE[:30_000]), settings=PERSISTENT)
    assert echo == [68, LARGE[:30_000]]


def test_our_command_line(tmp_path: Path) -> None:
    """``twisted-net coap`` puts, gets and observes what coap-server has."""
    program = libcoap("coap-server")
    ours = [str(Path(sys.executable).with_name("twisted-net")), "coap"]
    (tmp_path / "large").write_text(LARGE)
    port = free_port()
    with serving(program, "-A", "127.0.0.1", "-p", str(port), "-d", "5", port=port) as uri:
        with (tmp_path / "large").open() as body:
            words = [*ours, "put", f"{uri}/example_data", "-"]
            assert subprocess.run(words, stdin=body, timeout=PATIENCE).returncode == 0
        assert run(*ours, "get", f"{uri}/example_data", "-b", "256") == LARGE
        assert run(*ours, "observe", f"{uri}/time", "-c", "2").count("\n") == 2
        assert run(*ours, "-N", "get", f"{uri}/time") != ""
        assert "4.04 Not Found" in run(*ours, "get", f"{uri}/nope")
        assert "4.05 Method Not Allowed" in run(*ours, "delete", f"{uri}/example_data")
        assert "</time>" in run(*ours, "get", f"{uri}/.well-known/core")


def test_our_command_line_over_dtls(tmp_path: Path) -> None:
    """``twisted-net coap`` asks coap-server over DTLS, if its certificate is to be believed."""
    program = libcoap("coap-server-openssl")
    ours = [str(Path(sys.executable).with_name("twisted-net")), "coap"]
    authority = Authority()
    authority.write(tmp_path / "ca.pem")
    write_pair(tmp_path / "server.pem", authority.issue("localhost"))
    port = free_port()
    words = [program, "-A", "127.0.0.1", "-p", str(port), "-c", "server.pem", "-n"]
    with serving(*words, port=port, folder=tmp_path):
        # libcoap has DTLS on the port after the one of CoAP.
        uri = f"coaps://localhost:{port + 1}/.well-known/core"
        assert "</time>" in run(*ours, "--ca", str(tmp_path / "ca.pem"), "get", uri)
        assert "</time>" in run(*ours, "--insecure", "get", uri)
        refused = run(*ours, "get", uri)
        assert refused.startswith("twisted-net coap: ")
        assert refused.count("\n") == 1
