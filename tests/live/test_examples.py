"""Each example runs as its docstring says, in a process of its own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.web.http import Request
from twisted.web.server import Site

from tests.live.processes import Line, Running, ask_datagrams, command_line, exchange
from tests.live.test_http import Page, serving
from twisted_net.auth.users import hash_token
from twisted_net.coap import CoapClient, Code

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


async def test_chat(reactor: Any) -> None:
    """Who is in a room hears what is said there, and who comes and goes, in order."""
    words = [*command_line("twisted-net", "epoll"), "--commands=chat:app", "--tcp-port=0"]
    async with Running(reactor, [*words, "--udp-enabled=false"], EXAMPLES) as service:
        port = int((await service.logged(r"listening on [\d.]+:(\d+) \(tcp\)"))[1])
        with Line(port) as ann:
            ann.send(b"JOIN tea Ann")
            assert json.loads(await ann.read())["result"] == ["Ann"]
            lines = (
                b"JOIN tea Ann\nJOIN tea Bob\nSAY tea good day\nSAY milk x\nLEAVE tea\nLEAVE tea\n"
            )
            answers = [json.loads(line) for line in (await exchange(port, lines)).splitlines()]
            heard = [json.loads(await ann.read())["message"] for _ in range(4)]
    results = [
        answer.get("result", answer.get("code")) for answer in answers if "event" not in answer
    ]
    assert results == ["refused", ["Ann", "Bob"], 2, "refused", None, None]
    assert [(event["who"], event["what"]) for event in heard] == [
        ("Ann", "joined"),
        ("Bob", "joined"),
        ("Bob", "said"),
        ("Bob", "left"),
    ]
    assert heard[2]["text"] == "good day"


async def test_gateway(reactor: Any, tmp_path: Path) -> None:
    """Devices without a login are heard and configured; a dashboard that logs in hears alarms."""
    (tmp_path / "users.toml").write_text(f'[ann]\ntokens = ["{hash_token("letmein")}"]\n')
    (tmp_path / "users.toml").chmod(0o600)
    options = [
        "--config=gateway.toml",
        f"--auth-users={tmp_path}/users.toml",
        "--udp-enabled=false",
    ]
    options += ["--tcp-port=0", "--coap-port=0", f"--topics-file={tmp_path}/gateway.db"]
    words = [*command_line("twisted-net", "epoll"), *options]
    short = {"TWISTED_NET_APP": '{"gateway": {"silent": 0.5}}'}
    async with Running(reactor, words, EXAMPLES, short) as service:
        tcp = int((await service.logged(r"listening on [\d.]+:(\d+) \(tcp\)"))[1])
        coap = int((await service.logged(r"listening on [\d.]+:(\d+) \(coap\)"))[1])
        topics = f"coap://127.0.0.1:{coap}/topics"
        with Line(tcp) as dashboard:
            dashboard.send(b'AUTH letmein\nSUBSCRIBE alarm.*\nCONFIGURE dev-7 {"rate": 5}')
            answers = [json.loads(await dashboard.read()) for _ in range(3)]
            async with CoapClient(reactor) as device:
                config = await device.get(f"{topics}/config.dev-7")
                assert config.json() == {"rate": 5}
                posted = await device.post(f"{topics}/reading.dev-7", b'{"t": 31}')
                assert posted.code == Code.CHANGED
                refused = await device.post(f"{topics}/config.dev-7", b'{"rate": 1}')
                assert refused.code == Code.UNAUTHORIZED
            alarms = [json.loads(await dashboard.read())["message"] for _ in range(3)]
    assert [answer["command"] for answer in answers] == ["AUTH", "SUBSCRIBE", "CONFIGURE"]
    assert alarms == [{"state": "here"}, {"state": "hot", "t": 31}, {"state": "gone"}]


async def test_aggregator(reactor: Any) -> None:
    """All shops are asked at once, one that fails is named, and a change is published."""

    def answer(request: Request, count: int) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        return b'{"cents": 250}'

    async with serving(Site(Page(answer))) as shop:
        shops = [f"http://127.0.0.1:{shop}/{{}}", "http://127.0.0.1:1/{}"]
        settings = {"TWISTED_NET_APP": json.dumps({"aggregator": {"shops": shops}})}
        words = [*command_line("twisted-net", "epoll"), "--commands=aggregator:app", "--tcp-port=0"]
        words += ["--udp-enabled=false"]
        async with Running(reactor, words, EXAMPLES, settings) as service:
            port = int((await service.logged(r"listening on [\d.]+:(\d+) \(tcp\)"))[1])
            lines = b"PRICES bread\nSUBSCRIBE prices.*\n"
            answers = [json.loads(line) for line in (await exchange(port, lines)).splitlines()]
            asked = json.loads((await exchange(port, b"PRICES bread\n")).splitlines()[0])
    assert answers[0]["prices"] == [{"cents": 250}, "cannot_connect"]
    assert asked["prices"] == answers[0]["prices"]


async def test_session_hooks(reactor: Any) -> None:
    """Clients are greeted, and told who comes and goes; each has a topic of its own."""
    async with running(reactor, "session_hooks.py") as example:
        port = int((await example.logged(r"listening on port (\d+)"))[1])
        with Line(port) as watcher:
            heard = [json.loads(await watcher.read()) for _ in range(2)]
            answers = (await exchange(port, b"SUBSCRIBE mine\n")).splitlines()
            came, went = [json.loads(await watcher.read()) for _ in range(2)]
    assert (heard[0]["event"], heard[1]) == ("came", {"event": "hello", "others": 0})
    hello, subscribed = [json.loads(answer) for answer in answers][-2:]
    assert hello == {"event": "hello", "others": 1}
    assert subscribed["pattern"] == "client." + came["who"].rpartition(":")[2]
    assert went == {"event": "went", "who": came["who"], "why": "client_closed"}


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

    def answer(request: Request, count: int) -> bytes:
        request.setHeader(b"Cache-Control", b"max-age=60")
        return b"hello"

    async with serving(Site(Page(answer))) as port:
        url = f"http://127.0.0.1:{port}/"
        async with running(reactor, "http_client.py", url) as example:
            ended = await example.ended()
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
