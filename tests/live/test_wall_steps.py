"""Nothing but what is displayed follows the wall clock: a step of an hour changes no limit."""

from __future__ import annotations

import json
import re
import signal
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from tests.live.processes import Line, Running, command_line
from tests.live.wall_steps import HOUR, WallClock
from tests.tcp.issuing import Authority, write_pair
from twisted_net.auth.users import hash_token
from twisted_net.reasons import End

ROOT = Path(__file__).parents[2]
LONG = 600
"""Seconds of the limits that are not reached; less than a step of the clock, more than a test."""

OWN_COMMANDS = """
from twisted.internet.defer import Deferred

from twisted_net.commands.registry import Commands

commands = Commands()


@commands.command()
async def forever() -> None:
    '''Wait until the time limit.'''
    await Deferred()
"""

USERS = f"""
[ann]
tokens = ["{hash_token("sesame")}"]
commands = ["*"]

[eager]
tokens = ["{hash_token("faster")}"]
commands = ["PING"]
"""

CONFIG = f"""
commands = ["own:commands"]
drain_timeout = 1

[tcp]
port = 0
command_timeout = 1
idle_timeout = 5

[udp]
enabled = false

[auth]
users = "users.toml"
timeout = 5
free_attempts = 1
first_delay = {LONG}
longest_delay = {LONG}

[[listeners]]
port = 0
[listeners.limits]
command_timeout = {LONG}
idle_timeout = {LONG}
commands_per_user = 0.01
command_burst = 20

[[listeners]]
port = 0
limits = {{handshake_timeout = 2}}
tls = {{certificate = "pair.pem", key = "pair.pem"}}
"""


LISTENING = (
    r"(?s)listening on \S+:(\d+) \(tcp\).*listening on \S+:(\d+) \(tcp\)"
    r".*listening on \S+:(\d+) \(tcp\+tls\)"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory with all that the service reads."""
    (tmp_path / "own.py").write_text(OWN_COMMANDS)
    (tmp_path / "config.toml").write_text(CONFIG)
    users = tmp_path / "users.toml"
    users.write_text(USERS)
    users.chmod(0o600)
    write_pair(tmp_path / "pair.pem", Authority().issue("localhost"))
    return tmp_path


async def ask(line: Line, request: bytes) -> Any:  # Any: JSON
    """Send a line, and give its answer."""
    line.send(request)
    return json.loads(await line.read())


@pytest.mark.parametrize("reactor_name", ["quiet", "epoll", "asyncio"])
async def test_service(reactor_name: str, directory: Path, reactor: Any) -> None:
    """Limits of time, rates, delays, uptime, latency and the drain hold through both steps."""
    # Two services at one time: each waits for its limits. Both end before the test does.
    outcomes: list[Any] = await DeferredList(  # Any: pairs, the second a Failure or None
        [
            Deferred.fromCoroutine(
                serve_through(direction, command_line(launcher, reactor_name), directory, reactor)
            )
            for direction, launcher in ((-1, "twistd"), (1, "twisted-net"))
        ],
        consumeErrors=True,
    )
    for _, outcome in outcomes:
        if isinstance(outcome, Failure):
            outcome.raiseException()
    assert [succeeded for succeeded, _ in outcomes] == [True, True]


@pytest.mark.parametrize("reactor_name", ["quiet", "epoll", "asyncio"])
async def test_embedded(reactor_name: str, tmp_path: Path, reactor: Any) -> None:
    """Servers and clients on a reactor of others: limits, retries, deadlines and ages hold."""
    async with AsyncExitStack() as stack:
        started = []
        for direction in (-1, 1):
            clock = WallClock(tmp_path / f"wall{direction}")
            words = [sys.executable, "-m", "tests.live.embedded_steps", reactor_name]
            process = Running(reactor, [*words, str(direction * HOUR)], ROOT, clock.environ)
            started.append(await stack.enter_async_context(process))
        for process in started:
            ended = await process.ended()
            assert (ended.status, ended.stdout) == (0, "done\n"), ended.stderr


async def serve_through(
    direction: int,
    words: list[str],
    directory: Path,
    reactor: Any,  # Any: reactors have no one type
) -> None:
    """Start a service, and set its wall clock by an hour, and then another, in one direction."""
    clock = WallClock(directory / f"wall{direction}")
    words = [*words, "--config=config.toml"]
    async with Running(reactor, words, directory, clock.environ) as process:
        found = await process.logged(LISTENING)
        short, long, tls = map(int, found.groups())
        with ExitStack() as opened:

            async def connect(port: int, token: bytes = b"sesame") -> Line:
                line = opened.enter_context(Line(port))
                assert "user" in await ask(line, b"AUTH " + token)
                return line

            slow, idle = await connect(short), await connect(short)
            patient, admin = await connect(long), await connect(long)
            eager = await connect(long, b"faster")
            patient.send(b"FOREVER")
            while "code" not in (limited := await ask(eager, b"PING")):
                pass
            assert limited["code"] == "rate_limited"
            guest, silent = (opened.enter_context(Line(port)) for port in (short, tls))
            assert (await ask(guest, b"AUTH wrong"))["code"] == "auth_failed"
            assert (await ask(guest, b"AUTH wrong"))["code"] == "auth_delayed"
            slow.send(b"FOREVER")
            # Once this is answered, the timers of the others have begun.
            assert (await ask(admin, b"PING"))["result"] == "PONG"

            clock.set(direction * HOUR)
            assert json.loads(await slow.read())["code"] == "timeout"
            assert json.loads(await guest.read())["reason"] == End.AUTH_TIMEOUT.value
            assert json.loads(await idle.read())["reason"] == End.IDLE_TIMEOUT.value
            assert await silent.read() == b""
            again = await ask(eager, b"PING")
            assert again["code"] == "rate_limited"
            assert 0 < again["retry_after"] <= 100
            guesser = opened.enter_context(Line(short))
            again = await ask(guesser, b"AUTH sesame")
            assert again["code"] == "auth_delayed"
            assert 0 < again["retry_after"] <= LONG
            figures = await ask(admin, b"INFO")
            assert 0 < figures["server"]["uptime"] < LONG
            assert 0 < (await ask(admin, b"STATS"))["uptime"] < LONG
            latency = await ask(admin, b"LATENCY")
            assert latency["samples"] > 0
            assert latency["max"] < LONG

            process.signal(signal.SIGTERM)
            # Nothing was said to it before: its limits are not over.
            assert json.loads(await patient.read())["event"] == "shutdown"
            clock.set(2 * direction * HOUR)
            ended = await process.ended()
    assert (ended.status, ended.stderr) == (0, "")
    assert "Traceback" not in ended.stdout
    drained = re.search(r"drained in ([-\d.]+) s", ended.stdout)
    assert drained is not None
    assert 0 <= float(drained[1]) < LONG
