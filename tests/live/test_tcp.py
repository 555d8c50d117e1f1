"""The command server over real sockets, met by clients good and bad."""

from __future__ import annotations

import gc
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from typing_extensions import override

from tests.patience import PATIENCE, until
from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import standard_commands
from twisted_net.reasons import End
from twisted_net.sessions import Session
from twisted_net.tcp.connection import CommandProtocol
from twisted_net.tcp.connection_owner import ConnectionOwner
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory

BIG = 20_000_000
"""Bytes: more than the buffers of the kernel take for a client that does not read."""


class Client(Protocol):
    """A client that keeps what it receives."""

    transport: Any  # Any: a transport of TCP, TLS or UNIX

    def __init__(self) -> None:
        self.received = bytearray()
        self.reason: Failure | None = None
        self._changed: Deferred[None] = Deferred()

    @override
    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._tell()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, Deferred()
        changed.callback(None)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def end(self) -> None:
        """End this half."""
        self.transport.loseWriteConnection()

    async def lines(self, count: int) -> list[Any]:  # Any: JSON
        """Wait for so many lines, and take them, decoded."""
        while self.received.count(b"\n") < count:
            assert self.reason is None, (self.received[-500:], self.reason)
            await self._changed
        *lines, rest = self.received.split(b"\n", count)
        self.received = rest
        return [json.loads(line) for line in lines]

    async def rest(self) -> list[Any]:  # Any: JSON
        """Wait for the end of the connection, and take all lines that came."""
        while self.reason is None:
            await self._changed
        received, self.received = self.received, bytearray()
        assert not received or received.endswith(b"\n"), received[-500:]
        return [json.loads(line) for line in received.splitlines()]

    async def abort(self) -> None:
        """Reset the connection, unless it is gone, and wait until that is done."""
        if self.reason is None:
            self.transport.abortConnection()
        while self.reason is None:
            await self._changed

    async def close(self) -> None:
        """Leave, and wait until that is done."""
        self.transport.loseConnection()
        await self.rest()


@asynccontextmanager
async def serving(
    reactor: Any,  # Any: many interfaces at once
    commands: Commands | None = None,
    *,
    tls: PrivateCertificate | None = None,
    **limits: Any,  # Any: fields of Limits
) -> AsyncIterator[tuple[CommandFactory, int]]:
    """Serve on a free port; at the end nothing is left."""
    factory = CommandFactory(reactor, commands or standard_commands(), Limits(**limits))
    if tls is None:
        port = reactor.listenTCP(0, factory, backlog=4096, interface="127.0.0.1")
    else:
        port = reactor.listenSSL(0, factory, tls.options(), interface="127.0.0.1")
    try:
        yield factory, port.getHost().port
    finally:
        await port.stopListening()
        factory.abort()
        await factory.drain(5)


async def connect(reactor: Any, port: int, *, tls: bool = False) -> Client:  # Any: as above
    """Connect a client."""
    endpoint = (
        SSL4ClientEndpoint(reactor, "127.0.0.1", port, CertificateOptions())
        if tls
        else TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    )
    client = await endpoint.connect(Factory.forProtocol(Client))
    assert isinstance(client, Client)
    return client


def buffered(factory: CommandFactory) -> int:
    """Give the bytes that the server's transports and protocols hold for their peers."""
    transports: list[Any] = [protocol.transport for protocol in factory._protocols]
    return sum(len(transport.dataBuffer) + transport._tempDataLen for transport in transports)


# --- lines ---


async def test_any_cut(reactor: Any) -> None:
    """A stream that is cut anywhere, in two segments, gets the same answers."""
    stream = b"ECHO h\xc3\xa4 \r\n\nping\n\xff\nEC\rHO\n" + b"x" * 80 + b"\nNOPE\r\nECHO rest"
    async with serving(reactor, max_line=64) as (factory, port):
        codes = set()
        for cut in range(len(stream) + 1):
            client = await connect(reactor, port)
            client.transport.setTcpNoDelay(True)
            client.send(stream[:cut])
            await deferLater(reactor, 0.002)
            client.send(stream[cut:])
            client.end()
            codes.add(tuple(a.get("result", a.get("code")) for a in await client.rest()))
        expected = (
            *("hä", "empty", "PONG", "not_utf8", "control_character"),
            *("line_too_long", "unknown_command", "unterminated_line"),
        )
        assert codes == {expected}
        assert factory.sessions.counters.ended[End.CLIENT_CLOSED] == len(stream) + 1


