"""Tests of :mod:`twisted_net.http.calls.server_sent_events`."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.calls.server_sent_events import EventParser, ServerSentEvent
from twisted_net.http.errors import BodyItemTooLong

Event = ServerSentEvent

WORDS = (
    *(b"data", b"event", b"id", b"retry", b": ", b":", b"\r", b"\n", b"\r\n", b"x"),
    *(b"12", b"\xc3\xbc", b"\xff", b"\0", b"\xef\xbb\xbf", b"data: y\n", b"\n\n"),
)
"""What streams are made of."""


def parsed(*pieces: bytes, max_event: int = 1000) -> list[ServerSentEvent]:
    """Return the events of a stream."""
    parser = EventParser(max_event)
    return [event for piece in pieces for event in parser.feed(piece)]


def obvious(stream: bytes) -> list[ServerSentEvent]:
    """Parse a stream as the standard's text does it, in one piece."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    found = []
    kind, data, last_id, retry = "", "", "", None
    for line in lines:
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if not line:
            if data:
                found.append(Event(kind or "message", data[:-1], last_id, retry))
            kind, data = "", ""
        elif name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value and set(value) <= set("0123456789"):
            retry = int(value) / 1000
    return found


class EventParserTests(SynchronousTestCase):
    """:class:`EventParser` parses as WHATWG HTML §9.2.6 says."""

    def test_examples(self) -> None:
        """The examples of §9.2.6."""
        for stream, expected in (
            (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("message", "YHOO\n+2\n10")]),
            (
                b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
                b"data:  third event\n\n",
                [
                    Event("message", "first event", "1"),
                    Event("message", "second event", ""),
                    Event("message", " third event", ""),
                ],
            ),
            (b"data\n\ndata\ndata\n\ndata:", [Event("message", ""), Event("message", "\n")]),
            (b"data:test\n\ndata: test\n\n", [Event("message", "test")] * 2),
        ):
            self.assertEqual(parsed(stream), expected)

    def test_fields(self) -> None:
        """Types are of one event, identifiers and times of all that follow."""
        self.assertEqual(
            parsed(
                b"event: add\ndata: 1\nid: 7\nretry: 1500\n\nretry: 1x\nid: a\0b\ndata: 2\n\n"
                b"event: gone\n\ndata: 3\nother: x\nData: y\nretry: 99999999999999999999\n\n"
            ),
            [
                Event("add", "1", "7", 1.5),
                Event("message", "2", "7", 1.5),
                Event("message", "3", "7", 1.5),
            ],
        )

    def test_byte_order_mark(self) -> None:
        """One at the beginning is no part of the first field."""
        self.assertEqual(
            parsed(b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n"), [Event("message", "1")]
        )

    @given(
        st.lists(
            st.sampled_from(WORDS),
            max_size=30,
        ),
        st.data(),
    )
    def test_any_cut(self, words: list[bytes], data: st.DataObject) -> None:
        """Any stream, cut anywhere, is as a slow and obvious parser has it."""
        stream = b"".join(words)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
        bounds = [0, *cuts, len(stream)]
        pieces = [stream[a:b] for a, b in pairwise(bounds)]
        # A carriage return at the very end is an end of line only with what follows it.
        self.assertEqual(parsed(*pieces), obvious(stream))

    def test_limit(self) -> None:
        """An event over the limit is refused, however its bytes are spread over lines."""
        for stream in (
            b"data: " + b"x" * 15 + b"\n\n",
            b"data: xxx\n" * 3,
            b"data\n" * 5,
            b"x" * 21,
            b"x\n" * 21,
            b":" + b"x" * 21,
        ):
            with self.subTest(stream=stream):
                with self.assertRaises(BodyItemTooLong) as raised:
                    parsed(b"data: 1\n\n" + stream, max_event=20)
                self.assertEqual(raised.exception.details(), {"item": "event", "limit": 20})

    def test_comments(self) -> None:
        """Any number of comments and events fits the limit, which is for each."""
        stream = b": keep alive\n" * 100 + b"data: 1\n\n" * 100
        self.assertEqual(len(parsed(stream, max_event=20)), 100)
