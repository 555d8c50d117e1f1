"""Drives a CoAP server on a clock: what its tests have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.codec import (
    CoapMessage,
    Option,
    Type,
    encode_message,
    parse_message,
)
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.registry import Commands, Request
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.net.addresses import Source

LOCAL = ("127.0.0.1", 40_000)
OTHER = ("127.0.0.1", 40_001)
REMOTE = ("192.0.2.1", 40_000)

Pairs = Sequence[tuple[int, bytes]]


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, Source]] = []

    def write(self, datagram: bytes, addr: Source) -> None:
        self.written.append((datagram, addr))


class Driver:
    """A server on a clock, and clients that ask it."""

    def __init__(
        self, commands: Commands, limits: CoapLimits | None = None, topics: bool = False
    ) -> None:
        self.clock = Clock()
        # A clock is enough where no command blocks.
        self.server = CoapServer(
            cast(IReactorTime, self.clock), commands, limits, topics=topics, chance=lambda: 0.5
        )
        self.transport = Transport()
        self.server.transport = self.transport  # type: ignore[assignment]  # a fake
        self.server.startProtocol()
        self._ids = 0

    def send(
        self,
        code: int,
        path: str,
        payload: bytes = b"",
        options: Pairs = (),
        *,
        kind: int = Type.CON,
        source: Source = LOCAL,
        token: bytes = b"t",
        group: bool = False,
    ) -> bytes:
        """Send a request, and give its datagram."""
        self._ids += 1
        segments = [(int(Option.URI_PATH), part.encode()) for part in path.split("/")]
        message = CoapMessage(
            kind, code, self._ids, token, sorted([*segments, *options], key=by_number), payload
        )
        datagram = encode_message(message)
        self.server.receive(datagram, source, group)
        return datagram

    def ask(
        self,
        code: int,
        path: str,
        payload: bytes = b"",
        options: Pairs = (),
        source: Source = LOCAL,
    ) -> CoapMessage:
        """Send a request, and give the answer, which must come at once."""
        self.send(code, path, payload, options, source=source)
        (answer,) = self.answers(source)
        return answer

    def answers(self, source: Source = LOCAL) -> list[CoapMessage]:
        """Return what was sent to a client since the last time, and what is to be sent now."""
        self.clock.advance(0)
        found = [data for data, to in self.transport.written if to == source]
        self.transport.written = [pair for pair in self.transport.written if pair[1] != source]
        return [parse_message(datagram) for datagram in found]

    def acknowledge(
        self, message: CoapMessage, kind: int = Type.ACK, source: Source = LOCAL
    ) -> None:
        """Acknowledge or reset a message of the server's."""
        self.server.receive(encode_message(CoapMessage(kind, 0, message.message_id)), source)

    def leftovers(self) -> object:
        """Stop the server, and give the timers that are left."""
        self.server.stopProtocol()
        return self.clock.getDelayedCalls()


def by_number(pair: tuple[int, bytes]) -> int:
    """Order options by their numbers alone."""
    return pair[0]


ACCEPT_JSON = (int(Option.ACCEPT), b"\x32")
OBSERVE = (int(Option.OBSERVE), b"")


class ServerTests(SynchronousTestCase):
    """A server with the standard commands, and some that wait or fail."""

    limits: CoapLimits | None = None

    def setUp(self) -> None:
        commands = standard_commands()
        self.runs: list[str] = []
        self.waiting: list[Deferred[str]] = []

        @commands.command()
        def note(text: str) -> str:
            """Note a text."""
            self.runs.append(text)
            return text

        @commands.command()
        async def later() -> str:
            """Answer when told to."""
            self.waiting.append(Deferred())
            return await self.waiting[-1]

        @commands.command(safe=True)
        async def soon() -> str:
            """Answer at once, though it could wait."""
            return "soon"

        @commands.command(safe=True)
        def fail() -> str:
            """Fail."""
            raise ZeroDivisionError

        @commands.command()
        def refuse() -> str:
            """Refuse."""
            raise CommandError("not today")

        @commands.command(safe=True)
        def big(request: Request, size: int = 3000) -> str:
            """Return a long text, a new one each time."""
            self.runs.append("big")
            return f"{len(self.runs)}" * size

        self.driver = Driver(commands, self.limits)
        self.ask = self.driver.ask

    def tearDown(self) -> None:
        self.assertEqual(self.driver.leftovers(), [])
