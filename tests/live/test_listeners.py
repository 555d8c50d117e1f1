"""Listeners on real sockets: Unix sockets and their files, endpoints, and places that are taken."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.internet.unix import Port

from tests.live.processes import Running, command_line, exchange
from tests.live.programs import port_of, program, run, serving
from tests.patience import PATIENCE
from twisted_net.errors import CannotListen
from twisted_net.net import files
from twisted_net.net.files import locked
from twisted_net.tcp import unix
from twisted_net.tcp.listener_settings import Listener


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a name for a socket that is short enough for one."""
    return tmp_path / "s"


@pytest.fixture
def any_umask() -> Iterator[None]:
    """Run with a umask that keeps nothing back."""
    before = os.umask(0)
    yield
    os.umask(before)


def talk(path: Path, lines: bytes) -> Deferred[bytes]:
    """Send lines to a Unix socket, end our half, and give all that comes back."""

    def speak() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(lines)
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile("rb").read()

    return deferToThread(speak)


async def test_unix(path: Path, reactor: Any) -> None:
    """A Unix socket answers, shows its clients by user, and is removed at the stop."""
    async with serving(reactor, Listener(path=str(path))):
        answers = (await talk(path, b"PING\nCLIENTS\n")).splitlines()
        assert json.loads(answers[0])["result"] == "PONG"
        host = f"unix:uid={os.getuid()}" if sys.platform == "linux" else "unix"
        assert json.loads(answers[1])["clients"][0]["client"] == f"{host}:1"
    assert not path.exists()


async def test_unix_endpoint(path: Path, reactor: Any) -> None:
    """Twisted's own endpoint does not say whose its clients are: they are one address."""
    async with serving(reactor, f"unix:{path}"):
        [answer] = (await talk(path, b"CLIENTS\n")).splitlines()
        assert json.loads(answer)["clients"][0]["client"] == "unix:1"


async def test_unix_users(path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of an address hold for each user of a Unix socket."""
    first, second = "unix:uid=1", "unix:uid=2"
    hosts = iter([first, first, first, second])
    monkeypatch.setattr(unix, "host_of_peer", lambda sock: next(hosts))
    listener = Listener(path=str(path), limits={"connections_per_address": 2})
    async with serving(reactor, listener) as service:
        with ExitStack() as clients:
            outcomes = []
            for _ in range(4):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.settimeout(PATIENCE)
                client.connect(str(path))
                client.sendall(b"PING\n")
                answer = json.loads(await deferToThread(client.makefile("rb").readline))
                outcomes.append(answer.get("result", answer.get("scope")))
            assert outcomes == ["PONG", "PONG", "address", "PONG"]
            seen = [session.client[0] for session in service.sessions]
            assert seen == [first, first, second]


async def test_unix_netcat(path: Path, reactor: Any) -> None:
    """``nc -U`` is answered as every client is."""
    netcat = program("nc", "netcat-openbsd")
    async with serving(reactor, Listener(path=str(path))):
        done = await run(netcat, "-N", "-U", str(path), data=b"ECHO hello\nNOPE\n")
    assert [json.loads(line).get("result") for line in done.stdout.splitlines()] == ["hello", None]


@pytest.mark.usefixtures("any_umask")
@pytest.mark.parametrize("mode", ["600", "660", "0666"])
async def test_unix_mode(
    path: Path, mode: str, reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its permissions from its first moment on, and no call changes them."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("changed afterwards")

    monkeypatch.setattr(os, "chmod", refuse)
    first: list[int] = []
    listen = socket.socket.listen

    def look(sock: socket.socket, backlog: int) -> None:
        first.append(stat.S_IMODE(path.stat().st_mode))
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    async with serving(reactor, Listener(path=str(path), mode=mode)):
        assert first == [int(mode, 8)]
        assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    assert os.umask(0) == 0


async def test_unix_left_behind(path: Path, reactor: Any) -> None:
    """A socket whose server is no more is replaced."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    async with serving(reactor, Listener(path=str(path))):
        assert b"PONG" in await talk(path, b"PING\n")


async def test_unix_in_use(path: Path, reactor: Any) -> None:
    """One at which somebody listens, even with a full queue, is taken, and stays his."""
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(0)
        waiting.connect(str(path))
        for _ in range(2):
            with pytest.raises(CannotListen, match=r"s \(unix\): address already in use"):
                async with serving(reactor, Listener(path=str(path))):
                    pass
        assert path.is_socket()


async def test_unix_lock_of_others(path: Path, reactor: Any) -> None:
    """A lock on the folder, which any user of the machine can take, does not hold up the start."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        async with serving(reactor, Listener(path=str(path))):
            assert b"PONG" in await talk(path, b"PING\n")
            assert [*path.parent.iterdir()] == [path]
    finally:
        os.close(descriptor)


async def test_unix_locked(path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another server of this user holds the lock the start fails, and says why."""
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.05)
    lock = path.with_name("s-lock")
    with locked(bytes(lock)):
        with pytest.raises(CannotListen, match=r"another process has the lock: .*/s-lock"):
            async with serving(reactor, Listener(path=str(path))):
                pass
        assert not path.exists()
    lock.symlink_to("anything")
    with pytest.raises(CannotListen, match=r"symbolic links: .*/s-lock"):
        async with serving(reactor, Listener(path=str(path))):
            pass


