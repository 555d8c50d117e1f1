"""Runs the tests on the quiet reactor: ``python -m pytest -p tests.quiet``."""

from __future__ import annotations

from twisted_net.quiet_reactor import install

install()
