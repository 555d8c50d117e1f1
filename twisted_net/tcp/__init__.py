"""The command server over TCP: lines in, JSON lines out."""

from __future__ import annotations
