"""Starts the installed service as a process of its own, and speaks to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from typing_extensions import override

from tests.patience import PATIENCE

BIN = Path(sys.executable).parent

LAUNCHERS = {
    "twistd": [str(BIN / "twistd"), "-n", "--pidfile=", "--reactor={reactor}", "net"],
    "twist": [str(BIN / "twist"), "--log-format=text", "--reactor={reactor}", "net"],
    "twisted-net": [str(BIN / "twisted-net"), "--reactor={reactor}"],
    "python -m twisted_net": [sys.executable, "-m", "twisted_net", "run", "--reactor={reactor}"],
}
"""How the service can be started, by the name that a person would give it."""


def command_line(launcher: str, reactor: str, *options: str) -> list[str]:
    """Give the words that start the service."""
    return [*(word.format(reactor=reactor) for word in LAUNCHERS[launcher]), *options]


@frozen
class Ended:
    """
    How a process ended.

    :param status: 0 to 255, or less the number of the signal that ended it.
    """

    status: int
    stdout: str
    stderr: str


class Running(ProcessProtocol):
    """
    A process that was started; a context that kills what is left of it.

    :param words: the program and its arguments.
    :param directory: where it is started.
    :param environ: set beside the environment of the tests.
    """

    def __init__(
        self,
        reactor: Any,  # Any: reactors have no one type
        words: Sequence[str],
        directory: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._stdout = b""
        self._stderr = b""
        self._waiting: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []
        self._ended: Ended | None = None
        self._watchers: list[Deferred[Ended]] = []
        self._process = reactor.spawnProcess(
            self, words[0], words, env=os.environ | (environ or {}), path=str(directory)
        )
        self._process.closeStdin()

    async def __aenter__(self) -> Running:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        with contextlib.suppress(ProcessExitedAlready):
            self._process.signalProcess(number)

    def ended(self) -> Deferred[Ended]:
        """Wait for the end of the process."""
        watcher: Deferred[Ended] = Deferred()
        if self._ended is not None:
            watcher.callback(self._ended)
        else:
            self._watchers.append(watcher)
        return watcher

    def logged(self, pattern: str) -> Deferred[re.Match[str]]:
        """
        Wait until the standard output holds *pattern*.

        :return: fails with AssertionError if the process ends without it.
        """
        waiter: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((re.compile(pattern), waiter))
        self._look()
        return waiter

    async def ports(self) -> tuple[int, int]:
        """Wait until it listens, and give the ports that it got for TCP and UDP."""
        tcp = await self.logged(r"listening on [\d.]+:(\d+) \(tcp\)")
        udp = await self.logged(r"listening on [\d.]+:(\d+) \(udp\)")
        return int(tcp[1]), int(udp[1])

    @override
    def outReceived(self, data: bytes) -> None:
        self._stdout += data
        self._look()

    @override
    def errReceived(self, data: bytes) -> None:
        self._stderr += data

    @override
    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value  # Any: ProcessDone or ProcessTerminated
        status = value.exitCode if value.exitCode is not None else -value.signal
        self._ended = Ended(status, self._stdout.decode(), self._stderr.decode())
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.callback(self._ended)
        self._look()

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, []
        for pattern, waiter in waiting:
            match = pattern.search(self._stdout.decode())
            if match is not None:
                waiter.callback(match)
            elif self._ended is not None:
                waiter.errback(AssertionError(f"no {pattern.pattern!r} in {self._ended}"))
            else:
                self._waiting.append((pattern, waiter))


def exchange(port: int, lines: bytes) -> Deferred[bytes]:
    """Send *lines* over TCP, end our half, and give all that comes back."""

    def speak() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(lines)
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile("rb").read()

    return deferToThread(speak)


def ask_datagrams(port: int, *datagrams: bytes) -> Deferred[list[bytes]]:
    """Send datagrams one by one, and give the answer to each."""

    def speak() -> list[bytes]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", port))
            answers = []
            for datagram in datagrams:
                sock.send(datagram)
                answers.append(sock.recv(65_536))
            return answers

    return deferToThread(speak)


class Line:
    """
    A TCP client that stays connected; its calls wait in a thread.

    It must be closed; as a context it closes itself.

    :param source: the address that it comes from.
    """

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0)
        )
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def send(self, line: bytes) -> None:
        """Send one line, with its end."""
        self._socket.sendall(line + b"\n")

    def read(self) -> Deferred[bytes]:
        """Wait for a line; nothing is the end of the stream, also where it was reset."""

        def receive() -> bytes:
            try:
                return self._file.readline()
            except ConnectionResetError:
                return b""

        return deferToThread(receive)

    async def expect_shutdown(self) -> None:
        """Expect the event of a shutdown, and then the end of the stream."""
        assert json.loads(await self.read())["event"] == "shutdown"
        assert await self.read() == b""
