"""Direct POSTs: their outcomes are those of the same calls through all steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.http.calls.test_direct_get import (
    CHUNKED,
    LINES,
    NOT_STORED,
    STORED,
    UNTIL_CLOSE,
    URL,
    DirectTestCase,
)
from tests.http.fakes import ServerSide
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.calls.direct_get import DirectGet
from twisted_net.http.h1.wire import MAX_COPIED
from twisted_net.http.response import Response

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


class DirectPostTests(DirectTestCase):
    """A scenario is played with direct POSTs of JSON, and without."""

    def post(self, value: object = 1, **options: Any) -> Deferred[Response]:
        """Start a POST."""
        return self.start(self.client.post(URL, json=value, **options))

    def test_direct(self) -> None:
        """One whose answer comes whole starts neither the coroutines nor an exchange."""
        for answer in (NOT_STORED, STORED, CHUNKED, LINES):
            self.begin(direct=True)
            self.patch(self.client._agent, "send", None)
            self.patch(DirectGet, "_hand_over", None)
            asking = self.post({"a": 1})
            head, _, body = self.server.received().partition(b"\r\n\r\n")
            self.assertIn(b"\r\nContent-Type: application/json\r\n", head)
            self.assertIn(b"\r\nContent-Length: 7", head)
            self.assertEqual(body, b'{"a":1}')
            self.server.send(answer)
            response = self.successResultOf(asking)
            self.assertEqual((response.body, response.request.body), (b"abc", b'{"a":1}'))

    def test_answers(self) -> None:
        """An answer that is cut in two anywhere, or whose rest does not come."""
        for answer in (
            NOT_STORED,
            STORED + b"x",
            CHUNKED,
            LINES,
            UNTIL_CLOSE,
            BUSY,
            BUSY.replace(b"503", b"500"),
            STORED.replace(b"200 OK", b"206 Part\r\nContent-Range: bytes 0-2/9"),
            b"HTTP/1.1 100 Go on\r\n\r\n" + STORED,
            b"SSH-2.0\r\n\r\n",
        ):
            for cut in range(0, len(answer) + 1, 5):
                for ends in (False, True):

                    def play(answer: bytes = answer, cut: int = cut, ends: bool = ends) -> object:
                        asking = self.post()
                        if cut:
                            self.server.send(answer[:cut])
                        if ends:
                            self.server.close()
                        elif answer[cut:]:
                            self.server.send(answer[cut:])
                        self.reactor.advance(1.0)
                        made = len(self.reactor.tcpClients)
                        return self.outcome(asking), made, self.server.transport.disconnecting

                    cache = CacheSettings(enabled=cut % 2 == 0)
                    with self.subTest(answer=answer, cut=cut, ends=ends):
                        self.assert_same(play, cache=cache)

    def test_repeated(self) -> None:
        """It is sent again where its caller says that it may be, and only then."""

        def play(**options: Any) -> Callable[[], object]:
            def played() -> object:
                asking = self.post(**options)
                self.server.close()
                self.reactor.advance(1.0)
                made = len(self.reactor.tcpClients)
                sent = b""
                if made > 1:
                    other = ServerSide(self.reactor)
                    sent = other.received()
                    other.send(NOT_STORED)
                return self.outcome(asking), made, sent

            return played

        self.assertEqual(self.assert_same(play())[0][1], 1)
        self.assertEqual(self.assert_same(play(idempotent=False))[0][1], 1)
        self.assertEqual(self.assert_same(play(idempotent=True))[0][1], 2)
        self.assertEqual(self.assert_same(play(idempotent=True, retries=0))[0][1], 1)

    def test_invalidates(self) -> None:
        """What is stored for its URL, or is on the way, is not served after it."""

        def play(answer: bytes) -> Callable[[], object]:
            def played() -> object:
                first = self.ask()
                self.server.send(STORED)
                posted = self.post()
                self.server.send(answer)
                second = self.ask()
                self.server.send(STORED.replace(b"abc", b"new"))
                return [self.outcome(call) for call in (first, posted, second)]

            return played

        def overtake() -> object:
            getting, posting = self.ask(), self.post()
            other = ServerSide(self.reactor)
            other.send(NOT_STORED)
            self.server.send(STORED)
            again = self.ask()
            return self.outcome(getting), self.outcome(posting), self.outcome(again)

        self.assertIn("new", repr(self.assert_same(play(STORED))))
        self.assertNotIn("new", repr(self.assert_same(play(BUSY.replace(b"503", b"400")))))
        self.assert_same(overtake)

    def test_redirect(self) -> None:
        """A redirect is followed, with the body that it had if the method stays."""

        def play(status: bytes, **options: Any) -> Callable[[], object]:
            def played() -> object:
                value = {"a": 1}
                asking = self.post(value, **options)
                value["a"] = 2
                self.server.send(
                    b"HTTP/1.1 " + status + b" Go\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
                )
                self.server.send(NOT_STORED)
                return self.outcome(asking)

            return played

        for status in (b"301", b"302", b"303", b"307", b"308"):
            self.assert_same(play(status))
            self.assert_same(play(status, allow_redirects=False))
        self.assertEqual(self.assert_same(play(b"307"))[1].count(b'{"a":1}'), 2)

    def test_other_bodies(self) -> None:
        """Large ones, and values that JSON does not have."""

        def play(value: object) -> Callable[[], object]:
            def played() -> object:
                asking = self.post(value)
                sent = self.server.received()
                if sent:
                    self.server.send(NOT_STORED)
                return self.outcome(asking), sent

            return played

        for size in (MAX_COPIED - 2, MAX_COPIED - 1):
            self.assert_same(play("x" * size))
        for value in (None, object(), {}, "\udc80"):
            self.assert_same(play(value))

    def test_ends(self) -> None:
        """Its time ends, its caller leaves, or the client is closed."""

        def play(end: Callable[[Deferred[Response]], object]) -> Callable[[], object]:
            def played() -> object:
                asking = self.post()
                end(asking)
                return self.outcome(asking), self.server.transport.disconnecting

            return played

        def close(_: Deferred[Response]) -> None:
            self.start(self.client.close())
            self.server.close()

        for end in (
            lambda asking: self.reactor.pump([4.0, 5.0]),
            lambda asking: asking.cancel(),
            close,
        ):
            for cache in (True, False):
                self.assert_same(play(end), cache=CacheSettings(enabled=cache))
