"""The client, ``twisted-net call`` and ``twisted-net console`` with real servers."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineReceiver
from typing_extensions import override

from tests.live.processes import Ended, Running
from tests.patience import PATIENCE
from tests.ports import free_port
from twisted_net.auth.users import AuthSettings, hash_token
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import AnswerLost, CallRefused
from twisted_net.service.config import Config, TcpSettings, UdpSettings
from twisted_net.service.net import NetService
from twisted_net.sessions import Sessions
from twisted_net.tcp.client import CommandClient, server_endpoint
from twisted_net.tcp.limits import ClientSettings
from twisted_net.tcp.server import CommandFactory


@asynccontextmanager
async def serving(reactor: Any, port: int = 0) -> AsyncIterator[tuple[int, Sessions]]:
    """Have a command server; at the end its connections are cut."""
    factory = CommandFactory(reactor, standard_commands())
    listening = reactor.listenTCP(port, factory, interface="127.0.0.1")
    try:
        yield listening.getHost().port, factory.sessions
    finally:
        await listening.stopListening()
        await factory.drain(0.5)


def client_of(reactor: Any, port: int) -> CommandClient:
    """Make a client that comes back quickly."""
    settings = ClientSettings(reconnect_base=0.01, reconnect_cap=0.05)
    return CommandClient(reactor, server_endpoint(reactor, "127.0.0.1", port), settings)


async def test_pipelined(reactor: Any) -> None:
    """Five hundred calls at once get their answers, each its own."""
    async with serving(reactor) as (port, _), client_of(reactor, port) as client:
        calls = [Deferred.fromCoroutine(client.call("ECHO", str(i))) for i in range(500)]
        answers = await gatherResults(calls)
    assert [answer["result"] for answer in answers] == [str(i) for i in range(500)]


async def test_comes_back(reactor: Any) -> None:
    """After the server has gone and come, the same patterns hold; a lost answer is told."""
    port = free_port()
    async with serving(reactor, port):
        client = client_of(reactor, port)
        await client.connect()
        await client.subscribe("news.*")
        # Its answer is lost with the connection.
        aborted = Deferred.fromCoroutine(client.call("PING"))
        connection: Any = client._connection
        connection.transport.abortConnection()
        with pytest.raises(AnswerLost):
            await aborted
    async with serving(reactor, port) as (_, sessions):
        assert (await client.call("PING"))["result"] == "PONG"
        sessions.topics.publish("news.de", "hi")
        async for event in client.events():
            if event["event"] == "message":
                assert event["message"] == "hi"
                break
        await client.close()


async def test_logs_in(reactor: Any, tmp_path: Path) -> None:
    """Credentials are given first; with wrong ones there is no connection."""
    users = tmp_path / "users.toml"
    users.write_text(f'[ada]\ntokens = ["{hash_token("secret")}"]\nsubscribe = ["news.*"]\n')
    users.chmod(0o600)
    config = Config(
        tcp=TcpSettings(port=0),
        udp=UdpSettings(enabled=False),
        auth=AuthSettings(users=str(users)),
    )
    service = NetService(reactor, config)
    assert service.tcp is not None
    service.startService()
    try:
        endpoint = server_endpoint(reactor, "127.0.0.1", service.tcp.port or 0)
        async with CommandClient(reactor, endpoint, credentials=["secret"]) as client:
            assert (await client.subscribe("news.>"))["subscriptions"] == 1
            with pytest.raises(CallRefused, match="not permitted"):
                await client.subscribe(">")
        with pytest.raises(CallRefused, match="wrong user, password or token"):
            await CommandClient(reactor, endpoint, credentials=["wrong"]).connect()
    finally:
        await service.stopService()


async def twisted_net(reactor: Any, *words: str) -> Ended:
    """Run the console script."""
    command = [sys.executable, "-m", "twisted_net", *words]
    async with Running(reactor, command, Path.cwd()) as process:
        return await process.ended()


async def test_call(reactor: Any, tmp_path: Path) -> None:
    """``twisted-net call`` prints the answer; its status tells an answer, a refusal, and none."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    async with serving(reactor) as (port, _):
        address = f"127.0.0.1:{port}"
        answered = await twisted_net(reactor, "call", address, "ECHO", "hi", "a  b")
        refused = await twisted_net(reactor, "call", address, "NOPE")
        unknown = await twisted_net(reactor, "call", f"--auth-file={token}", address, "PING")
    silent = await twisted_net(reactor, "call", address, "PING")
    wrong = await twisted_net(reactor, "call", "host:port", "PING")
    no_tls = await twisted_net(reactor, "call", f"--ca={token}", address, "PING")
    assert (answered.status, answered.stdout) == (0, '{"command":"ECHO","result":"hi a  b"}\n')
    assert (refused.status, json.loads(refused.stdout)["code"]) == (1, "unknown_command")
    # A server without users has no AUTH.
    assert (unknown.status, json.loads(unknown.stdout)["code"]) == (1, "unknown_command")
    assert (silent.status, silent.stdout) == (2, "")
    assert silent.stderr.startswith("twisted-net call: not connected: ")
    assert (wrong.status, wrong.stderr.count("\n")) == (2, 1)
    assert (no_tls.status, "there is no certificate in it" in no_tls.stderr) == (2, True)


