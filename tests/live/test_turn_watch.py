"""Long turns of real reactors are found, and named by the callback that held them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

from tests.live.processes import BIN, Ended, Line, Running
from tests.missing import missing
from tests.patience import until, wait_until
from twisted_net.ops.long_turns import LongTurns
from twisted_net.ops.turn_sampler import THREAD_NAME
from twisted_net.ops.turn_watch import TurnWatch
from twisted_net.service.config import Config, TcpSettings, UdpSettings
from twisted_net.service.net import NetService

SHOP = '''
from __future__ import annotations

import json
import time

from twisted_net.commands.registry import Commands

commands = Commands()
# Long enough for the fastest machine: over 0.2 s.
TEXT = "[" + "1," * 6_000_000 + "1]"


def hold(seconds: float = 0.2) -> None:
    """Compute in Python."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def timed() -> None:
    hold()


def threaded() -> None:
    hold()


@commands.command()
def python() -> str:
    """Hold the reactor in Python."""
    hold()
    return ""


@commands.command()
def asleep() -> str:
    """Hold the reactor without a processor."""
    time.sleep(0.2)
    return ""


@commands.command()
def parse() -> str:
    """Hold the reactor in a function of C that keeps Python's lock."""
    json.loads(TEXT)
    return ""


@commands.command()
def held() -> str:
    """Hold it in another one, long enough for any machine."""
    sum(range(10_000_000))
    return ""


@commands.command()
async def awaited() -> str:
    """Hold the reactor in a coroutine."""
    hold()
    return ""


@commands.command()
def timer() -> str:
    """Hold the reactor in a timer."""
    from twisted.internet import reactor

    reactor.callLater(0, timed)
    return ""


@commands.command()
def thread() -> str:
    """Hold the reactor in a call from a thread."""
    from twisted.internet import reactor

    reactor.callInThread(reactor.callFromThread, threaded)
    return ""
