"""Tests of :mod:`twisted_net.http.calls.body`, ``multipart`` and ``upload``."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from tests.http.fakes import HttpTestCase, Source, canned
from tests.http.test_client import URL, ClientTestCase, redirect
from twisted_net.http.calls.body import add_params
from twisted_net.http.calls.multipart import multipart_form
from twisted_net.http.calls.upload import PieceProducer, file_pieces
from twisted_net.http.fields import HeaderFields
from twisted_net.http.streaming import StreamedResponse

pairs = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4)


class QueryTests(SynchronousTestCase):
    """:func:`add_params` adds to a query."""

    @given(pairs, st.sampled_from(["http://h/", "http://h/p?", "http://h?a=b", "http://h/?a=b&#f"]))
    def test_added(self, added: list[tuple[str, str]], url: str) -> None:
        """What is added is read from it, behind what was there."""
        made = urlsplit(add_params(url, added))
        before = parse_qsl(urlsplit(url).query, keep_blank_values=True)
        self.assertEqual(parse_qsl(made.query, keep_blank_values=True), before + added)
        self.assertEqual(made.fragment, urlsplit(url).fragment)


class SizedFile(io.BytesIO):
    """A file with a name."""

    name = "folder/u.png"


class ContentTests(ClientTestCase):
    """What ``data`` and ``files`` of a call become."""

    def posted(self, **options: Any) -> tuple[bytes | None, str]:
        """Return the body of a POST, and its type."""
        self.answer(canned(200))
        self.run_now(self.client.post(URL, **options))
        return self.sent().body, (self.sent().header("content-type") or [""])[0]

    def parts(self, **options: Any) -> list[tuple[str | None, str | None, str, bytes]]:
        """Return field, file name, type and content of each part of a form."""
        body, kind = self.posted(**options)
        message: Any = message_from_bytes(b"Content-Type: %b\n\n%b" % (kind.encode(), body or b""))
        return [
            (
                part.get_param("name", header="content-disposition"),
                part.get_param("filename", header="content-disposition"),
                part.get_content_type(),
                part.get_payload(decode=True),
            )
            for part in message.get_payload()
        ]

    def test_in_memory(self) -> None:
        """Anything with bytes is sent as it is."""
        for data in (b"x", bytearray(b"x"), memoryview(b"x"), "x"):
            self.assertEqual(self.posted(data=data), (b"x", ""))
        self.assertEqual(self.posted(data=b""), (None, ""))
        self.assertEqual(self.posted(data=None), (None, ""))

    def test_forms(self) -> None:
        """Forms have numbers, truth values and several values of a name; None is no value."""
        form = {"a": [1, 2.5], "b": True, "c": None, "d": "ü &", "e": b"\xff"}
        kind = "application/x-www-form-urlencoded"
        expected = b"a=1&a=2.5&b=true&d=%C3%BC+%26&e=%FF"
        self.assertEqual(self.posted(data=form), (expected, kind))
        self.assertEqual(self.posted(data=list(form.items())), (expected, kind))
        own = {"Content-Type": "application/x-own"}
        self.assertEqual(self.posted(data=form, headers=own)[1], "application/x-own")

    def test_once(self) -> None:
        """Files, iterators and asynchronous ones are sent, and their iterators closed."""
        closed = []

        def pieces() -> Iterator[bytes | str]:
            try:
                yield from (b"a", "ü", b"", bytearray(b"b"))  # type: ignore[misc]  # on purpose
            finally:
                closed.append(1)

        async def async_pieces() -> AsyncIterator[bytes | str]:
            for piece in pieces():
                yield piece

        whole = "aüb".encode()
        for data in (pieces(), async_pieces(), io.BytesIO(whole), io.StringIO("aüb"), Readless()):
            self.assertEqual(self.posted(data=data), (whole, ""))
        self.assertEqual(closed, [1, 1])

    def test_relayed(self) -> None:
        """A streamed response is sent as it is read, and so is an asynchronous file."""
        source = Source()
        streamed = StreamedResponse(
            source.response, method="GET", url=URL, headers=HeaderFields(), attempts=1, age=None
        )
        source.send(b"ab")
        source.end(ResponseDone())
        self.assertEqual(self.posted(data=streamed), (b"ab", ""))
        self.assertEqual(self.posted(data=AsynchronousFile()), (b"ab", ""))

    def test_used_up(self) -> None:
        """A generator that has ended is a mistake, one without any piece an empty body."""

        async def async_pieces() -> AsyncIterator[bytes]:
            yield b"x"

        for data in ((piece for piece in (b"x",)), async_pieces()):
            self.assertEqual(self.posted(data=data), (b"x", ""))
            said = self.failureResultOf(self.start(self.client.post(URL, data=data)), ValueError)
            self.assertIn("data is a generator that is used up", str(said.value))
        self.assertEqual(self.posted(data=iter(())), (b"", ""))

    def test_not_repeated(self) -> None:
        """What is sent once is neither retried nor redirected."""
        self.answer(canned(503))
        response = self.run_now(self.client.put(URL, data=iter([b"x"])))
        self.assertEqual((response.status, response.attempts), (503, 1))
        self.answer(redirect(307, "/x"))
        self.assertEqual(self.run_now(self.client.put(URL, data=iter([b"x"]))).status, 307)
        self.assertEqual(len(self.fake.sent), 2)

    def test_orders(self) -> None:
        """A file is its content, or a tuple in the order of requests or of treq."""
        file = io.BytesIO(b"x")
        for value, expected in (
            (b"x", ("f", "application/octet-stream", b"x")),
            ("ü", ("f", "application/octet-stream", "ü".encode())),
            (SizedFile(b"x"), ("u.png", "image/png", b"x")),
            (("n.txt", b"x"), ("n.txt", "text/plain", b"x")),
            (("n", io.BytesIO(b"x"), "a/b"), ("n", "a/b", b"x")),
            (("n", "x", "a/b"), ("n", "a/b", b"x")),
            (("n", "a/b", io.BytesIO(b"x")), ("n", "a/b", b"x")),
            (("n", "a/b", b"x"), ("n", "a/b", b"x")),
            (("n.png", None, io.BytesIO(b"x")), ("n.png", "image/png", b"x")),
            ((None, "x"), (None, "text/plain", b"x")),
            (("n", file), ("n", "application/octet-stream", b"x")),
        ):
            with self.subTest(value=value):
                ((name, filename, kind, content),) = self.parts(files={"f": value})
                self.assertEqual((name, (filename, kind, content)), ("f", expected))

    def test_in_order(self) -> None:
        """Fields of the form come first, then files; pairs may repeat a name."""
        files = [("b", b"1"), ("a", ("n", b"2")), ("b", b"3")]
        found = self.parts(files=files, data=[("z", "0"), ("y", 4)])
        self.assertEqual(
            [(name, content) for name, _, _, content in found],
            [("z", b"0"), ("y", b"4"), ("b", b"1"), ("a", b"2"), ("b", b"3")],
        )

    def test_repeated_in_memory(self) -> None:
        """A form without open files is in memory, and can be repeated."""
        self.answer(redirect(307, "/x"), canned(200))
        self.run_now(self.client.post(URL, files={"f": b"x"}))
        first, second = self.fake.sent
        self.assertEqual(first.body, second.body)

    def test_names(self) -> None:
        """A name cannot end its line."""
        octets, _ = self.posted(files={"f": ("a\udcff.txt", b"x")})
        self.assertIn(b'filename="a\xff.txt"', octets or b"")
        body, _ = self.posted(files={'a"\r\nX: y': ('b"\n', b"x")})
        self.assertIn(b'name="a%22%0D%0AX: y"; filename="b%22%0A"\r\n', body or b"")

    def test_wrong_type(self) -> None:
        """A type with a line break is refused."""
        call = self.start(self.client.post(URL, files={"f": ("n", b"x", "a/b\r\nX: y")}))
        self.assertIn("must be like text/plain", str(self.failureResultOf(call, ValueError).value))


def quoted(name: str) -> bytes:
    """Return a name as browsers write it."""
    for character, escaped in (('"', "%22"), ("\r", "%0D"), ("\n", "%0A")):
        name = name.replace(character, escaped)
    return name.encode()


class AsynchronousFile:
    """A file whose ``read()`` is a coroutine function."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield await self.read()

    async def read(self, size: int = -1) -> bytes:
        """Return all of it."""
        return b"ab"


