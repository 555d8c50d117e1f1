"""Direct GETs of an agent: what comes of them is what does through all steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from tests.http.calls.test_direct_get import CHUNKED, LINES, NOT_STORED, STORED, UNTIL_CLOSE, URL
from tests.http.fakes import HttpTestCase, ServerSide
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.bodies import collect
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings


class DirectAgentTests(HttpTestCase):
    """A scenario is played with an agent whose GETs are direct, and without."""

    def setUp(self) -> None:
        self.begin(direct=True)

    def begin(self, *, direct: bool, **settings: Any) -> None:
        """Make an agent with an idle connection."""
        self.reactor = MemoryReactorClock()
        self.agent = HTTPAgent(
            self.reactor,
            HttpSettings(timeout=9.0, **settings),
            chance=lambda: 0.5,
            wall=self.reactor.seconds,
        )
        if not direct:
            self.agent._direct = None
        first = self.ask()
        self.server = ServerSide(self.reactor)
        self.server.send(NOT_STORED)
        self.successResultOf(first.addCallback(collect))
        self.server.transport.clear()

    def ask(self, **fields: str) -> Deferred[Any]:
        """Start a GET with these fields."""
        headers = Headers({name: [value] for name, value in fields.items()}) if fields else None
        return self.agent.request(b"GET", URL.encode(), headers)

    def outcome(self, asking: Deferred[Any]) -> object:
        """Return what became of a request, and of its body."""
        seen: list[Any] = []
        asking.addBoth(seen.append)
        if not seen:
            return None
        if isinstance(seen[0], Failure):
            return type(seen[0].value), str(seen[0].value)
        response = seen[0]
        body: list[Any] = []
        reading: Deferred[Any] = collect(response)
        reading.addBoth(body.append)
        what = [repr(each.value) if isinstance(each, Failure) else each[0] for each in body]
        pairs = response.fields.pairs
        return response.version, response.code, response.phrase, response.length, pairs, what

    def assert_same(self, play: Callable[[], object], **settings: Any) -> Any:
        """Play a scenario with direct GETs and without, and return what came of it."""
        outcomes = []
        for direct in (True, False):
            self.begin(direct=direct, **settings)
            seen = play()
            waiting = sorted(call.getTime() for call in self.reactor.getDelayedCalls())
            outcomes.append([seen, self.server.received(), waiting])
        self.assertEqual(*outcomes)
        return outcomes[0]

    def test_direct(self) -> None:
        """It does not start the coroutine of all steps, with the same fields or others."""
        self.patch(self.agent, "send", None)
        for fields in ({}, {"X": "1"}, {"X": "1"}, {"X": "2"}):
            for answer in (NOT_STORED, CHUNKED, LINES.replace(b"max-age=9", b"no-store")):
                asking = self.ask(**fields)
                sent = self.server.received()
                self.assertEqual(sent.count(b"X: " + fields.get("X", "").encode()), len(fields))
                self.server.send(answer)
                response = self.successResultOf(asking)
                self.assertEqual(self.successResultOf(collect(response))[0], b"abc")

    def test_cuts(self) -> None:
        """An answer that is cut in two anywhere, before and after its caller reads the body."""
        for answer in (NOT_STORED, STORED, CHUNKED, STORED + b"x", UNTIL_CLOSE):
            for cut in range(0, len(answer) + 1, 3):
                for ends in (False, True):

                    def play(answer: bytes = answer, cut: int = cut, ends: bool = ends) -> object:
                        asking = self.ask()
                        if cut:
                            self.server.send(answer[:cut])
                        first = self.outcome(asking) if asking.called else None
                        if ends:
                            self.server.close()
                            self.reactor.advance(1.0)
                        elif answer[cut:]:
                            self.server.send(answer[cut:])
                        self.reactor.advance(0)
                        return first or (self.outcome(asking) if asking.called else None)

                    for cache in (True, False):
                        with self.subTest(answer=answer, cut=cut, ends=ends, cache=cache):
                            self.assert_same(play, cache=CacheSettings(enabled=cache))

    def test_fields(self) -> None:
        """Fields that are sent, change what is done, or cannot be sent."""

        def play(fields: dict[str, str]) -> Callable[[], object]:
            def played() -> object:
                outcomes = []
                for _ in range(2):
                    asking = self.ask(**fields)
                    sent = self.server.received()
                    if sent:
                        self.server.send(STORED)
                    outcomes.append((sent, self.outcome(asking)))
                return outcomes

            return played

        for fields in (
            {},
            {"X": "1"},
            {"X": "\x00"},
            {"Connection": "close"},
            {"Host": "other"},
            {"Expect": "100-continue"},
            {"Authorization": "a"},
            {"Range": "bytes=0-1"},
            {"Cache-Control": "no-cache"},
            {"Accept-Encoding": "identity"},
        ):
            with self.subTest(fields=fields):
                self.assert_same(play(fields))

    def test_shared(self) -> None:
        """Others wait for the same, and one that leaves or is late does not end them."""

        def play(answer: bytes, end: Callable[[Deferred[Any]], object]) -> Callable[[], object]:
            def played() -> object:
                first, other = self.ask(), self.ask()
                end(first)
                self.server.send(answer[:-1])
                self.server.send(answer[-1:])
                if len(self.reactor.tcpClients) > 1:
                    ServerSide(self.reactor).send(answer)
                return self.outcome(first), self.outcome(other), len(self.reactor.tcpClients)

            return played

        for answer in (STORED, NOT_STORED, CHUNKED):
            for end in (lambda first: None, lambda first: first.cancel()):
                with self.subTest(answer=answer):
                    self.assert_same(play(answer, end))

    def test_time(self) -> None:
        """It ends at the deadline."""

        def play() -> object:
            asking = [self.ask(), self.ask()]
            self.reactor.pump([4.0, 5.0])
            return [self.outcome(each) for each in asking]

        self.assert_same(play)
        self.assert_same(play, headers_timeout=1.0, retry=RetryPolicy(retries=0))
