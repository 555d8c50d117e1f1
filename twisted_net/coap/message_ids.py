"""Message IDs towards one CoAP peer: none is reused within its lifetime (RFC 7252 §4.4)."""

from __future__ import annotations

from collections import deque

COUNT = 65_536
"""Number of message IDs: they have 16 bits (RFC 7252 §3)."""

BLOCK = 1024
"""Message IDs that share one expiry: that of the last of them to expire."""


class MessageIds:
    """
    Allocates the message IDs of one peer in sequence (RFC 7252 §4.4).

    An ID is reused once its block of 1,024 IDs has expired, never within its own lifetime,
    however the messages are spread over time. A peer can be sent 65,536 messages at once, and
    63/64 of that in each lifetime after it: 261 confirmable messages a second with the default
    parameters, or 444 non-confirmable ones. At most 64 numbers are kept.

    :param first: where the sequence begins.
    :ivar expires: when the last of all allocated IDs expires.
    """

    __slots__ = ("_allocated", "_block_expires", "_blocks", "_next", "expires")

    def __init__(self, first: int) -> None:
        self._next = first % COUNT
        self._allocated = 0
        # When each block of the last round expires, oldest first; most peers never fill one.
        self._blocks: deque[float] | None = None
        self._block_expires = self.expires = float("-inf")

    def free_at(self) -> float:
        """Return the time from which the next ID can be used; it may be in the past."""
        blocks = self._blocks
        if blocks is None or self._allocated or len(blocks) < COUNT // BLOCK:
            return float("-inf")
        return blocks[0]

    def take(self, expires: float) -> int:
        """
        Allocate the next ID; do not call it before :meth:`free_at`.

        :param expires: end of the lifetime of the message that it is for.
        """
        if expires > self._block_expires:
            self._block_expires = expires
            self.expires = max(self.expires, expires)
        self._allocated += 1
        if self._allocated == BLOCK:
            if self._blocks is None:
                self._blocks = deque(maxlen=COUNT // BLOCK)
            self._blocks.append(self._block_expires)
            self._allocated = 0
            self._block_expires = float("-inf")
        message_id = self._next
        self._next = (message_id + 1) % COUNT
        return message_id
