"""The reader against a slow, obvious one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.http.h1.hostile import ROWS
from tests.http.h1.model import Model, Request
from tests.http.h1.mutations import mutated
from tests.http.h1.streams import Outcome, read
from twisted_net.http.errors import BadResponse, BodyTooLarge, ConnectionBroken

VERDICTS = {
    BadResponse: "refused",
    ConnectionBroken: "cut",
    BodyTooLarge: "too large",
}

REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["GET", "HEAD", "POST", "CONNECT"]),
    max_head=st.sampled_from([80, 200, 2**16]),
    max_body=st.sampled_from([None, 0, 4, 5, 2**20]),
    close=st.booleans(),
)

ROW_STREAMS = [row.stream for row in ROWS if len(row.stream) < 2000]

PARTS = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No\r\n"),
        *(b"HTTP/1.1 304 No\r\n", b"HTTP/1.1 100 Go\r\n", b"HTTP/1.1 101 Up\r\n"),
        *(b"Content-Length: 5\r\n", b"content-length:3\r\n", b"Content-Length: 0\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"X: y\r\n", b"X: y \n"),
        *(b"Connection: x, Keep-Alive\r\n", b"connection:,CLOSE ,\r\n", b" folded\r\n"),
        *(b"\r\n", b"\n", b"\r", b"hello", b"5\r\nhello\r\n", b"0\r\n", b"1;x\r\na\r\n", b"\x00"),
    ]
)
STREAMS = st.one_of(
    st.lists(PARTS, max_size=12).map(b"".join),
    st.builds(mutated, st.sampled_from(ROW_STREAMS), st.integers(0, 2**32)),
)


def pieces_of(stream: bytes, marks: list[int]) -> list[bytes]:
    """Cut a stream at some places."""
    ends = sorted({mark % (len(stream) + 1) for mark in marks} | {len(stream)})
    return [stream[i:j] for i, j in zip([0, *ends], ends, strict=False)]


class ModelTests(SynchronousTestCase):
    """:class:`ResponseReader` makes of any stream what :class:`Model` does."""

    def check(self, outcome: Outcome, model: Model) -> None:
        """Compare what the two have made of a stream."""
        verdict = "complete" if outcome.error is None else VERDICTS[outcome.error[0]]
        self.assertEqual(verdict, model.verdict)
        self.assertEqual(outcome.body.decode("latin-1"), model.body)
        self.assertEqual(outcome.continued, 100 in model.interim)
        self.assertEqual(outcome.surplus.decode("latin-1"), model.surplus)
        self.assertEqual(outcome.reusable, model.reusable)
        head = model.head
        self.assertEqual(outcome.status, None if head is None else head.status)
        if head is not None:
            self.assertEqual((outcome.reason, list(outcome.pairs)), (head.reason, head.fields))

    def read(self, stream: bytes, marks: list[int], request: Request) -> Outcome:
        """Read a stream that is cut at some places."""
        return read(
            pieces_of(stream, marks),
            method=request.method,
            max_head=request.max_head,
            max_body=request.max_body,
            close=request.close,
        )

    @settings(max_examples=500)
    @given(STREAMS, st.lists(st.integers(0, 1000), max_size=5), REQUESTS)
    def test_agrees(self, stream: bytes, marks: list[int], request: Request) -> None:
        """Result and verdict are the same; and the same error, however the stream is cut."""
        whole = self.read(stream, [], request)
        self.check(whole, Model(stream, request))
        self.assertEqual(self.read(stream, marks, request), whole)

    def test_rows(self) -> None:
        """They agree on the rows of the table, for each kind of request."""
        for row in ROWS:
            if len(row.stream) < 20_000:
                for method in ("GET", "HEAD", "CONNECT"):
                    with self.subTest(name=row.name, method=method):
                        request = Request(method)
                        self.check(self.read(row.stream, [], request), Model(row.stream, request))
