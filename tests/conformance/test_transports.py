"""Twisted's own tests pass with our transport and our reactor in place of Twisted's."""

from __future__ import annotations

import pytest

from tests.conformance.transports import KNOWN, lost, run

# The rest of the script's modules takes minutes.
MODULES = (
    "twisted.internet.test.test_tcp",
    "twisted.internet.test.test_tls",
    "twisted.protocols.test.test_tls",
    "twisted.test.test_tcp",
)


def test_both_in_place() -> None:
    """Of the tests of TCP and TLS, those that fail with ours alone are known, with a reason."""
    pytest.importorskip("hamcrest", reason="Twisted's own tests need PyHamcrest")
    stock = run("stock", MODULES)
    assert sum(outcome == "success" for outcome in stock.values()) > 700
    assert lost("both", stock, run("both", MODULES)).keys() <= KNOWN.keys()