class Terminal:
    """A console in a terminal of its own; its calls wait, so they belong in a thread."""

    def __init__(self, port: int, state: Path) -> None:
        self._end, other = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "twisted_net", "console", f"127.0.0.1:{port}"],
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            env=os.environ
            | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_STATE_HOME": str(state)},
        )
        os.close(other)
        self._seen = b""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._end, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until *text* is on the screen, and forget what came up to it."""
        while text.encode() not in self._seen:
            ready, _, _ = select.select([self._end], [], [], PATIENCE)
            assert ready, self._seen.decode(errors="replace")
            self._seen += os.read(self._end, 65_536)
        self._seen = self._seen.partition(text.encode())[2]

    def close(self) -> int:
        """Wait for its end, and give its status."""
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._end)


async def test_console(reactor: Any, tmp_path: Path) -> None:
    """A person types, completes, sees colors and events, and leaves; lines are remembered."""

    def converse(port: int, sessions: Sessions) -> int:
        terminal = Terminal(port, tmp_path)
        terminal.wait_for(f"{port}>")
        terminal.type("ec\t")
        terminal.wait_for("ECHO")
        terminal.type(" hi there\r")
        terminal.wait_for('\x1b[0;32m"hi there"')
        terminal.type("SUBSCRIBE news.*\r")
        terminal.wait_for('"subscriptions"')
        terminal.wait_for(f"{port}>")
        reactor.callFromThread(sessions.topics.publish, "news.de", "unasked")
        terminal.wait_for('"unasked"')
        terminal.type("AUTH secret\r")
        terminal.wait_for("unknown command")
        terminal.wait_for(f"{port}>")
        terminal.type('ECHO "open\r')
        terminal.wait_for("bad_quotes")
        terminal.wait_for(f"{port}>")
        terminal.type("\x04")
        return terminal.close()

    async with serving(reactor) as (port, sessions):
        assert await deferToThread(converse, port, sessions) == 0
    history = tmp_path / "twisted_net" / "history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.read_text().splitlines() == [
        "ECHO hi there",
        "SUBSCRIBE news.*",
        'ECHO "open',
    ]


async def test_console_alone(reactor: Any, tmp_path: Path) -> None:
    """Without prompt_toolkit, and without a server, one line says so."""
    (tmp_path / "prompt_toolkit.py").write_text("raise ImportError('hidden')\n")
    command = [sys.executable, "-m", "twisted_net", "console", "127.0.0.1:1"]
    async with Running(reactor, command, tmp_path) as process:
        missing = await process.ended()
    assert missing.status == 1
    assert missing.stderr == ('the console requires an extra: pip install "twisted_net[console]"\n')
    silent = await twisted_net(reactor, "console", "127.0.0.1:1")
    assert (silent.status, silent.stderr.count("\n")) == (2, 1)


class Refusing(LineReceiver):
    """A server that would have the client's terminal obey it."""

    delimiter = b"\n"

    @override
    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b'{"command":"AUTH","error":"\\u001b]0;mine\\u0007 no","code":"refused"}')


async def test_console_refused(reactor: Any, tmp_path: Path) -> None:
    """Why a server refuses the credentials is shown without what a terminal obeys."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    listening = reactor.listenTCP(0, Factory.forProtocol(Refusing), interface="127.0.0.1")
    try:
        address = f"127.0.0.1:{listening.getHost().port}"
        refused = await twisted_net(reactor, "console", f"--auth-file={token}", address)
    finally:
        await listening.stopListening()
    assert refused.status == 2
    assert refused.stderr == "twisted-net console: \\x1b]0;mine\\x07 no\n"
