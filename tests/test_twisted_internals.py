"""What has changed in a class is found, and what has not is left alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.twisted_internals import changed


class Ours:
    """Stands for a class of Twisted's."""

    state = 0

    def act(self) -> int:
        """Touch a state and a builtin."""
        return len([self.state])


class ChangedTests(SynchronousTestCase):
    """:func:`changed` compares the names that a method touches."""

    def test_same(self) -> None:
        """The same names, in whatever order, are no change."""
        self.assertEqual(changed([(Ours, "act", "state  len")]), [])
        self.assertEqual(changed([]), [])

    def test_other_names(self) -> None:
        """A name more or a name less is a change."""
        for names in ("state", "state len other", ""):
            self.assertEqual(changed([(Ours, "act", names)]), ["Ours.act"])

    def test_gone(self) -> None:
        """A method that is gone, or is no function any more, is a change."""
        known = [(Ours, "gone", ""), (Ours, "act", "state len"), (Ours, "state", "")]
        self.assertEqual(changed(known), ["Ours.gone", "Ours.state"])
