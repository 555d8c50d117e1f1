"""The benchmark of attacks sees what a real server does to a crowd and to users."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from benchmarks import right_users
from benchmarks.attack_rows import ATTACKS
from benchmarks.attacked import NAME_SERVER, TWISTD, CannotRun, dead_name_server
from benchmarks.attacks import Outcome, measure, row
from benchmarks.crowds import SECRET, Counts, Crowd, Running
from benchmarks.right_users import KNOWN, TRIES, RightUsers, log_in
from tests.live.programs import port_of, serving
from tests.patience import PATIENCE
from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import AuthSettings
from twisted_net.tcp.listener_settings import Listener


class Closer(Protocol):
    """Says a secret, and ends the connection at the first byte that comes."""

    def connectionMade(self) -> None:
        """Say it."""
        assert self.transport is not None
        self.transport.write(b"it is " + SECRET)

    def dataReceived(self, data: bytes) -> None:
        """End the connection."""
        assert self.transport is not None
        self.transport.loseConnection()


class Mute(Protocol):
    """Says nothing to any login, but what nobody has asked for."""

    def dataReceived(self, data: bytes) -> None:
        """Say something that is no answer."""
        assert self.transport is not None
        self.transport.write(b'{"event":"broadcast"}\n')


def run(crowd: Crowd, port: int, until: Callable[[Counts], bool]) -> Counts:
    """Let a crowd loose until its counts are so; return them."""
    running = Running(crowd, port)
    running.run(lambda: until(running.counts), lambda: None)
    running.close()
    return running.counts


def greetings(number: int) -> Iterator[bytes]:
    """Say one thing."""
    return iter([b"hello\n"])


async def test_crowd(reactor: Any) -> None:
    """A crowd counts whom the server ended, to the last one, and who has heard a secret."""
    port = reactor.listenTCP(0, Factory.forProtocol(Closer), interface="127.0.0.1")
    crowd = Crowd(
        greetings, 20, most=1_000_000, may_hear=lambda number: number % 4 == 0, finishes=True
    )
    try:
        number = port.getHost().port
        counts = await deferToThread(run, crowd, number, lambda counts: counts.opened >= 100)
    finally:
        await port.stopListening()
    assert counts.opened == counts.ended >= 100
    assert counts.heard == (counts.opened + 3) // 4
    assert counts.heard + counts.leaked == counts.opened


class Witness(Protocol):
    """Remembers how its connections end."""

    ends: ClassVar[list[type[BaseException] | None]] = []

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember why."""
        self.ends.append(reason.type)


async def test_leaving_together(reactor: Any) -> None:
    """All leave at once, by a reset and by an end in turns; that it is complete is told after."""
    port = reactor.listenTCP(0, Factory.forProtocol(Witness), interface="127.0.0.1")
    told: list[int] = []

    def attack(number: int) -> int:
        crowd = Crowd(greetings, 20, most=1_000_000, together=0.05)
        running = Running(crowd, number)
        running.run(lambda: bool(told), lambda: told.append(running.counts.opened))
        running.close()
        return running.counts.opened

    try:
        opened = await deferToThread(attack, port.getHost().port)
        while len(Witness.ends) < opened:
            await deferLater(reactor, 0.01)
    finally:
        await port.stopListening()
    assert told[0] >= 40
    assert Witness.ends[:20] == [ConnectionLost] * 20
    assert Witness.ends[20:40] == [ConnectionDone] * 20


async def test_datagrams(reactor: Any) -> None:
    """Each piece is a datagram, and each client has an address of its own."""
    received: set[tuple[str, bytes]] = set()

    class Listener(DatagramProtocol):
        """Notes what comes from where, and answers."""

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            received.add((addr[0], datagram))
            assert self.transport is not None
            self.transport.write(SECRET, addr)

    port = reactor.listenUDP(0, Listener(), interface="127.0.0.1")

    def pieces(number: int) -> Iterator[bytes]:
        return repeat(b"from %d" % number)

    crowd = Crowd(
        pieces, 3, source=lambda number: f"127.8.0.{number + 1}", pause=0.01, datagrams=True
    )
    try:
        counts = await deferToThread(
            run, crowd, port.getHost().port, lambda counts: counts.heard > 20
        )
    finally:
        await port.stopListening()
    assert counts.opened == 3
    assert received == {(f"127.8.0.{i + 1}", b"from %d" % i) for i in range(3)}


