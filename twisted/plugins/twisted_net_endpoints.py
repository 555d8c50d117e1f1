"""Shows the endpoint ``fast:`` to Twisted; imported at every stale start."""

from __future__ import annotations

from twisted_net.tcp.endpoints import FastServerParser

fast = FastServerParser()