async def test_half_close(reactor: Any) -> None:
    """20,000 lines and the end of the client's half, at once, get 20,000 answers."""
    async with serving(reactor) as (factory, port):
        client = await connect(reactor, port)
        client.send(b"".join(b"ECHO %d\n" % i for i in range(20_000)))
        client.end()
        answers = await client.rest()
        assert [answer["result"] for answer in answers] == [str(i) for i in range(20_000)]
        assert client.reason is not None
        assert client.reason.check(ConnectionDone)
        assert factory.sessions.counters.ended[End.CLIENT_CLOSED] == 1


async def test_ten_megabytes(reactor: Any) -> None:
    """A line of 10 MB is refused once, and the line after it is answered."""
    async with serving(reactor) as (_, port):
        client = await connect(reactor, port)
        client.send(b"x" * 10_000_000 + b"\nPING\n")
        refusal, pong = await client.lines(2)
        assert (refusal["code"], refusal["limit"]) == ("line_too_long", 16_384)
        assert pong["result"] == "PONG"
        await client.close()


async def test_hostile_bytes(reactor: Any) -> None:
    """Bytes that are no text, NUL, a bare CR, open quotes: each is refused, and no more."""
    async with serving(reactor) as (_, port):
        client = await connect(reactor, port)
        client.send(b'\xff\xfe\nECHO a\0\nECHO a\rTIME\nECHO "a\nECHO "a"b\nPING\n\x16\x03\x01\n')
        codes = [answer.get("code") for answer in await client.lines(7)]
        assert codes == [
            *("not_utf8", "control_character", "control_character"),
            *("bad_quotes", "bad_quotes", None, "control_character"),
        ]
        await client.close()


async def test_empty_lines(reactor: Any) -> None:
    """100,000 empty lines get 100,000 answers, and a neighbour has its own meanwhile."""
    async with serving(reactor) as (_, port):
        client, neighbour = await connect(reactor, port), await connect(reactor, port)
        client.send(b"\n" * 100_000)
        client.end()
        neighbour.send(b"PING\n")
        await neighbour.lines(1)
        assert client.received.count(b"\n") < 50_000
        await neighbour.close()
        answers = await client.rest()
        assert len(answers) == 100_000
        assert all(answer == {"error": "empty message", "code": "empty"} for answer in answers)


async def test_small_answers_in_turns(reactor: Any) -> None:
    """Answers of several turns are not held back by Nagle's algorithm: it is off (RFC 896)."""
    async with serving(reactor, turn_budget=1) as (factory, port):
        client = await connect(reactor, port)
        client.send(b"PING\nPING\nPING\n")
        await client.lines(3)
        (protocol,) = factory._protocols
        transport: Any = protocol.transport
        nodelay = transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert nodelay != 0
        await client.close()


# --- clients that do not read, or vanish ---


