"""Counters of a CoAP message layer."""

from __future__ import annotations


class MessageCounts:
    """
    Counters of a message layer since its start; they only grow.

    :ivar received: datagrams, of all kinds.
    :ivar malformed: those of them that are not CoAP messages, or have too many options.
    :ivar duplicates: those that repeat a message within its lifetime.
    :ivar peers_refused: those of new peers, dropped as ``max_peers`` others were not idle.
    :ivar sent: datagrams.
    :ivar retransmissions: those of them that repeat a confirmable message of ours.
    :ivar timeouts: messages of ours that ended without acknowledgement or response.
    :ivar resets: messages of ours that the peer rejected with a Reset.
    :ivar responses_dropped: responses to non-confirmable requests, and last notifications, that
        were not sent, as all message IDs towards the peer were in use.
    """

    __slots__ = (
        "duplicates",
        "malformed",
        "peers_refused",
        "received",
        "resets",
        "responses_dropped",
        "retransmissions",
        "sent",
        "timeouts",
    )

    def __init__(self) -> None:
        self.received = 0
        self.malformed = 0
        self.duplicates = 0
        self.peers_refused = 0
        self.sent = 0
        self.retransmissions = 0
        self.timeouts = 0
        self.resets = 0
        self.responses_dropped = 0
