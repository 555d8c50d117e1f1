"""Whatever a server sends, the result is that of RFC 9112, however it is cut."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.h1.hostile import ROWS, Row, fields
from tests.http.h1.streams import Outcome, cuts, read

EVERY_CUT = 400
"""Bytes of a stream up to which it is cut everywhere."""


class HostileTests(SynchronousTestCase):
    """The responses of the table."""

    def check(self, row: Row, outcome: Outcome) -> None:
        """Check what was made of one."""
        if row.body is None:
            assert outcome.error is not None, outcome
            self.assertIn(row.error, outcome.error[1])
            self.assertTrue(outcome.error[1].isprintable())
            self.assertLess(len(outcome.error[1]), 200)
        else:
            self.assertIsNone(outcome.error)
            self.assertTrue(outcome.complete)
            self.assertEqual(outcome.body, row.body)
        self.assertEqual(outcome.reusable, row.kept)

    def test_rows(self) -> None:
        """Each is read or refused, with an error that shows what was sent."""
        for row in ROWS:
            with self.subTest(name=row.name):
                self.check(row, read([row.stream]))

    def test_any_cut(self) -> None:
        """The result is the same however it is cut."""
        for row in ROWS:
            whole = read([row.stream])
            for pieces in cuts(row.stream) if len(row.stream) <= EVERY_CUT else coarse(row.stream):
                with self.subTest(name=row.name, sizes=[len(piece) for piece in pieces][:9]):
                    self.assertEqual(read(pieces), whole)

    def test_secrets(self) -> None:
        """An error shows no value of a field."""
        for line in (b"Set-Cookie : secret", b"Set-Cookie: secret\0", b"Set Cookie:secret"):
            outcome = read([fields(line + b"\r\n")])
            assert outcome.error is not None
            self.assertNotIn("secret", outcome.error[1])

    def test_names(self) -> None:
        """No row is there twice."""
        streams = [row.stream for row in ROWS]
        self.assertEqual(len(set(streams)), len(streams))


def coarse(stream: bytes) -> list[list[bytes]]:
    """Return a long stream in pieces of some sizes."""
    sizes = (7, 61, 4096) if len(stream) < 100_000 else (4096, 65_536)
    return [[stream[i : i + n] for i in range(0, len(stream), n)] for n in sizes]
