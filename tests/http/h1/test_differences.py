"""Other parsers make the same of a response as ours, but where a table says why not."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.h1.differences import PARSERS, compare, unexplained
from tests.http.h1.hostile import ROWS
from tests.http.h1.others import Verdict
from tests.http.h1.streams import HELLO, LENGTH, response

COUNT = 2000
"""
Responses that are compared, the same ones each time.

``python -m tests.http.h1.differences 100000 SEED`` compares more, and others.
"""


class DifferenceTests(SynchronousTestCase):
    """h11 and aiohttp's parser, and ours."""

    def test_rows(self) -> None:
        """They agree on the rows of the table of responses, or there is a reason."""
        found = [one for row in ROWS if len(row.stream) < 1000 for one in unexplained(row.stream)]
        self.assertEqual(found, [])

    def test_mutated(self) -> None:
        """They agree on small changes of these."""
        self.assertEqual(compare(COUNT, seed=0), [])

    def test_found(self) -> None:
        """They agree on what larger comparisons have found."""
        for stream in (
            response(b"Transfer-Encoding:\r\n" + LENGTH + b"\n", HELLO),
            response(b"Content-Length:\r\n 5, 5\r\n"),
            response(b"Connection: close\r\n", b"", b"HTTP/1.1 103 E") + response(),
        ):
            self.assertEqual([*unexplained(stream)], [])

    def test_plain(self) -> None:
        """All of them read what is plain: the comparison does not pass for want of verdicts."""
        for name in ("plain", "chunked", "103 before it", "until the connection ends"):
            [row] = [row for row in ROWS if row.name == name]
            for parser in PARSERS.values():
                self.assertEqual(parser(row.stream), Verdict(200, b"hello"))
