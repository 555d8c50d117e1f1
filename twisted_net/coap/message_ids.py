"""Message IDs towards one CoAP peer, of which none is used twice within its lifetime (RFC 7252)."""

from __future__ import annotations

from collections import deque

COUNT = 65_536
"""Message IDs that there are: they have 16 bits (RFC 7252 §3)."""

BLOCK = 1024
"""Message IDs whose lifetimes are kept as one: that of the last to expire."""


class MessageIds:
    """
    Hands out the message IDs of one peer in sequence (RFC 7252 §4.4).

    An ID is used again once its block of 1,024 IDs has expired, never within its own lifetime,
    however the messages are spread over time. A peer can be sent 65,536 messages at once, and
    63/64 of that in each lifetime after it: 261 confirmable messages a second with the default
    parameters, or 444 non-confirmable ones. Kept are at most 64 numbers.

    :param first: where the sequence begins.
    :ivar expires: when the last ID to expire does, of all that were handed out.
    """

    __slots__ = ("_block_expires", "_blocks", "_next", "_taken", "expires")

    def __init__(self, first: int) -> None:
        self._next = first % COUNT
        self._taken = 0
        # When each block of the last round expires, oldest first; most peers never fill one.
        self._blocks: deque[float] | None = None
        self._block_expires = self.expires = float("-inf")

    def free_at(self) -> float:
        """Return the time from which the next ID may be used; it may have passed long ago."""
        blocks = self._blocks
        if blocks is None or self._taken or len(blocks) < COUNT // BLOCK:
            return float("-inf")
        return blocks[0]

    def take(self, expires: float) -> int:
        """
        Return the next ID; do not call it before :meth:`free_at`.

        :param expires: when the message it is for has reached the end of its lifetime.
        """
        if expires > self._block_expires:
            self._block_expires = expires
            self.expires = max(self.expires, expires)
        self._taken += 1
        if self._taken == BLOCK:
            if self._blocks is None:
                self._blocks = deque(maxlen=COUNT // BLOCK)
            self._blocks.append(self._block_expires)
            self._taken = 0
            self._block_expires = float("-inf")
        message_id = self._next
        self._next = (message_id + 1) % COUNT
        return message_id
