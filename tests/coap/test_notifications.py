"""Tests for :mod:`twisted_net.coap.notifications`, through a server."""

from __future__ import annotations

import json
from unittest.mock import patch

from twisted.internet.defer import Deferred

from tests.coap.coap_driver import (
    LOCAL,
    OBSERVE,
    OTHER,
    Driver,
    ServerTests,
)
from tests.due_calls import call_due
from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Option,
    Type,
    uint_option,
)
from twisted_net.coap.notifications import NOTIFIED_AT_ONCE, PROBED_AT_ONCE
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.net.addresses import Source
from twisted_net.reasons import End
from twisted_net.turns.steps import CLIENTS_AT_ONCE


class NotifierTests(ServerTests):
    """ObserverList: RFC 7641."""

    limits = CoapLimits(max_observers_per_peer=2)

    def observe(self, path: str, token: bytes = b"o", source: Source = LOCAL) -> CoapMessage:
        """Observe a resource, and give the first answer."""
        self.driver.send(Code.GET, path, options=[OBSERVE], token=token, source=source)
        (answer,) = self.driver.answers(source)
        return answer

    def test_arguments(self) -> None:
        """Who observes a resource with arguments is told of these alone, or of a change of all."""
        commands = standard_commands()
        rates = {"dev-7": 1, "dev-8": 2}

        @commands.command(safe=True, observable=True)
        def config(device: str) -> int:
            """Return the rate of a device."""
            return rates[device]

        self.driver.leftovers()
        self.driver = Driver(commands)
        for device, source in (("dev-7", LOCAL), ("dev-8", OTHER)):
            options = [OBSERVE, (int(Option.URI_QUERY), device.encode())]
            self.driver.send(Code.GET, "config", options=options, token=b"o", source=source)
            self.assertEqual(len(self.driver.answers(source)), 1)
        rates["dev-7"] = 5
        self.driver.server.notify("config", "dev-7")
        (told,) = self.driver.answers()
        self.assertEqual(json.loads(told.payload)["result"], 5)
        self.assertEqual(self.driver.answers(OTHER), [])
        self.driver.acknowledge(told)
        self.driver.server.notify("config", "dev-9")
        self.assertEqual((self.driver.answers(), self.driver.answers(OTHER)), ([], []))
        self.driver.server.notify("config")
        self.assertEqual((len(self.driver.answers()), len(self.driver.answers(OTHER))), (1, 1))
        self.driver.server.peer_lost(LOCAL, End.CONNECTION_LOST)
        self.driver.server.notify("config", "dev-7")
        self.assertEqual(self.driver.server.observers, 1)

    def test_declared(self) -> None:
        """What can be observed is safe, and does not wait."""
        commands = Commands()
        self.assertRaises(TypeError, commands.command("A", observable=True), lambda: 1)

        async def later() -> None:
            """Wait."""

        self.assertRaises(TypeError, commands.command("B", observable=True, safe=True), later)

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
        for token, expected in ((b"1", b"\x01"), (b"2", b"\x02"), (b"3", None)):
            self.assertEqual(self.observe("stats", token).option(Option.OBSERVE), expected)

    def test_notify_names(self) -> None:
        """The name that notify() takes is in any case, and one that can be observed."""
        self.observe("stats")
        self.driver.server.notify("STATS")
        self.assertEqual(len(self.driver.answers()), 1)
        with self.assertRaises(ValueError) as caught:
            self.driver.server.notify("ping")
        self.assertEqual(
            str(caught.exception), "notify: ping is not observable; observable commands: stats"
        )

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
        """An observer whose queue is full is dropped, and told so (RFC 7641 §4.5)."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_queued=0))
        self.observe("stats", b"1")
        self.observe("stats", b"2")
        self.driver.server.notify("stats")
        _, gone = self.driver.answers()
        self.assertEqual((gone.code, gone.token), (Code.SERVICE_UNAVAILABLE, b"2"))
        self.assertEqual(self.driver.server.observers, 1)

    def test_probes(self) -> None:
        """
        An observer that was told nothing for long is told the state (RFC 7641 §4.5).

        One that does not acknowledge it is forgotten, any other one stays.
        """
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(probe_interval=1000))
        self.observe("events")
        self.driver.clock.advance(500)
        self.observe("topics/news", b"2", OTHER)
        self.driver.clock.advance(499)
        self.assertEqual(self.driver.answers(), [])
        self.driver.clock.advance(1)
        (told,) = self.driver.answers()
        self.assertEqual((told.type, told.code, told.payload), (Type.CON, Code.CONTENT, b"{}"))
        self.driver.acknowledge(told)
        self.assertEqual(self.driver.answers(OTHER), [])
        self.driver.clock.advance(500)
        (told,) = self.driver.answers(OTHER)
        self.driver.clock.pump([10.0] * 10)
        self.driver.answers(OTHER)
        self.assertEqual(self.driver.server.observers, 1)
        self.driver.clock.advance(400)
        (told,) = self.driver.answers()
        self.driver.acknowledge(told)

    def test_notified_is_not_probed(self) -> None:
        """Who was told of a change is not probed before the interval has passed since then."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(probe_interval=1000))
        self.observe("topics/news")
        self.driver.clock.advance(900)
        self.driver.ask(Code.POST, "topics/news", b"x", source=OTHER)
        (told,) = self.driver.answers()
        self.driver.acknowledge(told)
        self.driver.clock.advance(999)
        self.assertEqual(self.driver.answers(), [])
        self.driver.clock.advance(1)
        (told,) = self.driver.answers()
        self.assertEqual(told.payload, b"x")

    def test_many_probes(self) -> None:
        """Observers that are to be probed at one time are, and each once."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(probe_interval=1000))
        sources = [("127.0.0.1", port) for port in range(1, 2 * PROBED_AT_ONCE)]
        for source in sources:
            self.observe("events", source=source)
        self.driver.transport.written.clear()
        self.driver.clock.advance(1000)
        for _ in sources:
            self.driver.clock.advance(0)
        self.assertEqual(sorted(to[1] for _, to in self.driver.transport.written), [*range(1, 128)])

    def test_refused(self) -> None:
        """Observations for which there is no room are counted."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_observers=1))
        self.assertIsNotNone(self.observe("events").option(Option.OBSERVE))
        self.assertIsNone(self.observe("events", b"2").option(Option.OBSERVE))
        self.assertEqual(self.driver.server.figures()["observers_refused"], 1)

    def test_numbers_after_registration(self) -> None:
        """Numbers go on where a client registers again with its token (RFC 7641 §4.4)."""
        numbers = []
        for _ in range(3):
            first = self.observe("stats")
            self.driver.server.notify("stats")
            (told,) = self.driver.answers()
            self.driver.acknowledge(told)
            numbers += [uint_option(each.options, Option.OBSERVE) for each in (first, told)]
        self.assertEqual(numbers, [1, 2, 3, 4, 5, 6])

    def test_drain(self) -> None:
        """At the end observers are told that there is nothing more to come."""
        self.observe("stats")
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        self.driver.clock.advance(0)
        self.successResultOf(drained)
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
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        self.driver.clock.advance(0)
        self.successResultOf(drained)
        gone = [(last.type, last.code, last.token) for last in self.driver.answers()]
        self.assertEqual(
            gone, [(Type.NON, Code.SERVICE_UNAVAILABLE, token) for token in (b"1", b"2")]
        )
        self.driver.answers(OTHER)
        self.driver.acknowledge(told)
        self.driver.clock.advance(100)
        self.assertEqual(self.driver.answers(), [])

    def test_drain_of_one_peer(self) -> None:
        """However many observers a peer has, they are looked up once."""
        for token in (b"1", b"2"):
            self.observe("stats", token)
        self.driver.clock.advance(5)
        observers = self.driver.server._notifier.observers
        with patch.object(observers, "of_peer", wraps=observers.of_peer) as of_peer:
            drained = Deferred.fromCoroutine(self.driver.server.drain(5))
            self.driver.clock.advance(0)
        self.successResultOf(drained)
        self.assertEqual((len(observers), of_peer.call_count), (0, 1))

    def test_registered_during_a_drain(self) -> None:
        """While the server drains, what can still be read is answered once, and not observed."""
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        self.driver.clock.advance(0)
        self.successResultOf(drained)
        for path in ("events", "topics/news"):
            answer = self.observe(path)
            self.assertEqual(answer.code, Code.CONTENT, path)
            self.assertIsNone(answer.option(Option.OBSERVE), path)
        self.assertEqual(self.driver.server.observers, 0)


