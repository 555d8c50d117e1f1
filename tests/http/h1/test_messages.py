"""Tests of :mod:`twisted_net.http.h1.messages`, beside those of its results."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.complexity.work import counted
from tests.http.h1.hostile import ROWS
from tests.http.h1.streams import CHUNKED, HELLO, LENGTH, read, response
from twisted_net.errors import FetchError
from twisted_net.http.errors import BadResponse, BodyTooLarge, ConnectionBroken
from twisted_net.http.h1.chunked import CHUNKS_PER_CALL, LAST_CHUNK
from twisted_net.http.h1.heads import MAX_HEAD_LINES
from twisted_net.http.h1.messages import (
    HEADS_PER_CALL,
    MAX_INTERIM_RESPONSES,
    ResponseReader,
    read_whole,
)

INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


class RequestTests(SynchronousTestCase):
    """What a response is depends on the request."""

    def test_head(self) -> None:
        """A response to HEAD has no body, whatever its fields say (RFC 9112 §6.3)."""
        for fields in (LENGTH, CHUNKED, b"", b"Content-Length: 99\r\n"):
            outcome = read([response(fields, b"")], method="HEAD")
            self.assertEqual((outcome.complete, outcome.reusable, outcome.body), (True, True, b""))
        for fields in (CHUNKED + LENGTH, b"Content-Length: x\r\n", b"Transfer-Encoding: x\r\n"):
            outcome = read([response(fields, b"")], method="HEAD")
            self.assertEqual((outcome.complete, outcome.reusable), (True, False))

    def test_without_body(self) -> None:
        """So it is with 204 and 304; a 204 that has a length is the last response."""
        for status, fields, reusable in (
            (204, b"", True),
            (204, b"Content-Length: 0\r\n", True),
            (204, LENGTH, False),
            (204, CHUNKED, False),
            (304, LENGTH, True),
            (304, CHUNKED, True),
            (304, b"Content-Length: x\r\n", False),
        ):
            start = b"HTTP/1.1 %d X" % status
            outcome = read([response(fields, b"", start)])
            self.assertEqual(
                (outcome.complete, outcome.reusable), (True, reusable), (status, fields)
            )

    def test_connect(self) -> None:
        """A response of success to CONNECT opens a tunnel; any other one is as usual."""
        for status in (200, 204, 299):
            start = b"HTTP/1.1 %d X" % status
            outcome = read([response(start=start)], method="CONNECT")
            self.assertFalse(outcome.reusable)
            self.assertEqual(outcome.surplus, b"hello")
        outcome = read([response(start=b"HTTP/1.1 407 X")], method="CONNECT")
        self.assertEqual((outcome.reusable, outcome.body), (True, b"hello"))

    def test_close(self) -> None:
        """After a request that closes the connection it is not used again."""
        self.assertFalse(read([response()], close=True).reusable)

    def test_connection(self) -> None:
        """``Connection`` is a list, in any case and on any number of lines (RFC 9112 §9.3)."""
        for minor, fields, reusable in (
            (1, b"", True),
            (1, b"Connection: close\r\n", False),
            (1, b"connection:CLOSE\r\n", False),
            (1, b"Connection: upgrade,\tClose ,x\r\n", False),
            (1, b"Connection: keep-alive, close\r\n", False),
            (1, b"Connection: keep-alive\r\nX: y\r\nConnection: close\r\n", False),
            (1, b"Connection: closed, unclose, x close\r\n", True),
            (1, b"Connection: ,\r\n", True),
            (1, b"Proxy-Connection: close\r\n", True),
            (0, b"", False),
            (0, b"Connection: keep-alive\r\n", True),
            (0, b"Connection: x ,Keep-Alive\r\n", True),
            (0, b"Connection: keep-alive, close\r\n", False),
            (0, b"Connection: keep-alives\r\n", False),
            (9, b"", True),
        ):
            start = b"HTTP/1.%d 200 OK" % minor
            outcome = read([response(fields + LENGTH, start=start)])
            self.assertEqual(outcome.reusable, reusable, (minor, fields))

    def test_unread(self) -> None:
        """What has come behind it, and is not looked at yet, keeps it from another use, too."""
        reader = ResponseReader()
        many = b"1\r\nx\r\n" * (CHUNKS_PER_CALL + 1)
        self.assertTrue(reader.feed(response(CHUNKED, many + b"0\r\n\r\n")))
        reader.feed(b"HTTP/1.1 200 OK\r\n")
        while not reader.complete:
            reader.advance()
        self.assertFalse(reader.reusable)


class LimitTests(SynchronousTestCase):
    """What is at a limit is read, and what is over it is not."""

    def outcomes(self, stream: bytes, **options: Any) -> set[tuple[type[FetchError], str] | None]:
        """
        Return the errors that a stream gets, in one piece and in several.

        :param options: those of the reader; Any: they have several types.
        """
        return {
            read([stream[i : i + n] for i in range(0, len(stream), n)], **options).error
            for n in (len(stream), 1, 50)
        }

    def test_head(self) -> None:
        """The bytes of a head count to the end of its empty line."""
        stream = response(b"X: " + b"x" * 100 + b"\r\n" + LENGTH)
        head = len(stream) - 5
        self.assertEqual(self.outcomes(stream, max_head=head), {None})
        [error] = self.outcomes(stream, max_head=head - 1)
        assert error is not None
        self.assertIn(f"its header is larger than {head - 1} bytes", error[1])

    def test_lines(self) -> None:
        """So do its lines, with the first one and the empty one."""
        lines = b"X: y\r\n" * (MAX_HEAD_LINES - 3)
        self.assertEqual(self.outcomes(response(lines + LENGTH)), {None})
        [error] = self.outcomes(response(lines + LENGTH + b"X: y\r\n"))
        assert error is not None
        self.assertIn("its header has more than 256 lines", error[1])

    def test_trailer(self) -> None:
        """A trailer section has the same limits, for itself."""
        for trailer, most in ((b"X: " + b"x" * 1000 + b"\r\n", 1010), (b"X: y\r\n" * 254, 9999)):
            stream = response(CHUNKED, b"0\r\n" + trailer + b"\r\n")
            self.assertEqual(self.outcomes(stream, max_head=most), {None})
            longer = response(CHUNKED, b"0\r\nX: y\r\n" + trailer + b"\r\n")
            [error] = self.outcomes(longer, max_head=most)
            assert error is not None
            self.assertIn("its trailer ", error[1])

    def test_interim(self) -> None:
        """So many interim responses may come."""
        most = INTERIM * MAX_INTERIM_RESPONSES
        self.assertEqual(self.outcomes(most + response()), {None})
        [error] = self.outcomes(most + INTERIM + response())
        assert error is not None
        self.assertIn("more than 100 interim responses precede it", error[1])

    def test_body(self) -> None:
        """A body has a limit, however it is framed; one that says its length is refused at once."""
        for fields, body in ((LENGTH, b"hello"), (CHUNKED, HELLO), (b"", b"hello")):
            self.assertEqual(self.outcomes(response(fields, body), max_body=5), {None})
            self.assertEqual(
                {error and error[0] for error in self.outcomes(response(fields, body), max_body=4)},
                {BodyTooLarge},
            )
        outcome = read([response(b"", b"hello")], max_body=4)
        self.assertEqual(outcome.body, b"hell")
        self.assertEqual(read([response(b"", b"")], max_body=0).error, None)


class PaceTests(SynchronousTestCase):
    """A call does a bounded amount of work."""

    def test_chunks(self) -> None:
        """Chunks that are left are read by the next calls, and bytes that come meanwhile."""
        reader = ResponseReader()
        chunks = b"1\r\nx\r\n" * (2 * CHUNKS_PER_CALL)
        self.assertTrue(reader.feed(response(CHUNKED, chunks)))
        self.assertEqual(reader.take_body(), [b"x" * CHUNKS_PER_CALL])
        self.assertTrue(reader.feed(b"1\r\ny\r\n"))
        self.assertTrue(reader.feed(b"0\r\n\r\nsurplus"))
        self.assertEqual(reader.take_body(), [])
        calls = 1
        while reader.advance():
            calls += 1
        self.assertEqual(calls, 3)
        self.assertEqual(b"".join(reader.take_body()), b"x" * CHUNKS_PER_CALL + b"y")
        self.assertEqual((reader.complete, reader.surplus), (True, b"surplus"))
        self.assertFalse(reader.advance())

    def test_interim(self) -> None:
        """So it is with interim responses."""
        reader = ResponseReader()
        self.assertTrue(reader.feed(INTERIM * (2 * HEADS_PER_CALL) + response()))
        self.assertIsNone(reader.head)
        self.assertTrue(reader.advance())
        self.assertFalse(reader.advance())
        self.assertTrue(reader.reusable)

    def test_end(self) -> None:
        """The end of the connection waits for what has come before it."""
        for more, error in ((b"0\r\n\r\n", None), (b"", ConnectionBroken)):
            reader = ResponseReader()
            chunks = b"1\r\nx\r\n" * (CHUNKS_PER_CALL + 1)
            self.assertTrue(reader.feed(response(CHUNKED, chunks + more)))
            self.assertTrue(reader.end())
            if error is None:
                self.assertFalse(reader.advance())
                self.assertTrue(reader.complete)
            else:
                self.assertRaises(error, reader.advance)
            self.assertFalse(reader.reusable)
            self.assertEqual(b"".join(reader.take_body()), b"x" * (CHUNKS_PER_CALL + 1))


class WorkTests(SynchronousTestCase):
    """What most responses are is read with little work."""

    def test_calls(self) -> None:
        """
        A response in one piece takes few calls, and each more chunk no more than five.

        Eight of them remember a line, which is one of them in turn.
        """
        fields = b"".join(b"X-%d: y\r\n" % i for i in range(10))
        chunk = b"a\r\n0123456789\r\n"
        for stream, most in (
            (response(fields + LENGTH), 72),
            (response(fields + CHUNKED, HELLO), 90),
            (response(fields + CHUNKED, chunk * 20 + b"0\r\n\r\n"), 90 + 20 * 5),
        ):
            reader = ResponseReader()
            work = counted(partial(reader.feed, stream))
            self.assertTrue(reader.complete)
            self.assertLess(work.calls, most)


class BodyTests(SynchronousTestCase):
    """The parts of a body come as they are read."""

    def test_no_copies(self) -> None:
        """Bytes that are a part of the body, and nothing else, are that part."""
        for fields in (b"Content-Length: 99999\r\n", b""):
            reader = ResponseReader()
            reader.feed(response(fields, b"begin"))
            piece = b"x" * 1000
            reader.feed(piece)
            begin, got = reader.take_body()
            self.assertEqual(begin, b"begin")
            self.assertIs(got, piece)
            self.assertEqual(reader.take_body(), [])

    def test_head_first(self) -> None:
        """The head is there when it has been read, and says how long the body is."""
        reader = ResponseReader()
        self.assertFalse(reader.feed(b"HTTP/1.1 200 OK\r\nContent-Le"))
        self.assertEqual((reader.head, reader.phase), (None, "headers"))
        self.assertFalse(reader.feed(b"ngth: 5\r\nX:  y \r\n\r\n"))
        head = reader.head
        assert head is not None
        self.assertEqual((head.minor, head.status, head.reason, head.length), (1, 200, "OK", 5))
        self.assertEqual(head.fields.pairs, (("Content-Length", "5"), ("X", "y")))
        self.assertEqual((reader.phase, reader.complete, reader.reusable), ("body", False, False))

    def test_continue(self) -> None:
        """Whether a 100 has come is known before the response."""
        reader = ResponseReader()
        reader.feed(INTERIM)
        self.assertFalse(reader.continued)
        reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertTrue(reader.continued)
        self.assertIsNone(reader.head)

    def test_trailers(self) -> None:
        """The fields of the trailer section are not in the header (RFC 9110 §6.5.1)."""
        reader = ResponseReader()
        reader.feed(response(CHUNKED, b"0\r\nContent-Length: 9\r\nX: y\r\n\r\n"))
        head = reader.head
        assert head is not None
        self.assertNotIn("x", head.fields)
        self.assertTrue(reader.reusable)

    def test_surplus(self) -> None:
        """What comes behind the response is kept apart; the connection is not used again."""
        reader = ResponseReader()
        reader.feed(response())
        self.assertTrue(reader.reusable)
        reader.feed(b"sur")
        reader.feed(b"plus")
        self.assertEqual((reader.surplus, reader.reusable), (b"surplus", False))


class EndTests(SynchronousTestCase):
    """The end of the connection is that of the response, or breaks it."""

    def test_clean(self) -> None:
        """A body without a length is complete if the connection ends cleanly, and only then."""
        stream = response(b"", b"hello")
        self.assertTrue(read([stream]).complete)
        outcome = read([stream], ends="it was reset")
        self.assertEqual((outcome.complete, outcome.body), (False, b"hello"))
        assert outcome.error is not None
        self.assertEqual(outcome.error[0], ConnectionBroken)
        self.assertIn("waiting for body: it was reset within the body", outcome.error[1])

    def test_complete(self) -> None:
        """A response that is complete is not broken, however the connection ends."""
        for ends in (None, "it was reset"):
            reader = ResponseReader()
            reader.feed(response())
            self.assertFalse(reader.end(ends))
            self.assertEqual((reader.complete, reader.reusable), (True, False))

    def test_broken(self) -> None:
        """An error says how far it came."""
        for stream, text in (
            (b"", "headers: the server closed it before the response"),
            (b"HTTP/1.1 2", "headers: the server closed it within a header, after 10 bytes"),
            (INTERIM, "headers: the server closed it before the response"),
            (response(b"Content-Length: 9\r\n"), "body: the server closed it after 5 of 9 bytes"),
            (response(CHUNKED, b"5\r\nhe"), "body: the server closed it before the last chunk"),
        ):
            error = read([stream]).error
            assert error is not None
            self.assertEqual(error[0], ConnectionBroken)
            self.assertIn(text, error[1])

    def test_twice(self) -> None:
        """After an error each call raises it again."""
        for stream, error in ((b"x\n", BadResponse), (b"HTTP/1.1", ConnectionBroken)):
            reader = ResponseReader()

            def fail(reader: ResponseReader = reader, stream: bytes = stream) -> None:
                reader.feed(stream)
                reader.end()

            first = self.assertRaises(error, fail)
            for call in (reader.advance, reader.end, lambda r=reader: r.feed(b"x")):
                self.assertIs(self.assertRaises(error, call), first)


class WholeTests(SynchronousTestCase):
    """What :func:`read_whole` returns is what a reader makes of the same."""

    def whole(self, stream: bytes, max_head: int = 2**16, max_body: int = 2**16) -> bool:
        """Return whether it is read as a whole, after a comparison."""
        seen = read([stream], stays=True, max_head=max_head, max_body=max_body)
        try:
            found = read_whole(stream, max_head, max_body)
        except FetchError as error:
            self.assertEqual((type(error), str(error)), seen.error)
            return False
        if found is None:
            return False
        head, body = found
        self.assertEqual(
            (head.status, head.reason, head.fields.pairs, body, head.persistent, None),
            (seen.status, seen.reason, seen.pairs, seen.body, seen.reusable, seen.error),
        )
        self.assertTrue(seen.complete)
        self.assertEqual(seen.surplus, b"")
        return True

    def test_read(self) -> None:
        """A body of known length, one in chunks, none at all, and any number of fields."""
        many = b"".join(b"X-%d: a\r\n" % i for i in range(100))
        for stream in (
            response(),
            response(CHUNKED, HELLO),
            response(CHUNKED, LAST_CHUNK),
            response(many + LENGTH),
            response(b"Connection: close\r\n" + LENGTH),
            response(b"Content-Length: 0\r\n", b""),
            response(b"", b"", b"HTTP/1.1 304 Same"),
        ):
            with self.subTest(stream=stream):
                self.assertTrue(self.whole(stream))
                for cut in range(len(stream)):
                    self.assertFalse(self.whole(stream[:cut]))
                self.assertFalse(self.whole(stream + b"\r\n"))
                self.assertFalse(self.whole(stream + stream))

    def test_left(self) -> None:
        """What takes more to be read, or is over a limit, is left."""
        for stream in (
            response(b""),
            INTERIM + response(),
            response(CHUNKED, b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"),
            response(CHUNKED, b"1\r\na\r\n" * (CHUNKS_PER_CALL + 1) + LAST_CHUNK),
            response(b"A: b\n\n", LAST_CHUNK),
            response(b"A: b\r\n" * MAX_HEAD_LINES),
        ):
            self.assertFalse(self.whole(stream))
        for stream in (response(), response(CHUNKED, HELLO)):
            head = stream.index(b"\r\n\r\n") + 4
            self.assertTrue(self.whole(stream, head, 5))
            self.assertFalse(self.whole(stream, head - 1, 5))
            self.assertFalse(self.whole(stream, head, 4))

    def test_hostile(self) -> None:
        """Hostile responses."""
        for row in ROWS:
            with self.subTest(name=row.name):
                self.whole(row.stream)
