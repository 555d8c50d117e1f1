"""The installed service, as a process under every launcher, over real sockets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.live.processes import (
    BIN,
    LAUNCHERS,
    Ended,
    Line,
    Running,
    ask_datagrams,
    command_line,
    exchange,
)
from tests.live.programs import run_until
from tests.missing import missing
from tests.patience import PATIENCE, until

FREE = ("--tcp-port=0", "--udp-port=0")
ON_EPOLL = [(launcher, "epoll") for launcher in LAUNCHERS]
EVERYWHERE = [*ON_EPOLL, *((launcher, "asyncio") for launcher in LAUNCHERS)]

OWN_COMMANDS = '''
from __future__ import annotations

import time

from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_net.commands.registry import Commands

commands = Commands()
log = Logger()


@commands.command()
def which() -> str:
    """Tell the reactor, and the log that somebody asked."""
    from twisted.internet import reactor

    log.warn("asked for the {what}", what="reactor")
    return type(reactor).__name__


@commands.command()
async def sleep(seconds: float) -> str:
    """Wait without a thread."""
    from twisted.internet import reactor

    await deferLater(reactor, seconds)
    return "slept"


@commands.command(blocking=True)
def block(seconds: float) -> str:
    """Wait in a thread."""
    time.sleep(seconds)
    return "blocked"
'''


@pytest.fixture
def own_commands(tmp_path: Path) -> Path:
    """Give a directory with a module of own commands in it."""
    (tmp_path / "own.py").write_text(OWN_COMMANDS)
    return tmp_path


async def run(
    reactor: Any,  # Any: reactors have no one type
    words: list[str],
    directory: Path,
    environ: dict[str, str] | None = None,
) -> Ended:
    """Wait for a process that ends by itself."""
    async with Running(reactor, words, directory, environ) as process:
        return await process.ended()


@pytest.mark.parametrize(("launcher", "reactor_name"), EVERYWHERE)
async def test_serves_and_drains(
    launcher: str, reactor_name: str, tmp_path: Path, reactor: Any
) -> None:
    """It answers over TCP and UDP; SIGTERM tells the clients, and ends it with status 0."""
    words = command_line(launcher, reactor_name, *FREE)
    async with Running(reactor, words, tmp_path) as process:
        tcp, udp = await process.ports()
        answers = (await exchange(tcp, b"ECHO hello world\nTIME\nSTATS\nNOPE\n\n")).splitlines()
        assert [json.loads(answer).get("code") for answer in answers] == [
            *(None, None, None),
            *("unknown_command", "empty"),
        ]
        assert json.loads(answers[0]) == {"command": "ECHO", "result": "hello world"}
        assert json.loads(answers[2])["message_count"] == 3
        assert await ask_datagrams(udp, b"PING", b"hello", b"\xff\x00\x00\x29") == [
            b"PONG",
            b"ECHO: hello",
            b"\xff\x00\x00\x2a",
        ]
        with Line(tcp) as line:
            line.send(b"PING")
            assert json.loads(await line.read())["result"] == "PONG"
            process.signal(signal.SIGTERM)
            await line.expect_shutdown()
        ended = await process.ended()
    assert (ended.status, ended.stderr) == (0, "")
    assert "SIGTERM: stopping" in ended.stdout
    assert "1 connections, 0 of them aborted" in ended.stdout
    assert "Traceback" not in ended.stdout


@pytest.mark.parametrize(
    ("launcher", "reactor_name"), [*ON_EPOLL, ("twistd", "asyncio"), ("twisted-net", "asyncio")]
)
async def test_second_signal(
    launcher: str, reactor_name: str, own_commands: Path, reactor: Any
) -> None:
    """A second signal ends it, by that signal, whatever is still to be answered."""
    # Both are longer than the test may take: it has to end by the signal.
    options = (*FREE, "--commands=own:commands", "--drain-timeout=3600")
    async with Running(
        reactor, command_line(launcher, reactor_name, *options), own_commands
    ) as process:
        tcp, _ = await process.ports()
        with Line(tcp) as line:
            line.send(b"SLEEP 3600")
            await exchange(tcp, b"PING\n")  # and so the line before it has been taken
            process.signal(signal.SIGINT)
            assert json.loads(await line.read())["event"] == "shutdown"
            process.signal(signal.SIGTERM)
            ended = await process.ended()
    assert ended.status == -signal.SIGTERM
    assert "second signal SIGTERM: ending at once" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((str(BIN / "twisted-net"),), "QuietEPollReactor"),
        ((sys.executable, "-m", "twisted_net"), "QuietEPollReactor"),
        ((str(BIN / "twisted-net"), "--reactor=poll"), "PollReactor"),
        ((str(BIN / "twistd"), "-n", "--pidfile=", "net"), "QuietEPollReactor"),
        ((str(BIN / "twistd"), "-n", "--pidfile=", "--reactor=epoll", "net"), "EPollReactor"),
        ((str(BIN / "twist"), "--log-format=text", "net"), "EPollReactor"),
    ],
)
async def test_reactor(
    words: tuple[str, ...], expected: str, own_commands: Path, reactor: Any
) -> None:
    """Twist alone runs it on another reactor unless told so; what commands log arrives."""
    options = (*FREE, "--commands=own:commands")
    async with Running(reactor, [*words, *options], own_commands) as process:
        tcp, _ = await process.ports()
        assert json.loads(await exchange(tcp, b"WHICH\n"))["result"] == expected
        await process.logged(r"\[own#warn\] asked for the reactor")


async def test_drain_answers_what_waits(own_commands: Path, reactor: Any) -> None:
    """What was asked before the signal is answered after it."""
    words = command_line("twisted-net", "epoll", *FREE, "--commands=own:commands")
    async with Running(reactor, words, own_commands) as process:
        tcp, _ = await process.ports()
        with Line(tcp) as line:
            for command in (b"SLEEP 0.3", b"BLOCK 0.3", b"PING"):
                line.send(command)
            line.send(b"ECHO")
            await exchange(tcp, b"PING\n")
            process.signal(signal.SIGTERM)
            lines = [json.loads(await line.read()) for _ in range(5)]
            assert await line.read() == b""
        assert [answer["result"] for answer in lines if "event" not in answer] == [
            *("slept", "blocked", "PONG", ""),
        ]
        assert (await process.ended()).status == 0


async def test_drain_ends_at_the_deadline(own_commands: Path, reactor: Any) -> None:
    """A connection that is not done after ``drain_timeout`` is aborted, and counted in the log."""
    options = (*FREE, "--commands=own:commands", "--drain-timeout=0.2")
    words = command_line("twisted-net", "epoll", *options)
    async with Running(reactor, words, own_commands) as process:
        tcp, _ = await process.ports()
        with Line(tcp) as line:
            line.send(b"SLEEP 3600")
            await exchange(tcp, b"PING\n")
            process.signal(signal.SIGTERM)
            ended = await process.ended()
    assert ended.status == 0
    assert "1 connections, 1 of them aborted" in ended.stdout


@pytest.mark.parametrize("launcher", ["twistd", "twisted-net"])
async def test_thread_that_is_stuck(launcher: str, own_commands: Path, reactor: Any) -> None:
    """A blocking command that goes on does not hold the process once the drain is over."""
    options = (*FREE, "--commands=own:commands", "--drain-timeout=0.1")
    words = command_line(launcher, "epoll", *options)
    async with Running(reactor, words, own_commands) as process:
        tcp, _ = await process.ports()
        with Line(tcp) as line:
            line.send(b"BLOCK 3600")
            await exchange(tcp, b"PING\n")
            process.signal(signal.SIGTERM)
            ended = await process.ended()
    assert ended.status == 1
    assert "1 threads are still busy" in ended.stdout


@pytest.mark.parametrize("launcher", LAUNCHERS)
async def test_mistakes(launcher: str, tmp_path: Path, reactor: Any) -> None:
    """All mistakes of file, environment and options come on standard error, and status 1."""
    (tmp_path / "net.toml").write_text("[tcp]\nmax_conections = 5\nport = 'x'\n")
    ended = await run(
        reactor,
        command_line(launcher, "epoll", "--config=net.toml", "--udp-port=70000"),
        tmp_path,
        {"TWISTED_NET_THREADS": "many"},
    )
    assert ended == Ended(
        1,
        "",
        "net.toml: there is no setting tcp.max_conections; did you mean tcp.max_connections?\n"
        'net.toml: tcp.port is "x", must be an integer from 0 to 65535\n'
        'TWISTED_NET_THREADS: threads is "many", must be an integer from 1 to 1000\n'
        '--udp-port: udp.port is "70000", must be an integer from 0 to 65535 or none\n',
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
async def test_commands_that_are_none(launcher: str, tmp_path: Path, reactor: Any) -> None:
    """A registry that is not there ends the start with a line that names it."""
    ended = await run(
        reactor, command_line(launcher, "epoll", *FREE, "--commands=nowhere:commands"), tmp_path
    )
    assert ended == Ended(1, "", "commands: nowhere:commands: there is no module nowhere\n")


@pytest.mark.parametrize("launcher", LAUNCHERS)
async def test_commands_that_end_the_process(launcher: str, tmp_path: Path, reactor: Any) -> None:
    """A module that calls ``sys.exit`` ends the start with a line that says where, and status 1."""
    (tmp_path / "own.py").write_text("import sys\n\nsys.exit(0)\n")
    ended = await run(
        reactor, command_line(launcher, "epoll", *FREE, "--commands=own:commands"), tmp_path
    )
    assert ended == Ended(
        1,
        "",
        "commands: own:commands: the module cannot be imported: it ends the process "
        f"(SystemExit: 0) ({tmp_path}/own.py, line 3)\n",
    )
    checked = await run(
        reactor,
        [str(BIN / "twisted-net"), "check-config", "--commands=own:commands"],
        tmp_path,
    )
    assert checked == ended


@pytest.mark.parametrize(("launcher", "reactor_name"), EVERYWHERE)
async def test_port_that_is_taken(
    launcher: str, reactor_name: str, tmp_path: Path, reactor: Any
) -> None:
    """A port that is taken ends the start with one line on standard error, and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = command_line(launcher, reactor_name, f"--tcp-port={port}", "--udp-port=0")
        ended = await run(reactor, words, tmp_path)
    assert (ended.status, ended.stderr) == (
        1,
        f"cannot listen on 127.0.0.1:{port} (tcp): address already in use\n",
    )
    assert "Traceback" not in ended.stdout