class ManyObserversTests(ServerTests):
    """Many observers leave room for others: so many are notified in each turn."""

    COUNT = CLIENTS_AT_ONCE + 2 * NOTIFIED_AT_ONCE + 1

    def setUp(self) -> None:
        super().setUp()
        self.sources = [("127.0.0.1", port) for port in range(1, self.COUNT + 1)]
        for source in self.sources:
            self.driver.send(Code.GET, "stats", options=[OBSERVE], source=source)
            self.driver.answers(source)

    def told(self) -> set[Source]:
        """Return the observers to which something was sent."""
        return {source for _, source in self.driver.transport.written}

    def all_told(self, at_once: int) -> None:
        """All are told something, at most so many in each turn."""
        before = 0
        for _ in range(self.COUNT):
            told = len(self.told())
            self.assertLessEqual(told - before, at_once)
            before = told
            call_due(self.driver.clock)
        self.assertEqual(before, self.COUNT)

    def test_turns(self) -> None:
        """A change reaches all of them over some turns, and each once."""
        self.driver.server.notify("stats")
        self.assertEqual(len(self.told()), NOTIFIED_AT_ONCE)
        # The others hear of both changes at once.
        self.driver.server.notify("stats")
        self.all_told(NOTIFIED_AT_ONCE)
        for source in self.sources:
            [told] = self.driver.answers(source)
            self.driver.acknowledge(told, source=source)
        again = [source for source in self.sources if self.driver.answers(source)]
        self.assertEqual(again, self.sources[:NOTIFIED_AT_ONCE])

    def test_interval(self) -> None:
        """So it is where they are notified at an interval."""
        clock = self.driver.clock
        clock.rightNow = min(call.getTime() for call in clock.calls)
        call_due(self.driver.clock)
        self.all_told(NOTIFIED_AT_ONCE)
        self.assertEqual(self.told(), {*self.sources})

    def test_left_meanwhile(self) -> None:
        """Who observes no more before its turn is not told."""
        self.driver.server.notify("stats")
        last = self.sources[-1]
        self.driver.send(Code.GET, "stats", options=[(int(Option.OBSERVE), b"\x01")], source=last)
        [answer] = self.driver.answers(last)
        self.assertEqual(answer.type, Type.ACK)
        self.driver.clock.advance(0)
        self.assertEqual(self.driver.answers(last), [])
        self.assertEqual(len(self.told()), self.COUNT - 1)

    def test_drain(self) -> None:
        """At the end so many are told in each turn, but nobody is told of a change any more."""
        self.driver.server.notify("stats")
        changed = self.told()
        self.driver.transport.written.clear()
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        before = len(self.told())
        while self.driver.server.observers:
            call_due(self.driver.clock)
            self.assertLessEqual(len(self.told()) - before, CLIENTS_AT_ONCE)
            before = len(self.told())
        self.assertNoResult(drained)
        self.driver.clock.advance(0)
        self.successResultOf(drained)
        for source in self.sources:
            [last] = self.driver.answers(source)
            self.assertEqual(last.code, Code.SERVICE_UNAVAILABLE)
        self.assertEqual(len(changed), NOTIFIED_AT_ONCE)

    def test_stopped_meanwhile(self) -> None:
        """A server that stops before all are told leaves nothing."""
        self.driver.server.notify("stats")
        self.assertEqual(self.driver.leftovers(), [])
        self.assertEqual(self.driver.server.observers, 0)