'''

NAMED = {
    "PYTHON": "shop.python",
    "ASLEEP": "shop.asleep",
    "PARSE": "shop.parse",
    "HELD": "shop.held",
    "AWAITED": "shop.awaited",
    "TIMER": "shop.timed",
    "THREAD": "shop.threaded",
}
"""The callback that each command makes long."""

UVLOOP = """
import uvloop
from twisted.internet import asyncioreactor
asyncioreactor.install(uvloop.new_event_loop())
from twisted.scripts.twistd import run
run()
"""

OPTIONS = ("-n", "--pidfile=", "net", "--tcp-port=0", "--udp-enabled=false")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Give a directory with a module of commands that hold the reactor."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


async def ask(line: Line, command: str) -> Any:  # Any: JSON
    """Give the answer to a command."""
    line.send(command.encode())
    return json.loads(await line.read())


async def find(line: Line, command: str, callback: str) -> Any:  # Any: JSON
    """
    Give a long turn that is blamed on a callback, once a command has caused one.

    On a busy machine the thread may look too late, or the turn may be blamed on a stop.
    """
    for _ in range(100):
        await ask(line, command)
        for _ in range(2):
            # What the command has left to a timer, or a thread, runs before or in the next turns.
            answer = await ask(line, "LATENCY 160")
        for turn in answer["long_turns"]["latest"]:
            if re.match(rf"{re.escape(callback)} \(\w+\.py:\d+\)$", turn["callback"]):
                return turn
    raise AssertionError(f"{callback} is not in {answer}")


@asynccontextmanager
async def serving(
    reactor: Any,  # Any: reactors have no one type
    words: list[str],
    shop: Path,
) -> AsyncIterator[tuple[Line, Running]]:
    """Give a connection to a service with the commands, and its process."""
    words = [*words, *OPTIONS, "--commands=shop:commands"]
    async with Running(reactor, words, shop) as process:
        port = await process.logged(r"listening on [\d.]+:(\d+) \(tcp\)")
        with Line(int(port[1])) as line:
            yield line, process


@pytest.mark.parametrize("name", ["quiet", "epoll", "poll", "asyncio", "select"])
async def test_named(name: str, shop: Path, reactor: Any) -> None:
    """On each reactor, whatever holds it, the callback is named, in the log too."""
    words = [str(BIN / "twistd"), f"--reactor={name}"]
    async with serving(reactor, words, shop) as (line, process):
        for command, callback in NAMED.items():
            turn = await find(line, command, callback)
            assert turn["seconds"] >= 0.05
            assert 0 <= turn["cpu"] <= turn["seconds"] + 1e-6
        found = (await ask(line, "INFO latency"))["latency"]["long_turns"]
        assert found["count"] >= len(NAMED)
        assert found["measured"] == ("calls" if name == "select" else "turns")
        await process.logged(r"long turn of the reactor: \d+\.\d+ s .*: shop\.\w+ \(shop\.py:\d+\)")
        process.signal(signal.SIGTERM)
        ended = await process.ended()
    assert (ended.status, ended.stderr) == (0, "")
    assert "Traceback" not in ended.stdout


async def test_uvloop(shop: Path, reactor: Any) -> None:
    """With uvloop's loop, whose poll has no place for it, calls are measured."""
    if find_spec("uvloop") is None:
        missing("uvloop")
    words = [sys.executable, "-c", UVLOOP]
    async with serving(reactor, words, shop) as (line, process):
        for command in ("PYTHON", "HELD", "TIMER"):
            await find(line, command, NAMED[command])
        info = await ask(line, "INFO latency")
        assert info["latency"]["long_turns"]["measured"] == "calls"
        process.signal(signal.SIGTERM)
        ended = await process.ended()
    assert (ended.status, ended.stderr) == (0, "")


async def test_off(shop: Path, reactor: Any) -> None:
    """Where it is turned off, the figures say that nothing is measured."""
    words = [str(BIN / "twistd"), *OPTIONS, "--commands=shop:commands", "--latency-long-turn=0"]
    async with Running(reactor, words, shop) as process:
        port = await process.logged(r"listening on [\d.]+:(\d+) \(tcp\)")
        with Line(int(port[1])) as line:
            await ask(line, "PYTHON")
            found = (await ask(line, "INFO latency"))["latency"]["long_turns"]
            assert found == {"measured": "nothing", "threshold": 0, "count": 0}


async def test_daemon(shop: Path, reactor: Any) -> None:
    """The thread runs in a daemon, whose parent has ended."""
    words = [str(BIN / "twistd"), "--pidfile=net.pid", "--logfile=net.log", *OPTIONS[2:]]
    async with Running(reactor, [*words, "--commands=shop:commands"], shop) as process:
        assert await process.ended() == Ended(0, "", "")
    pid_file = shop / "net.pid"
    try:
        listening = re.search(r"listening on 127.0.0.1:(\d+)", (shop / "net.log").read_text())
        assert listening is not None
        with Line(int(listening[1])) as line:
            await find(line, "PYTHON", "shop.python")
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    await until(reactor, lambda: not pid_file.exists())


def threads() -> int:
    """Give the number of threads of watches."""
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


class Blocking(Protocol):
    """Holds the reactor in dataReceived until the thread has looked often enough."""

    def __init__(self, seen: Callable[[], bool]) -> None:
        self._seen = seen

    def dataReceived(self, data: bytes) -> None:
        """Hold the reactor, and end the connection."""
        wait_until(self._seen)
        assert self.transport is not None
        self.transport.loseConnection()


async def test_protocol(reactor: Any) -> None:
    """A protocol of an application's own is named by its method; a stop leaves nothing."""
    before = threads()
    long_turns = LongTurns()
    watch = TurnWatch(reactor, long_turns, lambda: 1000.0)
    watch.startService()
    assert threads() == before + 1
    assert long_turns.measured in ("turns", "calls")

    def seen() -> bool:
        assert watch._watched is not None
        assert watch._watched._sampler is not None
        return watch._watched._sampler._sight.places.total() > 2

    factory = Factory.forProtocol(lambda: Blocking(seen))
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    client = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    protocol = await connectProtocol(client, Protocol())
    assert protocol.transport is not None
    protocol.transport.write(b"x")
    try:
        await until(reactor, lambda: long_turns.count)
        found = [turn.callback for turn in long_turns.latest(9)]
        assert any("Blocking.dataReceived (test_turn_watch.py:" in name for name in found), found
        await until(reactor, lambda: not reactor.getReaders() or protocol.transport.disconnected)
    finally:
        await port.stopListening()
        watch.stopService()
    assert threads() == before


async def test_two_services(reactor: Any) -> None:
    """Two services in one process share a thread, which ends with the last of them."""
    config = Config(tcp=TcpSettings(port=0), udp=UdpSettings(enabled=False))
    before = threads()
    first, second = NetService(reactor, config), NetService(reactor, config)
    first.startService()
    second.startService()
    assert threads() == before + 1
    await first.stopService()
    assert threads() == before + 1
    assert second.sessions.instruments.long_turns.measured != "nothing"
    await second.stopService()
    assert threads() == before


async def test_unhooked(reactor: Any) -> None:
    """What was put around the poll of the reactor is gone after a stop."""
    poller = vars(reactor).get("_poller")
    loop = vars(reactor).get("_asyncioEventloop")
    watch = TurnWatch(reactor, LongTurns(), lambda: 1000.0)
    for _ in range(2):
        watch.startService()
        watch.stopService()
        assert vars(reactor).get("_poller") is poller
        if isinstance(loop, asyncio.SelectorEventLoop):
            assert "select" not in vars(vars(loop)["_selector"])