class Readless(io.RawIOBase):
    """A file that has neither a length nor a place, such as a pipe."""

    def __init__(self) -> None:
        self._pieces = ["aüb".encode()]

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return self._pieces.pop() if self._pieces else b""

    def tell(self) -> int:
        """Raise what a pipe does."""
        raise OSError(29, "Illegal seek")


class Consumer(StringTransport):
    """Pauses its producer after each write."""

    def __init__(self, producer: IBodyProducer) -> None:
        StringTransport.__init__(self)
        self.producing = producer

    def write(self, data: bytes) -> None:
        """Write, and pause."""
        StringTransport.write(self, data)
        self.producing.pauseProducing()


class PieceProducerTests(HttpTestCase):
    """:class:`PieceProducer`."""

    def produce(self, producer: PieceProducer) -> tuple[Consumer, Deferred[None]]:
        """Start a producer."""
        consumer = Consumer(producer)
        return consumer, producer.startProducing(cast(IConsumer, consumer))

    def test_paused(self) -> None:
        """The next piece is asked for when the consumer can take it."""
        asked = []

        def pieces() -> Iterator[bytes]:
            for piece in (b"a", b"b"):
                asked.append(piece)
                yield piece

        producer = PieceProducer(pieces())
        self.assertEqual(producer.length, UNKNOWN_LENGTH)
        consumer, done = self.produce(producer)
        self.assertEqual((asked, consumer.value()), ([b"a"], b"a"))
        producer.resumeProducing()
        self.assertNoResult(done)
        producer.resumeProducing()
        self.successResultOf(done)
        self.assertEqual(consumer.value(), b"ab")

    def test_waiting(self) -> None:
        """An asynchronous iterator may wait for its next piece."""
        waiting: Deferred[bytes] = Deferred()

        async def pieces() -> AsyncIterator[bytes]:
            yield await waiting

        consumer, done = self.produce(PieceProducer(pieces()))
        self.assertNoResult(done)
        waiting.callback(b"x")
        self.assertEqual(consumer.value(), b"x")

    def test_stopped(self) -> None:
        """One that is stopped closes its iterator, and does not fire."""
        for paused in (True, False):
            closed: list[int] = []

            async def pieces(closed: list[int] = closed) -> AsyncIterator[bytes]:
                try:
                    yield b"x"
                    await Deferred()
                finally:
                    closed.append(1)

            producer = PieceProducer(pieces())
            _, done = self.produce(producer)
            if not paused:
                producer.resumeProducing()
            producer.stopProducing()
            self.assertNoResult(done)
            self.assertEqual(closed, [1])

    def test_failures(self) -> None:
        """What the iterator raises, or returns that is no piece, ends the request."""

        def raising() -> Iterator[bytes]:
            yield b"x"
            raise LookupError

        producer = PieceProducer(raising())
        _, done = self.produce(producer)
        producer.resumeProducing()
        self.failureResultOf(done, LookupError)
        said = self.failureResultOf(self.produce(PieceProducer(iter([5])))[1], TypeError)
        self.assertIn("its pieces must be bytes or text, not an integer", str(said.value))

    def test_other_length(self) -> None:
        """A file that changes while it is sent ends the request."""
        for length, said in ((2, "grown"), (4, "shrunk")):
            producer = PieceProducer(file_pieces(io.BytesIO(b"abc")), length)
            _, done = self.produce(producer)
            producer.resumeProducing()
            self.assertIn(said, str(self.failureResultOf(done, ValueError).value))


