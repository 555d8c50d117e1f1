"""Network ground shared by all wings: certificates, rate limits, turn scheduling."""

from __future__ import annotations
