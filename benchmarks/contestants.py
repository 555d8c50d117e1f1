"""Who is measured: this package on two reactors, and the rivals, with what each is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

PATIENCE = 10.0
"""Seconds in which every answer must come."""


@frozen
class Exchange:
    """
    A request, and what its answer is like.

    :param request: with its end.
    :param fits: tells whether these bytes are the whole answer, and the right one.
    """

    request: bytes
    fits: Callable[[bytes], bool]

    def answer(self, port: int) -> bytes:
        """
        Ask the server at this port, and give its answer, which must be the same ever after.

        :raises RuntimeError: where something else comes, or nothing.
        """
        answer = b""
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(self.request)
            while not self.fits(answer):
                try:
                    piece = client.recv(65_536)
                except TimeoutError:
                    piece = b""
                if not piece:
                    raise RuntimeError(f"{self.request!r} is answered with {answer!r}")
                answer += piece
        return answer


def _json(request: bytes, command: str, result: str) -> Exchange:
    expected = {"command": command, "result": result}
    return Exchange(
        request, lambda answer: answer.endswith(b"\n") and json.loads(answer) == expected
    )


def _bytes(request: bytes, expected: bytes) -> Exchange:
    return Exchange(request, lambda answer: answer == expected)


ECHO = _json(b"ECHO hello world\n", "ECHO", "hello world")
PING = _json(b"PING\n", "PING", "PONG")
REDIS_ECHO = _bytes(b"*2\r\n$4\r\nECHO\r\n$11\r\nhello world\r\n", b"$11\r\nhello world\r\n")
REDIS_PING = _bytes(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n")
# The smallest question that memcached has: it echoes nothing.
MEMCACHED_VERSION = Exchange(
    b"version\r\n", lambda answer: answer.startswith(b"VERSION ") and answer.endswith(b"\r\n")
)


@frozen
class Contestant:
    """
    A server that can be started, asked and measured.

    :param title: its name for people.
    :param words: the command that starts it at a TCP and a UDP port of loopback.
    :param echo: the exchange that its cost is measured with.
    :param ping: the exchange that its latency for a neighbour is measured with.
    :param program: must be installed.
    :param package: must be importable.
    :param ours: whether it is this package.
    :param udp: whether it answers datagrams as ours does.
    """

    name: str
    title: str
    words: Callable[[int, int], list[str]]
    echo: Exchange = ECHO
    ping: Exchange = PING
    program: str = ""
    package: str = ""
    ours: bool = False
    udp: bool = False

    def missing(self) -> str | None:
        """Tell what must be installed first, if anything."""
        if self.program and find_program(self.program) is None:
            return f"{self.program} is not installed; it is in Debian's package of that name"
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed: pip install -e '.[bench]'"
        return None


def find_program(name: str) -> str | None:
    """Find a program, also where Debian keeps those of administrators."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _service(reactor: str) -> Callable[[int, int], list[str]]:
    """Give the command of the service as an operator starts it, everything as by default."""
    twistd = str(Path(sys.executable).with_name("twistd"))

    def words(tcp_port: int, udp_port: int) -> list[str]:
        ports = [f"--tcp-port={tcp_port}", f"--udp-port={udp_port}"]
        return [twistd, f"--reactor={reactor}", "-n", "--pidfile=", "net", *ports]

    return words


def _rival(name: str) -> Callable[[int, int], list[str]]:
    return lambda *ports: [sys.executable, "-m", "benchmarks.rivals", name, *map(str, ports)]


def redis_words(tcp_port: int, udp_port: int = 0) -> list[str]:
    """Give the command of Redis in memory alone, with more clients than its default."""
    words = [find_program("redis-server") or "redis-server", "--port", str(tcp_port)]
    return [*words, "--bind", "127.0.0.1", "--save", "", "--maxclients", "20000"]


def _memcached_words(tcp_port: int, udp_port: int) -> list[str]:
    words = [find_program("memcached") or "memcached", "-l", "127.0.0.1", "-p", str(tcp_port)]
    # One worker, as all others have: with more, -c counts too, and a core is not the unit.
    words += ["-t", "1", "-c", "20000"]
    return words + (["-u", "nobody"] if os.geteuid() == 0 else [])


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("quiet", "twisted_net, quiet reactor", _service("quiet"), ours=True, udp=True),
        Contestant("ours", "twisted_net, epoll reactor", _service("epoll"), ours=True, udp=True),
        Contestant("line-receiver", "Twisted LineReceiver", _rival("line-receiver")),
        Contestant("plain", "Twisted LineOnlyReceiver", _rival("plain"), udp=True),
        Contestant("asyncio", "asyncio streams", _rival("asyncio"), udp=True),
        Contestant(
            *("uvloop-streams", "asyncio streams on uvloop", _rival("uvloop-streams")),
            package="uvloop",
        ),
        Contestant(*("uvloop", "Protocol on uvloop", _rival("uvloop")), package="uvloop", udp=True),
        Contestant(
            *("redis", "Redis", redis_words, REDIS_ECHO, REDIS_PING), program="redis-server"
        ),
        Contestant(
            *("memcached", "memcached", _memcached_words),
            *(MEMCACHED_VERSION, MEMCACHED_VERSION),
            program="memcached",
        ),
    )
}
"""By name, in the order of the tables."""

REFERENCE = "line-receiver"
"""Whom ratios are to: plain Twisted, with the class that most servers are written with."""
