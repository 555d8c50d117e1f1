"""Plugin of Twisted: the endpoint ``fast:``. Imported whenever the plugin cache is stale."""

from __future__ import annotations

from twisted_net.tcp.endpoints import FastServerParser

fast = FastServerParser()
