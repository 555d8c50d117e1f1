"""Tests for :mod:`twisted_net.coap.waiting_requests`, through a server."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.coap.coap_driver import (
    OTHER,
    REMOTE,
    ServerTests,
)
from tests.due_calls import call_due
from tests.tcp.memory import Reactor
from twisted_net.coap.codec import (
    Code,
    Option,
    Type,
)
from twisted_net.coap.settings import CoapLimits
from twisted_net.coap.waiting_requests import WaitingRequests
from twisted_net.errors import CommandError
from twisted_net.turns.steps import CANCELLED_AT_ONCE, ENDS_AT_ONCE


class WaitingRequestsTests(ServerTests):
    """Commands that wait: RFC 7252 §5.2.2."""

    limits = CoapLimits(max_waiting=3, max_waiting_per_peer=2, command_timeout=10)

    def test_at_once(self) -> None:
        """One that need not wait is answered in the acknowledgement."""
        self.assertEqual(self.ask(Code.GET, "soon").payload, b"soon")

    def test_piggybacked(self) -> None:
        """One that waits for less than a tenth of a second is, too."""
        self.driver.send(Code.POST, "later")
        self.waiting[0].callback("x")
        (answer,) = self.driver.answers()
        self.assertEqual((answer.type, answer.payload), (Type.ACK, b"x"))

    def test_separate(self) -> None:
        """One that waits longer is acknowledged, and answered later."""
        self.driver.send(Code.POST, "later", token=b"abc")
        self.driver.clock.advance(0.1)
        (ack,) = self.driver.answers()
        self.assertEqual((ack.type, ack.code), (Type.ACK, Code.EMPTY))
        self.waiting[0].callback("x")
        (answer,) = self.driver.answers()
        self.assertEqual((answer.type, answer.token, answer.payload), (Type.CON, b"abc", b"x"))
        self.driver.clock.advance(3)
        self.assertEqual(self.driver.answers(), [answer])
        self.driver.acknowledge(answer)
        self.driver.clock.pump([1] * 100)
        self.assertEqual(self.driver.answers(), [])

    def test_timeout(self) -> None:
        """One that takes too long is cancelled, and answered 5.04."""
        self.driver.send(Code.POST, "later", kind=Type.NON)
        self.driver.clock.advance(10)
        (answer,) = self.driver.answers()
        self.assertEqual(answer.code, Code.GATEWAY_TIMEOUT)
        self.assertEqual(answer.payload, b"the command took longer than 10 seconds")

    def test_refused_and_failed(self) -> None:
        """One may refuse, and may have a bug."""
        self.driver.send(Code.POST, "later")
        self.driver.send(Code.POST, "later")
        self.waiting[0].errback(CommandError("no"))
        self.waiting[1].errback(ZeroDivisionError())
        codes = [answer.code for answer in self.driver.answers()]
        self.assertEqual(codes, [Code.FORBIDDEN, Code.INTERNAL_SERVER_ERROR])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_too_many(self) -> None:
        """Of one peer and of all, so many may wait; then it is 5.03, with a time to come again."""
        self.driver.send(Code.POST, "later")
        self.driver.send(Code.POST, "later")
        refused = self.ask(Code.POST, "later")
        self.assertEqual(refused.code, Code.SERVICE_UNAVAILABLE)
        self.assertEqual(refused.option(Option.MAX_AGE), b"\x05")
        self.assertIn(b"commands of this peer are pending", refused.payload)
        self.driver.send(Code.POST, "later", source=OTHER)
        self.assertEqual(self.ask(Code.POST, "later", source=OTHER).code, 163)
        for waiting in self.waiting:
            waiting.callback("")
        self.driver.send(Code.POST, "later")
        self.assertEqual(len(self.waiting), 4)

    def test_not_awaited(self) -> None:
        """What a handler returned to a request that is refused is cancelled, not left behind."""
        cancelled: list[object] = []
        self.driver.server.commands.command("WAIT", safe=True)(lambda: Deferred(cancelled.append))
        self.assertEqual(self.ask(Code.GET, "wait", source=REMOTE).code, Code.UNAUTHORIZED)
        self.driver.send(Code.GET, "wait", group=True, kind=Type.NON)
        self.assertEqual(len(cancelled), 2)
        for _ in range(3):
            self.driver.send(Code.GET, "wait")
        self.assertEqual(len(cancelled), 3)

    def test_drain(self) -> None:
        """A drain refuses what comes, and waits for what is under way."""
        self.driver.send(Code.POST, "later")
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        self.assertEqual(self.ask(Code.GET, "ping").code, Code.SERVICE_UNAVAILABLE)
        self.assertNoResult(drained)
        self.waiting[0].callback("x")
        self.driver.clock.advance(0)
        self.successResultOf(drained)
        (answer,) = self.driver.answers()
        self.assertEqual(answer.payload, b"x")

    def test_drain_in_time(self) -> None:
        """A drain does not wait for ever."""
        self.driver.send(Code.POST, "later")
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        self.driver.clock.advance(5)
        self.successResultOf(drained)

    def test_drain_of_nothing(self) -> None:
        """Where nothing is under way a drain is over at once."""
        self.successResultOf(Deferred.fromCoroutine(self.driver.server.drain(5)))


async def wait(port: int, ended: list[int]) -> None:
    """Wait until this is cancelled, and note for which port it was."""
    try:
        await Deferred()
    except CancelledError:
        ended.append(port)


class ManyWaitingTests(ServerTests):
    """Many commands that wait."""

    reactor: Reactor

    def test_lost_peer(self) -> None:
        """What a peer that is lost waits for is found without a look at that of others."""
        compared: list[object] = []

        class Counted(tuple[str, int]):
            def __eq__(self, other: object) -> bool:
                compared.append(other)
                return super().__eq__(other)

            __hash__ = tuple.__hash__

        requests = WaitingRequests(self.driver.clock, CoapLimits())
        peers = [Counted((f"192.0.2.{i % 20}", i)) for i in range(100)]
        ended: list[int] = []
        for peer in peers * 2:
            requests.start(peer, wait(peer[1], ended))
        requests.cancel_of(peers[7])
        self.assertEqual(ended, [7, 7])
        requests.cancel_of(("192.0.2.9", 200))
        self.assertEqual(compared, [])
        requests.cancel()
        self.assertEqual(len(ended), 200)

    def lose(self, count: int, each: int) -> tuple[WaitingRequests, list[int]]:
        """Lose so many peers in one turn, each with so many requests; return how many ended."""
        requests = WaitingRequests(self.reactor, CoapLimits())
        ended: list[int] = []
        for i in range(count * each):
            requests.start(("192.0.2.1", i % count), wait(i % count, ended))
        for port in range(count):
            requests.cancel_of(("192.0.2.1", port))
        return requests, ended

    def test_many_lost_peers(self) -> None:
        """Of what many wait for, so many are cancelled in each turn."""
        self.reactor = Reactor()
        requests, ended = self.lose(40, 16)
        found = [len(ended)]
        self.assertLessEqual(found[0], CANCELLED_AT_ONCE)
        while self.reactor.turn():
            found.append(len(ended))
            self.assertLessEqual(found[-1] - found[-2], CANCELLED_AT_ONCE)
        self.assertEqual((len(ended), requests._waiting), (640, {}))
        self.assertEqual(sorted(ended), sorted([*range(40)] * 16))

    def test_stop_while_peers_are_lost(self) -> None:
        """What is left then is cancelled at once, and a drain would wait for it."""
        self.reactor = Reactor()
        requests, ended = self.lose(40, 16)
        drained = Deferred.fromCoroutine(requests.ended(5))
        self.assertNoResult(drained)
        requests.cancel()
        self.successResultOf(drained)
        self.assertEqual((len(ended), self.reactor.getDelayedCalls()), (640, []))

    def test_drain_of_many_in_time(self) -> None:
        """When its time is over, so many are cancelled in each turn; one that ends is not."""
        count = 2 * ENDS_AT_ONCE + 2
        for port in range(1, count + 1):
            self.driver.send(Code.POST, "later", source=("127.0.0.1", port))
        drained = Deferred.fromCoroutine(self.driver.server.drain(5))
        clock = self.driver.clock
        clock.rightNow = 5.0
        left = [len(self.driver.server._waiting._waiting)]
        while left[-1]:
            call_due(clock)
            left.append(len(self.driver.server._waiting._waiting))
            if len(left) == 2:
                self.waiting[-1].callback("in time")
        self.assertEqual(left, [count, count - ENDS_AT_ONCE, 1, 0])
        self.assertNoResult(drained)
        clock.advance(0)
        self.successResultOf(drained)
