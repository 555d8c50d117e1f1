"""Logins over real sockets: users, failures, floods of them, and a server without users."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from tests.live.processes import Line, Running, command_line
from tests.live.programs import port_of, serving
from tests.patience import PATIENCE, until
from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import AuthSettings, hash_token
from twisted_net.service import password_verifier
from twisted_net.service.net import NetService
from twisted_net.tcp.listener_settings import Listener

USERS = f"""
[ann]
password = "{hash_password("sesame", bytes(16), cost=12)}"
tokens = ["{hash_token("opensesame")}"]
commands = ["*"]

[bot]
tokens = ["{hash_token("letmein")}"]
commands = ["PING", "ECHO"]
"""

FREE = ("--tcp-port=0", "--udp-port=0")


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Give a users file."""
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    path.chmod(0o600)
    return path


async def ask(line: Line, *requests: bytes) -> list[Any]:  # Any: JSON
    """Send lines, and give what each was answered, or its code."""
    for request in requests:
        line.send(request)
    answers = [json.loads(await line.read()) for _ in requests]
    return [answer.get("code", answer.get("user", answer.get("result"))) for answer in answers]


async def test_users(reactor: Any, users: Path, tmp_path: Path) -> None:
    """A user logs in with a password or a token, and may do what its patterns say."""
    words = command_line("twisted-net", "epoll", *FREE, f"--auth-users={users}")
    async with Running(reactor, words, tmp_path) as process:
        port, _ = await process.ports()
        with Line(port) as line:
            asked = (b"PING", b"TIME", b"AUTH ann wrong", b"AUTH ann sesame", b"ECHO hi")
            assert await ask(line, *asked) == ["PONG", "auth_required", "auth_failed", "ann", "hi"]
            line.send(b"CLIENTS")
            [client] = json.loads(await line.read())["clients"]
            assert client["user"] == "ann"
        with Line(port) as line:
            assert await ask(line, b"AUTH letmein", b"ECHO hi", b"TIME") == [
                "bot",
                "hi",
                "not_permitted",
            ]
        users.write_text(USERS.replace("[bot]", "[robot]"))
        await process.logged("has changed and was read")
        with Line(port) as line:
            assert await ask(line, b"AUTH letmein") == ["robot"]
        await process.logged(r"login: 127\.0\.0\.1:\d+ as ann: 'by password'")
        await process.logged(r"refused: 127\.0\.0\.1:\d+ as nobody: 'auth_failed: as ann'")


async def test_checker_plugin(reactor: Any, tmp_path: Path) -> None:
    """A checker of Twisted's own serves, and its arguments are shown nowhere."""
    passwd = tmp_path / "passwd"
    passwd.write_text("eve:apple\n")
    words = command_line("twistd", "epoll", *FREE, f"--auth=file:{passwd}")
    async with Running(reactor, words, tmp_path) as process:
        port, _ = await process.ports()
        with Line(port) as line:
            asked = (b"AUTH eve pear", b"AUTH eve apple", b"ECHO hi", b"CLIENTS")
            assert await ask(line, *asked) == ["auth_failed", "eve", "hi", "not_permitted"]


