"""Discovery of services on the local network by multicast announcements."""

from __future__ import annotations
