"""Sockets of the datagram server that are handed over, shared, scoped, full or lossy."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.systemd import ListenFDs

from tests.live.processes import BIN, Running, ask_datagrams
from tests.live.test_udp import stop
from tests.patience import PATIENCE, until
from twisted_net.net.addresses import Source
from twisted_net.udp import sockets
from twisted_net.udp.client import DatagramClient
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.port import CappedPort
from twisted_net.udp.server import DatagramServer, listen_at, listen_datagrams

ACTIVATE = """
import os, socket, sys
passed = socket.socket(type=socket.SOCK_DGRAM)
passed.bind(("127.0.0.1", 0))
os.dup2(passed.fileno(), 3)
os.set_inheritable(3, True)
passed.detach()  # it may be 3 itself
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="net")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Does what systemd does for a socket unit, then becomes the service."""


@contextmanager
def bound(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """Give a UDP socket as a parent process would have it: bound, and blocking."""
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        yield made


def ask(address: tuple[Any, ...], *questions: bytes, family: int = socket.AF_INET) -> list[bytes]:
    """Ask from one socket, one question after the other; in a thread."""
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        answers = []
        for question in questions:
            client.send(question)
            answers.append(client.recv(65_536))
        return answers


async def test_inherited(reactor: Any) -> None:
    """A descriptor that blocks is taken over without blocking the reactor, and may be again."""
    with bound() as passed:
        address = passed.getsockname()
        for _ in range(2):
            port = listen_at(reactor, DatagramServer(reactor), f"fd:{passed.fileno()}")
            try:
                assert port.getHost().port == address[1]
                # Nothing has come in: a reactor that reads a blocking socket would not get here.
                await deferLater(reactor, 0.05)
                assert await deferToThread(ask, address, b"PING", b"PING") == [b"PONG", b"PONG"]
            finally:
                await stop(port)
        assert not os.get_inheritable(passed.fileno())


async def test_inherited_guard(reactor: Any) -> None:
    """Whether answers are guarded goes by the address that the socket is bound to."""
    for address, guarded in (("127.0.0.1", False), ("0.0.0.0", True)):
        with socket.socket(type=socket.SOCK_DGRAM) as passed:
            passed.bind((address, 0))
            target = ("127.0.0.1", passed.getsockname()[1])
            port = listen_at(reactor, DatagramServer(reactor), f"fd:{passed.fileno()}")
            try:
                (answer,) = await deferToThread(ask, target, b"hello")
            finally:
                await stop(port)
        assert answer == (b"PAD" if guarded else b"ECHO: hello")


def test_what_is_no_udp_socket(reactor: Any) -> None:
    """A descriptor that is closed, no socket, a stream or not bound is refused, saying which."""
    with (
        socket.socket() as stream,
        socket.socket(type=socket.SOCK_DGRAM) as unbound,
        open(os.devnull, "rb") as file,
    ):
        for descriptor, reason in (
            (stream.fileno(), "it is not a UDP socket"),
            (unbound.fileno(), "it is not bound to a port"),
            (file.fileno(), "non-socket"),
            (999, "Bad file descriptor"),
        ):
            before = set(os.listdir("/dev/fd"))
            with pytest.raises(CannotListenError) as caught:
                listen_at(reactor, DatagramServer(reactor), f"fd:{descriptor}")
            assert f"fd:{descriptor}" in str(caught.value)
            assert reason in str(caught.value)
            assert set(os.listdir("/dev/fd")) == before


def test_not_activated(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd passed no socket, or not this one, the error says what it did pass."""
    for passed, place, reason in (
        (ListenFDs([]), "systemd:0", "passed no sockets to this process"),
        (ListenFDs([3], ["other"]), "systemd:1", "passed 1 sockets, counted from 0"),
        (ListenFDs([3], ["other"]), "systemd:net", "passed other, not net"),
    ):
        monkeypatch.setattr(sockets, "systemd_sockets", lambda passed=passed: passed)
        with pytest.raises(CannotListenError) as caught:
            listen_at(reactor, DatagramServer(reactor), place)
        assert reason in str(caught.value)


