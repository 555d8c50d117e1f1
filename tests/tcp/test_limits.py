"""Limits are checked where they are made, and none of them is endless."""

from __future__ import annotations

from math import inf, nan
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.loader import settings
from twisted_net.config.record import field_types, split_meta
from twisted_net.tcp.limits import Limits

TIMES = ("write_timeout", "idle_timeout", "command_timeout")


class LimitsTests(SynchronousTestCase):
    """:class:`Limits`, from Python and from a file."""

    def refused(self, **limits: Any) -> str:  # Any: fields of Limits, wrong ones too
        """Return the text of the refusal."""
        return str(self.assertRaises(ValueError, Limits, **limits))

    def test_defaults(self) -> None:
        """The defaults are within their bounds."""
        self.assertEqual(Limits(**{name: getattr(Limits(), name) for name in TIMES}), Limits())

    def test_at_the_bounds(self) -> None:
        """The least and the greatest values pass, and those beyond do not."""
        for name, annotation in field_types(Limits).items():
            meta = split_meta(annotation)[1]
            for bound, step in ((meta.ge, -1), (meta.le, 1)):
                if bound is not None:
                    limits: dict[str, Any] = {name: bound}  # Any: as above
                    self.assertEqual(getattr(Limits(**limits), name), bound)
                    self.refused(**{name: bound + step})

    def test_refusal(self) -> None:
        """A refusal names the field and what is allowed."""
        self.assertEqual(
            self.refused(max_line=63),
            "Limits.max_line must be an integer from 64 to 16777216, not 63",
        )

    def test_no_endless_times(self) -> None:
        """A time is neither infinite, nor no number, nor negative."""
        for name in TIMES:
            for seconds in (inf, nan, -1.0, -inf):
                self.assertIn(f"Limits.{name} must be a number", self.refused(**{name: seconds}))

    def test_described(self) -> None:
        """Each field has a description, which is the option's help."""
        for setting in settings(Limits()):
            self.assertTrue(setting.description, setting.key)
