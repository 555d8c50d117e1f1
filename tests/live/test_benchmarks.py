"""The benchmarks measure real servers, and notice one that answers wrongly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineOnlyReceiver

from benchmarks import forged_sources
from benchmarks.contestants import ECHO
from benchmarks.load import (
    Clients,
    Load,
    WrongAnswer,
    ask_datagrams,
    ask_from_many,
    ask_in_bursts,
)
from tests.live.programs import port_of, serving
from tests.patience import PATIENCE
from twisted_net.tcp.listener_settings import Listener

ROOT = Path(__file__).resolve().parents[2]


class Forgetful(LineOnlyReceiver):
    """Answers as it should, but for one line in two hundred."""

    delimiter = b"\n"
    lines = 0

    def lineReceived(self, line: bytes) -> None:
        """Answer a line."""
        type(self).lines += 1
        result = "hello" if self.lines % 200 == 0 else "hello world"
        self.sendLine(json.dumps({"command": "ECHO", "result": result}).encode())


class Deaf(DatagramProtocol):
    """Answers each datagram with the same."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Answer a datagram."""
        assert self.transport is not None
        self.transport.write(b"ECHO: hello 0", addr)


def ask(port: int, connections: int, depth: int) -> Load:
    """Load a server for a moment."""
    with Clients(port, ECHO, depth) as clients:
        clients.open(connections)
        return clients.run(0.1)


async def test_load(reactor: Any) -> None:
    """Each of many connections is asked and answered, in batches, to the last one."""
    async with serving(reactor, Listener(port=0)) as service:
        load = await deferToThread(ask, port_of(service), 120, 16)
        commands = service.sessions.messages
    # One line finds the answer out, one opens each connection, and all others are counted.
    assert load.requests == commands - 121
    assert load.requests == len(load.times) * 16 >= 120 * 16
    assert 0 < load.percentile(0.5) <= load.percentile(0.99)


async def test_wrong_answers(reactor: Any) -> None:
    """One wrong answer among many ends the load with an error that shows it."""
    port = reactor.listenTCP(0, Factory.forProtocol(Forgetful), interface="127.0.0.1")
    try:
        with pytest.raises(WrongAnswer, match='"result": "hello"}'):
            # However short the load is, each connection asks once: these are 241 lines.
            await deferToThread(ask, port.getHost().port, 120, 1)
    finally:
        await port.stopListening()


async def test_wrong_datagrams(reactor: Any) -> None:
    """A datagram that answers nothing that was asked ends the load with an error."""
    port = reactor.listenUDP(0, Deaf(), interface="127.0.0.1")
    try:
        with pytest.raises(WrongAnswer, match="ECHO: hello 0"):
            await deferToThread(ask_datagrams, port.getHost().port, 4, 0.1)
        for ask_so in (ask_from_many, ask_in_bursts):
            with pytest.raises(WrongAnswer, match=r"hello 0' instead of b'ECHO: hello [1-9]"):
                await deferToThread(ask_so, port.getHost().port, 4, 0.1)
    finally:
        await port.stopListening()


def test_forged_sources(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is kept of forged sources, however many there are; of verified ones something is."""
    forged_sources.main(["--rounds=1", "--crowds", "10", "500"])
    lines = capsys.readouterr().out.splitlines()[1:-1]
    assert len(lines) == 2 * len(forged_sources.KINDS)
    assert all(line.endswith("nothing") for line in lines)
    assert forged_sources.main(["--verified", "--rounds=1", "--crowds", "10"]) == 0
    assert "10 peers" in capsys.readouterr().out


async def test_command(tmp_path: Path) -> None:
    """``python -m benchmarks`` measures who is named, and writes what is asked for."""
    kept, drawn = tmp_path / "kept.json", tmp_path / "drawn.svg"
    words = [
        *(sys.executable, "-m", "benchmarks", f"--json={kept}", f"--svg={drawn}"),
        *("--only=quiet,plain", "--scenarios=tcp-1x1,udp,udp-bursts,udp-clients,fairness,start-up"),
        *("--rounds=1", "--seconds=0.05"),
    ]
    ended = await deferToThread(
        subprocess.run, words, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert ended.returncode == 0, ended.stderr
    assert "round 1 of 1: Twisted LineOnlyReceiver" in ended.stderr
    report = json.loads(kept.read_text())
    assert list(report["figures"]) == [
        *("tcp-1x1", "udp", "udp-bursts", "udp-clients", "fairness", "start-up")
    ]
    for rows in report["figures"].values():
        assert list(rows) == ["quiet", "plain"]
        assert all(figure > 0 for row in rows.values() for figure in row[0].values())
    assert "twisted_net, quiet reactor" in ended.stdout
    assert drawn.read_text().startswith("<svg")


async def test_posts() -> None:
    """POSTs reach servers of HTTP/1.0 and 1.1 of Python's library."""
    names = ("http.server", "http.server, threads", "wsgiref", "HTTP/1.0")
    words = [sys.executable, "-m", "benchmarks.http_posts", "--count=100", *names]
    ended = await deferToThread(
        subprocess.run, words, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.split("\n") == [*(f"{name:24}     100 of 100" for name in names), ""]
