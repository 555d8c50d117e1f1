"""The HTTP cache (RFC 9111): rules, agent, stores."""

from __future__ import annotations
