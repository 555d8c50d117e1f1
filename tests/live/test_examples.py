"""Each example runs as its docstring says, in a process of its own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.live.processes import Line, Running, ask_datagrams, command_line, exchange

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def running(reactor: Any, name: str, *arguments: str) -> Running:
    """Start an example as a person would."""
    return Running(reactor, [sys.executable, name, *arguments], EXAMPLES)


async def test_embed_tcp(reactor: Any) -> None:
    """The embedded factory answers, and what is queued is answered at the end."""
    async with running(reactor, "embed_tcp.py") as example:
        port = int((await example.logged(r"listening on port (\d+)"))[1])
        answers = (await exchange(port, b"ECHO hi\nNOPE\n")).splitlines()
    assert [json.loads(answer) for answer in answers] == [
        {"command": "ECHO", "result": "hi"},
        {"error": "unknown command: NOPE", "code": "unknown_command"},
    ]


async def test_global_reactor(reactor: Any) -> None:
    """The parts work around the global reactor; mypy takes it for one, in the example."""
    async with running(reactor, "global_reactor.py") as example:
        found = await example.logged(r"listening on .*port=(\d+)\) and .*port=(\d+)\)")
        tcp, udp = int(found[1]), int(found[2])
        answer = json.loads(await exchange(tcp, b"FETCH http://127.0.0.1/\n"))
        assert answer["code"] == "address_refused"
        assert await ask_datagrams(udp, b"PING") == [b"PONG"]
        example.signal(signal.SIGTERM)
        assert (await example.ended()).status == 0
    assert "type: ignore" not in (EXAMPLES / "global_reactor.py").read_text()


async def test_udp_handler(reactor: Any) -> None:
    """The handler of one's own answers datagrams."""
    async with running(reactor, "udp_handler.py", "0") as example:
        port = int((await example.logged(r":(\d+)"))[1])
        assert await ask_datagrams(port, b"hello") == [b"HELLO"]


async def test_discovery(reactor: Any) -> None:
    """A server is found while it is announced, and lost by its goodbye."""
    async with running(reactor, "discovery.py") as example:
        found = await example.logged(r"found kitchen (\S+) (\{.*\})")
        lost = await example.logged(r"lost kitchen")
    assert found.groups() == ("127.0.0.1", "{'tcp': 8888}")
    assert found.string.index("found") < lost.string.index("lost")


async def test_own_commands(reactor: Any) -> None:
    """Plain, async and blocking commands are served beside the standard ones, in order."""
    words = command_line("twistd", "default", "--commands", "own_commands:commands")
    words = [word for word in words if not word.startswith("--reactor")]
    async with Running(reactor, [*words, "--tcp-port=0", "--udp-port=0"], EXAMPLES) as service:
        port, _ = await service.ports()
        lines = b"WAIT 0.1\nADD 1 2.5\nREMEMBER a b\nREMEMBER a\nREMEMBER c\nDIGEST sha256 x\n"
        answers = [json.loads(line) for line in (await exchange(port, lines)).splitlines()]
    assert [answer.get("result", answer.get("value")) for answer in answers[:4]] == [
        *("waited 0.1 s", 3.5),
        *("b", "b"),
    ]
    assert answers[4]["code"] == "refused"
    assert len(answers[5]["result"]) == 64


async def test_http_client(reactor: Any) -> None:
    """The client gets a page, and then has it in its cache."""

    class Page(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            request.setHeader(b"Cache-Control", b"max-age=60")
            return b"hello"

    port = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
    try:
        url = f"http://127.0.0.1:{port.getHost().port}/"
        async with running(reactor, "http_client.py", url) as example:
            ended = await example.ended()
    finally:
        await port.stopListening()
    assert ended.status == 0, ended.stderr
    assert "200" in ended.stdout
    assert "hello" in ended.stdout
    assert "True" in ended.stdout


async def test_topics(reactor: Any) -> None:
    """What the server finds out reaches a client that listens to it."""
    async with running(reactor, "topics.py") as example:
        port = int((await example.logged(r"listening on port (\d+)"))[1])
        with Line(port) as client:
            client.send(b"SUBSCRIBE weather.quito")
            assert json.loads(await client.read())["subscriptions"] == 1
            event = json.loads(await client.read())
    assert event["topic"] == "weather.quito"
    assert event["message"].endswith("°C")


async def test_tcp_client(reactor: Any) -> None:
    """The client calls, is refused, and hears what it says."""
    async with running(reactor, "embed_tcp.py") as server:
        port = (await server.logged(r"listening on port (\d+)"))[1]
        async with running(reactor, "tcp_client.py", port) as example:
            ended = await example.ended()
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "['0', '1', '2']",
        "refused: unknown_command",
        "chat.lobby - hello, all",
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_run(path: Path) -> None:
    """No example is without a test."""
    tests = "".join(test.read_text() for test in Path(__file__).parent.glob("test_*.py"))
    assert path.stem in tests