async def test_never_reads(reactor: Any) -> None:
    """A client that sends and never reads costs little memory, and is cut off in time."""
    async with serving(reactor, write_timeout=0.5) as (factory, port):
        client = await connect(reactor, port)
        client.transport.pauseProducing()
        client.send((b"ECHO " + b"x" * 1000 + b"\n") * (BIG // 1006))
        most = 0
        while not factory.sessions.counters.ended[End.WRITE_TIMEOUT]:
            most = max(most, buffered(factory))
            await deferLater(reactor, 0.01)
        assert 65_536 < most < 65_536 + 64 * 1_100
        # It sent much more than was taken from it.
        assert factory.sessions.messages < BIG // 1006
        await client.abort()


async def test_broadcast_to_a_stuck_client(reactor: Any) -> None:
    """Events for one that does not read are bounded, counted, and then it is cut off."""
    limits: dict[str, Any] = {"write_timeout": 1.0, "max_output": 200_000}
    async with serving(reactor, **limits) as (factory, port):
        stuck, other = await connect(reactor, port), await connect(reactor, port)
        await until(reactor, lambda: len(factory.sessions) == 2)
        stuck.transport.pauseProducing()
        failures: set[str] = set()
        # What the kernel takes for a client that does not read is megabytes, and grows.
        while not factory.sessions.counters.ended[End.WRITE_TIMEOUT]:
            delivery = factory.sessions.broadcast({"event": "x", "text": "x" * 50_000})
            failures |= set(delivery.failures.values())
            assert buffered(factory) < 600_000
            await other.lines(1)
            await deferLater(reactor, 0.002)
        assert "output_full" in failures
        assert factory.sessions.counters.undelivered > 0
        other.send(b"PING\n")
        assert (await other.lines(1))[0]["result"] == "PONG"
        await stuck.abort()
        await other.close()


async def test_reads_again(reactor: Any) -> None:
    """A client that stops to read for a while gets all its answers."""
    line = b"ECHO " + b"x" * 10_000 + b"\n"
    count = BIG // len(line)
    async with serving(reactor) as (factory, port):
        client = await connect(reactor, port)
        client.transport.pauseProducing()
        client.send(line * count)
        client.end()
        # More waits for it than is written at once, since the kernel takes no more.
        await until(reactor, lambda: buffered(factory) > 65_536)
        client.transport.resumeProducing()
        assert len(await client.rest()) == count


async def test_reset(reactor: Any) -> None:
    """A client that resets midway is counted; its handlers are cancelled, others go on."""
    cancelled: list[object] = []
    commands = standard_commands()
    commands.command("WAIT")(lambda: Deferred(cancelled.append))
    async with serving(reactor, commands) as (factory, port):
        client, other = await connect(reactor, port), await connect(reactor, port)
        client.send(b"WAIT\n" * 10 + b"ECHO half")
        await until(reactor, lambda: factory.sessions.messages == 10)
        client.transport.abortConnection()
        await until(reactor, lambda: factory.sessions.counters.ended[End.CONNECTION_LOST])
        assert len(cancelled) == 10
        other.send(b"PING\n")
        await other.lines(1)
        await other.close()


async def test_reset_while_not_read(reactor: Any) -> None:
    """A reset that comes while the server does not read is noticed with the next answer."""
    waiting: list[Deferred[str]] = []

    def wait() -> Deferred[str]:
        waiting.append(Deferred())
        return waiting[-1]

    commands = standard_commands()
    commands.command("WAIT")(wait)
    async with serving(reactor, commands, max_pending=1) as (factory, port):
        client = await connect(reactor, port)
        client.send(b"WAIT\n" * 100)
        await until(reactor, lambda: waiting)
        await client.abort()
        assert len(factory.sessions) == 1
        # What it sent before was read before it was paused: the reset is not noticed by reading.
        waiting[0].callback("done")
        await until(reactor, lambda: factory.sessions.counters.ended[End.CONNECTION_LOST])
        assert factory.sessions.messages <= 2


# --- limits and ends ---


async def test_too_many(reactor: Any) -> None:
    """The refusal can be read even where the client has sent much already."""
    async with serving(reactor, max_connections=1) as (factory, port):
        first = await connect(reactor, port)
        for _ in range(20):
            client = await connect(reactor, port)
            client.send(b"PING\n" * 20_000)
            [refusal] = await client.lines(1)
            assert refusal["code"] == "too_many_connections"
            assert await client.rest() == []
        assert factory.sessions.counters.ended[End.TOO_MANY_CONNECTIONS] == 20
        await first.close()


async def test_nothing_is_left_of_the_closed(reactor: Any) -> None:
    """A connection that has ended is freed at once, and not by the garbage collector."""
    async with serving(reactor) as (factory, port):
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                client = await connect(reactor, port)
                client.send(b"PING\n")
                await client.lines(1)
                await client.close()
            await until(reactor, lambda: not len(factory.sessions))
            server: ConnectionOwner[CommandProtocol] = factory
            # Those of this server; others may have left some in a test case that still lives.
            left = [
                one
                for one in gc.get_objects()
                if (isinstance(one, CommandProtocol) and one._factory is server)
                or (isinstance(one, Session) and one.sessions is factory.sessions)
            ]
        finally:
            gc.enable()
        assert left == []


async def test_idle(reactor: Any) -> None:
    """A silent client is told, and closed with an end, not a reset."""
    async with serving(reactor, idle_timeout=0.1) as (factory, port):
        client = await connect(reactor, port)
        assert await client.rest() == [{"event": "closing", "reason": "idle_timeout"}]
        assert client.reason is not None
        assert client.reason.check(ConnectionDone)
        await until(reactor, lambda: factory.sessions.counters.ended[End.IDLE_TIMEOUT])


async def test_drain_under_load(reactor: Any) -> None:
    """Every line that was taken is answered, in order, and then the end comes, not a reset."""
    commands = standard_commands()
    many: Deferred[None] = Deferred()
    drains: list[Deferred[None]] = []

    async def later(word: str) -> str:
        await deferLater(reactor, 0)
        if int(word) > 500 and not drains:
            # Here, and not when a test looks: much of what was sent has not been taken yet.
            drains.append(factory.drain(PATIENCE))
            many.callback(None)
        return word

    commands.command("LATER")(later)
    async with serving(reactor, commands) as (factory, port):
        clients = [await connect(reactor, port) for _ in range(10)]
        for client in clients:
            client.send(b"".join(b"ECHO %d\nLATER %d\n" % (i, i + 1) for i in range(0, 10_000, 2)))
        await many
        answers = await gatherResults([Deferred.fromCoroutine(c.rest()) for c in clients])
        await drains[0]
        assert factory.sessions.counters.ended[End.DRAINED] == 10
        total = 0
        for client, lines in zip(clients, answers, strict=True):
            assert [line for line in lines if "event" in line] == [
                {"event": "shutdown", "timeout": PATIENCE}
            ]
            results = [line["result"] for line in lines if "result" in line]
            assert results == [str(i) for i in range(len(results))]
            total += len(results)
            assert client.reason is not None
            assert client.reason.check(ConnectionDone)
        assert 500 < total == factory.sessions.messages < 100_000


async def test_drain_deadline(reactor: Any) -> None:
    """A handler that never ends does not hold up the end for longer than the deadline."""
    commands = standard_commands()
    commands.command("WAIT")(lambda: Deferred())
    async with serving(reactor, commands) as (factory, port):
        client = await connect(reactor, port)
        client.send(b"WAIT\n")
        await until(reactor, lambda: factory.sessions.messages)
        await factory.drain(0.2)
        assert factory.sessions.counters.ended[End.ABORTED] == 1
        await client.rest()
        late = await connect(reactor, port)
        assert await late.rest() == []


async def test_unix_socket(reactor: Any, tmp_path: Path) -> None:
    """The same factory serves a UNIX socket."""
    factory = CommandFactory(reactor, standard_commands())
    path = str(tmp_path / "socket")
    port = reactor.listenUNIX(path, factory)
    endpoint = UNIXClientEndpoint(reactor, path)
    client = await endpoint.connect(Factory.forProtocol(Client))
    assert isinstance(client, Client)
    client.send(b"CLIENTS\n")
    client.end()
    [answer] = await client.rest()
    assert answer["clients"][0]["client"] == "unix:1"
    await port.stopListening()
    await factory.drain(5)


# --- threads ---


async def test_blocking(reactor: Any) -> None:
    """Blocking handlers run in threads, side by side, and hold up nobody else."""
    threads: set[int] = set()
    commands = standard_commands()
    both = threading.Barrier(2, timeout=PATIENCE)

    def meet(word: str) -> str:
        threads.add(threading.get_ident())
        both.wait()
        return word

    commands.command("MEET", blocking=True)(meet)
    async with serving(reactor, commands) as (_, port):
        client, other = await connect(reactor, port), await connect(reactor, port)
        client.send(b"MEET a\nECHO b\n")
        other.send(b"PING\n")
        await other.lines(1)
        assert client.received == b""
        other.send(b"MEET c\n")
        assert [a["result"] for a in await client.lines(2)] == ["a", "b"]
        assert [a["result"] for a in await other.lines(1)] == ["c"]
        assert len(threads) == 2
        assert threading.get_ident() not in threads
        await client.close()
        await other.close()


async def test_blocking_client_leaves(reactor: Any) -> None:
    """A client that leaves does not wait for its thread, and the thread harms nobody."""
    begun, go = threading.Event(), threading.Event()

    def block() -> bool:
        begun.set()
        return go.wait(PATIENCE)

    commands = standard_commands()
    commands.command("BLOCK", blocking=True)(block)
    async with serving(reactor, commands) as (factory, port):
        client = await connect(reactor, port)
        client.send(b"BLOCK\n")
        # What still waits for a thread would give its place back with the client.
        await until(reactor, begun.is_set)
        client.transport.abortConnection()
        await until(reactor, lambda: not len(factory.sessions))
        # The place is the thread's until it comes back, and is free then.
        assert factory.runner.blocking == 1
        go.set()
        await until(reactor, lambda: not factory.runner.blocking)
        assert await client.rest() == []
        assert factory.sessions.counters.ended[End.CONNECTION_LOST] == 1


# --- TLS ---


@pytest.fixture(scope="module")
def certificate() -> PrivateCertificate:
    """Make a certificate that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(pem)
    return loaded


async def test_tls(reactor: Any, certificate: PrivateCertificate) -> None:
    """The same lines over TLS."""
    async with serving(reactor, tls=certificate) as (factory, port):
        client = await connect(reactor, port, tls=True)
        client.send(b"ECHO hi\n" * 1000)
        assert len(await client.lines(1000)) == 1000
        await client.close()
        await until(reactor, lambda: factory.sessions.counters.ended[End.CLIENT_CLOSED])


async def test_tls_end(reactor: Any, certificate: PrivateCertificate) -> None:
    """Lines before the client's close_notify are run, and answered if it stays."""
    async with serving(reactor, tls=certificate) as (factory, port):
        await deferToThread(ask_and_notify, port, b"ECHO hi\n" * 50)
        await until(reactor, lambda: factory.sessions.counters.ended[End.CLIENT_CLOSED])
        assert factory.sessions.messages == 50


def ask_and_notify(port: int, lines: bytes) -> None:
    """
    Send lines and a close_notify over TLS, and stay until the server has ended the connection.

    Twisted's client ends it at the first answer, when it pleases the server to run some lines only.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as below:

        def step(action: Callable[[], object]) -> bool:
            try:
                action()
            except ssl.SSLWantReadError:
                done = False
            else:
                done = True
            below.sendall(outgoing.read())
            return done

        while not step(tls.do_handshake):
            incoming.write(below.recv(2**16))
        step(lambda: tls.write(lines))
        step(tls.unwrap)
        while below.recv(2**16):
            pass


async def test_tls_too_many(reactor: Any, certificate: PrivateCertificate) -> None:
    """The refusal comes through the handshake, and the connection ends as TLS does."""
    async with serving(reactor, tls=certificate, max_connections=1) as (_, port):
        first = await connect(reactor, port, tls=True)
        first.send(b"PING\n")
        await first.lines(1)
        client = await connect(reactor, port, tls=True)
        client.send(b"PING\n" * 1000)
        [refusal] = await client.rest()
        assert refusal["code"] == "too_many_connections"
        assert client.reason is not None
        assert client.reason.check(ConnectionDone)
        await first.close()


async def test_tls_drain(reactor: Any, certificate: PrivateCertificate) -> None:
    """A drain tells, answers and ends TLS clients; one that comes late is turned away."""
    async with serving(reactor, tls=certificate) as (factory, port):
        client = await connect(reactor, port, tls=True)
        client.send(b"PING\n")
        await client.lines(1)
        drained = factory.drain(60)
        assert await client.rest() == [{"event": "shutdown", "timeout": 60}]
        await drained
        assert factory.sessions.counters.ended[End.DRAINED] == 1
        late = await connect(reactor, port, tls=True)
        assert await late.rest() == []
        assert factory.sessions.counters.ended[End.DRAINED] == 2


async def test_tls_event_in_the_handshake(reactor: Any, certificate: PrivateCertificate) -> None:
    """An event that comes before the handshake is done is delivered after it."""
    async with serving(reactor, tls=certificate) as (factory, port):
        connecting = Deferred.fromCoroutine(connect(reactor, port, tls=True))
        while not len(factory.sessions):
            await deferLater(reactor, 0)
        assert factory.sessions.broadcast({"event": "x"}).delivered == 1
        client = await connecting
        assert await client.lines(1) == [{"event": "x"}]
        client.send(b"PING\n")
        assert (await client.lines(1))[0]["result"] == "PONG"
        await client.close()


async def test_tls_silent(reactor: Any, certificate: PrivateCertificate) -> None:
    """A TLS client that never says a word is cut off."""
    limits: dict[str, Any] = {"idle_timeout": 0.1, "write_timeout": 0.1}
    async with serving(reactor, tls=certificate, **limits) as (factory, port):
        client = await connect(reactor, port)
        await client.rest()
        await until(reactor, lambda: sum(factory.sessions.counters.ended.values()))
        assert sum(factory.sessions.counters.ended.values()) == 1
        assert len(factory.sessions) == 0


async def test_tls_never_reads(reactor: Any, certificate: PrivateCertificate) -> None:
    """Over TLS, too, a client that never reads costs little memory, and is cut off."""
    async with serving(reactor, tls=certificate, write_timeout=0.5) as (factory, port):
        client = await connect(reactor, port, tls=True)
        client.send(b"PING\n")
        await client.lines(1)
        client.transport.pauseProducing()
        client.send((b"ECHO " + b"x" * 1000 + b"\n") * (BIG // 1006))
        most = 0
        while not factory.sessions.counters.ended[End.WRITE_TIMEOUT]:
            most = max(most, buffered(factory))
            await deferLater(reactor, 0.01)
        assert 65_536 < most < 400_000
        await client.abort()
