"""Direct GETs: their outcomes are those of the same calls through all steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import astuple
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from tests.http.fakes import HttpTestCase, ServerSide
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.calls.direct_get import DirectGet
from twisted_net.http.client import Client
from twisted_net.http.response import Response
from twisted_net.http.retry.policy import Attempt
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.turns.turn_scheduler import next_turn, turns_of

URL = "http://1.2.3.4/a"
NOT_STORED = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 3\r\n\r\nabc"
STORED = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = NOT_STORED.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked")[:-3] + (
    b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\n\r\nabc"
LINES = STORED.replace(b"Content", b"".join(b"X-%d: a\r\n" % i for i in range(20)) + b"Content")


class DirectTestCase(HttpTestCase):
    """A scenario is played with direct requests, and without."""

    def setUp(self) -> None:
        self.attempts: list[Attempt] = []
        self.begin(direct=True)

    def begin(self, *, direct: bool, **settings: Any) -> None:
        """Make a client with an idle connection."""
        self.attempts.clear()
        self.reactor = MemoryReactorClock()
        self.client = Client(
            self.reactor,
            HttpSettings(timeout=9.0, **settings),
            chance=lambda: 0.5,
            wall=self.reactor.seconds,
            report=self.attempts.append,
        )
        if not direct:
            self.client._agent._direct = None
        asking = self.start(self.client.get("http://1.2.3.4/first"))
        self.server = ServerSide(self.reactor)
        self.server.send(NOT_STORED)
        self.successResultOf(asking)
        self.server.transport.clear()

    def ask(self, url: str = URL, **options: Any) -> Deferred[Response]:
        """Start a GET."""
        return self.start(self.client.get(url, **options))

    def outcome(self, asking: Deferred[Response]) -> object:
        """Return what became of a call, as far as the user sees it."""
        results: list[Any] = []
        asking.addBoth(results.append)
        if not results:
            return None
        result = results[0]
        if isinstance(result, Response):
            sent = result.request.headers
            history = [(one.status, one.url) for one in result.history]
            return (*astuple(result, recurse=False), dict(sent), history)
        return type(result.value), str(result.value)

    def assert_same(self, play: Callable[[], object], **settings: Any) -> list[Any]:
        """Play a scenario with direct GETs and without, and return what came of it."""
        outcomes = []
        for direct in (True, False):
            self.begin(direct=direct, **settings)
            seen = play()
            waiting = [call.getTime() for call in self.reactor.getDelayedCalls()]
            reports = sorted(map(repr, self.attempts))
            outcomes.append([seen, self.server.transport.value(), reports, sorted(waiting)])
        self.assertEqual(*outcomes)
        return outcomes[0]


class DirectGetTests(DirectTestCase):
    """A scenario is played with direct GETs, and without."""

    def answered(self, answer: bytes, **options: Any) -> Callable[[], object]:
        """Return the scenario of one answer."""

        def play() -> object:
            asking = self.ask(**options)
            self.reactor.advance(0.25)
            self.server.send(answer)
            return self.outcome(asking)

        return play

    def test_direct(self) -> None:
        """One whose answer comes whole starts neither the coroutines nor an exchange."""
        for answer in (NOT_STORED, STORED, CHUNKED, LINES):
            self.begin(direct=True)
            self.patch(self.client._agent, "send", None)
            self.patch(DirectGet, "_hand_over", None)
            asking = self.ask()
            self.server.send(answer)
            self.assertEqual(self.successResultOf(asking).body, b"abc")

    def test_body(self) -> None:
        """One whose body comes later starts no coroutine of the steps."""
        for answer, body in ((STORED, b"abc"), (CHUNKED, b"abc"), (UNTIL_CLOSE, b"abc")):
            for cut in range(answer.index(b"\r\n\r\n") + 4, len(answer)):
                self.begin(direct=True)
                self.patch(self.client._agent._retrier, "go_on", None)
                asking = self.ask()
                self.server.send(answer[:cut])
                self.server.send(answer[cut:])
                if answer is UNTIL_CLOSE:
                    self.server.close()
                self.assertEqual(self.successResultOf(asking).body, body)

    def test_broken(self) -> None:
        """A body that breaks off is requested again, or its rest is with the next call."""
        begun = STORED.replace(b"Content", b'ETag: "a"\r\nContent')
        chunked = CHUNKED.replace(b"no-store", b'max-age=9\r\nETag: "a"')

        def play(answer: bytes, cut: int, **options: Any) -> Callable[[], object]:
            def played() -> object:
                asking = self.ask(**options)
                self.reactor.advance(0.25)
                self.server.send(answer[:cut])
                self.reactor.advance(0.25)
                self.server.close()
                self.reactor.advance(1.0)
                first = self.outcome(asking) if asking.called else None
                second = None if first is None else self.ask()
                other = ServerSide(self.reactor)
                sent = other.received()
                other.send(answer)
                outcome = None if second is None else self.outcome(second)
                return first or self.outcome(asking), outcome, sent

            return played

        for answer in (begun, chunked):
            for cut in range(answer.index(b"\r\n\r\n") + 4, len(answer)):
                for options in ({}, {"retries": 0}, {"cache": False}, {"max_body": 2}):
                    with self.subTest(answer=answer, cut=cut, options=options):
                        self.assert_same(play(answer, cut, **options))
        (_, _, sent), *_ = self.assert_same(play(begun, len(begun) - 1, retries=0))
        self.assertIn(b"Range: bytes=2-", repr(sent).encode())

    def test_silence(self) -> None:
        """A body whose server falls silent, whose time is over, or whose caller leaves."""

        def play(end: Callable[[Deferred[Response]], object]) -> Callable[[], object]:
            def played() -> object:
                asking = self.ask(retries=0)
                other = self.ask(timeout=20.0)
                self.server.send(STORED[:-1])
                end(asking)
                outcomes = self.outcome(asking), self.outcome(other)
                return outcomes, self.server.transport.disconnecting

            return played

        for end in (
            lambda asking: self.reactor.pump([0.5, 0.5]),
            lambda asking: self.reactor.pump([4.0, 6.0, 9.0]),
            lambda asking: asking.cancel(),
            lambda asking: self.server.send(b"cd"),
        ):
            for cache in (True, False):
                self.assert_same(play(end), cache=CacheSettings(enabled=cache))
                self.assert_same(play(end), cache=CacheSettings(enabled=cache), silence_timeout=1.0)

    def test_answers(self) -> None:
        """Answers of all kinds."""
        gone = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
        for answer in (
            NOT_STORED,
            STORED,
            gone,
            STORED.replace(b"200 OK", b"500 Bad"),
            STORED.replace(b"Content", b"Connection: close, X\r\nX: 1\r\nContent"),
            STORED.replace(b"Content", b"Set-Cookie: a=b\r\nContent"),
            STORED.replace(b"Content", b"Vary: *\r\nContent"),
            STORED.replace(b"Content", b"Content-Encoding: gzip\r\nContent"),
            STORED.replace(b"200 OK", b"206 Part\r\nContent-Range: bytes 0-2/9"),
            STORED.replace(b"200 OK", b"304 Same"),
            STORED.replace(b"200 OK", b"300 Choose"),
            b"HTTP/1.1 100 Go on\r\n\r\n" + STORED,
            STORED + b"surplus",
            STORED[:-1],
            STORED[:9],
            b"HTTP/1.1 200 OK\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
            STORED.replace(b"3", b"9000"),
        ):
            for options in ({}, {"max_body": 1}, {"retries": 0, "timeout": None}):
                for cache in (True, False):
                    with self.subTest(answer=answer, options=options, cache=cache):
                        self.assert_same(
                            self.answered(answer, **options), cache=CacheSettings(enabled=cache)
                        )

    def test_in_pieces(self) -> None:
        """An answer in pieces, and the cache after it."""

        def play() -> object:
            asking = self.ask()
            for i in range(len(STORED)):
                self.reactor.advance(0.01)
                self.server.send(STORED[i : i + 1])
            self.reactor.advance(1.0)
            return self.outcome(asking), self.outcome(self.ask())

        self.assert_same(play)

    def test_cuts(self) -> None:
        """An answer that is cut in two anywhere, while others take their turns or not."""
        wrong = CHUNKED.replace(b"1\r\nc", b"2\r\nc")
        for answer in (
            NOT_STORED,
            STORED + b"x",
            STORED.replace(b"200", b"503"),
            CHUNKED,
            CHUNKED + b"x",
            wrong,
            LINES,
        ):
            for cut in range(0, len(answer), 3):
                for busy in (False, True):

                    def play(answer: bytes = answer, cut: int = cut, busy: bool = busy) -> object:
                        asking = self.ask(retries=0)
                        if busy:
                            turns_of(self.reactor).mark_busy()
                        for piece in (answer[:cut], answer[cut:]):
                            if piece:
                                self.server.send(piece)
                        self.reactor.advance(0)
                        return self.outcome(asking), self.server.transport.disconnecting

                    with self.subTest(answer=answer, cut=cut, busy=busy):
                        self.assert_same(play)

    def test_turns(self) -> None:
        """A small answer waits for its turn, in which it is read, or what has ended it."""

        def play(end: Callable[[Deferred[Response]], object]) -> Callable[[], object]:
            def played() -> object:
                asking = self.ask(retries=0)
                turns_of(self.reactor).mark_busy()
                self.server.send(NOT_STORED)
                end(asking)
                over = asking.called
                self.reactor.advance(0)
                return over, self.outcome(asking)

            return played

        for end in (
            lambda asking: None,
            lambda asking: asking.cancel(),
            lambda asking: self.server.close(),
        ):
            self.assert_same(play(end))

    def test_in_a_turn(self) -> None:
        """An answer that comes in a turn, as that of TLS, is part of it."""

        def play() -> object:
            asking, seen = self.ask(), []

            def answer(_: None) -> None:
                self.server.send(NOT_STORED)
                seen.append(asking.called)

            next_turn(turns_of(self.reactor)).addCallback(answer)
            self.reactor.advance(0)
            return seen, self.outcome(asking)

        self.assertEqual(self.assert_same(play)[0][0], [True])

    def test_retry(self) -> None:
        """A failed attempt is followed by another one."""

        def play() -> object:
            asking = self.ask()
            self.server.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            self.reactor.advance(0.25)
            self.server.send(STORED)
            return self.outcome(asking)

        def lose() -> object:
            asking = self.ask()
            self.server.close()
            self.reactor.advance(0.25)
            ServerSide(self.reactor).send(STORED)
            return self.outcome(asking)

        self.assertEqual(len(self.assert_same(play)[2]), 3)
        self.assertEqual(len(self.assert_same(lose)[2]), 3)

    def test_stale(self) -> None:
        """One without a lifetime is stored where it may be served in place of an error."""

        def play() -> object:
            first = self.ask()
            self.server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
            second = self.ask(retries=0)
            self.server.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return self.outcome(first), self.outcome(second)

        stale = CacheSettings(stale_if_error=60.0)
        self.assertIn("b'abc'", repr(self.assert_same(play, cache=stale)[0][1]))
        self.assertNotIn("b'abc'", repr(self.assert_same(play)[0][1]))

    def test_failure_shared(self) -> None:
        """Those who wait for a response that is an error of the server have a stale one."""
        policy = RetryPolicy(statuses=(502,))
        failing = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

        def play() -> object:
            calls = [self.ask(), self.ask()]
            self.server.send(failing)
            return [self.outcome(call) for call in calls]

        for stale in (0.0, 60.0):
            self.assert_same(play, retry=policy, cache=CacheSettings(stale_if_error=stale))

    def test_expect(self) -> None:
        """``Expect`` is not sent, as nothing follows the header."""
        sent = []
        for direct in (True, False):
            self.begin(direct=direct)
            self.client = Client(self.reactor, headers={"Expect": "100-continue"})
            if not direct:
                self.client._agent._direct = None
            first = self.start(self.client.get("http://1.2.3.4/first"))
            server = ServerSide(self.reactor)
            server.send(NOT_STORED)
            self.successResultOf(first)
            self.ask()
            sent.append(server.transport.value())
        self.assertEqual(*sent)
        self.assertNotIn(b"Expect", sent[0])

    def test_redirect(self) -> None:
        """A redirect is followed, with its cookie; or is the response."""

        def play(**options: Any) -> Callable[[], object]:
            def played() -> object:
                asking = self.ask(**options)
                self.server.send(
                    b"HTTP/1.1 302 Found\r\nLocation: /b\r\nSet-Cookie: a=b\r\n"
                    b"Content-Length: 0\r\n\r\n"
                )
                self.server.send(STORED)
                return self.outcome(asking)

            return played

        self.assertIn(b"Cookie: a=b\r\n", self.assert_same(play())[1])
        self.assertNotIn(b"/b", self.assert_same(play(allow_redirects=False))[1])

    def test_time(self) -> None:
        """A call ends at its deadline, and at the limit of the header."""

        def play(**options: Any) -> Callable[[], object]:
            def played() -> object:
                asking = self.ask(**options)
                self.reactor.advance(0.5)
                self.reactor.advance(8.5)
                return self.outcome(asking)

            return played

        self.assert_same(play())
        self.assert_same(play(timeout=0.5))
        self.assert_same(play(retries=0), headers_timeout=0.5)

    def test_shared(self) -> None:
        """Others wait for its response, also when its caller leaves, or its time is over."""

        def play(end: Callable[[Deferred[Response]], object]) -> Callable[[], object]:
            def played() -> object:
                first = self.ask(timeout=1.0)
                others = [self.ask(timeout=timeout) for timeout in (0.5, 5.0)]
                end(first)
                self.server.send(STORED)
                return [self.outcome(call) for call in (first, *others)]

            return played

        def both_end(first: Deferred[Response]) -> None:
            self.reactor.advance(0.5)
            self.reactor.advance(0.5)

        for end in (lambda first: None, lambda first: first.cancel(), both_end):
            for cache in (True, False):
                self.assert_same(play(end), cache=CacheSettings(enabled=cache))

    def serve_all(self, answer: bytes) -> int:
        """Answer all requests, and return how many there were."""
        servers, requests = [self.server], 0
        while True:
            for server in servers:
                if server.received():
                    server.send(answer)
                    requests += 1
                    break
            else:
                made = len(self.reactor.tcpClients)
                if made == len(servers):
                    return requests
                servers.append(ServerSide(self.reactor, len(servers)))

    def shared(self, answer: bytes, *options: dict[str, Any], stale: bytes = b"") -> Any:
        """
        Play three calls at once that all get the same answer, one with each of these options.

        :param stale: a response that is stored and stale by then.
        """

        def played() -> object:
            if stale:
                asking = self.ask()
                self.serve_all(stale)
                self.successResultOf(asking)
                self.reactor.advance(5.0)
            calls = [self.ask(**each) for each in (*options, {}, {}, {})[:3]]
            self.reactor.advance(0.25)
            requests = self.serve_all(answer)
            return [self.outcome(call) for call in calls], requests

        return self.assert_same(played, retry=RetryPolicy(retries=0))[0]

    def test_shared_answers(self) -> None:
        """Those who wait get what is stored, an error, or an answer of their own."""
        once = STORED.replace(b"max-age=9", b"max-age=1")
        fails = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        redirect = b"302 Found\r\nLocation: /a?2"
        for answer, requests in (
            (STORED, 1),
            (NOT_STORED, 3),
            (fails, 3),
            (b"HTTP/1.0 2 Bad\r\n\r\n", 1),
            (STORED.replace(b"Content", b"Vary: Accept-Encoding\r\nContent"), 1),
            (STORED.replace(b"Content", b"Vary: *\r\nContent"), 3),
            (STORED.replace(b"Content", b"Age: 8\r\nContent"), 1),
            (STORED.replace(b"Content", b"Age: 9\r\nContent"), 3),
            (STORED.replace(b"max-age=9", b"no-cache"), 3),
            (STORED.replace(b"Content", b"Content-Encoding: gzip\r\nContent"), 1),
            (STORED.replace(b"200 OK", redirect), 2),
        ):
            for stale in (b"", once):
                with self.subTest(answer=answer, stale=stale):
                    self.assertEqual(self.shared(answer, stale=stale)[1], requests)
        self.shared(STORED, {}, {"max_body": 2}, {"default_ttl": 5.0})
        self.shared(fails, stale=once.replace(b"=1", b"=1, stale-if-error=99"))
        self.shared(b"HTTP/1.0 2 Bad\r\n\r\n", stale=once.replace(b"=1", b"=1, stale-if-error=99"))
        self.shared(STORED, {}, {"stale_if_error": 9.0, "timeout": 0.1}, stale=once)

    def test_served_meanwhile(self) -> None:
        """A response that is served stale while it is validated is not waited for."""
        stale = STORED.replace(b"=9", b'=1, stale-while-revalidate=99\r\nETag: "1"')
        [first, *_], _ = self.shared(STORED, stale=stale)
        self.assertEqual(first[5], b"abc")

    def test_cancelled(self) -> None:
        """A caller who leaves ends the request."""

        def play() -> object:
            asking = self.ask()
            asking.cancel()
            return self.outcome(asking), self.server.transport.disconnecting

        for cache in (True, False):
            self.assert_same(play, cache=CacheSettings(enabled=cache))

    def test_closed(self) -> None:
        """Closing the client ends it, with those who wait for its response."""

        def play() -> object:
            asking = [self.ask(), self.ask(), self.ask(URL + "b")]
            closing = self.start(self.client.close())
            self.server.close()
            outcomes = [self.outcome(call) for call in asking]
            self.successResultOf(closing)
            return outcomes, len(self.reactor.getDelayedCalls())

        for cache in (True, False):
            self.assert_same(play, cache=CacheSettings(enabled=cache))

    def test_mistakes(self) -> None:
        """What a function of the user's or a step raises is raised by the call."""

        def fails(*_: object) -> None:
            raise RuntimeError("a mistake")

        def play(reports: bool) -> object:
            for _ in range(3):
                self.ask(URL + "b")
                self.server.send(NOT_STORED)  # the lines of its head are known then
            agent = self.client._agent
            if reports:
                self.patch(agent._retrier, "report", fails)
            else:
                self.patch(agent, "_shown", fails)
                if agent._direct is not None:
                    self.patch(agent._direct, "show", fails)
            asking = self.ask()
            self.server.send(NOT_STORED)
            return self.outcome(asking)

        for reports in (True, False):
            for cache in (True, False):
                scenario = partial(play, reports)
                [outcome, *_] = self.assert_same(scenario, cache=CacheSettings(enabled=cache))
                self.assertEqual(outcome, (RuntimeError, "a mistake"))

    def test_refused(self) -> None:
        """A guard and an open circuit breaker refuse it."""
        self.client = Client(self.reactor, egress=EgressPolicy())
        for url in ("http://127.0.0.1/", "http://10.0.0.1/"):
            self.failureResultOf(self.ask(url))
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_unstorable(self) -> None:
        """One whose last response could not be stored is asked for by each caller."""

        def play() -> object:
            asking = self.ask()
            self.server.send(NOT_STORED)
            first = self.outcome(asking)
            two = [self.ask(), self.ask()]
            self.server.send(NOT_STORED)
            ServerSide(self.reactor).send(NOT_STORED)
            return first, [self.outcome(call) for call in two]

        self.assert_same(play)
