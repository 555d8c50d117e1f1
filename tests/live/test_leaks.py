"""The fixture that catches leftovers catches each kind, and passes what is clean."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tests.live.leaks import LoggedErrors, Watch, describe_error
from tests.patience import PATIENCE

LEAKY = """
from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger


async def test_call() -> None:
    from twisted.internet import reactor

    reactor.callLater(60, print)


async def test_call_that_runs_soon() -> None:
    from twisted.internet import reactor

    reactor.callLater(0.05, print)


async def test_port() -> None:
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory

    reactor.listenTCP(0, Factory(), interface="127.0.0.1")


async def test_error() -> None:
    Logger().error("all is lost")


async def test_unhandled() -> None:
    fail(ZeroDivisionError())


def test_plain_function() -> None:
    Logger().error("all is lost")


async def test_fails() -> None:
    Logger().error("all is lost")
    raise KeyError("the one report")


@pytest.mark.time_limit(0.1)
async def test_hangs() -> None:
    await Deferred()


async def test_clean(logged_errors) -> None:
    Logger().error("all is lost")
    assert len(logged_errors.flush()) == 1
"""


@pytest.mark.parametrize("reactor_name", ["default", "asyncio"])
def test_fixture_fails_tests(tmp_path: Path, reactor_name: str) -> None:
    """A test that leaves something behind gets an error of its own, under both reactors."""
    root = Path(__file__).parents[2]
    (tmp_path / "conftest.py").write_text("from tests.live.conftest import *\n")
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", str(tmp_path)]
    answer = subprocess.run(
        [*command, f"--reactor={reactor_name}"],
        cwd=root,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    ).stdout
    outcomes = re.findall(r"^(ERROR|FAILED|PASSED) .*::test_(\w+)", answer, re.MULTILINE)
    errors = {name for outcome, name in outcomes if outcome == "ERROR"}
    failures = {name for outcome, name in outcomes if outcome == "FAILED"}
    assert errors == {
        "call",
        "call_that_runs_soon",
        "error",
        "plain_function",
        "port",
        "unhandled",
    }, answer
    assert failures == {"fails", "hangs"}, answer
    assert ("PASSED", "clean") in outcomes, answer


async def test_watch_sees_ports(reactor: Any) -> None:
    """A port and a datagram port are named, then cleared."""
    watch = Watch(reactor)
    port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    udp = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
    found = await watch.leftovers()
    assert len(found) == 2
    assert any(str(port.getHost().port) in line for line in found)
    assert any(str(udp.getHost().port) in line for line in found)
    watch.clear()
    assert await watch.leftovers() == []


async def test_watch_sees_calls(reactor: Any) -> None:
    """A waiting call is named with its function; a cancelled one is not."""
    watch = Watch(reactor)
    reactor.callLater(60, sorted)
    reactor.callLater(60, sorted).cancel()
    (found,) = await watch.leftovers()
    assert "sorted" in found
    watch.clear()
    assert await watch.leftovers() == []


async def test_watch_waits_for_what_ends(reactor: Any) -> None:
    """A port that is about to close is no leftover."""
    watch = Watch(reactor)
    port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    port.stopListening()
    assert await watch.leftovers() == []


async def test_flush_by_kind(logged_errors: LoggedErrors, reactor: Any) -> None:
    """``flush(kind)`` takes failures of that kind alone; its text has the traceback."""
    log = Logger()
    log.error("plain words")
    fail(ZeroDivisionError("by nought"))
    fail(KeyError("k"))
    await deferLater(reactor, 0)
    (event,) = logged_errors.flush(ZeroDivisionError)
    assert "by nought" in describe_error(event)
    assert len(logged_errors.flush(KeyError)) == 1
    (event,) = logged_errors.flush()
    assert describe_error(event) == "logged: plain words"


async def test_watched_failure_is_no_error() -> None:
    """A failure with an errback is nobody's error."""
    waiting: Deferred[None] = Deferred()
    waiting.addErrback(lambda failure: None)
    waiting.errback(ZeroDivisionError())
