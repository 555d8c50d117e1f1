"""DTLS 1.2 over UDP: server, client, sessions."""

from __future__ import annotations
