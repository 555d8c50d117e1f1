"""What is wrong with an announcement."""

from __future__ import annotations

from twisted_net.errors import TwistedNetError


class BadAnnouncement(TwistedNetError):
    """
    A datagram to a group of servers announces nothing that can be understood.

    :param reason: what is wrong with it.
    """

    code = "bad_announcement"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not an announcement: {reason}")