async def test_daemon_on_a_port_that_is_taken(tmp_path: Path, reactor: Any) -> None:
    """The parent of a daemon that cannot listen says so, and no pid file is left."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = [str(BIN / "twistd"), "--pidfile=net.pid", "--logfile=net.log"]
        ended = await run(reactor, [*words, "net", f"--tcp-port={port}", "--udp-port=0"], tmp_path)
    assert ended.status == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    # The daemon tells its parent first; then it takes its pid file away, and logs.
    log = tmp_path / "net.log"
    line = f"cannot listen on 127.0.0.1:{port} (tcp): address already in use"
    await until(reactor, lambda: line in log.read_text())
    assert not (tmp_path / "net.pid").exists()
    assert "Traceback" not in log.read_text()


async def test_daemon(tmp_path: Path, reactor: Any) -> None:
    """As a daemon it serves, stops at SIGTERM, and takes its pid file away."""
    words = [str(BIN / "twistd"), "--pidfile=net.pid", "--logfile=net.log", "net", *FREE]
    ended = await run(reactor, words, tmp_path)
    assert ended == Ended(0, "", "")
    pid_file = tmp_path / "net.pid"
    log = tmp_path / "net.log"
    listening = re.search(r"listening on 127.0.0.1:(\d+) \(tcp\)", log.read_text())
    assert listening is not None
    # An answer tells that the reactor runs: until then a signal ends the process as it does any.
    assert json.loads(await exchange(int(listening[1]), b"PING\n"))["result"] == "PONG"

    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    await until(reactor, lambda: not pid_file.exists())
    assert "drained" in log.read_text()


async def test_check_and_print(own_commands: Path, reactor: Any) -> None:
    """What print-config prints is a file that check-config finds fine."""
    script = str(BIN / "twisted-net")
    options = ["--commands=own:commands", "--tcp-port=7"]
    printed = await run(reactor, [script, "print-config", *options], own_commands)
    assert (printed.status, printed.stderr) == (0, "")
    assert "port = 7  # --tcp-port" in printed.stdout
    (own_commands / "net.toml").write_text(printed.stdout)
    checked = await run(reactor, [script, "check-config", "-c", "net.toml"], own_commands)
    assert checked == Ended(0, "net.toml is valid\n", "")


class Flaky(Resource):
    """Answers 503 twice, then JSON that may be kept."""

    isLeaf = True
    requests = 0

    def render_GET(self, request: Request) -> bytes:
        """Answer as the class says."""
        self.requests += 1
        if self.requests <= 2:
            request.setResponseCode(503)
            return b"not yet"
        request.setHeader("content-type", "application/json")
        request.setHeader("cache-control", "max-age=60")
        return b'{"price": 5}'


async def test_fetch(tmp_path: Path, reactor: Any) -> None:
    """FETCH retries a server that fails twice, and answers again from the cache."""
    resource = Flaky()
    server = reactor.listenTCP(0, Site(resource), interface="127.0.0.1")
    url = f"http://127.0.0.1:{server.getHost().port}/price"
    words = command_line(
        "twistd", "epoll", *FREE, "--fetch-allow=127.0.0.1", "--http-retry-base=0.01"
    )
    try:
        async with Running(reactor, words, tmp_path) as process:
            tcp, _ = await process.ports()
            first = json.loads(await exchange(tcp, f"FETCH {url}\n".encode()))
            again = json.loads(await exchange(tcp, f"FETCH {url}\n".encode()))
            process.signal(signal.SIGTERM)
            assert (await process.ended()).status == 0
    finally:
        await server.stopListening()
    assert (first["status"], first["body"], first["from_cache"]) == (200, {"price": 5}, False)
    assert (again["status"], again["body"], again["from_cache"]) == (200, {"price": 5}, True)
    assert resource.requests == 3


def netcat() -> str:
    """Give the program nc, of the kind that has -N; where tests may not be left out, insist."""
    found = shutil.which("nc")
    if found is not None:
        usage = subprocess.run([found, "-h"], capture_output=True, text=True, check=False)
        if "-N" in usage.stderr + usage.stdout:
            return found
    missing("nc with -N (Debian: netcat-openbsd)")


async def test_netcat(tmp_path: Path, reactor: Any) -> None:
    """A client that ends its half gets all of its answers, five times in a row."""
    program = netcat()
    async with Running(reactor, command_line("twist", "epoll", *FREE), tmp_path) as process:
        tcp, udp = await process.ports()

        def speak(data: bytes, *options: str) -> bytes:
            return subprocess.run(
                [program, *options], input=data, capture_output=True, timeout=PATIENCE, check=True
            ).stdout

        for _ in range(5):
            answers = await deferToThread(
                speak, b"ECHO hello world\nTIME\nSTATS\nNOPE\n\n", "-N", "127.0.0.1", str(tcp)
            )
            assert len(answers.splitlines()) == 5
        many = await deferToThread(speak, b"PING\n" * 20_000, "-N", "127.0.0.1", str(tcp))
        assert many.count(b"PONG") == 20_000
        words = (program, "-u", "127.0.0.1", str(udp))
        assert await run_until(*words, data=b"PING", marker=b"PONG") == b"PONG"
