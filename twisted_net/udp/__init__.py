"""The datagram server over UDP."""

from __future__ import annotations
