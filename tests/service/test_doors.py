"""Peers of CoAP among the clients that an operator sees, and ends."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import OBSERVE, OTHER, Driver
from tests.service.test_net import ask, connect
from twisted_net.auth.users import Permissions, User
from twisted_net.coap.codec import Code, Option
from twisted_net.commands.registry import Commands
from twisted_net.errors import Banned
from twisted_net.reasons import End
from twisted_net.service.config import CoapSettings, Config, UdpSettings
from twisted_net.service.net import NetService
from twisted_net.tcp.connection import CommandProtocol
from twisted_net.tcp.listener_settings import Listener


class ServiceTestCase(SynchronousTestCase):
    """A service with lines and CoAP."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()  # Any: it has no threads
        config = Config(
            udp=UdpSettings(enabled=False),
            coap=CoapSettings(enabled=True),
            listeners=(Listener(path="/run/x", admin=True),),
        )
        self.service = NetService(self.reactor, config)
        assert self.service.coap is not None
        self.server = self.service.coap.server
        self.driver = Driver(Commands())
        self.driver.server = self.server
        self.driver.clock = self.reactor
        self.server.transport = self.driver.transport  # type: ignore[assignment]  # a fake
        self.client = connect(self.service, self.service.listeners[0])

    def ask(self, line: bytes) -> dict[str, Any]:
        """Return the answer to a line."""
        found: dict[str, Any] = ask(self.client, line)
        return found


class DoorsTests(ServiceTestCase):
    """CLIENTS, CLOSED, KILL, STATS and INFO."""

    def test_clients(self) -> None:
        """CLIENTS, STATS and INFO show the peers of CoAP with their door; and so over CoAP."""
        self.driver.ask(Code.GET, "ping")
        found = self.ask(b"CLIENTS")
        doors = [(client["door"], client["messages"]) for client in found["clients"]]
        self.assertEqual((found["count"], doors), (2, [("lines", 1), ("coap", 1)]))
        self.assertEqual(found["clients"][1]["client"], "127.0.0.1:40000")
        counts = {"lines": 1, "coap": 1}
        self.assertEqual(self.ask(b"STATS")["clients"], counts)
        self.assertEqual(self.ask(b"INFO clients")["clients"]["doors"], counts)
        stats = json.loads(self.driver.ask(Code.GET, "stats").payload)
        self.assertEqual(stats["clients"], counts)

    def test_kill(self) -> None:
        """A peer that is killed is among the closed; its observations end, and others go on."""
        self.driver.ask(Code.GET, "events", options=[OBSERVE])
        self.driver.ask(Code.GET, "events", options=[OBSERVE], source=OTHER)
        self.assertEqual(self.ask(b"KILL client 127.0.0.1:40000")["killed"], 1)
        (told,) = self.driver.answers()
        self.assertEqual(told.code, Code.SERVICE_UNAVAILABLE)
        self.assertEqual(self.server.observers, 1)
        self.assertEqual(self.server.sessions.counters.ended[End.KILLED], 1)
        closed = self.ask(b"CLOSED")
        self.assertEqual(closed["count"], 1)
        ended = {name: closed["clients"][0][name] for name in ("client", "door", "reason")}
        self.assertEqual(ended, {"client": "127.0.0.1:40000", "door": "coap", "reason": "killed"})
        self.assertEqual(self.driver.ask(Code.GET, "ping").payload, b"PONG")
        self.assertEqual(self.ask(b"CLIENTS")["count"], 3)

    def test_kill_address(self) -> None:
        """All clients of an address are ended, whichever their door."""
        self.driver.ask(Code.GET, "ping")
        self.driver.ask(Code.GET, "ping", source=("127.0.0.2", 40_000))
        self.assertEqual(self.ask(b"KILL address 127.0.0.2")["killed"], 1)
        self.assertEqual(self.ask(b"CLIENTS")["count"], 2)
        self.assertIn("no client", self.ask(b"KILL client 127.0.0.2:40000")["error"])