@pytest.fixture
def auth(tmp_path: Path) -> AuthSettings:
    """Return settings with one user."""
    path = tmp_path / "users.toml"
    path.write_text(f'[ann]\npassword = "{hash_password("sesame", bytes(16), cost=12)}"\n')
    path.chmod(0o600)
    return AuthSettings(users=str(path))


async def test_log_in(reactor: Any, auth: AuthSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login gives the time that it took, or the code, or the fact, for which it failed."""
    monkeypatch.setattr(right_users, "IN_TIME", PATIENCE)
    async with serving(reactor, Listener(port=0), auth=auth) as service:
        port = port_of(service)
        took = await deferToThread(log_in, port, KNOWN, b"AUTH ann sesame")
        assert isinstance(took, float)
        assert await deferToThread(log_in, port, KNOWN, b"AUTH ann wrong") == "auth_failed"
    assert await deferToThread(log_in, port, KNOWN, b"AUTH ann sesame") == "ConnectionRefusedError"


async def test_late(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events do not count as the answer to a login, and a login without one is late."""
    monkeypatch.setattr(right_users, "IN_TIME", 0.05)
    port = reactor.listenTCP(0, Factory.forProtocol(Mute), interface="127.0.0.1")
    try:
        number = port.getHost().port
        assert await deferToThread(log_in, number, KNOWN, b"AUTH ann sesame") == "late"
    finally:
        await port.stopListening()


async def test_right_users(
    reactor: Any, auth: AuthSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two users makes all tries; a wrong password fails before the attack."""
    monkeypatch.setattr(right_users, "IN_TIME", PATIENCE)

    def work(port: int) -> RightUsers:
        wrong = RightUsers(port, "ann", "wrong", 0.0)
        with pytest.raises(RuntimeError, match="auth_failed"):
            wrong.introduce()
        users = RightUsers(port, "ann", "sesame", 0.0)
        users.introduce()
        with users.at_work():
            for thread in users.threads:
                thread.join()
            assert users.done()
        return users

    async with serving(reactor, Listener(port=0), auth=auth) as service:
        users = await deferToThread(work, port_of(service))
    for logins in (users.known, users.fresh):
        assert (len(logins.times), logins.failures) == (TRIES, {})


def test_dead_name_server(tmp_path: Path) -> None:
    """A command has a dead name server and no other; or it is said what is needed for that."""
    words = [sys.executable, "-c", "print(open('/etc/resolv.conf').read())"]
    try:
        with dead_name_server(str(tmp_path), words) as within:
            said = subprocess.run(within, capture_output=True, text=True, check=True).stdout
    except CannotRun as reason:
        assert re.search("run it as root|is not installed", str(reason))  # noqa: PT017
    else:
        assert said.split() == ["nameserver", NAME_SERVER]


async def test_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack on a real service has figures of all who took part."""
    monkeypatch.setattr(right_users, "TRIES", 2)
    monkeypatch.setattr(right_users, "IN_TIME", PATIENCE)
    measured = deferToThread(measure, "page", ATTACKS["page"], 0.1, None, (TWISTD,))
    outcome: Outcome = await measured
    assert outcome.crowd.opened >= 200
    assert outcome.counted["cross_protocol"] > 0
    assert all(outcome.seen.newcomers)
    assert outcome.seen.pings
    assert outcome.cpu > 0
    assert [len(logins.times) for logins in outcome.seen.users] == [2, 2]
    assert "cross_protocol" in row("page", ATTACKS["page"], outcome)