async def test_flood(reactor: Any, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of wrong passwords is delayed, and holds up nobody who is logged in."""
    go_on = threading.Event()
    checks: list[str] = []

    def verify(hashed: str, password: str) -> bool:
        checks.append(password)
        assert go_on.wait(PATIENCE)
        return False

    monkeypatch.setattr(password_verifier, "verify", verify)
    auth = AuthSettings(users=str(users), first_delay=PATIENCE, longest_delay=PATIENCE, timeout=0)
    async with serving(reactor, Listener(port=0), auth=auth) as service:
        with Line(port_of(service)) as known, Line(port_of(service)) as flood:
            assert await ask(known, b"AUTH letmein") == ["bot"]
            for _ in range(500):
                flood.send(b"AUTH ann wrong")
            await until(reactor, lambda: checks)
            # The check of the first password goes on, and all of these are answered meanwhile.
            assert await ask(known, *[b"PING"] * 50) == ["PONG"] * 50
            assert checks == ["wrong"]
            go_on.set()
            # The answers to those that come too early are held back for a second each.
            codes = [json.loads(await flood.read())["code"] for _ in range(5)]
            assert codes == ["auth_failed"] * 3 + ["auth_delayed"] * 2
            assert checks == ["wrong"] * 3


async def test_too_slow_to_log_in(patient_reactor: Any, users: Path) -> None:
    """Who does not log in in time is cut off; CLOSED tells why."""
    auth = AuthSettings(users=str(users), timeout=0.5)
    async with serving(patient_reactor, Listener(port=0), auth=auth) as service:
        port = port_of(service)
        with Line(port) as known:
            # A token, and no password: that is checked in a thread, for as long as it takes.
            assert await ask(known, b"AUTH opensesame") == ["ann"]
            with Line(port) as silent:
                assert json.loads(await silent.read())["reason"] == "auth_timeout"
                assert await silent.read() == b""
            closed: list[dict[str, object]] = []
            while not closed:
                known.send(b"CLOSED")
                closed = json.loads(await known.read())["clients"]
            assert (closed[0]["reason"], closed[0]["user"]) == ("auth_timeout", None)


async def test_protected(reactor: Any, tmp_path: Path) -> None:
    """Without users a server that others could reach does not start, unless it is meant."""
    words = command_line("twisted-net", "epoll", *FREE, "--tcp-interface=0.0.0.0")
    async with Running(reactor, words, tmp_path) as process:
        ended = await process.ended()
    assert ended.status == 1
    [mistake] = ended.stderr.splitlines()
    assert "tcp.interface: reachable from other machines, but there are no users" in mistake
    async with Running(reactor, [*words, "--auth-open=true"], tmp_path) as process:
        port, _ = await process.ports()
        with Line(port) as line:
            assert await ask(line, b"PING") == ["PONG"]


async def test_hashes(reactor: Any, tmp_path: Path) -> None:
    """``hash-token`` reads a pipe, and prints what a users file holds."""

    def run() -> str:
        import subprocess

        words = [*command_line("python -m twisted_net", "epoll")[:3], "hash-token"]
        return subprocess.run(words, input="letmein\n", capture_output=True, text=True).stdout

    assert await deferToThread(run) == hash_token("letmein") + "\n"


async def test_crowd(reactor: Any, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However many addresses guess, the right password of a newcomer is checked next, or next but one.

    So it is again and again, from where it was right before, and from elsewhere.
    """
    go_on: SimpleQueue[None] = SimpleQueue()
    checks: list[str] = []

    def verify(hashed: str, password: str) -> bool:
        checks.append(password)
        go_on.get(timeout=PATIENCE)
        return password == "sesame"

    async def next_check() -> None:
        made = len(checks)
        go_on.put(None)
        await until(reactor, lambda: len(checks) > made)

    monkeypatch.setattr(password_verifier, "verify", verify)
    auth = AuthSettings(users=str(users), timeout=0)
    async with serving(reactor, Listener(port=0), auth=auth) as service:
        port = port_of(service)
        with ExitStack() as crowd:
            for i in range(200):
                guesser = Line(port, source=f"127.{1 + i % 100}.{i}.1")
                crowd.enter_context(guesser)
                guesser.send(f"AUTH {('ann', 'root')[i % 2]} guess".encode())
            await until(reactor, lambda: service.sessions.messages == 200)
            for i in range(20):
                source = "127.200.0.1" if i % 2 else f"127.201.{i}.1"
                with Line(port, source=source) as newcomer:
                    newcomer.send(b"AUTH ann sesame")
                    await until(reactor, partial(asks, service, source))
                    before = len(checks)
                    while "sesame" not in checks[before:]:
                        await next_check()
                    assert len(checks) - before <= 2
                    # The one after it, too: it must not begin among those of the next newcomer.
                    await next_check()
                    assert json.loads(await newcomer.read())["user"] == "ann"
        go_on.put(None)


def asks(service: NetService, host: str) -> bool:
    """Whether a client at this address has sent a line."""
    return any(session.client[0] == host and session.messages for session in service.sessions)
