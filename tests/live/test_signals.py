"""No signal ends the process undrained, under every launcher and reactor."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from tests.live.processes import BIN, LAUNCHERS, Line, Running, command_line, exchange
from tests.patience import PATIENCE, until, wait_until
from twisted_net.service.signals import ENDING, STOPPING

FREE = ("--tcp-port=0", "--udp-port=0")
COMMON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

EVERYWHERE = [
    *((launcher, "epoll") for launcher in LAUNCHERS),
    *((launcher, "quiet") for launcher in ("twistd", "twisted-net")),
    *((launcher, "asyncio") for launcher in ("twistd", "twisted-net")),
]


@pytest.mark.parametrize(("launcher", "reactor_name"), EVERYWHERE)
async def test_goes_on(launcher: str, reactor_name: str, tmp_path: Path, reactor: Any) -> None:
    """Signals that are for others are logged, in bounded number, and clients are served on."""
    async with Running(reactor, command_line(launcher, reactor_name, *FREE), tmp_path) as process:
        tcp, _ = await process.ports()
        with Line(tcp) as line:
            for number in COMMON:
                process.signal(number)
                await process.logged(f"{number.name}: ignored")
            for other in sorted(ENDING - STOPPING - {*COMMON}):
                process.signal(other)
            await process.logged(f"{signal.SIGALRM.name}: ignored")
            for _ in range(10_000):
                process.signal(signal.SIGUSR2)
            line.send(b"PING")
            assert json.loads(await line.read())["result"] == "PONG"
            process.signal(signal.SIGTERM)
            await line.expect_shutdown()
        ended = await process.ended()
    assert (ended.status, ended.stderr) == (0, "")
    assert "1 connections, 0 of them aborted" in ended.stdout
    # A line a second each, however long the signals take to be sent.
    assert ended.stdout.count("SIGUSR2") < 100


@pytest.mark.parametrize(("launcher", "reactor_name"), EVERYWHERE)
async def test_during_the_drain(
    launcher: str, reactor_name: str, tmp_path: Path, reactor: Any
) -> None:
    """Signals during the drain, such as systemd's SIGHUP after SIGTERM, do not cut it short."""
    (tmp_path / "own.py").write_text(
        "from twisted.internet.task import deferLater\n"
        "from twisted_net.commands.registry import Commands\n"
        "commands = Commands()\n"
        "@commands.command()\n"
        "async def sleep(seconds: float) -> str:\n"
        "    'Wait.'\n"
        "    from twisted.internet import reactor\n"
        "    await deferLater(reactor, seconds)\n"
        "    return 'slept'\n"
    )
    options = (*FREE, "--commands=own:commands", "--drain-timeout=3600")
    words = command_line(launcher, reactor_name, *options)
    async with Running(reactor, words, tmp_path) as process:
        tcp, _ = await process.ports()
        with Line(tcp) as line:
            line.send(b"SLEEP 1")
            await exchange(tcp, b"PING\n")  # and so the line before it has been taken
            process.signal(signal.SIGTERM)
            assert json.loads(await line.read())["event"] == "shutdown"
            for number in (*COMMON, *STOPPING):
                process.signal(number)
            assert json.loads(await line.read())["result"] == "slept"
            assert await line.read() == b""
        ended = await process.ended()
    assert (ended.status, ended.stderr) == (0, "")