async def test_unix_links(path: Path, reactor: Any) -> None:
    """A link in place of the socket is not followed: neither its target nor the link changes."""
    target = path.with_name("target")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(target))
    path.symlink_to(target)
    with pytest.raises(CannotListen, match="address already in use"):
        async with serving(reactor, Listener(path=str(path))):
            pass
    assert path.is_symlink()
    assert target.is_socket()


async def test_unix_many_starts(path: Path, reactor: Any) -> None:
    """Of servers that start at one time at a socket left behind exactly one listens there."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    program = (
        "import os, sys\n"
        "from twisted.internet import reactor\n"
        "from twisted.internet.error import CannotListenError\n"
        "from twisted.internet.protocol import Factory\n"
        "from twisted_net.tcp.unix import listen_unix\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    listen_unix(reactor, sys.argv[1], Factory(), 5, 0o600)\n"
        "except CannotListenError as error:\n"
        "    print(error.socketError.strerror)\n"
        "else:\n"
        "    print('listening')\n"
        "sys.stdout.flush()\n"
        "sys.stdin.readline()\n"
    )

    def race() -> list[str]:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        try:
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("go\n")
                racer.stdin.flush()
            return [racer.stdout.readline().strip() for racer in racers if racer.stdout]
        finally:
            for racer in racers:
                racer.communicate()

    outcomes = await deferToThread(race)
    assert sorted(outcomes) == ["Address already in use"] * 5 + ["listening"]


async def test_unix_no_socket(path: Path, reactor: Any) -> None:
    """A file that is no stream socket is never removed."""
    path.write_text("precious")
    with pytest.raises(CannotListen, match="address already in use"):
        async with serving(reactor, Listener(path=str(path))):
            pass
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(CannotListen, match="address already in use"):
            async with serving(reactor, Listener(path=str(path))):
                pass
        assert path.exists()


async def test_unix_nowhere(tmp_path: Path, reactor: Any) -> None:
    """A folder that is not there, and a name that is too long, are named."""
    with pytest.raises(CannotListen, match=r"no/s \(unix\): no such file or directory"):
        async with serving(reactor, Listener(path=str(tmp_path / "no" / "s"))):
            pass
    with pytest.raises(ValueError, match="at most 107 bytes"):
        Listener(path=str(tmp_path / ("x" * 120)))


async def test_unix_taken_over(path: Path, reactor: Any) -> None:
    """A file that another has put in the place of ours is not removed at the stop."""
    async with serving(reactor, Listener(path=str(path))):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"
    path.unlink()
    async with serving(reactor, Listener(path=str(path))):
        path.unlink()
    assert not path.exists()


async def test_unix_again(path: Path, reactor: Any) -> None:
    """A service may be started again at the same place."""
    async with serving(reactor, Listener(path=str(path))) as service:
        await service.stopService()
        service.startService()
        assert b"PONG" in await talk(path, b"PING\n")


def test_unix_port_of_twisted() -> None:
    """The methods of Twisted's port that ours replaces are there, and use what we set."""
    names = Port.startListening.__code__.co_names
    assert {"createInternetSocket", "startReading", "_bindPath"} <= set(names)


