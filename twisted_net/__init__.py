"""Event-driven network server and toolkit on Twisted: TCP commands, UDP datagrams, HTTP client."""

from __future__ import annotations

__version__ = "0.1.0"
