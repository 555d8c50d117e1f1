"""Limits over real sockets: those who pass them are told, or cut off, and the others are served."""

from __future__ import annotations

import json
import select
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.live.processes import Line, Running, command_line
from tests.live.programs import port_of, serving
from tests.patience import PATIENCE, until
from twisted_net.tcp.listener_settings import Listener

FREE = ("--tcp-port=0", "--udp-port=0")


async def ask(line: Line, request: bytes) -> Any:  # Any: JSON
    """Send a line, and give its answer."""
    line.send(request)
    return json.loads(await line.read())


async def ends(line: Line) -> dict[str, int]:
    """Give why connections ended, and how many."""
    ended = (await ask(line, b"STATS"))["connections_ended"]
    return {reason: count for reason, count in ended.items() if count}


async def test_connections(reactor: Any, tmp_path: Path) -> None:
    """One connection too many of an address is told so, and closed."""
    words = command_line("twisted-net", "epoll", *FREE, "--tcp-connections-per-address=2")
    async with Running(reactor, words, tmp_path) as process:
        port, _ = await process.ports()
        with Line(port) as first, Line(port), Line(port) as third:
            answer = json.loads(await third.read())
            assert (answer["code"], answer["scope"]) == ("too_many_connections", "address")
            assert await third.read() == b""
            assert await ends(first) == {"address_limit": 1}


async def test_rates(reactor: Any, tmp_path: Path) -> None:
    """Commands beyond a rate are refused and counted."""
    words = command_line(
        "twisted-net", "epoll", *FREE, "--tcp-commands-per-address=1e-9", "--tcp-command-burst=5"
    )
    async with Running(reactor, words, tmp_path) as process:
        port, _ = await process.ports()
        with Line(port) as line:
            codes = [(await ask(line, b"PING")).get("code") for _ in range(8)]
            assert codes == [None] * 5 + ["rate_limited"] * 3


async def test_bytes(patient_reactor: Any) -> None:
    """Bytes beyond a rate are slowed down, and all are answered."""
    limits = {"bytes_per_address": 1_000_000.0, "byte_burst": 100_000}
    async with serving(patient_reactor, Listener(port=0, limits=limits)) as service:
        with Line(port_of(service)) as line:
            began = patient_reactor.seconds()
            for _ in range(60):
                line.send(b"ECHO " + b"x" * 4990)
            for _ in range(60):
                assert len(json.loads(await line.read())["result"]) == 4990
            # 300 kB came, and 300 kB went; of the last answer the debt is not waited for.
            assert patient_reactor.seconds() - began > 0.3


async def test_web_page(reactor: Any, tmp_path: Path) -> None:
    """What a web page makes a browser send is closed at once, and logged."""
    words = command_line("twisted-net", "epoll", *FREE)
    async with Running(reactor, words, tmp_path) as process:
        port, _ = await process.ports()
        with Line(port) as page, Line(port) as line:
            page.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nBROADCAST pwned")
            assert await page.read() == b""
            assert await ends(line) == {"cross_protocol": 1}
        await process.logged(r"closed: .* as nobody: 'cross_protocol: POST / HTTP/1\.1'")


async def test_buffers(reactor: Any, tmp_path: Path) -> None:
    """Halves of lines without end do not grow beyond the cap; the others go on."""
    words = command_line(
        "twisted-net",
        "epoll",
        *FREE,
        "--tcp-max-line=1000000",
        "--tcp-max-buffered=2000000",
    )
    async with Running(reactor, words, tmp_path) as process:
        port, _ = await process.ports()

        def attack() -> None:
            """Send half a line on each connection, as much of it as is taken."""
            for attacker in attackers:
                with suppress(ConnectionResetError, BrokenPipeError):
                    attacker.sendall(b"x" * 900_000)

        def cut_off() -> int:
            """Count the connections at whose end there is something to read: their end."""
            return len(select.select(attackers, [], [], 0)[0])

        with Line(port) as line, ExitStack() as opened:
            attackers = [
                opened.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
                for _ in range(10)
            ]
            await deferToThread(attack)
            assert (await ask(line, b"PING"))["result"] == "PONG"
            await until(reactor, lambda: cut_off() >= 8)
            assert (await ends(line))["buffers_full"] >= 8


async def test_keepalive(reactor: Any, tmp_path: Path) -> None:
    """Dead peers are asked by TCP: the kernel shows the timer of an idle connection."""
    words = command_line("twisted-net", "epoll", *FREE, "--tcp-keepalive=7")
    async with Running(reactor, words, tmp_path) as process:
        port, _ = await process.ports()
        with Line(port) as line:
            await ask(line, b"PING")

            def timers() -> list[str]:
                rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
                # Of the connection's end at the server: its local port, and it is established.
                ours = [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"]
                return [row[5].split(":")[0] for row in ours]

            # 02 is a keepalive timer; until the client's kernel has confirmed the answer it is 01.
            await until(reactor, lambda: timers() != ["01"])
            assert timers() == ["02"]
