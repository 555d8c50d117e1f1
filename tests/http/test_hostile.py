"""Whatever a server sends, a call ends in its time with a response or an error that says where."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.http.fakes import HttpTestCase, ServerSide
from twisted_net.http.client import Client
from twisted_net.http.errors import (
    BadResponse,
    BodyTooLarge,
    ConnectionBroken,
    FetchTimeout,
    InvalidURL,
    TooManyRedirects,
)
from twisted_net.http.response import Response
from twisted_net.http.retry.settings import CircuitBreakerSettings, RetryPolicy
from twisted_net.http.settings import HttpSettings

TIMEOUT = 30.0
SETTINGS = HttpSettings(
    timeout=TIMEOUT,
    max_body=1000,
    max_head=2000,
    max_redirects=2,
    retry=RetryPolicy(retries=2),
    breaker=CircuitBreakerSettings(failures=None),
)
EXPECTED = (BadResponse, BodyTooLarge, ConnectionBroken, FetchTimeout, InvalidURL, TooManyRedirects)

NUMBERS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "-1",
        "+5",
        "1.5",
        "1e9",
        "9" * 30,
        "9" * 5000,
        "٣",
        "0x1f",
        "1, 2",
        "soon",
        "\x00",
    ]
)
DATES = st.sampled_from(
    [
        "Sun, 22 Nov 2026 00:00:00 GMT",
        "Sun, 22 Nov 2026 00:00:07 GMT",
        "Sun, 31 Feb 2026 25:61:61 GMT",
        "Sunday, 22-Nov-26 00:02:00 GMT",
        "Sun Nov 22 00:02:00 2026",
        "Thu, 01 Jan 0000 00:00:00 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "yesterday",
    ]
)
DIRECTIVES = st.lists(
    st.one_of(
        st.sampled_from(
            ["no-store", "no-cache", 'private="x', "public", "immutable", "=", ",,", ""]
        ),
        NUMBERS.map("max-age={}".format),
        NUMBERS.map('stale-while-revalidate="{}"'.format),
        NUMBERS.map("s-maxage={}, max-age".format),
    ),
    max_size=4,
).map(", ".join)
FIELDS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["Retry-After", "Age", "Content-Length"]), NUMBERS),
        st.tuples(st.sampled_from(["Date", "Expires", "Last-Modified", "Retry-After"]), DATES),
        st.tuples(st.just("Cache-Control"), DIRECTIVES),
        st.tuples(st.just("Vary"), st.sampled_from(["*", ",", "accept", "a\tb"])),
        st.tuples(st.just("Transfer-Encoding"), st.sampled_from(["chunked", "gzip", "chunked,"])),
        st.tuples(
            st.just("Content-Encoding"), st.sampled_from(["gzip", "deflate", "br", "x,gzip"])
        ),
        st.tuples(
            st.just("Location"),
            st.sampled_from(["/", "//", "http://[", "javascript:x", "http://1.2.3.4/x", "\x00"]),
        ),
        st.tuples(st.just("Set-Cookie"), st.sampled_from(["a=b", "=", "a=b; Max-Age=x"])),
        st.tuples(st.text(max_size=4), st.text(max_size=8)),
    ),
    max_size=6,
)
STATUSES = st.sampled_from([100, 103, 200, 204, 206, 301, 304, 307, 429, 500, 503, 599, 999])
RESPONSES = st.builds(
    lambda status, fields, body, cut: (
        (
            f"HTTP/1.1 {status} X\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in fields)
            + "\r\n"
        ).encode()[: None if cut is None else cut]
        + body
    ),
    STATUSES,
    FIELDS,
    st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"\x1f\x8b\x08", b"x" * 2000]),
    st.none() | st.integers(0, 200),
)


class HostileTests(HttpTestCase):
    """The client against servers that send arbitrary responses."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.answered = 0

    @settings(max_examples=200)
    @given(
        responses=st.lists(RESPONSES, min_size=1, max_size=4),
        then=st.sampled_from(["close", "stall", "drip"]),
    )
    @example(responses=[b""], then="stall")
    @example(responses=[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"], then="drip")
    def test_any_answer(self, responses: list[bytes], then: str) -> None:
        """A call ends in time; no timer, no slot and no connection but an idle one is left."""
        self.setUp()
        client = Client(
            self.reactor,
            SETTINGS,
            chance=lambda: 1.0,
            wall=lambda: 1_795_305_600.0 + self.reactor.seconds(),
        )
        outcome: list[Any] = []
        asking = self.start(client.get("http://1.2.3.4/"))
        asking.addBoth(outcome.append)
        wires = self.serve(responses, then, outcome)
        self.assertTrue(outcome)
        if isinstance(outcome[0], Failure):
            self.check(outcome[0])
        else:
            self.assertIsInstance(outcome[0], Response)
        closing = Deferred.fromCoroutine(client.close())
        self.assert_quiet(self.reactor)
        self.successResultOf(closing)
        self.assertTrue(all(wire.transport.ended for wire in wires))

    def check(self, failure: Failure) -> None:
        """Check that an error is one of those that describe what the server did."""
        self.assertIn(type(failure.value), EXPECTED, failure.getTraceback())
        if isinstance(failure.value, FetchTimeout):
            self.assertIn(failure.value.phase, ("connect", "headers", "body"))

    def serve(self, responses: list[bytes], then: str, outcome: list[Any]) -> list[ServerSide]:
        """Answer all connections until the call ends, or for twice its timeout."""
        wires: list[ServerSide] = []
        sent: set[int] = set()
        for _ in range(int(TIMEOUT * 2 / 0.5)):
            while len(wires) < len(self.reactor.tcpClients):
                wires.append(ServerSide(self.reactor, len(wires)))
            for number, wire in enumerate(wires):
                if wire.transport.ended:
                    continue
                if wire.received():
                    wire.send(responses[min(self.answered, len(responses) - 1)])
                    self.answered += 1
                    sent.add(number)
                elif number in sent and then == "drip":
                    wire.send(b"x")
                elif number in sent and then == "close":
                    wire.close()
            if outcome:
                break
            self.reactor.advance(0.5)
        self.assertTrue(self.reactor.seconds() <= TIMEOUT)
        return wires
