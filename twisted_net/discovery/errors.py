"""Errors of discovery."""

from __future__ import annotations

from twisted_net.errors import TwistedNetError


class BadAnnouncement(TwistedNetError):
    """
    A datagram to a discovery group is not a valid announcement.

    :param reason: why.
    """

    code = "bad_announcement"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not an announcement: {reason}")
