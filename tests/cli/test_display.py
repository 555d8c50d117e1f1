"""Tests of :mod:`twisted_net.cli.display`; :mod:`tests.cli.test_coap` has more."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.cli.display import ProgressDisplay, TerminalWriter, bar, terminal_body


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class BarTests(SynchronousTestCase):
    """The bar of a transfer."""

    def test_bar(self) -> None:
        """Its length and the percentage are the share."""
        for done, shown in (
            (0, "[                        ]   0%"),
            (50, "[############            ]  50%"),
            (100, "[########################] 100%"),
            (200, "[########################] 100%"),
        ):
            self.assertEqual(bar(done, 100), shown)

    def test_shown(self) -> None:
        """It is shown on a terminal, where the size is known, and for long transfers only."""
        clock = Clock()
        for screen, shown in ((Terminal(), True), (io.StringIO(), False)):
            display = ProgressDisplay(screen, clock.seconds, terminal_only=True)
            display("received", 5, 10)
            self.assertEqual(screen.getvalue(), "")
            clock.advance(10.0)
            display("received", 5, 10)
            display.end()
            self.assertEqual("received 5 of 10 bytes [####" in screen.getvalue(), shown)
            self.assertEqual(screen.getvalue().endswith("\r\x1b[K"), shown)


class TerminalWriterTests(SynchronousTestCase):
    """:class:`TerminalWriter`."""

    @given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\xc3", b"\xbc", b"\x1b", b"\t"])))
    def test_any_cut(self, pieces: list[bytes]) -> None:
        """A body in pieces is shown as the whole, and its last line is ended."""
        writer = TerminalWriter()
        shown = b"".join(map(writer.feed, pieces)) + writer.feed(b"", final=True)
        whole = terminal_body(b"".join(pieces))
        end = b"\n" if whole and not whole.endswith(b"\n") else b""
        self.assertEqual(shown, whole + end)
