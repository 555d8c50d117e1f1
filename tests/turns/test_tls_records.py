"""Records of TLS are cut into pieces of few, however they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.turns.tls_records import RECORD_HEADER, RecordCutter, has_alert


def record(size: int) -> bytes:
    """Return a record with so many bytes of content."""
    return b"\x17\x03\x03" + size.to_bytes(2) + b"x" * size


class RecordCutterTests(SynchronousTestCase):
    """:class:`RecordCutter` returns every byte once, and knows where records end."""

    @given(
        st.lists(st.integers(0, 40), max_size=30),
        st.lists(st.integers(1, 60), max_size=30),
        st.integers(1, 9),
    )
    def test_any_cut(self, sizes: list[int], cuts: list[int], limit: int) -> None:
        """No piece has more ends of records than it may, and all ends are counted."""
        stream = b"".join(map(record, sizes))
        cutter = RecordCutter()
        rest, taken, ends = stream, b"", 0
        for cut in [*cuts, len(stream)]:
            cutter.keep(rest[:cut])
            rest = rest[cut:]
            while cutter.ready:
                piece, ended = cutter.take(limit)
                self.assertTrue(piece)
                self.assertLessEqual(ended, limit)
                taken += piece
                ends += ended
            self.assertLess(len(cutter), RECORD_HEADER)
            self.assertEqual(cutter.take(limit), (b"", 0))
        self.assertEqual((taken, ends, len(cutter)), (stream, len(sizes), 0))

    def test_limit(self) -> None:
        """As many as the limit are one piece; one more is the next."""
        cutter = RecordCutter()
        cutter.keep(record(1) * 4)
        self.assertEqual(cutter.take(4), (record(1) * 4, 4))
        self.assertFalse(cutter.ready)
        cutter.keep(record(1) * 5)
        self.assertEqual(cutter.take(4), (record(1) * 4, 4))
        self.assertEqual(len(cutter), RECORD_HEADER + 1)
        self.assertEqual(cutter.take(4), (record(1), 1))

    def test_unfinished(self) -> None:
        """The beginning of a record is passed on at once, but for a part of its header."""
        cutter = RecordCutter()
        cutter.keep(record(9)[:4])
        self.assertFalse(cutter.ready)
        cutter.keep(record(9)[4:7])
        self.assertEqual(cutter.take(1), (record(9)[:7], 0))
        cutter.keep(record(9)[7:] + record(0))
        self.assertEqual(cutter.take(1), (record(9)[7:], 1))
        cutter.clear()
        self.assertEqual((cutter.ready, len(cutter)), (False, 0))


class AlertTests(SynchronousTestCase):
    """An alert is found by its header, before it is decrypted."""

    def test_kinds(self) -> None:
        """One of TLS 1.2 is found, and one of TLS 1.3 that is sent as data; data is none."""
        alerts = (b"\x15\x03\x03\x00\x1a" + b"x" * 26, record(19))
        for alert in alerts:
            self.assertTrue(has_alert(alert))
            self.assertTrue(has_alert(record(18) + record(300) + alert[:RECORD_HEADER]))
            self.assertFalse(has_alert(alert[: RECORD_HEADER - 1]))
            self.assertTrue(has_alert(b"abc" + alert, 3))
            self.assertFalse(has_alert(record(100) + b"x", 1000))
        self.assertFalse(has_alert(record(18) + record(20) + record(200)))

    def test_kept(self) -> None:
        """It is found after the rest of a record, in what is kept and in what is to come."""
        cutter = RecordCutter()
        cutter.keep(record(300)[:200])
        cutter.take(1)
        self.assertEqual(cutter.missing, 105)
        rest = record(300)[200:] + record(19)
        self.assertTrue(cutter.has_alert(rest))
        self.assertFalse(cutter.has_alert(rest[:109]))
        cutter.keep(rest[:106])
        self.assertTrue(cutter.has_alert(rest[106:]))