class PresenceTests(ServiceTestCase):
    """PRESENCE, and its topics, on all doors."""

    def identities(self) -> list[tuple[str, bool, int]]:
        """Return the names, whether they are there, and their connections."""
        return [
            (found["name"], found["present"], found["connections"])
            for found in self.ask(b"PRESENCE")["identities"]
        ]

    def test_port(self) -> None:
        """A device that comes back from another port is the same; it has gone with its last."""
        device = "192.0.2.7"
        for port in (1, 2):
            answer = self.driver.ask(Code.POST, "topics/a", b"x" * 30, source=(device, port))
            echo = answer.option(Option.ECHO)
            assert echo is not None
            options = [(int(Option.ECHO), echo)]
            self.driver.ask(Code.POST, "ping", options=options, source=(device, port))
        self.assertIn((device, True, 2), self.identities())
        self.ask(b"KILL address 192.0.2.7")
        self.assertIn((device, False, 0), self.identities())

    def test_forged(self) -> None:
        """An address that may be forged is nobody."""
        self.driver.ask(Code.GET, "ping", source=("192.0.2.7", 1))
        self.assertEqual(len(self.identities()), 1)

    def test_topics(self) -> None:
        """Who may run PRESENCE hears of it; others do not, nor can anybody publish it."""
        self.ask(b"SUBSCRIBE @presence.>")
        self.driver.ask(Code.GET, "ping")
        plain = connect(self.service)
        for line in (b"SUBSCRIBE @presence.>", b"PUBLISH @presence.user x", b"RETAIN @presence x"):
            self.assertEqual(ask(plain, line)["code"], "not_permitted")
        self.assertEqual(self.ask(b"PUBLISH @presence.user x")["code"], "not_permitted")
        for code in (Code.GET, Code.POST):
            answer = self.driver.ask(code, "topics/@presence.user", b"x" * (code == Code.POST))
            self.assertEqual(answer.code, Code.FORBIDDEN)


class BanTests(ServiceTestCase):
    """KILL bans for a while, on all doors."""

    def test_address(self) -> None:
        """Nobody comes from a banned address, neither by lines nor by CoAP, until it is over."""
        self.driver.ask(Code.GET, "ping")
        answer = self.ask(b"KILL address 127.0.0.1 FOR 10m too noisy")
        self.assertEqual((answer["killed"], answer["banned"]), (1, 600))
        assert self.service.tcp is not None
        factory = self.service.tcp.factory
        peer = IPv4Address("TCP", "127.0.0.1", 1)
        self.assertNotIsInstance(factory.buildProtocol(peer), CommandProtocol)
        self.assertEqual(factory.sessions.counters.ended[End.BANNED], 1)
        refused = self.driver.ask(Code.GET, "ping")
        self.assertEqual(refused.code, Code.FORBIDDEN)
        self.assertIn(b"banned for another 600 s", refused.payload)
        self.assertEqual(len(self.server.sessions), 0)
        ban = {"kind": "address", "name": "127.0.0.1", "left": 600}
        self.assertEqual(self.ask(b"INFO bans")["bans"], {"count": 1, "latest": [ban]})
        self.reactor.advance(600)
        self.assertIsInstance(factory.buildProtocol(peer), CommandProtocol)
        self.assertEqual(self.driver.ask(Code.GET, "ping").payload, b"PONG")
        self.assertEqual(self.ask(b"INFO bans")["bans"]["count"], 0)

    def test_forged(self) -> None:
        """An address that may be forged is refused, too, and nothing is kept of it."""
        self.ask(b"KILL address 192.0.2.7 FOR 1h")
        answer = self.driver.ask(Code.POST, "echo", b"x" * 99, source=("192.0.2.7", 1))
        self.assertEqual((answer.code, len(self.server.sessions)), (Code.FORBIDDEN, 0))

    def test_client(self) -> None:
        """A client is banned by its user, or by its address without one; and may be let in."""
        session = self.service.sessions.open("192.0.2.8", 5, lambda line: None)
        ann = Permissions("ann", User())
        session.log_in(ann)
        self.driver.ask(Code.GET, "ping")
        for name in (b"192.0.2.8:5", b"127.0.0.1:40000"):
            self.ask(b"KILL client " + name + b" FOR 7d")
        bans = self.ask(b"INFO bans")["bans"]["latest"]
        self.assertEqual([ban["name"] for ban in bans], ["127.0.0.1", "ann"])
        self.assertRaises(Banned, session.log_in, ann)
        self.assertEqual(self.ask(b"KILL user ann FOR 0s")["banned"], 0)
        session.log_in(ann)

    def test_reasons(self) -> None:
        """What is no time is a reason; a time that is too long is an error."""
        self.driver.ask(Code.GET, "ping")
        self.assertIn("31d at most", self.ask(b"KILL address 127.0.0.1 FOR 32d")["error"])
        self.assertEqual(self.ask(b"KILL address 127.0.0.1 FOR ever")["killed"], 1)
        self.assertEqual(self.ask(b"INFO bans")["bans"]["count"], 0)