@pytest.mark.parametrize("which", ["0", "net"])
async def test_activated(reactor: Any, tmp_path: Path, which: str) -> None:
    """The service serves the socket that systemd passes, by its index or its name."""
    words = [str(BIN / "twisted-net"), "--tcp-port=0", "--udp-port=none"]
    words.append(f"--udp-sockets=systemd:{which}")
    async with Running(reactor, [sys.executable, "-c", ACTIVATE, *words], tmp_path) as service:
        port = int((await service.logged(r"listening on 127.0.0.1:(\d+) \(udp\)"))[1])
        assert await ask_datagrams(port, b"PING", b"hello") == [b"PONG", b"ECHO: hello"]


async def test_several(reactor: Any, tmp_path: Path) -> None:
    """A service with several sockets counts their datagrams and clients together."""
    words = [str(BIN / "twisted-net"), "--tcp-port=0", "--udp-port=none"]
    words.append("--udp-sockets=udp:0,udp:0:interface=[::1]")
    async with Running(reactor, words, tmp_path) as service:
        first = int((await service.logged(r"listening on 127.0.0.1:(\d+) \(udp\)"))[1])
        second = int((await service.logged(r"listening on \[::1\]:(\d+) \(udp\)"))[1])
        assert await ask_datagrams(first, b"PING") == [b"PONG"]
        family = socket.AF_INET6
        (stats,) = await deferToThread(ask, ("::1", second), b"STATS", family=family)
    assert b'"total_packets":2,"active_clients":2,' in stats


async def test_shared_port(reactor: Any) -> None:
    """A port is shared by those who ask for it, who get a part of the clients each."""
    first = DatagramServer(reactor)
    port = listen_at(reactor, first, "udp:0:reuseport=yes")
    ports = [port]
    try:
        number = port.getHost().port
        second = first.companion()
        ports.append(listen_at(reactor, second, f"udp:{number}:reuseport=yes"))
        with pytest.raises(CannotListenError):
            listen_at(reactor, first.companion(), f"udp:{number}")
        for _ in range(40):
            assert await deferToThread(ask, ("127.0.0.1", number), b"PING") == [b"PONG"]
        assert first.responder.counts.received == 40
        assert second.responder is first.responder
    finally:
        for port in ports:
            await stop(port)


