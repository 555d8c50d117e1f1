"""The HTTP client that retries and caches."""

from __future__ import annotations
