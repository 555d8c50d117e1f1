"""The imports of parts of :mod:`twisted_net.http`."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import twisted_net.http
from twisted_net.errors import FetchError
from twisted_net.http import errors


def imported_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after *statement*."""
    code = f"{statement}; import sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


class ImportTests(SynchronousTestCase):
    """Rules can be used without treq and without Twisted's HTTP client."""

    def test_rules(self) -> None:
        """The rules of the cache, retries and redirects import neither."""
        modules = "cache.rules cache.settings retry.policy retry.settings redirects settings"
        for module in modules.split():
            with self.subTest(module=module):
                names = imported_by(f"import twisted_net.http.{module}")
                self.assertEqual(names & {"treq", "twisted.web", "twisted.internet"}, set())

    def test_client(self) -> None:
        """The client imports no reactor."""
        names = imported_by("from twisted_net.http import Client")
        self.assertIn("twisted_net.http.client", names)
        self.assertNotIn("twisted.internet.reactor", names)

    def test_errors(self) -> None:
        """All errors of a call are public."""
        leaves = {
            name
            for name, value in vars(errors).items()
            if isinstance(value, type) and issubclass(value, FetchError) and value is not FetchError
        }
        self.assertEqual(leaves - set(dir(twisted_net.http)), set())
