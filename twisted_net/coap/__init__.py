"""CoAP (RFC 7252): server, client and message layer."""

from __future__ import annotations
