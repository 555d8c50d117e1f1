"""Look-ups that find no end, and handlers that block, keep nobody else waiting."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.live.processes import Line
from tests.live.programs import port_of, serving
from tests.patience import PATIENCE, until
from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import AuthSettings
from twisted_net.http.settings import FetchSettings
from twisted_net.service.config import TcpSettings
from twisted_net.tcp.listener_settings import Listener

USERS = f"""
[ann]
password = "{hash_password("sesame", bytes(16), cost=12)}"

[bob]
password = "{hash_password("apple", bytes(16), cost=12)}"
"""
TRIES = 20
COMMANDS = """
import threading
from twisted_net.commands import Commands

commands = Commands()
go_on = threading.Event()

@commands.command(blocking=True)
def block() -> str:
    assert go_on.wait(60)
    return "done"
"""


@pytest.fixture
def auth(tmp_path: Path) -> AuthSettings:
    """Return settings with two users."""
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    path.chmod(0o600)
    return AuthSettings(users=str(path), timeout=0)


class NameServer:
    """
    In place of the system's look-ups: those of names under ``dead.example`` hang.

    :ivar asked: the names that were asked for.
    :ivar go_on: set to end those that hang, without an address.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self._real = socket.getaddrinfo

    def look_up(self, host: str, *arguments: Any) -> list[Any]:  # Any: as getaddrinfo's
        """Look up."""
        if not host.endswith(".example"):
            return self._real(host, *arguments)
        self.asked.append(host)
        if host.endswith("dead.example"):
            assert self.go_on.wait(PATIENCE)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    """Return a name server that does not answer."""
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    return server


def own_threads() -> list[str]:
    """Return the names of the threads of services that there are."""
    kinds = ("command", "look-up", "password")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(kinds)]


async def answer(line: Line, request: bytes) -> dict[str, Any]:  # Any: JSON
    """Ask, and return the answer."""
    line.send(request)
    decoded: dict[str, Any] = json.loads(await line.read())
    return decoded


async def test_dead_name_server(reactor: Any, auth: AuthSettings, names: NameServer) -> None:
    """64 FETCHes that hang in a look-up leave room for logins, and for the FETCH of another."""
    async with serving(reactor, Listener(port=0), auth=auth) as service:
        port = port_of(service)
        with Line(port) as bob:
            assert (await answer(bob, b"AUTH bob apple"))["user"] == "bob"
            for i in range(64):
                bob.send(b"FETCH http://%d.dead.example/" % i)
            await until(reactor, lambda: names.asked)
            for _ in range(TRIES):
                with Line(port) as ann:
                    assert (await answer(ann, b"AUTH ann sesame"))["user"] == "ann"
                    fetched = await answer(ann, b"FETCH http://fine.example/")
                    # That of this machine, which the egress policy refuses.
                    assert fetched["code"] == "address_refused"
            # Half of the threads are the most that bob gets.
            dead = [name for name in names.asked if name.endswith("dead.example")]
            assert len(dead) == FetchSettings().lookup_threads // 2
    # Those that wait for a thread end with the service; those in a thread cannot be stopped.
    assert service._lookups.pending == len(dead)
    names.go_on.set()
    await until(reactor, lambda: not service._lookups.pending)
    await until(reactor, lambda: not own_threads())


async def test_shared_lookup(reactor: Any, auth: AuthSettings, names: NameServer) -> None:
    """One name is looked up once, whoever asks."""
    async with serving(reactor, Listener(port=0), auth=auth) as service:
        with Line(port_of(service)) as bob:
            assert (await answer(bob, b"AUTH bob apple"))["user"] == "bob"
            for i in range(32):
                bob.send(b"FETCH http://dead.example:%d/" % (8000 + i))
            await until(reactor, lambda: service.sessions.messages == 33)
            with Line(port_of(service)) as ann:
                assert (await answer(ann, b"AUTH ann sesame"))["user"] == "ann"
        assert names.asked == ["dead.example"]
    names.go_on.set()
    await until(reactor, lambda: not service._lookups.pending)
    await until(reactor, lambda: not own_threads())


async def test_blocking_handlers(
    reactor: Any, auth: AuthSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocking handlers of one user that hang leave room for logins, and for those of another."""
    (tmp_path / "slow_handlers.py").write_text(COMMANDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_handlers  # type: ignore[import-not-found]  # just written

    commands = ("slow_handlers:commands",)
    async with serving(reactor, Listener(port=0), auth=auth, commands=commands) as service:
        port, runner = port_of(service), service.listeners[0].factory.runner
        with Line(port) as bob:
            assert (await answer(bob, b"AUTH bob apple"))["user"] == "bob"
            for _ in range(30):
                bob.send(b"BLOCK")
            await until(reactor, lambda: runner.blocking == 30)
            half = TcpSettings().blocking_threads // 2
            assert runner.busy_threads == half
            for _ in range(TRIES):
                with Line(port) as ann:
                    assert (await answer(ann, b"AUTH ann sesame"))["user"] == "ann"
            with Line(port) as ann:
                assert (await answer(ann, b"AUTH ann sesame"))["user"] == "ann"
                ann.send(b"BLOCK")
                await until(reactor, lambda: runner.busy_threads == half + 1)
            slow_handlers.go_on.set()
            for _ in range(30):
                assert json.loads(await bob.read())["result"] == "done"
        await until(reactor, lambda: not service.busy_threads)
        assert len(own_threads()) > 1
    await until(reactor, lambda: not own_threads())