def link_local() -> tuple[str, str]:
    """Give a link-local address of this machine, and the interface that has it."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        digits, _index, _prefix, _scope, _flags, name = line.split()
        if digits.startswith("fe80"):
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), name
    pytest.skip("no interface of this machine has a link-local address")


async def test_scopes(reactor: Any) -> None:
    """A link-local socket is bound on its link, and answers link-local clients there."""
    host, name = link_local()
    index = socket.if_nametoindex(name)
    seen: list[Source] = []

    def handler(data: bytes, source: Source) -> bytes:
        seen.append(source)
        return data

    limits = DatagramLimits(guard="never")
    for place in (f"udp:0:interface=[{host}%{name}]", "udp:0:interface=[::]"):
        port = listen_at(reactor, DatagramServer(reactor, limits, handler), place)
        try:
            target = (host, port.getHost().port, 0, index)
            answers = await deferToThread(ask, target, b"hello", family=socket.AF_INET6)
            assert answers == [b"hello"]
            assert seen[-1][0] == f"{host}%{index}"
            if name in place:
                assert port.getHost().host == f"{host}%{index}"
            # Not at once, but later, by the address alone.
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                client.bind((host, 0, 0, index))
                client.settimeout(PATIENCE)
                for scope in (name, index):
                    port.write(b"later", (f"{host}%{scope}", client.getsockname()[1]))
                    assert await deferToThread(client.recv, 100) == b"later"
            async with DatagramClient(reactor, f"{host}%{name}", target[1]) as scoped:
                assert await scoped.ask(b"by a client") == b"by a client"
            port.write(b"lost", (f"{host}%nowhere", 9))
            assert port.counts.dropped == 1
        finally:
            await stop(port)


async def test_two_servers(reactor: Any) -> None:
    """Two guarded servers that are made to talk to each other fall silent at once."""
    limits = DatagramLimits(guard="always", datagrams_per_network=None)
    servers = [DatagramServer(reactor, limits) for _ in range(2)]
    ports = [listen_datagrams(reactor, server, 0) for server in servers]
    try:
        for data in (
            b"ECHO: ECHO: hello".ljust(100),
            b"\xff\x00\x00\x00".ljust(50),
            b"STATS".ljust(1200),
            b"x" * 5000,
            b"PING",
        ):
            for sender, receiver in (ports, ports[::-1]):
                host = receiver.getHost()
                # From the first one's own socket: no packet could be forged better.
                sender.write(data, (host.host, host.port))

        def received() -> list[int]:
            return [server.responder.counts.received for server in servers]

        await until(reactor, lambda: min(received()) >= 5)
        # Whoever goes on has an answer for the other in each turn.
        before = [0, 0]
        while before != received():
            before = received()
            for _ in range(20):
                await deferLater(reactor, 0)
            # 5 sent to each, and at most two answers to each of all ten.
            assert max(received()) <= 15
    finally:
        for port in ports:
            await stop(port)


async def test_guarded_and_unguarded(reactor: Any) -> None:
    """A datagram that is forged between two ports of a service, one of them guarded, ends there."""
    limits = DatagramLimits(guard="public", datagrams_per_network=None)
    server = DatagramServer(reactor, limits)
    guarded = listen_datagrams(reactor, server, 0, "0.0.0.0")
    free = listen_datagrams(reactor, server.companion(), 0)
    try:
        address = "127.0.0.1", guarded.getHost().port
        free.write(b"x".ljust(4096), address)
        await until(reactor, lambda: server.responder.counts.received)
        before = 0
        while before != server.responder.counts.received:
            before = server.responder.counts.received
            for _ in range(20):
                await deferLater(reactor, 0)
        assert server.responder.counts.received == 1
    finally:
        for port in (guarded, free):
            await stop(port)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what it dropped")
async def test_kernel_drops(reactor: Any) -> None:
    """Of a burst of 20,000 datagrams all are counted: as received, or as dropped by the kernel."""
    count = 20_000
    for size in (65_536, 1 << 20):
        server = DatagramServer(reactor, DatagramLimits(receive_buffer=size))
        port = listen_datagrams(reactor, server, 0)
        try:
            counts = server.responder.counts
            with bound() as source:
                for _ in range(count):
                    source.sendto(b"burst", ("127.0.0.1", port.getHost().port))
                await until(reactor, lambda: counts.received + counts.kernel_drops >= count)  # noqa: B023
            assert counts.kernel_drops > 0
            assert counts.received + counts.kernel_drops == count
        finally:
            await stop(port)
        # The socket is gone, and its figure is not.
        assert counts.received + counts.kernel_drops == count


class Paired(socket.socket):
    """One end of a pair of Unix datagram sockets, whose queue is short, as a UDP port sees it."""

    def getsockname(self) -> Source:
        return ("127.0.0.1", 40_000)


async def test_full_socket(reactor: Any) -> None:
    """What a kernel does not take at once leaves, whole and in order, when it takes it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    paired = Paired(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=ours.detach())
    with theirs:
        theirs.settimeout(PATIENCE)
        port = CappedPort(0, DatagramProtocol(), reactor=reactor, opened=paired)
        port.startListening()
        port._server = ("127.0.0.1", 1)  # it is connected, to the other end
        try:
            sent = [b"%d" % number for number in range(500)]
            for data in sent:
                port.write(data)
            assert len(port._queue) > 0
            received = [await deferToThread(theirs.recv, 100) for _ in sent]
            assert received == sent
            assert (port.counts.dropped, len(port._queue)) == (0, 0)
            for data in [*sent, *sent, *sent]:
                port.write(data)
            assert port.counts.dropped > 0
            dropped, waiting = port.counts.dropped, len(port._queue)
        finally:
            await stop(port)
        # Nobody reads: what waits is dropped with the socket.
        assert port.counts.dropped == dropped + waiting
