"""Tests for :mod:`twisted_net.udp.client` over real sockets."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from tests.live.processes import Running
from tests.live.test_udp import stop
from twisted_net.net.addresses import Source
from twisted_net.udp.client import DatagramClient
from twisted_net.udp.errors import DatagramRefused, DatagramTimeout, DatagramUnreachable
from twisted_net.udp.limits import DatagramClientSettings, DatagramLimits
from twisted_net.udp.server import DatagramServer, listen_datagrams

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def reactor(patient_reactor: Any) -> Any:  # Any: reactors have no one type
    """The reactor of these tests: none of their short timeouts is due for a busy machine."""
    return patient_reactor


@asynccontextmanager
async def serving(
    reactor: Any,  # Any: a reactor; the server's own
    interface: str = "127.0.0.1",
    **options: Any,  # Any: as above
) -> AsyncIterator[tuple[str, int]]:
    """Serve until the block ends, and give the address."""
    port = listen_datagrams(reactor, DatagramServer(reactor, **options), 0, interface)
    try:
        yield interface, port.getHost().port
    finally:
        await stop(port)


@pytest.mark.parametrize("interface", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("guard", ["always", "never"])
async def test_questions(reactor: Any, interface: str, guard: Any) -> None:
    """Every question is answered, by a server that guards its answers and by one that does not."""
    try:
        async with (
            serving(reactor, interface, limits=DatagramLimits(guard=guard)) as (host, port),
            DatagramClient(reactor, host, port) as client,
        ):
            assert await client.ping() >= 0
            before = datetime.now(UTC)
            assert before <= await client.time() <= datetime.now(UTC)
            assert await client.echo("grüße") == "grüße"
            assert await client.increment(0xFFFFFFFF) == 0
            assert (await client.stats())["total_packets"] == 5
    except CannotListenError as error:
        pytest.skip(f"no IPv6 here: {error}")


async def test_lossy_server(reactor: Any) -> None:
    """Questions and answers that are lost are asked anew."""
    heard: list[bytes] = []

    def handler(data: bytes, source: Source) -> bytes | None:
        heard.append(data)
        return b"PONG" if len(heard) % 3 == 0 else None

    settings = DatagramClientSettings(timeout=0.1)
    async with (
        serving(reactor, handler=handler) as address,
        DatagramClient(reactor, *address, settings) as client,
    ):
        for _ in range(3):
            await client.ping()
    assert len(heard) == 9


async def test_refused(reactor: Any) -> None:
    """A question that is too short for its answer is refused, in words that say why."""
    async with (
        serving(reactor, limits=DatagramLimits(guard="always")) as address,
        DatagramClient(reactor, *address) as client,
    ):
        with pytest.raises(DatagramRefused, match="PAD"):
            await client.ask(b"hello", fits=lambda answer: answer == b"ECHO: hello")


async def test_nobody_there(reactor: Any) -> None:
    """A port at which nobody listens is told from a server that is silent."""
    settings = DatagramClientSettings(timeout=0.05, retries=1)
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address: Source = silent.getsockname()
        async with DatagramClient(reactor, *address, settings) as client:
            with pytest.raises(DatagramTimeout):
                await client.ping()
    async with DatagramClient(reactor, *address, settings) as client:
        with pytest.raises(DatagramUnreachable):
            await client.ping()


async def test_strangers(reactor: Any) -> None:
    """A datagram from another address than the server's is not seen at all."""
    asked: Deferred[Source] = Deferred()

    def handler(data: bytes, source: Source) -> bytes | None:
        if not asked.called:
            asked.callback(source)
            return None
        return b"PONG"

    settings = DatagramClientSettings(timeout=0.2)
    async with (
        serving(reactor, handler=handler) as address,
        DatagramClient(reactor, *address, settings) as client,
    ):
        pinged = Deferred.fromCoroutine(client.ping())
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"PONG", ("127.0.0.1", (await asked)[1]))
        await pinged
        # Had the stranger's answer counted, one question would have been enough.
        assert (await client.ask(b"any")) == b"PONG"
        assert client.strays == 0


async def test_name(reactor: Any) -> None:
    """A server may be named."""
    async with (
        serving(reactor) as (_, port),
        DatagramClient(reactor, "localhost", port) as client,
    ):
        assert await client.echo("hello") == "hello"


async def test_example(reactor: Any) -> None:
    """The example ``udp_client.py`` prints what it was answered; without a server, why not."""
    async with serving(reactor) as (host, port):
        words = [sys.executable, "udp_client.py", host, str(port)]
        async with Running(reactor, words, EXAMPLES) as example:
            ended = await example.ended()
    assert (ended.status, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert [*lines[:1], *lines[2:]] == [
        "it answers PING",
        "echo: hello",
        "41 + 1 = 42",
        "datagrams so far: 5",
    ]