async def test_many(path: Path, reactor: Any) -> None:
    """Any number of listeners serve together, with limits of their own and the same clients."""
    listeners = (
        "tcp:0:interface=127.0.0.1",
        Listener(port=0, limits={"max_line": 64}),
        Listener(path=str(path)),
    )
    async with serving(reactor, *listeners) as service:
        for index in (0, 1):
            answer = await exchange(port_of(service, index), b"x" * 65 + b"\n")
            expected = "unknown_command" if index == 0 else "line_too_long"
            assert json.loads(answer)["code"] == expected
        assert json.loads(await talk(path, b"STATS\n"))["connections_opened"] == 3


async def test_process(tmp_path: Path, reactor: Any) -> None:
    """As a process it reads its listeners out of a file, and removes its socket at SIGTERM."""
    (tmp_path / "net.toml").write_text(
        "[tcp]\nport = 0\n[udp]\nport = 0\n[[listeners]]\npath = 's'\nmode = '600'\n"
        "[[listeners]]\nport = 0\nproxy = ['127.0.0.1']\n"
    )
    words = command_line("twistd", "epoll", "--config=net.toml")
    async with Running(reactor, words, tmp_path) as process:
        await process.logged(r"listening on s \(unix\)")
        proxied = await process.logged(r"listening on 127.0.0.1:(\d+) \(tcp\+proxy\)")
        assert b"PONG" in await talk(tmp_path / "s", b"PING\n")
        answer = await exchange(int(proxied[1]), b"PROXY TCP4 127.0.0.7 127.0.0.8 5 6\r\nCLIENTS\n")
        assert json.loads(answer)["clients"][0]["client"] == "127.0.0.7:5"
        process.signal(signal.SIGTERM)
        assert (await process.ended()).status == 0
    assert not (tmp_path / "s").exists()


async def test_process_that_cannot_listen(tmp_path: Path, reactor: Any) -> None:
    """Each kind of listener that cannot bind ends the process with one line."""
    (tmp_path / "s").write_text("no socket")
    os.mkfifo(tmp_path / "pipe")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for table, message in [
            (f"{{port = {port}}}", f"cannot listen on 127.0.0.1:{port} (tcp): address"),
            ("{path = 's'}", "cannot listen on s (unix): address already in use"),
            (
                f"'tcp:{port}:interface=127.0.0.1'",
                f"cannot listen on tcp:{port}:interface=127.0.0.1 (endpoint): address",
            ),
            (
                "'tcp:x:interface=127.0.0.1'",
                "listeners[0]: tcp:x:interface=127.0.0.1 is not a valid endpoint: ",
            ),
            ("{port = 0, tls = {certificate = 'no.pem'}}", "listeners[0]: no.pem: No such file"),
            ("{port = 0, tls = {certificate = 'pipe'}}", "listeners[0]: pipe: it is not a regular"),
        ]:
            (tmp_path / "net.toml").write_text(
                f"listeners = [{table}]\n[tcp]\nport = 0\n[udp]\nport = 0\n"
            )
            words = command_line("twisted-net", "epoll", "--config=net.toml")
            async with Running(reactor, words, tmp_path) as process:
                ended = await process.ended()
            assert ended.status == 1
            assert ended.stderr.startswith(message), (ended.stderr, message)
            assert ended.stderr.count("\n") == 1
            assert "Traceback" not in ended.stdout
