from __future__ import annotations

from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.cli.subcommands import SUBCOMMANDS


class SubcommandsTests(SynchronousTestCase):
    """:data:`SUBCOMMANDS` names existing functions."""

    def test_functions(self) -> None:
        """Each subcommand has a function with a docstring, in a module of its folder."""
        for name, place in SUBCOMMANDS.items():
            with self.subTest(subcommand=name):
                module, _, function = place.partition(":")
                found = getattr(import_module(f"twisted_net.cli.{module}"), function)
                self.assertTrue(callable(found))
                self.assertTrue(found.__doc__)