class FormTests(SynchronousTestCase):
    """:class:`MultipartForm`."""

    def test_length(self) -> None:
        """The length is that of the pieces, and none with a file of unknown length."""
        file = io.BytesIO(b"0123456789")
        file.read(3)
        form = multipart_form([("a", "ü")], {"f": file, "g": b"x"}, "b")
        self.assertIsNone(form.in_memory())
        self.assertEqual(form.length(), len(b"".join(form.pieces())))
        for unknown in (Readless(), io.StringIO("ü")):
            form = multipart_form([], {"f": unknown}, "b")
            self.assertIsNone(form.length())
            self.assertIn("ü".encode(), b"".join(form.pieces()))

    @given(
        st.lists(
            st.tuples(
                st.text(max_size=5),
                st.none() | st.text(max_size=5),
                st.binary(max_size=20),
                st.booleans(),
            ),
            max_size=4,
        )
    )
    def test_read(self, files: list[tuple[str, str | None, bytes, bool]]) -> None:
        """What is written is read: names, and contents with any bytes, in their order."""
        values = [
            (field, (name, io.BytesIO(content) if opened else content))
            for field, name, content, opened in files
        ]
        form = multipart_form([], values, "B0UND")
        length = form.length()
        whole = b"".join(form.pieces())
        self.assertEqual(len(whole), length)
        *parts, end = whole.split(b"--B0UND")
        self.assertEqual(end, b"--\r\n")
        read = []
        for part in parts[1:]:
            head, _, content = part.partition(b"\r\n\r\n")
            names = re.fullmatch(
                rb'\r\nContent-Disposition: form-data; name="([^"]*)"(?:; filename="([^"]*)")?'
                rb"(\r\nContent-Type: [!-~]+)?",
                head,
            )
            assert names is not None
            read.append((names[1], names[2], content))
        written = [
            (quoted(field), None if name is None else quoted(name), content + b"\r\n")
            for field, name, content, _ in files
        ]
        self.assertEqual(read, written)

    def test_wrong_file(self) -> None:
        """What returns no bytes is refused."""

        class Odd:
            def read(self, size: int) -> Any:
                return [1]

        form = multipart_form([], {"f": Odd()}, "b")
        self.assertRaises(TypeError, list, form.pieces())
