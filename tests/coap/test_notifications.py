"""Tests for :mod:`twisted_net.coap.notifications`, through a server."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred

from tests.coap.coap_driver import (
    LOCAL,
    OBSERVE,
    OTHER,
    Driver,
    ServerTests,
)
from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Option,
    Type,
)
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.net.addresses import Source


class NotifierTests(ServerTests):
    """ObserverList: RFC 7641."""

    limits = CoapLimits(max_observers_per_peer=2)

    def observe(self, path: str, token: bytes = b"o", source: Source = LOCAL) -> CoapMessage:
        """Observe a resource, and give the first answer."""
        self.driver.send(Code.GET, path, options=[OBSERVE], token=token, source=source)
        (answer,) = self.driver.answers(source)
        return answer

    def test_stats(self) -> None:
        """Figures are told at an interval, each time after the last was acknowledged."""
        self.assertEqual(self.observe("stats").option(Option.OBSERVE), b"\x01")
        for number in (2, 3):
            self.driver.clock.advance(5)
            (told,) = self.driver.answers()
            self.assertEqual((told.type, told.token), (Type.CON, b"o"))
            self.assertEqual(told.option(Option.OBSERVE), bytes((number,)))
            self.assertIsNone(told.option(Option.MAX_AGE))
            self.assertEqual(json.loads(told.payload)["command"], "STATS")
            self.driver.acknowledge(told)
        self.assertEqual(self.driver.answers(), [])

    def test_unacknowledged(self) -> None:
        """Who does not acknowledge is told once more of what changed, not of each change."""
        self.observe("stats")
        self.driver.server.notify("stats")
        (told,) = self.driver.answers()
        for _ in range(3):
            self.driver.server.notify("stats")
        self.assertEqual(self.driver.answers(), [])
        self.driver.acknowledge(told)
        (again,) = self.driver.answers()
        self.assertEqual(again.option(Option.OBSERVE), b"\x03")
        self.driver.acknowledge(again)
        self.assertEqual(self.driver.answers(), [])

    def test_reset(self) -> None:
        """A reset ends an observation (§3.6), and so does silence (§4.5)."""
        for end in ("reset", "silence"):
            self.observe("stats")
            self.driver.server.notify("stats")
            (told, *_) = self.driver.answers()
            if end == "reset":
                self.driver.acknowledge(told, Type.RST)
            else:
                self.driver.clock.pump([1] * 100)
            self.assertEqual(self.driver.server.observers, 0)

    def test_cancel(self) -> None:
        """A request with Observe 1 ends the observation of its token (§3.6)."""
        self.observe("stats", b"t")
        answer = self.ask(Code.GET, "stats", options=[(int(Option.OBSERVE), b"\x01")])
        self.assertIsNone(answer.option(Option.OBSERVE))
        self.assertEqual(self.driver.server.observers, 0)

    def test_not_observable(self) -> None:
        """What cannot be observed, or by no more observers, is answered once (§4.1)."""
        self.assertIsNone(self.observe("ping").option(Option.OBSERVE))
        self.assertIsNone(self.observe(".well-known/core").option(Option.OBSERVE))
        for token, expected in ((b"1", b"\x01"), (b"2", b"\x01"), (b"3", None)):
            self.assertEqual(self.observe("stats", token).option(Option.OBSERVE), expected)

    def test_events(self) -> None:
        """A broadcast reaches those that observe /events, and counts the others."""
        self.assertEqual(self.observe("events").payload, b"{}")
        answer = self.ask(Code.POST, "broadcast", b"hello", source=OTHER)
        self.assertEqual(
            json.loads(answer.payload),
            {
                "command": "BROADCAST",
                "delivered": 1,
                "failed": 1,
                "failures": {"127.0.0.1:40001": "not_observing"},
            },
        )
        (told,) = self.driver.answers()
        event = {"event": "broadcast", "from": "127.0.0.1:40001", "message": "hello"}
        self.assertEqual(json.loads(told.payload), event)
        self.assertEqual(json.loads(self.ask(Code.GET, "events").payload), event)

    def test_error(self) -> None:
        """An error is told, and ends the observation (§4.2)."""
        commands = Commands()
        failures: list[Exception] = []

        @commands.command(safe=True)
        def stats() -> str:
            if failures:
                raise failures.pop()
            return "fine"

        self.driver.leftovers()
        self.driver = Driver(commands)
        for failure, code in ((CommandError("no"), 131), (ZeroDivisionError(), 160)):
            self.observe("stats")
            failures.append(failure)
            self.driver.server.notify("stats")
            (told,) = self.driver.answers()
            self.assertEqual(told.code, code)
            self.assertIsNone(told.option(Option.OBSERVE))
            self.assertEqual(self.driver.server.observers, 0)
            self.driver.acknowledge(told)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_tag_of_the_request(self) -> None:
        """The ETag of the request is for its first answer: a notification is told whole."""
        commands = Commands()
        commands.command("STATS", safe=True)(lambda: "same" * 25)
        self.driver.leftovers()
        self.driver = Driver(commands)
        block2 = (int(Option.BLOCK2), Block(0, False, 64).encode())
        etag = self.driver.ask(Code.GET, "stats", options=[block2]).option(Option.ETAG)
        assert etag is not None
        self.driver.send(Code.GET, "stats", options=[(int(Option.ETAG), etag), OBSERVE])
        (first,) = self.driver.answers()
        self.assertEqual(first.code, Code.VALID)
        self.driver.server.notify("stats")
        (told,) = self.driver.answers()
        self.assertEqual((told.code, told.payload), (Code.CONTENT, b"same" * 25))

    def test_long(self) -> None:
        """A long notification is its first block; the others can be asked for (RFC 7959 §2.6)."""
        commands = Commands()
        commands.command("STATS", safe=True)(lambda: "a" * 100)
        self.driver.leftovers()
        self.driver = Driver(commands)
        block2 = (int(Option.BLOCK2), Block(0, False, 64).encode())
        self.driver.send(Code.GET, "stats", options=[OBSERVE, block2])
        self.driver.answers()
        self.driver.server.notify("stats")
        (told,) = self.driver.answers()
        self.assertEqual(told.payload, b"a" * 64)
        block2 = (int(Option.BLOCK2), Block(1, False, 64).encode())
        rest = self.driver.ask(Code.GET, "stats", options=[block2])
        self.assertEqual(rest.payload, b"a" * 36)

    def test_queue_full(self) -> None:
        """An observer whose queue is full is dropped."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_queued=0))
        self.observe("stats", b"1")
        self.observe("stats", b"2")
        self.driver.server.notify("stats")
        self.assertEqual(self.driver.server.observers, 1)

    def test_drain(self) -> None:
        """At the end observers are told that there is nothing more to come."""
        self.observe("stats")
        self.successResultOf(Deferred.fromCoroutine(self.driver.server.drain(5)))
        (gone,) = self.driver.answers()
        self.assertEqual(
            (gone.type, gone.code, gone.token), (Type.NON, Code.SERVICE_UNAVAILABLE, b"o")
        )
        self.assertIsNone(self.observe("stats").option(Option.OBSERVE))

    def test_drain_while_notified(self) -> None:
        """Each observation ends with 5.03 at once, also behind a notification under way."""
        for token in (b"1", b"2"):
            self.observe("stats", token)
        self.observe("stats", b"3", OTHER)
        self.driver.server.notify("stats")
        (told,) = self.driver.answers()
        self.driver.answers(OTHER)
        self.successResultOf(Deferred.fromCoroutine(self.driver.server.drain(5)))
        gone = [(last.type, last.code, last.token) for last in self.driver.answers()]
        self.assertEqual(
            gone, [(Type.NON, Code.SERVICE_UNAVAILABLE, token) for token in (b"1", b"2")]
        )
        self.driver.answers(OTHER)
        self.driver.acknowledge(told)
        self.driver.clock.advance(100)
        self.assertEqual(self.driver.answers(), [])

    def test_registered_during_a_drain(self) -> None:
        """While the server drains, what can still be read is answered once, and not observed."""
        self.successResultOf(Deferred.fromCoroutine(self.driver.server.drain(5)))
        for path in ("events", "topics/news"):
            answer = self.observe(path)
            self.assertEqual(answer.code, Code.CONTENT, path)
            self.assertIsNone(answer.option(Option.OBSERVE), path)
        self.assertEqual(self.driver.server.observers, 0)