@pytest.mark.parametrize("launcher", ["twistd", "twist", "twisted-net"])
async def test_during_the_start(launcher: str, tmp_path: Path, reactor: Any) -> None:
    """Signals that come before it listens do not end it."""
    # It says so when it is imported, which is before anything listens.
    (tmp_path / "own.py").write_text(
        "import os, pathlib\n"
        "from twisted_net.commands.registry import Commands\n"
        "commands = Commands()\n"
        "pathlib.Path('starting').write_text(str(os.getpid()))\n"
        "open('signalled', 'rb').read(1)\n"
    )
    os.mkfifo(tmp_path / "signalled")
    # For reading, too, so that this does not wait.
    signalled = os.open(tmp_path / "signalled", os.O_RDWR)
    words = command_line(launcher, "epoll", *FREE, "--commands=own:commands")
    async with Running(reactor, words, tmp_path) as process:
        await until(reactor, lambda: (tmp_path / "starting").exists())
        for number in COMMON:
            process.signal(number)
        os.write(signalled, b".")
        await process.ports()
        for number in COMMON:
            await process.logged(f"{number.name}: ignored")
        process.signal(signal.SIGTERM)
        assert (await process.ended()).status == 0
    os.close(signalled)


@pytest.mark.parametrize("number", sorted(STOPPING), ids=lambda number: signal.Signals(number).name)
async def test_stops(number: int, tmp_path: Path, reactor: Any) -> None:
    """Those by which the system announces the end drain, as SIGTERM does."""
    words = command_line("twisted-net", "epoll", *FREE)
    async with Running(reactor, words, tmp_path) as process:
        tcp, _ = await process.ports()
        with Line(tcp) as line:
            line.send(b"PING")
            await line.read()
            process.signal(number)
            await line.expect_shutdown()
        assert (await process.ended()).status == 0


async def test_nohup(tmp_path: Path, reactor: Any) -> None:
    """Under nohup SIGHUP is ignored without a word."""
    words = ["nohup", *command_line("twisted-net", "epoll", *FREE)]
    async with Running(reactor, words, tmp_path) as process:
        await process.ports()
        process.signal(signal.SIGHUP)
        process.signal(signal.SIGUSR2)
        await process.logged("SIGUSR2: ignored")
        process.signal(signal.SIGTERM)
        assert "SIGHUP" not in (await process.ended()).stdout


@pytest.mark.parametrize("name", ["epoll", "quiet", "asyncio"])
async def test_terminal(name: str, tmp_path: Path, reactor: Any) -> None:
    """It drains when its terminal is closed, not when a person sends SIGHUP by mistake."""

    def run() -> tuple[bytes, int]:
        ours, its = pty.openpty()
        starter = (
            "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            # The tests themselves may run under nohup.
            "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
        )
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", starter, *command_line("twisted-net", name, *FREE)],
                stdin=its,
                stdout=output,
                start_new_session=True,
            )
        os.close(its)
        try:
            _wait_for(log, b"listening on 127.0.0.1")
            process.send_signal(signal.SIGHUP)
            _wait_for(log, b"SIGHUP: ignored")
            os.close(ours)
            return log.read_bytes(), process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()

    _, status = await deferToThread(run)
    assert status == 0
    assert b"SIGHUP: the terminal is closed: stopping" in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize("daemon", [False, True])
async def test_logrotate(daemon: bool, tmp_path: Path, reactor: Any) -> None:
    """After the log file was moved away SIGUSR1 makes it write a new one."""
    log, moved = tmp_path / "net.log", tmp_path / "net.log.old"
    twistd = [str(BIN / "twistd"), f"--logfile={log}", f"--pidfile={tmp_path / 'pid'}"]
    words = [*twistd, *([] if daemon else ["-n"]), "net", *FREE]

    def work() -> None:
        _wait_for(log, b"listening on 127.0.0.1")
        pid = int((tmp_path / "pid").read_text())
        log.rename(moved)
        os.kill(pid, signal.SIGUSR1)
        _wait_for(log, b"SIGUSR1: the log file was opened again")
        os.kill(pid, signal.SIGTERM)
        _wait_for(log, b"Server Shut Down")
        assert b"stopping" not in moved.read_bytes()

    async with Running(reactor, words, tmp_path) as process:
        await deferToThread(work)
        assert (await process.ended()).status == 0


def _wait_for(file: Path, text: bytes) -> None:
    """Wait until a file holds a text."""
    wait_until(lambda: file.exists() and text in file.read_bytes())
