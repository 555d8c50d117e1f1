"""FETCH counts for the same client, and within the same limit, whichever door it comes through."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import Driver
from tests.service.test_net import OPEN, TCP_ALONE, ThreadedReactor
from tests.tcp.issuing import Authority, write_pair
from tests.tcp.kinds import KINDS, Door, Kind, KindClient
from tests.tcp.memory import Reactor
from twisted_net.coap.codec import CoapMessage, Code, Option
from twisted_net.commands.standard import standard_commands
from twisted_net.http.client import Client
from twisted_net.http.settings import FetchSettings
from twisted_net.net.addresses import Source
from twisted_net.service.config import CoapSettings, Config
from twisted_net.service.net import NetService

URL = b"http://198.51.100.1/"

HOST = "192.0.2.1"
"""Where the clients of all kinds come from, but for those of Unix sockets."""


class FetchDoorsTests(SynchronousTestCase):
    """A service with a place for four FETCHes, none of which ends."""

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.certificate = write_pair(folder / "server.pem", Authority().issue("a.test"))
        self.running: list[Deferred[Any]] = []

        async def get(client: Client, url: str, **options: object) -> object:
            self.running.append(Deferred())
            return await self.running[-1]

        self.patch(Client, "get", get)
        reactor: Any = ThreadedReactor()  # Any: what a service needs of one
        config = Config(
            udp=TCP_ALONE,
            auth=OPEN,
            coap=CoapSettings(enabled=True),
            fetch=FetchSettings(max_running=4),
        )
        self.service = NetService(reactor, config)
        assert self.service.coap is not None
        self.coap = Driver(standard_commands())
        self.coap.clock = reactor
        self.coap.server = self.service.coap.server
        self.coap.server.transport = self.coap.transport  # type: ignore[assignment]  # a fake

    def client(self, kind: Kind) -> KindClient:
        """Connect a client of a kind of listener to the service."""
        assert self.service.tcp is not None
        return Door(kind, Reactor(), self.service.tcp.factory, self.certificate).client()

    def ask_coap(self, source: Source) -> list[bytes]:
        """Send a FETCH over CoAP, with the Echo that it takes; return what is answered at once."""
        [asked] = self.send_coap(source)
        [echo] = [value for number, value in asked.options if number == Option.ECHO]
        return [answer.payload for answer in self.send_coap(source, echo)]

    def send_coap(self, source: Source, *echoes: bytes) -> list[CoapMessage]:
        """Send a FETCH over CoAP; return the responses that are there at once."""
        options = [(int(Option.ECHO), echo) for echo in echoes]
        self.coap.send(Code.POST, "fetch", URL, options, source=source)
        return [answer for answer in self.coap.answers(source) if answer.code]

    def test_lines_first(self) -> None:
        """What one address has under way over lines counts over all other doors."""
        self.assertEqual(self.client(KINDS["tcp"]).ask(*[b"FETCH " + URL] * 2), [])
        for name, kind in KINDS.items():
            if not kind.unix:
                [answer] = self.client(kind).ask(b"FETCH " + URL)
                self.assertEqual((answer["code"], answer["limit"]), ("busy", 2), name)
        busy = b"busy: 2 fetches are pending; try again later"
        self.assertEqual(self.ask_coap((HOST, 5683)), [busy])
        self.assertEqual(len(self.running), 2)
        self.assertEqual(self.client(KINDS["unix"]).ask(b"FETCH " + URL), [])
        self.assertEqual(self.ask_coap(("192.0.2.9", 5683)), [])
        self.assertEqual(len(self.running), 4)

    def test_coap_first(self) -> None:
        """So does what it has under way over CoAP, from whichever port."""
        for port in (5683, 5684):
            self.assertEqual(self.ask_coap((HOST, port)), [])
        [answer] = self.client(KINDS["tcp"]).ask(b"FETCH " + URL)
        self.assertEqual((answer["code"], answer["limit"]), ("busy", 2))
        self.assertEqual(len(self.running), 2)
