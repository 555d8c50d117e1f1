"""Commands of the shell end as shells expect, by Ctrl-C too, at any time."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.live.processes import BIN, Running
from twisted_net.cli.run import INTERRUPTED

PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted_net.cli.run import run_until_done

def say(what):
    print(what, flush=True)

async def main(reactor):
    say("running" if reactor.running else "too early")
    {main}

{before}
run_until_done(main)
"""


def program(main: str, before: str = "") -> list[str]:
    """Give the words of a program that does this."""
    return [sys.executable, "-c", PROGRAM.format(main=main, before=before)]


@pytest.mark.parametrize(
    ("main", "status", "told"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("raise BrokenPipeError", 141, ""),
    ],
)
async def test_end(
    reactor: Any,  # Any: reactors have no one type
    tmp_path: Path,
    main: str,
    status: int,
    told: str,
) -> None:
    """It begins when the reactor runs; its end is that of the process, with its status."""
    async with Running(reactor, program(main), tmp_path) as running:
        ended = await running.ended()
    assert (ended.status, ended.stdout) == (status, "running\n")
    assert told in ended.stderr
    assert bool(told) == bool(ended.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted(reactor: Any, tmp_path: Path, number: int) -> None:  # Any: as above
    """A signal cancels it, and its cleaning up is waited for."""
    cleans_up = """
    try:
        await deferLater(reactor, 30)
    finally:
        await deferLater(reactor, 0.05)
        say("clean")
    """
    async with Running(reactor, program(cleans_up), tmp_path) as running:
        await running.logged("running")
        running.signal(number)
        ended = await running.ended()
    assert (ended.status, ended.stdout) == (INTERRUPTED, "running\nclean\n")
    assert ended.stderr == ""


async def test_interrupted_twice(reactor: Any, tmp_path: Path) -> None:  # Any: as above
    """Two signals at once, as timeout(1) sends them, are one."""
    signals = """
    import signal
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    await deferLater(reactor, 30)
    """
    async with Running(reactor, program(signals), tmp_path) as running:
        ended = await running.ended()
    assert (ended.status, ended.stdout, ended.stderr) == (INTERRUPTED, "running\n", "")


async def test_interrupt_ignored(reactor: Any, tmp_path: Path) -> None:  # Any: as above
    """A signal that was ignored at the start, as the shell does for ``&``, stays so."""
    raised = "import signal; signal.raise_signal(signal.SIGINT)"
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    async with Running(reactor, program(raised, before), tmp_path) as running:
        ended = await running.ended()
    assert (ended.status, ended.stdout, ended.stderr) == (0, "running\n", "")


async def test_interrupted_before(reactor: Any, tmp_path: Path) -> None:  # Any: as above
    """Before the reactor runs nothing is begun, and nothing is said."""
    before = """
def run():
    raise KeyboardInterrupt
reactor.run = run
"""
    async with Running(reactor, program("pass", before), tmp_path) as running:
        ended = await running.ended()
    assert (ended.status, ended.stdout, ended.stderr) == (INTERRUPTED, "", "")


class Silent(Protocol):
    """A server that says nothing, and tells when it is asked for the first time."""

    def __init__(self, asked: Deferred[None]) -> None:
        self._asked = asked

    def dataReceived(self, data: bytes) -> None:
        """Take what comes."""
        if not self._asked.called:
            self._asked.callback(None)


async def test_call(reactor: Any, tmp_path: Path) -> None:  # Any: as above
    """``call`` that is interrupted has no answer, and its status says so."""
    asked: Deferred[None] = Deferred()
    factory = Factory.forProtocol(partial(Silent, asked))
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    words = [str(BIN / "twisted-net"), "call", f"127.0.0.1:{port.getHost().port}", "PING"]
    try:
        async with Running(reactor, words, tmp_path) as calling:
            await asked
            calling.signal(signal.SIGINT)
            ended = await calling.ended()
    finally:
        await port.stopListening()
    assert (ended.status, ended.stdout, ended.stderr) == (INTERRUPTED, "", "")
