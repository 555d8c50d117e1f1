"""A time is written the same way everywhere."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.ops.timestamps import iso_time


class IsoTimeTests(SynchronousTestCase):
    """:func:`iso_time`."""

    def test_times(self) -> None:
        """It is UTC with its offset, and always six digits of a second's parts."""
        for wall, text in (
            (0.0, "1970-01-01T00:00:00.000000+00:00"),
            (1795339800.123456, "2026-11-22T09:30:00.123456+00:00"),
        ):
            self.assertEqual(iso_time(wall), text)
